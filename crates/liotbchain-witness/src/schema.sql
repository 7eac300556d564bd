-- What this witness cosigned last of each log. A row never goes back.
CREATE TABLE logs (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    -- The checkpoint, under the signature of the log alone.
    checkpoint TEXT NOT NULL,
    -- When, in seconds since the Unix epoch. Never goes back either.
    cosigned_s INTEGER NOT NULL
) STRICT;
-- What was kept against a log. Each is a file too.
CREATE TABLE evidence (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    origin TEXT NOT NULL,
    kind TEXT NOT NULL,
    -- Of what was signed, so that nothing is kept twice.
    digest BLOB NOT NULL UNIQUE,
    kept_s INTEGER NOT NULL,
    reason TEXT NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX evidence_by_log ON evidence (origin, kind, number);
