"""Forges proof files: a chain by hand, whoever's signatures under its checkpoints, and files that can lie in any place.

Written from the specifications (RFC 9162; c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature and tlog-policy), not
from the program that is tested.
"""

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain_builder import ChainBuilder
from verifier import verify

LOG, COSIGNER = 1, 4


def b64(data):
    return base64.b64encode(data).decode()


# Trees (RFC 9162 section 2.1), over hashes of leaves -------------------------------------------------------------


def leaf(data):
    return hashlib.sha256(b"\x00" + data).digest()


def split(count):
    """The largest power of two below a number of leaves."""
    return 1 << (count - 1).bit_length() - 1


def root(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    middle = split(len(leaves))
    return verify.node(root(leaves[:middle]), root(leaves[middle:]))


def inclusion(index, leaves):
    if len(leaves) == 1:
        return []
    middle = split(len(leaves))
    if index < middle:
        return inclusion(index, leaves[:middle]) + [root(leaves[middle:])]
    return inclusion(index - middle, leaves[middle:]) + [root(leaves[:middle])]


def consistency(size, leaves, is_whole=True):
    if size == len(leaves):
        return [] if is_whole else [root(leaves)]
    middle = split(len(leaves))
    if size <= middle:
        return consistency(size, leaves[:middle], is_whole) + [root(leaves[middle:])]
    return consistency(size - middle, leaves[middle:], False) + [root(leaves[:middle])]


# Signed notes ----------------------------------------------------------------------------------------------------


class NoteSigner:
    """A named key under notes: a log's, or a cosigner's."""

    def __init__(self, name, kind):
        self.name, self.kind = name, kind
        self.private = Ed25519PrivateKey.generate()

    @property
    def key(self):
        return bytes([self.kind]) + self.private.public_key().public_bytes_raw()

    @property
    def key_hash(self):
        return hashlib.sha256(self.name.encode() + b"\n" + self.key).digest()[:4]

    @property
    def vkey(self):
        return f"{self.name}+{self.key_hash.hex()}+{b64(self.key)}"

    def sign(self, text, time_s=1_800_000_000):
        """Returns the line under a text, whatever the text is."""
        signed = text.encode()
        time = b""
        if self.kind == COSIGNER:
            signed = f"cosignature/v1\ntime {time_s}\n".encode() + signed
            time = time_s.to_bytes(8, "big")
        return f"— {self.name} {b64(self.key_hash + time + self.private.sign(signed))}\n"


def log_of(genesis):
    return NoteSigner(f"liotbchain/{genesis}", LOG)


def note(text, *signers):
    return text + "\n" + "".join(signer.sign(text) for signer in signers)


def policy(logs=(), witnesses=(), quorum=None):
    """A policy that asks for a log's signature and, of so many witnesses, for some."""
    lines = [f"log {log.vkey}" for log in logs]
    names = [f"w{number}" for number in range(len(witnesses))]
    lines += [f"witness {name} {witness.vkey}" for name, witness in zip(names, witnesses)]
    if quorum is None:
        return "\n".join([*lines, "quorum none", ""])
    return "\n".join([*lines, f"group enough {quorum} {' '.join(names)}", "quorum enough", ""])


# Chains and files about them -------------------------------------------------------------------------------------


class Forger(ChainBuilder):
    """Builds a chain, and files that prove things of it."""

    def __init__(self, difficulty=1, **rules):
        self.blocks = []
        self.bits = verify.bits_of(difficulty)
        super().__init__({"difficulty": difficulty} | rules)

    def add_block(self, transactions, **changed):
        super().add_block(transactions, **({"bits": self.bits} | changed))
        self.blocks.append((self.lines[-1]["header"], list(transactions)))

    @property
    def genesis(self):
        return self.hashes[0].hex()

    @property
    def size(self):
        return len(self.hashes)

    def leaves(self, size):
        return [leaf(block) for block in self.hashes[:size]]

    def checkpoint_text(self, size):
        return f"liotbchain/{self.genesis}\n{size}\n{b64(root(self.leaves(size)))}\n"

    def checkpoint(self, size, *signers):
        return note(self.checkpoint_text(size), *signers)

    def anchor(self, size, checkpoint=None):
        """What a file ends in: the header of the block above, if there is one, and a checkpoint if one is given."""
        path = inclusion(0, self.leaves(size)) if size else []
        anchor = {"size": size, "genesis_path": list(map(b64, path))}
        if size < self.size:
            anchor["header"] = self.blocks[size][0]
        if checkpoint is not None:
            anchor["checkpoint"] = checkpoint
        return anchor

    def block(self, height, positions, size):
        header, transactions = self.blocks[height]
        leaves = [leaf(transaction.leaf) for transaction in transactions]
        block = {"header": header, "transactions": len(transactions), "entries": []}
        for position in positions:
            path = list(map(b64, inclusion(position, leaves)))
            record = transactions[position].record()
            block["entries"].append({"position": position, "path": path, "transaction": record})
        if height < size:
            block["history_path"] = list(map(b64, inclusion(height, self.leaves(size))))
        return block

    def receipt(self, height, position, size, signer=None, checkpoint=None):
        key = {"public_key": signer.pem} if signer else {}
        block, anchor = self.block(height, [position], size), self.anchor(size, checkpoint)
        return {"type": "receipt", "version": 1, "genesis": self.genesis} | key | {"block": block, "anchor": anchor}

    def block_proof(self, height, size, checkpoint=None):
        block, anchor = self.block(height, [], size), self.anchor(size, checkpoint)
        return {"type": "block", "version": 1, "genesis": self.genesis, "block": block, "anchor": anchor}

    def places(self, signer):
        """Where the transactions of a key are: (height, position)."""
        return [
            (height, position)
            for height, (_, transactions) in enumerate(self.blocks)
            for position, transaction in enumerate(transactions)
            if transaction.key_id == signer.key_id
        ]

    def key_history(self, signer, first, last, places, size, checkpoint=None):
        """A key's history that shows what is at these places, whatever else there is."""
        heights = sorted({height for height, _ in places})
        shown = [(height, [position for at, position in places if at == height]) for height in heights]
        start = {"type": "key_history", "version": 1, "genesis": self.genesis, "key_id": signer.key_id.hex()}
        blocks = [self.block(height, positions, size) for height, positions in shown]
        rest = {"from": first, "to": last, "blocks": blocks, "anchor": self.anchor(size, checkpoint)}
        return start | {"public_key": signer.pem} | rest

    def consistency(self, first, last, checkpoints=(None, None)):
        leaves = self.leaves(last)
        file = {
            "type": "consistency",
            "version": 1,
            "genesis": self.genesis,
            "from": self.anchor(first, checkpoints[0]),
            "to": self.anchor(last, checkpoints[1]),
            "path": list(map(b64, consistency(first, leaves) if first else [])),
        }
        if first < last:
            file["header_path"] = list(map(b64, inclusion(first, leaves)))
        return file
