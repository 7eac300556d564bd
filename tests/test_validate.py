"""`chain validate` with and without signatures, on a chain that is good and on one that somebody changed."""

import json
import shutil
import sqlite3

import pytest

import cases
import signer
from program import Receiver, run


@pytest.fixture(scope="module")
def kept_chain(tmp_path_factory):
    """The folder of a stopped receiver, whose SQLite file holds three blocks of two transactions."""
    folder = tmp_path_factory.mktemp("kept")
    device = signer.new_ed25519()
    with Receiver(folder, TRANSACTIONS_PER_BLOCK=2) as receiver:
        for _ in range(3):
            assert receiver.send(f"[{device.item(cases.reading())}, {device.item(cases.reading())}]").status_code == 200
        assert receiver.terminate() == 0
    return folder


def test_skipped_signatures_are_said_loudly(kept_chain):
    checked = run("chain", "validate", folder=kept_chain)
    assert checked.returncode == 0
    assert "NOT CHECKED" not in checked.stdout
    skipped = run("chain", "validate", "--skip-signatures", folder=kept_chain)
    assert skipped.returncode == 0
    assert "NOT CHECKED" in skipped.stdout
    assert "NO SIGNATURE WAS CHECKED" in skipped.stderr
    assert json.loads(run("chain", "validate", "--json", folder=kept_chain).stdout)["signatures"] == "checked"
    skipped = run("chain", "validate", "--json", "--skip-signatures", folder=kept_chain)
    assert json.loads(skipped.stdout)["signatures"] == "skipped"
    assert json.loads(skipped.stdout)["valid"] is True


@pytest.mark.parametrize("flags", [[], ["--skip-signatures"]])
def test_a_changed_chain_ends_with_3_either_way(kept_chain, tmp_path, flags):
    shutil.copytree(kept_chain / "data", tmp_path / "data")
    connection = sqlite3.connect(tmp_path / "data/liotbchain.db")
    with connection:
        changed = connection.execute("UPDATE transactions SET signature = zeroblob(64) WHERE height = 2 AND position = 1")
        assert changed.rowcount == 1
    connection.close()
    validated = run("chain", "validate", "--json", *flags, folder=tmp_path)
    assert validated.returncode == 3, validated.stdout + validated.stderr
    fault = json.loads(validated.stdout)["fault"]
    # The block's root commits to its signatures.
    assert (fault["block"], fault["field"]) == (2, "transactions_root" if flags else "signature")
