//! What is said of the matches that were made.

use std::collections::BTreeMap;

use common::{
    ids::{Address, OfferHash, TxHash},
    money::Atoms,
};
use serde::Serialize;

/// A match, and what the engine says to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JudgedMatch {
    /// Height of its block.
    pub block: u64,
    /// Its transaction.
    pub transaction: TxHash,
    /// The account that made it; zero where nobody said.
    pub matcher: Address,
    /// Who is hosted.
    pub demand: OfferHash,
    /// Whose offer that is.
    pub developer: Address,
    /// Its new hosts.
    pub fills: Vec<JudgedFill>,
    /// Hosts that the engine would have placed at once beside these, all of them there for longer than the grace.
    pub fewer_by: usize,
}

/// One replica at one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JudgedFill {
    /// Under which offer.
    pub supply: OfferHash,
    /// Who hosts.
    pub provider: Address,
    /// What the developer pays for an epoch.
    pub ask: Atoms,
    /// What the engine says to it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What the engine says to a fill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Verdict {
    /// It would have chosen it, on the state right before the match or on that of the block before.
    AsEngine,
    /// It would have chosen otherwise because of something that is younger than the grace, or would have chosen this on a
    /// state that is.
    Race,
    /// A provider asked less.
    Dearer {
        /// The cheapest that was not taken.
        better: Better,
    },
    /// A provider asked the same and had registered before.
    TieBrokenOtherwise {
        /// The first that was not taken.
        better: Better,
    },
    /// An earlier demand would have had this capacity, and no longer finds hosts as cheap or as many.
    Overtaken {
        /// The first such demand.
        passed_over: PassedOver,
    },
    /// The offers are not known exactly.
    NotJudged,
}

impl Verdict {
    /// Whether somebody was favoured.
    pub const fn is_unfair(&self) -> bool {
        matches!(self, Self::Dearer { .. } | Self::TieBrokenOtherwise { .. } | Self::Overtaken { .. })
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AsEngine => "as_engine",
            Self::Race => "race",
            Self::Dearer { .. } => "dearer",
            Self::TieBrokenOtherwise { .. } => "tie_broken_otherwise",
            Self::Overtaken { .. } => "overtaken",
            Self::NotJudged => "not_judged",
        }
    }
}

/// A provider offer that should have been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Better {
    /// The offer.
    pub supply: OfferHash,
    /// Whose it is.
    pub provider: Address,
    /// What it asked for an epoch.
    pub ask: Atoms,
    /// Block in which it was posted or, if it was signed, accepted.
    pub since_block: u64,
    /// Blocks since then.
    pub blocks_there: u64,
    /// What the developer pays more for an epoch.
    pub lost_per_epoch: Atoms,
    /// What the developer pays more until the end of the term.
    pub lost_in_term: Atoms,
}

/// A developer offer that should have been served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PassedOver {
    /// The offer.
    pub demand: OfferHash,
    /// Whose it is.
    pub developer: Address,
    /// Block in which it was posted or, if it was signed, accepted.
    pub since_block: u64,
    /// Blocks since then.
    pub blocks_there: u64,
}

/// Counts of one matcher's matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the verdicts are documented")]
pub struct Tally {
    /// Matches.
    pub matches: u64,
    /// Replicas placed.
    pub fills: u64,
    pub as_engine: u64,
    pub race: u64,
    pub dearer: u64,
    pub tie_broken_otherwise: u64,
    pub overtaken: u64,
    pub not_judged: u64,
    /// Matches with fewer replicas than the engine would have placed at once.
    pub fewer_replicas: u64,
    /// What developers pay more for an epoch, over all fills.
    pub lost_per_epoch: Atoms,
    /// What developers pay more until the ends of their terms.
    pub lost_in_term: Atoms,
}

impl Tally {
    /// Fills that favoured somebody.
    pub const fn unfair(&self) -> u64 {
        self.dearer.saturating_add(self.tie_broken_otherwise).saturating_add(self.overtaken)
    }

    fn add(&mut self, judged: &JudgedMatch) {
        let count = |number: &mut u64| *number = number.saturating_add(1);
        let sum = |left: Atoms, right: Atoms| left.checked_add(right).unwrap_or(Atoms::MAX);
        count(&mut self.matches);
        if judged.fewer_by > 0 {
            count(&mut self.fewer_replicas);
        }
        for fill in &judged.fills {
            count(&mut self.fills);
            count(match &fill.verdict {
                Verdict::AsEngine => &mut self.as_engine,
                Verdict::Race => &mut self.race,
                Verdict::Dearer { .. } => &mut self.dearer,
                Verdict::TieBrokenOtherwise { .. } => &mut self.tie_broken_otherwise,
                Verdict::Overtaken { .. } => &mut self.overtaken,
                Verdict::NotJudged => &mut self.not_judged,
            });
            if let Verdict::Dearer { better } = &fill.verdict {
                self.lost_per_epoch = sum(self.lost_per_epoch, better.lost_per_epoch);
                self.lost_in_term = sum(self.lost_in_term, better.lost_in_term);
            }
        }
    }
}

/// A developer offer that hosts were there for, and that nobody matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftWaiting {
    /// The offer.
    pub demand: OfferHash,
    /// Whose it is.
    pub developer: Address,
    /// Who alone could have matched it; none where anybody could.
    pub matcher: Option<Address>,
    /// Block since which the engine would have served it.
    pub from_block: u64,
    /// Block in which that ended: it was matched, or its hosts or its money went. None where it still waits.
    pub until_block: Option<u64>,
    /// Blocks in between.
    pub blocks: u64,
}

/// All matches together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// By the account that made the matches.
    pub matchers: BTreeMap<Address, Tally>,
    /// How often a demand was left waiting for longer than the grace, while matching was not paused.
    pub left_waiting: u64,
    /// The longest of these waits.
    pub longest_waits: Vec<LeftWaiting>,
    /// Blocks at which more could have been matched than is followed: some waits may have gone unseen.
    pub cut_short: u64,
}

impl Summary {
    pub(super) fn add(&mut self, judged: &JudgedMatch) {
        self.matchers.entry(judged.matcher).or_default().add(judged);
    }

    /// Fills that favoured somebody.
    pub fn unfair(&self) -> u64 {
        self.matchers.values().map(Tally::unfair).fold(0, u64::saturating_add)
    }
}
