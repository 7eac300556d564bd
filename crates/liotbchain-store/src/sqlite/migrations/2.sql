-- Pruned transactions. Their row stays, so that the id is known: payload is empty, which no payload that was signed is,
-- and signature holds the content hash, which stands for both. One that came in a block without its payload has the hash
-- of its leaf for an id. No row of format 1 changes; an older program would take such a row for damaged.

DROP VIEW readings;

-- For people: what the devices said, in chain order. Of what was pruned, the content hash is left.
CREATE VIEW readings AS
SELECT height, position, nullif(payload, '') AS payload, lower(hex(key_id)) AS key_id, sequence, lower(hex(id)) AS id,
       strftime('%Y-%m-%d %H:%M:%f', received_ms / 1000.0, 'unixepoch') AS received_utc,
       CASE WHEN payload <> '' THEN lower(hex(signature)) END AS signature,
       CASE WHEN payload = '' THEN lower(hex(signature)) END AS pruned_content_hash
FROM transactions JOIN keys USING (key) WHERE height > 0 ORDER BY height, position;

-- Which blocks hold transactions of a key: a row a block and key, for the history of one key.
CREATE TABLE key_blocks (
  key    INTEGER NOT NULL REFERENCES keys,
  height INTEGER NOT NULL,
  PRIMARY KEY (key, height)
) STRICT, WITHOUT ROWID;

INSERT INTO key_blocks (key, height)
SELECT DISTINCT key, height FROM transactions WHERE height IS NOT NULL;
