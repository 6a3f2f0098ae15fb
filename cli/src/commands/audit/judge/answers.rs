//! What an indexer must answer, if the chain's events are the whole truth. Each answer is about the block that it names,
//! and is judged as of that block.

use std::{collections::BTreeMap, ops::Bound};

use common::{
    deal::{DealState, EndCause},
    ids::{Address, DealId, OfferHash},
    market::MarketTerms,
    money::Atoms,
    state::{KnownDeal, Place},
};
use indexer::{
    projection::rows::OpenedAt,
    view::{
        BalanceView, Cursor, DealCounts, DealView, Deployment, DeploymentDeal, DeveloperOfferView, MAX_LIMIT,
        MarketView, ProviderOfferView, ProviderSummary, ProviderView, Totals, WideAtoms,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Book, Findings, Subject};

/// A list of an indexer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum List {
    Deals,
    ProviderOffers,
    DeveloperOffers,
    Deployments,
}

/// Something that an indexer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Request {
    /// A part of a list: what follows the cursor.
    Page(List, Option<Cursor>),
    Balance(Address),
    Provider(Address),
    Totals,
    Market,
}

impl List {
    pub(in super::super) const ALL: [Self; 4] =
        [Self::Deals, Self::ProviderOffers, Self::DeveloperOffers, Self::Deployments];

    const fn path(self) -> &'static str {
        match self {
            Self::Deals => "/v1/deals",
            Self::ProviderOffers => "/v1/provider-offers",
            Self::DeveloperOffers => "/v1/developer-offers",
            Self::Deployments => "/v1/deployments",
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Deals => "deal",
            Self::ProviderOffers => "provider offer",
            Self::DeveloperOffers => "developer offer",
            Self::Deployments => "deployment",
        }
    }

    /// The field that names an item.
    const fn id_field(self) -> &'static str {
        match self {
            Self::Deals => "id",
            Self::ProviderOffers | Self::DeveloperOffers => "offerHash",
            Self::Deployments => "developerOffer",
        }
    }
}

impl Request {
    /// Where it is asked.
    pub(in super::super) fn path(&self) -> String {
        match self {
            Self::Page(list, None) => format!("{}?limit={MAX_LIMIT}", list.path()),
            Self::Page(list, Some(Cursor(place))) => {
                format!("{}?limit={MAX_LIMIT}&cursor={}-{}", list.path(), place.block, place.log_index)
            }
            Self::Balance(account) => format!("/v1/balances/{account}"),
            Self::Provider(account) => format!("/v1/providers/{account}"),
            Self::Totals => "/v1/totals".to_owned(),
            Self::Market => "/v1/market".to_owned(),
        }
    }

    /// What it is about.
    pub(in super::super) fn subject<'a>(&self, api: &'a str) -> Subject<'a> {
        match self {
            Self::Page(..) => Subject::new(api, "page", self.path()),
            Self::Balance(account) => Subject::new(api, "balance", account),
            Self::Provider(account) => Subject::new(api, "provider", account),
            Self::Totals => Subject::new(api, "totals", "all"),
            Self::Market => Subject::new(api, "market", "all"),
        }
    }
}

/// What belongs to one account.
#[derive(Debug, Clone, Default)]
struct Holdings {
    /// As a developer.
    locked: u128,
    /// As a provider.
    bonded: u128,
    earned: u128,
    evictions: u64,
    deals: DealCounts,
    /// As a provider, in the order in which the chain came to know them.
    offers: Vec<OfferHash>,
}

/// All answers as of one block.
pub(in super::super) struct Answers<'a> {
    book: &'a Book,
    terms: &'a MarketTerms,
    holdings: BTreeMap<Address, Holdings>,
}

fn atoms(amount: Atoms) -> u128 {
    amount.get().into()
}

fn count(counts: &mut DealCounts, state: DealState) {
    let counted = match state {
        DealState::Active => &mut counts.active,
        DealState::Ending => &mut counts.ending,
        DealState::Ended => &mut counts.ended,
    };
    *counted = counted.saturating_add(1);
}

const fn opened_at(place: Place) -> OpenedAt {
    OpenedAt { block: place.block, log_index: place.log_index }
}

pub(super) fn value(view: &impl Serialize) -> Value {
    // Views are maps with texts for keys and cannot fail; what is compared with null differs in any case.
    serde_json::to_value(view).unwrap_or_default()
}

impl<'a> Answers<'a> {
    pub(in super::super) fn new(book: &'a Book, terms: &'a MarketTerms) -> Self {
        let mut holdings: BTreeMap<Address, Holdings> = BTreeMap::new();
        for hash in book.provider_offers.values() {
            if let Some(known) = book.state.provider_offers.get(hash) {
                holdings.entry(known.offer.provider).or_default().offers.push(*hash);
            }
        }
        for known in book.known_deals() {
            let developer = holdings.entry(known.deal.developer).or_default();
            developer.locked = developer.locked.saturating_add(atoms(known.deal.locked));
            let provider = holdings.entry(known.deal.provider).or_default();
            provider.bonded = provider.bonded.saturating_add(atoms(known.deal.bond));
            provider.earned = provider.earned.saturating_add(atoms(known.paid));
            count(&mut provider.deals, known.deal.state);
            let evicted = known.deal.cause == Some(EndCause::ProviderEvicted);
            provider.evictions = provider.evictions.saturating_add(u64::from(evicted));
        }
        Self { book, terms, holdings }
    }

    /// Judges what an indexer answered.
    pub(in super::super) fn judge(&self, api: &str, request: &Request, body: &Value, findings: &mut Findings) {
        match request {
            Request::Page(list, after) => self.judge_page(api, *list, *after, body, findings),
            _ => findings.compare(&request.subject(api), &self.single(request), body),
        }
    }

    fn single(&self, request: &Request) -> Value {
        match request {
            Request::Balance(account) => value(&self.balance(*account)),
            Request::Provider(provider) => value(&self.provider(*provider)),
            Request::Totals => value(&self.totals()),
            Request::Market => self.market(),
            Request::Page(..) => Value::Null,
        }
    }

    fn judge_page(&self, api: &str, list: List, after: Option<Cursor>, body: &Value, findings: &mut Findings) {
        let (expected, next) = self.page(list, after);
        let id = |item: &Value| item.get(list.id_field()).and_then(Value::as_str).unwrap_or_default().to_owned();
        let items = body.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let served: BTreeMap<String, &Value> = items.iter().map(|item| (id(item), item)).collect();
        for item in &expected {
            let subject = Subject::new(api, list.what(), id(item));
            findings.compare(&subject, item, served.get(&subject.id).copied().unwrap_or(&Value::Null));
        }
        let known: BTreeMap<String, &Value> = expected.iter().map(|item| (id(item), item)).collect();
        for (id, item) in served.iter().filter(|(id, _)| !known.contains_key(*id)) {
            findings.compare(&Subject::new(api, list.what(), id), &Value::Null, item);
        }
        let order: Vec<String> = items.iter().map(id).collect();
        let wanted: Vec<String> = expected.iter().map(id).collect();
        // Twice the same item, or another order: a reader of pages would miss something.
        let same_items = served.len() == known.len() && served.keys().all(|id| known.contains_key(id));
        let ids = if same_items { (json!(wanted), json!(order)) } else { (Value::Null, Value::Null) };
        let page = |ids: Value, next: Value| json!({ "nextCursor": next, "order": ids });
        let next_served = body.get("nextCursor").cloned().unwrap_or_default();
        let subject = Request::Page(list, after).subject(api);
        findings.compare(&subject, &page(ids.0, value(&next)), &page(ids.1, next_served));
    }

    /// The items after a place, and where the next part begins.
    fn page(&self, list: List, after: Option<Cursor>) -> (Vec<Value>, Option<Cursor>) {
        let book = self.book;
        match list {
            List::Deals => part(&book.deals, after, |place, id| self.deal(*id, place).as_ref().map(value)),
            List::ProviderOffers => {
                part(&book.provider_offers, after, |_, hash| self.provider_offer(*hash).as_ref().map(value))
            }
            List::DeveloperOffers => {
                part(&book.developer_offers, after, |_, hash| self.developer_offer(*hash).as_ref().map(value))
            }
            List::Deployments => {
                part(&book.developer_offers, after, |_, hash| self.deployment(*hash).as_ref().map(value))
            }
        }
    }

    fn deal(&self, id: DealId, place: Place) -> Option<DealView> {
        let KnownDeal { deal, funded, paid, refunded } = self.book.state.deals.get(&id)?.clone();
        let host = &self.book.state.provider_offers.get(&deal.provider_offer)?.offer;
        let (region, endpoint) = (host.region, host.endpoint.clone());
        Some(DealView { deal, funded, paid, refunded, region, endpoint, opened_at: opened_at(place) })
    }

    fn provider_offer(&self, offer_hash: OfferHash) -> Option<ProviderOfferView> {
        let known = self.book.state.provider_offers.get(&offer_hash)?;
        let offer = known.offer.clone();
        Some(ProviderOfferView {
            offer_hash,
            used: known.used,
            free: offer.capacity.saturating_sub(known.used),
            cancelled: self.book.is_void(offer.provider, offer_hash, offer.nonce),
            opened_at: opened_at(known.opened_at),
            offer,
        })
    }

    fn developer_offer(&self, offer_hash: OfferHash) -> Option<DeveloperOfferView> {
        let known = self.book.state.developer_offers.get(&offer_hash)?;
        let offer = known.offer.clone();
        Some(DeveloperOfferView {
            offer_hash,
            live_replicas: known.live_replicas,
            end_epoch: known.end_epoch,
            cancelled: self.book.is_void(offer.developer, offer_hash, offer.nonce),
            updated: known.updated.clone(),
            opened_at: opened_at(known.opened_at),
            offer,
        })
    }

    fn deployment(&self, hash: OfferHash) -> Option<Deployment> {
        let known = self.developer_offer(hash)?;
        let ids = self.book.deals_of.get(&hash).map(Vec::as_slice).unwrap_or_default();
        let updated = known.updated.as_ref();
        Some(Deployment {
            developer_offer: hash,
            developer: known.offer.developer,
            artifact: updated.map_or(known.offer.artifact, |updated| updated.artifact),
            artifact_version: updated.map_or(0, |updated| updated.version),
            opened_at: known.opened_at,
            replicas: known.offer.replicas,
            live_replicas: known.live_replicas,
            end_epoch: known.end_epoch,
            cancelled: known.cancelled,
            deals: ids.iter().filter_map(|id| self.replica(*id)).collect(),
        })
    }

    fn replica(&self, id: DealId) -> Option<DeploymentDeal> {
        let deal = &self.book.state.deals.get(&id)?.deal;
        let host = &self.book.state.provider_offers.get(&deal.provider_offer)?.offer;
        Some(DeploymentDeal {
            id,
            provider: deal.provider,
            region: host.region,
            endpoint: host.endpoint.clone(),
            state: deal.state,
            unfunded_since: deal.unfunded_since,
            start_epoch: deal.start_epoch,
            end_epoch: deal.end_epoch,
            price_per_epoch: deal.price_per_epoch,
        })
    }

    fn balance(&self, account: Address) -> BalanceView {
        let held = self.holdings.get(&account).cloned().unwrap_or_default();
        BalanceView {
            account,
            free: self.book.state.free_balance(account),
            locked: WideAtoms(held.locked),
            bonded: WideAtoms(held.bonded),
            nonce_floor: self.book.account(account).nonce_floor.to_string(),
        }
    }

    fn provider(&self, provider: Address) -> ProviderView {
        let held = self.holdings.get(&provider).cloned().unwrap_or_default();
        let most = usize::try_from(MAX_LIMIT).unwrap_or(usize::MAX);
        let offers: Vec<_> = held.offers.iter().take(most).filter_map(|hash| self.provider_offer(*hash)).collect();
        let first_seen_at = offers.first().map_or(OpenedAt { block: 0, log_index: 0 }, |first| first.opened_at);
        let summary = ProviderSummary {
            provider,
            free: self.book.state.free_balance(provider),
            bonded: WideAtoms(held.bonded),
            earned: WideAtoms(held.earned),
            deals: held.deals,
            evictions: held.evictions,
            offer_count: u64::try_from(held.offers.len()).unwrap_or(u64::MAX),
            first_seen_at,
        };
        ProviderView { summary, offers }
    }

    fn totals(&self) -> Totals {
        let sum = |amounts: &mut dyn Iterator<Item = u128>| amounts.fold(0_u128, u128::saturating_add);
        let free = sum(&mut self.book.state.free.values().copied().map(atoms));
        let locked = sum(&mut self.book.known_deals().map(|known| atoms(known.deal.locked)));
        let bonds = sum(&mut self.book.known_deals().map(|known| atoms(known.deal.bond)));
        let paid = sum(&mut self.book.known_deals().map(|known| atoms(known.paid)));
        let mut deals = DealCounts::default();
        self.book.known_deals().for_each(|known| count(&mut deals, known.deal.state));
        let held = free.saturating_add(locked).saturating_add(bonds);
        let wide = WideAtoms;
        Totals { free: wide(free), locked: wide(locked), bonds: wide(bonds), held: wide(held), paid: wide(paid), deals }
    }

    fn market(&self) -> Value {
        let block = self.book.block();
        let epoch = block.map(|block| self.terms.schedule.epoch_at(block.timestamp)).unwrap_or_default();
        let view = MarketView { terms: *self.terms, epoch, matching_paused: self.book.state.matching_paused };
        let mut value = value(&view);
        if let Value::Object(fields) = &mut value {
            // Where an indexer begins to read is its own affair.
            fields.remove("deployedAtBlock");
        }
        value
    }
}

impl Book {
    /// Items of a list.
    pub(in super::super) fn length_of(&self, list: List) -> usize {
        match list {
            List::Deals => self.deals.len(),
            List::ProviderOffers => self.provider_offers.len(),
            List::DeveloperOffers | List::Deployments => self.developer_offers.len(),
        }
    }
}

/// Up to a page of what follows a place.
fn part<T>(
    all: &BTreeMap<Place, T>,
    after: Option<Cursor>,
    view: impl Fn(Place, &T) -> Option<Value>,
) -> (Vec<Value>, Option<Cursor>) {
    let place = |Cursor(place): Cursor| Place { block: place.block, log_index: place.log_index };
    let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(place(after)));
    let limit = usize::try_from(MAX_LIMIT).unwrap_or(usize::MAX);
    let mut rest = all.range((from, Bound::Unbounded));
    let mut last = None;
    let mut items = Vec::new();
    for (place, item) in rest.by_ref().take(limit) {
        items.extend(view(*place, item));
        last = Some(Cursor(opened_at(*place)));
    }
    (items, last.filter(|_| rest.next().is_some()))
}
