-- "liot": tells what the file is, to file(1) too.
PRAGMA application_id = 1818849140;

-- What the chain was written with, one fact a row: format = how many migrations this file has had.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Public keys. Number 0 stands for unsigned transactions.
CREATE TABLE keys (
  key          INTEGER PRIMARY KEY,
  key_id       BLOB NOT NULL UNIQUE,       -- SHA-256 of spki; 32 zero bytes for number 0
  spki         BLOB,                       -- SubjectPublicKeyInfo in DER; NULL for number 0
  transactions INTEGER NOT NULL DEFAULT 0  -- how many of this key the best chain holds
) STRICT;

INSERT INTO keys (key, key_id) VALUES (0, zeroblob(32));

-- The best chain. A number above 2^63 - 1 is kept as the negative number with the same 64 bits.
CREATE TABLE blocks (
  height            INTEGER PRIMARY KEY,
  hash              BLOB NOT NULL UNIQUE,
  version           INTEGER NOT NULL,
  prev_block_hash   BLOB NOT NULL,
  transactions_root BLOB NOT NULL,
  history_root      BLOB NOT NULL,
  timestamp_ms      INTEGER NOT NULL,
  bits              INTEGER NOT NULL,
  nonce             INTEGER NOT NULL,
  total_work        BLOB NOT NULL          -- of this block and all below, 32 bytes, big-endian
) STRICT;

-- A transaction has one row for ever. height, position and sequence are NULL while it waits.
CREATE TABLE transactions (
  arrival     INTEGER PRIMARY KEY,
  id          BLOB NOT NULL UNIQUE,
  key         INTEGER NOT NULL REFERENCES keys,
  received_ms INTEGER NOT NULL,            -- the block's timestamp where it came in a block
  height      INTEGER REFERENCES blocks,
  position    INTEGER,
  sequence    INTEGER,
  payload     TEXT NOT NULL,               -- the exact bytes that were signed
  signature   BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX transactions_place ON transactions (height, position) WHERE height IS NOT NULL;
CREATE INDEX transactions_waiting ON transactions (arrival) WHERE height IS NULL;

-- Nodes of the Merkle tree over all block hashes, but for the leaves, which follow from blocks.
CREATE TABLE history_nodes (
  level INTEGER NOT NULL,
  idx   INTEGER NOT NULL,
  hash  BLOB NOT NULL,
  PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

-- Blocks that a reorganisation took off the best chain, as canonical bytes.
CREATE TABLE side_blocks (
  hash            BLOB PRIMARY KEY,
  prev_block_hash BLOB NOT NULL,
  height          INTEGER NOT NULL,
  bytes           BLOB NOT NULL
) STRICT;

-- Which receiver moves the best chain. holder is NULL when nobody does.
CREATE TABLE seal_right (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  holder     TEXT,
  epoch      INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL
) STRICT;

INSERT INTO seal_right (one, epoch, expires_ms) VALUES (1, 0, 0);

-- For people: the blocks.
CREATE VIEW chain AS
SELECT height,
       lower(hex(hash)) AS hash,
       lower(hex(prev_block_hash)) AS prev_block_hash,
       strftime('%Y-%m-%d %H:%M:%f', timestamp_ms / 1000.0, 'unixepoch') AS time_utc,
       (SELECT count(*) FROM transactions WHERE transactions.height = blocks.height) AS transactions,
       printf('%08x', bits) AS bits,
       nonce,
       lower(hex(total_work)) AS total_work
FROM blocks ORDER BY height;

-- For people: what the devices said, in chain order.
CREATE VIEW readings AS
SELECT height, position, payload, lower(hex(key_id)) AS key_id, sequence, lower(hex(id)) AS id,
       strftime('%Y-%m-%d %H:%M:%f', received_ms / 1000.0, 'unixepoch') AS received_utc,
       lower(hex(signature)) AS signature
FROM transactions JOIN keys USING (key) WHERE height > 0 ORDER BY height, position;

-- For people: what is not in a block yet, the oldest first.
CREATE VIEW waiting AS
SELECT arrival, payload, lower(hex(key_id)) AS key_id, lower(hex(id)) AS id,
       strftime('%Y-%m-%d %H:%M:%f', received_ms / 1000.0, 'unixepoch') AS received_utc
FROM transactions JOIN keys USING (key) WHERE height IS NULL ORDER BY arrival;
