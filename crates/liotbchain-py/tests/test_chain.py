"""`liotbchain.Chain`: what is added is there, once, whatever happens; what is wrong is said."""

import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liotbchain import (
    BlockchainOperationError,
    Chain,
    DatabaseConfigurationError,
    DatabaseConnectionError,
    InvalidChainError,
    InvalidTransactionError,
    MiningFailedError,
    Signed,
    SigningKey,
)


@pytest.fixture
def chain(db_url):
    with Chain.open(db_url, difficulty=1) as chain:
        yield chain


def values(chain):
    """What the chain holds above its genesis block."""
    return [transaction.data for block in chain.blocks(1) for transaction in block.transactions]


# Adding ------------------------------------------------------------------------------------------------------------


def test_an_addition_tells_where_it_stands(chain):
    first, second = chain.add({"n": 1}), chain.add({"n": 2})
    assert (first.status, first.height, first.block_hash) == ("pending", None, None)
    assert (second.status, second.height, second.position) == ("sealed", 1, 1)
    assert second.block_hash == chain.tip == chain[1].hash
    known = chain.transaction(first.id)
    assert (known.status, known.height, known.position, known.data) == ("sealed", 1, 0, {"n": 1})


def test_a_text_is_taken_as_it_is_and_anything_else_as_json_writes_it(chain):
    texts = ['{ "celsius" : 2.150e1 }', '"a text"', "21.5"]
    chain.add_many(texts)
    chain.add_many([{"é": [1, None]}, 7, True])
    assert [it.payload for block in chain.blocks(1) for it in block] == [*texts, '{"\\u00e9": [1, null]}', "7", "true"]


@pytest.mark.parametrize(
    "wrong",
    ["", "{", "{'a': 1}", '{"a":1,"a":2}', "1 2", float("nan"), [float("inf")], {1, 2}, b"bytes", "[" * 101 + "]" * 101],
    ids=lambda it: repr(it)[:20],
)
def test_what_is_no_json_is_refused_and_nothing_is_stored(chain, wrong):
    with pytest.raises(InvalidTransactionError) as refused:
        chain.add(wrong)
    assert len(str(refused.value)) > 20
    with pytest.raises(InvalidTransactionError, match="transaction 1"):
        chain.add_many(["1", wrong, "2"]) if isinstance(wrong, str) else chain.add_many(["1", "{", "2"])
    assert chain.pending() == [] and chain.height == 0


def test_a_payload_has_a_largest_size(chain):
    most = 65_536
    assert chain.add('"' + "x" * (most - 2) + '"').status == "pending"
    with pytest.raises(InvalidTransactionError, match=str(most)):
        chain.add('"' + "x" * (most - 1) + '"')


@pytest.mark.parametrize("one", ["text", {"a": 1}])
def test_many_are_a_list(chain, one):
    with pytest.raises(TypeError, match="add takes a single one"):
        chain.add_many(one)
    assert chain.add_many([]) == []
    assert chain.add_many(str(number) for number in range(4))[3].height == 2


def test_a_list_is_taken_whole(chain):
    done = chain.add_many([{"n": number} for number in range(101)])
    assert [it.status for it in done] == ["sealed"] * 100 + ["pending"]
    assert chain.height == 50
    assert chain.mine() == 51
    assert values(chain) == [{"n": number} for number in range(101)]


# Any JSON value, as Python has it. Half a surrogate pair is no text that UTF-8 can say.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_values.filter(lambda it: not isinstance(it, str)), min_size=1, max_size=5))
def test_every_json_value_comes_back_as_it_was(given_values):
    with Chain.open("memory:", difficulty=0) as chain:
        chain.add_many(given_values)
        chain.mine()
        assert values(chain) == given_values
        assert chain.validate()


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda it: it.decode("latin-1")))
def test_any_text_is_a_transaction_or_is_refused(text):
    with Chain.open("memory:", difficulty=0, transactions_per_block=1) as chain:
        try:
            chain.add(text)
        except (InvalidTransactionError, UnicodeEncodeError):
            assert chain.height == 0
        else:
            assert chain[1][0].payload == text
            json.loads(text)


# Signatures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "p256"])
def test_a_signed_transaction_is_stored_once(tmp_path, kind):
    with Chain.open("memory:", unsigned=False, transactions_per_block=1) as chain:
        key = SigningKey.load_or_create(tmp_path / "key.pem", kind)
        signed = key.sign({"device": "tank-1"})
        first = chain.add(signed)
        assert chain.add(key.sign({"device": "tank-1"})).id == first.id
        assert chain.add(Signed(signed.payload, signed.signature, signed.public_key)).height == first.height == 1
        assert chain.height == 1
        stored = chain[1][0]
        assert (stored.key_id, stored.payload, stored.sequence) == (key.key_id, signed.payload, 0)
        assert stored.is_signed and stored.signature
        assert os.stat(tmp_path / "key.pem").st_mode & 0o777 == 0o600
        assert SigningKey.from_pem((tmp_path / "key.pem").read_text()).key_id == key.key_id
        assert key.key_id in repr(key) and "PRIVATE" not in repr(key)


def test_a_bad_signature_is_refused():
    with Chain.open("memory:", unsigned=False) as chain:
        signed, other = SigningKey.generate().sign("1"), SigningKey.generate()
        for wrong in [
            Signed("2", signed.signature, signed.public_key),
            Signed("1", signed.signature, other.public_key),
            Signed("1", signed.signature[:-1], signed.public_key),
            Signed("1", signed.signature, "no key"),
        ]:
            with pytest.raises(InvalidTransactionError):
                chain.add(wrong)
        with pytest.raises(InvalidTransactionError, match="without a signature"):
            chain.add("1")
        assert chain.pending_count == 0


def test_a_key_file_that_is_none_is_left_alone(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("something else")
    with pytest.raises(OSError, match="key.pem"):
        SigningKey.load_or_create(path)
    assert path.read_text() == "something else"
    with pytest.raises(ValueError):
        SigningKey.from_pem("something else")
    with pytest.raises(ValueError, match="ed25519"):
        SigningKey.generate("dsa")


# Reading -----------------------------------------------------------------------------------------------------------


def test_blocks_are_found_by_height_and_hash(chain):
    chain.add_many([str(number) for number in range(6)])
    assert len(chain) == 4 and chain.height == 3
    blocks = list(chain)
    assert [block.height for block in blocks] == [0, 1, 2, 3]
    for below, block in zip(blocks, blocks[1:]):
        assert block.prev_block_hash == below.hash
        assert chain.block(block.hash).header == chain[block.height].header == block.header
        assert block.difficulty == 1 and block.hash.startswith("0")
    assert chain[-1].hash == chain.tip and chain[0].hash == chain.genesis
    assert [block.height for block in chain.blocks(1, 3)] == [1, 2]
    assert list(chain.blocks(9)) == []
    with pytest.raises(IndexError):
        chain[4]
    with pytest.raises(KeyError):
        chain.block("00" * 32)
    with pytest.raises(KeyError):
        chain.transaction("no id")
    with pytest.raises(IndexError):
        blocks[1][2]
    assert blocks[1][-1].data == 1


def test_an_iterator_keeps_its_chain_open():
    blocks = iter(Chain.open("memory:"))
    gc.collect()
    assert [block.height for block in blocks] == [0]


def test_a_long_chain_is_read_a_page_at_a_time(tmp_path):
    """The memory of a reader does not grow with the chain."""
    program = """
import resource, sys
from liotbchain import Chain

def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

with Chain.open(sys.argv[1], difficulty=0, transactions_per_block=1) as chain:
    for _ in range(20):
        chain.add_many(["%d" % number + " " * 1000 for number in range(1000)])
    before = peak_kib()
    count = sum(len(block) for block in chain)
    print(count, peak_kib() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:{tmp_path}/long.db"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    count, grown_kib = map(int, done.stdout.split())
    assert count == 20_001
    # All of it takes more than 20 MiB.
    assert grown_kib < 10 << 10


# Validation, export, import ----------------------------------------------------------------------------------------


def test_a_change_in_the_file_is_named(tmp_path):
    path = tmp_path / "chain.db"
    with Chain.open(f"sqlite:{path}") as chain:
        chain.add_many([{"celsius": number} for number in range(10)])
        assert chain.validate() and chain.validate().valid_blocks == 6
    with closing(sqlite3.connect(path)) as database, database:
        changed = database.execute("UPDATE transactions SET payload = '{\"celsius\": 99}' WHERE height = 3 AND position = 1")
        assert changed.rowcount == 1
    with Chain.open(f"sqlite:{path}") as chain:
        validation = chain.validate()
        assert not validation
        assert (validation.fault.height, validation.valid_blocks) == (3, 3)
        assert "block 3" in str(validation.fault) and validation.fault.reason in str(validation.fault)


def test_an_export_is_checked_by_both_and_comes_back(tmp_path, db_url, chain):
    from liotbchain.verify import verify_export

    key = SigningKey.generate()
    chain.add_many([key.sign({"n": number}) for number in range(5)] + [{"plain": number} for number in range(4)])
    chain.mine()
    path = tmp_path / "chain.ndjson"
    done = chain.export(path)
    assert (done.height, done.tip, done.transactions) == (chain.height, chain.tip, 10)
    verified = verify_export(path)
    assert (verified.tip.hex(), verified.transactions) == (chain.tip, 10)
    assert not list(tmp_path.glob("*.part"))

    copy = f"sqlite:{tmp_path}/copy.db"
    assert Chain.import_export(path, copy).tip == chain.tip
    with Chain.open(copy) as again:
        assert [block.header for block in again] == [block.header for block in chain]
    # The same chain is there already; another one finds no room.
    assert Chain.import_export(path, copy).tip == chain.tip
    with Chain.open("memory:") as other:
        other.export(tmp_path / "other.ndjson")
    with pytest.raises(BlockchainOperationError, match="empty"):
        Chain.import_export(tmp_path / "other.ndjson", copy)

    path.write_bytes(path.read_bytes().replace(b'\\"n\\": 3', b'\\"n\\": 4'))
    with pytest.raises(InvalidChainError, match="signature"):
        Chain.import_export(path, f"sqlite:{tmp_path}/other.db")
    with pytest.raises(FileNotFoundError):
        Chain.import_export(tmp_path / "none", f"sqlite:{tmp_path}/other.db")


def test_an_export_that_cannot_be_written_leaves_the_last_one(tmp_path, chain):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "kept").write_text("kept")
    with pytest.raises(OSError, match="folder"):
        chain.export(path)
    assert (path / "kept").read_text() == "kept"
    assert not list(tmp_path.glob("*.part"))


def test_progress_is_told_and_may_end_it(tmp_path):
    with Chain.open(f"sqlite:{tmp_path}/chain.db", difficulty=0) as chain:
        for _ in range(30):
            chain.add_many([str(number) for number in range(4_000)])
        told = []
        assert chain.validate(lambda done, of: told.append((done, of)))
        assert told and all(0 <= done <= of + 1 and of == chain.height for done, of in told)

        def enough(done, of):
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            chain.validate(enough)
        path = tmp_path / "chain.ndjson"
        with pytest.raises(RuntimeError, match="enough"):
            chain.export(path, enough)
        assert not list(tmp_path.glob("chain.ndjson*"))


# Opening and closing -----------------------------------------------------------------------------------------------


def test_what_waits_is_there_at_the_next_start(db_url):
    with Chain.open(db_url, transactions_per_block=5) as chain:
        for number in range(3):
            chain.add({"n": number})
    with Chain.open(db_url, transactions_per_block=5) as chain:
        assert [json.loads(text) for text in chain.pending()] == [{"n": number} for number in range(3)]
        assert chain.pending_count == 3
        chain.add_many(['"a"', '"b"'])
        assert values(chain) == [{"n": 0}, {"n": 1}, {"n": 2}, "a", "b"]


def test_a_closed_chain_says_so(chain):
    chain.close()
    chain.close()
    assert chain.is_closed and "closed" in repr(chain)
    for call in [lambda: chain.add("1"), lambda: chain.height, lambda: list(chain), chain.validate, chain.mine]:
        with pytest.raises(BlockchainOperationError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"difficulty": 17}, "0 to 16"),
        ({"difficulty": -1}, "0 to 16"),
        ({"transactions_per_block": 0}, "expected 1"),
        ({"nonce_limit": 0}, "expected 1"),
        ({"nonce_limit": 2**32 + 1}, "expected 1"),
        ({"seal_wait": -1.0}, "seconds"),
    ],
)
def test_a_wrong_option_says_what_is_right(options, words):
    with pytest.raises(ValueError, match=words):
        Chain.open("memory:", **options)


@pytest.mark.parametrize("url", ["mysql://host/x", "", "sqlite:/proc/none/chain.db"])
def test_an_address_of_no_use_says_what_to_do(url):
    with pytest.raises((DatabaseConfigurationError, DatabaseConnectionError)) as refused:
        Chain.open(url)
    assert len(str(refused.value)) > 20


def test_a_password_is_never_shown():
    with pytest.raises((DatabaseConfigurationError, DatabaseConnectionError)) as refused:
        Chain.open("postgres://user:a-secret@127.0.0.1:1/none")
    assert "a-secret" not in str(refused.value)


def test_the_least_difficulty_of_a_chain_holds_for_ever(db_url):
    with Chain.open(db_url, difficulty=3, transactions_per_block=1) as chain:
        chain.add("1")
    with pytest.raises(DatabaseConfigurationError, match="below 3"):
        Chain.open(db_url, difficulty=2)
    with Chain.open(db_url, transactions_per_block=1) as chain:
        chain.add("2")
        assert chain[2].difficulty == 3
        assert chain.rules["difficulty"] == 3


# Threads, processes, signals ---------------------------------------------------------------------------------------


def test_python_goes_on_while_a_chain_works():
    """The lock of the interpreter is free while a block is mined."""
    with Chain.open("memory:", difficulty=16, transactions_per_block=1, nonce_limit=2**32, seal_wait=1.0) as chain:
        counted = 0
        adding = threading.Thread(target=chain.add, args=["1"])
        adding.start()
        while adding.is_alive():
            counted += 1
            time.sleep(0.001)
        assert counted > 50


def test_threads_share_a_chain(chain):
    def add(name):
        for number in range(25):
            chain.add({"thread": name, "n": number})

    threads = [threading.Thread(target=add, args=[name]) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chain.mine()
    found = values(chain)
    assert len(found) == 200
    for name in range(8):
        assert [it["n"] for it in found if it["thread"] == name] == list(range(25))
    assert chain.validate()


def test_ctrl_c_ends_a_wait_and_loses_nothing(tmp_path):
    program = """
import sys
from liotbchain import Chain

chain = Chain.open(sys.argv[1], difficulty=16, transactions_per_block=1, nonce_limit=2**32)
print("ready", flush=True)
try:
    chain.add('"kept"')
except KeyboardInterrupt:
    print("interrupted", chain.pending_count, flush=True)
"""
    url = f"sqlite:{tmp_path}/chain.db"
    process = subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    with Chain.open(url, difficulty=16, transactions_per_block=100) as chain:
        deadline = time.monotonic() + 60
        while not chain.pending():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted 1\n"
        assert process.returncode == 0
        assert chain.pending() == ['"kept"']


def test_a_forked_process_is_told_and_harms_nothing(tmp_path):
    """Threads, SQLite's locks and connections do not survive a fork: an error is better than a wait without an end."""
    program = """
import os, sys
from liotbchain import BlockchainOperationError, Chain

chain = Chain.open(sys.argv[1], transactions_per_block=1)
chain.add('"before"')
child = os.fork()
if child == 0:
    for call in [lambda: chain.add('"child"'), lambda: Chain.open(sys.argv[1]), lambda: list(chain)]:
        try:
            call()
        except BlockchainOperationError as error:
            assert "forked" in str(error), error
        else:
            sys.exit("not refused")
    chain.close()
    del chain
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
chain.add('"after"')
assert chain.validate()
print([block[0].data for block in chain.blocks(1)])
"""
    for number in range(5):
        url = f"sqlite:{tmp_path}/{number}.db"
        done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "['before', 'after']\n"), done.stdout + done.stderr


def test_processes_that_are_spawned_share_a_chain(tmp_path):
    program = """
import multiprocessing, sys
from liotbchain import Chain

def add(url, name):
    with Chain.open(url) as chain:
        for number in range(20):
            chain.add({"process": name, "n": number})

if __name__ == "__main__":
    with Chain.open(sys.argv[1]) as chain:
        chain.add({"process": "parent", "n": 0})
        children = [multiprocessing.get_context("spawn").Process(target=add, args=[sys.argv[1], name]) for name in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
"""
    script, url = tmp_path / "program.py", f"sqlite:{tmp_path}/chain.db"
    script.write_text(program)
    done = subprocess.run([sys.executable, script, url], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with Chain.open(url) as chain:
        chain.mine()
        found = values(chain)
        assert len(found) == 61 and chain.validate()
    for name in range(3):
        assert [it["n"] for it in found if it["process"] == name] == list(range(20))


@pytest.mark.parametrize("how", ["killed", "ended without closing"])
def test_the_next_program_mines_on(tmp_path, how):
    """The right to mine of a program that is gone is waited for."""
    program = """
import os, signal, sys
from liotbchain import Chain

chain = Chain.open(sys.argv[1])
chain.add_many(["1", "2", "3"])
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    url = f"sqlite:{tmp_path}/chain.db"
    subprocess.run([sys.executable, "-c", program, url, how], timeout=60)
    with Chain.open(url) as chain:
        assert chain.mine() == 2
        assert values(chain) == [1, 2, 3]


@pytest.mark.parametrize("call", ["mine", "add"])
def test_closing_ends_the_wait_of_another_thread(call):
    chain = Chain.open("memory:", difficulty=16, transactions_per_block=2, nonce_limit=2**32)
    chain.add("1")
    done = []

    def wait():
        try:
            done.append(chain.mine() if call == "mine" else chain.add("2"))
        except BlockchainOperationError as error:
            done.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    deadline = time.monotonic() + 30
    while call == "add" and chain.pending_count < 2:
        assert time.monotonic() < deadline
    time.sleep(0.2)
    assert waiting.is_alive()
    chain.close()
    waiting.join(30)
    assert not waiting.is_alive()
    assert "shutting down" in str(done[0]) if call == "mine" else done[0].status == "pending"


def test_a_damaged_row_that_waits_holds_nothing_up(tmp_path):
    path = tmp_path / "chain.db"
    with Chain.open(f"sqlite:{path}", transactions_per_block=9) as chain:
        for number in range(3):
            chain.add(str(number))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE transactions SET payload = '7' WHERE payload = '1' AND height IS NULL")
    with Chain.open(f"sqlite:{path}", transactions_per_block=9) as chain:
        assert chain.mine() == 1
        assert values(chain) == [0, 2]
        assert chain.pending() == ["7"]
        # And again, with the row known to be damaged.
        chain.add("3")
        assert chain.mine() == 2
        assert values(chain) == [0, 2, 3]
        assert chain.mine() == 2


def test_a_payload_that_is_too_deep_for_python_is_shown_as_its_text(tmp_path):
    """An export may hold what no receiver takes: that a payload is JSON is no rule of the chain."""
    from chain_builder import ChainBuilder

    chain = ChainBuilder({"unsigned": True})
    deep = "[" * 60_000
    chain.add_block([chain.unsigned(deep), chain.unsigned("no JSON")])
    path = tmp_path / "deep.ndjson"
    path.write_bytes(chain.export())
    url = f"sqlite:{tmp_path}/deep.db"
    Chain.import_export(path, url)
    with Chain.open(url) as chain:
        assert values(chain) == [deep, "no JSON"]


def test_mining_that_gives_up_says_so_and_goes_on():
    with Chain.open("memory:", difficulty=16, nonce_limit=10) as chain:
        assert chain.add_many(["1", "2"])[0].status == "pending"
        with pytest.raises(MiningFailedError, match="10 attempts"):
            chain.mine()
        assert chain.pending() == ["1", "2"]


def test_a_database_that_is_gone_is_an_error_and_comes_back(cluster):
    from postgres import Cluster

    own = Cluster().create()
    try:
        with Chain.open(own.new_database(), transactions_per_block=1) as chain:
            chain.add("1")
            own.stop("immediate")
            with pytest.raises(DatabaseConnectionError):
                chain.add("2")
            own.start()
            deadline = time.monotonic() + 60
            while True:
                try:
                    chain.add("3")
                    break
                except DatabaseConnectionError:
                    assert time.monotonic() < deadline
            assert values(chain)[0] == 1 and values(chain)[-1] == 3
            assert chain.validate()
    finally:
        own.remove()
