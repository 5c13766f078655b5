//! What a pattern captured, by name, and what that says of the failure.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;

use super::{
    Failure, host,
    pattern::{Groups, Pattern},
};

/// Captured texts by the name of their group.
pub(super) type Fields = BTreeMap<String, String>;

/// Returns the named texts of a match. An address that is only a piece of a longer number is left
/// out, and so is one whose end may be a port.
pub(super) fn collect(pattern: &Pattern, groups: &Groups, text: &str) -> Fields {
    let mut fields = Fields::new();
    for (index, name) in pattern.names() {
        let Some(range) = groups.0.get(index).cloned().flatten() else { continue };
        if matches!(name, "ip4" | "ip6") && host::glued(text, range.start, range.end) {
            fields.insert("glued".to_owned(), String::new());
            continue;
        }
        if name == "ip6" && pattern.optional_port() && host::may_hold_port(text, &range) {
            fields.insert("glued".to_owned(), String::new());
            fields.insert("unclear".to_owned(), String::new());
            continue;
        }
        if let Some(value) = text.get(range) {
            fields.insert(name.to_owned(), value.to_owned());
        }
    }
    alternatives(&mut fields);
    fields
}

/// `alt_user_1` fills in for an empty `user`; `tuple_user` goes on where `user` ends.
fn alternatives(fields: &mut Fields) {
    if !fields.keys().any(|name| name.starts_with("alt_") || name.starts_with("tuple_")) {
        return;
    }
    let named: Vec<(String, String)> =
        fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in named {
        if let Some(target) = name.strip_prefix("alt_").map(base) {
            let empty = fields.get(target.as_ref()).is_none_or(String::is_empty);
            if empty && !value.is_empty() {
                fields.insert(target.into_owned(), value);
            }
        } else if let Some(target) = name.strip_prefix("tuple_").map(base) {
            let whole = fields.entry(target.into_owned()).or_default();
            if !whole.is_empty() {
                whole.push('/');
            }
            whole.push_str(&value);
        }
    }
}

/// Returns the name without its number, as its tag maps to a group.
fn base(name: &str) -> Cow<'_, str> {
    let name = match name.rsplit_once('_') {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    };
    Cow::Borrowed(match name {
        "id" => "fid",
        "port" => "fport",
        name => name,
    })
}

/// Whom these fields name.
pub(super) enum Subject {
    /// An address, an id or a name.
    Known(Option<IpAddr>, Option<String>),
    /// Text that looked like an address and is none.
    Bad,
    /// No address yet: another line of the session may.
    Nobody,
}

/// Returns whom `fields` name.
pub(super) fn subject(fields: &Fields) -> Subject {
    let get = |name: &str| fields.get(name).map(String::as_str);
    let id = get("fid");
    let Some(text) = get("ip4").or_else(|| get("ip6")) else {
        return match (id, get("dns")) {
            _ if fields.contains_key("glued") => Subject::Bad,
            (Some(id), _) => match host::parse(id) {
                Some(address) => Subject::Known(Some(address), None),
                None => Subject::Known(None, Some(id.to_owned())),
            },
            // An address in the place of a name is an address.
            (None, Some(name)) => Subject::Known(host::parse(name), None),
            (None, None) => Subject::Nobody,
        };
    };
    let Some(address) = host::parse(text) else { return Subject::Bad };
    if let Some(id) = id.filter(|id| *id != text) {
        return Subject::Known(Some(address), Some(id.to_owned()));
    }
    match get("cidr").map(str::parse::<u8>) {
        None => Subject::Known(Some(address), None),
        Some(Ok(32)) if address.is_ipv4() => Subject::Known(Some(address), None),
        Some(Ok(128)) => Subject::Known(Some(address), None),
        Some(Ok(length)) => match ipnet::IpNet::new(address, length) {
            Ok(net) => Subject::Known(None, Some(net.trunc().to_string())),
            Err(_) => Subject::Bad,
        },
        Some(Err(_)) => Subject::Bad,
    }
}

/// Returns the failure of these fields; without the groups that only serve the search.
pub(super) fn failure(
    mut fields: Fields,
    address: Option<IpAddr>,
    id: Option<String>,
    time: Option<Timestamp>,
    pattern: usize,
) -> Failure {
    fields.retain(|name, _| {
        let internal =
            matches!(name.as_str(), "ip4" | "ip6" | "fid" | "cidr" | "glued" | "unclear");
        !internal && !name.starts_with("skiplines") && !name.starts_with('_')
    });
    Failure { address, id, time, fields, pattern, success: false }
}
