//! Every field that `-o json` prints is in docs/json.md, and every field that the page promises is
//! printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT},
    host::{FAMILIES, Family},
    privilege,
    process::{Process, eventually},
    stage::{EDGE, Stage},
};

const PAGE: &str = include_str!("../../../docs/json.md");

/// What the page says of the document under one title: each field, and whether it is always there.
fn documented(title: &str) -> Result<BTreeMap<String, bool>> {
    let start = PAGE.find(&format!("\n## {title}\n")).with_context(|| format!("no ## {title}"))?;
    let part = PAGE.get(start + 4..).and_then(|rest| rest.split("\n## ").next());
    let rows = part.unwrap_or_default().lines().filter_map(|line| line.strip_prefix("| `"));
    let field = |row: &str| -> Option<(String, bool)> {
        let (name, rest) = row.split_once("` | ")?;
        Some((name.to_owned(), rest.starts_with("always")))
    };
    Ok(rows.filter_map(field).collect())
}

/// The paths of all values; a list's elements are `[]`.
fn paths(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                paths(value, &format!("{path}{dot}{name}"), into);
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            values.iter().for_each(|value| paths(value, &format!("{path}[]"), into));
        }
        _ => {
            into.insert(path.to_owned());
        }
    }
}

/// Names that are not ours to choose stand as `*` on the page.
fn is_same(documented: &str, path: &str) -> bool {
    match documented.strip_suffix(".*") {
        Some(parent) => {
            let rest = path.strip_prefix(parent);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
        None => documented == path,
    }
}

fn compare(title: &str, documents: &[Value]) -> Result<()> {
    let documented = documented(title)?;
    let mut all = BTreeSet::new();
    documents.iter().for_each(|document| paths(document, "", &mut all));
    for path in &all {
        let known = documented.keys().any(|name| is_same(name, path));
        ensure!(known, "{title}: {path} is printed and not documented");
    }
    for (name, _) in documented.iter().filter(|(_, always)| **always) {
        let there = all.iter().any(|path| is_same(name, path));
        ensure!(there, "{title}: {name} is documented and not printed: {all:?}");
    }
    Ok(())
}

#[test]
fn the_page_tells_what_is_printed() -> Result<()> {
    if !privilege::ready("the page about JSON") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    let mut agent = Agent::start(
        &stage,
        &format!(
            "[events]\nfile = {:?}\n[hooks.program]\ncommand = [\"/bin/true\"]\n\
             [actions.note]\nban = \"true\"\n\
             [filters.door]\nfailregex = ['^<ADDR> knocks as <F-USER>.*</F-USER>$']\n\
             datepattern = ['{{NONE}}']\n\
             [jails.door]\nmaxretry = 2\nactions = [\"note\"]\nlogpath = {log:?}\n\
             [jails.off]\nenabled = false\nfilter = \"door\"\nlogpath = {log:?}\n",
            stage.file("events.ndjson"),
        ),
    )?;
    let mut file = fs::File::options().append(true).open(&log)?;
    for family in FAMILIES {
        let address = stage.attacker().address(family);
        write!(file, "{address} knocks as a\n{address} knocks as b\nnobody knows\n")?;
        agent.await_holders(address, &["door"])?;
        ensure!(!stage.attacker().pings(family, EDGE)?, "not dropped");
    }
    let json = |words: &[&str]| -> Result<Vec<Value>> {
        let done = agent.verb(&[&["-o", "json"], words].concat())?;
        let documents = serde_json::Deserializer::from_slice(&done.stdout).into_iter::<Value>();
        let documents: Vec<Value> = documents.collect::<Result<_, _>>()?;
        ensure!(!documents.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(documents)
    };
    let v4 = stage.attacker().address(Family::V4);
    let path = log.to_string_lossy().into_owned();
    // the store's own thread writes what a ban rests on
    eventually("the evidence is there", LIMIT, || {
        Ok(json(&["show", v4])?.iter().any(|show| show.pointer("/evidence/0/lines/0").is_some()))
    })?;
    compare("status", &json(&["status"])?)?;
    compare("list", &json(&["list"])?)?;
    compare("show", &json(&["show", v4])?)?;
    compare("show", &json(&["show", EDGE.0])?)?;
    let mut changes = json(&["ban", "203.0.113.9", EDGE.0, "--for", "1h"])?;
    changes.extend(json(&["unban", "203.0.113.9", "203.0.113.10"])?);
    compare("ban, unban and import", &changes)?;
    compare("reload, resume, confirm and detach", &json(&["reload"])?)?;
    let each = json(&["test", "door", &path, "--each"])?;
    let (summary, lines) = each.split_last().context("no summary")?;
    compare("test", std::slice::from_ref(summary))?;
    compare("test --each", lines)?;
    compare("replay", &json(&["replay", "door", &path])?)?;
    compare("check", &json(&["check"])?)?;
    // a program that others reach; of the services, those whose logs are on this machine
    let mut server = stage.edge.command("python3");
    let _server = Process::spawn(
        "a server",
        server.args(["-m", "http.server", "8088"]).stderr(Stdio::null()),
    )?;
    eventually("who listens is found", LIMIT, || {
        Ok(json(&["discover"])?.iter().any(|found| found.pointer("/uncovered/0").is_some()))
    })?;
    compare("discover", &json(&["discover"])?)?;
    compare("doctor", &json(&["doctor"])?)?;
    compare("history", &json(&["history"])?)?;
    compare("allow list", &json(&["allow", "list"])?)?;
    compare("stats", &json(&["stats"])?)?;
    agent.terminate()
}
