"""Every file system call of one append is made to fail, or is the last thing that the receiver does.

strace does both to a running receiver, call by call, each time on a copy of the same chain. Whatever was acknowledged
is there afterwards, exactly once; what was not is taken when it is sent again; the chain is valid; nothing panics.

One thread writes to SQLite, so the calls of an append come in the same order each time. In a normal run each of them
gets one fault; with LIOTBCHAIN_LONG=1 each gets every fault, and so do the calls of the thread that copies the log back.
"""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import requests

import cases
import signer as keys
from program import Receiver, run, wait_until
from strace import Strace, threads

LONG = os.environ.get("LIOTBCHAIN_LONG") == "1"
# Most of a trial is waiting for starts and ends, so more of them than there are processors run at a time.
AT_ONCE = 4

DATABASE = "liotbchain.db"
SETTINGS = {"TRANSACTIONS_PER_BLOCK": 2, "SEAL_WAIT": 10}
# A list that fills blocks which are mined in no time is stored and sealed in one commit; other lists are stored first,
# and sealed in a commit of their own.
WAYS = {"at once": {"DIFFICULTY": 1}, "one after the other": {"DIFFICULTY": 4}}
WRITER = {"sqlite-writer"}
COPIERS = {"sqlite-checkpoi"}  # the system cuts names at 15 characters
READERS = {"liotbchain", "tokio-rt-worker"}
KILL = "signal=SIGKILL"


def files(folder):
    return [folder / "data" / f"{DATABASE}{end}" for end in ("", "-wal", "-shm")]


class Reading:
    def __init__(self, device):
        self.text = json.dumps({"n": next(cases.numbers), "text": "x" * 100})
        self.item = device.item(self.text)
        self.id = cases.transaction_id(device.key_id, self.text.encode())


class List:
    """A signed list of two readings, which fill a block."""

    def __init__(self, device=None):
        device = device or keys.new_ed25519()
        self.readings = [Reading(device) for _ in range(2)]
        self.body = "[" + ",".join(reading.item for reading in self.readings) + "]"
        self.ids = [reading.id for reading in self.readings]


class Base:
    """A stopped receiver's folder with a few blocks."""

    def __init__(self, folder):
        self.folder = folder
        device = keys.new_ed25519()
        self.lists = [List(device) for _ in range(3)]
        with Receiver(folder, **SETTINGS) as receiver:
            for one in self.lists:
                assert receiver.send(one.body).status_code == 200
            assert receiver.terminate() == 0

    def copy(self, folder):
        (folder / "data").mkdir(parents=True)
        for name in os.listdir(self.folder / "data"):
            shutil.copy(self.folder / "data" / name, folder / "data" / name)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Base(tmp_path_factory.mktemp("base"))


# One trial ---------------------------------------------------------------------------------------------------------


def send(receiver, one):
    """Sends a list and returns whether it was acknowledged; None where there was no answer."""
    try:
        answer = receiver.send(one.body)
    except requests.ConnectionError:
        return None
    if answer.status_code == 200:
        assert [item["id"] for item in answer.json()["items"]] == one.ids
        return True
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 0
    return False


def send_until_sealed(receiver, one):
    def look():
        answer = receiver.send(one.body)
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200 and all(item["status"] == "sealed" for item in answer.json()["items"])

    wait_until("a list to be sealed", look, pause_s=0.1, patience_s=15)


def stored_ids(folder):
    """The id of every transaction that the store knows, sealed or pending."""
    with closing(sqlite3.connect(folder / "data" / DATABASE, timeout=30)) as connection:
        ids = [bytes(id).hex() for (id,) in connection.execute("SELECT id FROM transactions")]
    assert len(ids) == len(set(ids)), "a transaction is there twice"
    return ids


def check_whole(folder, lists):
    """Checks a stopped receiver's chain: it is valid, and holds each list once and nothing else."""
    validated = run("chain", "validate", folder=folder)
    assert validated.returncode == 0, validated.stdout + validated.stderr
    path = folder / "chain.ndjson"
    exported = run("chain", "export", "--out", path, folder=folder)
    assert exported.returncode == 0, exported.stderr
    blocks = [line for line in map(json.loads, path.read_text().splitlines()) if line["type"] == "block"]
    payloads = [transaction["payload"] for block in blocks[1:] for transaction in block["transactions"]]
    assert sorted(payloads) == sorted(reading.text for one in lists for reading in one.readings)


class Trial:
    """Starts a receiver on a copy of the chain, sends one list while a fault is injected, and looks what is left."""

    def __init__(self, base, folder, group, way="one after the other"):
        self.base = base
        self.folder = folder
        self.group = group
        self.settings = SETTINGS | WAYS[way]
        self.sent = List()
        self.later = List()
        base.copy(folder)

    def record(self):
        """Sends the list without a fault and returns the calls that the group of threads made for it."""
        with Receiver(self.folder, **self.settings) as receiver:
            with self.watch(receiver) as strace:
                assert send(receiver, self.sent)
                self.wait_for_copy(receiver, strace)
            assert receiver.terminate() == 0
        check_whole(self.folder, [*self.base.lists, self.sent])
        return strace.calls

    def watch(self, receiver, inject=None):
        return Strace(threads(receiver.process.pid, self.group), files(self.folder), inject)

    def wait_for_copy(self, receiver, strace):
        """Where the threads are those that copy the log back: they do so a second after the answer."""
        if self.group != COPIERS:
            return
        database = self.folder / "data" / DATABASE
        before = database.stat().st_mtime_ns

        def look():
            is_over = receiver.process.poll() is not None or strace.has_injected()
            return is_over or database.stat().st_mtime_ns != before

        wait_until("the log to be copied back", look)

    def run(self, call, fault):
        """Returns whether the fault was met."""
        with Receiver(self.folder, **self.settings) as receiver:
            with self.watch(receiver, f"{call.name}:{fault}:when={call.number}") as strace:
                acknowledged = send(receiver, self.sent)
                self.wait_for_copy(receiver, strace)
            self.kept = list(self.base.lists)
            is_killed = fault == KILL and ended(receiver)
            if not is_killed:
                assert acknowledged is not None, "the connection was closed without an answer"
                self.must_serve_on(receiver, is_unlock(call) and fault != KILL)
            must_not_panic(receiver)
            receiver.kill()
            self.check_after(receiver, acknowledged)
        return is_killed or strace.has_injected()

    def must_serve_on(self, receiver, is_locked):
        """The next list is taken, perhaps after a moment, and the chain can be read."""
        receiver.must_run()
        assert receiver.get("/healthz").status_code == 200
        if not is_locked:
            send_until_sealed(receiver, self.later)
            self.kept.append(self.later)
            assert isinstance(receiver.chain(), list)

    def check_after(self, receiver, acknowledged):
        receiver.restart()
        stored = stored_ids(self.folder)
        known = {id in stored for id in self.sent.ids}
        assert known != {True, False}, "a part of a list was taken"
        assert not acknowledged or known == {True}, "an acknowledged list is lost"
        assert {id for one in self.kept for id in one.ids} <= set(stored), "earlier transactions are lost"
        send_until_sealed(receiver, self.sent)
        assert receiver.terminate() == 0
        must_not_panic(receiver)
        check_whole(self.folder, [*self.kept, self.sent])


def ended(receiver):
    """Whether the signal of an injection has ended the receiver; it takes a moment after the connection broke off."""
    try:
        receiver.process.wait(2)
        return True
    except subprocess.TimeoutExpired:
        return False


def must_not_panic(receiver):
    assert not re.search(r"panicked|stack backtrace|fatal runtime error", receiver.output), receiver.output


def is_unlock(call):
    """Whether a call gives a lock up.

    Where that fails, which no local file system does, the process has the lock until it ends, and SQLite does not
    recover: the receiver says 503 until it is started anew.
    """
    return call.name == "fcntl" and "F_UNLCK" in call.text


# The sweep ---------------------------------------------------------------------------------------------------------


def faults_of(call):
    """The faults that a call may meet."""
    if is_unlock(call) and not LONG:
        return [KILL]  # after an error the receiver waits for its lock until it gives up
    faults = ["error=EIO", KILL]
    if call.name in ("pwrite64", "write", "ftruncate", "fallocate", "openat"):
        faults.append("error=ENOSPC")
    return faults


def plan(calls):
    """Which fault each call gets: all of them in a long run, each call another one in a short one."""
    # Threads count for themselves: a fault at the n-th call of a name waits for the first thread that comes so far.
    distinct = {(call.name, call.number): call for call in calls}.values()
    for place, call in enumerate(distinct):
        faults = faults_of(call)
        for fault in faults if LONG else [faults[place % len(faults)]]:
            yield call, fault


def sweep(base, folder, *trial):
    """Returns the calls that were swept, and the part of the faults that were met."""
    calls = Trial(base, folder / "recorded", *trial).record()
    planned = list(plan(calls))

    def attempt(place):
        call, fault = planned[place]
        try:
            is_met = Trial(base, folder / str(place), *trial).run(call, fault)
        except Exception as problem:
            return True, f"{fault} at {call}: {problem}"
        shutil.rmtree(folder / str(place))
        return is_met, None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(attempt, range(len(planned))))
    problems = [problem for _, problem in results if problem]
    assert not problems, f"{len(problems)} of {len(planned)} faults:\n" + "\n".join(problems)
    met = sum(is_met for is_met, _ in results)
    print(f"{met} of {len(planned)} faults met, at {len(calls)} calls")
    return calls, met / len(planned)


def names(calls):
    return {call.name for call in calls}


@pytest.mark.parametrize("way", WAYS)
def test_no_fault_of_a_write_loses_what_was_acknowledged(base, tmp_path, way):
    calls, met = sweep(base, tmp_path, WRITER, way)
    # What neither writes nor syncs was no append.
    assert {"pread64", "pwrite64", "fcntl"} <= names(calls) and {"fsync", "fdatasync"} & names(calls)
    # The right to seal is prolonged by the clock, so that a call may come a little earlier or later.
    assert met > 0.9


def test_no_fault_of_a_read_loses_what_was_acknowledged(base, tmp_path):
    calls, met = sweep(base, tmp_path, READERS)
    assert {"pread64", "fcntl"} <= names(calls)
    # Which of several threads reads what is up to chance.
    assert met > 0.3


if LONG:  # two minutes

    def test_no_fault_of_copying_the_log_loses_what_was_acknowledged(base, tmp_path):
        calls, met = sweep(base, tmp_path, COPIERS)
        assert {"pwrite64", "fcntl"} <= names(calls) and {"fsync", "fdatasync"} & names(calls)
        assert met > 0.5


# Power cuts --------------------------------------------------------------------------------------------------------

# A file's descriptor with its path, as strace shows both; all text is in hexadecimal.
DESCRIPTOR = r"\d+<([^>]+)>"
WRITE = re.compile(rf'pwrite64\({DESCRIPTOR}, "((?:\\x[0-9a-f]{{2}})*)", (\d+), (\d+)')
TRUNCATE = re.compile(rf"ftruncate\({DESCRIPTOR}, (\d+)")
SYNC = re.compile(rf"^(\d+) +f(?:data)?sync\({DESCRIPTOR}(.*)")
SYNC_ENDS = re.compile(r"^(\d+) +<\.\.\. f(?:data)?sync resumed>\) += 0")


class Disk:
    """What is on a disk: what was synced for sure, and any part of what was written since."""

    def __init__(self, folder):
        self.synced = {file.name: file.read_bytes() for file in folder.iterdir()}
        self.waiting = []

    def change(self, name, offset, data):
        """`data` at an offset, or none where the file ends at that offset from now on."""
        self.waiting.append((name, offset, data))

    def sync(self, name):
        for change in [change for change in self.waiting if change[0] == name]:
            apply(self.synced, change)
            self.waiting.remove(change)

    def after_power_cuts(self):
        """The files as they may be found: with nothing of what waits, all of it, half of the last write.

        In a long run also with all but one, one alone, and all with half of one.
        """
        cuts = [[], self.waiting]
        for place, (name, offset, data) in enumerate(self.waiting):
            others = self.waiting[:place] + self.waiting[place + 1 :]
            half = [*others, (name, offset, data and data[: len(data) // 2])]
            if LONG:
                cuts += [others, [(name, offset, data)], half]
            elif place == len(self.waiting) - 1:
                cuts.append(half)
        for changes in cuts:
            found = dict(self.synced)
            for change in changes:
                apply(found, change)
            yield found


def apply(contents, change):
    name, offset, data = change
    content = contents.get(name, b"")
    if data is None:
        contents[name] = content[:offset]
    else:
        contents[name] = content.ljust(offset, b"\0")[:offset] + data + content[offset + len(data) :]


def unhex(text):
    return bytes.fromhex(text.replace("\\x", ""))


def name_of(path):
    return Path(unhex(path).decode()).name


def replay(disk, lines):
    """Does again what the log of strace says, and yields after each change the number of lines so far."""
    under_way = {}
    for number, line in enumerate(lines, 1):
        if match := WRITE.search(line):
            assert int(match[3]) * 4 == len(match[2]), line
            disk.change(name_of(match[1]), int(match[4]), unhex(match[2]))
        elif match := TRUNCATE.search(line):
            disk.change(name_of(match[1]), int(match[2]), None)
        elif match := SYNC.search(line):
            if "unfinished" in match[3]:
                under_way[match[1]] = name_of(match[2])
            else:
                disk.sync(name_of(match[2]))
        elif match := SYNC_ENDS.search(line):
            disk.sync(under_way.pop(match[1]))
        else:
            continue
        yield number


@pytest.mark.parametrize("way", WAYS)
def test_no_power_cut_loses_what_was_acknowledged(base, tmp_path, way):
    """A cut takes any part of what was written since the last sync: of two appends, their copying, the end."""
    folder = tmp_path / "recorded"
    base.copy(folder)
    lists = [List(), List()]
    acknowledged_at = []
    with Receiver(folder, **SETTINGS | WAYS[way]) as receiver:
        disk = Disk(folder / "data")
        traced = threads(receiver.process.pid, WRITER | COPIERS)
        with Strace(traced, files(folder), hexadecimal=True) as strace:
            for one in lists:
                assert send(receiver, one)
                acknowledged_at.append(len(strace.lines_so_far()))
                database = folder / "data" / DATABASE
                before = database.stat().st_mtime_ns
                wait_until("the log to be copied back", lambda: database.stat().st_mtime_ns != before)
            assert receiver.terminate() == 0
    states = {}
    for number in replay(disk, strace.lines):
        durable = sum(number >= at for at in acknowledged_at)
        for found in disk.after_power_cuts():
            found.pop(f"{DATABASE}-shm", None)  # never synced, made anew by who opens the file first
            key = hashlib.sha256(repr(sorted(found.items())).encode()).digest()
            states[key] = max((durable, found), states.get(key, (0, found)), key=lambda state: state[0])
    assert DATABASE not in [name for name, _, _ in disk.waiting], "the receiver ended and left something unsynced"
    assert len(states) > 50, "too little was written to be an append"

    def check(numbered):
        number, (durable, found) = numbered
        place = tmp_path / f"cut-{number}"
        (place / "data").mkdir(parents=True)
        for name, content in found.items():
            (place / "data" / name).write_bytes(content)
        validated = run("chain", "validate", folder=place)
        stored = stored_ids(place)
        for index, one in enumerate([*base.lists, *lists]):
            known = {id in stored for id in one.ids}
            assert known != {True, False}, f"{place}: a part of list {index} was taken"
            assert known == {True} or index >= len(base.lists) + durable, f"{place}: list {index} is lost"
        assert validated.returncode == 0, f"{place}: {validated.stdout}{validated.stderr}"
        shutil.rmtree(place)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(check, enumerate(states.values())))
    print(f"{len(states)} states of the disk")
