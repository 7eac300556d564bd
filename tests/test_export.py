"""Exports are checked by two programs that share no code, and both refuse a chain that breaks any one rule."""

import contextlib
import io
import json
import random
import re
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

import cases
import mutants
import signer as keys
import verifier
from chain_builder import ChainBuilder
from program import ROOT, Receiver, run



@dataclass
class Verdict:
    returncode: int
    stdout: str


def verify(path):
    """Runs the verifier, without the seconds that a hundred new Python processes take."""
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        code = verifier.verify.main([str(path)])
    return Verdict(code, stdout.getvalue())


def write(folder, export):
    path = folder / "chain.ndjson"
    path.write_bytes(export)
    return path


def lines_of(path):
    with open(path, "rb") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_refuses_an_export_that_breaks_one_rule(tmp_path, name):
    build, field, words = mutants.MUTANTS[name]
    path = write(tmp_path, build())

    verdict = verify(path)
    assert verdict.returncode == 3, verdict.stdout
    assert re.match(rf"invalid: (block \d+, )?(transaction \d+, )?({field})\b.*:", verdict.stdout), verdict.stdout

    imported = run("chain", "import", path, folder=tmp_path)
    assert imported.returncode in (1, 3), imported.stderr
    assert re.search(words, imported.stderr, re.IGNORECASE), imported.stderr
    assert "panicked" not in imported.stderr

    # Nothing of a refused chain stays behind: the store is still empty and takes a good one.
    good = write(tmp_path, mutants.ed25519_and_p256())
    assert run("chain", "import", good, folder=tmp_path).returncode == 0


@pytest.mark.parametrize("name", mutants.VALID)
def test_takes_an_odd_but_valid_export(tmp_path, name):
    path = write(tmp_path, mutants.VALID[name]())
    verdict = verify(path)
    assert verdict.returncode == 0, verdict.stdout

    imported = run("chain", "import", path, folder=tmp_path)
    assert imported.returncode == 0, imported.stderr
    validated = run("chain", "validate", folder=tmp_path)
    assert validated.returncode == 0, validated.stderr
    again = tmp_path / "again.ndjson"
    assert run("chain", "export", "--out", again, folder=tmp_path).returncode == 0
    # The builder's exports end as those of earlier versions do: with a block.
    *lines, end = lines_of(again)
    assert lines == lines_of(path)
    assert end["type"] == "end"


@pytest.mark.parametrize("change", [{"blocks": 1}, {"transactions": 1}, {"tip": "00" * 32}, {"more": 1}, {}])
def test_refuses_an_end_that_is_not_true_or_not_the_last(real_export, tmp_path, change):
    *lines, end = real_export[0].read_bytes().splitlines(keepends=True)
    ending = json.dumps(json.loads(end) | change).encode() + b"\n" if change else end + end
    path = write(tmp_path, b"".join([*lines, ending]))
    assert verify(path).returncode == 3
    imported = run("chain", "import", path, folder=tmp_path)
    assert imported.returncode == 3, imported.stderr
    assert f"line {len(lines) + (1 if change else 2)}:" in imported.stderr


def test_verifier_counts_pruned_transactions(tmp_path):
    verdict = verify(write(tmp_path, mutants.with_pruned()))
    assert verdict.returncode == 0
    assert "1 transactions are pruned" in verdict.stdout


def test_import_needs_an_empty_store(tmp_path):
    path = write(tmp_path, mutants.ed25519_and_p256())
    assert run("chain", "import", path, folder=tmp_path).returncode == 0
    before = run("chain", "export", "--out", "-", folder=tmp_path).stdout
    again = run("chain", "import", write(tmp_path, ChainBuilder().export()), folder=tmp_path)
    assert again.returncode == 1
    assert "empty" in again.stderr
    assert run("chain", "export", "--out", "-", folder=tmp_path).stdout == before


@pytest.fixture(scope="module")
def real_export(tmp_path_factory):
    """The export of a chain that a receiver made, of readings by every kind of key and in every spelling."""
    folder = tmp_path_factory.mktemp("export")
    with Receiver(folder, TRANSACTIONS_PER_BLOCK=3) as receiver:
        rsa = keys.rsa_key()
        devices = [keys.new_ed25519(), keys.new_ec(), keys.rsa_signer(rsa), keys.rsa_signer(rsa, keys.pss(32))]
        for _ in range(6):
            for device in devices:
                assert receiver.send(f"[{device.item(cases.reading())}]").status_code == 200
        for _, text, ours, *_ in cases.LITERALS:
            if ours == "200":
                assert receiver.send(f"[{devices[0].item(text)}]").status_code == 200
        accepted = 24 + sum(ours == "200" for _, _, ours, *_ in cases.LITERALS)
        assert receiver.terminate() == 0
    path = folder / "chain.ndjson"
    exported = run("chain", "export", "--out", path, folder=folder)
    assert exported.returncode == 0, exported.stderr
    return path, accepted


def test_verifies_what_a_receiver_made(real_export):
    path, accepted = real_export
    verdict = subprocess.run([sys.executable, verifier.PATH, path], capture_output=True, text=True, timeout=120)
    assert verdict.returncode == 0, verdict.stdout
    # All that was accepted, but for the last ones that do not yet fill a block, and the genesis transaction.
    sealed = accepted // 3 * 3
    assert f"valid: {sealed // 3 + 1} blocks, {sealed + 1} transactions" in verdict.stdout


def test_a_chain_is_the_same_after_export_and_import(real_export, tmp_path, database_url):
    path, _ = real_export
    settings = {"DATABASE_URL": database_url}
    assert run("chain", "import", path, folder=tmp_path, settings=settings).returncode == 0
    again = run("chain", "export", "--out", "-", folder=tmp_path, settings=settings)
    assert again.stdout == path.read_text()
    # A receiver goes on where the imported chain ends.
    with Receiver(tmp_path, **settings) as receiver:
        height = len(receiver.chain())
        answer = receiver.send(f"[{keys.new_ed25519().item(cases.reading())}]")
        assert answer.json()["items"][0]["height"] == height


def test_verifier_refuses_every_changed_character(real_export, tmp_path):
    path, _ = real_export
    export = path.read_bytes()
    randomness = random.Random(7)
    for _ in range(200):
        place = randomness.randrange(len(export))
        changed = randomness.choice([c for c in b"0123456789abcdef" if c != export[place]])
        mutant = export[:place] + bytes([changed]) + export[place + 1 :]
        with pytest.raises(verifier.verify.Fault):
            verifier.verify.Verifier().read(mutant.splitlines(keepends=True))


def test_the_steps_of_the_documentation_work(real_export, tmp_path):
    """Runs the Python in docs/verify-by-hand.md for an export, from top to bottom, on an export of a receiver."""
    path, accepted = real_export
    snippets = snippets_by_hand(0)
    assert len(snippets) >= 5
    write(tmp_path, path.read_bytes())
    script = tmp_path / "by_hand.py"
    script.write_text("\n".join(snippets))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{accepted // 3 * 3 + 1} transactions" in done.stdout


def snippets_by_hand(part):
    """The Python of docs/verify-by-hand.md: that for an export (0) or that for a receipt (1)."""
    parts = (ROOT / "docs/verify-by-hand.md").read_text().split("\n## A receipt\n")
    assert len(parts) == 2
    return re.findall(r"```python\n(.*?)```", parts[part], re.DOTALL)


def test_the_steps_of_the_documentation_work_on_a_receipt(tmp_path):
    """Runs the Python in docs/verify-by-hand.md for a receipt, on one of a receiver."""
    snippets = snippets_by_hand(1)
    assert len(snippets) >= 5
    script = tmp_path / "by_hand.py"
    script.write_text("\n".join(snippets))
    by_hand = [sys.executable, script]
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=3) as receiver:
        device = keys.new_ed25519()
        readings = ",".join(device.item(cases.reading()) for _ in range(6))
        assert receiver.send(f"[{readings}]").status_code == 200
        blocks = receiver.get("/v1/blocks?include=transactions").json()["blocks"]
        (tmp_path / "log_key.txt").write_text(receiver.get("/v1/status").json()["log_key"])
        sealed = [transaction for block in blocks[1:] for transaction in block["transactions"]]
        assert len(sealed) == 6
        for transaction in sealed:
            receipt = receiver.get(f"/v1/transactions/{transaction['id']}/receipt").text
            (tmp_path / "reading.receipt.json").write_text(receipt)
            done = subprocess.run(by_hand, cwd=tmp_path, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("block ") and transaction["payload"] in done.stdout
        # One letter of the text, and no path leads to the root.
        (tmp_path / "reading.receipt.json").write_text(receipt.replace("distance", "Distance"))
        assert subprocess.run(by_hand, cwd=tmp_path, capture_output=True, timeout=120).returncode == 1


@pytest.fixture(scope="module")
def long_export(tmp_path_factory):
    """The export of a chain of 3,000 blocks, which an import writes in several commits."""
    folder = tmp_path_factory.mktemp("long")
    with Receiver(folder, DIFFICULTY=0) as receiver:
        devices = [keys.new_ed25519(), keys.new_ec()]
        for _ in range(3):
            items = [devices[number % 2].item(cases.reading()) for number in range(1000)]
            assert receiver.send(f"[{','.join(items)}]").status_code == 200
        assert receiver.terminate() == 0
    path = folder / "chain.ndjson"
    assert run("chain", "export", "--out", path, folder=folder).returncode == 0
    return path


def height(folder):
    shown = run("chain", "show", "--json", folder=folder)
    return json.loads(shown.stdout)["height"] if shown.returncode == 0 else None


def test_an_import_that_was_killed_is_gone_on_with(long_export, tmp_path):
    heights = []
    for attempt in range(1, 100):
        # The system kills who writes a file beyond this, wherever in its work that is.
        size = attempt * 200_000

        def limit_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        imported = run("chain", "import", long_export, folder=tmp_path, preexec_fn=limit_files)
        if imported.returncode == 0:
            break
        assert imported.returncode == -signal.SIGXFSZ, imported.stderr
        heights.append(height(tmp_path))
        assert heights[-1] is None or run("chain", "validate", folder=tmp_path).returncode == 0
    else:
        raise AssertionError(f"no import came to its end: {heights}")
    reached = [it for it in heights if it is not None]
    assert reached == sorted(reached) and any(0 < it < 3000 for it in reached), heights
    assert run("chain", "export", "--out", "-", folder=tmp_path).stdout == long_export.read_text()


def test_an_import_goes_on_with_no_other_chain(long_export, tmp_path):
    other = write(tmp_path, mutants.ed25519_and_p256())
    assert run("chain", "import", other, folder=tmp_path).returncode == 0
    before = run("chain", "export", "--out", "-", folder=tmp_path).stdout
    refused = run("chain", "import", long_export, folder=tmp_path)
    assert refused.returncode == 1 and "holds a chain already" in refused.stderr
    assert run("chain", "export", "--out", "-", folder=tmp_path).stdout == before
