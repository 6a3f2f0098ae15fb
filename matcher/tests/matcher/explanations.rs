//! What stands in the way of an offer that waits: kept with it, and told when it becomes other.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;

use crate::support::{World, eventually};

/// Messages of a stream.
struct Told {
    response: Response,
    text: String,
}

impl Told {
    async fn by(world: &World, path: &str) -> Self {
        let response = world.client().get(world.url(path)).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let data = message.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
                let is_offer = message.lines().any(|line| line == "event: offer");
                self.text = rest.to_owned();
                match data {
                    Some(data) if is_offer => return serde_json::from_str(&data).unwrap(),
                    _ => continue,
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(60), self.response.chunk()).await;
            let chunk = chunk.expect("nothing was sent").unwrap().expect("the stream ended");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let told = self.next().await;
            if is_it(&told) {
                return told;
            }
        }
    }
}

fn suggestions(explanation: &Value) -> usize {
    explanation["suggestions"].as_array().map_or(0, Vec::len)
}

/// What is kept of all offers, when it is as wanted; rounds come with blocks.
async fn kept(world: &World, what: &str, is_it: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, async || {
        world.block().await;
        let kept = world.get("/v1/explanations").await;
        let items = kept["items"].as_array().unwrap().clone();
        if is_it(&items) { Ok(items) } else { Err(kept) }
    })
    .await
}

#[tokio::test]
async fn what_stands_in_an_offers_way_is_kept_with_it_and_told_when_it_changes() {
    let mut world = World::start().await;
    world.fund(1, 1_000_000).await;
    let offer = world.developer_offer(1);
    let hash = world.developer_hash(&offer);
    world.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    world.has_status(hash, "waiting").await;

    let mut told = Told::by(&world, &format!("/v1/developer-offers/{hash}/stream")).await;
    let first = told.next().await;
    assert_eq!((&first["status"], suggestions(&first["explanation"])), (&Value::from("waiting"), 0));
    let nobody = kept(&world, "it is kept", |items| items.len() == 1).await.remove(0);
    assert_eq!((&nobody["offerHash"], suggestions(&nobody["explanation"])), (&Value::from(hash.to_string()), 0));

    // Blocks without news change nothing.
    let again = kept(&world, "it is found again", |items| items[0]["seenBlock"] != nobody["seenBlock"]).await.remove(0);
    assert_eq!(again["sinceBlock"], nobody["sinceBlock"]);
    let shown = world.get(&format!("/v1/developer-offers/{hash}")).await;
    assert_eq!(shown["explainedSinceBlock"], nobody["sinceBlock"]);

    // Somebody who asks too much.
    world.provider(10, "eu-de-fra1", 2_000).await;
    let dear = told.until(|told| suggestions(&told["explanation"]) > 0).await;
    assert_eq!((&dear["status"], &dear["explanation"]["considered"]), (&Value::from("waiting"), &Value::from(1)));
    let too_dear =
        kept(&world, "what helps is kept", |items| suggestions(&items[0]["explanation"]) > 0).await.remove(0);
    assert!(too_dear["sinceBlock"].as_u64() > nobody["sinceBlock"].as_u64(), "{too_dear} {nobody}");

    // It outlives the process.
    world.kill_matcher();
    world.start_matcher(|_| ()).await;
    let after = world.get("/v1/explanations").await["items"][0].clone();
    assert_eq!(after["sinceBlock"], too_dear["sinceBlock"]);

    let mut told = Told::by(&world, &format!("/v1/developer-offers/{hash}/stream")).await;
    assert!(suggestions(&told.next().await["explanation"]) > 0);
    world.provider(12, "eu-de-fra1", 70).await;
    let placed = told.until(|told| told["status"] == "placed").await;
    assert!(placed.get("explanation").is_none());
    kept(&world, "it is forgotten", <[Value]>::is_empty).await;
    world.stop_matcher().await;
}

#[tokio::test]
async fn of_an_offer_that_nobody_knows_there_is_no_stream() {
    let world = World::start().await;
    let unknown = world.client().get(world.url(&format!("/v1/developer-offers/0x{}/stream", "ab".repeat(32))));
    let answer = unknown.send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "offer_unknown");
    let listed = world.client().get(world.url("/v1/explanations?limit=1000")).send().await.unwrap();
    assert_eq!(listed.json::<Value>().await.unwrap()["field"], "limit");
}
