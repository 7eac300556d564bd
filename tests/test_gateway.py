"""The gateway when things go wrong around it: what a device was told is taken arrives, once and in order, or a record on the
chain says what is missing."""

import glob
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg2
import pytest

from gateway import (
    BLOCKS,
    MIB,
    Filler,
    Gateway,
    away,
    check_all_arrive,
    check_exactly_once_in_order,
    counters,
    numbered,
    receiver_at,
    records,
    wait_for_sealed,
)
from mosquitto import Mosquitto
from program import PATIENCE_S, ROOT, Receiver, wait_until

# Full ---------------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_until_there_is_room(tmp_path):
    """By HTTP with 503; by MQTT the broker keeps what the gateway does not acknowledge."""
    with Mosquitto(tmp_path / "broker") as broker:
        settings = {"MQTT_URL": broker.url, "OUTBOX_SIZE_MAX": MIB}
        with Gateway(tmp_path / "gateway", away(), **settings) as gateway:
            gateway.wait_for_broker()
            filler = Filler(gateway)
            filler.send_until(503)
            assert gateway.waiting == filler.taken
            # As long as the first that would still fit is not sent, the queue has no room for any of these.
            publish(broker, "m", numbered(range(100), filler.padding))
            assert filler.send() == 503
            assert file_size(gateway) <= MIB, "the limit is none"
            waiting = gateway.waiting
            assert filler.taken <= waiting < filler.taken + 100
            # The broker keeps them over a restart of both.
            gateway.kill()
            broker.restart()
            gateway.restart()
            with receiver_at(gateway.settings["RECEIVER_URL"], tmp_path) as receiver:
                filler.send_until(202)
                wait_for_sealed(receiver, filler.taken + 100)
                gateway.wait_until_empty()
                assert receiver.terminate() == 0
    check_exactly_once_in_order(records(tmp_path), {filler.device: filler.taken, "m": 100})


def file_size(gateway):
    return gateway.outbox_path.stat().st_size


def publish(broker, device, readings):
    """Publishes readings, and returns when the broker acknowledged them."""
    with broker.device(device) as client:
        for one in [client.send(f"liotbchain/v1/test/{device}/up", json.dumps(reading)) for reading in readings]:
            one.wait_for_publish(PATIENCE_S)
            assert one.is_published()


def test_what_is_dropped_stands_on_the_chain(tmp_path):
    """The records that are there and the gaps that are told add up to what each device was told is taken."""
    limits = {"OUTBOX_SIZE_MAX": MIB, "OUTBOX_WHEN_FULL": "drop_oldest"}
    with Gateway(tmp_path / "gateway", away(), **limits) as gateway:
        devices = [Filler(gateway, f"device-{number}", size=5 * (number + 1)) for number in range(3)]
        for number in range(60):
            if number == 30:
                gateway.kill()
                gateway.restart()
            for device in devices:
                assert device.send() == 202
        assert file_size(gateway) <= MIB, "the limit is none"
        with receiver_at(gateway.settings["RECEIVER_URL"], tmp_path) as receiver:
            gateway.wait_until_empty()
            pending = lambda: receiver.get("/v1/status").json()["pending"]
            wait_until("all of it in blocks", lambda: pending() == 0)
            assert receiver.terminate() == 0
    found = records(tmp_path)
    arrived = counters(found)
    for device in devices:
        here = arrived[device.device]
        gaps = [record.gap for record in found if record.device == device.device and record.gap]
        assert here == sorted(set(here))
        assert here[-1] == device.taken - 1, "the newest was dropped"
        assert len(here) < device.taken, "nothing was dropped"
        assert len(here) + sum(gap["dropped"] for gap in gaps) == device.taken
        # A gap tells the first and the last that are missing. What was on its way then may stand between them.
        places = [(one.boot, one.counter) for one in found if one.device == device.device and one.reading]
        ends = [(place(gap["from"]), place(gap["to"])) for gap in gaps]
        for first, last in ends:
            assert first <= last
            assert first not in places and last not in places
        # Where readings are missing, a gap tells of it.
        neighbours = [(before, after) for before, after in itertools.pairwise(zip(here, places)) if after[0] > before[0] + 1]
        assert neighbours, "nothing is missing in between"
        for (_, before), (_, after) in neighbours:
            assert [1 for first, last in ends if first < after and last > before], (before, after)


def place(end):
    return end["boot"], end["counter"]


def test_a_change_of_settings_wipes_nothing(tmp_path):
    with Gateway(tmp_path / "gateway", away()) as gateway:
        filler = Filler(gateway)
        while filler.taken * filler.padding < 4 * MIB:
            assert filler.send() == 202

        def start_with(**settings):
            gateway.kill()
            gateway.settings |= settings
            gateway.restart()
            assert gateway.waiting == filler.taken

        start_with(OUTBOX_SIZE_MAX=MIB)
        assert filler.send() == 503
        start_with(OUTBOX_SIZE_MAX=16 * MIB, OUTBOX_WHEN_FULL="drop_oldest")
        assert filler.send() == 202
        start_with(OUTBOX_WHEN_FULL="refuse", RECEIVER_PROTOCOL="original", LOG_LEVEL="debug")
        start_with(RECEIVER_PROTOCOL="v1")
        # The key on the disk is of another kind: that is an error, and no reason to touch anything else.
        gateway.terminate()
        gateway.settings["SENDER_KEY"] = "rsa"
        gateway.start()
        assert gateway.wait() != 0
        assert "SENDER_KEY" in gateway.stderr
        gateway.settings["SENDER_KEY"] = "ed25519"
        gateway.start()
        # With a new key, what was signed by the old one is still good.
        gateway.kill()
        [key] = [path for path in gateway.outbox_path.parent.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
        key.unlink()
        gateway.restart()
        assert filler.send() == 202
        check_all_arrive(gateway, tmp_path, {filler.device: filler.taken})


# Clocks -------------------------------------------------------------------------------------------------------------


class Clock:
    """The clock of a program, by libfaketime: it can be put forward and back while the program runs."""

    def __init__(self, path):
        found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        assert found, "libfaketime is not installed; run: apt-get install --no-install-recommends faketime"
        self.path = path
        self.put("+0")
        self.settings = {
            "LD_PRELOAD": found[0],
            "FAKETIME_TIMESTAMP_FILE": path,
            "FAKETIME_NO_CACHE": "1",
            # What a program measures spans with does not jump on a true machine either.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def put(self, offset):
        beside = self.path.with_suffix(".new")
        beside.write_text(offset + "\n")
        beside.replace(self.path)


def test_a_clock_put_back_two_hours_keeps_the_order(tmp_path):
    clock = Clock(tmp_path / "clock")
    with Receiver(tmp_path, **BLOCKS) as receiver:
        with Gateway(tmp_path / "gateway", receiver.url, **clock.settings) as gateway:
            gateway.must_take(numbered(range(3)))
            clock.put("-2h")
            gateway.must_take(numbered(range(3, 6)))
            wait_for_sealed(receiver, 6)
            # Repetitions are told apart by their identity, and not by when they came.
            assert all(item["status"] == "duplicate" for item in gateway.must_take(numbered(range(6))).json()["items"])
            gateway.kill()
            gateway.restart()
            gateway.must_take(numbered(range(4, 9)))
            clock.put("+2h")
            gateway.must_take(numbered(range(9, 12)))
            wait_for_sealed(receiver, 12)
            assert gateway.terminate() == 0
        assert receiver.terminate() == 0
    found = records(tmp_path)
    assert counters(found) == {"probe": list(range(12))}
    places = [(record.boot, record.counter) for record in found]
    assert places == sorted(set(places))
    # A record says when the gateway believed it to be; what orders them is boot and counter.
    assert found[3].received_ms < found[2].received_ms - 7_000_000
    assert found[9].received_ms > found[8].received_ms + 7_000_000


@pytest.mark.parametrize("offset, offset_s", [("-2h", 7200), ("+2h", -7200)])
def test_a_wrong_clock_is_told(tmp_path, receiver, offset, offset_s):
    clock = Clock(tmp_path / "clock")
    clock.put(offset)
    with Gateway(tmp_path / "gateway", receiver.url, **clock.settings) as gateway:
        gateway.must_take(numbered(range(2)))
        wait_for_sealed(receiver, 2)

        def told_ms():
            return gateway.status["clock_offset_ms"]

        wait_until("the clock's offset", lambda: told_ms() is not None)
        # By how much the receiver is ahead.
        assert abs(told_ms() - offset_s * 1000) < 120_000
        gateway.wait_for_output(r"(?i)clock")


# Liars --------------------------------------------------------------------------------------------------------------


class LyingReceiver(ThreadingHTTPServer):
    """Answers as if all were well, and has stored nothing. Counts how often."""

    def __init__(self, url, answers):
        self.answers = answers
        self.told = 0
        super().__init__(("127.0.0.1", int(url.rsplit(":")[-1])), LyingHandler)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class LyingHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {"version": "0.1.0", "height": 1})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        answers = self.server.answers
        self.answer(*answers[self.server.told % len(answers)])
        self.server.told += 1

    def answer(self, status, body):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


FOREIGN = {"id": "00" * 32, "status": "sealed", "height": 7, "position": 0, "block_hash": "11" * 32}
LIES = [
    (200, b""),
    (200, b"OK"),
    (200, {"status": "success", "message": "Data added to blockchain"}),
    (201, {"items": []}),
    (201, {"items": [FOREIGN] * 10}),
    (204, b""),
]


def test_success_without_an_acknowledgement_is_none(tmp_path):
    url = away()
    with LyingReceiver(url, LIES) as liar, Gateway(tmp_path / "gateway", url) as gateway:
        gateway.must_take(numbered(range(10)))
        wait_until("every lie to be told", lambda: liar.told >= len(LIES))
        assert gateway.waiting == 10
        gateway.wait_for_output(r"(?i)acknowledge")
        gateway.must_take(numbered(range(10, 15)))
        liar.__exit__()
        check_all_arrive(gateway, tmp_path, {"probe": 15})


# The Python original ------------------------------------------------------------------------------------------------


def test_the_python_original_takes_what_start_sending_makes(tmp_path, cluster):
    """PyPI `liotbchain` behind Flask, as the bench has it: an RSA key and the seed's bare readings."""
    url, database = away(), cluster.new_database()
    with open(tmp_path / "original.log", "wb") as log:
        process = subprocess.Popen(
            [original_python(), ROOT / "bench/original/receiver.py", url.rsplit(":")[-1]],
            cwd=tmp_path,
            env=os.environ | {"DATABASE_URL": database, "TRANSACTIONS_PER_BLOCK": "2", "DIFFICULTY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        settings = {"RECEIVER_PROTOCOL": "original", "SENDER_KEY": "rsa"}
        with Gateway(tmp_path / "gateway", url, **settings) as gateway:
            gateway.post("/start_sending", json={"number_of_items_to_send": 4, "interval_time": 0.2})
            wait_until("readings on the original's chain", lambda: original_blocks(database) > 10)
            gateway.post("/stop_sending")
            gateway.wait_until_empty()
            assert gateway.status["set_aside"] == 0
            assert gateway.terminate() == 0
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def original_blocks(database):
    connection = psycopg2.connect(database)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('blocks')")
            if cursor.fetchone()[0] is None:
                return 0
            cursor.execute("SELECT count(*) FROM blocks")
            return cursor.fetchone()[0]
    finally:
        connection.close()


def original_python():
    """Installs the original at the first run, where the bench does too."""
    wanted = ROOT / "bench/original/requirements.txt"
    venv = ROOT / "target/original-venv"
    installed = venv / "requirements.txt"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        subprocess.run(["python3", "-m", "venv", "--clear", venv], check=True)
        pip = [venv / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", wanted], check=True)
        shutil.copy(wanted, installed)
    return venv / "bin/python"


# Memory -------------------------------------------------------------------------------------------------------------


def peak_mib(gateway):
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def test_a_backlog_of_256_mib_takes_less_than_64_mib_of_memory(tmp_path):
    """While it is filled, at a start with it, and while it drains."""
    with Gateway(tmp_path / "gateway", away()) as gateway:
        filler = Filler(gateway, size=100, padding=20_000)
        filler.send_until(503)
        assert filler.taken * filler.padding > 200 * MIB
        assert peak_mib(gateway) < 64
        gateway.kill()
        gateway.restart()
        assert gateway.waiting == filler.taken
        with receiver_at(gateway.settings["RECEIVER_URL"], tmp_path):
            wait_until("half of it to be sent", lambda: gateway.waiting < filler.taken / 2)
        assert peak_mib(gateway) < 64
