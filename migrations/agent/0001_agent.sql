-- Why: after a crash the agent must go on where it was without asking the chain: which workers run, what was served, and
-- which transactions may be on their way.
--
-- Conventions: hashes and ids are lower-case hex TEXT with 0x; structures are JSON TEXT; times are seconds since 1970.
-- One writer: the agent whose data folder this is.

-- Single facts: which market this database is about, and how far the chain was searched for deals.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Deals that named this agent, as last read from the chain, with the offer that they serve.
CREATE TABLE replicas (
    deal_id       TEXT    NOT NULL PRIMARY KEY,
    deal          TEXT    NOT NULL,
    offer         TEXT    NOT NULL,
    -- Block at which the chain first knew the deal no more; NULL while it does.
    missing_since INTEGER
) STRICT, WITHOUT ROWID;

-- In which epochs a deal's worker was ready at least once.
CREATE TABLE served (
    epoch   INTEGER NOT NULL,
    deal_id TEXT    NOT NULL,
    PRIMARY KEY (epoch, deal_id)
) STRICT, WITHOUT ROWID;

-- Requests served per deal and epoch: their number and rolling hash.
CREATE TABLE receipts (
    epoch   INTEGER NOT NULL,
    deal_id TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    hash    BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (epoch, deal_id)
) STRICT, WITHOUT ROWID;

-- Transactions, written before they are sent.
CREATE TABLE outbox (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind       TEXT    NOT NULL CHECK (kind IN ('attest', 'claim')),
    -- The attested epoch; NULL for claims.
    epoch      INTEGER,
    tx_hash    TEXT    NOT NULL UNIQUE,
    -- Hash, nonce and signed bytes, ready to be sent again.
    prepared   TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('open', 'mined', 'reverted', 'dropped')),
    created_at INTEGER NOT NULL,
    gas_used   INTEGER
) STRICT;
CREATE INDEX outbox_open ON outbox (id) WHERE state = 'open';
