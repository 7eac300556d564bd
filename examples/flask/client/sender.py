"""A sender that plays devices, signs their readings, and posts them to a receiver.

    python3 client/sender.py

    POST /start_sending    {"items": 2, "interval": 5}: two readings every five seconds
    POST /stop_sending     no new readings; what waits is still sent
    GET  /status           how many lists wait, were sent, and were refused

It listens on SENDER_LISTEN (127.0.0.1:5000) and posts to RECEIVER_URL (http://127.0.0.1:5001). Lists wait in memory
while the receiver is away, and are lost when this program ends. Its key is in private_key.pem.
"""

import base64
import json
import os
import queue
import random
import threading
import time

import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from flask import Flask, jsonify, request

RECEIVER_URL = os.environ.get("RECEIVER_URL", "http://127.0.0.1:5001").rstrip("/")
KEY_FILE = "private_key.pem"
DEVICES = ["Raspberry Pi 1", "Raspberry Pi 2", "NodeMCU 1", "NodeMCU 2", "NodeMCU 3"]
ITEMS_MAX, INTERVAL_MIN, INTERVAL_MAX = 1_000, 0.1, 86_400
PAUSE_MIN, PAUSE_MAX = 0.5, 30  # seconds between two tries

app = Flask(__name__)
#: Lists that wait. Where it is full, no readings are made until there is room.
waiting = queue.Queue(1_000)
count = {"sent": 0, "refused": 0}
stop, starting = threading.Event(), threading.Lock()
maker = None


@app.post("/start_sending")
def start_sending():
    global maker
    asked = request.get_json()
    if not isinstance(asked, dict):
        return answer("error", 'Expected an object such as {"items": 2, "interval": 5}', 400)
    items, interval = asked.get("items", 2), asked.get("interval", 5)
    if type(items) is not int or not 1 <= items <= ITEMS_MAX:
        return answer("error", f"items: expected a whole number from 1 to {ITEMS_MAX}", 400)
    if type(interval) not in (int, float) or not INTERVAL_MIN <= interval <= INTERVAL_MAX:
        return answer("error", f"interval: expected seconds from {INTERVAL_MIN} to {INTERVAL_MAX}", 400)
    with starting:
        if maker and maker.is_alive():
            return answer("error", "It is sending already: POST /stop_sending first", 409)
        stop.clear()
        maker = threading.Thread(target=make, args=(items, interval), daemon=True)
        maker.start()
    return answer("success", f"Started sending {items} items every {interval} seconds")


@app.post("/stop_sending")
def stop_sending():
    with starting:
        stop.set()
        if maker:
            maker.join()
    return answer("success", "Stopped; what waits is still sent")


@app.get("/status")
def status():
    return jsonify(waiting=waiting.unfinished_tasks, sending=bool(maker and maker.is_alive()), **count)


def answer(status, message, code=200):
    return jsonify(status=status, message=message), code


def load_or_create_key():
    """Returns the key of the last time. Only the user who runs this may read its file."""
    if os.path.exists(KEY_FILE):
        if os.stat(KEY_FILE).st_mode & 0o077:
            raise SystemExit(f"{KEY_FILE} can be read by others: delete it, or chmod 600 {KEY_FILE}")
        with open(KEY_FILE, "rb") as file:
            return serialization.load_pem_private_key(file.read(), password=None)
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pkcs8, unencrypted = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    new = os.open(f"{KEY_FILE}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(new, "wb") as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, pkcs8, unencrypted))
    os.replace(f"{KEY_FILE}.new", KEY_FILE)
    return key


def sign(data):
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    signature = key.sign(json.dumps(data).encode(), pss, hashes.SHA256())
    return {"data": data, "signature": base64.b64encode(signature).decode(), "public_key": public_key}


def measure():
    return {"device": random.choice(DEVICES), "distance": random.randint(2, 400), "timestamp": time.time()}


def make(items, interval):
    """Makes a list of readings every ``interval`` seconds, until it is stopped."""
    while not stop.is_set():
        # Nobody else puts anything in: there is still room afterwards.
        if not waiting.full():
            waiting.put([sign(measure()) for _ in range(items)])
        stop.wait(interval)


def send():
    """Posts the lists in their order. One leaves the queue when the receiver took it, or refused it for good."""
    while True:
        readings, pause = waiting.get(), PAUSE_MIN
        while not post(readings):
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)
        waiting.task_done()


def post(readings):
    try:
        response = requests.post(f"{RECEIVER_URL}/receive_data", json=readings, timeout=60)
    except requests.RequestException as error:
        app.logger.warning("not sent, and tried again: %s", error)
        return False
    if response.status_code == 400:
        app.logger.error("refused for good: %s", response.text)
        count["refused"] += 1
        return True
    if response.status_code != 200:
        app.logger.warning("not taken, and tried again: %s", response.status_code)
        return False
    count["sent"] += 1
    return True


if __name__ == "__main__":
    key = load_or_create_key()
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public_key = key.public_key().public_bytes(pem, spki).decode()
    threading.Thread(target=send, daemon=True).start()
    host, _, port = os.environ.get("SENDER_LISTEN", "127.0.0.1:5000").rpartition(":")
    app.run(host.strip("[]"), int(port))
