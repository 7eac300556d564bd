"""Builds an exported chain by hand, and can break any one rule of it while everything else stays true.

Whatever is not overridden is computed from what was: a block that follows a broken one links to it, commits to
it and is mined again, so that only the broken rule is left for a verifier to find.
"""

import base64
import hashlib
import json
import os
import struct
import time
from dataclasses import dataclass

from verifier import verify

GENESIS_TIME_MS = int(time.time() * 1000) - 86_400_000


def sha256(data):
    return hashlib.sha256(data).digest()


@dataclass
class Transaction:
    key_id: bytes
    sequence: int
    payload: bytes
    signature: bytes
    content_hash: bytes = None
    pruned: bool = False

    def __post_init__(self):
        if self.content_hash is None:
            content = struct.pack(">I", len(self.payload)) + self.payload
            self.content_hash = sha256(content + struct.pack(">H", len(self.signature)) + self.signature)

    @property
    def leaf(self):
        return self.key_id + struct.pack(">Q", self.sequence) + self.content_hash

    def record(self):
        start = {"key_id": self.key_id.hex(), "sequence": self.sequence}
        if self.pruned:
            return start | {"content_hash": self.content_hash.hex(), "pruned": True}
        # A payload that is not UTF-8 becomes lone surrogates, the nearest that JSON can say.
        payload = self.payload.decode("utf-8", "surrogateescape")
        return start | {"payload": payload, "signature": base64.b64encode(self.signature).decode()}


class ChainBuilder:
    def __init__(self, rules=None, **header):
        self.rules = {
            "genesis": "Genesis Block",
            "network": "built-by-hand",
            "seal": "on_count",
            "difficulty": 1,
            "unsigned": False,
            "timestamp_ms": GENESIS_TIME_MS,
        } | (rules or {})
        self.lines = []
        self.hashes = []
        self.timestamps = []
        self.sequences = {}
        self.known_keys = set()
        self.history = verify.Tree()
        transactions = header.pop("transactions", None)
        if transactions is None:
            transactions = [self.genesis_transaction()]
        # Wrong rules must still give a block; what it says of itself then hardly matters.
        difficulty = self.rules["difficulty"]
        bits = verify.bits_of(difficulty if type(difficulty) is int and 0 <= difficulty <= 16 else 1)
        genesis = {"timestamp_ms": self.rules["timestamp_ms"], "bits": bits, "nonce": 0}
        self.add_block(transactions, **(genesis | header))

    def genesis_transaction(self, **changed):
        payload = json.dumps(self.rules).encode()
        fields = {"key_id": verify.ZERO_HASH, "sequence": self.next_sequence(verify.ZERO_HASH), "payload": payload, "signature": b""}
        return Transaction(**(fields | changed))

    def next_sequence(self, key_id):
        self.sequences[key_id] = self.sequences.get(key_id, -1) + 1
        return self.sequences[key_id]

    def add_key(self, signer, key_id=None, pem=None):
        self.known_keys.add(signer.key_id)
        key_id = key_id or signer.key_id
        self.lines.append({"type": "key", "key_id": key_id.hex(), "public_key": pem or signer.pem})

    def sign(self, signer, payload, **changed):
        """Returns a transaction by this signer, after a line with its key where there is none yet."""
        if signer.key_id not in self.known_keys:
            self.add_key(signer)
        if isinstance(payload, str):
            payload = payload.encode()
        fields = {"key_id": signer.key_id, "payload": payload, "signature": signer.sign(payload)} | changed
        if "sequence" not in fields:
            fields["sequence"] = self.next_sequence(fields["key_id"])
        return Transaction(**fields)

    def unsigned(self, payload, size=16):
        sequence = self.next_sequence(verify.ZERO_HASH)
        return Transaction(verify.ZERO_HASH, sequence, payload.encode(), os.urandom(size))

    def add_block(self, transactions, mined=True, **changed):
        """Adds a block. `changed` replaces fields of the header; `mined=False` leaves its hash above the target."""
        height = len(self.hashes)
        tree = verify.Tree()
        for transaction in transactions:
            tree.add(transaction.leaf)
        header = {
            "version": 1,
            "prev_block_hash": self.hashes[-1] if self.hashes else verify.ZERO_HASH,
            "transactions_root": tree.root(),
            "history_root": self.history.root() if self.hashes else verify.EMPTY_ROOT,
            "height": height,
            "timestamp_ms": GENESIS_TIME_MS + 1000 * height,
            "bits": verify.bits_of(1),
        } | changed
        raw = self.mine(header, height, mined)
        self.hashes.append(sha256(raw))
        self.timestamps.append(header["timestamp_ms"])
        self.history.add(self.hashes[-1])
        self.lines.append(
            {
                "type": "block",
                "height": header["height"],
                "hash": self.hashes[-1].hex(),
                "header": raw.hex(),
                "transactions": [transaction.record() for transaction in transactions],
            }
        )

    def mine(self, header, height, mined):
        order = ["version", "prev_block_hash", "transactions_root", "history_root", "height", "timestamp_ms", "bits"]
        front = struct.pack(">H32s32s32sIQI", *(header[field] for field in order))
        if "nonce" in header:
            return front + struct.pack(">I", header["nonce"])
        # A block with odd bits is mined to the least difficulty, harder bits to what they ask.
        allowed = [verify.bits_of(difficulty) for difficulty in range(1, 5)]
        target = verify.target_of(header["bits"] if header["bits"] in allowed else verify.bits_of(1))
        nonce = 0
        while (int.from_bytes(sha256(front + struct.pack(">I", nonce)), "big") <= target) != mined:
            nonce += 1
        return front + struct.pack(">I", nonce)

    def first_line(self):
        genesis, tip = (self.hashes[0].hex(), self.hashes[-1].hex())
        return {"type": "chain", "version": 1, "genesis": genesis, "tip": tip, "height": len(self.hashes) - 1}

    def export(self, **changed):
        lines = [self.first_line() | changed, *self.lines]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()
