"""The Python original's functions for the database, on the chain of a ``db_url``."""

from __future__ import annotations

from typing import Optional

from .. import config
from .._native import Chain
from ..block import Block
from ..blockchain import find_open_chain, open_chain
from ..utils import DatabaseConfigurationError, InvalidBlockError


def create_database(db_url: str) -> None:
    """Opens the chain of ``db_url``, and creates it where there is none."""
    _open(db_url)


def save_block(block: Block, db_url: str) -> None:
    """Does nothing where the block is on the chain already.

    Raises:
        InvalidBlockError: it is not. A block comes on a chain by being mined there: see ``Blockchain.add_block``.
    """
    chain = _open(db_url)
    try:
        stored = chain.block(block.hash) if isinstance(block.hash, str) else None
    except KeyError:
        stored = None
    if stored is None or stored.hash != block.calculate_hash():
        raise InvalidBlockError("the block is not of this chain: Blockchain.add_block mines its transactions into one")


def load_blocks(db_url: str) -> list[Block]:
    """Returns all blocks of the chain, the genesis block first."""
    return [Block._of(stored) for stored in _open(db_url)]


def _open(db_url: Optional[str]) -> Chain:
    if not db_url:
        raise DatabaseConfigurationError("the database's URL is missing: pass a DATABASE_URL such as sqlite:readings.db")
    # One that the program has open serves as it is, with whatever settings.
    chain = find_open_chain(db_url)
    return chain or open_chain(db_url, None, config.NONCE_LIMIT, config.TRANSACTIONS_PER_BLOCK)
