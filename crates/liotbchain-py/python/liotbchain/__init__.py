"""A blockchain for the signed readings of small devices, to learn from and to experiment with.

As the Python original had it::

    from liotbchain import Blockchain

    blockchain = Blockchain(db_url="sqlite:readings.db")
    blockchain.add_transaction({"device": "tank-1", "distance_cm": 120})

And all that a chain can do, fast::

    from liotbchain import Chain, SigningKey

    with Chain.open("sqlite:signed.db", unsigned=False) as chain:
        key = SigningKey.load_or_create("device_key.pem")
        print(chain.add(key.sign({"device": "tank-1", "distance_cm": 120})))
"""

import atexit as _atexit

from . import _native
from ._native import (
    Acknowledgement,
    BlockIterator,
    Chain,
    Fault,
    KnownTransaction,
    SealedBlock,
    Signed,
    SigningKey,
    Transaction,
    Transferred,
    Validation,
    __version__,
)
from .block import Block
from .blockchain import Blockchain
from .blockchain import flush_all as _flush_all
from .utils import (
    BlockchainOperationError,
    DatabaseConfigurationError,
    DatabaseConnectionError,
    Error,
    InvalidBlockError,
    InvalidChainError,
    InvalidTransactionError,
    MiningFailedError,
)



def _finish() -> None:
    try:
        _flush_all()
    finally:
        # A chain that is closed gives up its right to seal, so that the next program need not wait for that to expire.
        _native.close_all()


_atexit.register(_finish)

__all__ = [
    "Acknowledgement",
    "Block",
    "BlockIterator",
    "Blockchain",
    "BlockchainOperationError",
    "Chain",
    "DatabaseConfigurationError",
    "DatabaseConnectionError",
    "Error",
    "Fault",
    "InvalidBlockError",
    "InvalidChainError",
    "InvalidTransactionError",
    "KnownTransaction",
    "MiningFailedError",
    "SealedBlock",
    "Signed",
    "SigningKey",
    "Transaction",
    "Transferred",
    "Validation",
    "__version__",
]
