"""The settings of ``Blockchain()``, read when this is imported.

An exported variable counts more than a line of ``.env``, which is looked for in the working directory and the folders
above it. The names are those of the program ``liotbchain``, and so are the defaults: a ``Blockchain()`` and a
``liotbchain receiver`` that are started in one folder use one chain.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Optional

from dotenv import dotenv_values, find_dotenv

from .utils import DatabaseConfigurationError

DEFAULT_DATABASE_URL = "sqlite:liotbchain.db"
DEFAULT_DATA_DIR = "liotbchain-data"
DEFAULT_TRANSACTIONS_PER_BLOCK = 2
DEFAULT_DIFFICULTY = 2
DEFAULT_NONCE_LIMIT = 10_000_000
DEFAULT_KEEP_PENDING = True


_Settings = Mapping[str, Optional[str]]


def _settings() -> _Settings:
    found = find_dotenv(usecwd=True)
    # A password may hold a `$`.
    of_file = dotenv_values(found, interpolate=False) if found else {}
    return {**of_file, **os.environ}


def _number(settings: _Settings, name: str, default: int) -> int:
    text = settings.get(name)
    if text is None or not text.strip():
        return default
    try:
        return int(text)
    except ValueError:
        raise DatabaseConfigurationError(f"{name} is {text!r}: expected a whole number") from None


def _truth(settings: _Settings, name: str, default: bool) -> bool:
    text = settings.get(name)
    if text is None or not text.strip():
        return default
    values = {"true": True, "1": True, "false": False, "0": False}
    try:
        return values[text.strip().lower()]
    except KeyError:
        raise DatabaseConfigurationError(f"{name} is {text!r}: expected true or false") from None


_found = _settings()

#: Where the chain is kept: ``sqlite:FILE``, ``postgres://…`` or a libpq text.
DATABASE_URL = _found.get("DATABASE_URL") or DEFAULT_DATABASE_URL

#: Where a relative SQLite file lies.
DATA_DIR = _found.get("DATA_DIR") or DEFAULT_DATA_DIR

#: Transactions that a block holds.
TRANSACTIONS_PER_BLOCK = _number(_found, "TRANSACTIONS_PER_BLOCK", DEFAULT_TRANSACTIONS_PER_BLOCK)

#: Leading zero hexadecimal digits of a block hash, 0 to 16. Each one more takes 16 times as long.
DIFFICULTY = _number(_found, "DIFFICULTY", DEFAULT_DIFFICULTY)

#: Attempts after which mining a block is given up for now, 1 to 2^32.
NONCE_LIMIT = _number(_found, "NONCE_LIMIT", DEFAULT_NONCE_LIMIT)

#: Whether a transaction is on the disk when ``add_transaction`` returns, and not only once it is in a block.
KEEP_PENDING = _truth(_found, "KEEP_PENDING", DEFAULT_KEEP_PENDING)
