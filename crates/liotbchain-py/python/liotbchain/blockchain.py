"""The Python original's ``Blockchain``, on a chain that keeps what it is given."""

import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from operator import index as _index

from . import config
from ._native import Chain, check_text, to_json
from ._native import mine as _mine
from .block import Block
from .utils import BlockchainOperationError, InvalidBlockError, MiningFailedError, logger

#: Blocks that were handed out and are kept, so that a change in one is found. Changed ones are kept in any case, and so
#: are those that the caller still holds.
_KEPT = 1_000


def _setting(name):
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

    def __init__(self, difficulty=None, nonce_limit=None, db_url=None, transactions_per_block=None, *, keep_pending=None):
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

    def _set(self, name, value):
        """Opens the chain again with another setting, as the original's could be assigned at any time."""
        settings = {**self._settings, name: value}
        if self._native.is_closed or self.db_url == "memory:":
            raise BlockchainOperationError(f"{name} cannot be set now: pass it to Blockchain()")
        if self._memory:
            self._memory.flush()
        self._native = self._blocks._chain = open_chain(self.db_url, **settings)
        self._settings = settings
        self._warn_of_low_limit()

    def _warn_of_low_limit(self):
        mean = 16**self.difficulty
        if self.nonce_limit < mean:
            logger.warning(
                "NONCE_LIMIT %d is low: at difficulty %d a block takes %d attempts in the mean",
                self.nonce_limit,
                self.difficulty,
                mean,
            )

    @property
    def chain(self):
        return self._blocks

    @property
    def transactions(self):
        return PendingTransactions(self._native, self._memory)

    @transactions.setter
    def transactions(self, values):
        # The original's way to empty the list. What was taken is not thrown away.
        if list(values) or len(self.transactions):
            raise AttributeError("transactions that were added stay: mine_block() puts them into a block")

    def add_transaction(self, transaction):
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

    def mine_block(self):
        """Mines the transactions that wait into a block, which need not be full.

        Returns:
            Block: the new block; the last one where nothing waits, since there are no empty blocks.

        Raises:
            MiningFailedError: no block within ``nonce_limit`` attempts. The transactions stay pending.
        """
        if self._memory:
            self._memory.flush()
        return Block._of(self._native.block(self._native.mine()))

    def add_block(self, block):
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

    def proof_of_work(self, block):
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

    def is_chain_valid(self):
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

    def validate(self, progress=None):
        """Validates all that is stored, every rule and every signature of it.

        Returns:
            Validation: how far the chain is valid, and the first fault.
        """
        return self._native.validate(progress)

    def get_latest_block(self):
        """Returns the last block."""
        return self._blocks[-1]

    def get_chain(self):
        """Returns all blocks as a list, read from the database. ``chain`` reads them one by one."""
        return [Block._of(stored) for stored in self._native]

    def save_blockchain(self):
        """Does nothing: what is on the chain is in the database already."""

    def create_genesis_block(self):
        """Returns the genesis block, which was made with the chain."""
        return self._blocks[0]

    def initialize_blockchain(self):
        """Does nothing: a chain is ready once it is opened."""

    @property
    def native(self):
        """The :class:`liotbchain.Chain` under it: signed transactions, export, and the rest."""
        return self._native

    def close(self):
        """Closes the chain. What waits stays in the database. Others in this process that share it are closed, too."""
        if self._memory and not self._native.is_closed:
            self._memory.flush()
        self._native.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        return f"<Blockchain on {self._native!r}>"


_open = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_chain(db_url, difficulty, nonce_limit, transactions_per_block):
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


def find_open_chain(db_url):
    """Returns a chain of this database that this process has open, with whatever settings, or None."""
    place = os.getpid(), os.path.abspath(config.DATA_DIR), db_url
    with _opening:
        return next((chain for key, chain in _open.items() if key[:3] == place and not chain.is_closed), None)


def _bits(difficulty):
    """The compact target of a hash with so many leading zeros (docs/chain-format.md)."""
    if difficulty % 2 == 0:
        return (33 - difficulty // 2) << 24 | 0x00FFFF
    return (32 - (difficulty - 1) // 2) << 24 | 0x0FFFFF


_memories = weakref.WeakSet()


def flush_all():
    """Hands over what waits in memory, at the end of the program."""
    for memory in list(_memories):
        memory.flush()


class Memory:
    """Transactions that wait in memory for their block, of a ``Blockchain`` with ``keep_pending=False``."""

    def __init__(self, blockchain):
        self._blockchain = weakref.ref(blockchain)
        self._lock = threading.Lock()
        self._texts = []
        # Where nobody closes the chain, the end of the object hands them over, or that of the program.
        weakref.finalize(blockchain, self._finish, blockchain._native).atexit = False
        _memories.add(self)

    def add(self, text):
        check_text(text)
        blockchain = self._blockchain()
        with self._lock:
            self._texts.append(text)
            if len(self._texts) < blockchain.transactions_per_block:
                return None
            return self._hand_over(blockchain._native)[-1]

    def flush(self):
        """Hands over what there is, so that it is on the disk."""
        with self._lock:
            blockchain = self._blockchain()
            if self._texts and blockchain:
                self._hand_over(blockchain._native)

    def texts(self):
        with self._lock:
            return list(self._texts)

    def _hand_over(self, chain):
        done = chain.add_many(self._texts)
        self._texts.clear()
        return done

    def _finish(self, chain):
        with self._lock:
            if self._texts and not chain.is_closed:
                self._hand_over(chain)


class BlockSequence(Sequence):
    """The blocks of a chain, read when they are asked for.

    A block is one object as long as it is kept, so that a change in it is seen the next time, and by ``is_chain_valid``.
    """

    def __init__(self, chain):
        self._chain = chain
        self._lock = threading.RLock()
        self._kept = OrderedDict()
        self._held = weakref.WeakValueDictionary()
        self._changed = {}

    def __len__(self):
        return len(self._chain)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self[height] for height in range(*place.indices(len(self)))]
        height = self._height(place)
        return self._known(height) or self._keep(height, Block._of(self._chain.block(height)))

    def __setitem__(self, place, block):
        """Shows another block in this place: a change like any other, of what is shown and not of what is stored."""
        height = self._height(place)
        with self._lock:
            self._kept.pop(height, None)
            self._held.pop(height, None)
            self._changed[height] = block

    def __iter__(self):
        for stored in self._chain:
            yield self._known(stored.height) or self._keep(stored.height, Block._of(stored))

    def append(self, block):
        raise InvalidBlockError("a chain takes no block as it is: add_transaction or add_block makes one")

    def _height(self, place):
        height, length = _index(place), len(self)
        height = height + length if height < 0 else height
        if not 0 <= height < length:
            raise IndexError(f"the chain has {length} blocks")
        return height

    def _known(self, height):
        return self._changed.get(height) or self._held.get(height)

    def _keep(self, height, block):
        with self._lock:
            block = self._changed.get(height) or self._held.setdefault(height, block)
            self._kept[height] = block
            if len(self._kept) > _KEPT:
                oldest, dropped = self._kept.popitem(last=False)
                if _differs(dropped):
                    self._changed[oldest] = dropped
            return block

    def first_change(self):
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

    def __repr__(self):
        return f"<{len(self)} blocks of {self._chain!r}>"


def _differs(block):
    try:
        return block._is_changed()
    except Exception:
        # It was changed to something that has no hash at all.
        return True


class PendingTransactions(Sequence):
    """The transactions that wait for a block, as they were when this was asked for."""

    def __init__(self, chain, memory):
        self._add = memory.add if memory else chain.add
        texts = chain.pending() + (memory.texts() if memory else [])
        self._values = [json.loads(text) for text in texts]

    def append(self, transaction):
        """Adds a transaction, as ``add_transaction`` does."""
        self._add(to_json(transaction))
        self._values.append(transaction)

    def __len__(self):
        return len(self._values)

    def __getitem__(self, place):
        return self._values[place]

    def __eq__(self, other):
        return list(self) == list(other) if isinstance(other, (list, PendingTransactions)) else NotImplemented

    __hash__ = None

    def __repr__(self):
        return repr(self._values)
