//! How SQLite answers the lists: by indexes, in their order, reading little more than it gives. The statements are those
//! that are made for the API; without statistics, which SQLite does not gather by itself, its plans do not depend on data.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use common::{
    deal::DealState,
    epoch::Epoch,
    ids::{Address, DealId, OfferHash},
};

use super::{
    AttestationFilter, DealFilter, EventFilter, PaymentFilter, Store, bulk, concerning,
    db::{Location, Statement},
    feed, history, indexes, lists, payments, rows,
};
use crate::{
    kind,
    projection::{payments::PaymentKind, rows::OpenedAt},
    view::{Cursor, Order, Part},
};

/// What a plan may do besides looking things up by an index in the order that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Nothing.
    Search,
    /// Walk along an index: all of it is wanted, in its order, and the limit ends it.
    Walk,
    /// Sort, and why that is bounded.
    Sort(&'static str),
}

const ONE_AN_EPOCH: May = May::Sort("an agent has one attestation for an epoch at most");
const OF_THESE_EPOCHS: May = May::Sort("as many as there are in the epochs that are asked for");
const PAGES: May = May::Sort("each side gives no more than a page");
const WINDOW: May = May::Sort("as many as the deals have in the window of blocks");

/// Names and aliases of tables that grow.
const LARGE: [&str; 14] = [
    "a",
    "b",
    "d",
    "e",
    "o",
    "p",
    "s",
    "events",
    "payments",
    "deals",
    "attestations",
    "mentions",
    "blocks",
    "accounts",
];

fn parts() -> Vec<Part> {
    let place = Some(Cursor(OpenedAt { block: 7, log_index: 3 }));
    let part = |after, order| Part { limit: 100, after, order };
    vec![part(None, Order::Asc), part(place, Order::Asc), part(None, Order::Desc), part(place, Order::Desc)]
}

fn of_payments(part: Part) -> Vec<(String, Statement, May)> {
    let (account, deal) = (Some(Address([1; 20])), Some(DealId([2; 32])));
    let mut cases = vec![
        (PaymentFilter::default(), May::Walk),
        (PaymentFilter { account, ..PaymentFilter::default() }, PAGES),
        (PaymentFilter { deal, ..PaymentFilter::default() }, May::Sort("a deal's own payments")),
        (PaymentFilter { deal, account, ..PaymentFilter::default() }, May::Sort("a deal's own payments")),
    ];
    for (_, kind) in PaymentKind::NAMES {
        let kind = Some(kind);
        cases.push((PaymentFilter { kind, ..PaymentFilter::default() }, PAGES));
        cases.push((PaymentFilter { kind, account, deal: None }, PAGES));
        cases.push((PaymentFilter { kind, deal, account: None }, May::Sort("a deal's own payments")));
    }
    cases
        .into_iter()
        .map(|(filter, may)| (format!("{filter:?}"), payments::listing(filter, part).unwrap(), may))
        .collect()
}

fn of_events(part: Part) -> Vec<(String, Statement, May)> {
    let (deal, all) = (Some(DealId([2; 32])), EventFilter::default());
    let (from_block, to_block) = (Some(5), Some(9));
    let mut cases = vec![
        (all, May::Walk),
        (EventFilter { deal, ..all }, May::Search),
        (EventFilter { from_block, ..all }, May::Walk),
        (EventFilter { to_block, ..all }, May::Walk),
        (EventFilter { deal, from_block, to_block, ..all }, May::Search),
    ];
    for kind in kind::ALL {
        let kind = Some(kind);
        cases.push((EventFilter { kind, ..all }, May::Search));
        cases.push((EventFilter { kind, deal, ..all }, May::Search));
        cases.push((EventFilter { kind, from_block, to_block, ..all }, May::Search));
    }
    cases.into_iter().map(|(filter, may)| (format!("{filter:?}"), lists::events(filter, part).unwrap(), may)).collect()
}

fn of_deals(part: Part) -> Vec<(String, Statement, May)> {
    let (account, all) = (Some(Address([1; 20])), DealFilter::default());
    let mut cases = vec![(all, May::Walk)];
    for state in [None, Some(DealState::Active), Some(DealState::Ending), Some(DealState::Ended)] {
        if state.is_some() {
            cases.push((DealFilter { state, ..all }, May::Search));
        }
        cases.push((DealFilter { state, provider: account, ..all }, May::Search));
        cases.push((DealFilter { state, developer: account, ..all }, May::Search));
        cases.push((DealFilter { state, agent: account, ..all }, May::Search));
        cases.push((DealFilter { state, provider: account, developer: account, ..all }, May::Search));
        cases.push((DealFilter { state, developer_offer: Some(OfferHash([3; 32])), ..all }, May::Search));
    }
    cases.into_iter().map(|(filter, may)| (format!("{filter:?}"), lists::deals(filter, part).unwrap(), may)).collect()
}

fn of_attestations(part: Part) -> Vec<(String, Statement, May)> {
    let (agent, from_epoch, to_epoch) = (Some(Address([1; 20])), Some(Epoch(3)), Some(Epoch(4)));
    let all = AttestationFilter::default();
    let cases = [
        (all, May::Walk),
        (AttestationFilter { agent, ..all }, ONE_AN_EPOCH),
        (AttestationFilter { agent, from_epoch, to_epoch }, ONE_AN_EPOCH),
        (AttestationFilter { from_epoch, to_epoch, ..all }, OF_THESE_EPOCHS),
        // Attestations come nearly in the order of their epochs: what is walked over lies before the first page.
        (AttestationFilter { from_epoch, ..all }, May::Walk),
        (AttestationFilter { to_epoch, ..all }, May::Walk),
        (AttestationFilter { from_epoch, to_epoch: from_epoch, ..all }, May::Search),
        (AttestationFilter { agent, from_epoch, to_epoch: from_epoch }, May::Search),
    ];
    cases
        .into_iter()
        .map(|(filter, may)| (format!("{filter:?}"), history::attestations(filter, part).unwrap(), may))
        .collect()
}

/// What the list of an account's events is made of.
fn of_accounts(part: Part) -> Vec<(String, Statement, May)> {
    let account = Address([1; 20]);
    let window = EventFilter { from_block: Some(5), to_block: Some(4_101), ..EventFilter::default() };
    let mut cases = Vec::new();
    for filter in [EventFilter::default(), window] {
        for (at, query) in concerning::named(account, filter, part).unwrap().into_iter().enumerate() {
            // The fourth are attestations.
            let may = if at == 3 { ONE_AN_EPOCH } else { May::Search };
            cases.push((format!("named {at} {filter:?}"), query, may));
        }
        cases.push(("a deal".to_owned(), concerning::of_deal(DealId([2; 32]), filter, part).unwrap(), May::Search));
    }
    for role in ["developer", "provider", "agent"] {
        cases.push((format!("first deal {role}"), concerning::first_deal(role, account), May::Search));
        let query = concerning::of_deals(role, account, window, part).unwrap();
        cases.push((format!("deals {role}"), query, WINDOW));
    }
    let places: Vec<_> = (0..50).map(|block| OpenedAt { block, log_index: 1 }).collect();
    cases.push(("at places".to_owned(), feed::at(&places).unwrap(), May::Search));
    let after = feed::after(OpenedAt { block: 7, log_index: 3 }, 200).unwrap();
    cases.push(("after a place".to_owned(), after, May::Walk));
    let mut timeline = lists::timeline(DealId([2; 32]));
    lists::narrow(&mut timeline, lists::EVENT_PLACE, part).unwrap();
    cases.push(("timeline".to_owned(), timeline, May::Sort("a deal's own events and its agent's attestations")));
    cases
}

/// Whether a step of a plan is all right.
fn allows(may: May, step: &str) -> bool {
    if step.starts_with("USE TEMP B-TREE") {
        return matches!(may, May::Sort(_));
    }
    // A place as the only bound: all that follows it is walked along.
    if step.starts_with("SEARCH") && step.contains(" ((") {
        return may == May::Walk;
    }
    let Some(scanned) = step.strip_prefix("SCAN ") else { return true };
    let (table, how) = scanned.split_once(' ').unwrap_or((scanned, ""));
    !LARGE.contains(&table) || (may == May::Walk && how.contains("USING"))
}

#[tokio::test]
async fn lists_are_answered_from_indexes_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let location: Location = folder.path().join("indexer.db").into();
    let store = Store::open(&location).await.unwrap();
    let mut write = store.writer().unwrap().write().await.unwrap();
    indexes::create(&mut write).await.unwrap();
    write.commit().await.unwrap();
    let mut read = store.readers.read().await.unwrap();
    for keys in 1..=2 {
        let query = bulk::by_keys(rows::ATTESTATIONS, &vec![vec![1_i64.into(), 2_i64.into()]; keys]);
        let plan: Vec<(i64, i64, i64, String)> = read.fetch_all(query.explained()).await.unwrap();
        assert!(plan.iter().all(|(_, _, _, step)| allows(May::Search, step)), "rows by their keys: {plan:?}");
    }
    let mut wrong = Vec::new();
    for part in parts() {
        for cases in [of_payments(part), of_events(part), of_deals(part), of_attestations(part), of_accounts(part)] {
            for (name, query, may) in cases {
                let plan: Vec<(i64, i64, i64, String)> = read.fetch_all(query.explained()).await.unwrap();
                assert!(!plan.is_empty(), "{name}");
                let steps: Vec<String> = plan.into_iter().map(|(_, _, _, step)| step).collect();
                if !steps.iter().all(|step| allows(may, step)) {
                    wrong.push(format!("{name} {part:?}: {may:?}\n  {}", steps.join("\n  ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} plans:\n{}", wrong.len(), wrong.join("\n"));
}
