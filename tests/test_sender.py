"""The sender: one job at a time, signed readings as in the original, and patience when the receiver is away."""

import base64
import json
import re
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

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
    with OriginalReceiver() as original, Sender(tmp_path, original.url, SENDER_KEY="rsa") as sender:
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
