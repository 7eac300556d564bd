"""Adds JSON texts to a `Chain`, one by one or in lists, and prints how many there were a second.

    python facade.py DATABASE_URL LIST COUNT

`bench/examples/facade.rs` does the same in Rust.
"""

import sys
import time

from liotbchain import Chain

url, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Chain.open(url, transactions_per_block=100) as chain:
    texts = ['{"device":"tank-1","distance":%d}' % number for number in range(count)]
    started = time.perf_counter()
    if size == 1:
        for text in texts:
            chain.add(text)
    else:
        for first in range(0, count, size):
            chain.add_many(texts[first : first + size])
    print(count / (time.perf_counter() - started))
