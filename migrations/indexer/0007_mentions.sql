-- Why: explorers ask for all that happened to an account. Where money moved, payments say whose it was; deals, offers and
-- attestations name their accounts; what is left (the agent and the payout account of an offer, a matcher that is named,
-- who voided an offer, whose artifact was updated) stood inside the events' payloads, where no query finds it.
--
-- Mentions are noted while events are projected, so what was indexed before is fetched again from the chain; the service
-- makes the indexes.

CREATE TABLE mentions (
    block_number BIGINT NOT NULL,
    log_index    BIGINT NOT NULL,
    account      BIGINT NOT NULL,
    PRIMARY KEY (block_number, log_index, account)
);

UPDATE checkpoint SET block_number = NULL, finalized_number = NULL;
DELETE FROM undo;
DELETE FROM events;
DELETE FROM payments;
DELETE FROM accounts;
DELETE FROM blocks;
DELETE FROM balances;
DELETE FROM nonce_floors;
DELETE FROM cancelled_offers;
DELETE FROM matching;
DELETE FROM provider_offers;
DELETE FROM developer_offers;
DELETE FROM deals;
DELETE FROM attestations;
