"""A receiver of signed readings, around liotbchain's ``Blockchain``.

    python3 server/receiver.py

    POST /receive_data    [{"data": …, "signature": …, "public_key": …}, …]
    GET  /get_chain       all blocks

It listens on RECEIVER_LISTEN (127.0.0.1:5001). Where the chain is kept, and how hard its blocks are, say the settings
of liotbchain: DATABASE_URL, DIFFICULTY, TRANSACTIONS_PER_BLOCK, NONCE_LIMIT.
"""

import base64
import json
import os
import signal
import sys

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from flask import Flask, jsonify, request

from liotbchain.blockchain import Blockchain
from liotbchain.utils import Error

# What liotbchain takes: bytes of a reading, and lists and objects within each other.
PAYLOAD_SIZE_MAX, LEVELS_MAX = 65_536, 100
MEMBERS = ("data", "signature", "public_key")

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 8 << 20
blockchain = Blockchain()


class Refused(Exception):
    """What a client sent is not taken. The text says why."""


@app.post("/receive_data")
def receive_data():
    items = request.get_json()
    if not isinstance(items, list) or not items:
        raise Refused("Payload should be a list of items")
    # The whole list, before any of it is added.
    for item in items:
        check(item)
    for item in items:
        blockchain.add_transaction(item["data"])
    return jsonify(status="success", message="Data added to blockchain")


@app.get("/get_chain")
def get_chain():
    return jsonify([show(block) for block in blockchain.get_chain()])


@app.errorhandler(Refused)
def refuse(error):
    return jsonify(status="error", message=str(error)), 400


@app.errorhandler(Error)
def fail(error):
    # The database is away, or 0.0.8 found no block: to be tried again, and no signature is to blame.
    app.logger.error("%s: %s", type(error).__name__, error)
    return jsonify(status="error", message="The chain cannot take readings now"), 503


def check(item):
    """Checks the form of an item, and its signature: RSA-PSS with SHA-256, over ``json.dumps(data)``."""
    if not isinstance(item, dict) or any(member not in item for member in MEMBERS):
        raise Refused("Invalid payload structure")
    try:
        text = json.dumps(item["data"], allow_nan=False).encode()
        signature = base64.b64decode(item["signature"], validate=True)
        key = serialization.load_pem_public_key(item["public_key"].encode())
        if not isinstance(key, rsa.RSAPublicKey):
            raise ValueError("not an RSA key")
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
        key.verify(signature, text, pss, hashes.SHA256())
    except (InvalidSignature, UnsupportedAlgorithm, AttributeError, TypeError, ValueError) as error:
        raise Refused(f"Invalid signature for item: {item['data']!r}") from error
    if len(text) > PAYLOAD_SIZE_MAX or levels(item["data"]) > LEVELS_MAX:
        raise Refused(f"An item may have {PAYLOAD_SIZE_MAX} bytes and {LEVELS_MAX} levels at most")


def levels(value):
    """Counts how many lists and objects lie within each other."""
    if not isinstance(value, (dict, list)):
        return 0
    members = value.values() if isinstance(value, dict) else value
    return 1 + max(map(levels, members), default=0)


def show(block):
    return {
        "index": block.index,
        "timestamp": block.timestamp,
        "data": block.data,
        "previous hash": block.previous_hash,
        "nonce": block.nonce,
        "hash": block.hash,
    }


def main():
    # So that SIGTERM ends it as Ctrl-C does, and the chain is closed in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    host, _, port = os.environ.get("RECEIVER_LISTEN", "127.0.0.1:5001").rpartition(":")
    app.run(host.strip("[]"), int(port))


if __name__ == "__main__":
    main()
