-- Which blocks hold transactions of a key: a row a block and key, for the history of one key.
CREATE TABLE key_blocks (
  key    INTEGER NOT NULL REFERENCES keys,
  height INTEGER NOT NULL,
  PRIMARY KEY (key, height)
) STRICT, WITHOUT ROWID;

INSERT INTO key_blocks (key, height)
SELECT DISTINCT key, height FROM transactions WHERE height IS NOT NULL;
