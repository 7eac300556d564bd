"""A gateway under test: readings go in, and what became of them is read from the receiver's chain."""

import json
import sqlite3
from collections import defaultdict
from contextlib import closing, contextmanager
from dataclasses import dataclass

from ports import free_port
from program import Receiver, Sender, run, wait_until

MIB = 1 << 20
BLOCKS = {"TRANSACTIONS_PER_BLOCK": 100, "BLOCK_MAX_AGE": 1, "SEAL_WAIT": 5}


class Gateway(Sender):
    """`liotbchain sender` with a folder of its own, which outlives its restarts."""

    def __init__(self, folder, receiver_url, **settings):
        folder.mkdir(exist_ok=True)
        super().__init__(folder, receiver_url, **settings)

    def restart(self):
        self.start()
        wait_until("the gateway to be up", lambda: self.answers("/healthz"))
        return self

    def put(self, readings, device="probe"):
        """Posts a list of readings."""
        return self.post("/readings", params={"device": device}, json=readings)

    def must_take(self, readings, device="probe"):
        answer = self.put(readings, device)
        assert answer.status_code == 202, answer.text
        return answer

    @property
    def status(self):
        return self.get("/status").json()

    @property
    def waiting(self):
        return self.status["queue"]["waiting"]

    def wait_until_empty(self):
        wait_until("an empty queue", lambda: self.waiting == 0)

    def wait_for_broker(self):
        wait_until("a subscription", lambda: self.status["mqtt"]["connected"])

    @property
    def outbox_path(self):
        return self.settings["DATA_DIR"] / "outbox.db"


def away():
    """An address where no receiver is, or not yet."""
    return f"http://127.0.0.1:{free_port()}"


@contextmanager
def receiver_at(url, folder):
    """A receiver that comes up at last where a gateway was told that it is."""
    receiver = Receiver(folder, **BLOCKS)
    receiver.address = url.removeprefix("http://")
    receiver.url = url
    receiver.settings["RECEIVER_LISTEN"] = receiver.address
    with receiver:
        yield receiver


def numbered(numbers, padding=0):
    """Readings that a device tells apart by a counter of its own, of about so many bytes more."""
    return [{"counter": number, "celsius": 20 + number % 7, "note": "x" * padding} for number in numbers]


class Filler:
    """A device that sends lists until the gateway refuses one."""

    def __init__(self, gateway, device="filler", size=20, padding=4000):
        self.gateway, self.device, self.size, self.padding = gateway, device, size, padding
        self.taken = 0

    def send(self):
        """Sends the next list, or the one that was refused again. Returns the status."""
        readings = numbered(range(self.taken, self.taken + self.size), self.padding)
        answer = self.gateway.put(readings, self.device)
        if answer.status_code == 202:
            self.taken += self.size
        else:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            assert len(answer.json()["message"]) > 10
        return answer.status_code

    def send_until(self, status):
        wait_until(f"an answer {status}", lambda: self.send() == status, pause_s=0)


@dataclass(frozen=True)
class Record:
    """One record of a gateway, as it stands on the chain."""

    device: str
    received_ms: int
    boot: int
    counter: int
    reading: object = None
    gap: dict | None = None


def sealed_count(receiver):
    """How many transactions stand in blocks above the genesis block, told from the receiver's own file: that is cheap."""
    path = receiver.settings["DATA_DIR"] / "liotbchain.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute("SELECT count(*) FROM transactions WHERE height > 0").fetchone()[0]


def wait_for_sealed(receiver, count):
    wait_until(f"{count} records in blocks", lambda: sealed_count(receiver) >= count)


def payloads(folder):
    """The signed texts on the chain, in its order. The chain, with every signature on it, is valid."""
    validated = run("chain", "validate", folder=folder)
    assert validated.returncode == 0, validated.stdout + validated.stderr
    path = folder / "chain.ndjson"
    exported = run("chain", "export", "--out", path, folder=folder)
    assert exported.returncode == 0, exported.stderr
    with open(path) as lines:
        blocks = [line for line in map(json.loads, lines) if line["type"] == "block" and line["height"] > 0]
    path.unlink()
    return [transaction["payload"] for block in blocks for transaction in block["transactions"]]


def records(folder):
    """The records on the chain, in its order."""
    return [Record(**json.loads(payload)) for payload in payloads(folder)]


def counters(found):
    """The devices' own counters in the order of the chain, by device."""
    by_device = defaultdict(list)
    for record in found:
        if record.gap is None:
            by_device[record.device].append(record.reading["counter"])
    return dict(by_device)


def check_exactly_once_in_order(found, sent):
    """`sent` has how many readings each device counted, from 0."""
    found = counters(found)
    assert found.keys() == sent.keys()
    for device, count in sent.items():
        assert found[device] == list(range(count)), faults(device, found[device], count)


def faults(device, found, count):
    lost = sorted(set(range(count)) - set(found))
    twice = sorted({number for number in found if found.count(number) > 1}) if len(found) > len(set(found)) else []
    return f"{device}: of {count} lost {lost[:20]}, twice {twice[:20]}, or else out of order"


def check_all_arrive(gateway, folder, sent):
    """Lets the receiver come back and everything arrive."""
    with receiver_at(gateway.settings["RECEIVER_URL"], folder) as receiver:
        wait_for_sealed(receiver, sum(sent.values()))
        gateway.wait_until_empty()
        assert receiver.terminate() == 0
    check_exactly_once_in_order(records(folder), sent)
