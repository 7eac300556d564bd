-- Format 2: which blocks hold transactions of a key, a row a block and key, for the history of one key.

CREATE TABLE liotbchain.key_blocks (
    key    bigint NOT NULL,
    height bigint NOT NULL CHECK (height BETWEEN 0 AND 4294967295),
    PRIMARY KEY (key, height)
);

COMMENT ON TABLE liotbchain.key_blocks IS 'the blocks of the best chain that hold transactions of a key';

INSERT INTO liotbchain.key_blocks (key, height)
SELECT DISTINCT key, height FROM liotbchain.transactions WHERE height IS NOT NULL;
