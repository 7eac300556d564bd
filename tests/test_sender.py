"""The sender: readings in by HTTP and from its simulated devices, signed, kept on disk until the receiver has them.

Outages, kills and full disks are in test_gateway*.py, the broker in test_mqtt.py.
"""

import base64
import contextlib
import json
import os
import re
import stat
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from requests.exceptions import ChunkedEncodingError

import cases
from program import Receiver, Sender, run, wait_until

FAST = {"number_of_items_to_send": 2, "interval_time": 0.1}


@pytest.fixture
def sender(tmp_path, receiver):
    (tmp_path / "sender").mkdir()
    with Sender(tmp_path / "sender", receiver.url) as sender:
        yield sender


def height(receiver):
    return len(receiver.chain()) - 1


def test_sends_until_it_is_stopped(sender, receiver):
    started = sender.post("/start_sending", json=FAST)
    assert started.status_code == 200
    wait_until("ten readings", lambda: height(receiver) >= 10)
    assert sender.post("/stop_sending").status_code == 200
    # What was on its way may still arrive; then nothing more.
    wait_until("silence", lambda: stays_the_same(lambda: height(receiver)))


def stays_the_same(value, pause_s=1.5):
    before = value()
    threading.Event().wait(pause_s)
    return value() == before


def test_readings_are_those_of_the_original(sender, receiver):
    sender.post("/start_sending", json=FAST)
    wait_until("readings", lambda: height(receiver) >= 20)
    readings = [value for block in receiver.chain()[1:] for value in block["data"]]
    for reading in readings:
        assert reading.keys() == {"device", "distance", "timestamp"}
        assert re.fullmatch(r"(Raspberry Pi|Nodemcu) \d", reading["device"])
        assert 50 <= reading["distance"] <= 200
        assert type(reading["timestamp"]) is float
    assert len({reading["device"] for reading in readings}) > 1


def test_a_second_start_changes_the_job_and_starts_no_other(sender, receiver):
    slow = {"number_of_items_to_send": 1, "interval_time": 3600}
    assert sender.post("/start_sending", json=slow).status_code == 200
    wait_until("the first reading", lambda: height(receiver) >= 1)
    # The waiting job takes the new numbers at once; two jobs would not both stop.
    assert sender.post("/start_sending", json=FAST).status_code == 200
    wait_until("more readings", lambda: height(receiver) >= 5)
    assert sender.post("/start_sending", json=slow).status_code == 200
    wait_until("silence", lambda: stays_the_same(lambda: height(receiver)))
    assert sender.post("/stop_sending").status_code == 200


def test_status_tells_what_it_does(sender, receiver):
    idle = sender.get("/status").json()
    assert (idle["running"], idle["sent"]) == (False, 0)
    sender.post("/start_sending", json=FAST)
    wait_until("readings", lambda: height(receiver) >= 4)
    busy = sender.get("/status").json()
    assert busy["running"] is True
    assert (busy["number_of_items_to_send"], busy["interval_time"]) == (2, 0.1)
    assert busy["sent"] >= 4
    assert busy["receiver_url"].startswith(receiver.url)
    sender.post("/stop_sending")
    assert sender.get("/status").json()["running"] is False
    assert {"/start_sending", "/stop_sending", "/status"} <= sender.get("/openapi.json").json()["paths"].keys()


@pytest.mark.parametrize("body, _, ours", cases.STARTS, ids=[body for body, *_ in cases.STARTS])
def test_answers_the_table_of_starts(sender, receiver, body, _, ours):
    """The original answered 200 to most of these, and its thread died."""
    answer = sender.post("/start_sending", data=body, headers={"Content-Type": "application/json"})
    status, *code = ours.split()
    assert answer.status_code == int(status), answer.text
    if code:
        assert (answer.json()["status"], answer.json()["code"]) == ("error", code[0])
        assert len(answer.json()["message"]) > 10
        assert sender.get("/status").json()["running"] is False
    # The sender still works.
    assert sender.post("/start_sending", json=FAST).status_code == 200
    wait_until("readings", lambda: height(receiver) >= 2)


def test_goes_on_when_the_receiver_comes_back(sender, receiver):
    sender.post("/start_sending", json=FAST)
    wait_until("readings", lambda: height(receiver) >= 4)
    receiver.kill()
    sender.wait_for_output(r"(?i)retr|unreachable|refused|again")
    sender.must_run()
    receiver.restart()
    before = height(receiver)
    wait_until("readings again", lambda: height(receiver) >= before + 4)
    sender.post("/stop_sending")
    assert receiver.get("/validate").json()["valid"] is True


def test_starts_before_its_receiver(tmp_path):
    (tmp_path / "sender").mkdir()
    receiver = Receiver(tmp_path)
    try:
        with Sender(tmp_path / "sender", receiver.url) as sender:
            assert sender.post("/start_sending", json=FAST).status_code == 200
            sender.wait_for_output(r"(?i)retr|unreachable|refused|again")
            receiver.restart()
            wait_until("readings", lambda: height(receiver) >= 2)
    finally:
        receiver.kill()


def test_shows_its_token_to_the_receiver(tmp_path):
    token = "a-long-secret-token-0123456789"
    (tmp_path / "sender").mkdir()
    with Receiver(tmp_path, API_TOKEN=token) as receiver:
        with Sender(tmp_path / "sender", receiver.url, RECEIVER_TOKEN=token) as sender:
            sender.post("/start_sending", json=FAST)
            wait_until("readings", lambda: height(receiver) >= 2)
            assert token not in sender.output


def test_its_key_is_made_once_and_for_its_owner_alone(tmp_path):
    with Receiver(tmp_path) as receiver:
        (tmp_path / "sender").mkdir()
        for _ in range(2):
            with Sender(tmp_path / "sender", receiver.url) as sender:
                goal = height(receiver) + 2
                sender.post("/start_sending", json=FAST)
                wait_until("readings", lambda goal=goal: height(receiver) >= goal)
                assert sender.terminate() == 0
        assert receiver.terminate() == 0
        exported = run("chain", "export", "--out", "-", folder=tmp_path)
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    [key] = [line for line in lines if line["type"] == "key"]
    [path] = [path for path in (tmp_path / "sender/data").iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    private = serialization.load_pem_private_key(path.read_bytes(), None)
    formats = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    assert private.public_key().public_bytes(*formats).decode() == key["public_key"]


class OriginalReceiver(ThreadingHTTPServer):
    """Checks a request as the original's receiver does: RSA-PSS with the longest salt over `json.dumps` of the data."""

    def __init__(self):
        self.verified = []
        self.faults = []
        super().__init__(("127.0.0.1", 0), OriginalHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class OriginalHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            assert self.path == "/receive_data"
            assert self.headers["Content-Type"] == "application/json"
            items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert isinstance(items, list)
            for item in items:
                key = serialization.load_pem_public_key(item["public_key"].encode())
                scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
                message = json.dumps(item["data"]).encode()
                key.verify(base64.b64decode(item["signature"]), message, scheme, hashes.SHA256())
                self.server.verified.append(item["data"])
        except Exception as fault:
            self.server.faults.append(repr(fault))
        answer = b'{"message":"Data added to blockchain","status":"success"}\n'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def test_with_an_rsa_key_the_original_receiver_accepts_it(tmp_path):
    settings = {"SENDER_KEY": "rsa", "RECEIVER_PROTOCOL": "original"}
    with OriginalReceiver() as original, Sender(tmp_path, original.url, **settings) as sender:
        sender.post("/start_sending", json={"number_of_items_to_send": 20, "interval_time": 0.1})
        wait_until("verified readings", lambda: original.faults or len(original.verified) >= 100)
        sender.kill()
        assert not original.faults, original.faults[0]
        original.shutdown()


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_every_kind_of_key_is_accepted(tmp_path, receiver, kind):
    (tmp_path / "sender").mkdir()
    with Sender(tmp_path / "sender", receiver.url, SENDER_KEY=kind) as sender:
        sender.post("/start_sending", json=FAST)
        wait_until("readings", lambda: height(receiver) >= 2)


def follow(sender, query=""):
    """Yields what /logs tells, as pairs of event and data, until the sender is killed."""
    with sender.get(f"/logs{query}", stream=True) as answer, contextlib.suppress(ChunkedEncodingError):
        assert answer.status_code == 200
        event = None
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield event, json.loads(line.removeprefix("data: "))


def transaction(receiver, reading_id):
    """What the receiver has of a reading, once it has it."""

    def look():
        answer = receiver.get(f"/v1/transactions/{reading_id}")
        return answer.json() if answer.status_code == 200 else None

    return wait_until("the reading at the receiver", look)


def test_a_reading_is_on_the_chain_with_the_bytes_of_the_device_inside(sender, receiver):
    text = '{"device": "oven", "celsius": 1.80e2,  "note": "\\u00fcber"}'
    answer = sender.post("/readings", data=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text
    [item] = answer.json()["items"]
    assert item["status"] == "queued"
    payload = transaction(receiver, item["id"])["payload"]
    record = json.loads(payload)
    assert list(record) == ["device", "received_ms", "boot", "counter", "reading"]
    assert (record["device"], record["boot"], record["counter"]) == ("oven", 1, 0)
    assert payload.endswith(f',"reading":{text}}}')


def test_a_reading_that_is_sent_again_is_one_on_the_chain(sender, receiver):
    reading = {"device": "oven", "celsius": 180, "counter": 7}
    first, again = (sender.post("/readings", json=reading).json()["items"][0] for _ in range(2))
    assert (first["status"], again["status"]) == ("queued", "duplicate")
    assert first["id"] == again["id"]
    other = sender.post("/readings", json=reading | {"counter": 8}).json()["items"][0]
    transaction(receiver, first["id"])
    transaction(receiver, other["id"])
    assert height(receiver) == 2
    status = sender.get("/status").json()
    assert (status["duplicates"], status["devices"]["oven"]["queued"]) == (1, 2)


def test_the_log_tells_what_became_of_a_reading(sender, receiver):
    events = follow(sender, "?device=oven")
    fates = []
    started = threading.Event()

    def listen():
        for event, data in events:
            fates.append((event, data))
            started.set()

    threading.Thread(target=listen, daemon=True).start()
    # The stream may open after the first of these, and tells of those to come.
    wait_until("the stream", lambda: sender.post("/readings", json={"device": "oven", "n": 0}) and started.is_set())
    sender.post("/readings", json={"device": "other", "n": 1})
    reading_id = sender.post("/readings", json={"device": "oven", "n": 2}).json()["items"][0]["id"]

    def told():
        return [data for event, data in list(fates) if event == "outcome" and data["id"] == reading_id]

    wait_until("the reading in a block or stored", lambda: len(told()) >= 2)
    assert [data["fate"] for data in told()][0] == "queued"
    last = told()[-1]
    assert last["fate"] in ("sealed", "pending")
    if last["fate"] == "sealed":
        [block] = [block for block in receiver.chain() if block["hash"] == last["block_hash"]]
        assert block["index"] == last["height"]
    assert {data["device"] for _, data in fates} == {"oven"}
    wait_until("the count", lambda: sender.get("/status").json()["devices"]["oven"]["delivered"] >= 2)


def test_what_was_taken_survives_a_kill_and_is_sent_by_the_next_start(tmp_path):
    (tmp_path / "sender").mkdir()
    receiver = Receiver(tmp_path)
    try:
        with Sender(tmp_path / "sender", receiver.url) as sender:
            ids = [sender.post("/readings", json={"device": "a", "n": n}).json()["items"][0]["id"] for n in range(20)]
            status = sender.get("/status").json()
            assert (status["waiting"], status["queue"]["waiting"], status["boot"]) == (20, 20, 1)
            assert status["queue"]["oldest_age_s"] >= 0
            assert sender.get("/readyz").json()["status"] == "ready"
            sender.kill()
            sender.start()
            receiver.restart()
            for reading_id in ids:
                transaction(receiver, reading_id)
            # The simulated devices need not run for that.
            status = wait_until("an empty queue", lambda: (it := sender.get("/status").json())["waiting"] == 0 and it)
            assert (status["running"], status["boot"]) == (False, 2)
    finally:
        receiver.kill()
    assert "holds about" in sender.stderr


def test_the_next_receiver_is_tried_when_one_is_down(tmp_path, receiver):
    (tmp_path / "sender").mkdir()
    with Sender(tmp_path / "sender", f"http://127.0.0.1:9,{receiver.url}") as sender:
        reading_id = sender.post("/readings", json={"device": "a", "n": 1}).json()["items"][0]["id"]
        transaction(receiver, reading_id)
        wait_until("its address", lambda: sender.get("/status").json()["receiver_url"].startswith(receiver.url))


def test_bench_measures_the_first_receiver_of_several(tmp_path, receiver):
    settings = {"RECEIVER_URL": f"{receiver.url},http://127.0.0.1:9"}
    done = run("bench", "--seconds", "1", "--batch", "10", folder=tmp_path, settings=settings)
    assert done.returncode == 0, done.stderr


def findings(done):
    return {line.split()[1]: line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")}


class WrongClock(BaseHTTPRequestHandler):
    """A receiver of v1, as far as `sender check` asks, two hours ahead."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = b'{"type":"about:blank","status":400,"code":"empty_list"}'
        self.send_response(400)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + 7200)

    def log_message(self, *_):
        pass


class TestCheck:
    """`liotbchain sender check`, before a sender runs and beside one."""

    def check(self, folder, receiver_url, *flags, **settings):
        settings = {"RECEIVER_URL": receiver_url, "OUTBOX_SIZE_MAX": 1 << 20} | settings
        return run("sender", "check", *flags, folder=folder, settings=settings)

    def test_all_is_well_before_the_first_start_and_nothing_is_made(self, tmp_path, receiver):
        (tmp_path / "sender").mkdir()
        done = self.check(tmp_path / "sender", receiver.url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert findings(done) == dict.fromkeys(["key", "folder", "queue", "receiver", "clock"], "ok")
        assert list((tmp_path / "sender").iterdir()) == []
        assert height(receiver) == 0

    def test_asks_the_sender_that_runs(self, tmp_path, receiver):
        (tmp_path / "sender").mkdir()
        with Sender(tmp_path / "sender", "http://127.0.0.1:9") as sender:
            sender.post("/readings", json={"device": "a", "n": 1})
            done = self.check(tmp_path / "sender", receiver.url, SENDER_LISTEN=sender.address)
            assert done.returncode == 0, done.stdout + done.stderr
            assert f"sender at {sender.url}/: 1 reading" in done.stdout
            os.chmod(tmp_path / "sender/data/sender_key.pem", 0o640)
            done = self.check(tmp_path / "sender", receiver.url, SENDER_LISTEN=sender.address)
            assert done.returncode == 0
            assert findings(done)["key"] == "warn" and "chmod 600" in done.stdout
            # Somebody has the queue, and nobody answers there.
            done = self.check(tmp_path / "sender", receiver.url, SENDER_LISTEN="127.0.0.1:9")
            assert done.returncode == 1
            assert findings(done)["queue"] == "fail" and "SENDER_LISTEN" in done.stdout

    def test_a_receiver_that_is_down_has_an_exit_code_of_its_own(self, tmp_path):
        done = self.check(tmp_path, "http://127.0.0.1:9")
        assert done.returncode == 4
        assert findings(done)["receiver"] == "fail" and "start it" in done.stdout
        told = json.loads(self.check(tmp_path, "http://127.0.0.1:9", "--json").stdout)
        assert told["ok"] is False
        assert [check["verdict"] for check in told["checks"]] == ["ok", "ok", "ok", "unreachable"]

    def test_a_token_is_tried_without_storing_anything(self, tmp_path):
        token = "a-long-secret-token-0123456789"
        (tmp_path / "sender").mkdir()
        with Receiver(tmp_path, API_TOKEN=token) as receiver:
            wrong = self.check(tmp_path / "sender", receiver.url, RECEIVER_TOKEN="another-secret")
            assert wrong.returncode == 1
            assert "set RECEIVER_TOKEN" in wrong.stdout and "another-secret" not in wrong.stdout + wrong.stderr
            assert self.check(tmp_path / "sender", receiver.url, RECEIVER_TOKEN=token).returncode == 0
            assert height(receiver) == 0

    def test_a_wrong_clock_is_a_warning_with_its_cure(self, tmp_path):
        with ThreadingHTTPServer(("127.0.0.1", 0), WrongClock) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            done = self.check(tmp_path, f"http://127.0.0.1:{server.server_port}")
            server.shutdown()
        assert done.returncode == 0, done.stdout
        assert findings(done)["clock"] == "warn"
        assert "behind" in done.stdout and "timedatectl" in done.stdout

    def test_a_broker_that_is_down_is_named(self, tmp_path, receiver):
        done = self.check(tmp_path, receiver.url, MQTT_URL="mqtt://127.0.0.1:9")
        assert done.returncode == 4, done.stdout
        assert findings(done)["broker"] == "fail"


@pytest.mark.parametrize(
    "settings, cure",
    [
        ({"MQTT_URL": "mqtt://pi:geheim@broker"}, "MQTT_USER"),
        ({"MQTT_URL": "mqtt://broker", "MQTT_PASSWORD": "geheim"}, "MQTT_USER"),
        ({"MQTT_URL": "mqtts://broker", "MQTT_CA_FILE": "/nowhere/geh.pem"}, "/nowhere/geh.pem"),
        ({"MQTT_URL": "mqtt://broker", "MQTT_TOPICS": "tele/+/SENSOR"}, "MQTT_TOPICS"),
        ({"RECEIVER_URL": "http://a,ftp://b"}, "RECEIVER_URL"),
        ({"OUTBOX_SIZE_MAX": "1000"}, "1048576"),
    ],
)
def test_settings_that_do_not_go_together_are_errors_with_their_cure(tmp_path, settings, cure):
    for command in (["config", "check"], ["sender"], ["sender", "check"]):
        done = run(*command, folder=tmp_path, settings=settings)
        assert done.returncode == 2
        assert cure in done.stderr and "geheim" not in done.stderr
