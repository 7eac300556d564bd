"""Power cuts: whatever was acknowledged is there afterwards, exactly once, and the chain is valid.

Each store is put through it 10 times, and 50 times with LIOTBCHAIN_LONG=1 (./test --long).
"""

import itertools
import json
import os
import random
import resource
import sqlite3
import threading
import time
from collections import Counter

import psycopg2
import pytest
import requests

import cases
import signer as keys
from postgres import Cluster
from program import PATIENCE_S, Receiver, run, wait_until

ROUNDS = 50 if os.environ.get("LIOTBCHAIN_LONG") == "1" else 10
CLIENTS = 8
HANG_S = 30


class Client(threading.Thread):
    """Posts signed readings one request after another until it is told to stop, and remembers what was acknowledged.

    A request without an answer is sent again, as a device would do: it may or may not have been stored.
    """

    def __init__(self, url, stop, strict):
        super().__init__(daemon=True)
        self.url = url
        self.stop = stop
        self.strict = strict  # whether every request must be answered
        self.device = keys.new_ed25519()
        self.acknowledged = Counter()
        self.answers = Counter()
        self.fault = None
        # Signed before the load, so that the load is the receiver's. Lists of one, two and three readings in turn.
        self.requests = []
        for size in itertools.islice(itertools.cycle([1, 2, 3]), max(1000, 100 * ROUNDS)):
            texts = [json.dumps({"device": self.name, "n": next(cases.numbers)}) for _ in range(size)]
            ids = [cases.transaction_id(self.device.key_id, text.encode()) for text in texts]
            self.requests.append((ids, "[" + ",".join(map(self.device.item, texts)) + "]"))

    def run(self):
        try:
            with requests.Session() as session:
                session.trust_env = False
                for ids, body in itertools.cycle(self.requests):
                    if self.stop.is_set():
                        return
                    self.post(session, ids, body)
        except BaseException as fault:
            self.fault = fault
            raise

    def post(self, session, ids, body):
        headers = {"Content-Type": "application/json"}
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                answer = session.post(self.url + "/receive_data", data=body, headers=headers, timeout=HANG_S)
            except requests.Timeout:
                raise AssertionError(f"no answer in {HANG_S} s") from None
            except requests.RequestException:
                # Killed in the middle, or not up again yet.
                assert not self.strict, "a connection was closed without an answer"
                time.sleep(0.02)
                continue
            assert time.monotonic() - started < HANG_S
            self.answers[answer.status_code] += 1
            if answer.status_code == 200:
                assert [item["id"] for item in answer.json()["items"]] == ids
                self.acknowledged.update(ids)
                return
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 0
            time.sleep(0.05)


class Load:
    """Eight clients that post until the block ends; whatever went wrong in one of them fails the test."""

    def __init__(self, url, strict):
        self.stop = threading.Event()
        self.clients = [Client(url, self.stop, strict) for _ in range(CLIENTS)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for client in self.clients:
            client.join(PATIENCE_S)
        for client in self.clients:
            assert client.fault is None, client.fault
            assert not client.is_alive()

    @property
    def acknowledged(self):
        return set().union(*(client.acknowledged for client in self.clients))

    @property
    def answers(self):
        return sum((client.answers for client in self.clients), Counter())

    def wait_for_answers(self, count):
        """Waits for so many more acknowledged requests, so that a test does not depend on how fast the machine is."""
        goal = self.answers[200] + count

        def reached():
            faults = [client.fault for client in self.clients if client.fault]
            assert not faults, faults[0]
            return self.answers[200] >= goal

        wait_until(f"{count} more answers, {self.answers} so far", reached)


def stored_ids(folder, database_url):
    """The ids on the chain, told from an export by the format's own rule, and those pending, from the store's table."""
    settings = {"DATABASE_URL": database_url}
    path = folder / "chain.ndjson"
    exported = run("chain", "export", "--out", path, folder=folder, settings=settings)
    assert exported.returncode == 0, exported.stderr
    sealed = Counter()
    with open(path) as lines:
        for line in map(json.loads, lines):
            if line["type"] == "block" and line["height"] > 0:
                for transaction in line["transactions"]:
                    key_id = bytes.fromhex(transaction["key_id"])
                    sealed[cases.transaction_id(key_id, transaction["payload"].encode())] += 1
    return sealed, Counter(pending_ids(folder, database_url))


def pending_ids(folder, database_url):
    query = "SELECT id FROM {} WHERE height IS NULL"
    if database_url.startswith("sqlite:"):
        connection = sqlite3.connect(folder / "data" / database_url.removeprefix("sqlite:"))
        rows = connection.execute(query.format("transactions")).fetchall()
    else:
        connection = psycopg2.connect(database_url)
        with connection, connection.cursor() as cursor:
            cursor.execute(query.format("liotbchain.transactions"))
            rows = cursor.fetchall()
    connection.close()
    return [bytes(row[0]).hex() for row in rows]


def check_everything_is_there(folder, database_url, acknowledged):
    assert acknowledged, "the load was no load"
    validated = run("chain", "validate", folder=folder, settings={"DATABASE_URL": database_url})
    assert validated.returncode == 0, validated.stdout + validated.stderr
    sealed, pending = stored_ids(folder, database_url)
    assert not [one for one, times in (sealed + pending).items() if times > 1], "stored twice"
    lost = acknowledged - sealed.keys() - pending.keys()
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged transactions are lost"


def test_kill_loses_nothing_that_was_acknowledged(tmp_path, database_url):
    randomness = random.Random()
    with Receiver(tmp_path, DATABASE_URL=database_url, TRANSACTIONS_PER_BLOCK=2, SEAL_WAIT=5) as receiver:
        with Load(receiver.url, strict=False) as load:
            for _ in range(ROUNDS):
                load.wait_for_answers(randomness.randint(1, 60))
                # Any moment: while it admits, mines, commits or answers.
                time.sleep(randomness.random() / 20)
                receiver.kill()
                receiver.restart()
            load.wait_for_answers(20)
        assert receiver.terminate() == 0
    check_everything_is_there(tmp_path, database_url, load.acknowledged)


def test_kill_while_starting_does_no_harm(tmp_path, database_url):
    """Also the very first start, which makes the tables and the genesis block."""
    receiver = Receiver(tmp_path, DATABASE_URL=database_url)
    randomness = random.Random()
    try:
        for _ in range(ROUNDS):
            receiver.start()
            time.sleep(randomness.random() / 5)
            receiver.kill()
        receiver.restart()
        assert receiver.send(f"[{keys.new_ed25519().item('1')}]").json()["items"][0]["height"] == 1
        assert receiver.terminate() == 0
    finally:
        receiver.kill()
    assert run("chain", "validate", folder=tmp_path, settings={"DATABASE_URL": database_url}).returncode == 0


def test_a_full_disk_loses_nothing(tmp_path):
    """The system lets no file of the receiver grow further, which is to it like a disk without room."""
    device = keys.new_ed25519()
    acknowledged = set()

    def send():
        answer = receiver.send(f"[{device.item(json.dumps([next(cases.numbers), 'x' * 20_000]))}]")
        if answer.status_code == 200:
            acknowledged.update(item["id"] for item in answer.json()["items"])
        else:
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert int(answer.headers["Retry-After"]) >= 0
        return answer.status_code

    with Receiver(tmp_path, SEAL_WAIT=5) as receiver:
        for _ in range(20):
            assert send() == 200
        limit_file_size(receiver, (tmp_path / "data/liotbchain.db").stat().st_size + 50_000)
        wait_until("the disk to be full", lambda: send() == 503)
        send()
        # It lives, and what is there can be read.
        assert receiver.get("/healthz").status_code == 200
        assert receiver.get("/get_chain").status_code == 200
        limit_file_size(receiver, resource.RLIM_INFINITY)
        wait_until("the receiver to recover", lambda: send() == 200)
        assert receiver.terminate() == 0
    check_everything_is_there(tmp_path, "sqlite:liotbchain.db", acknowledged)


def limit_file_size(receiver, size):
    resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_of_postgresql_loses_nothing(tmp_path, mode):
    """Requests are answered 200 or 503 all along, and the receiver recovers by itself."""
    cluster = Cluster()
    try:
        cluster.create()
        url = cluster.new_database()
        with Receiver(tmp_path, DATABASE_URL=url, TRANSACTIONS_PER_BLOCK=2, SEAL_WAIT=5) as receiver:
            with Load(receiver.url, strict=True) as load:
                for _ in range(3):
                    load.wait_for_answers(40)
                    cluster.restart(mode)
                load.wait_for_answers(40)
            assert load.answers.keys() <= {200, 503}
            assert receiver.terminate() == 0
        check_everything_is_there(tmp_path, url, load.acknowledged)
    finally:
        cluster.remove()


def test_a_receiver_waits_for_postgresql_to_come_back(tmp_path):
    cluster = Cluster()
    device = keys.new_ed25519()
    try:
        cluster.create()
        with Receiver(tmp_path, DATABASE_URL=cluster.new_database()) as receiver:
            first = device.item(cases.reading())
            assert receiver.send(f"[{first}]").status_code == 200
            cluster.stop()
            refused = receiver.send(f"[{device.item(cases.reading())}]")
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert int(refused.headers["Retry-After"]) >= 0
            assert receiver.get("/readyz").status_code == 503
            assert receiver.get("/healthz").status_code == 200
            cluster.start()
            wait_until("the receiver to recover", lambda: receiver.answers("/readyz"))
            item = device.item(cases.reading())
            wait_until("a block", lambda: receiver.send(f"[{item}]").status_code == 200)
            wait_until("both on the chain", lambda: len(receiver.chain()) >= 3)
            assert receiver.get("/validate").json()["valid"] is True
    finally:
        cluster.remove()
