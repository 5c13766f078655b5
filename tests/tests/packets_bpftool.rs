//! The `bpftool` recipes of `docs/datapath.md` stay true: each is run, and the dumps are read.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::process::Command;

use ban_agent::clock::Boot;
use serde_json::{Value, json};
use tests::{
    bench::{Bench, all, scoped, set},
    packet::{Frame, TCP},
    require_root,
};

const PAGE: &str = include_str!("../../docs/datapath.md");
const PINS: &str = "/sys/fs/bpf/ban-agent";

fn recipes() -> Vec<&'static str> {
    PAGE.lines().filter(|line| line.starts_with("bpftool ")).collect()
}

/// What the command says about our own pins.
fn run(recipe: &str, bench: &Bench, flags: &[&str]) -> String {
    let recipe = recipe.replace(PINS, bench.pins.path().to_str().unwrap());
    let mut words = recipe.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(flags).args(words).output().unwrap();
    assert!(output.status.success(), "{recipe}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The formatted entries of a dump.
fn entries(map: &str, bench: &Bench) -> Vec<Value> {
    let text = run(&format!("bpftool map dump pinned {PINS}/v1/{map}"), bench, &["-j"]);
    let dump: Value = serde_json::from_str(&text).unwrap();
    let entries = dump.as_array().unwrap().iter();
    entries.map(|entry| entry.get("formatted").unwrap_or(entry).clone()).collect()
}

#[test]
fn every_recipe_works_and_reads_like_a_table() {
    require_root!("the bpftool recipes");
    let mut bench = Bench::new("bpftool", 1_024);
    bench.ban("203.0.113.7");
    bench.ban("2001:db8::7");
    bench.ban("198.51.100.0/24");
    bench.apply(&[set("2001:db8:1:2::/64", scoped(&["tcp/22"])), set("192.0.2.9", all(Boot(1)))]);
    let frame = Frame::new().v4("203.0.113.7".parse().unwrap(), TCP).port(80);
    bench.judge(&frame);
    bench.judge(&frame);
    let recipes = recipes();
    assert!(recipes.len() >= 8, "the page has lost its recipes");
    for recipe in recipes {
        assert!(!run(recipe, &bench, &[]).trim().is_empty(), "{recipe} says nothing");
    }
    let found = entries("ban_v4", &bench);
    let never = u64::MAX;
    let expected = json!({
        "key": [203, 0, 113, 7],
        "value": {
            "ends_jiffies": never, "ports_end_jiffies": 0, "packets": 2,
            "bytes": 2 * frame.bytes().len(), "ends_unix": never, "port_set": 0, "prefix": 32,
        },
    });
    assert!(found.contains(&expected), "{found:#?}");
    let site = &entries("site_v6", &bench)[0];
    assert_eq!(site["key"], json!({"network": [32, 1, 13, 184, 0, 1, 0, 2], "prefix": 64}));
    assert_eq!(site["value"]["port_set"], 1);
    let net = &entries("net_v4", &bench)[0];
    assert_eq!(net["key"]["prefix_len"], 24);
    assert_eq!(net["key"]["data"]["address"], json!([198, 51, 100, 0]));
    assert_eq!(entries("settings", &bench)[0]["value"]["nets_v4"], 1);
}
