//! The command line as people meet it first.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

/// Runs the command with a surrounding that names no market and no key.
fn wharfage(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfage"));
    for name in ["API", "GATEWAY", "RPC", "KEY", "KEYSTORE", "PASSWORD"] {
        command.env_remove(format!("WHARFAGE_{name}"));
    }
    command.args(args).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A market that answers every request with one problem.
fn refusing_market(status: u16, code: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = format!(r#"{{"type":"t","code":"{code}","title":"No","status":{status},"detail":"do it otherwise"}}"#);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            let length = body.len();
            let head = format!("HTTP/1.1 {status} No\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
        }
    });
    url
}

#[test]
fn help_names_the_first_commands() {
    let output = Command::new(env!("CARGO_BIN_EXE_wharfage")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for command in ["demo", "up", "provider"] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn every_command_shows_an_example() {
    for command in [
        "deploy",
        "explain",
        "status",
        "invoke",
        "cancel",
        "depth",
        "offers",
        "deals",
        "audit",
        "audit matching",
        "balance",
        "deposit",
        "withdraw",
        "fund",
        "faucet",
        "keys new",
        "keys address",
        "provider init",
        "provider run",
        "provider status",
        "gateway run",
        "indexer run",
        "indexer rebuild",
    ] {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = wharfage(&args);
        assert!(output.status.success(), "{output:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(&format!("wharfage {command}")) && help.contains("Example"), "{help}");
    }
}

#[test]
fn exit_codes_tell_failures_apart() {
    // Nobody listens there any more.
    let gone = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let refusing = refusing_market(403, "wrong_signer");
    let failing = refusing_market(500, "internal");
    let (offer, market) = (format!("0x{}", "11".repeat(32)), format!("0x{}", "11".repeat(20)));
    for (args, exit, code) in [
        (vec!["--json", "offers", "--api", &gone], 4, "unreachable"),
        (vec!["--json", "invoke", &offer, "--gateway", &gone], 4, "unreachable"),
        (vec!["--json", "status", &offer, "--api", &refusing], 3, "wrong_signer"),
        (vec!["--json", "invoke", &offer, "--gateway", &refusing], 3, "wrong_signer"),
        (vec!["--json", "status", &offer, "--api", &failing], 1, "internal"),
        (vec!["--json", "keys", "address"], 2, "usage"),
        // An audit's 1 says that there are differences.
        (vec!["--json", "audit", "--api", &gone], 2, "unreachable"),
        (vec!["--json", "audit", "--market", &market, "--rpc", &gone], 2, "unreachable"),
        (vec!["--json", "audit", "matching", "--market", &market, "--rpc", &gone], 2, "unreachable"),
    ] {
        let output = wharfage(&args);
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {output:?}");
        assert_eq!(json(&output)["error"]["code"], code, "{args:?}");
        // What went wrong on the way may be logged before it.
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().any(|line| line.starts_with("error: ")), "{args:?}: {said}");
    }
    assert_eq!(wharfage(&["status", "0x12"]).status.code(), Some(2));
}

#[test]
fn keys_are_made_once_and_open_with_their_password() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (keystore, password) = (path("key.json"), path("password"));
    std::fs::write(&password, "secret").unwrap();
    let new = ["--json", "keys", "new", "--out", &keystore, "--password-file", &password];
    let made = wharfage(&new);
    assert!(made.status.success(), "{made:?}");
    let shown = wharfage(&["keys", "address", "--keystore", &keystore, "--password-file", &password]);
    assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), json(&made)["address"].as_str().unwrap());
    assert_eq!(wharfage(&new).status.code(), Some(2));
    std::fs::write(&password, "another").unwrap();
    let wrong = wharfage(&["keys", "address", "--keystore", &keystore, "--password-file", &password]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("right password"));
}
