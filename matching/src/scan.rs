//! Continuous matching: demands in order of service; for each the cheapest feasible provider offers, each of another
//! provider, ties by order of registration. The developer pays the ask and its limit is only a limit, so that nobody
//! gains by overstating it.
//!
//! This form scans all supplies for every demand: short enough to be seen to be right. [`crate::engine`] gives the same
//! answers from an index and is held against this one.

use super::{
    feasible,
    ledger::{FillCost, Ledger, Purse},
    snapshot::{Conditions, Demand, Snapshot, Supply},
};

/// One replica at one provider.
#[derive(Debug, Clone, Copy)]
pub struct Fill<'a> {
    /// Who hosts.
    pub supply: &'a Supply,
    /// What moves.
    pub cost: FillCost,
}

/// The hosts of one demand, cheapest first.
#[derive(Debug, Clone)]
pub struct PlannedMatch<'a> {
    /// Who is hosted.
    pub demand: &'a Demand,
    /// Where.
    pub fills: Vec<Fill<'a>>,
}

/// What to send next.
#[derive(Debug, Clone, Default)]
pub struct Plan<'a> {
    /// In order of service.
    pub matches: Vec<PlannedMatch<'a>>,
    /// The ledger as these matches leave it.
    pub ledger: Ledger,
    /// Whether demands were left for the next transaction because the budget was used up.
    pub budget_exhausted: bool,
}

impl Plan<'_> {
    /// Fills in all matches.
    pub fn fills(&self) -> usize {
        self.matches.iter().map(|planned| planned.fills.len()).sum()
    }
}

/// Plans at most `max_fills` fills. A demand whose hosts do not fit into what is left of the budget waits for the next
/// transaction, and all later ones behind it: nobody overtakes.
pub fn plan(snapshot: &Snapshot, max_fills: usize) -> Plan<'_> {
    let mut plan = Plan { ledger: snapshot.ledger.clone(), ..Plan::default() };
    if snapshot.matching_paused {
        return plan;
    }
    let conditions = &snapshot.conditions;
    let mut room = max_fills;
    for demand in &snapshot.demands {
        if demand.held || feasible::demand_is_blocked(conditions, &plan.ledger, demand).is_some() {
            continue;
        }
        let fills = place(conditions, &plan.ledger, demand, &snapshot.supplies);
        if fills.is_empty() || !reaches_minimum(&plan.ledger, demand, fills.len()) {
            continue;
        }
        if fills.len() > room {
            plan.budget_exhausted = true;
            break;
        }
        room = room.saturating_sub(fills.len());
        let start = conditions.start_epoch();
        for fill in &fills {
            // `place` has checked every amount against this ledger.
            let entered = plan.ledger.enter(demand, fill.supply, fill.cost, start);
            debug_assert!(entered.is_ok(), "{entered:?}");
        }
        plan.matches.push(PlannedMatch { demand, fills });
    }
    plan
}

/// Whether `new` hosts more are enough to start with.
pub fn reaches_minimum(ledger: &Ledger, demand: &Demand, new: usize) -> bool {
    let live = usize::from(ledger.placement(demand.hash).live_replicas);
    live.saturating_add(new) >= usize::from(demand.offer.min_replicas)
}

/// The cheapest hosts for all missing replicas of a demand that is not blocked, or as many as there are; the minimum
/// is not looked at.
pub fn place<'a>(
    conditions: &Conditions,
    ledger: &Ledger,
    demand: &Demand,
    supplies: impl IntoIterator<Item = &'a Supply>,
) -> Vec<Fill<'a>> {
    let live = ledger.placement(demand.hash).live_replicas;
    let wanted = usize::from(demand.offer.replicas.saturating_sub(live));
    let mut candidates: Vec<Fill<'a>> = supplies
        .into_iter()
        .filter_map(|supply| {
            let cost = feasible::pair_is_refused(conditions, ledger, demand, supply).ok()?;
            Some(Fill { supply, cost })
        })
        .collect();
    // Stable: equal asks stay in order of registration.
    candidates.sort_by_key(|fill| fill.cost.ask);

    let mut purse = Purse::new(ledger.free(demand.offer.developer), demand.unlimited_funds);
    let mut fills: Vec<Fill<'a>> = Vec::with_capacity(wanted.min(candidates.len()));
    for candidate in candidates {
        if fills.len() >= wanted {
            break;
        }
        let provider = candidate.supply.offer.provider;
        let is_host = fills.iter().any(|fill| fill.supply.offer.provider == provider);
        if !is_host && purse.pay(candidate.cost, provider == demand.offer.developer) {
            fills.push(candidate);
        }
    }
    fills
}

#[cfg(test)]
mod tests {
    use common::{ids::OfferHash, money::Atoms};
    use proptest::prelude::*;

    use super::*;
    use crate::samples;

    /// The rule, as a person would carry it out: for each missing replica look through everything for the cheapest
    /// host, enter it, and take all of it back where the minimum is not reached.
    fn by_hand(snapshot: &Snapshot) -> Vec<(OfferHash, OfferHash)> {
        let (conditions, mut ledger) = (&snapshot.conditions, snapshot.ledger.clone());
        let mut all = Vec::new();
        for demand in snapshot.demands.iter().filter(|demand| !demand.held) {
            let (before, mut found) = (ledger.clone(), Vec::new());
            loop {
                let mut best: Option<(FillCost, &Supply)> = None;
                for supply in &snapshot.supplies {
                    if let Ok(cost) = feasible::feasible(conditions, &ledger, demand, supply)
                        && best.is_none_or(|(cheapest, _)| cost.ask < cheapest.ask)
                    {
                        best = Some((cost, supply));
                    }
                }
                let Some((cost, supply)) = best else { break };
                ledger.enter(demand, supply, cost, conditions.start_epoch()).unwrap();
                found.push((demand.hash, supply.hash));
            }
            if ledger.placement(demand.hash).live_replicas < demand.offer.min_replicas {
                ledger = before;
            } else {
                all.extend(found);
            }
        }
        all
    }

    fn pairs(plan: &Plan<'_>) -> Vec<(OfferHash, OfferHash)> {
        let matches = plan.matches.iter();
        matches.flat_map(|planned| planned.fills.iter().map(|fill| (planned.demand.hash, fill.supply.hash))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_plan_is_what_the_rule_says(market in samples::any_market()) {
            let plan = plan(&market, usize::MAX);
            prop_assert_eq!(pairs(&plan), by_hand(&market));
            prop_assert!(!plan.budget_exhausted);
        }

        #[test]
        fn a_plan_in_pieces_is_the_plan(market in samples::any_market(), budget in 5_usize..9) {
            let whole = pairs(&plan(&market, usize::MAX));
            let mut rest = market.clone();
            let mut pieces = Vec::new();
            loop {
                let part = plan(&rest, budget);
                prop_assert!(part.fills() <= budget);
                if part.fills() == 0 {
                    break;
                }
                pieces.extend(pairs(&part));
                let ledger = part.ledger.clone();
                rest.ledger = ledger;
            }
            prop_assert_eq!(whole, pieces);
        }
    }

    #[test]
    fn equal_asks_go_to_who_registered_first_and_each_replica_to_another_provider() {
        let mut wanted = samples::developer_offer();
        wanted.replicas = 3;
        let providers =
            [(12, 70), (11, 70), (11, 60), (13, 90)].map(|(who, price)| samples::provider_offer(who, price));
        let market = samples::market(vec![wanted], providers.to_vec());
        let plan = plan(&market, 100);
        let hosts: Vec<_> = plan.matches[0].fills.iter().map(|fill| fill.supply.hash).collect();
        assert_eq!(hosts, [samples::hash(2, 2), samples::hash(2, 0), samples::hash(2, 3)]);
    }

    #[test]
    fn overstating_the_limit_costs_nothing() {
        let mut wanted = samples::developer_offer();
        wanted.max_price_per_epoch = Atoms::MAX_PRICE;
        let market = samples::market(vec![wanted], vec![samples::provider_offer(10, 70)]);
        assert_eq!(plan(&market, 100).matches[0].fills[0].cost.ask, samples::atoms(70));
    }

    #[test]
    fn nobody_overtakes_when_the_budget_is_used_up() {
        let (mut big, small) = (samples::developer_offer(), samples::developer_offer());
        big.replicas = 3;
        big.min_replicas = 3;
        let providers = (10..14).map(|who| samples::provider_offer(who, 70)).collect();
        let market = samples::market(vec![small.clone(), big, small], providers);
        let plan = plan(&market, 3);
        assert_eq!((plan.fills(), plan.budget_exhausted), (1, true));
    }

    #[test]
    fn a_paused_market_and_held_demands_are_left_alone() {
        let mut market = samples::market(vec![samples::developer_offer()], vec![samples::provider_offer(10, 70)]);
        market.demands[0].held = true;
        assert_eq!(plan(&market, 100).fills(), 0);
        market.demands[0].held = false;
        market.matching_paused = true;
        assert_eq!(plan(&market, 100).fills(), 0);
    }
}
