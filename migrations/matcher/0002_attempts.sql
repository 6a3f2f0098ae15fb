-- Why: a transaction that waits too long is signed again with the same nonce and a higher fee, so that it has several
-- hashes, any one of which may be mined; all of them have to be looked for. And the order in which transactions were
-- written down gets a column of its own, which PostgreSQL has no other word for.

CREATE TABLE transaction_attempts (
    attempt_hash TEXT   NOT NULL PRIMARY KEY,
    -- The transaction by the hash of its first attempt.
    tx_hash      TEXT   NOT NULL REFERENCES transactions (tx_hash) ON DELETE CASCADE,
    -- 0 for the first.
    number       BIGINT NOT NULL,
    prepared     TEXT   NOT NULL,
    UNIQUE (tx_hash, number)
);
INSERT INTO transaction_attempts (attempt_hash, tx_hash, number, prepared)
    SELECT tx_hash, tx_hash, 0, prepared FROM transactions;
ALTER TABLE transactions DROP COLUMN prepared;

-- 0 for those that were written down before there was this column.
ALTER TABLE transactions ADD COLUMN sequence BIGINT NOT NULL DEFAULT 0;
-- Block that was indexed last when the latest attempt was written down.
ALTER TABLE transactions ADD COLUMN priced_block BIGINT NOT NULL DEFAULT 0;
UPDATE transactions SET priced_block = recorded_block;
-- The attempt that is in a block.
ALTER TABLE transactions ADD COLUMN mined_hash TEXT;
UPDATE transactions SET mined_hash = tx_hash WHERE mined_block IS NOT NULL;
