//! `history` and `stats`: asked of the disk beside the core, at the socket's end.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{Axis, Document, History, Refusal, Reply, Row, SCHEMA, Stats};
use crate::{
    event::{Geo, escape},
    net::IpNet,
    store::{By, Recall, Search, Tally},
};

/// Bits of a network whose addresses are counted together.
const TOGETHER: (u8, u8) = (24, 48);

fn unasked(error: impl std::fmt::Display) -> Reply {
    let hint = Some("`ban-agent status` tells how it is; try again when it is ok".into());
    Reply::Error(Refusal { code: 2, message: error.to_string(), hint })
}

/// What was done.
pub(super) async fn history(recall: Option<&Recall>, search: Search) -> Reply {
    let deeds = match recall {
        Some(recall) => recall.deeds(search).await,
        None => Ok(Vec::new()),
    };
    match deeds {
        Ok(deeds) => Reply::Done(Document::History(History {
            schema: SCHEMA,
            deeds: deeds.into_iter().map(Into::into).collect(),
        })),
        Err(error) => unasked(error),
    }
}

/// How often what was banned.
pub(super) async fn stats(
    recall: Option<&Recall>,
    geo: &Geo,
    axis: Axis,
    since: Timestamp,
    limit: usize,
) -> Reply {
    let by = match axis {
        Axis::Address | Axis::Prefix | Axis::Country | Axis::Asn => By::Address,
        Axis::Jail => By::Jail,
        Axis::User => By::User,
        Axis::Path => By::Path,
    };
    let tallies = match recall {
        Some(recall) => recall.tallies(by, since).await,
        None => return unasked("there is no store"),
    };
    let tallies = match tallies {
        Ok(tallies) => tallies,
        Err(error) => return unasked(error),
    };
    let geo = geo.clone();
    let counted = tokio::task::spawn_blocking(move || {
        let mut rows: HashMap<String, Tally> = HashMap::new();
        for (name, tally) in tallies {
            let row = rows.entry(group(axis, name, &geo)).or_default();
            row.bans += tally.bans;
            row.failures += tally.failures;
        }
        let rows = rows.into_iter().map(|(name, Tally { bans, failures })| Row {
            name: escape(name.as_bytes()),
            bans,
            failures,
        });
        let mut rows: Vec<Row> = rows.collect();
        rows.sort_by(|a, b| b.bans.cmp(&a.bans).then_with(|| a.name.cmp(&b.name)));
        rows
    });
    let mut rows = match counted.await {
        Ok(rows) => rows,
        Err(error) => return unasked(error),
    };
    let (bans, failures) =
        (rows.iter().map(|row| row.bans).sum(), rows.iter().map(|row| row.failures).sum());
    let total = rows.len() as u64;
    rows.truncate(limit);
    Reply::Done(Document::Stats(Stats {
        schema: SCHEMA,
        since,
        by: axis,
        bans,
        failures,
        total,
        rows,
    }))
}

/// With whom somebody is counted.
fn group(axis: Axis, name: String, geo: &Geo) -> String {
    let unknown = || "unknown".to_owned();
    let Ok(prefix) = name.parse::<IpNet>() else { return name };
    match axis {
        Axis::Prefix => {
            let length = if prefix.addr().is_ipv4() { TOGETHER.0 } else { TOGETHER.1 };
            let net = IpNet::new(prefix.addr(), length.min(prefix.prefix_len()));
            net.map_or(name, |net| net.trunc().to_string())
        }
        Axis::Country => geo.place(prefix.addr()).country.unwrap_or_else(unknown),
        Axis::Asn => {
            let place = geo.place(prefix.addr());
            let asn = place.asn.map(|asn| format!("AS{asn}"));
            let words: Vec<String> = asn.into_iter().chain(place.network).collect();
            if words.is_empty() { unknown() } else { words.join(" ") }
        }
        Axis::Address if prefix.prefix_len() == prefix.max_prefix_len() => {
            prefix.addr().to_string()
        }
        Axis::Address | Axis::Jail | Axis::User | Axis::Path => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_counted_together() {
        let geo = Geo::open(None);
        let group = |axis, name: &str| group(axis, name.to_owned(), &geo);
        for (axis, name, expected) in [
            (Axis::Address, "192.0.2.7/32", "192.0.2.7"),
            (Axis::Address, "192.0.2.0/25", "192.0.2.0/25"),
            (Axis::Prefix, "192.0.2.7/32", "192.0.2.0/24"),
            (Axis::Prefix, "192.0.0.0/16", "192.0.0.0/16"),
            (Axis::Prefix, "2001:db8:1:2::/64", "2001:db8:1::/48"),
            (Axis::Country, "192.0.2.7/32", "unknown"),
            (Axis::Asn, "192.0.2.7/32", "unknown"),
            (Axis::Jail, "sshd", "sshd"),
        ] {
            assert_eq!(group(axis, name), expected);
        }
    }
}
