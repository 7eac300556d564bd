"""A chain for asyncio: what waits for the disk or the miner does so on a thread, and never holds the event loop up.

::

    async with await AsyncChain.open("sqlite:readings.db") as chain:
        await chain.add({"celsius": 21.5})
        async for block in chain.blocks():
            print(block.hash)

A call that is cancelled still ends: what it added may be on the chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor

from typing import Any, Callable, Optional, TypeVar, Union

from ._native import Acknowledgement, Chain, KnownTransaction, SealedBlock, Transferred, Validation
from .utils import BlockchainOperationError

_T = TypeVar("_T")

#: Calls of one chain that wait at a time; more wait for one of these.
_THREADS = 32


class AsyncChain:
    """A :class:`liotbchain.Chain` whose methods are coroutines."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        # Not the loop's own threads: they serve name lookups and others too.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="liotbchain-aio")
        self._is_closed = False

    @classmethod
    async def open(cls, url: str = "sqlite:liotbchain.db", **options: Any) -> AsyncChain:
        """Opens a chain, as ``Chain.open`` does."""
        return cls(await asyncio.to_thread(Chain.open, url, **options))

    async def _call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        if self._is_closed:
            raise BlockchainOperationError("the chain is closed: open it again")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*arguments))

    async def add(self, transaction: Any) -> Acknowledgement:
        """Adds a transaction and returns when it is on the disk."""
        return await self._call(self.chain.add, transaction)

    async def add_many(self, transactions: Iterable[Any]) -> list[Acknowledgement]:
        """Adds transactions, all or none, in one commit."""
        return await self._call(self.chain.add_many, list(transactions))

    async def mine(self) -> int:
        """Mines what is pending, and returns the chain's height."""
        return await self._call(self.chain.mine)

    async def block(self, which: Union[int, str]) -> SealedBlock:
        """Returns a block, by its height or its hash."""
        return await self._call(self.chain.block, which)

    async def blocks(self, start: int = 0, stop: Optional[int] = None) -> AsyncIterator[SealedBlock]:
        """Iterates over blocks, a few in memory at a time."""
        blocks = await self._call(self.chain.blocks, start, stop)
        while True:
            block: Optional[SealedBlock] = await self._call(next, blocks, None)
            if block is None:
                return
            yield block

    async def transaction(self, id: str) -> KnownTransaction:
        """Returns a transaction by its id."""
        return await self._call(self.chain.transaction, id)

    async def receipt(self, id: str) -> str:
        """Returns the receipt of a transaction, as JSON."""
        return await self._call(self.chain.receipt, id)

    async def pending(self) -> list[str]:
        """Returns the texts of transactions that wait."""
        return await self._call(self.chain.pending)

    async def validate(self) -> Validation:
        """Validates all that is stored."""
        return await self._call(self.chain.validate)

    async def export(self, path: str) -> Transferred:
        """Writes the chain to a file with which anybody can check it alone."""
        return await self._call(self.chain.export, path)

    @property
    def height(self) -> int:
        """Height of the last block."""
        return self.chain.height

    async def close(self) -> None:
        """Closes the chain. Does nothing where it is closed already."""
        # Not on a thread of these: all of them may wait for a block.
        await asyncio.to_thread(self.chain.close)
        self._is_closed = True
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> AsyncChain:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncChain of {self.chain!r}>"
