-- Format 2: pruned transactions. Their row stays, so that the id is known: payload is empty, which no payload that was
-- signed is, and signature holds the content hash, which stands for both. One that came in a block without its payload
-- has the hash of its leaf for an id. No row of format 1 changes; an older program would take such a row for damaged.

-- NOT VALID: what was checked by the stricter rule need not be read again, however long the table is.
ALTER TABLE liotbchain.transactions DROP CONSTRAINT IF EXISTS transactions_payload_check;
ALTER TABLE liotbchain.transactions ADD CONSTRAINT transactions_payload_check CHECK (
    octet_length(payload) BETWEEN 1 AND 65536
    OR octet_length(payload) = 0 AND octet_length(signature) = 32 AND height IS NOT NULL
) NOT VALID;

COMMENT ON COLUMN liotbchain.transactions.payload IS 'the exact bytes that were signed, UTF-8; empty where they were pruned';
COMMENT ON COLUMN liotbchain.transactions.signature IS 'the signature; the content hash where payload is empty';

CREATE OR REPLACE VIEW liotbchain.readings AS
SELECT t.height,
       t.position,
       liotbchain.shown_time(t.received_ms) AS received,
       CASE WHEN octet_length(t.payload) > 0 THEN liotbchain.shown_text(t.payload) END AS payload,
       encode(t.id, 'hex') AS id,
       encode(k.key_id, 'hex') AS key_id,
       t.sequence,
       CASE WHEN octet_length(t.payload) = 0 THEN encode(t.signature, 'hex') END AS pruned_content_hash
FROM liotbchain.transactions t
JOIN liotbchain.keys k USING (key)
WHERE t.height IS NOT NULL
ORDER BY t.height, t.position;

COMMENT ON VIEW liotbchain.readings IS 'what stands on the best chain, in its order; of what was pruned, the content hash';

-- Which blocks hold transactions of a key, a row a block and key, for the history of one key.

CREATE TABLE liotbchain.key_blocks (
    key    bigint NOT NULL,
    height bigint NOT NULL CHECK (height BETWEEN 0 AND 4294967295),
    PRIMARY KEY (key, height)
);

COMMENT ON TABLE liotbchain.key_blocks IS 'the blocks of the best chain that hold transactions of a key';

INSERT INTO liotbchain.key_blocks (key, height)
SELECT DISTINCT key, height FROM liotbchain.transactions WHERE height IS NOT NULL;
