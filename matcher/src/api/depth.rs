//! How much of a size can be had, where and at which asks.

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use common::{feature::FeatureSet, http::Problem, offer::SIZE_LIMIT, region::Region, resources::Resources};
use indexer::view::AsOf;
use matching::depth::{Depth, Gathered, Offered, Wanted};
use serde::{Deserialize, Serialize};

use super::{Api, request::number};
use crate::view::Present;

/// Sizes that are shown to who asks for none: a small worker, one of a whole CPU, and a large one.
const USUAL: [Resources; 3] = [
    Resources { milli_cpu: 250, memory_mib: 256 },
    Resources { milli_cpu: 1_000, memory_mib: 2_048 },
    Resources { milli_cpu: 4_000, memory_mib: 8_192 },
];

/// Offers that are read at a time: some hundred microseconds.
const PART: u32 = 2_048;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Asked {
    milli_cpu: Option<String>,
    memory_mib: Option<String>,
    region: Option<String>,
    /// Names with commas between them.
    features: Option<String>,
    epochs: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    as_of_block: AsOf,
    sizes: Vec<Depth>,
}

pub(super) async fn depth(State(api): State<Api>, Query(asked): Query<Asked>) -> Result<Json<Shown>, Problem> {
    let wanted = wanted(&asked)?;
    let _one_at_a_time = api.depths.acquire().await.map_err(Problem::internal)?;
    let mut gathering = Gathering { from: Some(0), sizes: wanted.into_iter().map(Gathered::new).collect() };
    let mut as_of_block = api.ask(|_, as_of| as_of).await?;
    while gathering.from.is_some() {
        (gathering, as_of_block) = api.ask(move |present, as_of| (gathering.on(present), as_of)).await?;
    }
    let terms = api.parts.views.terms;
    let depths = move || gathering.sizes.into_iter().map(|size| size.depth(&terms)).collect();
    let sizes = tokio::task::spawn_blocking(depths).await.map_err(Problem::internal)?;
    Ok(Json(Shown { as_of_block, sizes }))
}

/// Offers with room, gathered in parts, so that no other question waits for long. In a large market they are of some
/// moments shortly before the block that is named.
struct Gathering {
    /// Where to go on; none at the end.
    from: Option<u32>,
    sizes: Vec<Gathered>,
}

impl Gathering {
    fn on(mut self, present: &Present) -> Self {
        let sizes = &mut self.sizes;
        let add = |offered: &Offered<'_>| sizes.iter_mut().for_each(|size| size.add(offered));
        self.from = self.from.and_then(|from| present.market.seen().look_at_offered(from, PART, add));
        self
    }
}

fn wanted(asked: &Asked) -> Result<Vec<Wanted>, Problem> {
    let size = |text: &Option<String>, field| number(text.as_deref(), field, u64::from(SIZE_LIMIT));
    let sizes = match (size(&asked.milli_cpu, "milliCpu")?, size(&asked.memory_mib, "memoryMib")?) {
        (None, None) => USUAL.to_vec(),
        (Some(milli_cpu), Some(memory_mib)) => {
            vec![Resources { milli_cpu: whole(milli_cpu), memory_mib: whole(memory_mib) }]
        }
        _ => return Err(invalid("milliCpu", "milliCpu and memoryMib belong together: name both or none".to_owned())),
    };
    let empty = sizes.iter().any(|size| size.milli_cpu == 0 || size.memory_mib == 0);
    if empty {
        return Err(invalid("milliCpu", "milliCpu and memoryMib must be at least 1, got 0".to_owned()));
    }
    let region: Option<Region> = match asked.region.as_deref() {
        Some(text) => Some(text.parse().map_err(|error| invalid("region", format!("region: {error}")))?),
        None => None,
    };
    let mut features = FeatureSet::EMPTY;
    for name in asked.features.iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty()) {
        let named = FeatureSet::named(name).map_err(|error| invalid("features", format!("features: {error}")))?;
        features = features.union(named);
    }
    let epochs = number(asked.epochs.as_deref(), "epochs", u64::from(u32::MAX))?.map_or(1, whole);
    Ok(sizes.into_iter().map(|size| Wanted { size, features, region, epochs }).collect())
}

/// The limit was checked.
fn whole(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn invalid(field: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail).with_field(field)
}
