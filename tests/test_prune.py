"""Pruning: payloads are gone for ever, all that is left still proves itself, and the chain says who did it and why."""

import base64
import hashlib
import json
import os
import pty
import random
import signal
import sqlite3
import subprocess
import time

import psycopg2
import pytest

import cases
import mutants
import signer as keys
from program import BINARY, Receiver, environment, run, wait_until
from test_export import verify, write

REASON = 'its owner asked for it: "case 7"'


def prune(folder, database_url, key_id, *more, **options):
    words = ("chain", "prune", "--key", key_id, "--reason", REASON, "--json", *more)
    return run(*words, folder=folder, settings={"DATABASE_URL": database_url}, **options)


def pruned(folder, database_url, key_id, *more):
    answer = prune(folder, database_url, key_id, "--yes", *more)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def export(folder, database_url):
    """Returns the blocks of an export that the verifier finds valid, and what it said."""
    path = folder / "chain.ndjson"
    exported = run(
        "chain", "export", "--out", path, "--force", folder=folder, settings={"DATABASE_URL": database_url}
    )
    assert exported.returncode == 0, exported.stderr
    verdict = verify(path)
    assert verdict.returncode == 0, verdict.stdout
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["type"] == "block"], verdict.stdout


def validate(folder, database_url):
    validated = run("chain", "validate", "--json", folder=folder, settings={"DATABASE_URL": database_url})
    return validated.returncode, json.loads(validated.stdout)


def execute(folder, database_url, sql):
    """Runs SQL on the tables, as somebody with a tool of the database could."""
    if database_url.startswith("sqlite:"):
        connection = sqlite3.connect(folder / "data" / database_url.removeprefix("sqlite:"))
        connection.execute(sql)
        connection.commit()
    else:
        connection = psycopg2.connect(database_url)
        with connection, connection.cursor() as cursor:
            cursor.execute("SET search_path = liotbchain")
            cursor.execute(sql)
    connection.close()


def long_text(number):
    """Text that no database compresses to nothing."""
    noise = base64.b64encode(random.Random(number).randbytes(3000)).decode()
    return json.dumps({"number": number, "secret": f"secret-{number}-{noise}"})


class Readings:
    """Two devices that sent readings in turn, the long ones of the first to be pruned."""

    def __init__(self, receiver, count, text=long_text, at_once=50):
        self.one, self.two = keys.new_ed25519(), keys.new_ed25519()
        self.texts = [text(number) for number in range(count)]
        self.others = [json.dumps({"other": next(cases.numbers)}) for _ in range(count)]
        self.key_id = self.one.key_id.hex()
        for start in range(0, count, at_once):
            mine, others = self.texts[start : start + at_once], self.others[start : start + at_once]
            pairs = zip(map(self.one.item, mine), map(self.two.item, others))
            answer = receiver.send("[" + ",".join(item for pair in pairs for item in pair) + "]")
            assert answer.status_code == 200, answer.text
        self.last_height = answer.json()["items"][-1]["height"]

    def check(self, blocks, dropped):
        """The first so many of the first device are pruned, and everything else is there, letter by letter."""
        of = lambda key: [it for block in blocks for it in block["transactions"] if it["key_id"] == key.key_id.hex()]
        mine = of(self.one)
        assert [it["sequence"] for it in mine] == list(range(len(self.texts)))
        for number, (it, text) in enumerate(zip(mine, self.texts)):
            payload, signature = text.encode(), self.one.sign(text.encode())
            content = len(payload).to_bytes(4) + payload + len(signature).to_bytes(2) + signature
            if number < dropped:
                content_hash = hashlib.sha256(content).hexdigest()
                expected = {"key_id": self.key_id, "sequence": number, "content_hash": content_hash, "pruned": True}
                assert it == expected
            else:
                assert it["payload"] == text
        assert [it["payload"] for it in of(self.two)] == self.others


def test_prunes_a_device_and_nothing_else(tmp_path, database_url):
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=2) as receiver:
        readings = Readings(receiver, 300)
        assert receiver.terminate() == 0
    blocks, _ = export(tmp_path, database_url)
    key_id, texts = readings.key_id, readings.texts

    dry = json.loads(prune(tmp_path, database_url, key_id, "--before", 201, "--dry-run").stdout)
    assert (dry["transactions"], dry["from_sequence"], dry["to_sequence"]) == (200, 0, 199)
    assert dry["bytes"] == sum(len(text) + 64 for text in texts[:200])
    assert export(tmp_path, database_url)[0] == blocks
    nobody = prune(tmp_path, database_url, key_id, "--before", 201)
    assert nobody.returncode == 2 and "--yes" in nobody.stderr

    done = pruned(tmp_path, database_url, key_id, "--before", 201, "--vacuum-full")
    assert (done["transactions"], done["bytes"]) == (dry["transactions"], dry["bytes"])
    assert done["bytes_after"] < done["bytes_before"] - dry["bytes"] / 2, done
    assert done["record"]["status"] == "sealed"
    assert (tmp_path / "data/operator_key.pem").stat().st_mode & 0o777 == 0o600

    blocks, verdict = export(tmp_path, database_url)
    assert "200 transactions are pruned" in verdict
    readings.check(blocks, 200)
    record = blocks[-1]["transactions"][-1]
    assert record["key_id"] == done["record"]["key_id"] not in (key_id, "00" * 32)
    assert json.loads(record["payload"]) == {
        "type": "prune", "key_id": key_id, "before_height": 201, "transactions": 200, "from_sequence": 0,
        "to_sequence": 199, "reason": REASON,
    }  # fmt: skip
    assert validate(tmp_path, database_url)[1]["pruned"] == 200
    assert validate(tmp_path, database_url)[1]["pruned_without_record"] == 0

    # Nothing is left of it in the file.
    if database_url.startswith("sqlite:"):
        for path in (tmp_path / "data").iterdir():
            assert f"secret-{199}-".encode() not in path.read_bytes()
            assert f"secret-{200}-".encode() in path.read_bytes() or path.suffix != ".db"

    # The same again has nothing to say.
    again = pruned(tmp_path, database_url, key_id, "--before", 201)
    assert (again["transactions"], again["record"]) == (0, None)
    assert export(tmp_path, database_url)[0] == blocks

    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=2) as receiver:
        check_readers(receiver, readings)


def check_readers(receiver, readings):
    """What a pruned transaction looks like from outside, and what happens when it comes again."""
    before = receiver.get("/v1/status").json()
    answer = receiver.send(f"[{readings.one.item(readings.texts[9])}]").json()["items"][0]
    assert (answer["status"], answer["height"]) == ("sealed", 10)
    after = receiver.get("/v1/status").json()
    assert (after["height"], after["pending"]) == (before["height"], before["pending"])

    known = receiver.get(f"/v1/transactions/{answer['id']}").json()
    assert known["pruned"] is True and known["sequence"] == 9 and "payload" not in known and "signature" not in known
    block = receiver.get("/v1/blocks/10")
    assert "-pruned-1" in block.headers["ETag"]
    seen = block.json()["transactions"][0]
    assert seen["pruned"] is True and seen["content_hash"] == known["content_hash"] and "id" not in seen
    assert receiver.get(f"/v1/transactions/{known['leaf_hash']}").status_code == 404
    assert receiver.chain()[10]["data"] == [None, json.loads(readings.others[9])]
    assert receiver.get("/validate").json()["pruned"] == 200
    lines = receiver.get("/v1/export").text.splitlines()
    assert sum('"pruned":true' in line for line in lines) == 200
    assert answer["id"] not in "".join(lines)


def test_prunes_beside_a_running_receiver_on_postgresql(tmp_path, cluster):
    database_url = cluster.new_database()
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=2) as receiver:
        readings = Readings(receiver, 100)
        done = pruned(tmp_path, database_url, readings.key_id, "--before", 51)
        assert done["transactions"] == 50
        # Whoever of the two sealed the record: what comes behind it fills blocks.
        more = ["1", "2", "3", "4"] if done["record"]["status"] == "sealed" else ["1", "2", "3"]
        assert receiver.send("[" + ",".join(map(readings.two.item, more)) + "]").status_code == 200
        wait_until("nothing to wait", lambda: receiver.get("/v1/status").json()["pending"] == 0)
        readings.others += more
        readings.check(export(tmp_path, database_url)[0], 50)
        assert validate(tmp_path, database_url)[1]["pruned_without_record"] == 0


def test_a_sqlite_file_has_one_writer(tmp_path):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=2) as receiver:
        readings = Readings(receiver, 2)
        refused = prune(tmp_path, None, readings.key_id, "--before", 9, "--yes")
        assert refused.returncode == 1 and "hint: stop" in refused.stderr


@pytest.mark.parametrize("answer, returncode, left", [("no", 1, 0), ("yes", 0, 1)])
def test_asks_the_person_at_the_terminal(tmp_path, answer, returncode, left):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=2) as receiver:
        readings = Readings(receiver, 1)
        assert receiver.terminate() == 0
    words = ["chain", "prune", "--key", readings.key_id, "--before", "9", "--reason", REASON]
    ours, theirs = pty.openpty()
    asked = subprocess.Popen(
        [BINARY, *words], cwd=tmp_path, env=environment({"DATA_DIR": tmp_path / "data"}),
        stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.write(ours, f"{answer}\n".encode())
    assert asked.wait(60) == returncode
    assert b"Type yes" in os.read(ours, 100_000)
    os.close(ours)
    os.close(theirs)
    assert validate(tmp_path, None)[1]["pruned"] == left


def test_prunes_what_nobody_signed_but_not_the_genesis(tmp_path, database_url):
    settings = {"DATABASE_URL": database_url}
    path = write(tmp_path, mutants.unsigned_where_the_rules_allow_it())
    assert run("chain", "import", path, folder=tmp_path, settings=settings).returncode == 0
    done = pruned(tmp_path, database_url, "00" * 32, "--before", 99)
    blocks, _ = export(tmp_path, database_url)
    assert blocks[0]["transactions"][0]["payload"]
    unsigned = [it for block in blocks[1:] for it in block["transactions"] if it["key_id"] == "00" * 32]
    assert len(unsigned) == done["transactions"] > 0 and all(it["pruned"] for it in unsigned)
    assert validate(tmp_path, database_url)[0] == 0


def test_prunes_before_a_time(tmp_path):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=2) as receiver:
        readings = Readings(receiver, 4)
        middle = receiver.get(f"/v1/blocks/{readings.last_height}").json()["timestamp_ms"] + 1
        time.sleep(0.01)
        assert receiver.send("[" + ",".join(map(readings.one.item, ["1", "2"])) + "]").status_code == 200
        assert receiver.terminate() == 0
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(middle // 1000)) + f".{middle % 1000:03}Z"
    done = pruned(tmp_path, None, readings.key_id, "--before", text)
    assert (done["transactions"], done["before_height"]) == (4, readings.last_height + 1)


def test_an_import_takes_what_is_pruned(tmp_path, database_url):
    with Receiver(tmp_path, TRANSACTIONS_PER_BLOCK=2) as receiver:
        readings = Readings(receiver, 30)
        assert receiver.terminate() == 0
    pruned(tmp_path, "sqlite:liotbchain.db", readings.key_id, "--before", 21)
    blocks, _ = export(tmp_path, "sqlite:liotbchain.db")
    copy = tmp_path / "copy"
    copy.mkdir()
    imported = run(
        "chain", "import", tmp_path / "chain.ndjson", folder=copy, settings={"DATABASE_URL": database_url}
    )
    assert imported.returncode == 0, imported.stderr
    assert export(copy, database_url)[0] == blocks
    assert validate(copy, database_url)[1]["pruned"] == 20
    # It can be pruned further.
    assert pruned(copy, database_url, readings.key_id, "--before", 31)["transactions"] == 10
    readings.check(export(copy, database_url)[0], 30)


def test_an_import_needs_the_key_of_what_is_pruned(tmp_path):
    chain, signer = mutants.Base(), keys.new_ed25519()
    full = chain.sign(signer, mutants.reading(3))
    chain.add_block([mutants.Transaction(full.key_id, 0, b"", b"", full.content_hash, pruned=True)])
    path = write(tmp_path, chain.end())
    lines = path.read_text().splitlines(keepends=True)
    is_its_key = lambda line: line["type"] == "key" and line["key_id"] == signer.key_id.hex()
    path.write_text("".join(line for line in lines if not is_its_key(json.loads(line))))
    assert verify(path).returncode == 0
    imported = run("chain", "import", path, folder=tmp_path)
    assert imported.returncode == 1 and "which the export does not give" in imported.stderr
    assert not run("chain", "show", folder=tmp_path).stdout


def test_tampering_is_found(tmp_path, database_url):
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=2) as receiver:
        readings = Readings(receiver, 6)
        assert receiver.terminate() == 0
    pruned(tmp_path, database_url, readings.key_id, "--before", 4)
    other_hash = "x'" + "ab" * 32 + "'" if database_url.startswith("sqlite:") else "'\\x" + "ab" * 32 + "'"

    # One that was pruned without a word keeps every root, and is told of.
    of = json.loads(export(tmp_path, database_url)[0][5]["transactions"][0]["payload"])["number"]
    text, signature = readings.texts[of].encode(), readings.one.sign(readings.texts[of].encode())
    content = len(text).to_bytes(4) + text + len(signature).to_bytes(2) + signature
    true_hash = hashlib.sha256(content).hexdigest()
    literal = f"x'{true_hash}'" if database_url.startswith("sqlite:") else f"'\\x{true_hash}'"
    at = "WHERE height = 5 AND position = 0"
    execute(tmp_path, database_url, f"UPDATE transactions SET payload = '', signature = {literal} {at}")
    code, verdict = validate(tmp_path, database_url)
    assert (code, verdict["pruned"], verdict["pruned_without_record"]) == (0, 4, 1)
    words = run("chain", "validate", folder=tmp_path, settings={"DATABASE_URL": database_url}).stdout
    assert "1 of them WITHOUT A RECORD" in words

    execute(tmp_path, database_url, f"UPDATE transactions SET signature = {other_hash} WHERE height = 2 AND position = 0")
    code, verdict = validate(tmp_path, database_url)
    assert code == 3 and verdict["fault"]["block"] == 2 and verdict["fault"]["field"] == "transactions_root"


@pytest.mark.parametrize("round", range(6))
def test_killed_at_any_moment_it_is_gone_on_with(tmp_path, database_url, round):
    """So many that a pruning takes several steps."""
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=100) as receiver:
        readings = Readings(receiver, 5000, text=lambda number: json.dumps({"secret": number}), at_once=500)
        assert receiver.terminate() == 0
    words = ["chain", "prune", "--key", readings.key_id, "--before", "101", "--reason", REASON, "--yes", "--json"]
    settings = environment({"DATA_DIR": tmp_path / "data", "DATABASE_URL": database_url})
    killed = subprocess.Popen(
        [BINARY, *words], cwd=tmp_path, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    # Half of the rounds before the record stands, half of them while it prunes.
    if round >= 3:
        assert b"stands in block" in killed.stderr.readline()
    time.sleep(random.random() * (0.3 if round < 3 else 0.06))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    # Whatever is missing was announced.
    code, verdict = validate(tmp_path, database_url)
    print(f"killed with {verdict['pruned']} of 5000 pruned")
    assert code == 0 and verdict["pruned_without_record"] == 0

    pruned(tmp_path, database_url, readings.key_id, "--before", "101")
    blocks, _ = export(tmp_path, database_url)
    readings.check(blocks, 5000)
    code, verdict = validate(tmp_path, database_url)
    assert (code, verdict["pruned"], verdict["pruned_without_record"]) == (0, 5000, 0)
