//! The one list of alarms: what may be wrong with a running agent, so that nothing fails in
//! silence. Names, words and remedies, and nothing else: `daemon/alarms.rs` finds out which stand.
//!
//! Each name has a paragraph in docs/operations.md and a rule in dist/prometheus; a test keeps the
//! three together.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The names with their words and remedies, the worst first.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $remedy:literal;)*) => {
        /// What an alarm is called, in JSON, metrics, events and the documentation. It never
        /// changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Name {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Name {
            /// All of them, the worst first.
            pub const ALL: &[Name] = &[$(Name::$name),*];

            /// Returns its word, in snake case.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Name::$name => $word,)*
                }
            }

            /// Returns what the operator can do.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Name::$name => $remedy,)*
                }
            }
        }
    };
}

names! {
    /// Nobody confirmed the trial in time.
    TrialLapsed = "trial_lapsed",
        "log in anew, then `ban-agent confirm`, or `ban-agent confirm --for 10m` to try again";
    /// No interface runs the program.
    Detached = "detached",
        "name an interface that exists with [agent] interfaces, and restart the agent";
    /// Packets are counted, none is dropped.
    DryRun = "dry_run",
        "take `dry_run` out of [agent], or --dry-run off the command line, and restart the agent";
    /// An interface does not exist.
    InterfaceMissing = "interface_missing",
        "it is protected as soon as it comes back; else take it out of [agent] interfaces";
    /// An interface exists and does not run the program.
    InterfaceUnprotected = "interface_unprotected",
        "the log says why, `ban-agent doctor` names the program that is on it; one left open on purpose \
         is named in [agent] unprotected";
    /// What is pinned would not outlive the agent.
    PinsGone = "pins_gone",
        "mount the BPF file system again: mount -t bpf bpf /sys/fs/bpf; the pins come back by themselves";
    /// An interface runs in generic mode against `mode = "native"`.
    InterfaceGeneric = "interface_generic",
        "see `ban-agent doctor`; mode = \"auto\" accepts generic mode";
    /// A jail's task ended.
    JailDied = "jail_died",
        "restart the agent, and report the error that is in its log";
    /// A jail, filter, action or hook makes no sense, and was left out at the start.
    PartRefused = "part_refused",
        "mend what `ban-agent check` names, then `ban-agent reload`";
    /// A jail counts lines that strangers may have written.
    RawLog = "raw_log",
        "`ban-agent check` names the better source: read that, and take raw_log out";
    /// A jail's breaker tripped.
    JailStopped = "jail_stopped",
        "find out why with `ban-agent show` and `ban-agent test`, then `ban-agent resume`";
    /// A jail can see nothing.
    JailWithoutSource = "jail_without_source",
        "mend its `logpath`, or read the journal with `journalmatch`; `ban-agent check` shows both";
    /// Addresses were not banned, for want of room.
    BanRefused = "ban_refused",
        "raise [agent] max_bans, then `ban-agent reload`; or lift bans by hand with `unban`";
    /// No further ban fits.
    MapFull = "map_full",
        "raise [agent] max_bans, then `ban-agent reload`; or widen, so that networks are banned";
    /// Bans ended early to make room for others.
    BanEvicted = "ban_evicted",
        "raise [agent] max_bans, then `ban-agent reload`; or widen, so that networks are banned";
    /// The kernel has not taken everything.
    KernelStepsPending = "kernel_steps_pending",
        "it is tried again every second; `ban-agent doctor` compares kernel and agent";
    /// The maps hold something else than the agent decided.
    Drift = "drift",
        "`ban-agent reload` mends it; does something else write into the maps?";
    /// The store does not record.
    StoreDegraded = "store_degraded",
        "make room, or mend the disk; everything is written anew once it answers";
    /// A source cannot be read.
    SourceFailed = "source_failed",
        "mend what the text says; it is tried again by itself";
    /// A named log has never existed, or a glob has never matched.
    FileNeverSeen = "file_never_seen",
        "mend the path, or take it out of `logpath`; it is read as soon as it is there";
    /// Unread lines could not be found any more.
    LinesLost = "lines_lost",
        "let logrotate keep at least one file uncompressed (`delaycompress`)";
    /// Failures were not counted, because the clock that stamps them is late.
    FailuresTooOld = "failures_too_old",
        "set the clock of the host that writes the log right, or raise the jail's findtime";
    /// Failures counted as of now, because the clock that stamps them is another one.
    StampsOfAnotherClock = "stamps_of_another_clock",
        "set the filter's logtimezone, or have the log name its zone";
    /// Suspects were forgotten because there were too many.
    SuspectsForgotten = "suspects_forgotten",
        "raise the jail's max_tracked, or count networks with prefix_v4 and prefix_v6";
    /// An allow list or ignoreip names something that cannot be looked up.
    IgnoreUnresolved = "ignore_unresolved",
        "mend the name or the file, or put addresses into ignoreip";
    /// A jail's patterns match nothing of what its daemon writes.
    PatternsMatchNothing = "patterns_match_nothing",
        "compare its lines with `ban-agent test --print-missed`; if all is well, set unmatched_after";
    /// The files on disk are not those that run.
    ConfigNewer = "config_newer",
        "`ban-agent check`, then `ban-agent reload`";
    /// An action does not do what it should.
    ActionFailed = "action_failed",
        "mend the command; `ban-agent status` shows how it last failed";
    /// Commands of actions were not run.
    ActionsLost = "actions_lost",
        "make the action faster, or raise [agent] max_actions";
    /// A hook does not deliver.
    HookFailed = "hook_failed",
        "mend its URL or its command; `ban-agent status` shows how it last failed";
    /// Those who listen missed events.
    EventsLost = "events_lost",
        "read faster, or make room on the disk of [events] file; the bans themselves are not touched";
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What.
    pub name: Name,
    /// The jail, interface, source or the like that it is about, escaped; empty: the agent.
    pub about: String,
    /// For people, escaped.
    pub text: String,
    /// What to do.
    pub remedy: String,
    /// When it was noticed.
    pub since: Timestamp,
}

impl Alarm {
    /// Returns its text, and what it is about where the text does not say so.
    #[must_use]
    pub fn sentence(&self) -> String {
        if self.about.is_empty() || self.text.contains(&self.about) {
            self.text.clone()
        } else {
            format!("{}: {}", self.about, self.text)
        }
    }
}

/// For those who do something else: that there are alarms.
#[must_use]
pub fn remark(alarms: &[Alarm]) -> Option<String> {
    let worst = alarms.first()?;
    let more = match alarms.len() {
        1 => String::new(),
        count => format!("; {} alarms in all", count),
    };
    Some(format!("{}{more}: see `ban-agent status`", worst.sentence()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../docs/operations.md");
    const RULES: &str = include_str!("../../dist/prometheus/ban-agent.rules.yml");

    /// Returns the paragraph under `### NAME`, as one line.
    fn paragraph(name: Name) -> String {
        let title = format!("\n### {}\n", name.word());
        let (_, rest) = PAGE.split_once(&title).unwrap_or_else(|| panic!("no paragraph{title}"));
        let own = rest.split("\n#").next().unwrap_or_default();
        own.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_has_its_paragraph_and_its_rule_and_no_two_are_alike() {
        let (mut words, mut texts) = (BTreeSet::new(), BTreeSet::new());
        for name in Name::ALL {
            let word = name.word();
            assert!(words.insert(word), "{word} stands twice");
            assert!(word.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{word}");
            assert_eq!(serde_json::to_value(name).unwrap(), word);
            assert!(!name.remedy().is_empty(), "{word} has no remedy");
            let text = paragraph(*name);
            assert!(text.len() > 100, "{word}: '{text}' explains nothing");
            assert!(texts.insert(text), "{word} has the paragraph of another");
            let expression = format!("expr: ban_agent_alarm{{name=\"{word}\"}} > 0\n");
            assert_eq!(RULES.matches(&expression).count(), 1, "{word}: rules");
        }
        let titles = PAGE.lines().filter_map(|line| line.strip_prefix("### "));
        let alarms = titles.filter(|title| title.contains('_') || words.contains(title));
        assert_eq!(alarms.collect::<BTreeSet<_>>(), words, "paragraphs of alarms that are none");
        let names = RULES.lines().filter_map(|line| {
            line.trim().strip_prefix("expr: ban_agent_alarm{name=\"")?.split('"').next()
        });
        assert_eq!(names.collect::<BTreeSet<_>>(), words, "rules of alarms that are none");
    }

    #[test]
    fn a_remark_names_the_worst_and_counts_the_others() {
        let alarm = |name: Name, about: &str, text: &str| Alarm {
            name,
            about: about.into(),
            text: text.into(),
            remedy: name.remedy().into(),
            since: Timestamp::UNIX_EPOCH,
        };
        let dry = alarm(Name::DryRun, "", "nothing is dropped");
        let file = alarm(Name::FileNeverSeen, "/log", "has never existed");
        assert_eq!(remark(&[]), None);
        assert_eq!(
            remark(std::slice::from_ref(&file)).unwrap(),
            "/log: has never existed: see `ban-agent status`"
        );
        assert_eq!(
            remark(&[dry, file]).unwrap(),
            "nothing is dropped; 2 alarms in all: see `ban-agent status`"
        );
    }
}
