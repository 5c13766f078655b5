//! Finds out which alarms stand, and tells when one begins and ends, each once.
//!
//! What is wrong is read off the state of the core, afresh each time: nobody has to remember to
//! take an alarm back. A look costs a walk over jails and sources and no system call. A new alarm
//! is a name in [`crate::alarm`], and a line here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;

use super::{Engine, trial::Trial};
use crate::{
    alarm::{Alarm, Name},
    clock::{Boot, Now},
    config::{self, Disk},
    control::SourceStatus,
    dataplane::{Lifetime, XdpMode},
    event::{Event, What, escape},
    jail, source,
};

/// How long after the last time something that merely happens, like an eviction, is an alarm.
pub(super) const RECENT: Duration = Duration::from_secs(3600);
/// How often it is looked though nothing is heard: sources and files tell nobody.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// How soon it is looked after something happened.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// So many lines that hold words of a jail's patterns are no accident, if none fits.
const NEAR: u64 = 100;
/// Files named at most.
const FILES: usize = 3;

/// The alarms that stand, and what it takes to find them.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    standing: Vec<Alarm>,
    counted: HashMap<(Name, String), Rising>,
    /// Missing or different, surplus, when the maps were last compared with the ledger.
    pub(super) drift: (usize, usize),
    /// The files of the configuration.
    pub(super) disk: Disk,
    /// Something happened since the last look.
    pub(super) due: bool,
}

impl Alarms {
    /// None so far; `disk` is where the configuration was read.
    pub(super) fn new(disk: Disk) -> Alarms {
        Alarms { disk, ..Alarms::default() }
    }
}

/// A counter whose rise is an alarm.
#[derive(Clone, Copy, Debug, Default)]
struct Rising {
    count: u64,
    /// What it was before it began to rise.
    before: u64,
    last: Option<Boot>,
    /// It was looked at this time.
    live: bool,
}

impl Rising {
    /// By how much it rose since it was quiet for [`RECENT`]; `None`: it is quiet.
    fn rose(&mut self, count: u64, now: Now) -> Option<u64> {
        let recent = u64::try_from(RECENT.as_millis()).unwrap_or(u64::MAX);
        if self.last.is_some_and(|last| last.plus(recent) <= now.boot) {
            (self.last, self.before) = (None, self.count);
        }
        if count < self.count {
            // its owner began anew
            (self.count, self.before) = (0, 0);
        }
        if count > self.count {
            (self.count, self.last) = (count, Some(now.boot));
        }
        self.last.map(|_| self.count - self.before)
    }
}

/// An alarm that was found.
#[derive(Clone, Debug, PartialEq)]
struct Finding {
    name: Name,
    about: String,
    text: String,
    since: Option<Timestamp>,
}

/// One look.
struct Look {
    found: Vec<Finding>,
    counted: HashMap<(Name, String), Rising>,
    now: Now,
}

impl Look {
    /// `about` and `text` may hold what others wrote: they are escaped here.
    fn say(&mut self, name: Name, about: &str, text: impl AsRef<str>) {
        let [about, text] = [about, text.as_ref()].map(|text| escape(text.as_bytes()));
        self.found.push(Finding { name, about, text, since: None });
    }

    /// An alarm as long as `count` has risen lately.
    fn rose(&mut self, name: Name, about: &str, count: u64, text: impl FnOnce(u64) -> String) {
        if count == 0 {
            return;
        }
        let rising = self.counted.entry((name, about.to_owned())).or_default();
        rising.live = true;
        if let Some(rose) = rising.rose(count, self.now) {
            self.say(name, about, text(rose));
        }
    }
}

impl Engine {
    /// Looks what is wrong now, and tells what has changed.
    pub(super) fn look_for_alarms(&mut self, now: Now) {
        let mut counted = std::mem::take(&mut self.alarms.counted);
        counted.values_mut().for_each(|rising| rising.live = false);
        let mut look = Look { found: Vec::new(), counted, now };
        self.look_at_enforcement(&mut look);
        self.look_at_ways_in(&mut look);
        self.look_at_room(&mut look);
        self.look_at_kernel_and_store(&mut look);
        self.look_at_jails(&mut look);
        self.look_at_sources(&mut look);
        self.look_at_listeners(&mut look);
        self.look_at_configuration(&mut look);
        let Look { found, mut counted, .. } = look;
        // what is gone is nobody's alarm any more
        counted.retain(|_, rising| rising.live);
        let standing = std::mem::take(&mut self.alarms.standing);
        let (standing, changes) = compare(standing, found, now.wall);
        self.alarms.due = false;
        (self.alarms.counted, self.alarms.standing) = (counted, standing);
        for what in &changes {
            match what {
                What::AlarmBegun(alarm) => log::error!("{what}; {}", alarm.remedy),
                _ => log::info!("{what}"),
            }
        }
        self.bus.publish(changes.into_iter().map(|what| Event { at: now.wall, what }).collect());
    }

    /// Returns the alarms that stand now, the worst first.
    pub(super) fn alarms(&mut self, now: Now) -> Vec<Alarm> {
        self.look_for_alarms(now);
        self.alarms.standing.clone()
    }

    /// Returns how many alarms of each name stand, as of the last look.
    pub(super) fn alarm_counts(&self) -> Vec<(&'static str, u64)> {
        let count = |name: &Name| {
            let same = self.alarms.standing.iter().filter(|alarm| alarm.name == *name).count();
            (name.word(), same as u64)
        };
        Name::ALL.iter().map(count).collect()
    }

    fn look_at_enforcement(&self, look: &mut Look) {
        let trial = self.probation.trial();
        if self.xdp.is_dry_run() {
            look.say(Name::DryRun, "", "NOTHING IS DROPPED: this is a dry run");
        }
        if let Trial::Lapsed { at } = trial {
            let text = "NOTHING IS ENFORCED: the trial ended without being confirmed".into();
            let (name, about) = (Name::TrialLapsed, String::new());
            look.found.push(Finding { name, about, text, since: Some(at) });
        }
        if trial.lifetime() == Lifetime::Detached {
            return;
        }
        let interfaces = self.xdp.interfaces();
        if interfaces.iter().all(|on| on.ifindex == 0 || on.mode.is_none()) {
            look.say(Name::Detached, "", "NOTHING IS ENFORCED: the program runs on no interface");
        }
        for on in interfaces {
            if on.ifindex == 0 {
                let text = "not protected: there is no such interface";
                look.say(Name::InterfaceMissing, &on.name, text);
            } else if on.mode.is_none() {
                let why = on.trouble.as_deref();
                let text = why.unwrap_or("not protected: the program does not run there");
                look.say(Name::InterfaceUnprotected, &on.name, text);
            } else if on.mode == Some(XdpMode::Generic)
                && self.config.agent.mode == config::Mode::Native
            {
                let text = "in generic mode, though mode = \"native\" was asked for";
                look.say(Name::InterfaceGeneric, &on.name, text);
            }
        }
    }

    fn look_at_ways_in(&self, look: &mut Look) {
        for name in self.xdp.uncovered() {
            if self.xdp.interfaces().iter().any(|on| on.name == *name) {
                continue;
            }
            let text = "not protected, though the outside reaches this host by it";
            look.say(Name::InterfaceUnprotected, name, text);
        }
        if let Some(trouble) = self.xdp.pin_trouble() {
            look.say(Name::PinsGone, "", trouble);
        }
    }

    fn look_at_room(&self, look: &mut Look) {
        let max = self.ledger.max_bans();
        for (family, count) in ["IPv4", "IPv6"].into_iter().zip(self.ledger.families()) {
            if count >= max {
                let text = format!("no further {family} ban fits: {count} of {max}");
                look.say(Name::MapFull, family, text);
            }
        }
        look.rose(Name::BanRefused, "", self.ledger.refused(), |count| {
            format!("bans not made: {count}; the map was full, and no ban could make room")
        });
        look.rose(Name::BanEvicted, "", self.ledger.evicted(), |count| {
            format!("{count} bans ended early to make room for others: the map is full")
        });
    }

    fn look_at_kernel_and_store(&self, look: &mut Look) {
        if let Some(error) = &self.kernel_error {
            let text = format!("{} steps wait for the kernel: {error}", self.pending.len());
            look.say(Name::KernelStepsPending, "", text);
        }
        let (missing, surplus) = self.alarms.drift;
        if missing + surplus == 0 {
            look.rose(Name::Drift, "", self.patrol.drifted, |count| {
                format!("{count} entries of the maps had been changed, and are written again")
            });
        } else {
            let text = format!(
                "kernel and agent differ: {missing} bans are missing or different, {surplus} belong to no jail"
            );
            look.say(Name::Drift, "", text);
        }
        let state = self.store.state();
        if !state.is_sound() {
            let mut text = format!("bans are enforced, but a reboot would forget them: {state}");
            let lost = self.store.lost();
            if lost > 0 {
                text.push_str(&format!(
                    "; no room for {lost} pieces of evidence, history and positions since the start"
                ));
            }
            look.say(Name::StoreDegraded, "", text);
        }
    }

    fn look_at_jails(&self, look: &mut Look) {
        let up = look.now.wall.duration_since(self.started);
        let up = Duration::try_from(up).unwrap_or_default();
        let stats = self.pipeline.stats().snapshot();
        for (spec, counters) in self.pipeline.jails() {
            let name = &*spec.rules.name;
            if is_blind(spec, &stats) {
                let text = if spec.sources.is_empty() {
                    format!("[{name}] bans no address: it has nothing to read")
                } else {
                    let all: Vec<String> = spec.sources.iter().map(ToString::to_string).collect();
                    format!(
                        "[{name}] bans no address: none of its sources exists: {}",
                        all.join(", ")
                    )
                };
                look.say(Name::JailWithoutSource, name, text);
            }
            if let Some(breaker) = self.breakers.get(&spec.rules.name)
                && let Some(trip) = breaker.tripped()
            {
                let withheld = breaker.withheld();
                let text = format!("[{name}] has stopped banning: {trip}; {withheld} withheld");
                look.say(Name::JailStopped, name, text);
            }
            let evicted = counters.evicted.load(Ordering::Relaxed);
            look.rose(Name::SuspectsForgotten, name, evicted, |count| {
                format!("[{name}] had no room for {count} failures: more addresses fail than it remembers")
            });
            let near = counters.near.load(Ordering::Relaxed);
            if near >= NEAR
                && counters.matched.load(Ordering::Relaxed) == 0
                && self.config.agent.unmatched_after.is_some_and(|time| up >= time)
            {
                let text = format!(
                    "[{name}] has matched nothing so far: {near} lines held words of its patterns, and \
                     none fitted"
                );
                look.say(Name::PatternsMatchNothing, name, text);
            }
            let old = counters.too_old.load(Ordering::Relaxed);
            look.rose(Name::FailuresTooOld, name, old, |count| {
                format!(
                    "[{name}] {count} failures were older than findtime when they came: not counted"
                )
            });
            let other = counters.other_clock.load(Ordering::Relaxed);
            look.rose(Name::StampsOfAnotherClock, name, other, |count| {
                format!(
                    "[{name}] {count} failures are stamped by a clock that is off: they count from the moment they were read"
                )
            });
            let troubles = counters.lookup.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !troubles.is_empty() {
                look.say(Name::IgnoreUnresolved, name, format!("[{name}] {troubles}"));
            }
            for action in self.actions.status(name) {
                let about = format!("{name}/{}", action.name);
                if let Some(error) = &action.error {
                    look.say(Name::ActionFailed, &about, format!("action {about}: {error}"));
                }
                look.rose(Name::ActionsLost, &about, action.dropped, |count| {
                    format!("action {about}: {count} commands were not run: too many waited")
                });
            }
        }
        for jail in self.config.jails.iter().filter(|jail| jail.raw_log) {
            let name = &*jail.rules.name;
            let text = format!(
                "[{name}] can be told whom to ban: strangers can write whole lines into its log"
            );
            look.say(Name::RawLog, name, text);
        }
        for refused in &self.config.refused {
            let text = format!("{} is left out: {}", refused.part, refused.why);
            look.say(Name::PartRefused, &refused.part, text);
        }
        for (name, deaths, dead) in self.pipeline.deaths() {
            if dead {
                let text =
                    format!("[{name}] bans no address: its task has failed; it is being restarted");
                look.say(Name::JailDied, name, text);
            } else {
                look.rose(Name::JailDied, name, deaths, |count| {
                    format!(
                        "[{name}] failed, {count} times, and was started again: lines were lost"
                    )
                });
            }
        }
    }

    fn look_at_sources(&self, look: &mut Look) {
        let stats = self.pipeline.stats().snapshot();
        let blind: Vec<&source::Spec> = self
            .pipeline
            .jails()
            .filter(|(spec, _)| is_blind(spec, &stats))
            .flat_map(|(spec, _)| &spec.sources)
            .collect();
        // a jail that can see nothing names them already
        let told = |name: &str| blind.iter().any(|spec| spec.origin() == name);
        for (origin, counters) in &stats {
            if let Some(error) = &counters.error {
                look.say(Name::SourceFailed, origin, format!("{origin}: {error}"));
            } else if counters.is_unseen() && !told(origin) {
                let text = format!("{origin} has never existed: nothing was read from it");
                look.say(Name::FileNeverSeen, origin, text);
            }
            look.rose(Name::LinesLost, origin, counters.lost, |count| {
                format!("{origin}: {count} times unread lines were gone before they were read")
            });
        }
    }

    fn look_at_listeners(&self, look: &mut Look) {
        for hook in self.hook_states() {
            if let Some(error) = hook.error {
                let text = format!("hook {} does not deliver: {error}", hook.name);
                look.say(Name::HookFailed, &hook.name, text);
            }
        }
        // what a hook that fails does not get is its own alarm
        for (kind, lost) in self.bus.lost().into_iter().filter(|(kind, _)| *kind != "hook") {
            look.rose(Name::EventsLost, kind, lost, |count| {
                format!("{count} events were lost on their way to: {kind}")
            });
        }
    }

    fn look_at_configuration(&self, look: &mut Look) {
        let changed = self.alarms.disk.changed();
        let names: Vec<String> =
            changed.iter().take(FILES).map(|path| path.display().to_string()).collect();
        if !names.is_empty() {
            let more = changed.len() - names.len();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let text =
                format!("what runs is not what is on disk: {}{more} changed", names.join(", "));
            look.say(Name::ConfigNewer, "", text);
        }
    }

    /// Has the files of the configuration looked at, where a slow disk holds nobody up.
    pub(super) fn look_at_disk(&self) {
        let disk = self.alarms.disk.clone();
        drop(tokio::task::spawn_blocking(move || disk.look()));
    }

    /// Takes the files for what they are now: they were just read.
    pub(super) fn note_files(&mut self) {
        self.alarms.disk = Disk::of(&self.path, &self.config.files);
    }

    /// Returns whether what there is to say of a source is said by an alarm.
    pub(super) fn is_alarm(status: &SourceStatus) -> bool {
        status.counters.error.is_some() || status.counters.is_unseen()
    }
}

/// Returns whether a jail that looks for failures can see none: nothing that it reads is there.
fn is_blind(spec: &jail::Spec, stats: &BTreeMap<Arc<str>, source::Counters>) -> bool {
    let is_dead = |source: &source::Spec| {
        let counters = stats.get(source.origin().as_str());
        counters.is_some_and(|counters| {
            counters.is_unseen() || counters.waiting && counters.error.is_some()
        })
    };
    // one without a pattern is for bans by hand
    !spec.rules.filter.is_idle() && spec.sources.iter().all(is_dead)
}

/// Returns what stands now, the worst first, and the events that make it of what stood before.
fn compare(
    mut before: Vec<Alarm>,
    mut found: Vec<Finding>,
    at: Timestamp,
) -> (Vec<Alarm>, Vec<What>) {
    found.sort_by(|a, b| (a.name, &a.about).cmp(&(b.name, &b.about)));
    found.dedup_by(|later, first| (later.name, &later.about) == (first.name, &first.about));
    let (mut standing, mut changes) = (Vec::with_capacity(found.len()), Vec::new());
    for Finding { name, about, text, since } in found {
        let same = |alarm: &Alarm| alarm.name == name && alarm.about == about;
        match before.iter().position(same).map(|place| before.remove(place)) {
            Some(known) => standing.push(Alarm { text, ..known }),
            None => {
                let (remedy, since) = (name.remedy().to_owned(), since.unwrap_or(at));
                let alarm = Alarm { name, about, text, remedy, since };
                changes.push(What::AlarmBegun(alarm.clone()));
                standing.push(alarm);
            }
        }
    }
    changes.extend(before.into_iter().map(What::AlarmEnded));
    (standing, changes)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod comparing {
    use super::*;

    fn finding(name: Name, about: &str, text: &str) -> Finding {
        Finding { name, about: about.into(), text: text.into(), since: None }
    }

    fn words(changes: &[What]) -> Vec<String> {
        let word = |what: &What| match what {
            What::AlarmBegun(alarm) => format!("+{} {}", alarm.name.word(), alarm.about),
            What::AlarmEnded(alarm) => format!("-{} {}", alarm.name.word(), alarm.about),
            other => panic!("{other:?}"),
        };
        changes.iter().map(word).collect()
    }

    #[test]
    fn each_begins_and_ends_once_and_the_worst_stands_first() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let file = |text| finding(Name::FileNeverSeen, "/log", text);
        let (standing, changes) = compare(Vec::new(), vec![file("1")], at(1));
        assert_eq!(words(&changes), ["+file_never_seen /log"]);
        // another text is no other alarm
        let dry = finding(Name::DryRun, "", "dry");
        let (standing, changes) = compare(standing, vec![file("2"), dry.clone(), dry], at(2));
        assert_eq!(words(&changes), ["+dry_run "]);
        let shown: Vec<_> =
            standing.iter().map(|alarm| (alarm.name, &*alarm.text, alarm.since)).collect();
        assert_eq!(
            shown,
            [(Name::DryRun, "dry", at(2)), (Name::FileNeverSeen, "2", at(1))],
            "the worst first, with the newest text and the first time"
        );
        // another source is another alarm
        let other = finding(Name::FileNeverSeen, "/other", "3");
        let (standing, changes) = compare(standing, vec![other], at(3));
        assert_eq!(
            words(&changes),
            ["+file_never_seen /other", "-dry_run ", "-file_never_seen /log"]
        );
        let (standing, changes) = compare(standing, Vec::new(), at(4));
        assert_eq!((words(&changes), standing), (vec!["-file_never_seen /other".into()], vec![]));
    }

    #[test]
    fn what_merely_happens_is_an_alarm_for_an_hour() {
        let now = |minutes: u64| Now { boot: Boot(minutes * 60_000), wall: Timestamp::UNIX_EPOCH };
        let mut rising = Rising::default();
        assert_eq!(rising.rose(0, now(0)), None);
        assert_eq!(rising.rose(3, now(1)), Some(3));
        assert_eq!(rising.rose(3, now(60)), Some(3));
        assert_eq!(rising.rose(5, now(60)), Some(5));
        assert_eq!(rising.rose(5, now(119)), Some(5));
        assert_eq!(rising.rose(5, now(120)), None, "an hour after the last");
        assert_eq!(rising.rose(6, now(121)), Some(1), "only what is new");
        assert_eq!(rising.rose(1, now(122)), Some(1), "its owner began anew");
    }
}
