-- Why: a person with a SQL prompt should not have to join tables to see a deal, a provider or an account. These views are
-- for people and reports; the service does not read them, so they may cost more than its own queries. Amounts are atoms.

CREATE VIEW payment_overview AS
SELECT p.block_number, b.timestamp AS block_time, p.log_index, p.part, e.tx_hash, p.kind, p.from_account, p.to_account,
       p.amount, p.deal_id, d.developer, d.provider
FROM payments p
JOIN events e ON e.block_number = p.block_number AND e.log_index = p.log_index
JOIN blocks b ON b.number = p.block_number
LEFT JOIN deals d ON d.deal_id = p.deal_id;

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

CREATE VIEW provider_overview AS
SELECT p.provider, p.offers, coalesce(b.free, 0) AS free_balance, coalesce(d.bonded, 0) AS bonded,
       coalesce(d.earned, 0) AS earned, coalesce(d.active_deals, 0) AS active_deals,
       coalesce(d.ending_deals, 0) AS ending_deals, coalesce(d.ended_deals, 0) AS ended_deals,
       coalesce(d.evictions, 0) AS evictions, p.first_block
FROM (SELECT provider, count(*) AS offers, min(opened_block) AS first_block FROM provider_offers GROUP BY provider) AS p
LEFT JOIN balances b ON b.account = p.provider
LEFT JOIN (
    SELECT provider, CAST(sum(bond) AS BIGINT) AS bonded, CAST(sum(paid) AS BIGINT) AS earned,
           count(*) FILTER (WHERE state = 'active') AS active_deals,
           count(*) FILTER (WHERE state = 'ending') AS ending_deals,
           count(*) FILTER (WHERE state = 'ended') AS ended_deals,
           count(*) FILTER (WHERE cause = 'provider_evicted') AS evictions
    FROM deals GROUP BY provider
) AS d ON d.provider = p.provider;

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
