//! On any valid history with any reorganizations, the database holds what the canonical chain's events add up to, and
//! nothing shows that there was ever another chain.

use common::{ids::Address, state::MarketState};
use indexer::{
    Location, Store, StoreError,
    input::{ChainInput, Step},
    projection::payments::PaymentKind,
    store::{EventFilter, PaymentFilter, Snapshot},
    view::{Cursor, Order, Part, PaymentView},
};
use migrations::testing::Postgres;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{
    dump::{self, dump},
    history::{Action, Chain, actions, attempts, terms},
    pages::all_pages,
};

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

pub(crate) const ENGINES: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];

pub(crate) struct Database {
    pub(crate) store: Store,
    pub(crate) location: Location,
    _folder: TempDir,
}

impl Database {
    pub(crate) async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = match engine {
            Engine::Sqlite => folder.path().join("below").join("indexer.db").into(),
            Engine::Postgres => Postgres::shared().database().await.parse().unwrap(),
        };
        let store = Store::open(&location).await.unwrap();
        store.bind(&terms()).await.unwrap();
        Self { store, location, _folder: folder }
    }

    /// All of a chain at once.
    pub(crate) async fn of(chain: &Chain, engine: Engine) -> Self {
        let database = Self::new(engine).await;
        if !chain.blocks.is_empty() {
            let input = ChainInput::Committed { blocks: chain.blocks.clone() };
            database.store.apply(&Step { follows: None, input, finalized: chain.finalized }).await.unwrap();
        }
        database
    }
}

/// Lets `action` happen to the chain and tells the store.
pub(crate) async fn act(store: &Store, chain: &mut Chain, action: &Action) {
    let follows = chain.last();
    let input = match action {
        Action::Finalize(more) => {
            chain.finalize(*more);
            chain.mine(&[]);
            ChainInput::Committed { blocks: chain.blocks[chain.blocks.len() - 1..].to_vec() }
        }
        Action::Blocks(blocks) => {
            let from = chain.blocks.len();
            blocks.iter().for_each(|attempts| chain.mine(attempts));
            ChainInput::Committed { blocks: chain.blocks[from..].to_vec() }
        }
        Action::Reorg { depth, blocks } => {
            let old = chain.fork(*depth);
            let from = chain.blocks.len();
            blocks.iter().for_each(|attempts| chain.mine(attempts));
            let new = chain.blocks[from..].to_vec();
            if old.is_empty() && new.is_empty() {
                return;
            }
            if old.is_empty() { ChainInput::Committed { blocks: new } } else { ChainInput::Reorged { old, new } }
        }
    };
    store.apply(&Step { follows, input, finalized: chain.finalized }).await.unwrap();
}

const KINDS: [PaymentKind; 9] = [
    PaymentKind::Deposit,
    PaymentKind::Withdrawal,
    PaymentKind::Lock,
    PaymentKind::Hosting,
    PaymentKind::Refund,
    PaymentKind::Bond,
    PaymentKind::BondReturn,
    PaymentKind::BondForfeit,
    PaymentKind::MatcherFee,
];

/// All payments, page by page; backwards they are the same.
async fn payments(snapshot: &mut Snapshot, filter: PaymentFilter, limit: u32) -> Vec<PaymentView> {
    let list = all_pages(limit, Order::Asc, async |part| snapshot.payments(filter, part).await).await;
    let backwards = all_pages(limit, Order::Desc, async |part| snapshot.payments(filter, part).await).await;
    assert_eq!(backwards, list);
    list
}

/// What a payment does to an account's free balance.
fn change(payment: &PaymentView, account: Address) -> i128 {
    let amount = i128::from(payment.amount.get());
    let gives = !matches!(payment.kind, PaymentKind::Withdrawal | PaymentKind::Lock | PaymentKind::Bond);
    let takes = !gives || payment.kind == PaymentKind::MatcherFee;
    let given = if gives && payment.to == account { amount } else { 0 };
    let taken = if takes && payment.from == account { amount } else { 0 };
    given - taken
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_database_is_the_fold_of_the_canonical_chain(actions in actions()) {
        block_on(async {
            let mut lives = Vec::new();
            for engine in ENGINES {
                let database = Database::new(engine).await;
                let mut chain = Chain::default();
                for action in &actions {
                    act(&database.store, &mut chain, action).await;
                    prop_assert_eq!(database.store.market_state().await.unwrap(), chain.state());
                }
                let lived = dump(&database.location).await;
                // One step or many, straight or by detours: the tables are the same, undo information included.
                prop_assert_eq!(&dump(&Database::of(&chain, engine).await.location).await, &lived);
                // And they follow from the stored events.
                database.store.rebuild(|_, _| ()).await.unwrap();
                prop_assert_eq!(&dump(&database.location).await, &lived);
                let totals = database.store.snapshot().await.unwrap().totals().await.unwrap();
                prop_assert_eq!(totals.held.0, u128::from(chain.state().total_held().unwrap().get()));
                lives.push(lived);
            }
            prop_assert_eq!(&lives[0], &lives[1], "SQLite and PostgreSQL hold the same");
            Ok(())
        })?;
    }

    #[test]
    fn free_balances_are_what_payments_add_up_to(actions in actions(), limit in 1..7_u32) {
        block_on(async {
            let database = Database::new(if limit % 2 == 0 { Engine::Sqlite } else { Engine::Postgres }).await;
            let mut chain = Chain::default();
            for action in &actions {
                act(&database.store, &mut chain, action).await;
            }
            let mut snapshot = database.store.snapshot().await.unwrap();
            let all = payments(&mut snapshot, PaymentFilter::default(), limit).await;
            let state = chain.state();
            for (account, free) in &state.free {
                let filter = PaymentFilter { account: Some(*account), ..PaymentFilter::default() };
                let own = payments(&mut snapshot, filter, limit).await;
                let wanted = all.iter().filter(|payment| [payment.from, payment.to].contains(account));
                prop_assert_eq!(&own, &wanted.cloned().collect::<Vec<_>>());
                prop_assert_eq!(own.iter().map(|payment| change(payment, *account)).sum::<i128>(), i128::from(free.get()));
            }
            for (id, known) in &state.deals {
                let of_deal = |kind| PaymentFilter { kind: Some(kind), deal: Some(*id), account: None };
                for (kind, sum) in [
                    (PaymentKind::Hosting, known.paid),
                    (PaymentKind::Refund, known.refunded),
                    (PaymentKind::Lock, known.funded),
                ] {
                    let found = payments(&mut snapshot, of_deal(kind), limit).await;
                    prop_assert_eq!(found.iter().map(|payment| payment.amount.get()).sum::<u64>(), sum.get());
                }
            }
            for (hash, known) in &state.developer_offers {
                let deployment = snapshot.deployment(*hash).await.unwrap().unwrap();
                let runs = known.updated.as_ref().map_or((0, known.offer.artifact), |now| (now.version, now.artifact));
                prop_assert_eq!((deployment.artifact_version, deployment.artifact), runs);
                prop_assert_eq!(snapshot.developer_offer(*hash).await.unwrap().unwrap().updated, known.updated.clone());
            }
            for kind in KINDS {
                let filter = PaymentFilter { kind: Some(kind), ..PaymentFilter::default() };
                let wanted = all.iter().filter(|payment| payment.kind == kind);
                prop_assert_eq!(payments(&mut snapshot, filter, limit).await, wanted.cloned().collect::<Vec<_>>());
            }
            Ok(())
        })?;
    }

    #[test]
    fn pages_in_either_order_are_the_whole_list(actions in actions(), limit in 1..7_u32) {
        block_on(async {
            let mut chain = Chain::default();
            for action in &actions {
                if let Action::Blocks(blocks) = action {
                    blocks.iter().for_each(|attempts| chain.mine(attempts));
                }
            }
            let engine = if limit % 2 == 0 { Engine::Sqlite } else { Engine::Postgres };
            let database = Database::of(&chain, engine).await;
            let mut snapshot = database.store.snapshot().await.unwrap();
            for order in [Order::Asc, Order::Desc] {
                let mut seen = Vec::new();
                let mut after: Option<Cursor> = None;
                loop {
                    let page = snapshot.events(EventFilter::default(), Part { limit, after, order }).await.unwrap();
                    prop_assert!(page.items.len() <= limit as usize);
                    seen.extend(page.items.into_iter().map(|event| (event.block_number, event.log_index)));
                    // A cursor survives its text form.
                    after = page.next.map(|next| serde_json::from_value(serde_json::to_value(next).unwrap()).unwrap());
                    if after.is_none() {
                        break;
                    }
                }
                if order == Order::Desc {
                    seen.reverse();
                }
                let all = chain.blocks.iter().flat_map(|block| &block.events);
                let all: Vec<_> = all.map(|event| (event.block_number, event.log_index)).collect();
                prop_assert_eq!(seen, all);
            }
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// What a step hands to the next one is what that would have read.
    #[test]
    fn final_blocks_one_by_one_are_as_all_at_once(blocks in prop::collection::vec(attempts(), 2..12)) {
        block_on(async {
            let mut chain = Chain::default();
            blocks.iter().for_each(|attempts| chain.mine(attempts));
            // The last block is never reached: every step is one of many.
            chain.finalized = chain.last().map(|last| last.number + 1);
            for engine in ENGINES {
                let database = Database::new(engine).await;
                let mut follows = None;
                for added in &chain.blocks {
                    let input = ChainInput::Committed { blocks: vec![added.clone()] };
                    let step = Step { follows, input, finalized: chain.finalized };
                    database.store.apply(&step).await.unwrap();
                    // What is refused leaves nothing behind.
                    let is_refused = added.block.number % 3 == 0 && database.store.apply(&step).await.is_err();
                    prop_assert_eq!(is_refused, added.block.number % 3 == 0);
                    follows = Some(added.block);
                }
                let at_once = Database::of(&chain, engine).await;
                prop_assert_eq!(dump(&database.location).await, dump(&at_once.location).await);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn nothing_is_applied_on_top_of_another_block() {
    for engine in ENGINES {
        let database = Database::new(engine).await;
        let mut chain = Chain::default();
        chain.mine(&[]);
        let input = ChainInput::Committed { blocks: chain.blocks.clone() };
        let step = Step { follows: None, input, finalized: None };
        database.store.apply(&step).await.unwrap();
        // A second writer that has not seen the first one's commit.
        let error = database.store.apply(&step).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        assert!(!error.is_transient());
        assert_eq!(database.store.as_of().await.unwrap(), chain.last());
    }
}

#[tokio::test]
async fn a_failed_step_leaves_no_trace() {
    for engine in ENGINES {
        let database = Database::new(engine).await;
        let mut chain = Chain::default();
        chain.mine(&[]);
        chain.mine(&[]);
        let mut blocks = chain.blocks.clone();
        let placed = common::event::PlacedEvent {
            block_number: 2,
            block_hash: blocks[1].block.hash,
            log_index: 0,
            tx_hash: common::ids::TxHash::ZERO,
            event: common::event::MarketEvent::Withdrawn {
                account: crate::history::account(1),
                to: crate::history::account(2),
                amount: common::money::Atoms::MAX,
            },
        };
        blocks[1].events.push(placed);
        let before = dump(&database.location).await;
        let step = Step { follows: None, input: ChainInput::Committed { blocks }, finalized: None };
        let error = database.store.apply(&step).await.unwrap_err();
        assert!(matches!(error, StoreError::Projection(_)), "{error}");
        assert_eq!(dump(&database.location).await, before);
        assert_eq!(database.store.market_state().await.unwrap(), MarketState::new(&terms()));
    }
}

#[tokio::test]
async fn final_blocks_are_not_taken_back() {
    for engine in ENGINES {
        let mut chain = Chain::default();
        (0..5).for_each(|_| chain.mine(&[]));
        chain.finalized = Some(3);
        let database = Database::of(&chain, engine).await;
        let old = chain.blocks[2..].iter().map(|block| block.block).collect();
        let input = ChainInput::Reorged { old, new: Vec::new() };
        let error = database.store.apply(&Step { follows: chain.last(), input, finalized: None }).await.unwrap_err();
        assert!(matches!(error, StoreError::BelowFinal { number: 3, finalized: 3 }), "{error}");
        // Empty blocks below the last final one are of no use to anyone.
        let blocks = database.store.blocks_above(None).await.unwrap();
        assert_eq!(blocks.iter().map(|block| block.number).collect::<Vec<_>>(), [3, 4, 5]);
    }
}

#[tokio::test]
async fn a_reader_reads_and_does_not_write() {
    for engine in ENGINES {
        let mut chain = Chain::default();
        chain.mine(&[]);
        let database = Database::of(&chain, engine).await;
        let reader = Store::open_read_only(&database.location).await.unwrap();
        assert_eq!(reader.as_of().await.unwrap(), chain.last());
        assert!(matches!(reader.rebuild(|_, _| ()).await, Err(StoreError::ReadOnly)));
        let missing = match &database.location {
            Location::Sqlite(path) => path.with_file_name("missing.db").into(),
            Location::Postgres(url) => Location::Postgres(url.replace("/d", "/missing")),
        };
        assert!(Store::open_read_only(&missing).await.is_err());
    }
}

/// What readers need indexes for is fast once the chain's final blocks are all there, and not made row by row before.
#[tokio::test]
async fn readers_have_their_indexes_once_the_final_blocks_are_there() {
    for engine in ENGINES {
        let database = Database::new(engine).await;
        let mut chain = Chain::default();
        for number in 0..6 {
            chain.mine(&[]);
            let blocks = chain.blocks[number..].to_vec();
            let follows = number.checked_sub(1).map(|before| chain.blocks[before].block);
            let step = Step { follows, input: ChainInput::Committed { blocks }, finalized: Some(4) };
            database.store.apply(&step).await.unwrap();
            let indexes = dump::indexes(&database.location).await;
            let height = chain.blocks[number].block.number;
            assert_eq!(indexes.iter().any(|name| name == "events_deal"), height >= 4, "{engine:?} at {height}");
        }
        // A database that is filled anew is filled without them again, and rebuilt it has them.
        database.store.rebuild(|_, _| ()).await.unwrap();
        assert!(dump::indexes(&database.location).await.contains(&"payments_to".to_owned()));
        database.store.forget().await.unwrap();
        database.store.bind(&terms()).await.unwrap();
        let input = ChainInput::Committed { blocks: chain.blocks[..2].to_vec() };
        database.store.apply(&Step { follows: None, input, finalized: Some(4) }).await.unwrap();
        assert!(!dump::indexes(&database.location).await.contains(&"payments_to".to_owned()));
    }
}
