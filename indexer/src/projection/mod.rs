//! Events → row changes. No I/O and no database types: rows are read through [`RowSource`] and handed back as images.
//!
//! Layout: [`rows`] is what a row is, [`ledger`] the working set with undo images, `touched` what it reads ahead,
//! [`payments`] what money it moves, [`mentions`] whom else an event concerns, this file what each event does, `deals`
//! what those of a deal do.
//!
//! Everything is checked on the way: an event that contradicts the rows means that logs are missing, doubled or out of
//! order, and no guess is made.

mod deals;
pub mod ledger;
pub mod mentions;
pub mod payments;
pub mod rows;
mod touched;

use common::{
    event::{MarketEvent, PlacedEvent},
    ids::{Address, OfferHash},
    money::{Atoms, MoneyError},
    resources::Resources,
    state::ArtifactVersion,
};
use thiserror::Error;

use self::{
    ledger::{Ledger, RowSource},
    payments::PaymentKind,
    rows::{AttestationRow, DeveloperOfferRow, OpenedAt, ProviderOfferRow, Row, RowKey},
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
        self.apply_to_rows(&placed.event, opened_at).await?;
        let developer = match placed.event.developers_offer() {
            Some(offer) => Some(self.developer_offer(offer).await?.offer.developer),
            None => None,
        };
        self.mentions.note(&placed.event, opened_at, developer, &self.payments);
        Ok(())
    }

    async fn apply_to_rows(&mut self, event: &MarketEvent, opened_at: OpenedAt) -> Result<(), S::Error> {
        match event {
            MarketEvent::Deposited { account, from, amount } => {
                self.note(PaymentKind::Deposit, (*from, *account), *amount);
                self.credit(*account, *amount).await
            }
            MarketEvent::Withdrawn { account, to, amount } => {
                self.note(PaymentKind::Withdrawal, (*account, *to), *amount);
                self.debit(*account, *amount).await
            }
            MarketEvent::ProviderOfferOpened { .. }
            | MarketEvent::DeveloperOfferOpened { .. }
            | MarketEvent::OfferCancelled { .. }
            | MarketEvent::NonceFloorRaised { .. }
            | MarketEvent::ArtifactUpdated { .. }
            | MarketEvent::MatcherPaid { .. } => self.apply_to_offers(event, opened_at).await,
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
            | MarketEvent::DealEnded { .. } => self.change_deal(event).await,
            // Kept as events; they change nothing.
            MarketEvent::MatchSkipped { .. } | MarketEvent::FillSkipped { .. } | MarketEvent::ClaimSkipped { .. } => {
                Ok(())
            }
        }
    }

    /// Applies what opens an offer, voids one, or changes what is known of it.
    async fn apply_to_offers(&mut self, event: &MarketEvent, opened_at: OpenedAt) -> Result<(), S::Error> {
        match event {
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
            MarketEvent::ArtifactUpdated { developer_offer, version, artifact, manifest, artifact_url } => {
                let (artifact, manifest, artifact_url) = (*artifact, *manifest, artifact_url.clone());
                let updated = ArtifactVersion { version: *version, artifact, manifest, artifact_url };
                self.developer_offer_mut(*developer_offer).await?.updated = Some(updated);
                Ok(())
            }
            MarketEvent::MatcherPaid { developer_offer, matcher, amount } => {
                let developer = self.developer_offer(*developer_offer).await?.offer.developer;
                self.note(PaymentKind::MatcherFee, (developer, *matcher), *amount);
                self.debit(developer, *amount).await?;
                self.credit(*matcher, *amount).await
            }
            // The caller passes no other event.
            _ => Ok(()),
        }
    }

    fn note(&mut self, kind: PaymentKind, sides: (Address, Address), amount: Atoms) {
        self.payments.note(kind, sides, amount);
    }

    async fn credit(&mut self, account: Address, amount: Atoms) -> Result<(), S::Error> {
        let free = self.free(account).await?;
        *free = free.checked_add(amount).map_err(ProjectionError::money("free balance", account))?;
        Ok(())
    }

    async fn debit(&mut self, account: Address, amount: Atoms) -> Result<(), S::Error> {
        let free = self.free(account).await?;
        *free = free.checked_sub(amount).map_err(ProjectionError::money("free balance", account))?;
        Ok(())
    }

    /// An account's free balance, to be changed.
    async fn free(&mut self, account: Address) -> Result<&mut Atoms, S::Error> {
        match self.change_or(RowKey::Balance { account }, Row::Balance(Atoms::ZERO)).await? {
            Row::Balance(free) => Ok(free),
            _ => Err(unknown("balance", account).into()),
        }
    }

    async fn provider_offer(&mut self, hash: OfferHash) -> Result<&ProviderOfferRow, S::Error> {
        match self.get(RowKey::ProviderOffer { hash }).await? {
            Some(Row::ProviderOffer(row)) => Ok(row),
            _ => Err(unknown("provider offer", hash).into()),
        }
    }

    async fn provider_offer_mut(&mut self, hash: OfferHash) -> Result<&mut ProviderOfferRow, S::Error> {
        match self.change(RowKey::ProviderOffer { hash }).await? {
            Some(Row::ProviderOffer(row)) => Ok(row),
            _ => Err(unknown("provider offer", hash).into()),
        }
    }

    async fn developer_offer(&mut self, hash: OfferHash) -> Result<&DeveloperOfferRow, S::Error> {
        match self.get(RowKey::DeveloperOffer { hash }).await? {
            Some(Row::DeveloperOffer(row)) => Ok(row),
            _ => Err(unknown("developer offer", hash).into()),
        }
    }

    async fn developer_offer_mut(&mut self, hash: OfferHash) -> Result<&mut DeveloperOfferRow, S::Error> {
        match self.change(RowKey::DeveloperOffer { hash }).await? {
            Some(Row::DeveloperOffer(row)) => Ok(row),
            _ => Err(unknown("developer offer", hash).into()),
        }
    }

    /// Stores a row that must not be there yet.
    async fn create(&mut self, what: &'static str, id: &impl ToString, key: RowKey, row: Row) -> Result<(), S::Error> {
        if self.get(key).await?.is_some() {
            return Err(ProjectionError::Reopened { what, id: id.to_string() }.into());
        }
        self.put(key, row).await
    }
}

fn unknown(what: &'static str, id: impl ToString) -> ProjectionError {
    ProjectionError::Unknown { what, id: id.to_string() }
}
