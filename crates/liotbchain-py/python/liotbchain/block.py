"""A block as the Python original showed it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Optional

from ._native import SealedBlock, Transaction
from ._native import merkle_root as _merkle_root
from .utils import BlockchainOperationError

_VERSION = 1
_ZERO_HASH = bytes(32)
_GENESIS_DATA = "Genesis Block"
# Of a block that is on no chain: it has no blocks below, asks for no work, and its transactions carry no random bytes.
_EMPTY_ROOT = hashlib.sha256(b"").digest()
_EASIEST_BITS = 0x2100FFFF
_NO_SALT = bytes(16)


class Block:
    """A block: what it holds, and what it says of itself.

    Changing one changes no chain. It shows in :meth:`calculate_hash`, and ``Blockchain.is_chain_valid`` finds it, as long
    as the block came from ``Blockchain.chain``.

    Attributes:
        index (int): its height; 0 is the genesis block.
        timestamp (float): seconds since 1970.
        data (list): its transactions; the text "Genesis Block" in the genesis block.
        previous_hash (str): hash of the block below; "0" in the genesis block.
        nonce (int): what mining found.
        hash (str): SHA-256 of its header, in hexadecimal.
        merkle_root (str): Merkle root over its transactions (RFC 6962), in hexadecimal.
    """

    # So that vars(block) holds what it held in the original, and nothing else.
    __slots__ = ("__dict__", "__weakref__", "_bits", "_stored")

    _bits: int
    _stored: Optional[SealedBlock]

    def __init__(
        self,
        index: int,
        timestamp: float,
        data: Any,
        previous_hash: str,
        nonce: int = 0,
        hash: Optional[str] = None,
        merkle_root: Optional[str] = None,
    ) -> None:
        self.index = index
        self.timestamp = timestamp
        self.data = data
        self.previous_hash = previous_hash
        self.nonce = nonce
        self.hash = hash
        self.merkle_root = merkle_root
        self._stored = None
        self._bits = _EASIEST_BITS

    @classmethod
    def _of(cls, stored: SealedBlock) -> Block:
        """Shows a block of a chain."""
        block = cls.__new__(cls)
        block._show(stored)
        return block

    def _show(self, stored: SealedBlock) -> None:
        is_genesis = stored.height == 0
        self.index = stored.height
        self.timestamp = stored.timestamp_ms / 1000
        self.data = _GENESIS_DATA if is_genesis else [transaction.data for transaction in stored.transactions]
        self.previous_hash = "0" if is_genesis else stored.prev_block_hash
        self.nonce = stored.nonce
        self.hash = stored.hash
        self.merkle_root = stored.transactions_root
        self._stored = stored
        self._bits = stored.bits

    def calculate_hash(self) -> str:
        """Computes SHA-256 of the header that the attributes, as they are now, give. Returns it in hexadecimal."""
        return hashlib.sha256(self._header()).hexdigest()

    def calculate_merkle_root(self) -> str:
        """Computes the Merkle root over ``data`` as it is now (RFC 6962, section 2.1). Returns it in hexadecimal."""
        return _merkle_root(self._leaves()).hex()

    def _header(self) -> bytes:
        """The 118 bytes that are hashed (docs/chain-format.md)."""
        try:
            return b"".join(
                [
                    _VERSION.to_bytes(2, "big"),
                    _hash_bytes(self.previous_hash),
                    bytes.fromhex(self.calculate_merkle_root()),
                    bytes.fromhex(self._stored.history_root) if self._stored else _EMPTY_ROOT,
                    int(self.index).to_bytes(4, "big"),
                    round(self.timestamp * 1000).to_bytes(8, "big"),
                    self._bits.to_bytes(4, "big"),
                    int(self.nonce).to_bytes(4, "big"),
                ]
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise BlockchainOperationError(f"the block has no hash: {error}") from error

    def _leaves(self) -> list[bytes]:
        items = self.data if isinstance(self.data, (list, tuple)) else [self.data]
        stored = self._stored.transactions if self._stored else []
        return [
            _leaf(_text(item), position, stored[position] if position < len(stored) else None, self.index)
            for position, item in enumerate(items)
        ]

    def _is_changed(self) -> bool:
        """Whether it no longer says what the chain says."""
        stored = self._stored
        return (
            stored is None
            or self.hash != stored.hash
            or self.merkle_root != stored.transactions_root
            or self.calculate_hash() != stored.hash
        )

    def __repr__(self) -> str:
        return f"<Block {self.index} {self.hash}>"


def _text(item: Any) -> str:
    try:
        return json.dumps(item)
    except (TypeError, ValueError, RecursionError) as error:
        raise BlockchainOperationError(f"a transaction cannot be written as JSON: {error}") from error


def _leaf(text: str, position: int, stored: Optional[Transaction], index: int) -> bytes:
    """The bytes that stand for a transaction in the tree: who signed, its number among theirs, what was said."""
    if stored is None:
        return _ZERO_HASH + position.to_bytes(8, "big") + _content_hash(text.encode(), _NO_SALT)
    if text == _text(_GENESIS_DATA if index == 0 else stored.data):
        content_hash = bytes.fromhex(stored.content_hash)
    else:
        content_hash = _content_hash(text.encode(), stored.signature or b"")
    return bytes.fromhex(stored.key_id) + stored.sequence.to_bytes(8, "big") + content_hash


def _content_hash(payload: bytes, signature: bytes) -> bytes:
    sizes = len(payload).to_bytes(4, "big"), len(signature).to_bytes(2, "big")
    return hashlib.sha256(sizes[0] + payload + sizes[1] + signature).digest()


def _hash_bytes(text: str) -> bytes:
    """What stands in the header for a hash; any text, so that a block that was changed to nonsense still has one."""
    if text == "0":
        return _ZERO_HASH
    try:
        found = bytes.fromhex(text)
    except (TypeError, ValueError):
        found = b""
    return found if len(found) == 32 else hashlib.sha256(str(text).encode()).digest()
