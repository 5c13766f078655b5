//! Writes a resolved configuration as TOML that resolves to the same jails, wherever they came
//! from: `ban-agent export-config`.

use std::{path::Path, time::Duration};

use toml::{Table, Value};

use super::{Config, action};
use crate::{filter, jail, source};

/// Returns the running jails of `config`, and their filters.
#[must_use]
pub fn export(config: &Config) -> String {
    let mut filters = Table::new();
    let mut jails = Table::new();
    for spec in &config.jails {
        // a jail may bend its filter: each gets its own, under its own name
        filters.insert(spec.rules.name.to_string(), filter(&spec.rules.filter).into());
        jails.insert(spec.rules.name.to_string(), jail(spec).into());
    }
    let mut root = Table::new();
    let mut actions = Table::new();
    for spec in &config.jails {
        for action in &spec.actions {
            actions.insert(action_name(spec, action), action::export(action).into());
        }
    }
    root.insert("actions".into(), actions.into());
    root.insert("filters".into(), filters.into());
    root.insert("jails".into(), jails.into());
    root.to_string()
}

/// Jails may give one action different options: each gets its own.
fn action_name(jail: &jail::Spec, action: &crate::action::Spec) -> String {
    format!("{}-{}", jail.rules.name, action.name)
}

fn filter(spec: &filter::Spec) -> Table {
    let mut table = Table::new();
    table.insert("failregex".into(), texts(&spec.failregex));
    let mut list = |key: &str, values: &[String]| {
        if !values.is_empty() {
            table.insert(key.into(), texts(values));
        }
    };
    list("successregex", &spec.successregex);
    list("ignoreregex", &spec.ignoreregex);
    list("datepattern", &spec.datepattern);
    if let Some(prefregex) = &spec.prefregex {
        table.insert("prefregex".into(), prefregex.clone().into());
    }
    if let Some(zone) = &spec.logtimezone {
        table.insert("logtimezone".into(), zone.clone().into());
    }
    if spec.maxlines != 1 {
        table.insert("maxlines".into(), integer(spec.maxlines));
    }
    if spec.usedns {
        table.insert("usedns".into(), true.into());
    }
    if let Some(spec) = &spec.document {
        document(spec, &mut table);
    }
    table
}

fn document(spec: &filter::Document, table: &mut Table) {
    let format = match spec.form {
        filter::Form::Json => "json",
        filter::Form::Logfmt => "logfmt",
    };
    table.insert("format".into(), format.into());
    table.insert("address".into(), texts(&spec.address));
    table.insert("time".into(), texts(&spec.time));
    let fields = spec.fields.iter().map(|(name, path)| (name.clone(), path.clone().into()));
    table.insert("fields".into(), Value::Table(fields.collect()));
    let rules = |rules: &[filter::Conditions]| -> Value {
        let value = |wanted: &filter::Wanted| match wanted {
            filter::Wanted::Exactly(text) => text.clone(),
            filter::Wanted::Matches(pattern) => format!("~{pattern}"),
        };
        let values = |any: &Vec<filter::Wanted>| texts(&any.iter().map(value).collect::<Vec<_>>());
        let rule = |rule: &filter::Conditions| -> Table {
            rule.iter().map(|(path, any)| (path.clone(), values(any))).collect()
        };
        rules.iter().map(rule).collect::<Vec<_>>().into()
    };
    table.insert("where".into(), rules(&spec.wanted));
    table.insert("unless".into(), rules(&spec.unless));
}

fn jail(spec: &jail::Spec) -> Table {
    let mut table = Table::new();
    table.insert("filter".into(), spec.rules.name.to_string().into());
    sources(&spec.sources, &mut table);
    if let Some(maxretry) = spec.rules.maxretry {
        table.insert("maxretry".into(), i64::from(maxretry).into());
    }
    if !spec.rules.distinct.is_empty() {
        let each = spec.rules.distinct.iter();
        let each = each.map(|(field, wanted)| (field.to_string(), i64::from(*wanted).into()));
        table.insert("distinct".into(), Value::Table(each.collect()));
    }
    if let Some(field) = &spec.rules.count_by {
        table.insert("count_by".into(), field.to_string().into());
    }
    table.insert("findtime".into(), duration(spec.rules.findtime));
    table.insert("bantime".into(), spec.rules.bantime.map_or(Value::Integer(-1), duration));
    let ports: Vec<String> = spec.rules.ports.iter().map(ToString::to_string).collect();
    table.insert("port".into(), if ports.is_empty() { "all".into() } else { texts(&ports) });
    let files = spec.rules.lookup.files.iter().map(|path| format!("file:{}", path.display()));
    let names = spec.rules.lookup.names.iter().cloned().chain(files);
    let ignored: Vec<String> =
        spec.rules.ignoreip.iter().map(ToString::to_string).chain(names).collect();
    table.insert("ignoreip".into(), texts(&ignored));
    if let Some(rule) = &spec.rules.ignorecommand {
        table.insert("ignorecommand".into(), rule.command.clone().into());
        if let Some(cache) = &rule.cache {
            let mut kept = Table::new();
            kept.insert("key".into(), cache.key.clone().into());
            kept.insert("max-count".into(), integer(cache.count));
            kept.insert("max-time".into(), duration(cache.time));
            table.insert("ignorecache".into(), kept.into());
        }
    }
    if spec.raw_log {
        table.insert("raw_log".into(), true.into());
    }
    if !spec.rules.bans {
        table.insert("ban".into(), false.into());
    }
    table.insert("prefix_v4".into(), i64::from(spec.rules.prefix_v4).into());
    table.insert("prefix_v6".into(), i64::from(spec.rules.prefix_v6).into());
    table.insert("maxmatches".into(), integer(spec.rules.maxmatches));
    table.insert("max_tracked".into(), integer(spec.rules.max_tracked));
    let actions: Vec<String> =
        spec.actions.iter().map(|action| action_name(spec, action)).collect();
    table.insert("actions".into(), texts(&actions));
    if let Some(widen) = &spec.rules.widen {
        let lengths = |lengths: &[u8]| {
            Value::from(lengths.iter().map(|length| i64::from(*length)).collect::<Vec<_>>())
        };
        table.insert("widen_members".into(), integer(widen.members));
        table.insert("widen_v4".into(), lengths(&widen.v4));
        table.insert("widen_v6".into(), lengths(&widen.v6));
    }
    if let Some(extend) = spec.rules.extend {
        let hits = i64::try_from(extend.hits).unwrap_or(i64::MAX);
        table.insert("extend_hits".into(), hits.into());
        table.insert("extend_maxtime".into(), duration(extend.maxtime));
    }
    if let Some(bans) = spec.rules.limits.bans {
        table.insert("max_bans_per_minute".into(), integer(bans));
    }
    if let Some(share) = spec.rules.limits.share {
        table.insert("max_client_share".into(), share.into());
    }
    if let Some(increment) = &spec.rules.increment {
        table.insert("bantime.increment".into(), true.into());
        table.insert("bantime.factor".into(), increment.factor.into());
        if !increment.multipliers.is_empty() {
            let multipliers: Vec<Value> =
                increment.multipliers.iter().map(|number| Value::Float(*number)).collect();
            table.insert("bantime.multipliers".into(), multipliers.into());
        }
        if let Some(formula) = &increment.formula {
            table.insert("bantime.formula".into(), formula.text().into());
        }
        if let Some(time) = increment.maxtime {
            table.insert("bantime.maxtime".into(), duration(time));
        }
        if !increment.rndtime.is_zero() {
            table.insert("bantime.rndtime".into(), duration(increment.rndtime));
        }
        table.insert("bantime.overalljails".into(), increment.overalljails.into());
    }
    table
}

fn sources(sources: &[source::Spec], table: &mut Table) {
    let mut paths = Vec::new();
    for source in sources {
        match source {
            source::Spec::File { path, start } => paths.push(logpath(path, *start)),
            source::Spec::Journal { matches } => {
                table.insert("journalmatch".into(), matches.join(" ").into());
            }
            source::Spec::Syslog { listen } => {
                table.insert("syslog".into(), listen.clone().into());
            }
            // only our own filters have that, and those are not exported
            source::Spec::Auto { .. } | source::Spec::Stdin => {}
            source::Spec::Bans => {
                table.insert("bans".into(), true.into());
            }
        }
    }
    if !paths.is_empty() || sources.is_empty() {
        table.insert("logpath".into(), texts(&paths));
    }
}

fn logpath(path: &Path, start: source::Start) -> String {
    match start {
        source::Start::Beginning => path.display().to_string(),
        source::Start::End => format!("{} tail", path.display()),
    }
}

fn texts(values: &[String]) -> Value {
    values.iter().map(|value| Value::from(value.as_str())).collect::<Vec<_>>().into()
}

/// Whole seconds as a number, others as a text that is read back exactly.
pub(super) fn duration(duration: Duration) -> Value {
    match i64::try_from(duration.as_secs()) {
        Ok(seconds) if duration.subsec_nanos() == 0 => seconds.into(),
        _ => format!("{}s", duration.as_secs_f64()).into(),
    }
}

fn integer(number: usize) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}
