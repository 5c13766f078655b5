//! The metrics, scraped over HTTP from the real agent and read by Prometheus's own parser.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::{Agent, LIMIT},
    host::{FAMILIES, Family},
    mmdb,
    net::run,
    privilege,
    process::eventually,
    stage::{DEVICE, EDGE, Stage},
};

const URL: &str = "http://127.0.0.1:9938/metrics";

/// Prints each sample as `NAME{LABEL="VALUE",…}`, a tab, and its value; fails on anything that
/// the specification does not allow.
const SCRAPE: &str = r#"
import sys, urllib.request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
answer = urllib.request.urlopen(sys.argv[1])
assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0;")
for family in families(answer.read().decode()):
    assert family.documentation, family.name
    for sample in family.samples:
        labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
        print(f"{sample.name}{{{labels}}}\t{sample.value}")
"#;

/// The value of each sample.
fn scrape(stage: &Stage) -> Result<BTreeMap<String, f64>> {
    let text = run(stage.edge.command("/usr/bin/python3").args(["-c", SCRAPE, URL]))?;
    let sample = |line: &str| -> Result<(String, f64)> {
        let (name, value) = line.split_once('\t').context("no value")?;
        Ok((name.to_owned(), value.parse()?))
    };
    text.lines().map(sample).collect()
}

/// Two failures, and the address is banned.
fn configuration(stage: &Stage) -> String {
    format!(
        "[metrics]\nlisten = \"127.0.0.1:9938\"\n[events]\nfile = {:?}\n\
         [geoip]\ndatabase = {:?}\n[hooks.program]\ncommand = [\"/bin/true\"]\n\
         [actions.note]\nban = \"true\"\n\
         [filters.door]\nfailregex = ['^<ADDR> knocks as <F-USER>.*</F-USER>$']\ndatepattern = ['{{NONE}}']\n\
         [jails.door]\nmaxretry = 2\nlogpath = {:?}\nactions = \"note\"\n",
        stage.file("events.ndjson"),
        stage.file("city.mmdb"),
        stage.file("door.log")
    )
}

/// The attacker's networks, and where they are.
fn places(stage: &Stage) -> Result<()> {
    let database = mmdb::database(&[
        ("192.0.2.0", 24, mmdb::city("NL", "Amsterdam", (52.37, 4.9))),
        ("2001:db8::", 32, mmdb::city("no code", "Ams\u{1b}[2Jterdam", (52.37, 4.9))),
    ])?;
    Ok(fs::write(stage.file("city.mmdb"), database)?)
}

#[test]
fn prometheus_reads_what_a_ban_and_its_packets_did() -> Result<()> {
    if !privilege::ready("metrics") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let log = stage.write("door.log", "")?;
    places(&stage)?;
    let agent = Agent::start(&stage, &configuration(&stage))?;
    let before = scrape(&stage)?;
    ensure!(before.get(r#"ban_agent_map_capacity{family="ipv6"}"#) == Some(&4096.0), "{before:?}");
    ensure!(before.get("ban_agent_log_to_drop_seconds_count{}") == Some(&0.0), "{before:?}");
    ensure!(before.get("ban_agent_store_degraded{}") == Some(&0.0), "{before:?}");

    let attacker = stage.attacker();
    let mut file = fs::File::options().append(true).open(&log)?;
    for family in FAMILIES {
        let address = attacker.address(family);
        write!(file, "{address} knocks as a\n{address} knocks as \"}} evil 1 \u{1b}[2J\n")?;
        agent.await_holders(address, &["door"])?;
        ensure!(!attacker.pings(family, EDGE)?, "not dropped");
    }
    let packets: u64 = FAMILIES
        .iter()
        .map(|family| agent.dropped(attacker.address(*family)))
        .sum::<Result<u64>>()?;
    ensure!(packets >= 2, "nothing was dropped");
    let name = |metric: &str, labels: &str| format!("ban_agent_{metric}{{{labels}}}");
    let after = scrape(&stage)?;
    let source = format!("source=\"{}\"", log.display());
    for (sample, value) in [
        (name("bans", r#"family="ipv4",jail="door""#), 1.0),
        (name("bans", r#"family="ipv6",jail="door""#), 1.0),
        (name("map_entries", r#"family="ipv4""#), 1.0),
        (name("map_entries", r#"family="ipv6""#), 1.0),
        (name("jail_lines_total", r#"jail="door""#), 4.0),
        (name("jail_matches_total", r#"jail="door""#), 4.0),
        (name("jail_offences_total", r#"jail="door""#), 2.0),
        (name("jail_stopped", r#"jail="door""#), 0.0),
        (name("source_lines_total", &source), 4.0),
        (name("source_lag_bytes", &source), 0.0),
        (name("bans_by_country_total", r#"country="NL""#), 1.0),
        (name("bans_by_country_total", r#"country="unknown""#), 1.0),
        (name("events_total", ""), 2.0),
        (name("events_lost_total", r#"listener="file""#), 0.0),
        (name("kernel_steps_pending", ""), 0.0),
        (name("log_to_drop_seconds_count", ""), 2.0),
        (name("log_to_drop_seconds_bucket", r#"le="+Inf""#), 2.0),
    ] {
        ensure!(after.get(&sample) == Some(&value), "{sample} is not {value}: {after:#?}");
    }
    let dropped = name("packets_total", &format!("interface=\"{DEVICE}\",verdict=\"drop\""));
    let counted = after.get(&dropped).context("no counter of dropped packets")?;
    // IPv6 never stops asking who its neighbours are
    ensure!(*counted >= packets as f64, "{packets} packets were dropped, and {counted} counted");
    let took = after.get("ban_agent_log_to_drop_seconds_sum{}").context("no latency")?;
    ensure!(*took > 0.0, "no time has passed between a line and its ban");
    let evil = after.keys().find(|sample| sample.contains("evil") || sample.contains("192.0.2.66"));
    ensure!(evil.is_none(), "the attacker chose a label: {evil:?}");

    let done = agent.verb(&["unban", attacker.address(Family::V4)])?;
    ensure!(done.status.success(), "unban failed");
    let done = name("action_commands_total", r#"action="note",jail="door",outcome="done""#);
    eventually("the action is counted", LIMIT, || Ok(scrape(&stage)?.get(&done) == Some(&2.0)))?;
    let last = scrape(&stage)?;
    located(&stage, attacker.address(Family::V4))?;
    let held = name("bans", r#"family="ipv4",jail="door""#);
    ensure!(last.get(&held) == Some(&0.0), "{held} after the unban: {last:#?}");
    documented(&last)?;
    dashboard(&last)
}

/// Every metric is on the page, and every metric of the page is there.
fn documented(samples: &BTreeMap<String, f64>) -> Result<()> {
    let page = include_str!("../../../docs/observability.md");
    let family = |sample: &String| {
        let name = sample.split('{').next().unwrap_or_default();
        let parts = ["_bucket", "_sum", "_count"];
        let stem = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        stem.to_owned()
    };
    let printed: BTreeSet<String> = samples.keys().map(family).collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `ban_agent_"));
    let named = rows.filter_map(|row| Some(format!("ban_agent_{}", row.split_once('`')?.0)));
    let named: BTreeSet<String> = named.collect();
    ensure!(printed == named, "{:?}", printed.symmetric_difference(&named).collect::<Vec<_>>());
    Ok(())
}

/// The event tells where he is.
fn located(stage: &Stage, address: &str) -> Result<()> {
    let events = fs::read_to_string(stage.file("events.ndjson"))?;
    let events: Vec<serde_json::Value> =
        events.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let found = events.iter().find(|event| event.pointer("/source/ip") == Some(&address.into()));
    let geo = found.and_then(|event| event.pointer("/source/geo")).context("no place")?;
    let expected = serde_json::json!({
        "city_name": "Amsterdam", "continent_code": "EU", "continent_name": "Europe",
        "country_iso_code": "NL", "country_name": "a country", "postal_code": "1012",
        "region_iso_code": "NL-NH", "region_name": "North Holland",
        "timezone": "Europe/Amsterdam", "location": { "lat": 52.37, "lon": 4.9 },
    });
    ensure!(*geo == expected, "{geo}, not {expected}");
    let hostile = events.iter().filter_map(|event| event.pointer("/source/geo/city_name"));
    let hostile: Vec<_> = hostile.filter(|name| **name != "Amsterdam").collect();
    ensure!(hostile == [r"Ams\u{1b}[2Jterdam"], "{hostile:?}");
    Ok(())
}

/// Every metric that the dashboard and the alerts ask for is there.
fn dashboard(samples: &BTreeMap<String, f64>) -> Result<()> {
    let text = include_str!("../../../dist/grafana/ban-agent.json");
    let parsed: serde_json::Value = serde_json::from_str(text)?;
    let mut expressions = Vec::new();
    collect(&parsed, &mut expressions);
    ensure!(expressions.len() > 10, "a dashboard of {} expressions", expressions.len());
    let rules = include_str!("../../../dist/prometheus/ban-agent.rules.yml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let alerts: Vec<&str> = alerts.filter(|expression| !expression.starts_with("up{")).collect();
    ensure!(alerts.len() >= 10, "{} alerts", alerts.len());
    for expression in expressions.into_iter().chain(alerts) {
        let words = expression.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("ban_agent_")).collect();
        ensure!(!metrics.is_empty(), "asks for nothing of ours: {expression}");
        for metric in metrics {
            let there = samples.keys().any(|name| name.split('{').next() == Some(metric));
            ensure!(there, "{metric} is asked for, and not there: {expression}");
        }
    }
    Ok(())
}

/// All expressions and queries for variables, wherever they stand.
fn collect<'a>(value: &'a serde_json::Value, into: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "definition" => into.push(text),
                    _ => collect(value, into),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
        _ => {}
    }
}

#[test]
fn a_port_that_is_taken_stops_the_start() -> Result<()> {
    if !privilege::ready("a taken port") {
        return Ok(());
    }
    let stage = Stage::build()?;
    stage.write("door.log", "")?;
    let jails = configuration(&stage);
    let taken =
        tests::host::within(&stage.edge, || Ok(std::net::TcpListener::bind("127.0.0.1:9938")?))?;
    let error = Agent::start(&stage, &jails).err().context("it started all the same")?;
    let said = format!("{error:#}");
    ensure!(said.contains("cannot serve metrics on 127.0.0.1:9938"), "{said}");
    ensure!(!stage.attached()?, "a failed start left the program");
    drop(taken);
    let agent = Agent::start(&stage, &jails)?;
    eventually("the port is served", LIMIT, || Ok(scrape(&stage).is_ok()))?;
    drop(agent);
    Ok(())
}

#[test]
fn a_unix_socket_serves_the_metrics() -> Result<()> {
    if !privilege::ready("metrics over a unix socket") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let path = stage.file("metrics.sock");
    let words = format!("[metrics]\nlisten = \"unix:{}\"\n", path.display());
    let mut agent = Agent::start(&stage, &words)?;
    let scrape = || {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--max-time", "30", "--unix-socket"]).arg(&path);
        run(curl.arg("http://agent/metrics"))
    };
    ensure!(scrape()?.contains("\nban_agent_store_degraded 0\n"), "{}", scrape()?);
    ensure!(fs::metadata(&path)?.permissions().mode() & 0o777 == 0o660, "who may read it?");
    agent.kill()?;
    ensure!(path.exists() && scrape().is_err(), "who answers?");
    agent.run()?;
    ensure!(scrape()?.ends_with("# EOF\n"), "{}", scrape()?);
    agent.terminate()?;
    ensure!(!path.exists(), "left behind");
    Ok(())
}
