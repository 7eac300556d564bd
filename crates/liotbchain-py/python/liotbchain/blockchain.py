"""The Python original's ``Blockchain``, on a chain that keeps what it is given."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from operator import index as _index
from typing import Any, Callable, Optional, Union, overload

from . import config
from ._native import Acknowledgement, Chain, Prepared, Validation, to_json
from ._native import mine as _mine
from .block import Block
from .utils import BlockchainOperationError, Error, InvalidBlockError, MiningFailedError, logger

#: Blocks that were handed out and are kept, so that a change in one is found. Changed ones are kept in any case, and so
#: are those that the caller still holds.
_KEPT = 1_000


def _setting(name: str) -> Any:
    return property(lambda chain: chain._settings[name], lambda chain, value: chain._set(name, value))


class Blockchain:
    """A blockchain with proof of work, kept in SQLite or PostgreSQL.

    A transaction is on the disk when :meth:`add_transaction` returns, unless ``keep_pending`` is False. Threads may share a ``Blockchain``. Two of them in one
    process on one database share their chain; so do two processes, at some cost in speed.

    Attributes:
        chain: the blocks, as a sequence that reads them when they are asked for.
        transactions: the transactions that wait for a block.
        difficulty (int): leading zero hexadecimal digits of a block's hash.
        nonce_limit (int): attempts after which mining a block is given up for now.
        transactions_per_block (int): how many transactions make a block.
        db_url (str): where the chain is kept.
    """

    def __init__(
        self,
        difficulty: Optional[int] = None,
        nonce_limit: Optional[int] = None,
        db_url: Optional[str] = None,
        transactions_per_block: Optional[int] = None,
        *,
        keep_pending: Optional[bool] = None,
    ) -> None:
        """Opens the chain of ``db_url``, or creates one. What is None comes from ``liotbchain.config``.

        ``db_url`` is ``sqlite:FILE`` (in the folder ``DATA_DIR`` unless the path is absolute), ``postgres://…`` or a libpq
        text. ``difficulty`` is the least for ever of a chain that is created.

        With ``keep_pending=False`` transactions wait in memory for their block, as in the original: that is faster, and what
        waits is lost with the process, unless it ends in order. A block is on the disk in any case.

        Raises:
            ValueError: a parameter is out of range.
            DatabaseConfigurationError: a setting or the database is of no use; the message says what to change.
            DatabaseConnectionError: the database cannot be reached.
        """
        self.db_url = db_url or config.DATABASE_URL
        self._settings = {
            "difficulty": config.DIFFICULTY if difficulty is None else difficulty,
            "nonce_limit": config.NONCE_LIMIT if nonce_limit is None else nonce_limit,
            "transactions_per_block": (
                config.TRANSACTIONS_PER_BLOCK if transactions_per_block is None else transactions_per_block
            ),
        }
        self._native = open_chain(self.db_url, **self._settings)
        self._blocks = BlockSequence(self._native)
        keep_pending = config.KEEP_PENDING if keep_pending is None else keep_pending
        self._memory = None if keep_pending else Memory(self)
        logger.info("%s: %d blocks", self._native.location, len(self._native))
        if self._native.notice:
            logger.warning("%s", self._native.notice)
        self._warn_of_low_limit()

    difficulty = _setting("difficulty")
    nonce_limit = _setting("nonce_limit")
    transactions_per_block = _setting("transactions_per_block")

    def _set(self, name: str, value: int) -> None:
        """Opens the chain again with another setting, as the original's could be assigned at any time."""
        settings = {**self._settings, name: value}
        if self._native.is_closed or self.db_url == "memory:":
            raise BlockchainOperationError(f"{name} cannot be set now: pass it to Blockchain()")
        if self._memory:
            self._memory.flush()
        self._native = self._blocks._chain = open_chain(self.db_url, **settings)
        self._settings = settings
        if self._memory:
            self._memory.use(self)
        self._warn_of_low_limit()

    def _warn_of_low_limit(self) -> None:
        mean = 16**self.difficulty
        if self.nonce_limit < mean:
            logger.warning(
                "NONCE_LIMIT %d is low: at difficulty %d a block takes %d attempts in the mean",
                self.nonce_limit,
                self.difficulty,
                mean,
            )

    @property
    def chain(self) -> BlockSequence:
        return self._blocks

    @property
    def transactions(self) -> PendingTransactions:
        return PendingTransactions(self._native, self._memory)

    @transactions.setter
    def transactions(self, values: Sequence[Any]) -> None:
        # The original's way to empty the list. What was taken is not thrown away.
        if list(values) or len(self.transactions):
            raise AttributeError("transactions that were added stay: mine_block() puts them into a block")

    def add_transaction(self, transaction: Any) -> Optional[Acknowledgement]:
        """Takes a transaction: anything that JSON can say. It is on the disk when this returns (see ``keep_pending``).

        With the last one that a block needs, the block is mined before this returns. Where that fails within
        ``nonce_limit`` attempts, the transaction stays pending and is tried again; it need not be added again.

        Returns:
            Acknowledgement: its id, and where it stands; None while it is in memory alone.

        Raises:
            InvalidTransactionError: it cannot be written as JSON, or is too large. Nothing was stored.
            DatabaseConnectionError: the database failed. Whether it was stored is then not known.
        """
        text = to_json(transaction)
        return self._memory.add(text) if self._memory else self._native.add(text)

    def mine_block(self) -> Block:
        """Mines the transactions that wait into a block, which need not be full.

        Returns:
            Block: the new block; the last one where nothing waits, since there are no empty blocks.

        Raises:
            MiningFailedError: no block within ``nonce_limit`` attempts. The transactions stay pending.
        """
        if self._memory:
            self._memory.flush()
        return Block._of(self._native.block(self._native.mine()))

    def add_block(self, block: Block) -> None:
        """Adds the transactions of a block of yours, and mines them.

        A chain takes no block as it is: it makes one of the block's ``data``, and of what else waits, in blocks of
        ``transactions_per_block``. ``block`` then shows the last of them.

        Raises:
            InvalidBlockError: it has no data, or the chain refuses it.
        """
        items = block.data if isinstance(block.data, (list, tuple)) else [block.data]
        if not items:
            raise InvalidBlockError("the block has no transactions: there are no empty blocks")
        if self._memory:
            self._memory.flush()
        self._native.add_many([to_json(item) for item in items])
        block._show(self._native.block(self._native.mine()))

    def proof_of_work(self, block: Block) -> str:
        """Searches the lowest nonce with which the block's hash has ``difficulty`` leading zeros, and sets nonce, hash and
        Merkle root of the block. No chain changes.

        Returns:
            str: the hash.

        Raises:
            MiningFailedError: there is none within ``nonce_limit`` attempts.
        """
        block._bits = _bits(self.difficulty)
        block.nonce = 0
        nonce = _mine(block._header(), self.nonce_limit)
        if nonce is None:
            raise MiningFailedError(f"no block was found in {self.nonce_limit} attempts")
        block.nonce = nonce
        block.merkle_root = block.calculate_merkle_root()
        block.hash = block.calculate_hash()
        return block.hash

    def is_chain_valid(self) -> bool:
        """Validates all that is stored, and the blocks that ``chain`` handed out.

        Returns:
            bool: whether every rule holds; where it does not, the log says which block breaks which rule.
        """
        blocks = len(self._native)
        validation = self.validate()
        if validation.fault:
            logger.error("the chain is invalid: %s", validation.fault)
            return False
        if validation.valid_blocks < blocks:
            logger.error("the chain had %d blocks, stored are %d", blocks, validation.valid_blocks)
            return False
        changed = self._blocks.first_change()
        if changed:
            logger.error("the chain in the database is valid, but %s", changed)
        return changed is None

    def validate(self, progress: Optional[Callable[[int, int], object]] = None) -> Validation:
        """Validates all that is stored, every rule and every signature of it.

        Returns:
            Validation: how far the chain is valid, and the first fault.
        """
        return self._native.validate(progress)

    def get_latest_block(self) -> Block:
        """Returns the last block."""
        return self._blocks[-1]

    def get_chain(self) -> list[Block]:
        """Returns all blocks as a list, read from the database. ``chain`` reads them one by one."""
        return [Block._of(stored) for stored in self._native]

    def save_blockchain(self) -> None:
        """Does nothing: what is on the chain is in the database already."""

    def create_genesis_block(self) -> Block:
        """Returns the genesis block, which was made with the chain."""
        return self._blocks[0]

    def initialize_blockchain(self) -> None:
        """Does nothing: a chain is ready once it is opened."""

    @property
    def native(self) -> Chain:
        """The :class:`liotbchain.Chain` under it: signed transactions, export, and the rest."""
        return self._native

    def close(self) -> None:
        """Closes the chain. What waits stays in the database. Others in this process that share it are closed, too."""
        if not self._native.is_closed:
            for memory in list(_memories):
                if memory.chain is self._native:
                    memory.flush()
        self._native.close()

    def __enter__(self) -> Blockchain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Blockchain on {self._native!r}>"


_open: weakref.WeakValueDictionary[Any, Chain] = weakref.WeakValueDictionary()
_opening = threading.RLock()


def open_chain(
    db_url: str, difficulty: Optional[int], nonce_limit: int, transactions_per_block: int
) -> Chain:
    """Opens a chain, or returns the one that this process has open with the same settings."""
    key = os.getpid(), os.path.abspath(config.DATA_DIR), db_url, difficulty, nonce_limit, transactions_per_block
    with _opening:
        chain = _open.get(key)
        if chain is None or chain.is_closed:
            chain = Chain.open(
                db_url,
                data_dir=config.DATA_DIR,
                unsigned=True,
                difficulty=difficulty,
                nonce_limit=nonce_limit,
                transactions_per_block=transactions_per_block,
            )
            if db_url != "memory:":
                _open[key] = chain
        return chain


def find_open_chain(db_url: str) -> Optional[Chain]:
    """Returns a chain of this database that this process has open, with whatever settings, or None."""
    place = os.getpid(), os.path.abspath(config.DATA_DIR), db_url
    with _opening:
        return next((chain for key, chain in _open.items() if key[:3] == place and not chain.is_closed), None)


def _bits(difficulty: int) -> int:
    """The compact target of a hash with so many leading zeros (docs/chain-format.md)."""
    if difficulty % 2 == 0:
        return (33 - difficulty // 2) << 24 | 0x00FFFF
    return (32 - (difficulty - 1) // 2) << 24 | 0x0FFFFF


_memories: weakref.WeakSet[Memory] = weakref.WeakSet()


def flush_all() -> None:
    """Hands over what waits in memory, at the end of the program."""
    for memory in list(_memories):
        try:
            memory.flush()
        except Error as error:
            logger.error("%d transactions that waited in memory are lost: %s", len(memory.texts()), error)


class Memory:
    """Transactions that wait in memory for their block, of a ``Blockchain`` with ``keep_pending=False``.

    Each is made ready when it comes, with its id. So it is one transaction however often it is handed over: after an
    interrupt, or an error of the database, nobody knows whether it arrived.
    """

    def __init__(self, blockchain: Blockchain) -> None:
        self._process = os.getpid()
        self._waiting: list[Prepared] = []
        self._finalizer: Optional[weakref.finalize[..., Blockchain]] = None
        self._make_locks()
        self.use(blockchain)
        _memories.add(self)

    def _make_locks(self) -> None:
        # Handing over is in turns, so that the order stays. A signal handler may add or close in the middle of it.
        self._turn = threading.RLock()
        self._lock = threading.RLock()

    def use(self, blockchain: Blockchain) -> None:
        """Hands over to the chain that a ``Blockchain`` has now."""
        self.chain, self._per_block = blockchain.native, blockchain.transactions_per_block
        if self._finalizer:
            self._finalizer.detach()
        # Where nobody closes the chain, the end of the object hands them over, or that of the program.
        self._finalizer = weakref.finalize(blockchain, self._finish)
        self._finalizer.atexit = False

    def add(self, text: str) -> Optional[Acknowledgement]:
        ready = Prepared(text)
        with self._lock:
            self._waiting.append(ready)
            if len(self._waiting) < self._per_block:
                return None
        # Where another thread has handed it over, it is told again what became of it.
        return self.flush().get(id(ready)) or self.chain.add(ready)

    def flush(self) -> dict[int, Acknowledgement]:
        """Hands over what there is, so that it is on the disk. Returns what became of each object."""
        if os.getpid() != self._process:
            return {}  # They are the business of the process that this one was forked off.
        with self._turn:
            with self._lock:
                batch = list(self._waiting)
            done = dict(zip(map(id, batch), self.chain.add_many(batch)))
            with self._lock:
                self._waiting = [ready for ready in self._waiting if id(ready) not in done]
            return done

    def texts(self) -> list[str]:
        with self._lock:
            return [ready.payload for ready in self._waiting]

    def _finish(self) -> None:
        try:
            self.flush()
        except Error as error:
            logger.error("%d transactions that waited in memory are lost: %s", len(self.texts()), error)


def _in_a_forked_process() -> None:
    """Another thread may have held these, which is not there any more."""
    global _opening
    _opening = threading.RLock()
    for memory in list(_memories):
        memory._make_locks()


os.register_at_fork(after_in_child=_in_a_forked_process)


class BlockSequence(Sequence[Block]):
    """The blocks of a chain, read when they are asked for.

    A block is one object as long as it is kept, so that a change in it is seen the next time, and by ``is_chain_valid``.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._lock = threading.RLock()
        self._kept: OrderedDict[int, Block] = OrderedDict()
        self._held: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()
        self._changed: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._chain)

    @overload
    def __getitem__(self, place: int) -> Block: ...
    @overload
    def __getitem__(self, place: slice) -> list[Block]: ...
    def __getitem__(self, place: Union[int, slice]) -> Union[Block, list[Block]]:
        if isinstance(place, slice):
            return [self[height] for height in range(*place.indices(len(self)))]
        height = self._height(place)
        block: Block = self._known(height) or self._keep(height, Block._of(self._chain.block(height)))
        return block

    def __setitem__(self, place: int, block: Any) -> None:
        """Shows another block in this place: a change like any other, of what is shown and not of what is stored."""
        height = self._height(place)
        with self._lock:
            self._kept.pop(height, None)
            self._held.pop(height, None)
            self._changed[height] = block

    def __iter__(self) -> Iterator[Block]:
        for stored in self._chain:
            yield self._known(stored.height) or self._keep(stored.height, Block._of(stored))

    def append(self, block: Block) -> None:
        raise InvalidBlockError("a chain takes no block as it is: add_transaction or add_block makes one")

    def _height(self, place: int) -> int:
        height, length = _index(place), len(self)
        height = height + length if height < 0 else height
        if not 0 <= height < length:
            raise IndexError(f"the chain has {length} blocks")
        return height

    def _known(self, height: int) -> Any:
        return self._changed.get(height) or self._held.get(height)

    def _keep(self, height: int, block: Block) -> Any:
        with self._lock:
            block = self._changed.get(height) or self._held.setdefault(height, block)
            self._kept[height] = block
            if len(self._kept) > _KEPT:
                oldest, dropped = self._kept.popitem(last=False)
                if _differs(dropped):
                    self._changed[oldest] = dropped
            return block

    def first_change(self) -> Optional[str]:
        """Returns what is wrong with the first block that was changed after it was handed out, or None."""
        with self._lock:
            shown = sorted({**self._held, **self._changed}.items())
        for height, block in shown:
            try:
                stored = self._chain.block(height).hash
            except IndexError:
                return f"block {height} is not stored any more"
            said = getattr(block, "hash", None)
            if said != stored:
                return f"block {height} was changed: it says the hash {said}, stored is {stored}"
            if _differs(block):
                return f"block {height} was changed: its hash is no longer {stored}"
        return None

    def __repr__(self) -> str:
        return f"<{len(self)} blocks of {self._chain!r}>"


def _differs(block: Any) -> bool:
    try:
        return bool(block._is_changed())
    except Exception:
        # It was changed to something that has no hash at all.
        return True


class PendingTransactions(Sequence[Any]):
    """The transactions that wait for a block, as they were when this was asked for."""

    def __init__(self, chain: Chain, memory: Optional[Memory]) -> None:
        self._add: Callable[[str], object] = memory.add if memory else chain.add
        texts = chain.pending() + (memory.texts() if memory else [])
        self._values = [json.loads(text) for text in texts]

    def append(self, transaction: Any) -> None:
        """Adds a transaction, as ``add_transaction`` does."""
        self._add(to_json(transaction))
        self._values.append(transaction)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, place: Any) -> Any:
        return self._values[place]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, (list, PendingTransactions)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._values)
