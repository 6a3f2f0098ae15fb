//! The commands in the README do what it says.

use std::process::Command;

use crate::market::{PROGRAM, UpMarket, built_worker, repository};

/// Commands of the README's shell blocks, in their order.
fn commands(readme: &str) -> Vec<String> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside => commands.push(command.to_owned()),
            _ => {}
        }
    }
    commands
}

/// The first `0x` and 64 hex digits in `text`.
fn first_hash(text: &str) -> Option<String> {
    let starts = text.match_indices("0x").map(|(at, _)| at);
    let hash = |at: usize| text.get(at..at + 66).filter(|hash| hash[2..].bytes().all(|byte| byte.is_ascii_hexdigit()));
    starts.filter_map(hash).next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_work_as_they_stand() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let commands = commands(&readme);
    for tested_elsewhere in ["cargo run --release -- demo", "cargo run --release -- up", "cargo xtask test"] {
        assert!(commands.iter().any(|command| command == tested_elsewhere), "the README lost `{tested_elsewhere}`");
    }
    let ci = std::fs::read_to_string(repository().join(".ci/run")).unwrap();
    assert!(ci.contains("cargo xtask test"), "CI runs the README's test command");

    let market = UpMarket::start(60).await;
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("tests/guests/target/wasm32-wasip2/release");
    std::fs::create_dir_all(&built).unwrap();
    std::fs::copy(built_worker("hello.wasm"), built.join("hello.wasm")).unwrap();
    assert!(readme.contains(market.url("developerKey")), "the README names the developer's key of `up`");

    let mut offer = None;
    let mut ran = 0;
    for command in commands.iter().filter(|command| command.starts_with("wharfage ")) {
        let command = command.replace("OFFER", offer.as_deref().unwrap_or("OFFER"));
        let output = Command::new("bash")
            .args(["-c", &command])
            .current_dir(folder.path())
            .env("PATH", format!("{}:{}", PROGRAM.parent().unwrap().display(), std::env::var("PATH").unwrap()))
            .env("WHARFAGE_KEY", market.url("developerKey"))
            .env("WHARFAGE_API", market.url("apiUrl"))
            .env("WHARFAGE_GATEWAY", market.url("gatewayUrl"))
            .env("WHARFAGE_RPC", market.url("rpcUrl"))
            .output()
            .unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "`{command}` ended with {}:\n{stdout}\n{stderr}", output.status);
        if command.contains(" deploy ") && !command.contains("--dry-run") {
            offer = first_hash(&stdout);
            assert!(offer.is_some(), "deploy prints the offer's hash: {stdout}");
        }
        if command.contains("/whoami") {
            assert!(stdout.contains("WHARFAGE_DEAL") || stdout.contains("deal"), "{stdout}");
        }
        ran += 1;
    }
    assert!(ran >= 7, "only {ran} commands were found");
}
