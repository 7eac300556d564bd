"""Proof files of a chain, checked by the verifier that shares nothing with it, and by the program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from liotbchain import Chain, SigningKey
from liotbchain.utils import BlockchainOperationError


# As the wheel installed it.
PROGRAM = Path(sys.executable).with_name("liotbchain")


@pytest.fixture
def chain(tmp_path):
    with Chain.open(f"sqlite:{tmp_path}/chain.db") as chain:
        yield chain


def verify(tmp_path, *texts):
    """Returns the program's verdicts."""
    paths = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.json"
        path.write_text(text, encoding="utf-8")
        paths.append(str(path))
    run = subprocess.run([PROGRAM, "verify", "--json", *paths], capture_output=True, text=True)
    assert run.returncode in (0, 3), run.stderr
    return [finding["holds"] for finding in json.loads(run.stdout)]


def test_a_receipt_a_history_and_a_consistency_proof_hold(chain, tmp_path):
    key = SigningKey.generate()
    added = [chain.add(key.sign({"n": number})) for number in range(6)]
    receipt = chain.receipt(added[2].id)
    history = chain.key_history(key.key_id, 1, 2)
    consistency = chain.consistency(1)
    assert verify(tmp_path, receipt, history, consistency) == [True, True, True]
    changed = receipt.replace('{\\"n\\": 2}', '{\\"n\\": 3}')
    assert changed != receipt
    assert verify(tmp_path, changed) == [False]


def test_what_cannot_be_proven_is_an_error_of_its_own(chain):
    pending = chain.add("{}")
    with pytest.raises(BlockchainOperationError, match="pending"):
        chain.receipt(pending.id)
    for unknown in ["00" * 32, "no id"]:
        with pytest.raises(KeyError):
            chain.receipt(unknown)
    with pytest.raises(IndexError):
        chain.consistency(0, 99)
    with pytest.raises(KeyError):
        chain.key_history("no id")
    with pytest.raises(ValueError, match="limit"):
        chain.key_history("00" * 32, limit=0)
