"""Checks an exported chain with SHA-256 and a signature library alone.

Written from the description of the chain format, importing nothing of this project, so that it is a second
opinion on what the Rust program says. docs/verify-by-hand.md walks through the same steps. This one file, and the package
`cryptography` for the signatures, is all that it takes:

    python3 -m liotbchain.verify chain.ndjson
    python3 verify.py chain.ndjson

It prints what it checked and exits 0, or prints the first fault with its block, transaction and field and
exits 3. In a program, :func:`verify_export` does the same.

It does not check one thing: that the last block is not from the future, which only means something
at the moment a block arrives. And it cannot check what is not there: the signatures of pruned transactions, which
it counts, and whether somebody holds another, longer chain.
"""

import base64
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


def decode_pem(pem):
    match = re.fullmatch(
        r"-----BEGIN PUBLIC KEY-----\n((?:[A-Za-z0-9+/]{64}\n)*)([A-Za-z0-9+/=]{0,64}\n)-----END PUBLIC KEY-----\n", pem
    )
    if not match:
        raise ValueError("not a PUBLIC KEY in PEM, in lines of 64 characters")
    text = (match[1] + match[2]).replace("\n", "")
    der = base64.b64decode(text, validate=True)
    if base64.b64encode(der).decode() != text:
        raise ValueError("not canonical base64")
    return der


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
    """Reads an export line by line and remembers of the chain only what later blocks are checked against."""

    def __init__(self):
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
            payload, signature = self.decode_content(payload, signature, place)
            content_hash = sha256(
                unsigned(4, len(payload)) + payload + unsigned(2, len(signature)) + signature
            )
            self.check_signature(height, key_id, payload, signature, place)
            self.check_id(key_id, payload if key_id != ZERO_HASH else content_hash, place)
        expected = self.next_sequence.get(key_id, 0)
        if sequence != expected:
            raise Fault("sequence", f"{sequence}, the next of this key is {expected}", **place)
        self.next_sequence[key_id] = expected + 1
        self.transactions += 1
        return key_id + unsigned(8, sequence) + content_hash

    def decode_content(self, payload, signature, place):
        try:
            payload = payload.encode("utf-8")
        except UnicodeEncodeError:
            raise Fault("payload", "not UTF-8", **place) from None
        if not 1 <= len(payload) <= PAYLOAD_SIZE_MAX:
            raise Fault("payload", f"{len(payload)} bytes; allowed are 1 to {PAYLOAD_SIZE_MAX}", **place)
        try:
            decoded = base64.b64decode(signature, validate=True)
        # Also where a character is not ASCII.
        except ValueError as error:
            raise Fault("signature", f"not base64: {error}", **place) from None
        if base64.b64encode(decoded).decode() != signature:
            raise Fault("signature", "not canonical base64", **place)
        if len(decoded) > SIGNATURE_SIZE_MAX:
            raise Fault("signature", f"{len(decoded)} bytes; allowed are up to {SIGNATURE_SIZE_MAX}", **place)
        return payload, decoded

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
        transaction_id = sha256(b"liotbchain/tx/1" + key_id + identified_by)
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


def main(arguments):
    if len(arguments) != 1:
        print("usage: python3 -m liotbchain.verify FILE.ndjson", file=sys.stderr)
        return 2
    try:
        verifier = verify_export(arguments[0])
    except Fault as fault:
        print(f"invalid: {fault}")
        return 3
    except OSError as error:
        print(f"cannot read the export: {error}", file=sys.stderr)
        return 1
    print(
        f"valid: {verifier.history.size} blocks, {verifier.transactions} transactions, tip {verifier.tip.hex()}, "
        f"network {verifier.rules['network']!r}, {len(verifier.keys)} keys"
    )
    if verifier.pruned:
        print(f"{verifier.pruned} transactions are pruned: their signatures and duplicates could not be checked")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
