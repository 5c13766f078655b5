//! Layers of configuration text: reading, strict checking with places, merging.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{
    Error, Refused,
    raw::{self, Raw},
    shipped::SHIPPED,
};

/// One text of configuration.
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Part of the binary: its jails run only if another layer names them.
    pub(super) builtin: bool,
    pub(super) table: Table,
    /// Its sections that make no sense; the table does not hold them.
    pub(super) faults: Vec<Fault>,
}

/// Something that makes no sense and that others do without.
pub(super) struct Fault {
    /// The table of its name: `jails`, `filters`, `actions`, `hooks`, or `fail2ban`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) error: Error,
}

impl Fault {
    /// As it is shown.
    pub(super) fn refused(&self) -> Refused {
        let kind = self.kind.trim_end_matches('s');
        Refused {
            part: format!("{kind} {}", self.name).trim().to_owned(),
            why: self.error.to_string(),
        }
    }
}

impl Layer {
    /// Returns the jails that it names.
    pub(super) fn jails(&self) -> Vec<String> {
        let jails = self.table.get("jails").and_then(Value::as_table);
        jails.map(|jails| jails.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns whether it says of a filter that its service's log is no evidence.
    pub(super) fn says_raw(&self, filter: &str) -> bool {
        let filter = self.table.get("filters").and_then(|filters| filters.get(filter));
        filter.and_then(|filter| filter.get("raw")).and_then(Value::as_bool) == Some(true)
    }
}

/// Returns a layer that names these jails and takes whatever they read, as a file of the operator's
/// would.
pub(super) fn naming<'a>(jails: impl Iterator<Item = &'a String>) -> Result<Layer, Error> {
    let text = jails.map(|jail| format!("[jails.{jail}]\nraw_log = true\n")).collect();
    parse(PathBuf::from("<all>"), text, false)
}

/// Returns the layers inside the binary.
pub(super) fn shipped() -> Result<Vec<Layer>, Error> {
    SHIPPED
        .iter()
        .map(|(name, text)| parse(PathBuf::from(format!("<shipped>/{name}")), (*text).into(), true))
        .collect()
}

/// Returns the shipped layers, the file at `path`, and `conf.d/*.toml` beside it, by name.
pub(super) fn read(path: &Path) -> Result<Vec<Layer>, Error> {
    let mut layers = shipped()?;
    layers.push(read_file(path)?);
    for path in &more(path)? {
        layers.push(read_file(path)?);
    }
    Ok(layers)
}

/// Returns what `agent.socket` says last, however little of the files makes sense.
pub(super) fn socket(path: &Path) -> Option<PathBuf> {
    let mut paths = vec![path.to_owned()];
    paths.extend(more(path).unwrap_or_default());
    paths.iter().rev().find_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        let (table, _) = DeTable::parse_recoverable(&text);
        let agent = table.get_ref().get("agent")?.get_ref().as_table()?;
        Some(agent.get("socket")?.get_ref().as_str()?.into())
    })
}

/// `conf.d/*.toml` beside `path`, by name.
fn more(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let folder = path.parent().unwrap_or(Path::new(".")).join("conf.d");
    let mut paths = match fs::read_dir(&folder) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| Error::Read { path: folder, source })?,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(Error::Read { path: folder, source }),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Result<Layer, Error> {
    let text =
        fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(path.to_owned(), text, false)
}

fn parse(path: PathBuf, text: String, builtin: bool) -> Result<Layer, Error> {
    let invalid = |error: &toml::de::Error| {
        let (message, mut hint) = explain(error.message());
        let line = line_of(&text, error.span().map_or(0, |span| span.start));
        if let Some(key) = text.lines().nth(line.saturating_sub(1)).and_then(dotted) {
            hint = Some(format!("a key that contains a dot needs quotes: \"{key}\" = …"));
        }
        Error::Invalid { path: path.clone(), line, message, hint }
    };
    let mut table = text.parse::<Table>().map_err(|error| invalid(&error))?;
    let mut parsed = DeTable::parse(&text).map_err(|error| invalid(&error))?;
    let mut faults = Vec::new();
    for kind in KINDS {
        for (name, error) in check_each(kind, parsed.get_mut()) {
            if let Some(Value::Table(sections)) = table.get_mut(kind) {
                sections.remove(&name);
            }
            faults.push(Fault { kind, name, error: invalid(&error) });
        }
    }
    Raw::deserialize(toml::Deserializer::from(parsed)).map_err(|error| invalid(&error))?;
    Ok(Layer { path, text, builtin, table, faults })
}

/// Tables whose sections do without each other.
const KINDS: [&str; 4] = ["filters", "actions", "jails", "hooks"];

/// Takes each section of a kind out, and says what is wrong with it.
fn check_each(kind: &str, root: &mut DeTable<'_>) -> Vec<(String, toml::de::Error)> {
    let Some(sections) = root.get_mut(kind).map(Spanned::get_mut) else { return Vec::new() };
    // anything else is told by who reads the whole
    let DeValue::Table(sections) = sections else { return Vec::new() };
    let mut faults = Vec::new();
    for (name, section) in std::mem::take(sections) {
        let from = ValueDeserializer::from(section);
        let result = match kind {
            "filters" => raw::Filter::deserialize(from).map(drop),
            "actions" => raw::Action::deserialize(from).map(drop),
            "jails" => raw::Jail::deserialize(from).map(drop),
            _ => raw::Hook::deserialize(from).map(drop),
        };
        faults.extend(result.err().map(|error| (name.get_ref().to_string(), error)));
    }
    faults
}

/// Returns one table of all layers, in which later layers win; but lists of who and what is
/// protected add up over the operator's files.
pub(super) fn merged(layers: &[Layer]) -> Table {
    let mut all = Table::new();
    let (builtin, own): (Vec<_>, Vec<_>) = layers.iter().partition(|layer| layer.builtin);
    for layer in builtin {
        merge(&mut all, &layer.table, &mut Vec::new(), false);
    }
    let mut operators = Table::new();
    for layer in own {
        merge(&mut operators, &layer.table, &mut Vec::new(), true);
    }
    merge(&mut all, &operators, &mut Vec::new(), false);
    all
}

fn merge<'k>(into: &mut Table, from: &'k Table, path: &mut Vec<&'k str>, adding: bool) {
    for (key, value) in from {
        path.push(key);
        match (into.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new, path, adding),
            (Some(old), new) if adding && adds_up(path, new) => {
                let mut all = listed(old);
                all.extend(listed(new));
                *old = Value::Array(all);
            }
            _ => _ = into.insert(key.clone(), value.clone()),
        }
        path.pop();
    }
}

/// Returns what a file of the operator's sets and another one sets to something else: both places,
/// and which is used.
pub(super) fn replaced(layers: &[Layer]) -> Vec<String> {
    let own: Vec<&Layer> = layers.iter().filter(|layer| !layer.builtin).collect();
    let place = |layer: &Layer, keys: &[&str]| {
        let line = offset_of(&layer.text, keys).map_or(1, |offset| line_of(&layer.text, offset));
        format!("{}:{line}", layer.path.display())
    };
    let mut told = Vec::new();
    for (index, layer) in own.iter().enumerate() {
        each_value(&layer.table, &mut Vec::new(), &mut |keys, value| {
            let mut earlier = own.iter().take(index).rev();
            let other = earlier.find_map(|other| Some((other, value_at(&other.table, keys)?)));
            let Some((other, former)) = other else { return };
            let Some((key, section)) = keys.split_last() else { return };
            if former == value || adds_up(keys, value) {
                return;
            }
            told.push(format!(
                "[{}] {key} is set twice: {} is used, not {}",
                section.join("."),
                place(layer, keys),
                place(other, keys)
            ));
        });
    }
    told
}

fn each_value<'k>(
    table: &'k Table,
    path: &mut Vec<&'k str>,
    tell: &mut impl FnMut(&[&str], &Value),
) {
    for (key, value) in table {
        path.push(key);
        match value {
            Value::Table(inner) => each_value(inner, path, tell),
            value => tell(path, value),
        }
        path.pop();
    }
}

fn value_at<'t>(table: &'t Table, keys: &[&str]) -> Option<&'t Value> {
    let (last, sections) = keys.split_last()?;
    let section = sections.iter().try_fold(table, |table, key| table.get(*key)?.as_table())?;
    section.get(*last)
}

/// Returns whether a list at this place adds up: every list of `[agent]`, and whom a jail never
/// bans. A file that names a few more must not take others their protection.
fn adds_up(path: &[&str], value: &Value) -> bool {
    if let ["agent", _] = path
        && value.is_array()
    {
        return true;
    }
    matches!(
        path,
        ["agent", "allow" | "trusted_proxies"]
            | ["defaults" | "jails", .., "ignoreip" | "trusted_proxies"]
    )
}

/// A text stands for a list of one.
fn listed(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list.clone(),
        other => vec![other.clone()],
    }
}

/// Returns an error about the value at `keys`, in the last layer that has it.
pub(super) fn invalid(
    layers: &[Layer],
    keys: &[&str],
    message: String,
    hint: Option<String>,
) -> Error {
    for length in (1..=keys.len()).rev() {
        let keys = keys.get(..length).unwrap_or_default();
        for layer in layers.iter().rev() {
            if let Some(offset) = offset_of(&layer.text, keys) {
                let line = line_of(&layer.text, offset);
                return Error::Invalid { path: layer.path.clone(), line, message, hint };
            }
        }
    }
    let path = layers.last().map(|layer| layer.path.clone()).unwrap_or_default();
    Error::Invalid { path, line: 1, message, hint }
}

/// Byte offset of the value at `keys`; a number as the last key is an index into a list.
fn offset_of(text: &str, keys: &[&str]) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let (first, rest) = keys.split_first()?;
    let (key, mut value) = root.get_ref().get_key_value(*first)?;
    let mut offset = key.span().start;
    for key in rest {
        match value.get_ref() {
            DeValue::Table(table) => {
                let (found, inner) = table.get_key_value(*key)?;
                offset = found.span().start;
                value = inner;
            }
            DeValue::Array(list) => {
                value = list.get(key.parse::<usize>().ok()?)?;
                offset = value.span().start;
            }
            // a single text stands for a list of one
            _ if key.parse::<usize>().is_ok() => offset = value.span().start,
            _ => return None,
        }
    }
    Some(offset)
}

/// Returns the key of a line of ours that needs quotes and has none: TOML takes it for a table.
fn dotted(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    Some(key.trim()).filter(|key| key.starts_with("bantime."))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Shortens serde's list of expected keys to the nearest one.
fn explain(message: &str) -> (String, Option<String>) {
    let message = message.trim();
    let Some(rest) = message.strip_prefix("unknown field ") else {
        let hint = "docs/configuration.md lists every key with what it takes; nothing was changed";
        return (message.replace('\n', ", "), Some(hint.into()));
    };
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next() else { return (message.to_owned(), None) };
    let known: Vec<&str> = quoted.collect();
    let nearest = known
        .iter()
        .map(|key| (strsim::damerau_levenshtein(unknown, key), key))
        .filter(|(distance, key)| *distance <= key.len().max(unknown.len()) / 2)
        .min();
    let hint = match nearest {
        Some((_, key)) => format!("did you mean '{key}'?"),
        None => format!("known keys here: {}", known.join(", ")),
    };
    (format!("unknown key '{unknown}'"), Some(hint))
}
