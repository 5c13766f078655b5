//! Documents as daemons write them, and as attackers would; judged by serde_json where it can.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::filter::{Filter, Outcome, Scanner, Spec as FilterSpec};

fn conditions(list: &[(&str, &[&str])]) -> Conditions {
    let wanted = |text: &&str| match text.strip_prefix('~') {
        Some(pattern) => Wanted::Matches(pattern.to_owned()),
        None => Wanted::Exactly((*text).to_owned()),
    };
    let each = list.iter();
    each.map(|(path, any)| ((*path).to_owned(), any.iter().map(wanted).collect())).collect()
}

fn spec(form: Form, wanted: &[(&str, &[&str])], fields: &[(&str, &str)]) -> FilterSpec {
    let document = Spec {
        form,
        address: vec!["request.client_ip".into(), "request.remote_addr".into(), "addr".into()],
        time: vec!["ts".into()],
        fields: fields.iter().map(|(name, path)| ((*name).into(), (*path).into())).collect(),
        wanted: vec![conditions(wanted)],
        unless: Vec::new(),
    };
    let (name, logtimezone) = ("test".to_owned(), Some("UTC".to_owned()));
    FilterSpec { name, logtimezone, document: Some(document), maxlines: 1, ..FilterSpec::default() }
}

fn scanner(spec: &FilterSpec) -> Scanner {
    Scanner::new(Arc::new(Filter::compile(spec).unwrap()))
}

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// `ADDRESS TIME FIELDS`, or what else it is.
fn verdict(scanner: &mut Scanner, line: &str) -> String {
    match scanner.line(line.as_bytes(), false, now()) {
        Outcome::Matched(failure) => {
            let fields: Vec<String> =
                failure.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let time = failure.time.map(|time| time.to_string()).unwrap_or_default();
            let address = failure.address.map(|address| address.to_string()).unwrap_or_default();
            format!("{address} {time} {}", fields.join(" ")).trim().to_owned()
        }
        other => format!("{other:?}"),
    }
}

const STATUS: (&str, &[&str]) = ("status", &["401", "403"]);

#[test]
fn json_is_read_by_path() {
    let login: &[&str] = &["~^/login"];
    let fields = [("user", "user"), ("agent", "request.headers.User-Agent")];
    let mut scanner = scanner(&spec(Form::Json, &[STATUS, ("request.uri", login)], &fields));
    assert!(scanner.filter().rejects_early());
    let good = r#"{"ts":1795175940.5,"request":{"client_ip":"203.0.113.7","uri":"/login?x","headers":{"User-Agent":["a","b\"c"]}},"user":"é\u00e9\ud83d\ude00\ud83d\/","status":401}"#;
    let said = "203.0.113.7 2026-11-20T11:59:00.5Z agent=a, b\"c user=éé😀\u{fffd}/";
    let carried = said.replace("00.5Z", "01Z");
    for (line, expected) in [
        (good.to_owned(), said),
        (good.replace(':', ": ").replace(',', ", "), "203.0.113.7 2026-11-20T11:59:00.5Z agent=a, b\"c user=éé😀\u{fffd}/"),
        // who carries the line knows the time better
        (format!("Nov 20 11:59:01 edge caddy[12]: {good}\r\n"), &carried),
        (format!("2026-11-20T11:59:01+00:00 edge caddy: {good}"), &carried),
        (format!("<86>1 2026-11-20T11:59:01Z edge caddy 12 - - {good}"), &carried),
        (format!("2026-11-20T11:59:01.5Z stderr F {good}"), &carried),
        (format!("caddy[12]: @cee: {good}"), said),
        (good.replace("401", "404"), "Missed"),
        (good.replace("/login", "/logon"), "Missed"),
        (good.replace("401", "\"403\""), said),
        (good.replace("client_ip", "remote_addr").replace(".7\"", ".7:4711\""), said),
        (good.replace("1795175940.5", "1795175940500"), said),
        (
            good.replace("1795175940.5", "\"2026-11-20T11:59:00.5Z\""),
            &said.replace(":00.5Z", ":00Z"),
        ),
        // no evidence: not whole, twice, more behind it, in front of it, no address
        (good[..good.len() - 1].to_owned(), "Missed"),
        (good.replacen('{', r#"{"status":401,"#, 1), "Missed"),
        (good.replacen('{', r#"{"st\u0061tus":401,"#, 1), "Missed"),
        (good.replacen('{', r#"{"request":{"uri":"/login"},"#, 1), "Missed"),
        (format!("{good} x"), "Missed"),
        (format!("{good}{good}"), "Missed"),
        (format!("GET /x {good}"), "Missed"),
        (good.replace("203.0.113.7", "203.0.113.07"), "Missed"),
        (good.replace("203.0.113.7", "x, 203.0.113.7"), "Missed"),
        (good.replace("client_ip", "other_ip"), "Missed"),
        // what a client writes into a text is text
        (
            r#"{"request":{"client_ip":"203.0.113.7","uri":"/x\",\"status\":401,\"uri\":\"/login"},"status":404}"#.to_owned(),
            "Missed",
        ),
    ] {
        assert_eq!(verdict(&mut scanner, &line), expected, "{line}");
    }
    assert!(scanner.line(b"x\":401", false, now()) == Outcome::Missed);
}

#[test]
fn logfmt_is_read_by_key() {
    let mut scanner = scanner(&spec(
        Form::Logfmt,
        &[("msg", &["~^Invalid (?:login|name)"]), ("level", &["warn"])],
        &[("user", "uname")],
    ));
    assert!(scanner.filter().rejects_early());
    let good = r#"ts=2026-11-20T11:59:00Z level=warn msg="Invalid login" uname="a \"b\" é" ok addr=[2001:db8::7]:80"#;
    let said = "2001:db8::7 2026-11-20T11:59:00Z user=a \"b\" é";
    for (line, expected) in [
        (good.to_owned(), said),
        (format!("Nov 20 11:59:01 edge grafana[1]: {good}"), &said.replace(":00Z", ":01Z")),
        (
            format!("<86>1 2026-11-20T11:59:01Z edge grafana 1 - [a b=\"c\"] {good}"),
            &said.replace(":00Z", ":01Z"),
        ),
        (good.replace("warn", "info"), "Missed"),
        (format!("{good} addr=198.51.100.66"), "Missed"),
        (format!("{good} x=\"open"), "Missed"),
        (
            good.replace("a \\\"b\\\"", "x\\\" addr=198.51.100.66 y=\\\"b"),
            "2001:db8::7 2026-11-20T11:59:00Z user=x\" addr=198.51.100.66 y=\"b é",
        ),
        (format!("client said {good}"), "Missed"),
    ] {
        assert_eq!(verdict(&mut scanner, &line), expected, "{line}");
    }
}

#[test]
fn a_pattern_in_a_condition_names_the_address_and_unless_excuses() {
    let mut spec = spec(
        Form::Json,
        &[("message", &["~^Login failed: <F-USER>.*</F-USER> \\(Remote IP: <ADDR>\\)$"])],
        &[],
    );
    let document = spec.document.as_mut().unwrap();
    document.address.clear();
    document.unless = vec![conditions(&[("app", &["cron"])])];
    let mut scanner = scanner(&spec);
    assert!(scanner.filter().rejects_early());
    let line = r#"{"app":"core","message":"Login failed: bob (Remote IP: 203.0.113.7)"}"#;
    assert_eq!(verdict(&mut scanner, line), "203.0.113.7  user=bob");
    assert_eq!(verdict(&mut scanner, &line.replace("core", "cron")), "Ignored");
    let nobody = FilterSpec {
        document: Some(Spec { wanted: vec![conditions(&[STATUS])], ..spec.document.unwrap() }),
        ..spec
    };
    assert!(matches!(Filter::compile(&nobody), Err(Error::Pattern { key: "where", .. })));
}

#[test]
fn a_chain_of_proxies_is_a_field() {
    let mut spec = spec(Form::Json, &[STATUS], &[("xff", "request.headers.X-Forwarded-For")]);
    spec.proxies = vec!["192.0.2.0/24".parse().unwrap()];
    assert!(spec.asks_proxies());
    let line = r#"{"request":{"client_ip":"192.0.2.1","headers":{"X-Forwarded-For":["198.51.100.66","203.0.113.7"]}},"status":403}"#;
    let said = "203.0.113.7  proxy=192.0.2.1 xff=198.51.100.66, 203.0.113.7";
    assert_eq!(verdict(&mut scanner(&spec), line), said);
}

#[test]
fn paths_are_keys_or_pointers_and_count_the_elements_of_arrays() {
    let text = r#"{"a.b":{"c/d":["x",{"e":1}]},"f":[[true]],"g":null,"h":[]}"#;
    let mut paths = Paths::new(Form::Json);
    for path in ["/a.b/c~1d/0", "/a.b/c~1d/1/e", "f.0.0", "g", "h", "f.1"] {
        paths.add(path);
    }
    let values = json::read(text, &paths).unwrap();
    let values: Vec<_> = values.iter().map(Option::as_deref).collect();
    assert_eq!(values, [Some("x"), Some("1"), Some("true"), None, Some(""), None]);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(json::read(&deep, &paths), Err(Bad::Malformed));
}

/// Any value, as a tree that serde_json writes.
fn tree() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        ".{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-c/~.\"é]{0,2}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// The pointers of all that stands alone in a tree.
fn leaves(tree: &serde_json::Value, at: &str, out: &mut Vec<(String, Option<String>)>) {
    match tree {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            leaves(value, &format!("{at}/{key}"), out);
        }),
        serde_json::Value::Array(all) => all
            .iter()
            .enumerate()
            .for_each(|(index, value)| leaves(value, &format!("{at}/{index}"), out)),
        serde_json::Value::Null => out.push((at.to_owned(), None)),
        serde_json::Value::String(text) => out.push((at.to_owned(), Some(text.clone()))),
        other => out.push((at.to_owned(), Some(other.to_string()))),
    }
}

proptest! {
    /// Against serde_json: every value is found at its pointer, in compact and in airy writing.
    #[test]
    fn every_value_is_found_where_serde_json_puts_it(
        map in prop::collection::btree_map("[a-c/~.\"é]{0,2}", tree(), 0..4),
    ) {
        let tree: serde_json::Value =
            map.into_iter().collect::<serde_json::Map<_, _>>().into();
        let mut all = Vec::new();
        leaves(&tree, "", &mut all);
        let mut paths = Paths::new(Form::Json);
        for (pointer, _) in &all {
            paths.add(pointer);
        }
        let expected: Vec<_> = all.into_iter().map(|leaf| leaf.1).collect();
        for text in [tree.to_string(), serde_json::to_string_pretty(&tree).unwrap()] {
            let found = json::read(&text, &paths);
            prop_assert_eq!(found.as_ref(), Ok(&expected), "{}", text);
        }
    }

    /// What serde_json refuses is no document, and the other way round (but for what is twice).
    #[test]
    fn any_text_is_survived_and_judged_as_serde_json_does(
        text in r#"\{?([\[\]{}:,"\\ 0-9.eE+-]|"a"|"b":|true|null|\\u00[0-9a-f]{2}|é){0,24}\}?"#,
    ) {
        let mut paths = Paths::new(Form::Json);
        paths.add("a");
        let whole = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
        match json::read(&text, &paths) {
            Ok(_) => {}
            Err(Bad::Twice) => prop_assert!(text.contains('a')),
            Err(Bad::Malformed) => prop_assert!(whole.is_err(), "{}", text),
        }
        let _ = logfmt::read(&text, &paths);
    }

    /// A line is found whether or not it was searched for in the raw bytes.
    #[test]
    fn rejecting_early_changes_nothing(
        status in prop_oneof![Just("401"), Just("403"), Just("404")],
        uri in "[ -~é]{0,8}(/login|/Admin)?[ -~é]{0,8}",
        airy in any::<bool>(),
    ) {
        let rule = [STATUS, ("request.uri", &["~(?i)/(login|admin)"] as &[&str])];
        for wanted in [&rule[..1], &rule[1..], &rule] {
            let mut scanner = scanner(&spec(Form::Json, wanted, &[]));
            let document = serde_json::json!({
                "addr": "203.0.113.7", "status": status.parse::<u16>().unwrap(),
                "request": {"uri": uri},
            });
            let mut line = document.to_string();
            if airy {
                line = line.replace("\"status\":", "\"status\": ");
            }
            let expected = wanted.iter().all(|(path, _)| match *path {
                "status" => status != "404",
                _ => ["/login", "/admin"].iter().any(|word| uri.to_lowercase().contains(word)),
            });
            let mut found = 0;
            scanner.scan(line.as_bytes(), false, now(), &mut |_, _| found += 1);
            prop_assert_eq!(found, usize::from(expected), "{}", line);
        }
    }
}
