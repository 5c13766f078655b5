//! A snapshot in the text format of OpenMetrics 1.0
//! (<https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>).

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use super::{Histogram, Snapshot};
use crate::{
    control::{Fill, JailStatus},
    dataplane::Hits,
};

/// The whole exposition.
#[must_use]
pub fn text(snapshot: Snapshot) -> String {
    let mut registry = Registry::with_prefix("ban_agent");
    registry.register_collector(Box::new(Exposition(snapshot)));
    let mut text = String::new();
    // writing to a String cannot fail
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Exposition(Snapshot);

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out(encoder);
        agent(&mut out, &self.0)?;
        bans(&mut out, &self.0)?;
        packets(&mut out, &self.0)?;
        jails(&mut out, &self.0)?;
        sources(&mut out, &self.0)?;
        events(&mut out, &self.0)
    }
}

const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

fn agent(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    out.info("build", "The agent that runs", &version)?;
    let started = snapshot.status.since.as_millisecond() as f64 / 1e3;
    out.gauge("start_time_seconds", "When the agent started, in Unix time", &started)?;
    let dry_run = u64::from(snapshot.status.dry_run);
    out.gauge("dry_run", "1: packets are counted, none is dropped", &dry_run)?;
    let alarms = snapshot.alarms.iter().map(|(name, count)| ([("name", *name)], *count));
    out.gauges("alarm", "Things that are wrong; `ban-agent status` tells more", alarms)?;
    let degraded = u64::from(!snapshot.store_sound);
    out.gauge("store_degraded", "1: bans are in the kernel, but not on disk", &degraded)?;
    let pending = snapshot.pending as u64;
    out.gauge("kernel_steps_pending", "Bans that the kernel did not take yet", &pending)
}

fn bans(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let held = snapshot.held.iter().flat_map(|(jail, counts)| {
        FAMILIES.iter().zip(counts).map(move |(family, count)| {
            ([("jail", jail.clone()), ("family", (*family).to_owned())], *count as u64)
        })
    });
    out.gauges("bans", "Live bans, by the jail that holds them", held)?;
    let Fill { v4, v6, max } = snapshot.status.bans;
    let fill = FAMILIES.iter().zip([v4, v6]);
    let fill = fill.map(|(family, count)| ([("family", *family)], count as u64));
    out.gauges("map_entries", "Banned addresses and prefixes", fill)?;
    let capacity = FAMILIES.map(|family| ([("family", family)], u64::from(max)));
    out.gauges("map_capacity", "How many of them fit", capacity)?;
    let help = "Bans that ended early to make room for others";
    out.counter("bans_evicted", help, snapshot.evicted)?;
    let help = "Bans that were not made because none could make room";
    out.counter("bans_refused", help, snapshot.refused)?;
    let countries = snapshot.countries.iter();
    let countries = countries.map(|(code, count)| ([("country", code.as_str())], *count));
    out.counters("bans_by_country", "Bans made, by ISO code of the country", countries)?;
    let help = "From the moment a log line is read (a journal entry: received by journald) to the moment the kernel drops its sender";
    out.histogram("log_to_drop_seconds", help, &snapshot.latency)?;
    let help = "How long the engine is held by one thing, while everything else waits";
    out.histogram("engine_hold_seconds", help, &snapshot.holds)?;
    let help = "From the moment a log line is read to the turn of its ban";
    out.histogram("engine_wait_seconds", help, &snapshot.waits)
}

fn packets(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let each = |value: fn(&Hits) -> u64| {
        snapshot.interfaces.iter().flat_map(move |(interface, verdicts)| {
            verdicts.counts.iter().map(move |(verdict, hits)| {
                let labels = [("interface", interface.as_str()), ("verdict", verdict.name())];
                (labels, value(hits))
            })
        })
    };
    out.counters("packets", "Packets by what became of them", each(|hits| hits.packets))?;
    out.counters("bytes", "Their bytes, Ethernet header included", each(|hits| hits.bytes))?;
    let lost = snapshot
        .interfaces
        .iter()
        .map(|(interface, verdicts)| ([("interface", interface.as_str())], verdicts.events_lost));
    out.counters("drop_events_lost", "Sampled drops that nobody read in time", lost)
}

fn jails(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    let jails = &snapshot.status.jails;
    let each = |value: fn(&JailStatus) -> u64| {
        jails.iter().map(move |jail| ([("jail", jail.name.as_str())], value(jail)))
    };
    let offences = |which: usize| {
        let counts = jails.iter().zip(&snapshot.offences);
        counts.map(move |(jail, counts)| {
            ([("jail", jail.name.as_str())], counts.get(which).copied().unwrap_or_default())
        })
    };
    out.counters("jail_lines", "Lines read", each(|jail| jail.lines))?;
    out.counters("jail_matches", "Lines that were failures", each(|jail| jail.matched))?;
    out.counters("jail_ignored", "Failures of ignored addresses", each(|jail| jail.ignored))?;
    let help = "Times that an address failed too often";
    out.counters("jail_offences", help, offences(0))?;
    out.counters("jail_bans", "Bans made", each(|jail| jail.total))?;
    out.gauges("jail_watched", "Addresses under observation", each(|jail| jail.failed))?;
    let help = "Addresses forgotten because max_tracked was reached";
    out.counters("jail_forgotten", help, offences(1))?;
    let help = "1: the jail stopped banning, `ban-agent resume` lets it go on";
    out.gauges("jail_stopped", help, each(|jail| jail.stopped.is_some().into()))?;
    let commands = jails.iter().flat_map(|jail| {
        jail.actions.iter().flat_map(|action| {
            let counts =
                [("done", action.done), ("failed", action.failed), ("dropped", action.dropped)];
            counts.map(|(outcome, count)| {
                let (jail, action) = (jail.name.as_str(), action.name.as_str());
                ([("jail", jail), ("action", action), ("outcome", outcome)], count)
            })
        })
    });
    out.counters("action_commands", "Commands of actions, by what became of them", commands)
}

fn sources(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    type Counters = crate::source::Counters;
    let each = |value: fn(&Counters) -> u64| {
        let sources = snapshot.status.sources.iter();
        sources.map(move |source| ([("source", source.origin.as_str())], value(&source.counters)))
    };
    out.counters("source_lines", "Lines read", each(|counters| counters.lines))?;
    out.counters("source_bytes", "Bytes read", each(|counters| counters.bytes))?;
    out.gauges("source_lag_bytes", "Bytes that wait in the file", each(|counters| counters.lag))?;
    let help = "1: there is nothing to read, or it cannot be read";
    let stuck = |counters: &Counters| u64::from(counters.waiting || counters.error.is_some());
    out.gauges("source_waiting", help, each(stuck))?;
    let help = "Lines skipped because they were too long, or not understood";
    let skipped = |counters: &Counters| counters.overlong + counters.malformed;
    out.counters("source_skipped_lines", help, each(skipped))?;
    let help = "Times that unread lines were gone before they were read";
    out.counters("source_lost", help, each(|counters| counters.lost))
}

fn events(out: &mut Out<'_>, snapshot: &Snapshot) -> fmt::Result {
    out.counter("events", "Events told: bans, their ends, trouble", snapshot.status.events.told)?;
    let lost = snapshot.status.events.lost.iter();
    let lost = lost.map(|(kind, lost)| ([("listener", kind.as_str())], *lost));
    out.counters("events_lost", "Events that a listener did not get", lost)?;
    let messages = snapshot.status.hooks.iter().flat_map(|hook| {
        [("sent", hook.sent), ("failed", hook.failed)]
            .map(|(outcome, count)| ([("hook", hook.name.as_str()), ("outcome", outcome)], count))
    });
    out.counters("hook_messages", "Messages of hooks", messages)
}

/// Writes metric families.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// A counter for each set of labels.
    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// A counter without labels.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A gauge for each set of labels.
    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A gauge without labels.
    fn gauge(&mut self, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
    }

    fn info(&mut self, name: &str, help: &str, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let buckets = histogram.buckets();
        metric.encode_histogram::<NoLabelSet>(histogram.sum(), histogram.count(), &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::SourceStatus, dataplane::Verdicts, event::escape, source::Counters};

    #[test]
    fn labels_are_inert_and_numbers_are_those_of_the_snapshot() {
        let verdicts = Verdicts {
            counts: vec![(ban_common::Verdict::Drop, Hits { packets: 7, bytes: 700 })],
            events_lost: 3,
        };
        let mut snapshot = Snapshot {
            held: vec![("sshd".into(), [2, 1])],
            interfaces: vec![("eth0".into(), verdicts)],
            ..Snapshot::default()
        };
        snapshot.status.bans.max = 1024;
        snapshot.status.sources = vec![SourceStatus {
            origin: escape("/log/\u{1b}\"}\n evil 1\\".as_bytes()),
            counters: Counters::default(),
        }];
        snapshot.latency.observe(0.003);
        let text = text(snapshot);
        assert!(text.ends_with("# EOF\n"));
        for line in [
            "ban_agent_bans{jail=\"sshd\",family=\"ipv4\"} 2",
            "ban_agent_bans{jail=\"sshd\",family=\"ipv6\"} 1",
            "ban_agent_packets_total{interface=\"eth0\",verdict=\"drop\"} 7",
            "ban_agent_bytes_total{interface=\"eth0\",verdict=\"drop\"} 700",
            "ban_agent_drop_events_lost_total{interface=\"eth0\"} 3",
            "ban_agent_map_capacity{family=\"ipv6\"} 1024",
            "ban_agent_store_degraded 1",
            "ban_agent_log_to_drop_seconds_bucket{le=\"0.002\"} 0",
            "ban_agent_log_to_drop_seconds_bucket{le=\"0.005\"} 1",
            "ban_agent_log_to_drop_seconds_bucket{le=\"+Inf\"} 1",
            r#"ban_agent_source_lines_total{source="/log/\\u{1b}\"}\\u{a} evil 1\\\\"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }
}
