-- Why: an event is found by where it is logged, so its block's hash, which `blocks` has, was one long column and one long
-- index too many; so was the deal of a payment, which its event has. The indexes that only serve readers are no longer
-- part of the schema: the service makes them when it has caught up, since a table is filled faster without them.
--
-- What was indexed before is fetched again from the chain.

DROP VIEW payment_overview;
DROP VIEW deal_overview;
DROP VIEW account_overview;
DROP TABLE events;
DROP TABLE payments;

CREATE TABLE events (
    block_number BIGINT NOT NULL,
    log_index    BIGINT NOT NULL,
    tx_hash      TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    deal_id      TEXT,
    payload      TEXT   NOT NULL,
    PRIMARY KEY (block_number, log_index)
);

CREATE TABLE payments (
    block_number BIGINT NOT NULL,
    log_index    BIGINT NOT NULL,
    part         BIGINT NOT NULL CHECK (part IN (0, 1)),
    kind         TEXT   NOT NULL,
    from_account TEXT   NOT NULL,
    to_account   TEXT   NOT NULL,
    amount       BIGINT NOT NULL CHECK (amount > 0),
    PRIMARY KEY (block_number, log_index, part)
);

CREATE VIEW payment_overview AS
SELECT p.block_number, b.timestamp AS block_time, p.log_index, p.part, e.tx_hash, p.kind, p.from_account, p.to_account,
       p.amount, e.deal_id, d.developer, d.provider
FROM payments p
JOIN events e ON e.block_number = p.block_number AND e.log_index = p.log_index
JOIN blocks b ON b.number = p.block_number
LEFT JOIN deals d ON d.deal_id = e.deal_id;

CREATE VIEW deal_overview AS
SELECT d.deal_id, d.developer_offer, d.provider_offer, d.developer, d.provider, d.agent, o.region, d.milli_cpu,
       d.memory_mib, d.price_per_epoch, d.state, d.cause, d.start_epoch, d.end_epoch, d.settled_until, d.paid_until,
       d.unfunded_since, d.funded, d.paid, d.refunded, d.locked, d.bond,
       d.funded - d.paid - d.refunded - d.locked AS missing, d.changes, b.timestamp AS opened_time,
       d.opened_block, e.tx_hash AS opened_tx,
       (SELECT count(*) FROM attestations a
        WHERE a.agent = d.agent AND a.epoch >= d.start_epoch AND a.epoch < d.end_epoch) AS attested_epochs
FROM deals d
JOIN provider_offers o ON o.offer_hash = d.provider_offer
JOIN events e ON e.block_number = d.opened_block AND e.log_index = d.opened_log_index
JOIN blocks b ON b.number = d.opened_block;

CREATE VIEW account_overview AS
SELECT b.account, b.free AS free_balance, coalesce(o.locked, 0) AS locked, coalesce(h.bonded, 0) AS bonded,
       coalesce(m.deposited, 0) AS deposited, coalesce(w.withdrawn, 0) AS withdrawn,
       coalesce(o.paid, 0) AS paid_to_providers, coalesce(m.received, 0) AS received_for_hosting,
       coalesce(o.deals, 0) AS deals_paid_for, coalesce(h.deals, 0) AS deals_hosted
FROM balances b
LEFT JOIN (
    SELECT developer, count(*) AS deals, CAST(sum(locked) AS BIGINT) AS locked, CAST(sum(paid) AS BIGINT) AS paid
    FROM deals GROUP BY developer
) AS o ON o.developer = b.account
LEFT JOIN (
    SELECT provider, count(*) AS deals, CAST(sum(bond) AS BIGINT) AS bonded FROM deals GROUP BY provider
) AS h ON h.provider = b.account
LEFT JOIN (
    SELECT to_account, CAST(sum(amount) FILTER (WHERE kind = 'deposit') AS BIGINT) AS deposited,
           CAST(sum(amount) FILTER (WHERE kind = 'hosting') AS BIGINT) AS received
    FROM payments WHERE kind IN ('deposit', 'hosting') GROUP BY to_account
) AS m ON m.to_account = b.account
LEFT JOIN (
    SELECT from_account, CAST(sum(amount) AS BIGINT) AS withdrawn
    FROM payments WHERE kind = 'withdrawal' GROUP BY from_account
) AS w ON w.from_account = b.account;

DROP INDEX attestations_place;
DROP INDEX attestations_epoch;
DROP INDEX provider_offers_place;
DROP INDEX provider_offers_provider;
DROP INDEX developer_offers_place;
DROP INDEX developer_offers_developer;
DROP INDEX deals_place;
DROP INDEX deals_developer_offer;
DROP INDEX deals_developer;
DROP INDEX deals_provider;
DROP INDEX deals_agent;
DROP INDEX deals_open;

UPDATE checkpoint SET block_number = NULL, finalized_number = NULL;
DELETE FROM undo;
DELETE FROM blocks;
DELETE FROM balances;
DELETE FROM nonce_floors;
DELETE FROM cancelled_offers;
DELETE FROM matching;
DELETE FROM provider_offers;
DELETE FROM developer_offers;
DELETE FROM deals;
DELETE FROM attestations;
