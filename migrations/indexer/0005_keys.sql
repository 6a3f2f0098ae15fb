-- Why: an index of 42 and 66 byte texts is slow to make, and large. What readers look for in long tables is found by whole
-- numbers now: accounts and deals by the last eight bytes of their names, beside which the names still decide, since
-- others may end alike; and the events of a kind by its number.
--
-- What was indexed before is fetched again from the chain; the service makes the indexes.

DROP INDEX IF EXISTS events_deal;
DROP INDEX IF EXISTS events_kind;
DROP INDEX IF EXISTS payments_from;
DROP INDEX IF EXISTS payments_to;

UPDATE checkpoint SET block_number = NULL, finalized_number = NULL;
DELETE FROM undo;
DELETE FROM events;
DELETE FROM payments;
DELETE FROM blocks;
DELETE FROM balances;
DELETE FROM nonce_floors;
DELETE FROM cancelled_offers;
DELETE FROM matching;
DELETE FROM provider_offers;
DELETE FROM developer_offers;
DELETE FROM deals;
DELETE FROM attestations;

ALTER TABLE events DROP COLUMN kind;
ALTER TABLE events ADD COLUMN kind BIGINT NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN deal_key BIGINT;
ALTER TABLE payments ADD COLUMN from_key BIGINT NOT NULL DEFAULT 0;
ALTER TABLE payments ADD COLUMN to_key BIGINT NOT NULL DEFAULT 0;
