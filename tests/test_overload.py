"""Overload: memory is bounded, an answer comes early and says when to come again, and reads wait for nobody.

The bounds on memory are what the limits of the receiver add up to: 64 MiB of large bodies and twice that for what is made
of them, small bodies of all connections, 32 MiB of verified readings, 64 MiB of SQLite's pages. There is room for an
allocator that keeps memory.
"""

import contextlib
import json
import os
import re
import resource
import secrets
import select
import socket
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg2
import pytest

import cases
import raw_http
import signer as keys
from program import PATIENCE_S, Receiver, run, wait_until

LONG = os.environ.get("LIOTBCHAIN_LONG") == "1"
MEBIBYTE = 1 << 20

# Never mined within a test, and tried for minutes.
HOPELESS = {"DIFFICULTY": 16, "NONCE_LIMIT": 1 << 32, "TRANSACTIONS_PER_BLOCK": 2, "SEAL_WAIT": 0}


@contextlib.contextmanager
def files_allowed(count):
    """What is started within may have so many files open, but may ask for more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module", autouse=True)
def many_files():
    """A thousand connections at this end, too."""
    with files_allowed(8192):
        yield


@pytest.fixture(scope="module")
def device():
    return keys.new_ed25519()


def memory(receiver):
    """The most memory that a receiver has had so far, in bytes."""
    with open(f"/proc/{receiver.process.pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) * 1024


def grew_by_less_than(receiver, before, mebibytes):
    grown = (memory(receiver) - before) / MEBIBYTE
    print(f"memory grew by {grown:.0f} MiB of {mebibytes} allowed")
    assert grown < mebibytes


def reading(size=0):
    """A reading that no compression makes much smaller."""
    return json.dumps([next(cases.numbers), secrets.token_urlsafe(size)[:size]])


def signed_list(device, count, size=0):
    return ("[" + ",".join(device.item(reading(size)) for _ in range(count)) + "]").encode()


def large_list(device):
    """About as large as a body may be: 120 readings of 64 KB."""
    return signed_list(device, 120, 65_000)


def head(receiver, length, path="/receive_data"):
    lines = [f"POST {path} HTTP/1.1", f"Host: {receiver.address}", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def post(receiver, body):
    """Posts on a connection of its own and returns the answer, which may come before all was sent."""
    with raw_http.connect(receiver.address, PATIENCE_S) as connection:
        raw_http.send(connection, [head(receiver, len(body)), body])
        return raw_http.read_answer(connection)


def check_answers(answers, statuses):
    """Every request was answered, those that were turned away were told when to come again."""
    counts = Counter(answer and answer.status for answer in answers)
    print(dict(counts))
    assert counts.keys() <= statuses, counts
    for answer in answers:
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 0
            assert answer.json()["code"] in ("overloaded", "store_unavailable")
    return counts


def stored_ids(folder):
    with contextlib.closing(sqlite3.connect(folder / "data/liotbchain.db", timeout=30)) as connection:
        return {bytes(id).hex() for (id,) in connection.execute("SELECT id FROM transactions")}


def check_acknowledged(folder, answers):
    ids = {item["id"] for answer in answers if answer.status == 200 for item in answer.json()["items"]}
    assert ids, "nothing was taken: that was no load"
    assert ids <= stored_ids(folder), "acknowledged transactions are lost"


# Memory ------------------------------------------------------------------------------------------------------------


def test_a_flood_of_lists_takes_bounded_memory(tmp_path, device):
    """200 connections post 8 MB each, 400 have sent all but the last byte of 64 KB, 200 say nothing more."""
    valid = [large_list(device) for _ in range(6)]
    # Another character in the middle of the first reading.
    forged = [body[:1000] + (b"B" if body[1000:1001] == b"A" else b"A") + body[1001:] for body in valid[:2]]
    garbage = [b"[" + b"[]," * 2_600_000 + b"[]]", b'["' + b"\\u00e9" * 1_300_000 + b'"]']
    large = (valid + forged + garbage) * 20
    small = [signed_list(device, 1, 63_000) for _ in range(400)]
    with Receiver(tmp_path, **HOPELESS, PENDING_MAX=100_000) as receiver, contextlib.ExitStack() as open_ones:
        before = memory(receiver)
        connect = lambda: open_ones.enter_context(raw_http.connect(receiver.address, PATIENCE_S))
        idle = [connect() for _ in range(200)]
        for connection in idle:
            connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: {receiver.address}\r\n\r\n".encode())
        assert {raw_http.read_answer(connection).status for connection in idle} == {200}
        waiting = []
        for body in small:
            waiting.append(connect())
            waiting[-1].sendall(head(receiver, len(body)) + body[:-1])
        with ThreadPoolExecutor(len(large)) as pool:
            posts = [pool.submit(post, receiver, body) for body in large]
            # Who asks for little is answered meanwhile.
            while wait(posts, timeout=0.2).not_done:
                assert receiver.get("/healthz").status_code == 200
                assert receiver.get("/metrics").status_code == 200
        answers = [post.result() for post in posts]
        for connection, body in zip(waiting, small):
            connection.sendall(body[-1:])
        answers += [raw_http.read_answer(connection) for connection in waiting]
        counts = check_answers(answers, {200, 400, 413, 503})
        assert counts[400] + counts[413] > 0
        grew_by_less_than(receiver, before, 448)
        # It works as before.
        again = post(receiver, signed_list(device, 2))
        assert again.status == 200
        check_acknowledged(tmp_path, [*answers, again])
        assert receiver.terminate() == 0
    assert run("chain", "validate", folder=tmp_path).returncode == 0


def test_headers_without_an_end_take_bounded_memory(tmp_path):
    with Receiver(tmp_path) as receiver, contextlib.ExitStack() as open_ones:
        before = memory(receiver)
        start = f"GET / HTTP/1.1\r\nHost: {receiver.address}\r\nX: ".encode()
        connections = [open_ones.enter_context(raw_http.connect(receiver.address)) for _ in range(800)]
        for connection in connections:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(start)
                connection.setblocking(False)
        left = {connection: memoryview(b"x" * 400_000) for connection in connections}
        while left:
            for connection in select.select([], list(left), [], PATIENCE_S)[1] or left:
                try:
                    left[connection] = left[connection][connection.send(left[connection][:65_536]) :]
                except (BrokenPipeError, ConnectionResetError):
                    left[connection] = b""
            left = {connection: rest for connection, rest in left.items() if rest}
        assert receiver.get("/healthz").status_code == 200
        grew_by_less_than(receiver, before, 128)


def test_the_systems_limit_on_files_takes_no_connection_its_answer(tmp_path):
    """Shells and services start programs with few files allowed, and let them ask for more."""
    receiver = Receiver(tmp_path)
    with files_allowed(256):
        receiver.start()
    with contextlib.ExitStack() as open_ones:
        open_ones.callback(receiver.kill)
        receiver.ready()
        idle = [open_ones.enter_context(raw_http.connect(receiver.address)) for _ in range(300)]
        another = raw_http.request(receiver.address, "GET", "/healthz", [("Host", receiver.address)])
        assert another.status == 200
        # It was answered beside them, and not because they were given up.
        assert not select.select(idle, [], [], 0)[0]


def test_slow_bodies_keep_nobody_else_from_sending(tmp_path, device):
    """They take the room for large bodies: another large one is told to come again, small ones are taken."""
    with Receiver(tmp_path, **HOPELESS) as receiver, contextlib.ExitStack() as open_ones:
        before = memory(receiver)
        for _ in range(200):
            connection = open_ones.enter_context(raw_http.connect(receiver.address, PATIENCE_S))
            connection.sendall(head(receiver, 8_000_000) + b"[" + b" " * 100_000)
        assert post(receiver, signed_list(device, 2)).status == 200
        if LONG:  # they wait for ten seconds
            refused = post(receiver, large_list(device))
            assert refused.json()["code"] == "overloaded"
            check_answers([refused], {503})
            assert post(receiver, signed_list(device, 2)).status == 200
        grew_by_less_than(receiver, before, 64)


def test_pending_readings_above_the_limit_are_refused_at_once(tmp_path, device):
    with Receiver(tmp_path, **HOPELESS, PENDING_MAX=1000) as receiver:
        lists = [signed_list(device, 100) for _ in range(20)]
        answers = [post(receiver, body) for body in lists]
        assert [answer.status for answer in answers] == [200] * 10 + [503] * 10
        check_answers(answers, {200, 503})
        assert all(answer.json()["code"] == "overloaded" for answer in answers[10:])
        assert receiver.get("/readyz").status_code == 200
        assert len(receiver.chain()) == 1
        # The limit holds after a restart, too, and what was taken is still there.
        receiver.kill()
        receiver.restart()
        assert post(receiver, lists[0]).status == 503
        check_acknowledged(tmp_path, answers)


def test_large_readings_that_wait_take_bounded_memory(tmp_path, device):
    """The part that seals takes up what waits, some at a time: here 125 MB wait."""
    with Receiver(tmp_path, **HOPELESS | {"TRANSACTIONS_PER_BLOCK": 8000}) as receiver:
        for _ in range(16):
            assert post(receiver, large_list(device)).status == 200
        receiver.kill()
        # Blocks of two: now there is something to mine.
        receiver.settings["TRANSACTIONS_PER_BLOCK"] = 2
        receiver.restart()
        wait_until("mining", lambda: receiver.get("/readyz").json()["sealing"] == "working")
        # It mines, so it has all that it wants to mine.
        wait_until("mining threads", lambda: processor_time(receiver) > 1)
        grew_by_less_than(receiver, 0, 96)


def processor_time(receiver):
    """Seconds that a receiver has computed so far."""
    with open(f"/proc/{receiver.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Reading -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def write_lock(folder, database_url):
    """Keeps every other connection from writing."""
    if database_url.startswith("sqlite:"):
        connection = sqlite3.connect(folder / "data" / database_url.removeprefix("sqlite:"), timeout=30)
        statement = "BEGIN IMMEDIATE"
    else:
        connection = psycopg2.connect(database_url)
        statement = "LOCK TABLE liotbchain.transactions, liotbchain.blocks IN EXCLUSIVE MODE"
    with contextlib.closing(connection):
        connection.cursor().execute(statement)
        yield
        connection.rollback()


def test_reads_wait_neither_for_mining_nor_for_commits(tmp_path, device, database_url):
    with Receiver(tmp_path, DATABASE_URL=database_url, **HOPELESS) as receiver:
        taken = post(receiver, signed_list(device, 4))
        assert taken.status == 200
        wait_until("mining", lambda: receiver.get("/readyz").json()["sealing"] == "working")
        with write_lock(tmp_path, database_url), ThreadPoolExecutor(50) as pool:
            posts = [pool.submit(post, receiver, signed_list(device, 2)) for _ in range(50)]
            rounds = 0
            while True:
                for path in ("/get_chain", "/healthz", "/readyz", "/", "/metrics", "/openapi.json"):
                    assert receiver.get(path).status_code == 200, path
                rounds += 1
                if not wait(posts, timeout=0.2).not_done:
                    break
            # The lock is still held: nothing could be written, all were answered, and reads went on.
            check_answers([post.result() for post in posts], {503})
            assert rounds > 5
        assert receiver.get("/healthz").status_code == 200
        body = signed_list(device, 2)
        wait_until("a list to be taken", lambda: post(receiver, body).status == 200)
        assert receiver.terminate() == 0
    validated = run("chain", "validate", folder=tmp_path, settings={"DATABASE_URL": database_url})
    assert validated.returncode == 0


@pytest.fixture(scope="module", autouse=True)
def stalled(tmp_path_factory, device):
    """A receiver, and the port of a client that reads no more of its answer: from the first test on, to save time."""
    with Receiver(tmp_path_factory.mktemp("stalled"), TRANSACTIONS_PER_BLOCK=120, SEAL_WAIT=60) as receiver:
        assert post(receiver, large_list(device)).status == 200
        with slow_reader(receiver) as reader:
            assert reader.recv(1000).startswith(b"HTTP/1.1 200")
            port = reader.getsockname()[1]
            assert is_open(receiver, port)
            yield receiver, port


def slow_reader(receiver, encoding="identity"):
    """Asks for the chain, with little room at this end, and does not read it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE_S)
    connection.connect(("127.0.0.1", receiver.port))
    lines = ["GET /get_chain HTTP/1.1", f"Host: {receiver.address}", "Connection: close"]
    connection.sendall("\r\n".join([*lines, f"Accept-Encoding: {encoding}", "", ""]).encode())
    return connection


@pytest.fixture(scope="module")
def large_chain(tmp_path_factory, device):
    """A receiver with a chain of 47 MB, or in a long run of 100,000 transactions and 75 MB."""
    folder = tmp_path_factory.mktemp("large")
    with Receiver(folder, TRANSACTIONS_PER_BLOCK=10, DIFFICULTY=0, SEAL_WAIT=60) as receiver:
        lists = [signed_list(device, 5000, 700) for _ in range(20)] if LONG else [large_list(device) for _ in range(6)]
        for body in lists:
            assert post(receiver, body).status == 200
        count = len(lists) * len(json.loads(lists[0]))
        wait_until("all blocks", lambda: f"liotbchain_height {count // 10}" in receiver.get("/metrics").text)
        assert receiver.terminate() == 0
        receiver.restart()
        yield receiver


def test_slow_readers_take_bounded_memory(large_chain, device):
    receiver = large_chain
    before = memory(receiver)
    size = len(receiver.get("/get_chain", headers={"Accept-Encoding": "identity"}).content)
    assert size > 40 * MEBIBYTE
    with contextlib.ExitStack() as open_ones:
        encodings = ["identity", "gzip"] * 10
        readers = [open_ones.enter_context(slow_reader(receiver, encoding)) for encoding in encodings]
        starts = [reader.recv(1000) for reader in readers]
        assert all(start.startswith(b"HTTP/1.1 200") for start in starts)
        # What they asked for is on its way as far as it goes; the others go on meanwhile.
        for _ in range(20):
            assert receiver.get("/healthz").status_code == 200
            time.sleep(0.05)
        assert post(receiver, signed_list(device, 10)).status == 200
        grew_by_less_than(receiver, before, 64)
        # Who reads on gets the rest.
        whole = b"".join(iter(lambda: readers[0].recv(1 << 20), b""))
        assert len(whole) > size - 2000 and whole.endswith(b"]\n\r\n0\r\n\r\n")
        grew_by_less_than(receiver, before, 64)


def test_a_reader_who_stands_still_is_cut_off(stalled):
    """After a minute in which the client took nothing."""
    receiver, port = stalled
    wait_until("the connection to be closed", lambda: not is_open(receiver, port), patience_s=150, pause_s=0.5)
    assert receiver.get("/healthz").status_code == 200


def is_open(receiver, port):
    """Whether the receiver has a connection with this port at the other end."""
    local, remote = f"0100007F:{receiver.port:04X}", f"0100007F:{port:04X}"
    with open("/proc/net/tcp") as table:
        return any(line.split()[1:4] == [local, remote, "01"] for line in table)
