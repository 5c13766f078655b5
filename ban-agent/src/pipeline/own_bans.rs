//! Tells the jails that count bans of this agent's own, as values: no line is written or read for
//! it. The bans of such jails are never among them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Instant,
};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{
    acks::{AckQueue, Told},
    fanout::Delivery,
};
use crate::{
    event::Shown,
    filter::Failure,
    net::IpNet,
    source::{Batch, Spec, Stats},
};

/// Deliveries of bans that may wait for a jail; more are not counted.
pub(super) const QUEUE: usize = 4096;

/// A ban of this agent, as the jails see it that count bans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnBan {
    /// When.
    pub(crate) at: Timestamp,
    /// By which jail.
    pub(crate) jail: Arc<str>,
    /// What was banned.
    pub(crate) prefix: IpNet,
}

impl OwnBan {
    /// Returns what it counts for: a failure of what was banned, with the jail in the field `jail`.
    pub(crate) fn failure(&self) -> Failure {
        let single = self.prefix.prefix_len() == self.prefix.max_prefix_len();
        Failure {
            address: single.then(|| self.prefix.addr()),
            id: Some(Shown(self.prefix).to_string()).filter(|_| !single),
            time: Some(self.at),
            fields: BTreeMap::from([("jail".to_owned(), self.jail.to_string())]),
            pattern: 0,
            success: false,
        }
    }
}

/// The evidence that `show` has of it.
impl fmt::Display for OwnBan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] Ban {}", self.at, self.jail, Shown(self.prefix))
    }
}

/// The way to the jails that count bans.
pub(super) struct Bans {
    origin: Arc<str>,
    order: Arc<Mutex<AckQueue>>,
    stats: Stats,
}

impl Bans {
    /// Counts what is told in `stats`; `told` hears what the jails have counted.
    pub(super) fn new(stats: Stats, told: Told) -> Bans {
        let origin: Arc<str> = Spec::Bans.to_string().into();
        Bans { origin, order: AckQueue::new(told), stats }
    }

    /// Tells `jails` of `bans`; never waits.
    pub(super) fn tell<'j>(
        &self,
        bans: Vec<OwnBan>,
        jails: impl Iterator<Item = &'j mpsc::Sender<Delivery>>,
    ) {
        let count = u64::try_from(bans.len()).unwrap_or(u64::MAX);
        let delivery = Delivery {
            batch: Batch {
                origin: Arc::clone(&self.origin),
                lines: Vec::new().into(),
                stamped: true,
                raw: None,
                backlog: false,
                live: true,
                position: None,
                gone: false,
                torn: false,
                read: Instant::now(),
            },
            starts: None,
            count,
            bans: bans.into(),
            guard: AckQueue::guard(&self.order, None),
        };
        let lost = jails.filter(|jail| jail.try_send(delivery.clone()).is_err()).count();
        self.stats.update(&self.origin, |counters| {
            counters.lines += count;
            counters.lost += if lost == 0 { 0 } else { count };
        });
    }
}

impl Drop for Bans {
    fn drop(&mut self) {
        self.stats.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config,
        filter::{Filter, Outcome, Scanner},
    };

    /// The jail was told of them in lines, which this filter read.
    #[test]
    fn a_ban_counts_as_the_shipped_filter_reads_it() {
        let config = config::shipped().unwrap();
        let filter = &config.filters["recidive"];
        let mut scanner = Scanner::new(Arc::new(Filter::compile(filter).unwrap()));
        let at = "2026-11-20T12:00:00.5Z".parse().unwrap();
        for prefix in ["203.0.113.7/32", "2001:db8::1/128", "2001:db8::/64", "203.0.112.0/23"] {
            let ban = OwnBan { at, jail: "sshd".into(), prefix: prefix.parse().unwrap() };
            let line = ban.to_string();
            let Outcome::Matched(failure) = scanner.line(line.as_bytes(), true, at) else {
                panic!("{line:?}")
            };
            assert_eq!(ban.failure(), failure, "{line}");
        }
    }
}
