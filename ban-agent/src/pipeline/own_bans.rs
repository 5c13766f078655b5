//! Tells the jails that count bans of this agent's own. They are told as lines, so that such a jail
//! is a jail like any other; its own bans are never among them.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use crate::source::{Batch, Spec, Stats};

/// Bans that may wait for the jails that count them; more are not counted.
const QUEUE: usize = 4096;

/// The way to the jails that count bans.
#[derive(Debug)]
pub(crate) struct Bans {
    origin: Arc<str>,
    batches: mpsc::Sender<Batch>,
    stats: Stats,
}

impl Bans {
    /// What is told comes out of the receiver; the counters are its own.
    pub(crate) fn new(stats: Stats) -> (Bans, mpsc::Receiver<Batch>) {
        let (batches, receiver) = mpsc::channel(QUEUE);
        (Bans { origin: Spec::Bans.to_string().into(), batches, stats }, receiver)
    }

    /// Tells of so many bans; never waits.
    pub(crate) fn tell(&self, count: u64, lines: String) {
        let length = u64::try_from(lines.len()).unwrap_or(0);
        let batch = Batch {
            origin: Arc::clone(&self.origin),
            lines: lines.into(),
            stamped: true,
            raw: None,
            backlog: false,
            live: true,
            position: None,
            gone: false,
            torn: false,
            read: Instant::now(),
        };
        let lost = self.batches.try_send(batch).is_err();
        self.stats.update(&self.origin, |counters| {
            counters.lines += count;
            counters.bytes += length;
            counters.lost += if lost { count } else { 0 };
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
        clock::{Boot, Now},
        config,
        event::Shown,
        filter::{Filter, Outcome, Scanner},
        jail::{self, Decision, Jail},
        net::IpNet,
        source::{BAN_LINE, ban_line},
    };

    #[test]
    fn the_shipped_filter_reads_the_lines() {
        let config = config::shipped().unwrap();
        let filter = &config.filters["recidive"];
        assert_eq!(filter.failregex, [BAN_LINE]);
        let mut scanner = Scanner::new(Arc::new(Filter::compile(filter).unwrap()));
        let now = Now { boot: Boot(1), wall: "2026-11-20T12:00:00.5Z".parse().unwrap() };
        for prefix in ["203.0.113.7/32", "2001:db8::1/128", "2001:db8::/64", "203.0.112.0/23"] {
            let prefix: IpNet = prefix.parse().unwrap();
            let line = ban_line("a b", &Shown(prefix), now.wall);
            let line = line.as_bytes();
            let Outcome::Matched(failure) = scanner.line(line, true, now.wall) else {
                panic!("{line:?}")
            };
            assert_eq!((failure.time, failure.fields["jail"].as_str()), (Some(now.wall), "a_b"));
            let rules = jail::rules(1, 600);
            let Decision::Ban(offence) = Jail::new(&rules).offence(&failure, line, now) else {
                panic!("{line:?}")
            };
            assert_eq!(offence.prefix, prefix);
        }
    }
}
