//! Events → row changes. No I/O and no database types: rows are read through [`RowSource`] and handed back as images.
//!
//! Layout: [`rows`] is what a row is, [`ledger`] the working set with undo images, this file what each event does.
//!
//! Everything is checked on the way: an event that contradicts the rows means that logs are missing, doubled or out of
//! order, and no guess is made.

pub mod ledger;
pub mod rows;

use common::{
    deal::{Deal, DealState},
    event::{DealOpened, MarketEvent, PlacedEvent},
    ids::{Address, DealId, OfferHash},
    money::{Atoms, MoneyError},
    resources::Resources,
};
use thiserror::Error;

use self::{
    ledger::{Ledger, RowSource},
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
        match &placed.event {
            MarketEvent::Deposited { account, amount, .. } => self.credit(*account, *amount).await,
            MarketEvent::Withdrawn { account, amount, .. } => self.debit(*account, *amount).await,
            MarketEvent::ProviderOfferOpened { offer_hash, offer } => {
                let row = ProviderOfferRow { offer: offer.as_ref().clone(), used: Resources::default(), opened_at };
                let key = RowKey::ProviderOffer { hash: *offer_hash };
                self.create("provider offer", offer_hash, key, Row::ProviderOffer(Box::new(row))).await
            }
            MarketEvent::DeveloperOfferOpened { offer_hash, offer } => {
                let offer = offer.as_ref().clone();
                let row = DeveloperOfferRow { offer, live_replicas: 0, end_epoch: None, opened_at };
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
            | MarketEvent::DealEnding { .. }
            | MarketEvent::DealEnded { .. } => self.change_deal(&placed.event).await,
            // Kept as events; they change nothing.
            MarketEvent::MatchSkipped { .. } | MarketEvent::FillSkipped { .. } | MarketEvent::ClaimSkipped { .. } => {
                Ok(())
            }
        }
    }

    async fn open_deal(&mut self, opened: &DealOpened, opened_at: OpenedAt) -> Result<(), S::Error> {
        self.debit(opened.developer, opened.locked).await?;
        self.debit(opened.provider, opened.bond).await?;

        let mut demand = self.developer_offer(opened.developer_offer).await?;
        demand.live_replicas = demand
            .live_replicas
            .checked_add(1)
            .ok_or_else(ProjectionError::count("live replicas", opened.developer_offer))?;
        demand.end_epoch = Some(opened.end_epoch);
        let size = demand.offer.size;
        self.put(RowKey::DeveloperOffer { hash: opened.developer_offer }, Row::DeveloperOffer(demand)).await?;

        let mut supply = self.provider_offer(opened.provider_offer).await?;
        let used =
            supply.used.milli_cpu.checked_add(size.milli_cpu).zip(supply.used.memory_mib.checked_add(size.memory_mib));
        supply.used = used
            .map(|(milli_cpu, memory_mib)| Resources { milli_cpu, memory_mib })
            .ok_or_else(ProjectionError::count("used capacity", opened.provider_offer))?;
        self.put(RowKey::ProviderOffer { hash: opened.provider_offer }, Row::ProviderOffer(supply)).await?;

        let row = Row::Deal(Box::new(DealRow::opened(opened, opened_at)));
        self.create("deal", &opened.deal_id, RowKey::Deal { id: opened.deal_id }, row).await
    }

    /// Applies an event of a deal that was opened before.
    async fn change_deal(&mut self, event: &MarketEvent) -> Result<(), S::Error> {
        match event {
            MarketEvent::DealFunded { deal_id, from, amount, paid_until } => {
                let mut row = self.deal(*deal_id).await?;
                row.lock(*amount)?;
                row.deal.paid_until = *paid_until;
                row.deal.unfunded_since = None;
                self.put_deal(row).await?;
                self.debit(*from, *amount).await
            }
            MarketEvent::DealSettled { deal_id, payout, paid, topped_up, settled_until, paid_until, .. } => {
                let mut row = self.deal(*deal_id).await?;
                let developer = row.deal.developer;
                row.lock(*topped_up)?;
                row.pay(*paid)?;
                row.deal.settled_until = *settled_until;
                row.deal.paid_until = *paid_until;
                // A settlement that finds no money says so in an event of its own, right after this one.
                row.deal.unfunded_since = None;
                self.put_deal(row).await?;
                self.debit(developer, *topped_up).await?;
                self.credit(*payout, *paid).await
            }
            MarketEvent::DealUnfunded { deal_id, since } => {
                let mut row = self.deal(*deal_id).await?;
                row.deal.unfunded_since = Some(*since);
                self.put_deal(row).await
            }
            MarketEvent::DealEnding { deal_id, cause, end_epoch, refunded } => {
                let mut row = self.deal(*deal_id).await?;
                let developer = row.deal.developer;
                row.refund(*refunded)?;
                row.deal.state = DealState::Ending;
                row.deal.cause = Some(*cause);
                row.deal.end_epoch = *end_epoch;
                row.deal.paid_until = row.deal.paid_until.min(*end_epoch);
                self.put_deal(row).await?;
                self.credit(developer, *refunded).await
            }
            MarketEvent::DealEnded { deal_id, cause, refunded, bond_to, bond } => {
                let mut row = self.deal(*deal_id).await?;
                let deal = row.deal.clone();
                row.refund(*refunded)?;
                row.deal.state = DealState::Ended;
                row.deal.cause = Some(*cause);
                row.deal.bond = Atoms::ZERO;
                self.put_deal(row).await?;
                self.release(&deal).await?;
                self.credit(deal.developer, *refunded).await?;
                self.credit(*bond_to, *bond).await
            }
            // The caller passes no other event.
            _ => Ok(()),
        }
    }

    /// Gives a deal's capacity and place back.
    async fn release(&mut self, deal: &Deal) -> Result<(), S::Error> {
        let mut demand = self.developer_offer(deal.developer_offer).await?;
        demand.live_replicas = demand
            .live_replicas
            .checked_sub(1)
            .ok_or_else(ProjectionError::count("live replicas", deal.developer_offer))?;
        let size = demand.offer.size;
        self.put(RowKey::DeveloperOffer { hash: deal.developer_offer }, Row::DeveloperOffer(demand)).await?;

        let mut supply = self.provider_offer(deal.provider_offer).await?;
        let used =
            supply.used.milli_cpu.checked_sub(size.milli_cpu).zip(supply.used.memory_mib.checked_sub(size.memory_mib));
        supply.used = used
            .map(|(milli_cpu, memory_mib)| Resources { milli_cpu, memory_mib })
            .ok_or_else(ProjectionError::count("used capacity", deal.provider_offer))?;
        self.put(RowKey::ProviderOffer { hash: deal.provider_offer }, Row::ProviderOffer(supply)).await
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
            Some(Row::Balance(free)) => Ok(free),
            _ => Ok(Atoms::ZERO),
        }
    }

    async fn provider_offer(&mut self, hash: OfferHash) -> Result<Box<ProviderOfferRow>, S::Error> {
        match self.get(RowKey::ProviderOffer { hash }).await? {
            Some(Row::ProviderOffer(row)) => Ok(row),
            _ => Err(ProjectionError::Unknown { what: "provider offer", id: hash.to_string() }.into()),
        }
    }

    async fn developer_offer(&mut self, hash: OfferHash) -> Result<Box<DeveloperOfferRow>, S::Error> {
        match self.get(RowKey::DeveloperOffer { hash }).await? {
            Some(Row::DeveloperOffer(row)) => Ok(row),
            _ => Err(ProjectionError::Unknown { what: "developer offer", id: hash.to_string() }.into()),
        }
    }

    async fn deal(&mut self, id: DealId) -> Result<Box<DealRow>, S::Error> {
        match self.get(RowKey::Deal { id }).await? {
            Some(Row::Deal(row)) => Ok(row),
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
    fn opened(opened: &DealOpened, opened_at: OpenedAt) -> Self {
        // A deal that costs nothing is covered to its end.
        let covered = opened.locked.get().checked_div(opened.price_per_epoch.get());
        let epochs_covered = covered.and_then(|epochs| u32::try_from(epochs).ok()).unwrap_or(u32::MAX);
        let deal = Deal {
            id: opened.deal_id,
            developer_offer: opened.developer_offer,
            provider_offer: opened.provider_offer,
            developer: opened.developer,
            provider: opened.provider,
            agent: opened.agent,
            price_per_epoch: opened.price_per_epoch,
            start_epoch: opened.start_epoch,
            end_epoch: opened.end_epoch,
            settled_until: opened.start_epoch,
            paid_until: opened.start_epoch.plus(epochs_covered).min(opened.end_epoch),
            locked: opened.locked,
            bond: opened.bond,
            unfunded_since: None,
            state: DealState::Active,
            cause: None,
        };
        Self { deal, funded: opened.locked, paid: Atoms::ZERO, refunded: Atoms::ZERO, opened_at }
    }

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
