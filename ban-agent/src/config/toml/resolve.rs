//! From merged layers to the specs that the stages take.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Agent, Config, DEFAULT_SOCKET, Error, action, evidence,
    layer::{self, Fault, Layer},
    listen, proxies,
    raw::{self, OneOrMany, Raw},
    words,
};
use crate::{
    fail2ban,
    filter::{self, Filter},
    jail::{self, Ignored},
    memory,
    net::{IpNet, Translators},
    protect::Servers,
    source,
};

/// How long a ban by hand is.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest that a ban is extended to.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// The `logpath` of a jail whose filter knows where its daemon logs.
const AUTO: &str = "auto";

/// Returns the specs of `layers`, and what is wrong with what is missing among them.
pub(super) fn resolve(layers: &mut [Layer]) -> Result<(Config, Vec<Error>), Error> {
    let mut faults: Vec<Fault> = Vec::new();
    for fault in layers.iter_mut().flat_map(|layer| std::mem::take(&mut layer.faults)) {
        faults.push(fault);
    }
    let layers = &*layers;
    let mut merged = layer::merged(layers);
    for Fault { kind, name, .. } in &faults {
        // what other files say of it is not what the operator means
        if let Some(sections) = merged.get_mut(*kind).and_then(toml::Value::as_table_mut) {
            sections.remove(name);
        }
    }
    // every layer was checked alone, so the whole cannot be of another shape
    let raw: Raw = merged.try_into().map_err(|error: toml::de::Error| {
        layer::invalid(layers, &[], error.message().into(), None)
    })?;

    if raw.defaults.raw_log.is_some() {
        let message = "raw_log is the word of a jail: for all of them at once nobody can tell";
        let hint = "set raw_log = true in each [jails.NAME] whose log you trust";
        let keys = ["defaults", "raw_log"];
        return Err(layer::invalid(layers, &keys, message.into(), Some(hint.into())));
    }

    let mut files: Vec<_> =
        layers.iter().filter(|layer| !layer.builtin).map(|layer| layer.path.clone()).collect();
    let mut filters = BTreeMap::new();
    for (name, section) in &raw.filters {
        match filter(layers, name, section, &raw.words, &mut files) {
            Ok(filter) => _ = filters.insert(name.clone(), Arc::new(filter)),
            Err(error) => faults.push(Fault { kind: "filters", name: name.clone(), error }),
        }
    }
    let mut agent = agent(&raw.agent);
    if let Some(trusted) = &raw.agent.trusted_proxies {
        let keys = ["agent", "trusted_proxies"];
        let (found, errors) = proxies::resolve(layers, &keys, trusted, &mut files);
        for (net, why) in found {
            let nets = agent.translators.expand([&net]);
            agent.protect.proxies.extend(nets.into_iter().map(|net| (net, why)));
        }
        let [kind, name] = keys;
        let fault = |error| Fault { kind, name: name.into(), error };
        faults.extend(errors.into_iter().map(fault));
    }
    let mut config = Config {
        agent,
        metrics: listen::metrics(layers, &raw.metrics).unwrap_or_else(|error| {
            faults.push(Fault { kind: "metrics", name: String::new(), error });
            None
        }),
        events: listen::events(&raw.events),
        geoip: raw.geoip.database.clone(),
        hooks: listen::hooks(layers, &raw.hooks, &mut faults),
        jails: Vec::new(),
        filters,
        raw: Vec::new(),
        disabled: Vec::new(),
        warnings: layer::replaced(layers),
        refused: Vec::new(),
        files,
    };
    for (name, section) in &raw.jails {
        if !section.enabled.unwrap_or_else(|| named(layers, name)) || !named(layers, name) {
            config.disabled.push(name.clone());
            continue;
        }
        match jail(layers, &raw, &config.filters, name, section, &faults, &mut config.files) {
            Ok((jail, Some(error))) => {
                config.raw.push(Arc::new(jail));
                faults.push(Fault { kind: "jails", name: name.clone(), error });
            }
            Ok((mut jail, None)) => {
                let actions = section.actions.as_ref().or(raw.defaults.actions.as_ref());
                // without its mail a jail still bans
                jail.actions = action::of_jail(layers, &raw.actions, name, actions, &mut faults);
                let raw = evidence::raw(&jail, is_raw(raw.filters.get(&jail.rules.filter.name)));
                config.warnings.extend(evidence::remark(&jail, raw, false));
                config.jails.push(Arc::new(jail));
            }
            Err(error) => faults.push(Fault { kind: "jails", name: name.clone(), error }),
        }
    }
    if let Some(folder) = &raw.agent.fail2ban {
        match fail2ban::load(folder) {
            Ok(loaded) => {
                let tell = raw.agent.fail2ban_only_tell.unwrap_or(false);
                adopt(&mut config, folder, loaded, tell, &mut faults);
            }
            Err(error) => faults.push(Fault {
                kind: "fail2ban",
                name: folder.display().to_string(),
                error: Error::Fail2ban(Box::new(error)),
            }),
        }
    }
    for jail in config.jails.iter_mut().chain(&mut config.raw) {
        let jail = Arc::make_mut(jail);
        jail.rules.translators = config.agent.translators.clone();
        jail.rules.proxies = jail.rules.translators.expand(&jail.rules.proxies);
        if jail.rules.filter.asks_proxies() {
            let trusted = config.agent.protect.proxies.iter().map(|(net, _)| *net);
            let trusted = trusted.chain(jail.rules.proxies.iter().copied()).collect();
            Arc::make_mut(&mut jail.rules.filter).proxies = trusted;
        }
        if let Some(widen) = &mut jail.rules.widen {
            widen.translators = config.agent.translators.clone();
        }
    }
    for jail in &config.jails {
        config.warnings.extend(optional_ports(jail));
    }
    if config.agent.socket_group.is_none() && !config.agent.operators.is_empty() {
        let text = "[agent] operators cannot open the control socket: set socket_group as well";
        config.warnings.push(text.into());
    }
    if config.jails.is_empty() {
        config.warnings.push("no jail is enabled: only manual bans are enforced".into());
    }
    let proxies = config.agent.protect.proxies.iter().map(|(net, _)| *net);
    let behind = config.agent.allowed().into_iter().chain(proxies);
    let behind = behind.filter(|net| matches!(net, IpNet::V6(_))).count();
    if behind > MOST_ALLOWED {
        let message = format!(
            "allow and trusted_proxies are {behind} prefixes of IPv6, with what stands for those of IPv4 \
             behind translators: too many, at most {MOST_ALLOWED} can be in force"
        );
        let hint = "list wider prefixes, or fewer translators in nat64";
        return Err(layer::invalid(layers, &["agent", "allow"], message, Some(hint.into())));
    }
    config.refused = faults.iter().map(Fault::refused).collect();
    // what follows from another is told once
    let errors = faults.into_iter().map(|fault| fault.error);
    Ok((config, errors.filter(|error| !matches!(error, Error::Part { .. })).collect()))
}

/// Returns what is lost where a pattern leaves open whether a port follows the address.
fn optional_ports(jail: &jail::Spec) -> Option<String> {
    let (key, pattern) = jail.rules.filter.optional_ports().next()?;
    Some(format!(
        "jail {}: {key} '{pattern}' lets ':PORT' follow an IPv6 address without brackets, or not: lines \
         in which the last group of the address may be a port count for nobody. If the port is \
         always there, make it so: <ADDR>:\\d+",
        jail.rules.name
    ))
}

/// Adds fail2ban's jails; a jail of our own with the same name wins. `tell`: one whose actions ban
/// nobody bans nobody here.
fn adopt(
    config: &mut Config,
    folder: &Path,
    loaded: fail2ban::Loaded,
    tell: bool,
    faults: &mut Vec<Fault>,
) {
    for (name, error) in loaded.refused {
        faults.push(Fault { kind: "jails", name, error: Error::Fail2ban(Box::new(error)) });
    }
    for mut jail in loaded.jails {
        if !jail.rules.bans {
            jail.rules.bans = !tell;
            config.warnings.push(only_tells(&jail.rules.name, tell));
        }
        if let Err(source) = Filter::compile(&jail.rules.filter) {
            let (folder, jail) = (folder.to_owned(), jail.rules.name.to_string());
            let name = jail.clone();
            let error = Error::Fail2banFilter { folder, jail, source: Box::new(source) };
            faults.push(Fault { kind: "jails", name, error });
            continue;
        }
        if config.jails.iter().any(|own| own.rules.name == jail.rules.name) {
            let name = &jail.rules.name;
            let folder = folder.display();
            config.warnings.push(format!("jail {name}: ours is used, not the one in {folder}"));
        } else {
            config.disabled.retain(|name| **name != *jail.rules.name);
            let raw = evidence::raw_of_fail2bans(&jail);
            // to refuse what has banned so far would take protection away
            jail.raw_log = raw.is_some();
            config.warnings.extend(evidence::remark(&jail, raw, true));
            config.jails.push(Arc::new(jail));
        }
    }
    config.jails.sort_by(|a, b| a.rules.name.cmp(&b.rules.name));
    let disabled = loaded.disabled.into_iter().filter(|name| !config.disabled.contains(name));
    let disabled: Vec<String> = disabled
        .filter(|name| config.jails.iter().all(|jail| *jail.rules.name != **name))
        .collect();
    config.disabled.extend(disabled);
    config.warnings.extend(loaded.unsupported.iter().map(ToString::to_string));
    config.files.extend(loaded.files);
}

/// Returns what becomes of a jail whose actions ban nobody.
fn only_tells(jail: &str, tell: bool) -> String {
    if tell {
        return format!(
            "jail {jail}: none of its actions bans: no address is banned, only its actions run"
        );
    }
    format!(
        "jail {jail}: none of its actions bans: addresses are banned all the same, unless [agent] \
         fail2ban_only_tell = true"
    )
}

/// Returns whether a layer that the operator wrote names the jail.
fn named(layers: &[Layer], jail: &str) -> bool {
    layers
        .iter()
        .filter(|layer| !layer.builtin)
        .any(|layer| layer.table.get("jails").and_then(|jails| jails.get(jail)).is_some())
}

/// Of [`ban_common::ALLOWED`]; the rest is for what else must not be banned.
const MOST_ALLOWED: usize = 1_000_000;

/// A day: even a quiet service has seen a typo by then.
const UNMATCHED_AFTER: Duration = Duration::from_secs(24 * 3600);

fn agent(raw: &raw::Agent) -> Agent {
    Agent {
        interfaces: raw.interfaces.clone().unwrap_or_default(),
        unprotected: raw.unprotected.clone().unwrap_or_default(),
        mode: raw.mode.unwrap_or_default(),
        state: raw.state.clone().unwrap_or_else(|| "/var/lib/ban-agent/state.sqlite".into()),
        pins: raw.pins.clone().unwrap_or_else(|| "/sys/fs/bpf/ban-agent".into()),
        max_bans: raw.max_bans.map_or(262_144, |max| max.0),
        dry_run: raw.dry_run.unwrap_or(false),
        allow: raw.allow.clone().map(|allow| allow.0).unwrap_or_default(),
        protect: wanted(raw),
        translators: raw.nat64.clone().map(|prefixes| prefixes.0).unwrap_or_default(),
        socket: raw.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into()),
        socket_group: raw.socket_group.clone(),
        operators: raw.operators.clone().unwrap_or_default(),
        fail2ban_log: raw.fail2ban_log.clone(),
        fail2ban: raw.fail2ban.clone(),
        grace: raw.grace.map(|grace| grace.0),
        max_actions: raw.max_actions.as_ref().map_or(4, |max| max.0),
        dbpurgeage: raw.dbpurgeage.map_or(crate::store::PURGE_AGE, |age| age.0),
        unmatched_after: raw.unmatched_after.map_or(Some(UNMATCHED_AFTER), |time| time.0),
        manual_bantime: raw.manual_bantime.map_or(Some(DAY), |time| time.0),
    }
}

fn wanted(raw: &raw::Agent) -> Servers {
    let has = |what| raw.protect.as_ref().is_none_or(|wanted| wanted.contains(&what));
    Servers {
        resolvers: has(raw::ServerKind::Resolvers),
        time_servers: has(raw::ServerKind::Ntp),
        proxies: Vec::new(),
    }
}

fn list(value: Option<&OneOrMany>) -> Vec<String> {
    value.map(OneOrMany::list).unwrap_or_default()
}

fn filter(
    layers: &[Layer],
    name: &str,
    raw: &raw::Filter,
    lists: &BTreeMap<String, OneOrMany>,
    files: &mut Vec<PathBuf>,
) -> Result<filter::Spec, Error> {
    let mut spec = filter::Spec {
        name: name.to_owned(),
        prefregex: raw.prefregex.clone(),
        failregex: list(raw.failregex.as_ref()),
        document: document(layers, name, raw)?,
        successregex: list(raw.successregex.as_ref()),
        ignoreregex: list(raw.ignoreregex.as_ref()),
        datepattern: list(raw.datepattern.as_ref()),
        maxlines: raw.maxlines.unwrap_or(1),
        logtimezone: raw.logtimezone.clone(),
        wrapped: false,
        usedns: raw.usedns.unwrap_or(false),
        proxies: Vec::new(),
        words: filter::Words::new(),
    };
    spec.words = words::of_filter(layers, &spec, lists, files)?;
    // an empty list is meant: nothing is counted, bans are made by hand
    if raw.failregex.is_none() && spec.document.is_none() {
        let message = format!("filter '{name}' has no failregex");
        let hint = Some("add failregex = ['^…<ADDR>…$']".into());
        return Err(layer::invalid(layers, &["filters", name], message, hint));
    }
    // the tests have compiled what is shipped: a start compiles what its jails use
    let named =
        |layer: &Layer| layer.table.get("filters").is_some_and(|all| all.get(name).is_some());
    let own = layers.iter().any(|layer| !layer.builtin && named(layer));
    if own && let Err(error) = Filter::compile(&spec) {
        return Err(bad_pattern(layers, &spec, &error));
    }
    Ok(spec)
}

/// Returns what the filter says of documents.
fn document(
    layers: &[Layer],
    name: &str,
    raw: &raw::Filter,
) -> Result<Option<filter::Document>, Error> {
    let invalid = |key, message: &str, hint: &str| {
        let message = format!("filter '{name}': {message}");
        layer::invalid(layers, &["filters", name, key], message, Some(hint.into()))
    };
    let form = match raw.format.unwrap_or_default() {
        raw::Format::Json => filter::Form::Json,
        raw::Format::Logfmt => filter::Form::Logfmt,
        raw::Format::Text => {
            let given = [
                ("where", raw.r#where.is_some()),
                ("unless", raw.unless.is_some()),
                ("address", raw.address.is_some()),
                ("time", raw.time.is_some()),
                ("fields", !raw.fields.is_empty()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((key, _)) => {
                    let message = format!("{key} is for documents, and its lines are text");
                    Err(invalid(key, &message, "add format = \"json\" or \"logfmt\""))
                }
                None => Ok(None),
            };
        }
    };
    let Some(wanted) = &raw.r#where else {
        let hint = "add where = { \"status\" = [401, 403] }";
        return Err(invalid("format", "nothing says which documents are failures", hint));
    };
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if let Some(field) = raw.fields.keys().find(|key| key.is_empty() || !key.chars().all(lower)) {
        let message = format!("'{field}' is no name of a field");
        return Err(invalid("fields", &message, "take small letters: { user = \"PATH\" }"));
    }
    Ok(Some(filter::Document {
        form,
        address: list(raw.address.as_ref()),
        time: list(raw.time.as_ref()),
        fields: raw.fields.clone(),
        wanted: wanted.list(),
        unless: raw.unless.as_ref().map(raw::OneOrMore::list).unwrap_or_default(),
    }))
}

/// Returns the place of the pattern that does not compile.
fn bad_pattern(layers: &[Layer], spec: &filter::Spec, error: &filter::Error) -> Error {
    let (key, text) = match error {
        filter::Error::Pattern { key, pattern, .. } => (*key, pattern.as_str()),
        filter::Error::NoAddress { pattern, .. } => ("failregex", pattern.as_str()),
        filter::Error::NoUser { pattern, .. } => ("successregex", pattern.as_str()),
        filter::Error::Date { pattern, .. } => ("datepattern", pattern.as_str()),
        filter::Error::Zone { zone, .. } => ("logtimezone", zone.as_str()),
    };
    let list = match key {
        "failregex" => spec.failregex.as_slice(),
        "successregex" => &spec.successregex,
        "ignoreregex" => &spec.ignoreregex,
        "datepattern" => &spec.datepattern,
        _ => &[],
    };
    let index = list.iter().position(|pattern| pattern == text).map(|index| index.to_string());
    let mut keys = vec!["filters", spec.name.as_str(), key];
    keys.extend(index.as_deref());
    let hint = "try a pattern out with `ban-agent test --failregex 'PATTERN' FILE`";
    layer::invalid(layers, &keys, error.to_string().replace('\n', " "), Some(hint.into()))
}

/// Resolves a jail that is on; beside it, why it must not run, if its log is raw.
fn jail(
    layers: &[Layer],
    raw: &Raw,
    filters: &BTreeMap<String, Arc<filter::Spec>>,
    name: &str,
    own: &raw::Jail,
    faults: &[Fault],
    files: &mut Vec<PathBuf>,
) -> Result<(jail::Spec, Option<Error>), Error> {
    let defaults = &raw.defaults;
    macro_rules! get {
        ($key:ident) => {
            own.$key.as_ref().or(defaults.$key.as_ref())
        };
    }
    let filter_name = get!(filter).map_or(name, String::as_str);
    let mut filter = Arc::clone(filters.get(filter_name).ok_or_else(|| {
        if faults.iter().any(|fault| fault.kind == "filters" && fault.name == filter_name) {
            let what = format!("its filter '{filter_name}' is not valid");
            return Error::Part { part: format!("jail {name}"), what };
        }
        let nearest = filters
            .keys()
            .min_by_key(|key| strsim::damerau_levenshtein(key, filter_name))
            .map(|key| format!("did you mean '{key}'? or define [filters.{filter_name}]"));
        let message = format!("jail '{name}': there is no filter '{filter_name}'");
        layer::invalid(layers, &["jails", name, "filter"], message, nearest)
    })?);
    let ignoreregex = list(get!(ignoreregex));
    // bans are no lines: a default is about other jails, and one of its own is refused below
    if !ignoreregex.is_empty() && get!(bans) != Some(&true) {
        Arc::make_mut(&mut filter).ignoreregex.extend(ignoreregex);
    }
    let (ignoreip, lookup) = ignoreip(own, defaults);
    let mut proxies = Vec::new();
    if let Some(trusted) = get!(trusted_proxies) {
        let keys = ["jails", name, "trusted_proxies"];
        let (found, errors) = proxies::resolve(layers, &keys, trusted, files);
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        proxies.extend(found.into_iter().map(|(net, _)| net));
    }
    let rules = jail::Rules {
        name: name.into(),
        filter,
        // a jail that counts values counts failures only if it says so itself
        maxretry: match (get!(distinct), own.maxretry) {
            (Some(_), own) => own.map(|number| number.0),
            (None, _) => Some(get!(maxretry).map_or(5, |number| number.0)),
        },
        distinct: get!(distinct)
            .into_iter()
            .flatten()
            .map(|(field, wanted)| (field.as_str().into(), wanted.0))
            .collect(),
        count_by: get!(count_by).map(|field| field.as_str().into()),
        findtime: get!(findtime).map_or(Duration::from_secs(600), |time| time.0),
        bantime: get!(bantime).map_or(Some(Duration::from_secs(3600)), |time| time.0),
        increment: increment(own, defaults),
        ports: get!(port).map(|port| port.0.clone()).unwrap_or_default(),
        ignoreip,
        lookup,
        proxies,
        bans: get!(ban).copied().unwrap_or(true),
        ignorecommand: get!(ignorecommand).map(|command| jail::IgnoreCommand {
            command: command.clone(),
            cache: get!(ignorecache).map(|cache| jail::IgnoreCache {
                key: cache.key.clone(),
                count: cache.max_count.map_or(jail::IgnoreCache::COUNT, |count| count.0 as usize),
                time: cache.max_time.map_or(jail::IgnoreCache::TIME, |time| time.0),
            }),
        }),
        prefix_v4: get!(prefix_v4).map_or(32, |length| length.0),
        prefix_v6: get!(prefix_v6).map_or(64, |length| length.0),
        translators: Translators::default(),
        maxmatches: get!(maxmatches).copied().unwrap_or(10),
        max_tracked: get!(max_tracked).map_or_else(memory::max_tracked, |number| number.0 as usize),
        widen: widen(own, defaults),
        extend: get!(extend_hits).map(|hits| jail::Extend {
            hits: hits.0.into(),
            maxtime: get!(extend_maxtime).map_or(WEEK, |time| time.0),
        }),
        limits: jail::Limits {
            bans: get!(max_bans_per_minute).map(|number| number.0 as usize),
            share: get!(max_client_share).map(|share| share.0),
        },
    };
    for (key, field) in fields_asked(&rules) {
        if !rules.filter.has_field(field) {
            let message = format!("jail '{name}': its filter captures no field '{field}'");
            let tag = field.to_ascii_uppercase();
            let hint = format!("capture it with <F-{tag}>…</F-{tag}>, or name another field");
            return Err(layer::invalid(layers, &["jails", name, key], message, Some(hint)));
        }
    }
    let filter = raw.filters.get(filter_name);
    let sources = sources(layers, name, own, defaults, filter)?;
    let raw_log = own.raw_log == Some(true);
    let jail = jail::Spec { rules, sources, raw_log, actions: Vec::new() };
    let raw = evidence::raw(&jail, is_raw(filter)).filter(|_| !raw_log);
    let refused = raw.map(|evidence::Raw { what, better }| {
        let message = format!("jail '{name}': {what}");
        let hint = format!(
            "{better}; or set raw_log = true in [jails.{name}] if you trust all who can reach it"
        );
        layer::invalid(layers, &["jails", name], message, Some(hint))
    });
    Ok((jail, refused))
}

/// Returns whether a filter says of itself that its service's log is no evidence.
fn is_raw(filter: Option<&raw::Filter>) -> bool {
    filter.is_some_and(|filter| filter.raw == Some(true))
}

/// Returns the fields that a jail counts, and the key that names each.
fn fields_asked(rules: &jail::Rules) -> impl Iterator<Item = (&'static str, &str)> {
    let distinct = rules.distinct.keys().map(|field| ("distinct", &**field));
    // who fails is known without a capture
    let distinct = distinct.filter(|(_, field)| *field != jail::ADDRESS);
    distinct.chain(rules.count_by.iter().map(|field| ("count_by", &**field)))
}

/// Returns the jail's own list, or the default one; never both, as in fail2ban.
fn ignoreip(own: &raw::Jail, defaults: &raw::Jail) -> (Vec<IpNet>, jail::Lookup) {
    let (mut nets, mut lookup) = (Vec::new(), jail::Lookup::default());
    let list = own.ignoreip.as_ref().or(defaults.ignoreip.as_ref());
    for word in list.map(|list| list.0.clone()).unwrap_or_default() {
        match word {
            Ignored::Net(net) => nets.push(net),
            Ignored::Name(name) => lookup.names.push(name),
            Ignored::File(path) => lookup.files.push(path),
        }
    }
    (nets, lookup)
}

fn widen(own: &raw::Jail, defaults: &raw::Jail) -> Option<jail::Widen> {
    macro_rules! lengths {
        ($key:ident, $default:expr) => {{
            let given = own.$key.as_ref().or(defaults.$key.as_ref());
            let mut lengths: Vec<u8> =
                given.map_or($default, |list| list.iter().map(|length| length.0).collect());
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths
        }};
    }
    let members = own.widen_members.or(defaults.widen_members)?;
    Some(jail::Widen {
        members: members.0 as usize,
        v4: lengths!(widen_v4, vec![24]),
        v6: lengths!(widen_v6, vec![64, 48]),
        translators: Translators::default(),
    })
}

fn increment(own: &raw::Jail, defaults: &raw::Jail) -> Option<jail::Increment> {
    macro_rules! get {
        ($key:ident) => {
            own.$key.as_ref().or(defaults.$key.as_ref())
        };
    }
    get!(increment).copied().unwrap_or(false).then(|| jail::Increment {
        factor: get!(factor).copied().unwrap_or(1.0),
        multipliers: get!(multipliers).cloned().unwrap_or_default(),
        formula: get!(formula).map(|formula| formula.0.clone()),
        maxtime: get!(maxtime).map(|time| time.0),
        rndtime: get!(rndtime).map_or(Duration::ZERO, |time| time.0),
        overalljails: get!(overalljails).copied().unwrap_or(false),
    })
}

fn sources(
    layers: &[Layer],
    name: &str,
    own: &raw::Jail,
    defaults: &raw::Jail,
    filter: Option<&raw::Filter>,
) -> Result<Vec<source::Spec>, Error> {
    let mut sources = Vec::new();
    let mut paths = list(own.logpath.as_ref().or(defaults.logpath.as_ref()));
    if paths == [AUTO] {
        paths.clear();
        // a jail that names another source knows where the lines are
        let named = own.journalmatch.is_some() || own.syslog.is_some() || own.bans == Some(true);
        let auto = filter.and_then(auto);
        match auto {
            _ if named => {}
            Some(auto) => sources.push(auto),
            None => {
                let message = format!("jail '{name}': its filter does not say where to look");
                let hint = "name the files in logpath, or set logs and journalmatch of the filter";
                let keys = ["jails", name, "logpath"];
                return Err(layer::invalid(layers, &keys, message, Some(hint.into())));
            }
        }
    }
    for path in paths {
        if !path.starts_with('/') {
            let message = format!("jail '{name}': logpath '{path}' is not absolute");
            let hint = Some("write an absolute path".into());
            return Err(layer::invalid(layers, &["jails", name, "logpath"], message, hint));
        }
        // as in fail2ban: `/path tail` starts at the end of a file that is not known yet
        let (path, start) = match path.rsplit_once(char::is_whitespace) {
            Some((path, "tail")) => (path.trim_end(), source::Start::End),
            Some((path, "head")) => (path.trim_end(), source::Start::Beginning),
            _ => (path.as_str(), source::Start::Beginning),
        };
        sources.push(source::Spec::File { path: path.into(), start });
    }
    let matches = own.journalmatch.as_ref().or(defaults.journalmatch.as_ref());
    if let Some(matches) = matches {
        sources.push(source::Spec::Journal { matches: words(matches) });
    }
    if let Some(listen) = own.syslog.as_ref().or(defaults.syslog.as_ref()) {
        sources.push(source::Spec::Syslog { listen: listen.clone() });
    }
    if own.bans.or(defaults.bans) == Some(true) {
        let patterns = filter.map(|filter| list(filter.failregex.as_ref())).unwrap_or_default();
        if patterns != [source::BAN_LINE] || own.ignoreregex.is_some() {
            let message = format!("jail '{name}': its patterns are not asked about bans");
            let hint =
                "use filter = \"recidive\" without ignoreregex: all bans of other jails count";
            return Err(layer::invalid(
                layers,
                &["jails", name, "bans"],
                message,
                Some(hint.into()),
            ));
        }
        sources.push(source::Spec::Bans);
    }
    // an empty list is meant: it bans by hand
    let given = own.logpath.as_ref().or(defaults.logpath.as_ref()).is_some();
    if sources.is_empty() && !given {
        let message = format!("jail '{name}' reads nothing");
        let hint = Some("add logpath, journalmatch, syslog or bans".into());
        return Err(layer::invalid(layers, &["jails", name], message, hint));
    }
    for source in &sources {
        source.check().map_err(|error| {
            let (key, hint) = match source {
                source::Spec::Syslog { .. } => {
                    ("syslog", "write udp://ADDRESS:PORT or unix:///PATH, with an address, no name")
                }
                source::Spec::Journal { .. } => {
                    ("journalmatch", "write matches like _SYSTEMD_UNIT=ssh.service, joined by +")
                }
                _ => ("logpath", "write a whole path; in a glob every [ needs its ]"),
            };
            let hint = hint.to_owned();
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                error.source()
            });
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            let message = format!("jail '{name}': {}", causes.join(": "));
            layer::invalid(layers, &["jails", name, key], message, Some(hint))
        })?;
    }
    Ok(sources)
}

/// Returns the source that the filter names for its daemon; `None` if it names nothing.
fn auto(filter: &raw::Filter) -> Option<source::Spec> {
    let files: Vec<_> = list(filter.logs.as_ref()).into_iter().map(Into::into).collect();
    let matches = filter.journalmatch.as_ref().map(words).unwrap_or_default();
    let named = !files.is_empty() || !matches.is_empty();
    named.then_some(source::Spec::Auto { files, matches })
}

/// Returns the words of journal matches, as journalctl takes them.
fn words(matches: &OneOrMany) -> Vec<String> {
    matches.list().iter().flat_map(|line| line.split_whitespace()).map(Into::into).collect()
}
