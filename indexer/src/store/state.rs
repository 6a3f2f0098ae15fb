//! The whole market at once, for those who compute on all of it.

use super::{
    bound_terms, checkpoint,
    convert::{atoms, parse, unsigned},
    db::{Statement, Tx},
    error::StoreError,
    records::{DealRecord, DeveloperOfferRecord, ProviderOfferRecord},
};
use crate::projection::rows::OpenedAt;
use common::{
    epoch::Epoch,
    state::{KnownDeal, KnownDeveloperOffer, KnownProviderOffer, MarketState, Place},
};

/// Loads everything. The connection must be in a transaction, or the parts may not fit together.
pub(super) async fn load(db: &mut Tx) -> Result<MarketState, StoreError> {
    let mut state = MarketState {
        as_of: checkpoint(db).await?.block,
        bond_epochs: bound_terms(db).await?.bond_epochs,
        ..MarketState::default()
    };
    load_accounts(db, &mut state).await?;
    load_offers(db, &mut state).await?;
    let deals: Vec<DealRecord> = db.fetch_all(Statement::new("SELECT * FROM deals")).await?;
    for record in deals {
        let row = record.into_domain()?;
        let known = KnownDeal { deal: row.deal, funded: row.funded, paid: row.paid, refunded: row.refunded };
        state.deals.insert(known.deal.id, known);
    }
    let attested: Vec<(String, i64)> = db.fetch_all(Statement::new("SELECT agent, epoch FROM attestations")).await?;
    for (agent, epoch) in attested {
        let epoch = Epoch(unsigned("attestations.epoch", epoch)?);
        state.attested.entry(parse("attestations.agent", &agent)?).or_default().insert(epoch);
    }
    let paused: Option<(bool,)> = db.fetch_optional(Statement::new("SELECT paused FROM matching WHERE id = 1")).await?;
    state.matching_paused = paused.is_some_and(|(paused,)| paused);
    Ok(state)
}

async fn load_accounts(db: &mut Tx, state: &mut MarketState) -> Result<(), StoreError> {
    let balances: Vec<(String, i64)> = db.fetch_all(Statement::new("SELECT account, free FROM balances")).await?;
    for (account, free) in balances {
        state.free.insert(parse("balances.account", &account)?, atoms("balances.free", free)?);
    }
    let floors: Vec<(String, String)> = db.fetch_all(Statement::new("SELECT owner, floor FROM nonce_floors")).await?;
    for (owner, floor) in floors {
        state.nonce_floors.insert(parse("nonce_floors.owner", &owner)?, parse("nonce_floors.floor", &floor)?);
    }
    let cancelled: Vec<(String, String)> =
        db.fetch_all(Statement::new("SELECT owner, offer_hash FROM cancelled_offers")).await?;
    for (owner, offer) in cancelled {
        let owner = parse("cancelled_offers.owner", &owner)?;
        state.cancelled.insert((owner, parse("cancelled_offers.offer_hash", &offer)?));
    }
    Ok(())
}

async fn load_offers(db: &mut Tx, state: &mut MarketState) -> Result<(), StoreError> {
    let supply: Vec<ProviderOfferRecord> = db.fetch_all(Statement::new("SELECT * FROM provider_offers")).await?;
    for record in supply {
        let hash = parse("provider_offers.offer_hash", &record.offer_hash)?;
        let row = record.into_domain()?;
        let known = KnownProviderOffer { offer: row.offer, opened_at: place(row.opened_at), used: row.used };
        state.provider_offers.insert(hash, known);
    }
    let demand: Vec<DeveloperOfferRecord> = db.fetch_all(Statement::new("SELECT * FROM developer_offers")).await?;
    for record in demand {
        let hash = parse("developer_offers.offer_hash", &record.offer_hash)?;
        let row = record.into_domain()?;
        let known = KnownDeveloperOffer {
            offer: row.offer,
            opened_at: place(row.opened_at),
            live_replicas: row.live_replicas,
            end_epoch: row.end_epoch,
            updated: row.updated,
        };
        state.developer_offers.insert(hash, known);
    }
    Ok(())
}

fn place(opened_at: OpenedAt) -> Place {
    Place { block: opened_at.block, log_index: opened_at.log_index }
}
