-- Format 1 of an outbox. A record stands in the order of its slot: the number of the start (boot) in the high bits, the
-- record's number in it (counter) in the low 38.

-- One row: the version of these tables, and the number of the latest start.
CREATE TABLE meta (id INTEGER PRIMARY KEY, format INTEGER NOT NULL, boot INTEGER NOT NULL);

-- Public keys (SubjectPublicKeyInfo in DER), once each.
CREATE TABLE keys (key INTEGER PRIMARY KEY, spki BLOB NOT NULL UNIQUE);

-- The tables with a rowid differ in their columns: by those, rows of a damaged file are told apart.

-- What waits. Kind 0 is a reading, 1 says what was dropped. A row can be verified without any other but its key's.
CREATE TABLE records (
    slot INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key INTEGER NOT NULL,
    before INTEGER,
    payload TEXT NOT NULL,
    signature BLOB NOT NULL
);

-- How many records of each device wait, and the slot of the latest; none where none does. From there, `before` leads to
-- the others. An index would do the same, and write a page for each device in a list.
CREATE TABLE devices (name TEXT PRIMARY KEY, waiting INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;

-- By what repetitions are known: hashes of device and identity, of what was said, and the record's id. The latest stay.
CREATE TABLE identities (number INTEGER PRIMARY KEY, identity BLOB NOT NULL, body BLOB NOT NULL, id BLOB NOT NULL);

-- What a receiver refused, and why.
CREATE TABLE aside (
    slot INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key INTEGER NOT NULL,
    payload TEXT NOT NULL,
    signature BLOB NOT NULL,
    reason TEXT NOT NULL
);
