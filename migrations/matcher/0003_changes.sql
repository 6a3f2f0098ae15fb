-- Why: whoever has the open offers in memory wants to learn what has become of them since, also when another process has
-- changed them, without reading all of them again. Every change of an offer gets the next number.

ALTER TABLE acceptance ADD COLUMN next_change BIGINT NOT NULL DEFAULT 1;
-- Number of the row's last change; 0 for what was there before there were numbers.
ALTER TABLE signed_offers ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX signed_offers_changed ON signed_offers (changed);
