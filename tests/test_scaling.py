"""Several receivers on one PostgreSQL: all take readings, one seals, and another one takes over when it dies.

Receivers and databases are killed for 20 seconds, and for two minutes with LIOTBCHAIN_LONG=1 (./test --long).
"""

import contextlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter

import requests

import cases
import signer as keys
import test_crash
import verifier
from postgres import Cluster
from program import ROOT, Receiver, run
from test_crash import HANG_S, check_everything_is_there

SECONDS = 120 if os.environ.get("LIOTBCHAIN_LONG") == "1" else 20
RECEIVERS = 3


class Client(threading.Thread):
    """Posts signed readings, each request to the next receiver as a balancer does, and remembers the answers.

    A request without a good answer goes to the next receiver, which may find that the one before has stored it.
    """

    def __init__(self, urls, stop, strict):
        super().__init__(daemon=True)
        self.urls = itertools.cycle(urls)
        self.stop = stop
        self.strict = strict  # whether every request must be answered
        self.device = keys.new_ed25519()
        self.acknowledged = set()
        self.places = {}
        self.answers = Counter()
        self.fault = None

    def run(self):
        try:
            with requests.Session() as session:
                session.trust_env = False
                for size in itertools.cycle([1, 2, 3]):
                    if self.stop.is_set():
                        return
                    self.post(session, [self.reading() for _ in range(size)])
        except BaseException as fault:
            self.fault = fault
            raise

    def reading(self):
        return json.dumps({"device": self.name, "n": next(cases.numbers)})

    def post(self, session, texts):
        ids = [cases.transaction_id(self.device.key_id, text.encode()) for text in texts]
        body = "[" + ",".join(map(self.device.item, texts)) + "]"
        headers = {"Content-Type": "application/json"}
        while not self.stop.is_set():
            try:
                answer = session.post(next(self.urls) + "/receive_data", data=body, headers=headers, timeout=HANG_S)
            except requests.Timeout:
                raise AssertionError(f"no answer in {HANG_S} s") from None
            except requests.RequestException:
                # Killed in the middle, or not up again yet.
                assert not self.strict, "a connection was closed without an answer"
                time.sleep(0.02)
                continue
            self.answers[answer.status_code] += 1
            if answer.status_code == 200:
                self.keep(ids, answer.json()["items"])
                return
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 0
            time.sleep(0.05)

    def keep(self, ids, items):
        assert [item["id"] for item in items] == ids
        self.acknowledged.update(ids)
        for item in items:
            if item["status"] == "sealed":
                self.places[item["id"]] = (item["height"], item["position"], item["block_hash"])


class Load(test_crash.Load):
    """Clients that post to several receivers until the block ends."""

    def __init__(self, urls, strict):
        self.stop = threading.Event()
        rotated = [urls[turn % len(urls) :] + urls[: turn % len(urls)] for turn in range(test_crash.CLIENTS)]
        self.clients = [Client(urls, self.stop, strict) for urls in rotated]

    @property
    def places(self):
        return {id: place for client in self.clients for id, place in client.places.items()}


@contextlib.contextmanager
def receivers(folder, database_url, count=RECEIVERS, **settings):
    """Receivers with a folder each, on one database."""
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(count):
            own = folder / f"receiver-{number}"
            own.mkdir()
            started.append(stack.enter_context(Receiver(own, DATABASE_URL=database_url, **settings)))
        yield started


@contextlib.contextmanager
def private_cluster():
    """A cluster that may be restarted."""
    cluster = Cluster()
    try:
        yield cluster.create()
    finally:
        cluster.remove()


def terminate(started):
    for receiver in started:
        receiver.signal(15)
    assert [receiver.wait() for receiver in started] == [0] * len(started)


def check_chain(folder, database_url, load):
    """Everything acknowledged is there, once and where the answer said, and two programs find the chain valid."""
    check_everything_is_there(folder, database_url, load.acknowledged)
    path = folder / "chain.ndjson"  # which the check has exported
    verified = subprocess.run([sys.executable, verifier.PATH, path], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    places = {}
    with open(path) as lines:
        for line in map(json.loads, lines):
            if line["type"] == "block" and line["height"] > 0:
                for position, transaction in enumerate(line["transactions"]):
                    id = cases.transaction_id(bytes.fromhex(transaction["key_id"]), transaction["payload"].encode())
                    places[id] = (line["height"], position, line["hash"])
    assert load.places, "nobody was told a place"
    moved = {id: (told, places.get(id)) for id, told in load.places.items() if places.get(id) != told}
    assert not moved, f"{len(moved)} of {len(load.places)} transactions are not where the answer said: {moved}"


def test_receivers_that_are_killed_and_a_database_that_restarts_lose_and_double_nothing(tmp_path):
    randomness = random.Random()
    with private_cluster() as cluster:
        url = cluster.new_database()
        with receivers(tmp_path, url, TRANSACTIONS_PER_BLOCK=2, SEAL_WAIT=5) as started:
            begin = time.monotonic()
            restarts = [(SECONDS / 3, "fast"), (SECONDS * 2 / 3, "immediate")]
            kills = 0
            with Load([receiver.url for receiver in started], strict=False) as load:
                while time.monotonic() - begin < SECONDS or restarts:
                    load.wait_for_answers(randomness.randint(1, 100))
                    if restarts and time.monotonic() - begin > restarts[0][0]:
                        cluster.restart(restarts.pop(0)[1])
                        continue
                    # Any moment: while it admits, mines, commits or answers.
                    victim = randomness.choice(started)
                    victim.kill()
                    kills += 1
                    load.wait_for_answers(randomness.randint(1, 100))
                    victim.restart()
                load.wait_for_answers(50)
            terminate(started)
        print(f"{kills} kills, 2 restarts, {len(load.acknowledged)} readings, answers {dict(load.answers)}")
        check_chain(tmp_path, url, load)


def test_a_promoted_standby_has_everything_that_was_acknowledged(tmp_path):
    """The primary is killed under load, the standby promoted, and a new standby made, again and again.

    Until the new primary has a standby, nothing is acknowledged: the setting that asks for one is the standby's, too.
    """
    primary, standby = Cluster(), Cluster()
    try:
        primary.create()
        database = primary.new_database().rsplit("/", 1)[1]
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        standby.create_standby_of(primary)
        primary.execute("SELECT pg_reload_conf()")
        ports = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{ports}/{database}?target_session_attrs=read-write"
        with receivers(tmp_path, url, count=2, TRANSACTIONS_PER_BLOCK=2, SEAL_WAIT=5) as started:
            begin, failovers = time.monotonic(), 0
            with Load([receiver.url for receiver in started], strict=True) as load:
                while time.monotonic() - begin < SECONDS or failovers == 0:
                    load.wait_for_answers(100)
                    primary.kill()
                    standby.promote()
                    primary, standby = standby, primary
                    standby.create_standby_of(primary)
                    failovers += 1
                load.wait_for_answers(100)
            terminate(started)
        print(f"{failovers} failovers, {len(load.acknowledged)} readings, answers {dict(load.answers)}")
        assert load.answers.keys() <= {200, 503}
        check_chain(tmp_path, primary.url_of(database), load)
    finally:
        primary.remove()
        standby.remove()


def test_another_receiver_seals_when_the_holder_of_the_right_is_gone(tmp_path, cluster):
    device = keys.new_ed25519()

    def send_to(receiver):
        """Returns where a reading was sealed, and how long that took."""
        begin = time.monotonic()
        answer = receiver.send(f"[{device.item(cases.reading())}]")
        assert answer.status_code == 200, answer.text
        item = answer.json()["items"][0]
        assert item["status"] == "sealed", item
        return item["height"], time.monotonic() - begin

    def holder():
        return cluster.execute("SELECT holder FROM liotbchain.seal_right", url)[0][0]

    url = cluster.new_database()
    with receivers(tmp_path, url, count=2) as (first, second):
        # It alone has something to seal, and so the right to.
        assert send_to(first)[0] == 1
        holder_before = holder()

        # The other one takes readings, and is told where they were sealed; both read what either sealed.
        spans = []
        for height in range(2, 22):
            sealed_at, span = send_to(second)
            spans.append(span)
            assert sealed_at == height
            assert first.chain()[-1] == second.chain()[-1]
            assert second.chain()[-1]["index"] == height
        assert holder() == holder_before
        print(f"a reading sealed by the other receiver was answered within {statistics.median(spans) * 1000:.0f} ms")

        first.kill()
        height, span = send_to(second)
        assert height == 22 and holder() != holder_before
        print(f"{span:.1f} s after its holder was killed, another receiver had the right to seal")
        first.restart()

        assert second.terminate() == 0
        height, span = send_to(first)
        assert height == 23 and holder() == holder_before
        print(f"{span:.1f} s after its holder stopped, another receiver had the right to seal")
    assert run("chain", "validate", folder=tmp_path, settings={"DATABASE_URL": url}).returncode == 0
