-- Why: the chain answers "what happened in this block", nobody's question. This schema holds the events as they were
-- logged, what they add up to, and enough to take the newest of them back when the chain reorganizes.
--
-- Conventions: hashes, ids and addresses are lower-case hex TEXT with 0x; money is BIGINT atoms; 64-bit numbers that a
-- stranger chooses freely are decimal TEXT, as they need not fit a BIGINT; structures are JSON TEXT.
-- There are no foreign keys: rows are written as images, in any order, by one writer in one transaction.

-- Which market this database is about, so that it is never continued from another one.
CREATE TABLE market (
    id       BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    chain_id BIGINT NOT NULL,
    address  TEXT   NOT NULL,
    terms    TEXT   NOT NULL
);

-- How far the projection is, and how much of that can no longer change.
CREATE TABLE checkpoint (
    id               BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    block_number     BIGINT,
    finalized_number BIGINT
);
INSERT INTO checkpoint (id, block_number, finalized_number) VALUES (1, NULL, NULL);

CREATE TABLE blocks (
    number      BIGINT NOT NULL PRIMARY KEY,
    hash        TEXT   NOT NULL UNIQUE,
    parent_hash TEXT   NOT NULL,
    timestamp   BIGINT NOT NULL,
    event_count BIGINT NOT NULL
);
-- Empty blocks are kept only for finding forks, and are pruned once they are final.
CREATE INDEX blocks_empty ON blocks (number) WHERE event_count = 0;

CREATE TABLE events (
    block_hash   TEXT   NOT NULL,
    log_index    BIGINT NOT NULL,
    block_number BIGINT NOT NULL,
    tx_hash      TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    deal_id      TEXT,
    payload      TEXT   NOT NULL,
    PRIMARY KEY (block_hash, log_index)
);
CREATE UNIQUE INDEX events_place ON events (block_number, log_index);
CREATE INDEX events_deal ON events (deal_id, block_number, log_index) WHERE deal_id IS NOT NULL;

-- What rows were before a block that may yet be reorganized away.
CREATE TABLE undo (
    block_number BIGINT NOT NULL,
    row_key      TEXT   NOT NULL,
    row_before   TEXT,
    PRIMARY KEY (block_number, row_key)
);

CREATE TABLE balances (
    account TEXT   NOT NULL PRIMARY KEY,
    free    BIGINT NOT NULL CHECK (free >= 0)
);

CREATE TABLE nonce_floors (
    owner TEXT NOT NULL PRIMARY KEY,
    floor TEXT NOT NULL
);

CREATE TABLE cancelled_offers (
    owner      TEXT NOT NULL,
    offer_hash TEXT NOT NULL,
    PRIMARY KEY (owner, offer_hash)
);

CREATE TABLE matching (
    id     BIGINT  NOT NULL PRIMARY KEY CHECK (id = 1),
    paused BOOLEAN NOT NULL
);

CREATE TABLE provider_offers (
    offer_hash       TEXT   NOT NULL PRIMARY KEY,
    provider         TEXT   NOT NULL,
    region           TEXT   NOT NULL,
    offer            TEXT   NOT NULL,
    used_milli_cpu   BIGINT NOT NULL,
    used_memory_mib  BIGINT NOT NULL,
    opened_block     BIGINT NOT NULL,
    opened_log_index BIGINT NOT NULL
);
CREATE UNIQUE INDEX provider_offers_place ON provider_offers (opened_block, opened_log_index);
CREATE INDEX provider_offers_provider ON provider_offers (provider, opened_block, opened_log_index);

CREATE TABLE developer_offers (
    offer_hash       TEXT   NOT NULL PRIMARY KEY,
    developer        TEXT   NOT NULL,
    offer            TEXT   NOT NULL,
    live_replicas    BIGINT NOT NULL,
    end_epoch        BIGINT,
    updated          TEXT,
    opened_block     BIGINT NOT NULL,
    opened_log_index BIGINT NOT NULL
);
CREATE UNIQUE INDEX developer_offers_place ON developer_offers (opened_block, opened_log_index);
CREATE INDEX developer_offers_developer ON developer_offers (developer, opened_block, opened_log_index);

CREATE TABLE deals (
    deal_id          TEXT   NOT NULL PRIMARY KEY,
    developer_offer  TEXT   NOT NULL,
    provider_offer   TEXT   NOT NULL,
    developer        TEXT   NOT NULL,
    provider         TEXT   NOT NULL,
    agent            TEXT   NOT NULL,
    milli_cpu        BIGINT NOT NULL,
    memory_mib       BIGINT NOT NULL,
    price_per_epoch  BIGINT NOT NULL CHECK (price_per_epoch >= 0),
    old_price_until     BIGINT,
    old_price_per_epoch BIGINT,
    changes          BIGINT NOT NULL,
    start_epoch      BIGINT NOT NULL,
    end_epoch        BIGINT NOT NULL,
    settled_until    BIGINT NOT NULL,
    paid_until       BIGINT NOT NULL,
    locked           BIGINT NOT NULL CHECK (locked >= 0),
    bond             BIGINT NOT NULL CHECK (bond >= 0),
    unfunded_since   BIGINT,
    state            TEXT   NOT NULL,
    cause            TEXT,
    funded           BIGINT NOT NULL CHECK (funded >= 0),
    paid             BIGINT NOT NULL CHECK (paid >= 0),
    refunded         BIGINT NOT NULL CHECK (refunded >= 0),
    opened_block     BIGINT NOT NULL,
    opened_log_index BIGINT NOT NULL
);
CREATE UNIQUE INDEX deals_place ON deals (opened_block, opened_log_index);
CREATE INDEX deals_developer_offer ON deals (developer_offer, opened_block, opened_log_index);
CREATE INDEX deals_developer ON deals (developer, opened_block, opened_log_index);
CREATE INDEX deals_provider ON deals (provider, opened_block, opened_log_index);
CREATE INDEX deals_agent ON deals (agent, opened_block, opened_log_index);
-- Ended deals pile up; those that are not are what everyone asks for.
CREATE INDEX deals_open ON deals (developer_offer) WHERE state <> 'ended';

CREATE TABLE attestations (
    agent        TEXT   NOT NULL,
    epoch        BIGINT NOT NULL,
    receipt_root TEXT   NOT NULL,
    rolling_hash TEXT   NOT NULL,
    block_number BIGINT NOT NULL,
    log_index    BIGINT NOT NULL,
    PRIMARY KEY (agent, epoch)
);
