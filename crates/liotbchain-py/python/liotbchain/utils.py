"""The logger and the exceptions, where the Python original had them.

Importing this configures nothing: the original wrote ``liotbchain.log`` into the working directory of whoever imported
it. ``logging.config.dictConfig(logging_config)`` still does that, if it is wanted.
"""

import logging
import os

from ._native import (
    BlockchainOperationError,
    DatabaseConfigurationError,
    DatabaseConnectionError,
    Error,
    InvalidBlockError,
    InvalidChainError,
    InvalidTransactionError,
    MiningFailedError,
)

__all__ = [
    "LOG_LEVEL",
    "BlockchainOperationError",
    "DatabaseConfigurationError",
    "DatabaseConnectionError",
    "Error",
    "InvalidBlockError",
    "InvalidChainError",
    "InvalidTransactionError",
    "MiningFailedError",
    "logger",
    "logging_config",
]

LOG_LEVEL = os.getenv("LOG_LEVEL", "INFO").upper()

logger = logging.getLogger("liotbchain")

logging_config = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"standard": {"format": "%(asctime)s [%(levelname)s] %(name)s: %(message)s"}},
    "handlers": {
        "default": {"level": LOG_LEVEL, "formatter": "standard", "class": "logging.StreamHandler"},
        "file": {
            "level": LOG_LEVEL,
            "formatter": "standard",
            "class": "logging.FileHandler",
            "filename": "liotbchain.log",
            "delay": True,
        },
    },
    "loggers": {"": {"handlers": ["default", "file"], "level": LOG_LEVEL, "propagate": True}},
}
