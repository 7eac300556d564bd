"""A log that a test plays: a tree of RFC 6962, its proofs, and an Ed25519 key that signs whatever it is told to."""

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def sha256(data):
    return hashlib.sha256(data).digest()


def b64(data):
    return base64.b64encode(data).decode()


def root_of(leaves):
    """MTH of RFC 6962, section 2.1, over the entries themselves."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0])
    split = split_of(len(leaves))
    return sha256(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:]))


def split_of(size):
    return 1 << ((size - 1).bit_length() - 1)


def consistency(old, leaves):
    """PROOF of RFC 6962, section 2.1.2."""

    def subproof(old, leaves, is_whole):
        if old == len(leaves):
            return [] if is_whole else [root_of(leaves)]
        split = split_of(len(leaves))
        if old <= split:
            return [*subproof(old, leaves[:split], is_whole), root_of(leaves[split:])]
        return [*subproof(old - split, leaves[split:], False), root_of(leaves[:split])]

    return [] if old in (0, len(leaves)) else subproof(old, leaves, True)


class Key:
    """A named Ed25519 key, as signed notes have it."""

    def __init__(self, name, kind=1):
        self.name, self.kind = name, kind
        self.private = Ed25519PrivateKey.generate()
        self.raw = self.private.public_key().public_bytes_raw()
        self.hash = sha256(name.encode() + b"\n" + bytes([kind]) + self.raw)[:4]

    @property
    def vkey(self):
        return f"{self.name}+{self.hash.hex()}+{b64(bytes([self.kind]) + self.raw)}"

    def line(self, text):
        return f"— {self.name} {b64(self.hash + self.private.sign(text.encode()))}\n"


class Log:
    """A log with some entries."""

    def __init__(self, name="log.example/test", leaves=()):
        self.name = name
        self.key = Key(name)
        self.leaves = list(leaves)

    def grow(self, count):
        self.leaves += [f"entry {len(self.leaves) + place}".encode() for place in range(count)]
        return self

    def checkpoint(self, size=None, root=None, extra=""):
        """Signs a checkpoint: the truth, unless a root is given."""
        size = len(self.leaves) if size is None else size
        text = f"{self.name}\n{size}\n{b64(root or root_of(self.leaves[:size]))}\n{extra}"
        return f"{text}\n{self.key.line(text)}"

    def proof(self, old, size=None):
        return consistency(old, self.leaves[: len(self.leaves) if size is None else size])

    def submission(self, old, size=None, **checkpoint):
        return body(old, self.proof(old, size), self.checkpoint(size, **checkpoint))


def body(old, proof, checkpoint):
    return f"old {old}\n" + "".join(b64(part) + "\n" for part in proof) + "\n" + checkpoint


def verify_cosignature(vkey, checkpoint, lines):
    """Verifies a witness's answer with nothing but the specification, and returns its time."""
    name, hash_, material = vkey.split("+", 2)
    material = base64.b64decode(material, validate=True)
    assert material[0] == 4
    raw = material[1:]
    assert bytes.fromhex(hash_) == sha256(name.encode() + b"\n\x04" + raw)[:4]
    assert lines.endswith("\n") and lines.count("\n") == 1, lines
    dash, named, signature = lines.removesuffix("\n").split(" ")
    assert (dash, named) == ("—", name)
    signature = base64.b64decode(signature, validate=True)
    assert signature[:4].hex() == hash_ and len(signature) == 4 + 8 + 64
    time_s = int.from_bytes(signature[4:12], "big")
    text = checkpoint[: checkpoint.rindex("\n\n") + 1]
    message = f"cosignature/v1\ntime {time_s}\n{text}".encode()
    Ed25519PublicKey.from_public_bytes(raw).verify(signature[12:], message)
    return time_s
