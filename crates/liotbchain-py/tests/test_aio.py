"""`liotbchain.aio`: a chain in a program of asyncio."""

import asyncio

import pytest

from liotbchain import BlockchainOperationError
from liotbchain.aio import AsyncChain


def test_a_chain_is_used_without_holding_the_loop_up(db_url):
    async def program():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        async with await AsyncChain.open(db_url, difficulty=1) as chain:
            done = await asyncio.gather(*(chain.add({"n": number}) for number in range(40)))
            assert len({it.id for it in done}) == 40
            await chain.add_many(["1"])
            assert await chain.mine() == chain.height == 21
            found = [transaction.data async for block in chain.blocks(1) for transaction in block.transactions]
            assert sorted(it["n"] for it in found[:-1]) == list(range(40)) and found[-1] == 1
            assert (await chain.block(-1)).hash == (await chain.block(21)).hash
            assert (await chain.transaction(done[0].id)).status == "sealed"
            assert await chain.pending() == []
            assert await chain.validate()
        ticking.cancel()
        assert ticks > 40

    asyncio.run(program())


def test_closing_needs_no_free_thread_and_is_done_once():
    async def program():
        async with await AsyncChain.open("memory:", difficulty=16, transactions_per_block=1) as chain:
            adding = [asyncio.create_task(chain.add(str(number))) for number in range(40)]
            while not await asyncio.to_thread(chain.chain.pending):
                pass
            await chain.close()
            await chain.close()
            for call in [chain.mine(), chain.add("1")]:
                with pytest.raises(BlockchainOperationError, match="closed"):
                    await call
        await asyncio.gather(*adding, return_exceptions=True)

    asyncio.run(asyncio.wait_for(program(), 60))


def test_a_call_that_is_cancelled_leaves_the_chain_usable():
    async def program():
        async with await AsyncChain.open("memory:", difficulty=16, transactions_per_block=1, seal_wait=2) as chain:
            adding = asyncio.create_task(chain.add("1"))
            await asyncio.sleep(0.2)
            adding.cancel()
            assert await chain.pending() == ["1"]

    asyncio.run(program())
