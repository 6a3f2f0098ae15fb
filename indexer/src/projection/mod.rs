//! Events → row changes. No I/O and no database types: rows are read through [`RowSource`] and handed back as images.
//!
//! Layout: [`rows`] is what a row is, [`ledger`] the working set with undo images, `touched` what it reads ahead,
//! [`payments`] what money it moves, this file what each event does.
//!
//! Everything is checked on the way: an event that contradicts the rows means that logs are missing, doubled or out of
//! order, and no guess is made.

pub mod ledger;
pub mod payments;
pub mod rows;
mod touched;

use common::{
    deal::{Deal, DealState},
    event::{DealChanged, DealOpened, MarketEvent, PlacedEvent},
    ids::{Address, DealId, OfferHash},
    money::{Atoms, MoneyError},
    resources::Resources,
    state::ArtifactVersion,
};
use thiserror::Error;

use self::{
    ledger::{Ledger, RowSource},
    payments::PaymentKind,
    rows::{AttestationRow, DealRow, DeveloperOfferRow, OpenedAt, ProviderOfferRow, Row, RowKey},
};

/// An event that contradicts the rows before it. There is no use in trying again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProjectionError {
    /// A sum of money left its range.
    #[error("{what} of {subject} does not add up")]
    Money {
        /// Balance, lock, payments …
        what: &'static str,
        /// Account or deal.
        subject: String,
        /// What went wrong.
        #[source]
        source: MoneyError,
    },
    /// The event names something that no earlier event has introduced.
    #[error("{what} {id} is unknown")]
    Unknown {
        /// Kind of thing.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The event introduces something a second time.
    #[error("{what} {id} was opened before")]
    Reopened {
        /// Kind of thing.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// A count left its range, such as capacity given back that nobody held.
    #[error("{what} of {id} leaves its range")]
    Count {
        /// What is counted.
        what: &'static str,
        /// Of what.
        id: String,
    },
}

impl ProjectionError {
    fn money(what: &'static str, subject: impl ToString) -> impl FnOnce(MoneyError) -> Self {
        move |source| Self::Money { what, subject: subject.to_string(), source }
    }

    fn count(what: &'static str, id: impl ToString) -> impl FnOnce() -> Self {
        move || Self::Count { what, id: id.to_string() }
    }
}

impl OpenedAt {
    fn of(event: &PlacedEvent) -> Self {
        Self { block: event.block_number, log_index: event.log_index }
    }
}

impl<S: RowSource> Ledger<'_, S> {
    /// Applies one event.
    pub async fn apply(&mut self, placed: &PlacedEvent) -> Result<(), S::Error> {
        let opened_at = OpenedAt::of(placed);
        self.payments.at(opened_at);
        match &placed.event {
            MarketEvent::Deposited { account, from, amount } => {
                self.note(PaymentKind::Deposit, (*from, *account), *amount);
                self.credit(*account, *amount).await
            }
            MarketEvent::Withdrawn { account, to, amount } => {
                self.note(PaymentKind::Withdrawal, (*account, *to), *amount);
                self.debit(*account, *amount).await
            }
            MarketEvent::ProviderOfferOpened { offer_hash, offer } => {
                let row = ProviderOfferRow { offer: offer.as_ref().clone(), used: Resources::default(), opened_at };
                let key = RowKey::ProviderOffer { hash: *offer_hash };
                self.create("provider offer", offer_hash, key, Row::ProviderOffer(Box::new(row))).await
            }
            MarketEvent::DeveloperOfferOpened { offer_hash, offer } => {
                let offer = offer.as_ref().clone();
                let row = DeveloperOfferRow { offer, live_replicas: 0, end_epoch: None, updated: None, opened_at };
                let key = RowKey::DeveloperOffer { hash: *offer_hash };
                self.create("developer offer", offer_hash, key, Row::DeveloperOffer(Box::new(row))).await
            }
            MarketEvent::OfferCancelled { owner, offer_hash } => {
                self.put(RowKey::Cancelled { owner: *owner, offer: *offer_hash }, Row::Cancelled).await
            }
            MarketEvent::NonceFloorRaised { owner, floor } => {
                self.put(RowKey::NonceFloor { owner: *owner }, Row::NonceFloor(*floor)).await
            }
            MarketEvent::MatchingPaused { paused } => self.put(RowKey::Matching, Row::Matching(*paused)).await,
            MarketEvent::Attested { agent, epoch, receipt_root, rolling_hash } => {
                let row = AttestationRow { receipt_root: *receipt_root, rolling_hash: *rolling_hash, opened_at };
                self.put(RowKey::Attestation { agent: *agent, epoch: *epoch }, Row::Attestation(row)).await
            }
            MarketEvent::DealOpened(opened) => self.open_deal(opened, opened_at).await,
            MarketEvent::DealFunded { .. }
            | MarketEvent::DealSettled { .. }
            | MarketEvent::DealUnfunded { .. }
            | MarketEvent::DealChanged(_)
            | MarketEvent::DealRefunded { .. }
            | MarketEvent::DealEnding { .. }
            | MarketEvent::DealEnded { .. } => self.change_deal(&placed.event).await,
            MarketEvent::ArtifactUpdated { developer_offer, version, artifact, manifest, artifact_url } => {
                let (artifact, manifest, artifact_url) = (*artifact, *manifest, artifact_url.clone());
                let mut row = self.developer_offer(*developer_offer).await?;
                row.updated = Some(ArtifactVersion { version: *version, artifact, manifest, artifact_url });
                self.put(RowKey::DeveloperOffer { hash: *developer_offer }, Row::DeveloperOffer(row)).await
            }
            MarketEvent::MatcherPaid { developer_offer, matcher, amount } => {
                let developer = self.developer_offer(*developer_offer).await?.offer.developer;
                self.note(PaymentKind::MatcherFee, (developer, *matcher), *amount);
                self.debit(developer, *amount).await?;
                self.credit(*matcher, *amount).await
            }
            // Kept as events; they change nothing.
            MarketEvent::MatchSkipped { .. } | MarketEvent::FillSkipped { .. } | MarketEvent::ClaimSkipped { .. } => {
                Ok(())
            }
        }
    }

    async fn open_deal(&mut self, opened: &DealOpened, opened_at: OpenedAt) -> Result<(), S::Error> {
        let mut demand = self.developer_offer(opened.developer_offer).await?;
        let supply = self.provider_offer(opened.provider_offer).await?;
        let deal = Deal::opened(opened, &demand.offer, &supply.offer, self.bond_epochs)
            .map_err(ProjectionError::money("bond", opened.deal_id))?;
        demand.live_replicas = demand
            .live_replicas
            .checked_add(1)
            .ok_or_else(ProjectionError::count("live replicas", opened.developer_offer))?;
        demand.end_epoch = Some(opened.end_epoch);
        self.put(RowKey::DeveloperOffer { hash: opened.developer_offer }, Row::DeveloperOffer(demand)).await?;
        self.resize(deal.provider_offer, Resources::default(), deal.size).await?;
        self.note(PaymentKind::Lock, (deal.developer, deal.developer), opened.locked);
        self.note(PaymentKind::Bond, (deal.provider, deal.provider), deal.bond);
        self.debit(deal.developer, opened.locked).await?;
        self.debit(deal.provider, deal.bond).await?;
        let row = DealRow { deal, funded: opened.locked, paid: Atoms::ZERO, refunded: Atoms::ZERO, opened_at };
        self.create("deal", &opened.deal_id, RowKey::Deal { id: opened.deal_id }, Row::Deal(Box::new(row))).await
    }

    /// Capacity of a provider offer that was held as `before` is now held as `after`.
    async fn resize(&mut self, hash: OfferHash, before: Resources, after: Resources) -> Result<(), S::Error> {
        let mut supply = self.provider_offer(hash).await?;
        let part = |used: u32, before: u32, after: u32| used.checked_sub(before)?.checked_add(after);
        let milli_cpu = part(supply.used.milli_cpu, before.milli_cpu, after.milli_cpu);
        let memory_mib = part(supply.used.memory_mib, before.memory_mib, after.memory_mib);
        supply.used = milli_cpu
            .zip(memory_mib)
            .map(|(milli_cpu, memory_mib)| Resources { milli_cpu, memory_mib })
            .ok_or_else(ProjectionError::count("used capacity", hash))?;
        self.put(RowKey::ProviderOffer { hash }, Row::ProviderOffer(supply)).await
    }

    /// Applies an event of a deal that was opened before.
    async fn change_deal(&mut self, event: &MarketEvent) -> Result<(), S::Error> {
        match event {
            MarketEvent::DealFunded { deal_id, from, amount, paid_until } => {
                let mut row = self.deal(*deal_id).await?;
                row.lock(*amount)?;
                row.deal.paid_until = *paid_until;
                row.deal.unfunded_since = None;
                self.note(PaymentKind::Lock, (*from, row.deal.developer), *amount);
                self.put_deal(row).await?;
                self.debit(*from, *amount).await
            }
            MarketEvent::DealSettled { deal_id, paid, topped_up, settled_until } => {
                let mut row = self.deal(*deal_id).await?;
                let (developer, supply) = (row.deal.developer, row.deal.provider_offer);
                row.lock(*topped_up)?;
                row.pay(*paid)?;
                row.deal.settled_until = *settled_until;
                row.deal.paid_until = row.deal.covered_until();
                // A settlement that finds no money says so in an event of its own, right after this one.
                row.deal.unfunded_since = None;
                self.put_deal(row).await?;
                let payout = self.payout(supply).await?;
                self.note(PaymentKind::Hosting, (developer, payout), *paid);
                self.note(PaymentKind::Lock, (developer, developer), *topped_up);
                self.debit(developer, *topped_up).await?;
                self.credit(payout, *paid).await
            }
            MarketEvent::DealUnfunded { deal_id, since } => {
                let mut row = self.deal(*deal_id).await?;
                row.deal.unfunded_since = Some(*since);
                row.deal.paid_until = (*since).min(row.deal.end_epoch);
                self.put_deal(row).await
            }
            MarketEvent::DealChanged(changed) => self.change_terms(changed).await,
            MarketEvent::DealRefunded { deal_id, refunded, paid_until } => {
                let mut row = self.deal(*deal_id).await?;
                let developer = row.deal.developer;
                row.refund(*refunded)?;
                row.deal.paid_until = *paid_until;
                self.note(PaymentKind::Refund, (developer, developer), *refunded);
                self.put_deal(row).await?;
                self.credit(developer, *refunded).await
            }
            MarketEvent::DealEnding { deal_id, cause, end_epoch, refunded } => {
                let mut row = self.deal(*deal_id).await?;
                let developer = row.deal.developer;
                row.refund(*refunded)?;
                row.deal.state = DealState::Ending;
                row.deal.cause = Some(*cause);
                row.deal.end_epoch = *end_epoch;
                row.deal.paid_until = row.deal.paid_until.min(*end_epoch);
                self.note(PaymentKind::Refund, (developer, developer), *refunded);
                self.put_deal(row).await?;
                self.credit(developer, *refunded).await
            }
            MarketEvent::DealEnded { deal_id, cause, refunded, bond_to, bond } => {
                let mut row = self.deal(*deal_id).await?;
                let deal = row.deal.clone();
                row.refund(*refunded)?;
                row.deal.end(*cause);
                self.put_deal(row).await?;
                self.release(&deal).await?;
                let back = if *bond_to == deal.provider { PaymentKind::BondReturn } else { PaymentKind::BondForfeit };
                self.note(PaymentKind::Refund, (deal.developer, deal.developer), *refunded);
                self.note(back, (deal.provider, *bond_to), *bond);
                self.credit(deal.developer, *refunded).await?;
                self.credit(*bond_to, *bond).await
            }
            // The caller passes no other event.
            _ => Ok(()),
        }
    }

    async fn change_terms(&mut self, changed: &DealChanged) -> Result<(), S::Error> {
        let mut row = self.deal(changed.deal_id).await?;
        let before = row.deal.clone();
        row.deal.change(changed);
        self.put_deal(row).await?;
        self.resize(before.provider_offer, before.size, changed.size).await?;
        let (kind, more, less) = if changed.bond > before.bond {
            (PaymentKind::Bond, changed.bond, before.bond)
        } else {
            (PaymentKind::BondReturn, before.bond, changed.bond)
        };
        let moved = more.checked_sub(less).map_err(ProjectionError::money("bond", before.id))?;
        self.note(kind, (before.provider, before.provider), moved);
        self.credit(before.provider, before.bond).await?;
        self.debit(before.provider, changed.bond).await
    }

    /// Gives a deal's capacity and place back.
    async fn release(&mut self, deal: &Deal) -> Result<(), S::Error> {
        let mut demand = self.developer_offer(deal.developer_offer).await?;
        demand.live_replicas = demand
            .live_replicas
            .checked_sub(1)
            .ok_or_else(ProjectionError::count("live replicas", deal.developer_offer))?;
        self.put(RowKey::DeveloperOffer { hash: deal.developer_offer }, Row::DeveloperOffer(demand)).await?;
        self.resize(deal.provider_offer, deal.size, Resources::default()).await
    }

    fn note(&mut self, kind: PaymentKind, sides: (Address, Address), amount: Atoms) {
        self.payments.note(kind, sides, amount);
    }

    async fn credit(&mut self, account: Address, amount: Atoms) -> Result<(), S::Error> {
        let free = self.free(account).await?;
        let free = free.checked_add(amount).map_err(ProjectionError::money("free balance", account))?;
        self.put(RowKey::Balance { account }, Row::Balance(free)).await
    }

    async fn debit(&mut self, account: Address, amount: Atoms) -> Result<(), S::Error> {
        let free = self.free(account).await?;
        let free = free.checked_sub(amount).map_err(ProjectionError::money("free balance", account))?;
        self.put(RowKey::Balance { account }, Row::Balance(free)).await
    }

    async fn free(&mut self, account: Address) -> Result<Atoms, S::Error> {
        match self.get(RowKey::Balance { account }).await? {
            Some(Row::Balance(free)) => Ok(*free),
            _ => Ok(Atoms::ZERO),
        }
    }

    async fn provider_offer(&mut self, hash: OfferHash) -> Result<Box<ProviderOfferRow>, S::Error> {
        match self.get(RowKey::ProviderOffer { hash }).await? {
            Some(Row::ProviderOffer(row)) => Ok(row.clone()),
            _ => Err(ProjectionError::Unknown { what: "provider offer", id: hash.to_string() }.into()),
        }
    }

    /// The account that a provider offer's deals pay.
    async fn payout(&mut self, hash: OfferHash) -> Result<Address, S::Error> {
        match self.get(RowKey::ProviderOffer { hash }).await? {
            Some(Row::ProviderOffer(row)) => Ok(row.offer.payout),
            _ => Err(ProjectionError::Unknown { what: "provider offer", id: hash.to_string() }.into()),
        }
    }

    async fn developer_offer(&mut self, hash: OfferHash) -> Result<Box<DeveloperOfferRow>, S::Error> {
        match self.get(RowKey::DeveloperOffer { hash }).await? {
            Some(Row::DeveloperOffer(row)) => Ok(row.clone()),
            _ => Err(ProjectionError::Unknown { what: "developer offer", id: hash.to_string() }.into()),
        }
    }

    async fn deal(&mut self, id: DealId) -> Result<Box<DealRow>, S::Error> {
        match self.get(RowKey::Deal { id }).await? {
            Some(Row::Deal(row)) => Ok(row.clone()),
            _ => Err(ProjectionError::Unknown { what: "deal", id: id.to_string() }.into()),
        }
    }

    async fn put_deal(&mut self, row: Box<DealRow>) -> Result<(), S::Error> {
        self.put(RowKey::Deal { id: row.deal.id }, Row::Deal(row)).await
    }

    /// Stores a row that must not be there yet.
    async fn create(&mut self, what: &'static str, id: &impl ToString, key: RowKey, row: Row) -> Result<(), S::Error> {
        if self.get(key).await?.is_some() {
            return Err(ProjectionError::Reopened { what, id: id.to_string() }.into());
        }
        self.put(key, row).await
    }
}

impl DealRow {
    fn lock(&mut self, amount: Atoms) -> Result<(), ProjectionError> {
        let id = self.deal.id;
        self.deal.locked = self.deal.locked.checked_add(amount).map_err(ProjectionError::money("lock", id))?;
        self.funded = self.funded.checked_add(amount).map_err(ProjectionError::money("funding", id))?;
        Ok(())
    }

    fn pay(&mut self, amount: Atoms) -> Result<(), ProjectionError> {
        let id = self.deal.id;
        self.deal.locked = self.deal.locked.checked_sub(amount).map_err(ProjectionError::money("lock", id))?;
        self.paid = self.paid.checked_add(amount).map_err(ProjectionError::money("payments", id))?;
        Ok(())
    }

    fn refund(&mut self, amount: Atoms) -> Result<(), ProjectionError> {
        let id = self.deal.id;
        self.deal.locked = self.deal.locked.checked_sub(amount).map_err(ProjectionError::money("lock", id))?;
        self.refunded = self.refunded.checked_add(amount).map_err(ProjectionError::money("refunds", id))?;
        Ok(())
    }
}
