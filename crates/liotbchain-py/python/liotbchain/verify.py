"""Checks an exported chain, and receipts and other proof files, with SHA-256 and a signature library alone.

Written from the descriptions in docs/chain-format.md and docs/proofs.md, importing nothing of this project, so that it is
a second opinion on what the Rust program says. docs/verify-by-hand.md walks through the same steps. This one file, and the
package `cryptography` for the signatures, is all that it takes:

    python3 -m liotbchain.verify chain.ndjson
    python3 verify.py reading.receipt.json --policy policy.txt --genesis HASH --checkpoint kept.txt

It prints what it checked and exits 0, or prints the first fault with its block, transaction and field and
exits 3. In a program, :func:`verify_export` and :func:`verify_proof` do the same.

Of an export it does not check one thing: that the last block is not from the future, which only means something
at the moment a block arrives. And it cannot check what is not there: the signatures of pruned transactions, which
it counts, and whether somebody holds another, longer chain.
"""

import argparse
import base64
import datetime
import hashlib
import json
import os
import re
import sys
import unicodedata

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
except ImportError as missing:
    raise ImportError("signatures are checked with the package cryptography: pip install cryptography") from missing

VERSION = 1
HEADER_SIZE = 118
PAYLOAD_SIZE_MAX = 65_536
SIGNATURE_SIZE_MAX = 65_535
NETWORK_NAME_SIZE_MAX = 64
DIFFICULTY_MAX = 16
ZERO_HASH = bytes(32)
EMPTY_ROOT = hashlib.sha256(b"").digest()


class Fault(Exception):
    """The first thing that is wrong, and where: which block, which transaction in it, which field."""

    def __init__(self, field, why, block=None, transaction=None):
        where = "" if block is None else f"block {block}, "
        where += "" if transaction is None else f"transaction {transaction}, "
        super().__init__(f"{where}{field}: {why}")


def sha256(data):
    return hashlib.sha256(data).digest()


# Merkle trees (RFC 6962 section 2.1) ---------------------------------------------------------------------------


def node(left, right):
    return sha256(b"\x01" + left + right)


class Tree:
    """The Merkle tree hash of the leaves added so far, kept as the roots of its perfect subtrees.

    Memory and the cost of a root grow with the logarithm of the number of leaves, so that the
    history root can be checked at every block.
    """

    def __init__(self):
        self.size = 0
        self.subtrees = []

    def add(self, leaf):
        subtree = sha256(b"\x00" + leaf)
        size = self.size
        while size & 1:
            subtree = node(self.subtrees.pop(), subtree)
            size >>= 1
        self.subtrees.append(subtree)
        self.size += 1

    def root(self):
        if not self.subtrees:
            return EMPTY_ROOT
        root = self.subtrees[-1]
        for left in reversed(self.subtrees[:-1]):
            root = node(left, root)
        return root


# Proof of work -------------------------------------------------------------------------------------------------


def bits_of(difficulty):
    """The compact target of a block hash with so many leading zero hexadecimal digits."""
    if difficulty % 2 == 0:
        return (33 - difficulty // 2) << 24 | 0x00FFFF
    return (32 - (difficulty - 1) // 2) << 24 | 0x0FFFFF


def target_of(bits):
    """Expands a compact target. Only ever called with bits that bits_of gave."""
    return (bits & 0x7FFFFF) << 8 * ((bits >> 24) - 3)


# Keys and signatures -------------------------------------------------------------------------------------------

# Ed25519's field and the curve's constant d (RFC 8032 section 5.1).
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
# The order of the base point.
L = 2**252 + 27742317777372353535851937790883648493


def decode_base64(text):
    """Decodes standard base64 with its padding, written in the one way there is."""
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise ValueError("not canonical base64")
    return decoded


def decode_pem(pem):
    match = re.fullmatch(
        r"-----BEGIN PUBLIC KEY-----\n((?:[A-Za-z0-9+/]{64}\n)*)([A-Za-z0-9+/=]{0,64}\n)-----END PUBLIC KEY-----\n", pem
    )
    if not match:
        raise ValueError("not a PUBLIC KEY in PEM, in lines of 64 characters")
    return decode_base64((match[1] + match[2]).replace("\n", ""))


def load_key(der):
    """Returns the key that a SubjectPublicKeyInfo holds, or says why such a key is not allowed."""
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a key that can be read: {error}") from None
    if isinstance(key, rsa.RSAPublicKey):
        size, exponent = key.key_size, key.public_numbers().e
        if not 2048 <= size <= 8192 or size % 8:
            raise ValueError(f"an RSA key of {size} bits; allowed are 2048 to 8192 in steps of 8")
        if exponent % 2 == 0 or not 65537 <= exponent < 2**33:
            raise ValueError(f"an RSA key with exponent {exponent}; allowed are odd ones from 65537, below 2^33")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise ValueError(f"an elliptic curve key on {key.curve.name}; allowed is P-256")
    elif isinstance(key, ed25519.Ed25519PublicKey):
        check_edwards_point(key.public_bytes_raw())
    else:
        raise ValueError("a kind of key that is not allowed")
    # One key must have one key_id, so only one spelling of it is allowed: what a correct encoder writes.
    spelled = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if spelled != der:
        raise ValueError("not in canonical DER")
    return key


def check_edwards_point(encoded):
    """Refuses a point that is not canonically encoded, not on the curve, or of small order.

    A key of small order verifies signatures over messages that nobody signed. Points of order 1, 2 and 4 have
    y = 1, -1 and 0. A point of order 8 doubles to one with y = 0, which with the curve's equation
    -x^2 + y^2 = 1 + d x^2 y^2 leaves d y^4 + 2 y^2 - 1 = 0.
    """
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    if y >= P:
        raise ValueError("an Ed25519 key that is not canonically encoded")
    if y in (0, 1, P - 1) or (D * pow(y, 4, P) + 2 * y * y - 1) % P == 0:
        raise ValueError("an Ed25519 key of small order")
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    if pow(x_squared, (P - 1) // 2, P) != 1:
        raise ValueError("an Ed25519 key that is not on the curve")


def verify(key, signature, payload):
    """Returns why the signature does not hold for the payload, or None when it does."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        if len(signature) != 64:
            return f"an Ed25519 signature of {len(signature)} bytes; it has 64"
        if int.from_bytes(signature[32:], "little") >= L:
            return "the S of an Ed25519 signature is not below the group order"
        attempts = [lambda: key.verify(signature, payload)]
    elif isinstance(key, ec.EllipticCurvePublicKey):
        try:
            strict = utils.encode_dss_signature(*utils.decode_dss_signature(signature)) == signature
        except ValueError:
            strict = False
        if not strict:
            return "an ECDSA signature that is not in strict DER"
        attempts = [lambda: key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))]
    else:
        size = key.key_size // 8
        if len(signature) != size:
            return f"an RSA signature of {len(signature)} bytes; this key's have {size}"
        attempts = [
            lambda salt=salt: key.verify(
                signature, payload, padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256()
            )
            for salt in (size - 34, 32)
        ]
    for attempt in attempts:
        try:
            attempt()
            return None
        except InvalidSignature:
            pass
    return "it does not verify under the transaction's key"


# The lines of an export ----------------------------------------------------------------------------------------


def strict_integer(text):
    if text == "-0":
        raise ValueError("-0 is no unsigned number")
    return int(text)


def strict_object(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key twice in one object")
    return dict(pairs)


def read_line(number, line):
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=strict_object, parse_int=strict_integer)
    except (ValueError, RecursionError) as error:
        raise Fault(f"line {number}", f"not a line of JSON: {error}") from None
    if not isinstance(value, dict):
        raise Fault(f"line {number}", "not a JSON object")
    return value


def take(record, shape, where, **place):
    """Returns the values of a record that has exactly the named keys, each of the named type."""
    if record.keys() != shape.keys():
        raise Fault(where, f"has the keys {sorted(record)}, expected {sorted(shape)}", **place)
    for key, kind in shape.items():
        if type(record[key]) is not kind:
            raise Fault(key, f"is not of type {kind.__name__}", **place)
    return [record[key] for key in shape]


def unhex(text, size, field, **place):
    if not re.fullmatch(r"(?:[0-9a-f]{2})*", text):
        raise Fault(field, "not lower-case hexadecimal", **place)
    if size != len(text) // 2:
        raise Fault(field, f"{len(text) // 2} bytes, expected {size}", **place)
    return bytes.fromhex(text)


def is_network_name(value):
    if type(value) is not str or any(unicodedata.category(character) == "Cc" for character in value):
        return False
    try:
        return 1 <= len(value.encode("utf-8")) <= NETWORK_NAME_SIZE_MAX
    except UnicodeEncodeError:
        return False


def unsigned(size, value):
    return value.to_bytes(size, "big")


def decode_content(payload, signature, place):
    """Returns the bytes of a payload and a signature as their JSON strings stand for them."""
    try:
        payload = payload.encode("utf-8")
    except UnicodeEncodeError:
        raise Fault("payload", "not UTF-8", **place) from None
    if not 1 <= len(payload) <= PAYLOAD_SIZE_MAX:
        raise Fault("payload", f"{len(payload)} bytes; allowed are 1 to {PAYLOAD_SIZE_MAX}", **place)
    try:
        decoded = decode_base64(signature)
    # Also where a character is not ASCII.
    except ValueError as error:
        raise Fault("signature", f"not base64: {error}", **place) from None
    if len(decoded) > SIGNATURE_SIZE_MAX:
        raise Fault("signature", f"{len(decoded)} bytes; allowed are up to {SIGNATURE_SIZE_MAX}", **place)
    return payload, decoded


def content_hash_of(payload, signature):
    return sha256(unsigned(4, len(payload)) + payload + unsigned(2, len(signature)) + signature)


def id_of(key_id, identified_by):
    return sha256(b"liotbchain/tx/1" + key_id + identified_by)


# Rules ---------------------------------------------------------------------------------------------------------


class Header:
    def __init__(self, raw):
        def number(start, size):
            return int.from_bytes(raw[start : start + size], "big")

        self.version = number(0, 2)
        self.prev_block_hash = raw[2:34]
        self.transactions_root = raw[34:66]
        self.history_root = raw[66:98]
        self.height = number(98, 4)
        self.timestamp_ms = number(102, 8)
        self.bits = number(110, 4)
        self.nonce = number(114, 4)
        self.hash = sha256(raw)


class Verifier:
    """Reads an export line by line and remembers of the chain only what later blocks are checked against.

    `root_at` is a number of blocks whose root is kept in `kept_root`, to compare it with a checkpoint of that size.
    """

    def __init__(self, root_at=None):
        self.root_at = root_at
        self.kept_root = EMPTY_ROOT if root_at == 0 else None
        self.promised = None  # what the first line says
        self.keys = {}
        self.rules = None  # the genesis payload
        self.history = Tree()
        self.tip = None
        self.recent_timestamps = []
        self.next_sequence = {}
        self.ids = set()
        self.transactions = 0
        self.pruned = 0
        self.has_ended = False

    def read(self, lines):
        for number, line in enumerate(lines, 1):
            record = read_line(number, line)
            kind = record.get("type")
            if self.has_ended:
                raise Fault(f"line {number}", "nothing may follow the line of type end")
            if number == 1:
                self.read_first(record)
            elif kind == "key":
                self.read_key(record, number)
            elif kind == "block":
                self.read_block(record)
            elif kind == "end":
                self.read_last(record, number)
            else:
                raise Fault(f"line {number}", f"a line of type {kind!r}, expected key, block or end")
        self.check_end()

    def read_first(self, record):
        shape = {"type": str, "version": int, "genesis": str, "tip": str, "height": int}
        kind, version, genesis, tip, height = take(record, shape, "line 1")
        if kind != "chain":
            raise Fault("line 1", "the first line is not of type chain")
        if version != VERSION:
            raise Fault("version", f"the export is of version {version}, known is {VERSION}")
        self.promised = (unhex(genesis, 32, "genesis"), unhex(tip, 32, "tip"), height)

    def read_last(self, record, number):
        shape = {"type": str, "blocks": int, "transactions": int, "tip": str}
        _, blocks, transactions, tip = take(record, shape, f"line {number}")
        if self.tip is None:
            raise Fault("export", "it holds no block")
        for field, said, read in [
            ("blocks", blocks, self.history.size),
            ("transactions", transactions, self.transactions),
            ("tip", tip, self.tip.hex()),
        ]:
            if said != read:
                raise Fault(field, f"the last line says {said}, above it stand {read}")
        self.has_ended = True

    def read_key(self, record, number):
        _, key_id, pem = take(record, {"type": str, "key_id": str, "public_key": str}, f"line {number}")
        try:
            der = decode_pem(pem)
            key = load_key(der)
        except ValueError as error:
            raise Fault("public_key", f"line {number}: {error}") from None
        if sha256(der) != unhex(key_id, 32, "key_id"):
            raise Fault("key_id", f"line {number}: it is not the hash of the key")
        self.keys[sha256(der)] = key

    def read_block(self, record):
        shape = {"type": str, "height": int, "hash": str, "header": str, "transactions": list}
        height = self.history.size
        place = {"block": height}
        _, said_height, said_hash, raw, transactions = take(record, shape, "block", **place)
        header = Header(unhex(raw, HEADER_SIZE, "header", **place))
        if header.version != VERSION:
            raise Fault("version", f"{header.version}, known is {VERSION}", **place)
        if header.height != height:
            raise Fault("height", f"{header.height}, expected {height}", **place)
        if said_height != header.height:
            raise Fault("height", f"the line says {said_height}, the header {header.height}", **place)
        if unhex(said_hash, 32, "hash", **place) != header.hash:
            raise Fault("hash", f"the line says {said_hash}, the header hashes to {header.hash.hex()}", **place)

        if height == 0:
            self.check_genesis(header, transactions)
        else:
            self.check_proof_of_work(header)
            self.check_place_on_branch(header)
        self.check_transactions(header, transactions)

        self.history.add(header.hash)
        if self.history.size == self.root_at:
            self.kept_root = self.history.root()
        self.tip = header.hash
        self.recent_timestamps = (self.recent_timestamps + [header.timestamp_ms])[-11:]

    def check_genesis(self, header, transactions):
        place = {"block": 0}
        if header.hash != self.promised[0]:
            raise Fault("genesis", "the first block is not the genesis block that the first line names")
        if len(transactions) != 1:
            raise Fault("transactions", f"the genesis block has {len(transactions)} transactions, expected 1", **place)
        place["transaction"] = 0
        self.rules = self.read_rules(transactions[0], place)
        del place["transaction"]
        expected = {
            "prev_block_hash": ZERO_HASH,
            "history_root": EMPTY_ROOT,
            "timestamp_ms": self.rules["timestamp_ms"],
            "bits": bits_of(self.rules["difficulty"]),
            "nonce": 0,
        }
        for field, value in expected.items():
            if getattr(header, field) != value:
                raise Fault(field, "not what a genesis block with these rules has", **place)

    def read_rules(self, transaction, place):
        if not isinstance(transaction, dict) or not isinstance(transaction.get("payload"), str):
            raise Fault("payload", "the genesis block must hold the network's rules", **place)
        if transaction.get("key_id") != ZERO_HASH.hex() or transaction.get("signature") != "":
            raise Fault("signature", "the genesis transaction is unsigned, with an empty signature", **place)
        try:
            rules = json.loads(transaction["payload"], object_pairs_hook=strict_object, parse_int=strict_integer)
        except (ValueError, RecursionError) as error:
            raise Fault("payload", f"not the rules of a network: {error}", **place) from None
        shape = {
            "genesis": lambda value: value == "Genesis Block",
            "network": is_network_name,
            "seal": lambda value: value == "on_count",
            "difficulty": lambda value: type(value) is int and 0 <= value <= DIFFICULTY_MAX,
            "unsigned": lambda value: type(value) is bool,
            "timestamp_ms": lambda value: type(value) is int and value >= 0,
        }
        for name, holds in shape.items():
            if not isinstance(rules, dict) or name not in rules or not holds(rules[name]):
                raise Fault("payload", f"not the rules of a network: {name} is missing or wrong", **place)
        for name in rules.keys() - shape.keys():
            raise Fault("payload", f"not the rules of a network: {name} is unknown, and may be a rule", **place)
        return rules

    def check_proof_of_work(self, header):
        # Equality with an encoding that the rules allow comes first, so that no odd encoding is ever expanded.
        allowed = [bits_of(difficulty) for difficulty in range(self.rules["difficulty"], DIFFICULTY_MAX + 1)]
        if header.bits not in allowed:
            raise Fault("bits", f"{header.bits:#010x} is not a target that the genesis rules allow", block=header.height)
        if int.from_bytes(header.hash, "big") > target_of(header.bits):
            raise Fault("hash", "above the target: no proof of work", block=header.height)

    def check_place_on_branch(self, header):
        place = {"block": header.height}
        if header.prev_block_hash != self.tip:
            raise Fault("prev_block_hash", "not the hash of the block below", **place)
        if header.history_root != self.history.root():
            raise Fault("history_root", "not the Merkle root of all blocks below", **place)
        median = sorted(self.recent_timestamps)[len(self.recent_timestamps) // 2]
        if header.timestamp_ms < median:
            raise Fault("timestamp_ms", f"{header.timestamp_ms}, before the median {median} of the blocks below", **place)

    def check_transactions(self, header, transactions):
        if not transactions:
            raise Fault("transactions", "a block holds at least one", block=header.height)
        tree = Tree()
        for position, transaction in enumerate(transactions):
            tree.add(self.check_transaction(header.height, position, transaction))
        if tree.root() != header.transactions_root:
            raise Fault("transactions_root", "not the Merkle root of the transactions", block=header.height)

    def check_transaction(self, height, position, transaction):
        """Checks one transaction and returns its leaf."""
        place = {"block": height, "transaction": position}
        if not isinstance(transaction, dict):
            raise Fault("transactions", "not an object", **place)
        if "pruned" in transaction:
            shape = {"key_id": str, "sequence": int, "content_hash": str, "pruned": bool}
            key_id, sequence, content_hash, pruned = take(transaction, shape, "transaction", **place)
            if not pruned:
                raise Fault("pruned", "is said only where it is true", **place)
            key_id = unhex(key_id, 32, "key_id", **place)
            if key_id == ZERO_HASH and height > 0 and not self.rules["unsigned"]:
                raise Fault("key_id", "unsigned, which the genesis rules of this chain do not allow", **place)
            content_hash = unhex(content_hash, 32, "content_hash", **place)
            self.pruned += 1
        else:
            shape = {"key_id": str, "sequence": int, "payload": str, "signature": str}
            key_id, sequence, payload, signature = take(transaction, shape, "transaction", **place)
            key_id = unhex(key_id, 32, "key_id", **place)
            payload, signature = decode_content(payload, signature, place)
            content_hash = content_hash_of(payload, signature)
            self.check_signature(height, key_id, payload, signature, place)
            self.check_id(key_id, payload if key_id != ZERO_HASH else content_hash, place)
        expected = self.next_sequence.get(key_id, 0)
        if sequence != expected:
            raise Fault("sequence", f"{sequence}, the next of this key is {expected}", **place)
        self.next_sequence[key_id] = expected + 1
        self.transactions += 1
        return key_id + unsigned(8, sequence) + content_hash

    def check_signature(self, height, key_id, payload, signature, place):
        if key_id == ZERO_HASH:
            if height == 0:
                return
            if not self.rules["unsigned"]:
                raise Fault("key_id", "unsigned, which the genesis rules of this chain do not allow", **place)
            if len(signature) != 16:
                raise Fault("signature", f"{len(signature)} bytes; an unsigned transaction has 16 random ones", **place)
            return
        key = self.keys.get(key_id)
        if key is None:
            raise Fault("key_id", "no key line before it has this key", **place)
        why_not = verify(key, signature, payload)
        if why_not:
            raise Fault("signature", why_not, **place)

    def check_id(self, key_id, identified_by, place):
        transaction_id = id_of(key_id, identified_by)
        if transaction_id in self.ids:
            raise Fault("id", f"{transaction_id.hex()} is already on the chain", **place)
        self.ids.add(transaction_id)

    def check_end(self):
        if self.tip is None:
            raise Fault("export", "it holds no block")
        _, tip, height = self.promised
        if height != self.history.size - 1:
            raise Fault("height", f"the first line says {height}, the last block has {self.history.size - 1}")
        if tip != self.tip:
            raise Fault("tip", f"the first line says {tip.hex()}, the last block is {self.tip.hex()}")


def verify_export(lines):
    """Checks an export: a path, or its lines as bytes.

    Returns:
        Verifier: what was read: ``tip``, ``transactions``, ``pruned``, ``rules``, ``keys``.

    Raises:
        Fault: the first thing that is wrong.
        OSError: the file cannot be read.
    """
    verifier = Verifier()
    if isinstance(lines, (str, os.PathLike)):
        with open(lines, "rb") as export:
            verifier.read(export)
    else:
        verifier.read(lines)
    return verifier


# Paths and consistency (RFC 9162 sections 2.1.3.2 and 2.1.4.2, step by step) -------------------------------------


def climb(steps, first, last, step):
    """Goes from a leaf of a tree up to its root, a hash of the path a step.

    `first` is the place of the leaf and `last` that of the last leaf, both of the level that the path begins at. `step` is
    told the hash, and whether it stands to the left.
    """
    for hash_ in steps:
        if last == 0:
            raise ValueError("the path has a hash too many")
        is_left = first & 1 == 1 or first == last
        step(hash_, is_left)
        if is_left:
            while first & 1 == 0 and first != 0:
                first, last = first >> 1, last >> 1
        first, last = first >> 1, last >> 1
    if last != 0:
        raise ValueError("the path has a hash too few")


def check_inclusion(leaf, index, size, path, root):
    """Raises a ValueError unless the leaf stands at this place of the tree with this size and root."""
    if index >= size:
        raise ValueError(f"place {index} is outside of a tree of {size}")
    reached = [sha256(b"\x00" + leaf)]

    def step(hash_, is_left):
        reached[0] = node(hash_, reached[0]) if is_left else node(reached[0], hash_)

    climb(path, index, size - 1, step)
    if reached[0] != root:
        raise ValueError(f"the path leads to {reached[0].hex()}, not to the root {root.hex()}")


def check_consistency(old_size, old_root, new_size, new_root, path):
    """Raises a ValueError unless the tree of the new size and root begins with the one of the old size and root."""
    if old_size == 0:
        # Every tree begins with the empty one, which needs no path.
        if path or old_root != EMPTY_ROOT:
            raise ValueError("from no block on there is no path, and the root is that of no block")
        return
    if old_size > new_size:
        raise ValueError(f"{new_size} blocks cannot begin with {old_size}")
    if old_size == new_size:
        if path or old_root != new_root:
            raise ValueError("of one size there is one root, and no path")
        return
    if old_size & (old_size - 1) == 0:
        path = [old_root, *path]
    if not path:
        raise ValueError("the path is empty")
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    reached = [path[0], path[0]]

    def step(hash_, is_left):
        if is_left:
            reached[:] = [node(hash_, old) for old in reached]
        else:
            reached[1] = node(reached[1], hash_)

    climb(path[1:], first, last, step)
    if reached != [old_root, new_root]:
        raise ValueError("the path does not lead to both roots")


# Signed notes, checkpoints (c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature) ------------------------------

NOTE_SIZE_MAX = 128 << 10
NOTE_SIGNATURES_MAX = 64
CHECKPOINT_SIZE_MAX = 4096
KEY_NAME_SIZE_MAX = 255
LOG, COSIGNER = 1, 4
# What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")


def is_key_name(name):
    return 1 <= len(name.encode("utf-8")) <= KEY_NAME_SIZE_MAX and not any(
        character == "+" or character.isspace() or unicodedata.category(character) == "Cc" for character in name
    )


class NoteKey:
    """A named key that verifies notes: `NAME+HASH+BASE64`."""

    def __init__(self, text):
        name, plus, rest = text.partition("+")
        key_hash, also_plus, encoded = rest.partition("+")
        if not plus or not also_plus:
            raise ValueError("not a verifier key NAME+HASH+BASE64")
        raw = decode_base64(encoded)
        if len(raw) != 33 or raw[0] not in (LOG, COSIGNER):
            raise ValueError("not an Ed25519 key of type 1 (log) or 4 (witness)")
        if not is_key_name(name):
            raise ValueError("not the name of a key")
        self.name, self.kind, self.raw = name, raw[0], raw[1:]
        self.key = load_key(ED25519_SPKI + self.raw)
        self.hash = sha256(name.encode("utf-8") + b"\n" + raw)[:4]
        if key_hash != self.hash.hex():
            raise ValueError(f"the hash in the verifier key is not {self.hash.hex()}, as its name and key give")


class Note:
    """A text and the signatures under it, each a name, a key's hash and bytes. None is verified yet."""

    def __init__(self, note):
        if len(note.encode("utf-8")) > NOTE_SIZE_MAX:
            raise ValueError("a note that is too large")
        if any(character < " " and character != "\n" for character in note):
            raise ValueError("a control character in a note")
        text, gap, signatures = note.rpartition("\n\n")
        if not gap or not signatures.endswith("\n"):
            raise ValueError("not a signed note: a text, an empty line, lines of signatures")
        self.text = text + "\n"
        self.signatures = [self.read_signature(line) for line in signatures[:-1].split("\n")]
        if len(self.signatures) > NOTE_SIGNATURES_MAX:
            raise ValueError("a note with too many signatures")

    @staticmethod
    def read_signature(line):
        match = re.fullmatch(r"— ([^ ]+) ([^ ]+)", line)
        if not match or not is_key_name(match[1]):
            raise ValueError("not a line of a signature: — NAME BASE64")
        signature = decode_base64(match[2])
        if len(signature) < 5:
            raise ValueError("a signature without bytes")
        return match[1], signature[:4], signature[4:]

    def signatures_of(self, key):
        return [signature for name, hash_, signature in self.signatures if (name, hash_) == (key.name, key.hash)]

    def is_signed_by_log(self, key):
        """Returns whether the log signed; a signature in its name that is not its raises a ValueError."""
        signatures = self.signatures_of(key)
        for signature in signatures:
            if verify(key.key, signature, self.text.encode("utf-8")):
                raise ValueError(f"the signature in the name of {key.name} is not its own")
        return bool(signatures)

    def cosigned_at(self, key):
        """Returns the latest time, in seconds since 1970, at which the witness says it signed; None where it did not."""
        times = []
        for signature in self.signatures_of(key):
            time = int.from_bytes(signature[:8], "big")
            message = f"cosignature/v1\ntime {time}\n{self.text}".encode("utf-8")
            if len(signature) != 72 or time >= 1 << 63 or verify(key.key, signature[8:], message):
                raise ValueError(f"the cosignature in the name of {key.name} is not its own")
            times.append(time)
        return max(times, default=None)


class Checkpoint:
    """The text of a note that says how large a log is: origin, size, root, perhaps more lines."""

    def __init__(self, text):
        origin, *lines = text[:-1].split("\n")
        if len(text.encode("utf-8")) > CHECKPOINT_SIZE_MAX or len(lines) < 2 or not all([origin, *lines]):
            raise ValueError("not a checkpoint: lines of origin, size and root, none empty")
        self.origin = origin
        self.size = decimal(lines[0])
        self.root = decode_base64(lines[1])
        if len(self.root) != 32:
            raise ValueError("the root of the checkpoint is not 32 bytes in base64")


def decimal(text):
    if not re.fullmatch(r"0|[1-9][0-9]{0,19}", text) or int(text) >= 1 << 64:
        raise ValueError(f"not a number below 2^64, without leading zeros: {text[:40]!r}")
    return int(text)


def origin_of(genesis):
    return f"liotbchain/{genesis.hex()}"


# Policies (c2sp.org/tlog-policy) ---------------------------------------------------------------------------------


class Policy:
    """Which logs and witnesses to trust, and how many of the witnesses must have cosigned."""

    def __init__(self, text):
        self.logs, self.witnesses = [], []
        self.free = {}  # what a name stands for, until a group or the quorum takes it
        self.quorum = None
        self.has_quorum = False
        lines = text.split("\n")
        if len(text.encode("utf-8")) > 256 << 10 or len(lines) > 1000:
            raise ValueError("a policy that is too large")
        for number, line in enumerate(lines, 1):
            try:
                self.read_line(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
        if not self.has_quorum:
            raise ValueError("no line says which quorum is needed")

    def read_line(self, line):
        if any((character < " " and character != "\t") or character == "\x7f" for character in line):
            raise ValueError("a control character")
        words = re.split(r"[ \t]+", line.strip(" \t"))
        if words == [""] or words[0].startswith("#"):
            return
        kind, *rest = words
        if kind == "log" and len(rest) in (1, 2):
            self.add_key(self.logs, rest[0], LOG)
        elif kind == "witness" and len(rest) in (2, 3):
            self.add_key(self.witnesses, rest[1], COSIGNER)
            witness = self.witnesses[-1]
            self.define(rest[0], lambda cosigned: witness in cosigned)
        elif kind == "group" and len(rest) >= 2:
            name, threshold, *names = rest
            needed = {"all": len(names), "any": 1}.get(threshold)
            needed = decimal(threshold) if needed is None else needed
            if not 1 <= needed <= len(names):
                raise ValueError("a number of members that is none, or more than there are")
            members = [self.take(member) for member in names]
            self.define(name, lambda cosigned: sum(member(cosigned) for member in members) >= needed)
        elif kind == "quorum" and len(rest) == 1 and not self.has_quorum:
            self.quorum = None if rest[0] == "none" else self.take(rest[0])
            self.has_quorum = True
        else:
            raise ValueError("not a line of log, witness, group or quorum, or a second quorum")

    def add_key(self, keys, text, kind):
        key = NoteKey(text)
        if key.kind != kind:
            raise ValueError("a witness's key where a log's belongs, or the other way round")
        if any(other.raw == key.raw for other in keys):
            raise ValueError("one key twice")
        keys.append(key)

    def define(self, name, is_reached):
        if name == "none" or name in self.free:
            raise ValueError(f"{name} stands there twice, or is none")
        self.free[name] = is_reached

    def take(self, name):
        """Each name counts in one place, so that no witness counts twice."""
        is_reached = self.free.get(name)
        if is_reached is None:
            raise ValueError(f"{name} is not defined above, or was used before")
        self.free[name] = None
        return is_reached

    def check(self, note):
        """Returns whether a log of the policy signed, and each witness that cosigned with its time; or a ValueError."""
        origin = Checkpoint(note.text).origin
        logs = [key for key in self.logs if key.name == origin]
        by_log = any([note.is_signed_by_log(key) for key in logs])
        if self.logs and not by_log:
            raise ValueError(f"no log of the policy signed the checkpoint of {origin}")
        times = {key: note.cosigned_at(key) for key in self.witnesses}
        cosigned = {key: time for key, time in times.items() if time is not None}
        if self.quorum and not self.quorum(cosigned):
            raise ValueError(f"too few witnesses of the policy cosigned: {len(cosigned)}")
        return by_log, [(key.name, time) for key, time in cosigned.items()]


# Reading proof files ---------------------------------------------------------------------------------------------

PROOF_SIZE_MAX = 64 << 20
TLOG_PROOF = "c2sp.org/tlog-proof@v1"


def read_object(value, where, required, optional=()):
    """Returns the values of an object with exactly these keys, each as its reader reads it; None for one that is missing."""
    if type(value) is not dict:
        raise Fault(where, "not an object")
    optional = dict(optional)
    for name in required.keys() - value.keys():
        raise Fault(f"{where}.{name}", "is missing")
    readers = {**required, **optional}
    for name in value.keys() - readers.keys():
        raise Fault(where, f"the key {name!r} is unknown")
    return {
        name: read(value[name], f"{where}.{name}") if name in value else None for name, read in readers.items()
    }


def number_of(bits):
    def read(value, where):
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise Fault(where, f"not a whole number from 0, below 2^{bits}")
        return value

    return read


def list_of(read):
    def read_list(value, where):
        if type(value) is not list:
            raise Fault(where, "not a list")
        return [read(item, f"{where}[{place}]") for place, item in enumerate(value)]

    return read_list


def text_as(decode):
    """Reads a string by a function that raises a ValueError where the string is not what it should be."""

    def read(value, where):
        if type(value) is not str:
            raise Fault(where, "not a string")
        try:
            return decode(value)
        except Fault:
            raise
        # Also where a string stands for a lone surrogate, which has no UTF-8.
        except ValueError as error:
            raise Fault(where, str(error)) from None

    return read


def decode_path_hash(text):
    decoded = decode_base64(text)
    if len(decoded) != 32:
        raise ValueError(f"{len(decoded)} bytes, expected 32")
    return decoded


def decode_public_key(pem):
    der = decode_pem(pem)
    return sha256(der), load_key(der)


def read_hash(value, where):
    return text_as(lambda text: unhex(text, 32, where))(value, where)


def read_header(value, where):
    header = Header(text_as(lambda text: unhex(text, HEADER_SIZE, where))(value, where))
    if header.version != VERSION:
        raise Fault(where, f"version {header.version}, known is {VERSION}")
    return header


def read_word(word):
    def read(value, where):
        if type(value) is not type(word) or value != word:
            raise Fault(where, f"expected {word!r}")

    return read


def read_true(value, where):
    if value is not True:
        raise Fault(where, "is said only where it is true")


read_path = list_of(text_as(decode_path_hash))
read_text = text_as(lambda text: text.encode("utf-8").decode("utf-8"))
read_note = text_as(Note)
read_public_key = text_as(decode_public_key)


def read_transaction(value, where):
    shape = {"key_id": read_hash, "sequence": number_of(64)}
    if type(value) is dict and "pruned" in value:
        shape.update(content_hash=read_hash, pruned=read_true)
    else:
        shape.update(payload=read_text, signature=read_text)
    return read_object(value, where, shape)


def read_entry(value, where):
    shape = {"position": number_of(32), "path": read_path, "transaction": read_transaction}
    return read_object(value, where, shape)


def read_block(value, where):
    shape = {"header": read_header, "transactions": number_of(32), "entries": list_of(read_entry)}
    return read_object(value, where, shape, {"history_path": read_path})


def read_anchor(value, where):
    shape = {"size": number_of(64), "genesis_path": read_path}
    return read_object(value, where, shape, {"header": read_header, "checkpoint": read_note})


def read_proof(record):
    """Reads a proof file's JSON, of whichever kind it is."""
    kind = record.get("type")
    shapes = {
        "receipt": ({"block": read_block, "anchor": read_anchor}, {"public_key": read_public_key}),
        "block": ({"block": read_block, "anchor": read_anchor}, {}),
        "key_history": (
            {
                "key_id": read_hash,
                "from": number_of(32),
                "to": number_of(32),
                "blocks": list_of(read_block),
                "anchor": read_anchor,
            },
            {"public_key": read_public_key},
        ),
        "consistency": ({"from": read_anchor, "to": read_anchor, "path": read_path}, {"header_path": read_path}),
    }
    if type(kind) is not str or kind not in shapes:
        raise Fault("type", f"{str(kind)[:40]!r} is no kind of proof file")
    required, optional = shapes[kind]
    common = {"type": read_word(kind), "version": read_word(VERSION), "genesis": read_hash}
    return kind, read_object(record, kind, {**common, **required}, optional)


def parse_json(text):
    try:
        value = json.loads(text, object_pairs_hook=strict_object, parse_int=strict_integer)
    except (ValueError, RecursionError) as error:
        raise Fault("file", f"not JSON: {error}") from None
    if type(value) is not dict:
        raise Fault("file", "not a JSON object")
    return value


def parse_tlog_proof(text):
    """Reads a c2sp.org/tlog-proof whose `extra` is a receipt, and returns the receipt as one JSON object."""
    head, gap, checkpoint = text.partition("\n\n")
    first, *lines = head.split("\n")
    if not gap or first != TLOG_PROOF:
        raise Fault("line 1", f"not {TLOG_PROOF}, or no empty line behind the path")
    if len(lines) < 2 or not lines[0].startswith("extra ") or not lines[1].startswith("index "):
        raise Fault("line 2", "expected lines of extra and index")
    try:
        extra = decode_base64(lines[0][len("extra ") :]).decode("utf-8")
        index = decimal(lines[1][len("index ") :])
        for line in lines[2:]:
            decode_path_hash(line)
    except ValueError as error:
        raise Fault("tlog-proof", str(error)) from None
    if len(lines) > 2 + 64:
        raise Fault("tlog-proof", "more than 64 hashes")
    record = parse_json(extra)
    kind, receipt = read_proof(record)
    if kind != "receipt" or receipt["block"]["history_path"] is not None or receipt["anchor"]["checkpoint"] is not None:
        raise Fault("extra", "expected a receipt without history_path and checkpoint")
    if receipt["block"]["header"].height != index:
        raise Fault("index", f"{index}, the block's height is {receipt['block']['header'].height}")
    record["block"]["history_path"] = lines[2:]
    record["anchor"]["checkpoint"] = checkpoint
    return record


# What proof files prove ------------------------------------------------------------------------------------------


class AnchoredTree:
    """What an anchor names: so many blocks, their root, and what holds it."""

    is_below_block = False  # whether a block of the proof is not in the tree, but the one right above it

    def __init__(self, anchor, genesis):
        self.size, self.header, self.note = anchor["size"], anchor["header"], anchor["checkpoint"]
        roots = []
        if self.header:
            check_work(self.header)
            if self.header.height != self.size:
                raise Fault("anchor.header", f"height {self.header.height}, the history has {self.size} blocks")
            roots.append(self.header.history_root)
        if self.note:
            checkpoint = checkpoint_of(self.note)
            if (checkpoint.origin, checkpoint.size) != (origin_of(genesis), self.size):
                raise Fault("anchor.checkpoint", "of another chain, or of another number of blocks")
            roots.append(checkpoint.root)
        if not roots:
            raise Fault("anchor", "neither a header nor a checkpoint")
        if roots[0] != roots[-1]:
            raise Fault("anchor", "header and checkpoint name different roots")
        self.root = roots[0]
        if self.size == 0:
            # Nothing is in the tree; that it is this chain's beginning only its first header shows.
            if anchor["genesis_path"] or not self.header or self.header.hash != genesis:
                raise Fault("anchor", "no block, and not the genesis block above it")
        else:
            self.check_block(genesis, 0, anchor["genesis_path"], "genesis")

    def check_block(self, block_hash, height, path, where):
        try:
            check_inclusion(block_hash, height, self.size, path, self.root)
        except ValueError as error:
            raise Fault(where, f"not in the history that the proof ends in: {error}", block=height) from None


def checkpoint_of(note):
    try:
        return Checkpoint(note.text)
    except ValueError as error:
        raise Fault("checkpoint", str(error)) from None


def check_work(header):
    """Checks a header's work as far as it shows by itself: which difficulty the chain asks for, it does not."""
    if header.height == 0:
        return
    if header.bits not in [bits_of(difficulty) for difficulty in range(DIFFICULTY_MAX + 1)]:
        raise Fault("bits", f"{header.bits:#010x} is no target that a chain may have", block=header.height)
    if int.from_bytes(header.hash, "big") > target_of(header.bits):
        raise Fault("hash", "above the target: no proof of work", block=header.height)


def check_block_in(tree, block, public_key):
    """Checks that a block is in a tree, and its shown transactions in it with good signatures. Returns their ids."""
    header = block["header"]
    check_work(header)
    if block["history_path"] is not None:
        tree.check_block(header.hash, header.height, block["history_path"], "history_path")
    # Without a path the block is the one above the tree. No checkpoint of the tree says anything about it.
    elif tree.note or not tree.header or tree.header.hash != header.hash:
        raise Fault("history_path", "is missing, and the proof does not end in this block's own header", block=header.height)
    else:
        tree.is_below_block = True
    return [check_entry(header, block["transactions"], entry, public_key) for entry in block["entries"]]


def check_entry(header, size, entry, public_key):
    place = {"block": header.height, "transaction": entry["position"]}
    transaction = entry["transaction"]
    key_id = transaction["key_id"]
    if public_key and public_key[0] != key_id:
        raise Fault("public_key", "it is not the key of the transaction", **place)
    transaction_id = None
    if "pruned" in transaction:
        content_hash = transaction["content_hash"]
    else:
        payload, signature = decode_content(transaction["payload"], transaction["signature"], place)
        content_hash = content_hash_of(payload, signature)
        if key_id == ZERO_HASH:
            size_expected = 0 if header.height == 0 else 16
            why_not = None if len(signature) == size_expected else f"{len(signature)} bytes where nobody signed"
        elif not public_key:
            raise Fault("public_key", "is missing", **place)
        else:
            why_not = verify(public_key[1], signature, payload)
        if why_not:
            raise Fault("signature", why_not, **place)
        transaction_id = id_of(key_id, content_hash if key_id == ZERO_HASH else payload)
    leaf = key_id + unsigned(8, transaction["sequence"]) + content_hash
    try:
        check_inclusion(leaf, entry["position"], size, entry["path"], header.transactions_root)
    except ValueError as error:
        raise Fault("path", f"not in its block: {error}", **place) from None
    return transaction_id


class Proof:
    """What a proof file proved, once it was checked without a fault.

    `kind` is receipt, block, key_history, consistency or checkpoint; `lines` say in words what is proven. `tree` is what the
    proof ends in: its `size`, `root`, `header` and `note`.
    """

    def __init__(self, kind, genesis, tree, lines, earlier=None, transaction=None):
        self.kind, self.genesis, self.tree, self.lines = kind, genesis, tree, lines
        self.earlier = earlier  # of a consistency file: the tree that it goes on from
        self.transaction = transaction
        self.by_log, self.cosigned = False, []


def prove_receipt(record):
    tree = AnchoredTree(record["anchor"], record["genesis"])
    block = record["block"]
    if len(block["entries"]) != 1:
        raise Fault("entries", f"{len(block['entries'])} transactions, a receipt shows 1")
    [transaction_id] = check_block_in(tree, block, record["public_key"])
    transaction = block["entries"][0]["transaction"]
    lines = [place_of(block["header"])]
    if transaction["key_id"] == ZERO_HASH:
        lines.append("signed by nobody")
    elif transaction_id is None:
        lines.append(f"of key {transaction['key_id'].hex()}, as the block says: the signature was pruned")
    else:
        lines.append(f"signed by key {transaction['key_id'].hex()}: whose key that is, the file does not say")
    if transaction_id is not None:
        lines.append(f"transaction {transaction_id.hex()}: {transaction['payload'][:400]}")
    return Proof("receipt", record["genesis"], tree, lines, transaction=transaction_id)


def prove_block(record):
    tree = AnchoredTree(record["anchor"], record["genesis"])
    if record["block"]["entries"]:
        raise Fault("entries", "the proof of a block shows no transactions")
    check_block_in(tree, record["block"], None)
    return Proof("block", record["genesis"], tree, [place_of(record["block"]["header"])])


def prove_key_history(record):
    tree = AnchoredTree(record["anchor"], record["genesis"])
    key_id, first, last = record["key_id"], record["from"], record["to"]
    if first > last:
        raise Fault("from", f"{first}, above to, which is {last}")
    if record["public_key"] and record["public_key"][0] != key_id:
        raise Fault("public_key", "it is not the key of the history")
    heights = [block["header"].height for block in record["blocks"]]
    if heights != sorted(set(heights)):
        raise Fault("blocks", "not in the order of their heights, or one twice")
    shown = []
    for block, height in zip(record["blocks"], heights):
        ids = check_block_in(tree, block, record["public_key"])
        positions = [entry["position"] for entry in block["entries"]]
        if not positions or positions != sorted(set(positions)):
            raise Fault("entries", "none, not in the order of their positions, or one twice", block=height)
        for entry, id_ in zip(block["entries"], ids):
            if entry["transaction"]["key_id"] != key_id:
                raise Fault("key_id", "of another key", block=height, transaction=entry["position"])
            shown.append((height, entry["transaction"]["sequence"], id_))
    numbers = [number for _, number, _ in shown]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
        raise Fault("sequence", "a number of the key is missing, or one stands there twice")
    if numbers and numbers[0] != 0 and shown[0][0] >= first:
        raise Fault("sequence", f"the first shown is {numbers[0]}, and none below block {first} proves what came before")
    before = [it for it in shown if it[0] < first]
    behind = [it for it in shown if it[0] > last]
    inside = [it for it in shown if first <= it[0] <= last]
    if len(before) > 1 or len(behind) > 1:
        raise Fault("blocks", "more than one transaction before or behind the part that was asked for")
    lines = [f"{len(inside)} transactions of key {key_id.hex()} from block {first} to {last}"]
    if inside:
        lines[0] += f", numbers {inside[0][1]} to {inside[-1][1]}"
        pruned = sum(id_ is None for _, _, id_ in inside)
        lines[0] += f", {pruned} of them pruned" if pruned else ""
    if behind:
        lines.append("none of the key that was sealed there is missing: the next one stands above")
    elif inside:
        lines.append(f"none before these is missing; whether one follows, in block {inside[-1][0]} or above, is not proven")
    else:
        lines.append("that there is no more is not proven: nothing of the key stands above")
    lines.append("not proven: that no number was given twice, which only who checks every block sees")
    return Proof("key_history", record["genesis"], tree, lines)


def prove_consistency(record):
    old, new = AnchoredTree(record["from"], record["genesis"]), AnchoredTree(record["to"], record["genesis"])
    try:
        check_consistency(old.size, old.root, new.size, new.root, record["path"])
    except ValueError as error:
        raise Fault("path", str(error)) from None
    if record["header_path"] is not None:
        if not old.header:
            raise Fault("header_path", "the header that it belongs to is missing")
        new.check_block(old.header.hash, old.size, record["header_path"], "header_path")
    lines = [f"the history of {new.size} blocks begins with that of {old.size} blocks, root {old.root.hex()}"]
    lines.append("not proven: that either is the one shown to others; no signature in this file was looked at")
    return Proof("consistency", record["genesis"], new, lines, earlier=old)


class ClaimedTree:
    """What a checkpoint alone names."""

    is_below_block = False

    def __init__(self, note, checkpoint):
        self.size, self.root, self.header, self.note = checkpoint.size, checkpoint.root, None, note


def prove_checkpoint(note):
    checkpoint = checkpoint_of(note)
    match = re.fullmatch(r"liotbchain/([0-9a-f]{64})", checkpoint.origin)
    lines = [f"{checkpoint.origin} has {checkpoint.size} blocks, if who signed it is to be believed"]
    genesis = bytes.fromhex(match[1]) if match else None
    return Proof("checkpoint", genesis, ClaimedTree(note, checkpoint), lines)


def place_of(header):
    time = time_of(header.timestamp_ms / 1000)
    return f"in block {header.height}, hash {header.hash.hex()}, made at {time}, as its maker says"


def time_of(seconds):
    try:
        time = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def verify_proof(data):
    """Checks a proof file by itself: a path, or its bytes.

    Whom its checkpoint is signed by, and whether it is of the chain that you mean, :meth:`Known.check` compares with what
    you know.

    Returns:
        Proof: what it proves.

    Raises:
        Fault: the first thing that is wrong.
        OSError: the file cannot be read.
    """
    if isinstance(data, (str, os.PathLike)):
        with open(data, "rb") as file:
            data = file.read(PROOF_SIZE_MAX + 1)
    if len(data) > PROOF_SIZE_MAX:
        raise Fault("file", "larger than any proof")
    try:
        text = data.decode("utf-8")
    except ValueError:
        raise Fault("file", "not UTF-8") from None
    if text.startswith(TLOG_PROOF):
        record = parse_tlog_proof(text)
    elif text.lstrip().startswith("{"):
        record = parse_json(text)
    else:
        return prove_checkpoint(text_as(Note)(text, "neither a proof file nor a checkpoint"))
    kind, record = read_proof(record)
    prove = {
        "receipt": prove_receipt,
        "block": prove_block,
        "key_history": prove_key_history,
        "consistency": prove_consistency,
    }
    return prove[kind](record)


class Known:
    """What you know from elsewhere: which chain it should be, whom to trust, and a checkpoint that you kept."""

    def __init__(self, genesis=None, policy=None, checkpoint=None):
        self.genesis, self.policy, self.checkpoint = genesis, policy, checkpoint
        self.links = []

    def add_link(self, proof):
        """Takes a consistency file into account when other files are compared with the checkpoint."""
        ends = (proof.earlier, proof.tree)
        self.links.append(tuple((tree.size, tree.root) for tree in ends))

    def check(self, proof):
        """Raises a Fault where a proof contradicts what is known, or does not reach it."""
        if self.genesis and proof.genesis != self.genesis:
            raise Fault("genesis", f"it is not of the chain {self.genesis.hex()}, which you asked for")
        # A link between two histories: its ends are compared with the checkpoints of the other files.
        if proof.kind == "consistency":
            return
        if self.checkpoint:
            self.check_history(proof.genesis, proof.tree)
        if self.policy:
            if not proof.tree.note:
                raise Fault("anchor", "it ends in a header alone, which nobody signed: the policy asks for a checkpoint")
            try:
                proof.by_log, proof.cosigned = self.policy.check(proof.tree.note)
            except ValueError as error:
                raise Fault("checkpoint", str(error)) from None

    def check_history(self, genesis, tree):
        kept = self.checkpoint
        if genesis is None or kept.origin != origin_of(genesis):
            raise Fault("checkpoint", "your checkpoint is of another chain")
        if tree.is_below_block:
            raise Fault("anchor", "its block stands above the history that it ends in: get a newer proof of it")
        ours, theirs = (kept.size, kept.root), (tree.size, tree.root)
        if ours[0] == theirs[0] and ours != theirs:
            raise Fault("root", f"A FORK: two histories of {ours[0]} blocks were shown, this one and your checkpoint's")
        if ours != theirs and not self.leads(ours, theirs) and not self.leads(theirs, ours):
            small, large = sorted([ours[0], theirs[0]])
            hint = f"get /v1/proofs/consistency?from={small}&to={large} and give it as another file"
            raise Fault("anchor", f"nothing proves that its history and that of your checkpoint are one: {hint}")

    def leads(self, start, end):
        reached = [start]
        for here in reached:
            reached += [new for old, new in self.links if old == here and new not in reached]
        return end in reached

    def check_export(self, verifier):
        if self.genesis and verifier.promised[0] != self.genesis:
            raise Fault("genesis", f"it is not the chain {self.genesis.hex()}, which you asked for")
        if self.checkpoint:
            if self.checkpoint.origin != origin_of(verifier.promised[0]):
                raise Fault("checkpoint", "your checkpoint is of another chain")
            if verifier.kept_root is None:
                raise Fault("export", f"it is older than your checkpoint, which has {self.checkpoint.size} blocks")
            if verifier.kept_root != self.checkpoint.root:
                raise Fault("root", f"A FORK: its first {self.checkpoint.size} blocks are not those of your checkpoint")


# The command -----------------------------------------------------------------------------------------------------


def is_export(path):
    """Whether a file begins as an export does, or is the export of nothing at all."""
    with open(path, "rb") as file:
        first = file.readline()
        try:
            # The proof of a block is of type block too, and has an anchor.
            record = read_line(1, first)
            return record.get("type") in ("chain", "key", "end") or record.keys() >= {"hash", "transactions"}
        except Fault:
            # An export in which the first line is at fault goes on with others.
            return not first or file.readline().startswith(b'{"')


def verify_file(path, known):
    """Checks an export or a proof file by itself."""
    if is_export(path):
        verifier = Verifier(known.checkpoint.size if known.checkpoint else None)
        with open(path, "rb") as lines:
            verifier.read(lines)
        return verifier
    return verify_proof(path)


def describe_export(verifier):
    lines = [
        f"valid: {verifier.history.size} blocks, {verifier.transactions} transactions, tip {verifier.tip.hex()}, "
        f"network {verifier.rules['network']!r}, {len(verifier.keys)} keys"
    ]
    if verifier.pruned:
        lines.append(f"{verifier.pruned} transactions are pruned: their signatures and duplicates could not be checked")
    return lines


def describe_proof(proof, known):
    kind = proof.kind.replace("_", " ")
    lines = [f"valid: {kind} of chain {proof.genesis.hex()}" if proof.genesis else f"valid: {kind} of another log"]
    lines += [f"  {line}" for line in proof.lines]
    if proof.kind == "consistency":
        return lines
    lines.append(f"  ends in the history of {proof.tree.size} blocks, root {proof.tree.root.hex()}")
    if proof.by_log:
        lines.append("  signed by the log that the policy names")
    for name, seconds in proof.cosigned:
        lines.append(f"  cosigned by {name} at {time_of(seconds)}: it stood there no later than that")
    if proof.tree.note and not known.policy:
        lines.append("  no signature under the checkpoint was looked at: --policy FILE names the keys to ask for")
    if not proof.cosigned:
        lines.append("  not proven: that others were shown the same history, for no witness vouches for it")
    return lines


def printable(line):
    return "".join(it if it.isprintable() else it.encode("unicode_escape", "replace").decode() for it in line)


def read_known(options):
    """Reads what the options name. A ValueError says what is wrong with it."""

    def read(path, kind):
        with open(path, "rb") as file:
            text = file.read(PROOF_SIZE_MAX)
        try:
            return kind(text.decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    known = Known(genesis=options.genesis, policy=options.policy and read(options.policy, Policy))
    if options.checkpoint:
        note = read(options.checkpoint, Note)
        try:
            if known.policy:
                known.policy.check(note)
            known.checkpoint = Checkpoint(note.text)
        except ValueError as error:
            raise ValueError(f"{options.checkpoint}: {error}") from None
    return known


def hash_option(text):
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("expected 64 hexadecimal digits")
    return bytes.fromhex(text)


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="python3 -m liotbchain.verify", description="Checks exports, receipts, proofs and checkpoints, alone."
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--genesis", type=hash_option, metavar="HASH", help="the chain that all must be of")
    parser.add_argument("--policy", metavar="FILE", help="whose signatures are asked for (c2sp.org/tlog-policy)")
    parser.add_argument("--checkpoint", metavar="FILE", help="a checkpoint you kept: all must be of the same history")
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code
    results = []
    try:
        known = read_known(options)
        for path in options.files:
            try:
                results.append((path, verify_file(path, known)))
            except Fault as fault:
                results.append((path, fault))
    except (OSError, ValueError) as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 1
    # First, since another file may rest on them.
    for _, result in results:
        if isinstance(result, Proof) and result.kind == "consistency":
            known.add_link(result)
    code = 0
    for path, result in results:
        try:
            if isinstance(result, Fault):
                raise result
            if isinstance(result, Verifier):
                known.check_export(result)
                lines = describe_export(result)
            else:
                known.check(result)
                lines = describe_proof(result, known)
        except Fault as fault:
            code, lines = 3, [f"invalid: {fault}"]
        name = f"{path}: " if len(results) > 1 else ""
        print("\n".join(printable(line) for line in [name + lines[0], *lines[1:]]))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
