//! Matches that were made, against those that the engine would have made: block by block, from the chain's events.
//!
//! An engine is told of each event what it touched, so that a block costs what happened in it and not what the market
//! holds, and is asked for each match. Nothing of the past is kept but a window of blocks.
//!
//! # What is held against a matcher
//! Only what it could know and had time to act on: a provider offer that could have hosted the demand at the ends of all
//! blocks of the window and still right before the match, and asked less, or the same and was registered before. The window
//! is the blocks of grace, at least the parent block. What the contract refused to the same demand in the same transaction
//! was tried, and what the engine had planned for others at the parent block was theirs. Whatever it planned at the end of one
//! of the window's blocks is right: an honest matcher sends such a plan.
//!
//! An earlier demand was overtaken where the match took what the engine would have given to it, and left it with fewer
//! hosts or dearer ones; it was known at the parent block, had its money through the window, and the same transaction had not
//! proposed it in vain.
//!
//! # Signed offers
//! The chain knows a signed offer from its first match on. Until then it is unknown here as well, unless [`SignedOffers`]
//! tell when it was accepted. Of an offer that its match reveals, nobody else can say which place it had: of equal asks a
//! provider offer's counts as the earlier one, and whether the demand overtook others is not judged.
//!
//! Layout: `matches` finds them among events, `market` follows the chain, `ends` has what was planned at the ends of the
//! last blocks, `judge` compares, `waits` has who could be matched and was not, [`verdict`] the answers.

mod ends;
mod judge;
mod market;
mod matches;
#[cfg(test)]
pub(crate) mod tests;
pub mod verdict;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use common::{
    event::{BlockRef, MarketBlock, MarketEvent},
    ids::{Address, OfferHash, TxHash},
    market::MarketTerms,
    offer::{DeveloperOffer, ProviderOffer},
    state::{MarketState, StateError},
};

use self::{
    ends::{Ends, planned},
    judge::{Case, Tried},
    market::Market,
    matches::Made,
    verdict::{JudgedMatch, Summary, Verdict},
    waits::{Waiting, Waits},
};
use crate::snapshot::Signed;

/// What matchers accepted, and when.
#[derive(Debug, Default)]
pub struct SignedOffers {
    /// Of providers.
    pub provider: Vec<Signed<ProviderOffer>>,
    /// Of developers.
    pub developer: Vec<Signed<DeveloperOffer>>,
}

/// A market's history up to some block, with every match judged.
pub struct Replay {
    market: Market,
    ends: Ends,
    waits: Waits,
    window: u64,
    summary: Summary,
}

impl Replay {
    /// Before the first event. What is younger than `grace_blocks` is held against nobody.
    pub fn new(terms: MarketTerms, grace_blocks: u64, signed: SignedOffers) -> Self {
        let window = grace_blocks.max(1);
        Self {
            market: Market::new(terms, window, signed),
            ends: Ends::new(window),
            waits: Waits::new(window),
            window,
            summary: Summary::default(),
        }
    }

    /// The market after the last block.
    pub const fn state(&self) -> &MarketState {
        self.market.state()
    }

    /// Adds a block, and judges its matches. Blocks without events may be left out; with the parent of a block that has
    /// matches, what was due is judged by that block's time and not by an earlier one's. `senders` sent the transactions.
    pub fn block(
        &mut self,
        block: &MarketBlock,
        senders: &BTreeMap<TxHash, Address>,
    ) -> Result<Vec<JudgedMatch>, StateError> {
        self.plan_as_matchers(block, senders);
        self.market.begin(block.block);
        let mut judged = Vec::new();
        let mut refused: Vec<(TxHash, OfferHash, Option<OfferHash>)> = Vec::new();
        let mut events = block.events.as_slice();
        while let Some((first, rest)) = events.split_first() {
            if let Some(made) = Made::at(events) {
                let tried = tried(&made, &refused);
                judged.push(self.judge(&made, &tried, senders)?);
                events = events.get(made.events.len()..).unwrap_or_default();
                continue;
            }
            match &first.event {
                MarketEvent::FillSkipped { developer_offer, provider_offer, .. } => {
                    refused.push((first.tx_hash, *developer_offer, Some(*provider_offer)));
                }
                MarketEvent::MatchSkipped { developer_offer, .. } => {
                    refused.push((first.tx_hash, *developer_offer, None));
                }
                _ => (),
            }
            self.market.apply(first)?;
            events = rest;
        }
        self.market.end(block.block);
        self.plan(block.block);
        judged.iter().for_each(|judged| self.summary.add(judged));
        Ok(judged)
    }

    /// What is to be said of all of it.
    pub fn finish(mut self) -> Summary {
        self.waits.finish(self.market.state().as_of.map_or(0, |block| block.number));
        self.summary.left_waiting = self.waits.count;
        self.summary.longest_waits = self.waits.longest;
        self.summary
    }

    fn judge(
        &mut self,
        made: &Made<'_>,
        tried: &Tried,
        senders: &BTreeMap<TxHash, Address>,
    ) -> Result<JudgedMatch, StateError> {
        // The match may reveal offers. They were there before it, and none of its deals is.
        let (openings, rest): (Vec<_>, Vec<_>) = made.events.iter().partition(|placed| matches::opens(&placed.event));
        openings.into_iter().try_for_each(|placed| self.market.apply(placed))?;
        let revealed = made.revealed.iter().map(|offer| (*offer, self.market.place_revealed(*offer)));
        let untold: BTreeSet<OfferHash> = revealed.filter(|(_, is_told)| !is_told).map(|(offer, _)| offer).collect();
        let matcher = self.matcher(made, senders);

        let Self { market, ends, window, .. } = self;
        let mut case = Case { market, ends, made, matcher, tried, untold: &untold, window: *window };
        let (mut fills, fewer_by) = case.prices();
        let claims = if untold.contains(&made.demand) { Vec::new() } else { case.claims() };
        rest.into_iter().try_for_each(|placed| self.market.apply(placed))?;
        for claim in claims {
            let supply = made.deals.get(claim.fill).map(|deal| deal.provider_offer);
            let fill = fills.iter_mut().find(|fill| Some(fill.supply) == supply && !fill.verdict.is_unfair());
            if let Some(fill) = fill
                && let Some(passed_over) = claim.harmed(&mut self.market)
            {
                fill.verdict = Verdict::Overtaken { passed_over };
            }
        }
        made.revealed.iter().for_each(|offer| self.market.place_on_chain(*offer));
        let developer = self.market.state().developer_offers.get(&made.demand).map(|known| known.offer.developer);
        Ok(JudgedMatch {
            block: made.block,
            transaction: made.transaction,
            matcher,
            demand: made.demand,
            developer: developer.unwrap_or_default(),
            fills,
            fewer_by,
        })
    }

    /// Who called the contract: whom it paid, or whom the developer named, or else the sender of the transaction, who may
    /// have called it through another contract.
    fn matcher(&self, made: &Made<'_>, senders: &BTreeMap<TxHash, Address>) -> Address {
        let sender = || senders.get(&made.transaction).copied();
        made.paid.or_else(|| self.market.named_matcher(made.demand)).or_else(sender).unwrap_or_default()
    }

    /// Before a block with matches: what each of their matchers would have sent at the end of the block before, where it
    /// may not match all that can be matched.
    fn plan_as_matchers(&mut self, block: &MarketBlock, senders: &BTreeMap<TxHash, Address>) {
        let mut events = block.events.as_slice();
        let mut matchers = BTreeSet::new();
        while !events.is_empty() {
            let made = Made::at(events);
            matchers.extend(made.as_ref().map(|made| self.matcher(made, senders)));
            events = events.get(made.map_or(1, |made| made.events.len())..).unwrap_or_default();
        }
        for matcher in matchers {
            let market = &self.market;
            let is_anothers = |demand: &OfferHash| market.named_matcher(*demand).is_some_and(|named| named != matcher);
            if self.ends.planned().is_some_and(|planned| planned.keys().any(is_anothers)) {
                let planned = self.market.planned_by(matcher);
                self.ends.set_planned_by(matcher, planned);
            }
        }
    }

    /// What could be matched at the end of a block.
    fn plan(&mut self, block: BlockRef) {
        let plan = self.market.plan();
        let (market, epoch) = (&self.market, self.market.seen().conditions().epoch);
        let about = |hash: OfferHash| {
            let demand = market.seen().demand(hash)?;
            let matcher = market.named_matcher(hash);
            Some(Waiting { since: block.number, place: demand.place, developer: demand.offer.developer, matcher })
        };
        let matchable: BTreeSet<OfferHash> = plan.matches.iter().map(|found| found.demand).collect();
        let last = plan.matches.last().and_then(|last| market.seen().demand(last.demand)).map(|last| last.place);
        let told_up_to = plan.budget_exhausted.then_some(last.unwrap_or_default());
        self.waits.follow(block.number, &matchable, told_up_to, about);
        if plan.budget_exhausted {
            self.summary.cut_short = self.summary.cut_short.saturating_add(1);
        }
        self.ends.push(block.number, epoch, planned(&plan));
    }
}

/// What the transaction of a match tried before it, in vain.
fn tried(made: &Made<'_>, refused: &[(TxHash, OfferHash, Option<OfferHash>)]) -> Tried {
    let mut tried = Tried::default();
    for (_, demand, supply) in refused.iter().filter(|(transaction, ..)| *transaction == made.transaction) {
        tried.demands.insert(*demand);
        tried.supplies.extend(supply.filter(|_| *demand == made.demand));
    }
    tried
}
