"""What a program relies on that was written for liotbchain 0.0.8, as its documentation describes it.

Where this package differs on purpose, docs/migrating.md says so, and the test here says what holds instead.
"""

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import liotbchain
import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from liotbchain.block import Block
from liotbchain.blockchain import Blockchain
from liotbchain.database.db import create_database, load_blocks, save_block
from liotbchain.utils import (
    BlockchainOperationError,
    DatabaseConfigurationError,
    DatabaseConnectionError,
    Error,
    InvalidBlockError,
    InvalidChainError,
    InvalidTransactionError,
    MiningFailedError,
)
from ports import free_port

FLASK_EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "flask"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Nothing that is written by default lands in the checkout."""
    monkeypatch.chdir(tmp_path)


def environment(**variables):
    """An environment with no setting of liotbchain but these."""
    return {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **variables}


def run(code, cwd, **variables):
    """Runs a Python program, which lies elsewhere, to its end, and returns what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(code)
        command = [sys.executable, str(program)]
        env = environment(**variables)
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until(condition, what, seconds=30):
    """Waits for a condition, and returns the first of its values that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    pytest.fail(f"in {seconds} s this did not happen: {what}")


def filled(db_url, readings=6, **settings):
    """A chain with readings, two in a block."""
    blockchain = Blockchain(db_url=db_url, difficulty=1, transactions_per_block=2, **settings)
    for number in range(readings):
        blockchain.add_transaction({"device": f"tank-{number % 2}", "distance": number})
    return blockchain


def readings_of(blockchain):
    """All transactions on the chain, in their order."""
    return [reading for block in blockchain.get_chain()[1:] for reading in block.data]


# The documented example


def test_both_import_paths_give_the_same_classes():
    assert liotbchain.Blockchain is Blockchain
    assert liotbchain.Block is Block


def test_documented_example_makes_a_full_block_and_one_of_the_rest(db_url, capsys):
    blockchain = Blockchain(difficulty=2, nonce_limit=500_000, db_url=db_url, transactions_per_block=2)
    for device, distance in [("Raspberry Pi 1", 120), ("Raspberry Pi 2", 150), ("Raspberry Pi 3", 130)]:
        blockchain.add_transaction({"device": device, "distance": distance, "timestamp": time.time()})
    assert [transaction["device"] for transaction in blockchain.transactions] == ["Raspberry Pi 3"]
    mined = blockchain.mine_block()

    assert [len(block.data) for block in blockchain.chain[1:]] == [2, 1]
    assert mined.index == 2 and mined.data[0]["distance"] == 130
    assert mined.hash == blockchain.get_latest_block().hash
    assert len(blockchain.transactions) == 0
    for block in blockchain.get_chain():
        print(f"Block {block.index}: {block.data}, {block.nonce}, {block.hash}, {block.merkle_root}")
        assert block.index == 0 or block.hash.startswith("00")
        assert len(block.merkle_root) == 64
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert blockchain.is_chain_valid() is True


SIMULATION = """
import random, time
from tqdm import tqdm
from liotbchain import Blockchain
from liotbchain.utils import Error

blockchain = Blockchain()
try:
    for _ in tqdm(range(20), desc="readings"):
        device = random.choice(["Raspberry Pi 1", "Arduino 1"])
        blockchain.add_transaction({"device": device, "distance": random.randint(2, 400), "timestamp": time.time()})
    if blockchain.transactions:
        blockchain.mine_block()
except Error as error:
    print("An error occurred:", error)
for block in blockchain.chain:
    print(f"Block {block.index}: {len(block.data)} {block.hash}")
print("valid" if blockchain.is_chain_valid() else "not valid")
"""


def test_simulation_script_runs_to_its_end(db_url, tmp_path):
    lines = run(SIMULATION, cwd=tmp_path, DATABASE_URL=db_url, TRANSACTIONS_PER_BLOCK="3").splitlines()
    assert lines[-1] == "valid"
    assert [line.split()[2] for line in lines[1:-1]] == ["3"] * 6 + ["2"]
    assert run(SIMULATION, cwd=tmp_path, DATABASE_URL=db_url).splitlines()[-1] == "valid"
    assert len(readings_of(Blockchain(db_url=db_url))) == 40


# Settings

SHOW_SETTINGS = """
import os
from liotbchain import Blockchain
b = Blockchain()
print(b.difficulty, b.nonce_limit, b.transactions_per_block, b.db_url, os.environ.get("DIFFICULTY"))
"""


def test_parameters_are_attributes(db_url):
    blockchain = Blockchain(difficulty=1, nonce_limit=5_000, db_url=db_url, transactions_per_block=7)
    assert (blockchain.difficulty, blockchain.nonce_limit) == (1, 5_000)
    assert (blockchain.db_url, blockchain.transactions_per_block) == (db_url, 7)


def test_parameters_may_be_given_in_their_order(tmp_path):
    blockchain = Blockchain(1, 5_000, f"sqlite:{tmp_path / 'chain.db'}", 1)
    blockchain.add_transaction("x")
    assert len(blockchain.chain) == 2


def test_settings_of_the_environment_hold(tmp_path):
    variables = {"DIFFICULTY": "1", "NONCE_LIMIT": "4321", "TRANSACTIONS_PER_BLOCK": "5", "DATABASE_URL": "sqlite:e.db"}
    assert run(SHOW_SETTINGS, cwd=tmp_path, **variables).split() == ["1", "4321", "5", "sqlite:e.db", "1"]


def test_nothing_needs_to_be_set(tmp_path):
    expected = ["2", "10000000", "2", "sqlite:liotbchain.db", "None"]
    assert run(SHOW_SETTINGS, cwd=tmp_path).split() == expected
    assert (tmp_path / "liotbchain-data" / "liotbchain.db").exists()


def test_dotenv_is_found_above_the_working_directory_and_exported_variables_win(tmp_path):
    below = tmp_path / "one" / "two"
    below.mkdir(parents=True)
    (tmp_path / ".env").write_text("DIFFICULTY=1\nNONCE_LIMIT=4321\nDATABASE_URL=sqlite:of-dotenv.db\n")
    assert run(SHOW_SETTINGS, cwd=below).split() == ["1", "4321", "2", "sqlite:of-dotenv.db", "None"]
    expected = ["3", "4321", "2", "sqlite:other.db", "3"]
    assert run(SHOW_SETTINGS, cwd=below, DIFFICULTY="3", DATABASE_URL="sqlite:other.db").split() == expected


def test_difficulty_0_is_a_value(db_url):
    blockchain = Blockchain(difficulty=0, db_url=db_url, transactions_per_block=1)
    for number in range(20):
        blockchain.add_transaction(number)
    assert blockchain.difficulty == 0
    assert not all(block.hash.startswith("0") for block in blockchain.chain[1:])


def test_least_difficulty_of_a_chain_is_that_of_its_creation(db_url):
    Blockchain(difficulty=2, db_url=db_url).close()
    with pytest.raises(DatabaseConfigurationError, match="below 2"):
        Blockchain(difficulty=1, db_url=db_url)
    Blockchain(difficulty=3, db_url=db_url)


def test_settings_may_be_assigned_later(db_url):
    blockchain = Blockchain(difficulty=1, db_url=db_url, transactions_per_block=1)
    blockchain.add_transaction("first")
    blockchain.difficulty = 3
    blockchain.transactions_per_block = 2
    blockchain.add_transaction("second")
    blockchain.add_transaction("third")
    assert [len(block.data) for block in blockchain.chain[1:]] == [1, 2]
    assert blockchain.chain[2].hash.startswith("000")
    with pytest.raises(DatabaseConfigurationError):
        blockchain.difficulty = 0
    assert blockchain.difficulty == 3
    assert blockchain.is_chain_valid()


def test_importing_configures_no_logging_and_writes_nothing(tmp_path):
    code = "import logging, liotbchain.blockchain; print(len(logging.getLogger().handlers))"
    assert run(code, cwd=tmp_path) == "0\n"
    assert list(tmp_path.iterdir()) == []


# Blocks


def test_vars_of_a_block_are_what_they_were(db_url):
    attributes = ["index", "timestamp", "data", "previous_hash", "nonce", "hash", "merkle_root"]
    blockchain = filled(db_url)
    genesis, block = vars(blockchain.chain[0]), vars(blockchain.chain[1])
    assert list(genesis) == attributes and list(block) == attributes
    assert (genesis["index"], genesis["data"], genesis["previous_hash"]) == (0, "Genesis Block", "0")
    assert [type(block[name]) for name in attributes] == [int, float, list, str, int, str, str]
    assert block["previous_hash"] == genesis["hash"]
    assert json.loads(json.dumps(block)) == block


def test_a_block_can_be_made_by_hand():
    block = Block(1, 2.5, [{"a": 1}], "0")
    assert vars(block) == dict(
        index=1, timestamp=2.5, data=[{"a": 1}], previous_hash="0", nonce=0, hash=None, merkle_root=None
    )
    before = block.calculate_hash()
    block.data[0]["a"] = 2
    assert block.calculate_hash() != before


def test_stored_hashes_are_those_that_blocks_compute(db_url):
    blockchain = filled(db_url)
    blockchain.add_transaction({"ä": [1.5, None, True, 10**30], 7: "key of a number"})
    blockchain.mine_block()
    fresh = [*blockchain.chain]
    blockchain.close()
    reloaded = [*Blockchain(db_url=db_url, difficulty=1).chain]
    assert len(fresh) == len(reloaded) == 5
    for block in [*fresh, *reloaded, *load_blocks(db_url)]:
        assert block.calculate_hash() == block.hash
        assert block.calculate_merkle_root() == block.merkle_root


def test_proof_of_work_finds_a_nonce_for_a_block_by_hand(db_url):
    blockchain = Blockchain(difficulty=2, db_url=db_url)
    block = Block(1, time.time(), ["by hand"], "0")
    found = blockchain.proof_of_work(block)
    assert found == block.hash == block.calculate_hash()
    assert found.startswith("00") and block.merkle_root == block.calculate_merkle_root()
    assert len(blockchain.chain) == 1
    blockchain.nonce_limit = 1
    blockchain.difficulty = 8
    with pytest.raises(MiningFailedError):
        blockchain.proof_of_work(block)


def test_add_block_mines_its_transactions(db_url):
    blockchain = filled(db_url, readings=2)
    block = Block(77, time.time(), [{"own": 1}], "of nothing")
    blockchain.add_block(block)
    assert vars(block) == vars(blockchain.get_latest_block())
    assert (block.index, block.data, block.previous_hash) == (2, [{"own": 1}], blockchain.chain[1].hash)
    with pytest.raises(InvalidBlockError):
        blockchain.add_block(Block(3, time.time(), [], "0"))
    assert blockchain.is_chain_valid()


def test_chain_is_a_sequence(db_url):
    chain = filled(db_url).chain
    assert len(chain) == 4
    assert [block.index for block in chain] == [0, 1, 2, 3]
    assert [block.index for block in chain[1:]] == [1, 2, 3]
    assert chain[-1] is chain[3]
    with pytest.raises(IndexError):
        chain[4]
    with pytest.raises(InvalidBlockError):
        chain.append(chain[1])


# Transactions


def test_a_dict_that_is_changed_later_changes_nothing(db_url):
    blockchain = Blockchain(db_url=db_url, difficulty=1)
    reading = {"distance": 1, "list": [1]}
    blockchain.add_transaction(reading)
    reading["distance"] = 2
    reading["list"].append(2)
    assert blockchain.transactions == [{"distance": 1, "list": [1]}]
    blockchain.mine_block()
    assert readings_of(blockchain) == [{"distance": 1, "list": [1]}]
    assert blockchain.is_chain_valid()


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param({"v": float("nan")}, id="nan"),
        pytest.param({"v": float("inf")}, id="infinity"),
        pytest.param({"v": {1, 2}}, id="set"),
        pytest.param("x" * 65_535, id="65_537 bytes"),
        pytest.param(json.loads("[" * 101 + "]" * 101), id="101 levels"),
        pytest.param({1: "a", "1": "b"}, id="one key twice"),
    ],
)
def test_a_transaction_that_is_no_json_is_refused_and_blocks_no_other(refused, tmp_path):
    blockchain = Blockchain(db_url=f"sqlite:{tmp_path / 'chain.db'}", difficulty=1)
    with pytest.raises(InvalidTransactionError):
        blockchain.add_transaction(refused)
    assert len(blockchain.transactions) == 0
    blockchain.add_transaction("x" * 65_534)
    blockchain.add_transaction(json.loads("[" * 100 + "]" * 100))
    assert len(blockchain.chain) == 2


def test_pending_transactions_are_there_after_a_restart(db_url):
    blockchain = filled(db_url, readings=3)
    blockchain.close()
    again = filled(db_url, readings=0)
    assert again.transactions == [{"device": "tank-0", "distance": 2}]
    assert again.mine_block().data == [{"device": "tank-0", "distance": 2}]


def test_mining_nothing_gives_the_last_block(db_url):
    blockchain = filled(db_url)
    last = blockchain.get_latest_block()
    assert vars(blockchain.mine_block()) == vars(last)
    assert len(blockchain.chain) == 4


def test_too_low_a_nonce_limit_loses_nothing(db_url, caplog):
    blockchain = Blockchain(db_url=db_url, difficulty=10, nonce_limit=20, transactions_per_block=2)
    assert "NONCE_LIMIT 20 is low" in caplog.text
    for number in range(5):
        assert blockchain.add_transaction(number).status == "pending"
    with pytest.raises(MiningFailedError):
        blockchain.mine_block()
    assert list(blockchain.transactions) == [0, 1, 2, 3, 4]
    assert len(blockchain.chain) == 1 and blockchain.is_chain_valid()
    blockchain.close()
    again = Blockchain(db_url=db_url, difficulty=10, nonce_limit=20, transactions_per_block=2)
    assert list(again.transactions) == [0, 1, 2, 3, 4]


# Validation


def changed_data(chain):
    chain[2].data[0]["distance"] = 999


def changed_kind_of_number(chain):
    chain[2].data[0]["distance"] = float(chain[2].data[0]["distance"])


def removed_transaction(chain):
    chain[2].data.pop()


def changed_nonce(chain):
    chain[2].nonce += 1


def changed_hash(chain):
    chain[2].hash = "0" * 64


def changed_previous_hash(chain):
    chain[2].previous_hash = "0" * 64


def changed_timestamp(chain):
    chain[2].timestamp += 3_600


def changed_merkle_root(chain):
    chain[2].merkle_root = "0" * 64


def changed_genesis(chain):
    chain[0].data = "Another Block"


def replaced_block(chain):
    chain[2] = Block(2, chain[2].timestamp, [{"distance": 999}], chain[1].hash)


TAMPERINGS = [
    changed_data,
    changed_kind_of_number,
    removed_transaction,
    changed_nonce,
    changed_hash,
    changed_previous_hash,
    changed_timestamp,
    changed_merkle_root,
    changed_genesis,
    replaced_block,
]


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda it: it.__name__)
def test_a_block_that_was_tampered_with_makes_the_chain_invalid(tamper, tmp_path, caplog):
    db_url = f"sqlite:{tmp_path / 'chain.db'}"
    blockchain = filled(db_url)
    assert blockchain.is_chain_valid() is True
    tamper(blockchain.chain)
    assert blockchain.is_chain_valid() is False
    assert "block 2 was changed" in caplog.text or "block 0 was changed" in caplog.text
    blockchain.close()
    # What is stored did not change.
    assert filled(db_url, readings=0).is_chain_valid() is True


@pytest.mark.parametrize("tamper", [changed_data, replaced_block], ids=lambda it: it.__name__)
def test_tampering_is_found_after_a_thousand_other_blocks(tamper, db_url):
    blockchain = Blockchain(db_url=db_url, difficulty=0, transactions_per_block=1)
    blockchain.native.add_many([{"distance": number} for number in range(1_200)])
    tamper(blockchain.chain)
    assert sum(len(block.data) for block in blockchain.chain[3:]) == 1_198
    assert blockchain.chain[2].data == [{"distance": 999}]
    assert blockchain.is_chain_valid() is False


def test_a_block_that_is_held_may_be_changed_after_a_thousand_others(tmp_path):
    blockchain = Blockchain(db_url=f"sqlite:{tmp_path / 'chain.db'}", difficulty=0, transactions_per_block=1)
    blockchain.native.add_many([{"distance": number} for number in range(1_200)])
    blocks = list(blockchain.chain)
    assert blockchain.is_chain_valid() is True
    blocks[2].data[0]["distance"] = 999
    assert blockchain.is_chain_valid() is False


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE transactions SET payload = replace(payload, '2', '9') WHERE height = 2", id="payload"),
        pytest.param("UPDATE transactions SET payload = payload || ' ' WHERE height = 2 AND position = 0", id="space"),
        pytest.param("UPDATE blocks SET nonce = nonce + 1 WHERE height = 2", id="nonce"),
        pytest.param("UPDATE blocks SET timestamp_ms = timestamp_ms + 1 WHERE height = 2", id="timestamp"),
        pytest.param("UPDATE blocks SET hash = zeroblob(32) WHERE height = 2", id="hash"),
        pytest.param("UPDATE blocks SET prev_block_hash = zeroblob(32) WHERE height = 2", id="previous hash"),
        pytest.param("DELETE FROM transactions WHERE height = 2 AND position = 1", id="transaction"),
        pytest.param(
            "UPDATE transactions SET payload = replace(payload, 'Genesis', 'Another') WHERE height = 0", id="genesis"
        ),
    ],
)
def test_tampering_in_the_sqlite_file_makes_the_chain_invalid(statement, tmp_path):
    path = tmp_path / "chain.db"
    blockchain = filled(f"sqlite:{path}")
    assert blockchain.is_chain_valid() is True
    database = sqlite3.connect(path)
    assert database.execute(statement).rowcount > 0
    database.commit()
    database.close()
    assert blockchain.is_chain_valid() is False


@pytest.mark.parametrize("is_shown", [True, False], ids=["shown before", "not shown"])
def test_a_last_block_that_is_gone_makes_the_open_chain_invalid(is_shown, tmp_path):
    path = tmp_path / "chain.db"
    blockchain = filled(f"sqlite:{path}")
    assert not is_shown or blockchain.chain[3].data
    database = sqlite3.connect(path)
    database.execute("DELETE FROM transactions WHERE height = 3")
    database.execute("DELETE FROM blocks WHERE height = 3")
    database.commit()
    database.close()
    assert blockchain.is_chain_valid() is False


def test_tampering_in_postgresql_makes_the_chain_invalid(cluster):
    db_url = cluster.new_database()
    blockchain = filled(db_url)
    payload = "convert_to(replace(convert_from(payload, 'UTF8'), '2', '9'), 'UTF8')"
    cluster.execute(f"UPDATE liotbchain.transactions SET payload = {payload} WHERE height = 2", db_url)
    assert blockchain.is_chain_valid() is False
    assert readings_of(blockchain)[2]["distance"] == 9


# Exceptions


def test_exceptions_have_their_names_and_one_base():
    names = [
        "InvalidBlockError",
        "InvalidChainError",
        "BlockchainOperationError",
        "MiningFailedError",
        "DatabaseConnectionError",
        "DatabaseConfigurationError",
    ]
    for name in names:
        exception = getattr(liotbchain.utils, name)
        assert exception is getattr(liotbchain, name)
        assert exception.__bases__ == (Error,) and exception.__name__ == name
    assert Error.__bases__ == (Exception,)
    assert InvalidTransactionError.__bases__ == (BlockchainOperationError,)
    assert not issubclass(InvalidBlockError, InvalidChainError)


def test_a_database_of_no_use_is_a_configuration_error():
    with pytest.raises(DatabaseConfigurationError):
        Blockchain(db_url="default_db_url")


def test_a_database_that_is_away_is_a_connection_error():
    with pytest.raises(DatabaseConnectionError):
        Blockchain(db_url=f"postgresql://somebody@127.0.0.1:{free_port()}/nothing")


def test_a_database_that_goes_away_is_a_connection_error_and_the_chain_goes_on_later(cluster):
    blockchain = filled(cluster.new_database(), readings=3)
    cluster.stop("immediate")
    try:
        with pytest.raises(DatabaseConnectionError):
            blockchain.add_transaction("while it is away")
        with pytest.raises(DatabaseConnectionError):
            blockchain.mine_block()
        with pytest.raises(DatabaseConnectionError):
            blockchain.get_chain()
    finally:
        cluster.start()
    wait_until(lambda: adds(blockchain, "later"), "the chain takes transactions again")
    blockchain.mine_block()
    assert [3, "later"] == [len(readings_of(blockchain)) - 1, readings_of(blockchain)[-1]]
    assert blockchain.is_chain_valid()


def adds(blockchain, transaction):
    try:
        return blockchain.add_transaction(transaction)
    except DatabaseConnectionError:
        return None


# Many at once


def test_sixteen_threads_lose_nothing(db_url):
    blockchain = Blockchain(db_url=db_url, difficulty=1, transactions_per_block=5)
    failures = []

    def work(thread):
        try:
            for number in range(20):
                blockchain.add_transaction({"thread": thread, "number": number})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    blockchain.mine_block()
    assert failures == []
    found = readings_of(blockchain)
    assert len(found) == 320
    for thread in range(16):
        assert [it["number"] for it in found if it["thread"] == thread] == list(range(20))
    assert blockchain.is_chain_valid() is True


@pytest.mark.parametrize("other", [{}, {"difficulty": 2, "transactions_per_block": 3}], ids=["same", "other settings"])
def test_two_objects_on_one_database_share_a_chain(other, db_url):
    one = filled(db_url)
    two = Blockchain(db_url=db_url, **{"difficulty": 1, "transactions_per_block": 2, **other})
    for number in range(10):
        (one, two)[number % 2].add_transaction({"both": number})
    wait_until(lambda: mines(two), "the rest is mined")
    wait_until(lambda: len(one.chain) == len(two.chain), "both see one chain")
    assert readings_of(one)[6:] == readings_of(two)[6:] == [{"both": number} for number in range(10)]
    assert one.is_chain_valid() and two.is_chain_valid()


ADD_TWENTY = """
import sys
from liotbchain import Blockchain
blockchain = Blockchain(difficulty=1)
for number in range(20):
    blockchain.add_transaction({"process": sys.argv[1], "number": number})
"""


def test_two_processes_on_one_database_lose_nothing(db_url, tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", ADD_TWENTY, name], cwd=tmp_path, env=environment(DATABASE_URL=db_url))
        for name in ("a", "b")
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    blockchain = Blockchain(difficulty=1, db_url=db_url)
    blockchain.mine_block()
    found = readings_of(blockchain)
    for name in ("a", "b"):
        assert [it["number"] for it in found if it["process"] == name] == list(range(20))
    assert len(found) == 40 and blockchain.is_chain_valid()


ADD_FOR_EVER = """
from liotbchain import Blockchain
blockchain = Blockchain(difficulty=1, transactions_per_block=3)
number = 0
while True:
    print(blockchain.add_transaction({"number": number}).id, flush=True)
    number += 1
"""


def test_what_was_added_survives_a_kill(db_url, tmp_path):
    command = [sys.executable, "-c", ADD_FOR_EVER]
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment(DATABASE_URL=db_url), stdout=subprocess.PIPE, text=True
    )
    ids = [child.stdout.readline().strip() for _ in range(25)]
    child.send_signal(signal.SIGKILL)
    ids += child.stdout.read().split()
    child.wait(timeout=30)
    blockchain = Blockchain(db_url=db_url, difficulty=1, transactions_per_block=3)
    assert [blockchain.native.transaction(id).data["number"] for id in ids] == list(range(len(ids)))
    wait_until(lambda: mines(blockchain), "the right to mine of the killed process expires")
    assert [reading["number"] for reading in readings_of(blockchain)][: len(ids)] == list(range(len(ids)))
    assert blockchain.is_chain_valid()


@pytest.mark.parametrize("end", ["closed", "ended", "dropped", "killed"])
def test_what_waits_in_memory_is_kept_unless_the_process_is_killed(tmp_path, end):
    script = """
import os, signal, sys
from liotbchain import Blockchain, InvalidTransactionError
blockchain = Blockchain(db_url=sys.argv[1], transactions_per_block=3)
assert [blockchain.add_transaction(number) for number in range(2)] == [None, None]
assert list(blockchain.transactions) == [0, 1] and blockchain.native.pending() == []
try:
    blockchain.add_transaction("x" * 70_000)
except InvalidTransactionError:
    pass
assert blockchain.add_transaction(2).height == 1
assert blockchain.chain[1].data == [0, 1, 2]
blockchain.transactions.append(3)
assert blockchain.mine_block().data == [3]
blockchain.add_transaction(4)
if sys.argv[2] == "closed":
    blockchain.close()
elif sys.argv[2] == "dropped":
    native = blockchain.native
    del blockchain
    assert native.pending() == ["4"]
elif sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    url = f"sqlite:{tmp_path}/chain.db"
    command = [sys.executable, "-c", script, url, end]
    done = subprocess.run(command, env=environment(KEEP_PENDING="false"), capture_output=True, text=True, timeout=60)
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    blockchain = Blockchain(db_url=url, transactions_per_block=3)
    assert readings_of(blockchain) == [0, 1, 2, 3]
    assert list(blockchain.transactions) == ([] if end == "killed" else [4])


def test_an_interrupt_loses_and_doubles_nothing_that_waits_in_memory(tmp_path):
    """Ctrl-C may come between the commit and whatever is done after it."""
    script = """
import signal, sys
from liotbchain import Blockchain

class Interrupt(Exception):
    pass

def interrupt(*_):
    raise Interrupt

blockchain = Blockchain(difficulty=0, db_url=sys.argv[1], transactions_per_block=3, keep_pending=False)
signal.signal(signal.SIGALRM, interrupt)
number = interrupts = 0
while interrupts < 150:
    signal.setitimer(signal.ITIMER_REAL, 0.002 + interrupts % 10 / 5000)
    try:
        while True:
            blockchain.add_transaction(number)
            number += 1
    except Interrupt:
        interrupts += 1
        number += 1
blockchain.mine_block()
found = [reading for block in blockchain.chain[1:] for reading in block.data]
assert len(found) == len(set(found)), "doubled"
# The one that was interrupted may be there or not; no other is missing.
assert len(found) >= number - interrupts, "lost"
print(len(found))
"""
    command = [sys.executable, "-c", script, f"sqlite:{tmp_path}/chain.db"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


def test_closing_keeps_what_waits_in_memory_of_all_that_share_the_chain(tmp_path):
    url = f"sqlite:{tmp_path}/chain.db"
    one, two = (Blockchain(db_url=url, transactions_per_block=9, keep_pending=False) for _ in range(2))
    one.add_transaction("one")
    two.add_transaction("two")
    assert one.native is two.native
    one.close()
    with Blockchain(db_url=url, transactions_per_block=9) as again:
        assert sorted(again.transactions) == ["one", "two"]


def test_a_setting_that_is_assigned_keeps_what_waits_in_memory(tmp_path):
    url = f"sqlite:{tmp_path}/chain.db"
    blockchain = Blockchain(db_url=url, difficulty=1, transactions_per_block=9, keep_pending=False)
    blockchain.add_transaction("before")
    blockchain.transactions_per_block = 2
    assert list(blockchain.transactions) == ["before"]
    blockchain.add_transaction("after")
    blockchain.add_transaction("after that")
    del blockchain
    with Blockchain(db_url=url, difficulty=1, transactions_per_block=2) as again:
        assert sorted([*readings_of(again), *again.transactions]) == ["after", "after that", "before"]


def test_one_database_that_is_gone_costs_another_nothing_at_the_end(cluster, tmp_path):
    script = """
import sys
import psycopg2
from liotbchain import Blockchain
gone = Blockchain(db_url=sys.argv[1], transactions_per_block=9, keep_pending=False)
kept = Blockchain(db_url=sys.argv[2], transactions_per_block=9, keep_pending=False)
gone.add_transaction("gone")
kept.add_transaction("kept")
admin = psycopg2.connect(sys.argv[3])
admin.autocommit = True
admin.cursor().execute(f"DROP DATABASE {sys.argv[1].rsplit('/')[-1]} WITH (FORCE)")
"""
    url = f"sqlite:{tmp_path}/chain.db"
    command = [sys.executable, "-c", script, cluster.new_database(), url, cluster.url]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert "1 transactions that waited in memory are lost" in done.stderr, done.stderr
    with Blockchain(db_url=url, transactions_per_block=9) as again:
        assert list(again.transactions) == ["kept"]


def test_threads_lose_nothing_that_waits_in_memory(db_url):
    blockchain = Blockchain(db_url=db_url, difficulty=1, transactions_per_block=7, keep_pending=False)
    add = lambda name: [blockchain.add_transaction([name, number]) for number in range(50)]
    threads = [threading.Thread(target=add, args=[name]) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    blockchain.mine_block()
    found = readings_of(blockchain)
    assert sorted(found) == [[name, number] for name in range(6) for number in range(50)]
    assert all([number for of, number in found if of == name] == list(range(50)) for name in range(6))
    assert [len(block.data) for block in blockchain.chain[1:-1]] == [7] * 42


def test_a_child_that_was_forked_off_is_told(tmp_path):
    script = """
import os, sys
from liotbchain import Blockchain, BlockchainOperationError
blockchain = Blockchain(db_url=sys.argv[1], transactions_per_block=1)
blockchain.add_transaction("of the parent")
if os.fork() == 0:
    for call in [lambda: blockchain.add_transaction("of the child"), lambda: Blockchain(db_url=sys.argv[1])]:
        try:
            call()
        except BlockchainOperationError as error:
            print(error, flush=True)
    sys.exit()
os.wait()
assert len(blockchain.chain) == 2 and blockchain.is_chain_valid()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:{tmp_path}/chain.db"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("forked") == 2


def mines(blockchain):
    try:
        return blockchain.mine_block()
    except MiningFailedError:
        return None


# Functions of the database


def test_functions_of_the_database_work_on_its_chain(db_url):
    create_database(db_url)
    assert [block.data for block in load_blocks(db_url)] == ["Genesis Block"]
    blockchain = Blockchain(db_url=db_url)
    blockchain.add_transaction("a")
    blockchain.add_transaction("b")
    assert [block.data for block in load_blocks(db_url)] == ["Genesis Block", ["a", "b"]]
    save_block(blockchain.chain[1], db_url)
    with pytest.raises(InvalidBlockError):
        save_block(Block(2, time.time(), ["forged"], blockchain.chain[1].hash), db_url)
    changed = load_blocks(db_url)[1]
    changed.data[0] = "forged"
    with pytest.raises(InvalidBlockError):
        save_block(changed, db_url)
    assert len(load_blocks(db_url)) == 2


def test_functions_of_the_database_use_a_chain_that_is_open_as_it_is(db_url):
    blockchain = Blockchain(db_url=db_url, difficulty=3, transactions_per_block=10)
    for number in range(5):
        blockchain.add_transaction(number)
    assert len(load_blocks(db_url)) == 1
    create_database(db_url)
    blockchain.add_transaction(5)
    assert list(blockchain.transactions) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("function", [create_database, load_blocks], ids=lambda it: it.__name__)
def test_functions_of_the_database_need_its_address(function):
    with pytest.raises(DatabaseConfigurationError):
        function("")


def test_old_methods_without_work_do_no_harm(db_url):
    blockchain = filled(db_url)
    before = [vars(block) for block in blockchain.get_chain()]
    blockchain.save_blockchain()
    blockchain.initialize_blockchain()
    assert blockchain.create_genesis_block().index == 0
    assert [vars(block) for block in blockchain.get_chain()] == before


def test_the_table_of_the_original_is_left_untouched(cluster):
    db_url = cluster.new_database()
    columns = '"index" SERIAL PRIMARY KEY, "data" TEXT, "timestamp" DOUBLE PRECISION'
    columns += ', "previous_hash" TEXT, "nonce" INTEGER, "hash" TEXT'
    cluster.execute(f"CREATE TABLE blocks ({columns})", db_url)
    cluster.execute("""INSERT INTO blocks VALUES (0, '"Genesis Block"', 1.5, '0', 0, 'ab')""", db_url)
    blockchain = filled(db_url)
    assert len(readings_of(blockchain)) == 6 and blockchain.is_chain_valid()
    assert cluster.execute("SELECT * FROM public.blocks", db_url) == [(0, '"Genesis Block"', 1.5, "0", 0, "ab")]


# The example in Flask


@contextmanager
def program(path, ready, **variables):
    """Runs a program of the example until the block ends, and waits until it answers."""
    log = open(f"{path.stem}.log", "a")
    process = subprocess.Popen([sys.executable, str(path)], env=environment(**variables), stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(ready) or process.poll() is not None, f"{path.name} answers")
        assert process.poll() is None, Path(log.name).read_text()
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def answers(url):
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


class FlaskExample:
    """The receiver and the sender of examples/flask, each at a port of its own."""

    def __init__(self, db_url):
        receiver, sender = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.receiver_url, self.sender_url = f"http://{receiver}", f"http://{sender}"
        self.of_receiver = {"RECEIVER_LISTEN": receiver, "DATABASE_URL": db_url, "DIFFICULTY": "1"}
        self.of_sender = {"SENDER_LISTEN": sender, "RECEIVER_URL": self.receiver_url}

    def receiver(self):
        path = FLASK_EXAMPLE / "server" / "receiver.py"
        return program(path, f"{self.receiver_url}/get_chain", **self.of_receiver)

    def sender(self):
        return program(FLASK_EXAMPLE / "client" / "sender.py", f"{self.sender_url}/status", **self.of_sender)

    def chain(self):
        return requests.get(f"{self.receiver_url}/get_chain", timeout=30).json()

    def post(self, items):
        return requests.post(f"{self.receiver_url}/receive_data", json=items, timeout=30)

    def status(self):
        return requests.get(f"{self.sender_url}/status", timeout=30).json()

    def tell_sender(self, route, **members):
        return requests.post(f"{self.sender_url}/{route}", json=members, timeout=30)


@pytest.fixture
def example(db_url):
    return FlaskExample(db_url)


def sign(key, data):
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return {
        "data": data,
        "signature": base64.b64encode(key.sign(json.dumps(data).encode(), pss, hashes.SHA256())).decode(),
        "public_key": key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode(),
    }


def test_example_sender_delivers_all_it_made_also_what_it_made_without_a_receiver(example):
    # So that nothing waits for a second half: a list whose answer was lost may be posted twice.
    example.of_receiver["TRANSACTIONS_PER_BLOCK"] = "1"
    with example.sender():
        assert example.tell_sender("start_sending", items=2, interval=0.1).status_code == 200
        assert example.tell_sender("start_sending", items=2, interval=0.1).status_code == 409
        wait_until(lambda: example.status()["waiting"] >= 3, "lists wait for the receiver")
        with example.receiver():
            wait_until(lambda: example.status()["sent"] >= 3, "lists are sent")
        before = example.status()["sent"]
        with example.receiver():
            wait_until(lambda: example.status()["sent"] > before, "lists are sent after the receiver's restart")
            assert example.tell_sender("stop_sending").status_code == 200
            wait_until(lambda: example.status()["waiting"] == 0, "nothing waits")
            status, chain = example.status(), example.chain()
    assert (status["refused"], status["sending"]) == (0, False)
    readings = [reading for block in chain[1:] for reading in block["data"]]
    # A list whose answer was lost when the receiver stopped is posted again.
    distinct = {json.dumps(reading, sort_keys=True) for reading in readings}
    assert len(distinct) == 2 * status["sent"]
    assert set(readings[0]) == {"device", "distance", "timestamp"}


def test_example_sender_checks_what_it_is_told_and_keeps_its_key(tmp_path):
    example = FlaskExample("sqlite:unused.db")
    key_file = tmp_path / "private_key.pem"
    with example.sender():
        key = key_file.read_text()
        assert key_file.stat().st_mode & 0o777 == 0o600
        wrongs = [{"items": 0}, {"items": True}, {"items": "3"}, {"items": 2.5}, {"interval": -1}, {"interval": "x"}]
        for wrong in wrongs:
            assert example.tell_sender("start_sending", **wrong).status_code == 400
        assert example.status() == {"waiting": 0, "sending": False, "sent": 0, "refused": 0}
    with example.sender():
        assert key_file.read_text() == key


def test_example_receiver_answers_as_the_original_and_adds_a_whole_list_or_nothing(example):
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    good = [sign(key, {"device": "tank-1", "distance": number}) for number in range(3)]
    bad = {**good[0], "data": {"device": "tank-1", "distance": 999}}
    with example.receiver():
        answer = example.post(good[:2])
        assert answer.status_code == 200
        assert answer.json() == {"status": "success", "message": "Data added to blockchain"}
        genesis, block = example.chain()
        assert set(genesis) == set(block) == {"index", "timestamp", "data", "previous hash", "nonce", "hash"}
        assert (genesis["index"], genesis["data"], genesis["previous hash"]) == (0, "Genesis Block", "0")
        assert block["data"] == [it["data"] for it in good[:2]] and block["previous hash"] == genesis["hash"]
        refusals = [
            ([good[2], bad], f"Invalid signature for item: {bad['data']!r}"),
            ([good[2], {**good[2], "signature": "abc"}], f"Invalid signature for item: {good[2]['data']!r}"),
            ([good[2], {**good[2], "public_key": None}], f"Invalid signature for item: {good[2]['data']!r}"),
            (
                [good[2], sign(key, json.loads("[" * 101 + "]" * 101))],
                "An item may have 65536 bytes and 100 levels at most",
            ),
            ([good[2], {"data": 1}], "Invalid payload structure"),
            ([good[2], 1], "Invalid payload structure"),
            (good[2], "Payload should be a list of items"),
        ]
        for items, message in refusals:
            answer = example.post(items)
            assert (answer.status_code, answer.json()) == (400, {"status": "error", "message": message})
        # Nothing waits either: one more reading fills no block.
        example.post([good[2]])
        assert len(example.chain()) == 2
    with example.receiver():
        assert example.chain() == [genesis, block]
        assert example.post([sign(key, "after the restart")]).status_code == 200
        assert [it["data"] for it in example.chain()[2:]] == [[good[2]["data"], "after the restart"]]
