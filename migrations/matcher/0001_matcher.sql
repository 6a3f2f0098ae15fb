-- Why: what the matcher knows that the chain does not: signed offers that nobody has matched yet, in the order in which
-- they were accepted, which decides who is served first; transactions, written down before they are sent, so that a
-- crash between the two loses none and doubles none; and which artifacts stand in the content store.
--
-- Conventions: hashes, ids and addresses are lower-case hex TEXT with 0x; structures are JSON TEXT; times are seconds
-- since 1970.

-- The number that the next accepted offer gets. Not MAX(sequence) + 1: rows are pruned, numbers are never given twice.
CREATE TABLE acceptance (
    id            BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    next_sequence BIGINT NOT NULL
);
INSERT INTO acceptance (id, next_sequence) VALUES (1, 1);

CREATE TABLE signed_offers (
    offer_hash     TEXT   NOT NULL PRIMARY KEY,
    kind           TEXT   NOT NULL CHECK (kind IN ('developer', 'provider')),
    owner          TEXT   NOT NULL,
    sequence       BIGINT NOT NULL UNIQUE,
    accepted_block BIGINT NOT NULL,
    accepted_at    BIGINT NOT NULL,
    offer          TEXT   NOT NULL,
    signature      TEXT   NOT NULL,
    -- First block at which the chain was seen to know the offer.
    on_chain_block BIGINT,
    -- When it was found void or known to the chain for good: no longer part of snapshots.
    closed_at      BIGINT
);
CREATE INDEX signed_offers_open ON signed_offers (kind, sequence) WHERE closed_at IS NULL;
CREATE INDEX signed_offers_owner ON signed_offers (owner) WHERE closed_at IS NULL;

CREATE TABLE transactions (
    tx_hash        TEXT   NOT NULL PRIMARY KEY,
    kind           TEXT   NOT NULL CHECK (kind IN ('match', 'evict', 'close')),
    prepared       TEXT   NOT NULL,
    status         TEXT   NOT NULL CHECK (status IN ('recorded', 'sent', 'mined', 'failed', 'abandoned')),
    recorded_block BIGINT NOT NULL,
    mined_block    BIGINT
);
-- Those that may still change.
CREATE INDEX transactions_open ON transactions (status, mined_block);

-- What a match transaction proposes, and what became of it.
CREATE TABLE transaction_fills (
    tx_hash         TEXT   NOT NULL REFERENCES transactions (tx_hash) ON DELETE CASCADE,
    position        BIGINT NOT NULL,
    developer_offer TEXT   NOT NULL,
    provider_offer  TEXT   NOT NULL,
    -- 'opened', or the contract's reason; NULL until it is mined.
    outcome         TEXT,
    PRIMARY KEY (tx_hash, position)
);
CREATE INDEX transaction_fills_developer ON transaction_fills (developer_offer);

-- The deal that a keeper's transaction ends.
CREATE TABLE transaction_deals (
    tx_hash TEXT NOT NULL PRIMARY KEY REFERENCES transactions (tx_hash) ON DELETE CASCADE,
    deal_id TEXT NOT NULL
);

-- Developer offers whose match the chain refused, although it looked feasible: left alone until that block.
CREATE TABLE holds (
    developer_offer TEXT   NOT NULL PRIMARY KEY,
    failures        BIGINT NOT NULL,
    until_block     BIGINT NOT NULL
);

CREATE TABLE artifacts (
    digest    TEXT   NOT NULL PRIMARY KEY,
    size      BIGINT NOT NULL,
    features  TEXT   NOT NULL,
    stored_at BIGINT NOT NULL
);
