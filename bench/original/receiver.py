"""A small receiver around the Python original, to measure it beside ours.

    DATABASE_URL=… TRANSACTIONS_PER_BLOCK=… DIFFICULTY=… python receiver.py PORT

The chain is the package's own `Blockchain`, used as its README shows. The route takes what the original's demo takes, and
checks it in the same way: an RSA-PSS signature over Python's JSON text of `data`, by the key that comes along.
"""

import base64
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from flask import Flask, jsonify, request
from liotbchain.blockchain import Blockchain

app = Flask(__name__)
blockchain = Blockchain()


def is_signed(item):
    key = load_pem_public_key(item["public_key"].encode())
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)
    try:
        key.verify(base64.b64decode(item["signature"]), json.dumps(item["data"]).encode(), pss, hashes.SHA256())
    except InvalidSignature:
        return False
    return True


@app.post("/receive_data")
def receive_data():
    for item in request.get_json():
        if not is_signed(item):
            return jsonify(status="error", message="Invalid signature"), 400
        blockchain.add_transaction(item["data"])
    return jsonify(status="success", message="Data added to blockchain")


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
