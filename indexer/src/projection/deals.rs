//! What the events of a deal do: to the deal, to the offers that it joins, and to the money of both sides.

use common::{
    deal::{Deal, DealState, EndCause},
    epoch::Epoch,
    event::{DealChanged, DealOpened, MarketEvent},
    ids::{Address, DealId, OfferHash},
    money::Atoms,
    resources::Resources,
};

use super::{
    ProjectionError,
    ledger::{Ledger, RowSource},
    payments::PaymentKind,
    rows::{DealRow, OpenedAt, Row, RowKey},
    unknown,
};

impl<S: RowSource> Ledger<'_, S> {
    pub(super) async fn open_deal(&mut self, opened: &DealOpened, opened_at: OpenedAt) -> Result<(), S::Error> {
        let supply = self.provider_offer(opened.provider_offer).await?.offer.clone();
        let bond_epochs = self.bond_epochs;
        let demand = self.developer_offer_mut(opened.developer_offer).await?;
        let deal = Deal::opened(opened, &demand.offer, &supply, bond_epochs)
            .map_err(ProjectionError::money("bond", opened.deal_id))?;
        demand.live_replicas = demand
            .live_replicas
            .checked_add(1)
            .ok_or_else(ProjectionError::count("live replicas", opened.developer_offer))?;
        demand.end_epoch = Some(opened.end_epoch);
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
        let supply = self.provider_offer_mut(hash).await?;
        let part = |used: u32, before: u32, after: u32| used.checked_sub(before)?.checked_add(after);
        let milli_cpu = part(supply.used.milli_cpu, before.milli_cpu, after.milli_cpu);
        let memory_mib = part(supply.used.memory_mib, before.memory_mib, after.memory_mib);
        supply.used = milli_cpu
            .zip(memory_mib)
            .map(|(milli_cpu, memory_mib)| Resources { milli_cpu, memory_mib })
            .ok_or_else(ProjectionError::count("used capacity", hash))?;
        Ok(())
    }

    /// Applies an event of a deal that was opened before.
    pub(super) async fn change_deal(&mut self, event: &MarketEvent) -> Result<(), S::Error> {
        match *event {
            MarketEvent::DealFunded { deal_id, from, amount, paid_until } => {
                let row = self.deal_mut(deal_id).await?;
                row.lock(amount)?;
                row.deal.paid_until = paid_until;
                row.deal.unfunded_since = None;
                let developer = row.deal.developer;
                self.note(PaymentKind::Lock, (from, developer), amount);
                self.debit(from, amount).await
            }
            MarketEvent::DealSettled { deal_id, paid, topped_up, settled_until } => {
                self.settle(deal_id, (paid, topped_up), settled_until).await
            }
            MarketEvent::DealUnfunded { deal_id, since } => {
                let deal = &mut self.deal_mut(deal_id).await?.deal;
                deal.unfunded_since = Some(since);
                deal.paid_until = since.min(deal.end_epoch);
                Ok(())
            }
            MarketEvent::DealChanged(ref changed) => self.change_terms(changed).await,
            MarketEvent::DealRefunded { deal_id, refunded, paid_until } => {
                let row = self.deal_mut(deal_id).await?;
                row.deal.paid_until = paid_until;
                self.refund(deal_id, refunded).await
            }
            MarketEvent::DealEnding { deal_id, cause, end_epoch, refunded } => {
                let deal = &mut self.deal_mut(deal_id).await?.deal;
                deal.state = DealState::Ending;
                deal.cause = Some(cause);
                deal.end_epoch = end_epoch;
                deal.paid_until = deal.paid_until.min(end_epoch);
                self.refund(deal_id, refunded).await
            }
            MarketEvent::DealEnded { deal_id, cause, refunded, bond_to, bond } => {
                self.end(deal_id, cause, refunded, (bond_to, bond)).await
            }
            // The caller passes no other event.
            _ => Ok(()),
        }
    }

    async fn settle(
        &mut self,
        id: DealId,
        (paid, topped_up): (Atoms, Atoms),
        settled_until: Epoch,
    ) -> Result<(), S::Error> {
        let row = self.deal_mut(id).await?;
        row.lock(topped_up)?;
        row.pay(paid)?;
        row.deal.settled_until = settled_until;
        row.deal.paid_until = row.deal.covered_until();
        // A settlement that finds no money says so in an event of its own, right after this one.
        row.deal.unfunded_since = None;
        let (developer, supply) = (row.deal.developer, row.deal.provider_offer);
        let payout = self.provider_offer(supply).await?.offer.payout;
        self.note(PaymentKind::Hosting, (developer, payout), paid);
        self.note(PaymentKind::Lock, (developer, developer), topped_up);
        self.debit(developer, topped_up).await?;
        self.credit(payout, paid).await
    }

    /// What was locked for a deal goes back to its developer.
    async fn refund(&mut self, id: DealId, refunded: Atoms) -> Result<(), S::Error> {
        let row = self.deal_mut(id).await?;
        row.refund(refunded)?;
        let developer = row.deal.developer;
        self.note(PaymentKind::Refund, (developer, developer), refunded);
        self.credit(developer, refunded).await
    }

    async fn end(
        &mut self,
        id: DealId,
        cause: EndCause,
        refunded: Atoms,
        (bond_to, bond): (Address, Atoms),
    ) -> Result<(), S::Error> {
        self.refund(id, refunded).await?;
        let row = self.deal_mut(id).await?;
        let deal = row.deal.clone();
        row.deal.end(cause);
        self.release(&deal).await?;
        let back = if bond_to == deal.provider { PaymentKind::BondReturn } else { PaymentKind::BondForfeit };
        self.note(back, (deal.provider, bond_to), bond);
        self.credit(bond_to, bond).await
    }

    async fn change_terms(&mut self, changed: &DealChanged) -> Result<(), S::Error> {
        let row = self.deal_mut(changed.deal_id).await?;
        let before = row.deal.clone();
        row.deal.change(changed);
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
        let demand = self.developer_offer_mut(deal.developer_offer).await?;
        demand.live_replicas = demand
            .live_replicas
            .checked_sub(1)
            .ok_or_else(ProjectionError::count("live replicas", deal.developer_offer))?;
        self.resize(deal.provider_offer, deal.size, Resources::default()).await
    }

    async fn deal_mut(&mut self, id: DealId) -> Result<&mut DealRow, S::Error> {
        match self.change(RowKey::Deal { id }).await? {
            Some(Row::Deal(row)) => Ok(row),
            _ => Err(unknown("deal", id).into()),
        }
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
