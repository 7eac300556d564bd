"""A chain for asyncio: what waits for the disk or the miner does so on a thread, and never holds the event loop up.

::

    async with await AsyncChain.open("sqlite:readings.db") as chain:
        await chain.add({"celsius": 21.5})
        async for block in chain.blocks():
            print(block.hash)

A call that is cancelled still ends: what it added may be on the chain.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ._native import Chain

#: Calls of one chain that wait at a time; more wait for one of these.
_THREADS = 32


class AsyncChain:
    """A :class:`liotbchain.Chain` whose methods are coroutines."""

    def __init__(self, chain):
        self.chain = chain
        # Not the loop's own threads: they serve name lookups and others too.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="liotbchain-aio")

    @classmethod
    async def open(cls, url="sqlite:liotbchain.db", **options):
        """Opens a chain, as ``Chain.open`` does."""
        return cls(await asyncio.to_thread(Chain.open, url, **options))

    async def _call(self, function, *arguments, **options):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*arguments, **options))

    async def add(self, transaction):
        """Adds a transaction and returns when it is on the disk."""
        return await self._call(self.chain.add, transaction)

    async def add_many(self, transactions):
        """Adds transactions, all or none, in one commit."""
        return await self._call(self.chain.add_many, list(transactions))

    async def mine(self):
        """Mines what is pending, and returns the chain's height."""
        return await self._call(self.chain.mine)

    async def block(self, which):
        """Returns a block, by its height or its hash."""
        return await self._call(self.chain.block, which)

    async def blocks(self, start=0, stop=None):
        """Iterates over blocks, a few in memory at a time."""
        blocks = self.chain.blocks(start, stop)
        while True:
            block = await self._call(next, blocks, None)
            if block is None:
                return
            yield block

    async def transaction(self, id):
        """Returns a transaction by its id."""
        return await self._call(self.chain.transaction, id)

    async def pending(self):
        """Returns the texts of transactions that wait."""
        return await self._call(self.chain.pending)

    async def validate(self):
        """Validates all that is stored."""
        return await self._call(self.chain.validate)

    async def export(self, path):
        """Writes the chain to a file with which anybody can check it alone."""
        return await self._call(self.chain.export, path)

    @property
    def height(self):
        """Height of the last block."""
        return self.chain.height

    async def close(self):
        """Closes the chain."""
        await self._call(self.chain.close)
        self._threads.shutdown(wait=False)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    def __repr__(self):
        return f"<AsyncChain of {self.chain!r}>"
