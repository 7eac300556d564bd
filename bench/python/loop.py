"""Adds transactions to a `Blockchain` for some seconds and prints how many there were a second.

    python loop.py DATABASE_URL TRANSACTIONS_PER_BLOCK DIFFICULTY SECONDS

The same lines run on the Python original and on ours: whichever `liotbchain` the interpreter has.
"""

import sys
import time

from liotbchain.blockchain import Blockchain

database_url, per_block, difficulty, seconds = sys.argv[1], *map(int, sys.argv[2:5])
blockchain = Blockchain(difficulty=difficulty, db_url=database_url, transactions_per_block=per_block)
count = 0
started = time.perf_counter()
# Whole blocks, so that none is paid for by the next.
while time.perf_counter() < started + seconds or count % per_block:
    blockchain.add_transaction({"device": "Raspberry Pi 1", "distance": count, "timestamp": time.time()})
    count += 1
print(count / (time.perf_counter() - started))
