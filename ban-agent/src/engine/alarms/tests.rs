//! Each alarm that the core can be driven into without a kernel: it begins, is told once, and ends.
//! The others are in `tests/tests/system_alarms.rs`.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::RECENT;
use crate::{
    alarm::Name,
    clock::{Boot, Now},
    config,
    control::{Round, Stage},
    dataplane::{Attached, DataPlane as _, Double, Wire, XdpMode},
    engine::{command::Command, rig::Agent, trial::Trial},
    event::{Bus, Subscription, What},
    filter,
    jail::{self, Limits, Offence},
    ledger::{Enforced, Op},
    net::parse_prefix,
    source::{self, Start},
};

fn on(name: &str, ifindex: u32, mode: Option<XdpMode>) -> Attached {
    Attached::double(name, ifindex, mode)
}

/// A core with room for two bans of each family, and no jail.
struct Bench {
    folder: TempDir,
    agent: Agent,
    machine: Arc<Mutex<Double>>,
    now: Now,
    events: Subscription,
}

impl Bench {
    fn new(trial: Trial) -> Bench {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "[agent]\ninterfaces = [\"lo\"]\n").unwrap();
        let mut config = config::load(&path).unwrap();
        config.agent.max_bans = 2;
        config.agent.state = folder.path().join("state.sqlite");
        let mut double = Double::new(1, 2, folder.path().to_owned());
        double.attached = vec![on("eth0", 1, Some(XdpMode::Native))];
        let machine = Arc::new(Mutex::new(double));
        let bus = Bus::default();
        let events = bus.subscribe("watch");
        let now =
            Now { boot: Boot(1_000_000), wall: Timestamp::from_second(1_800_000_000).unwrap() };
        let card = Box::new(Wire::to(&machine));
        let agent = Agent::new(config, path, card, trial, bus, now);
        Bench { folder, agent, machine, now, events }
    }

    fn machine(&self, act: impl FnOnce(&mut Double)) {
        act(&mut self.machine.lock().unwrap());
    }

    fn later(&mut self, time: Duration) {
        self.now.boot = self.now.boot.plus(u64::try_from(time.as_millis()).unwrap());
        self.now.wall += time;
    }

    /// Returns what stands: `NAME ABOUT`.
    fn alarms(&mut self) -> Vec<String> {
        let alarms = self.agent.core.alarms(self.now);
        alarms.iter().map(|alarm| format!("{} {}", alarm.name.word(), alarm.about)).collect()
    }

    fn stands(&mut self, name: Name, about: &str) -> bool {
        self.alarms().contains(&format!("{} {about}", name.word()))
    }

    /// Waits for other tasks.
    async fn eventually(&mut self, name: Name, about: &str, stands: bool) {
        for _ in 0..10_000 {
            if self.stands(name, about) == stands {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} {about}: not {stands} in {:?}", name.word(), self.alarms());
    }

    /// Events of alarms so far: `+NAME ABOUT`, `-NAME ABOUT`.
    async fn told(&mut self) -> Vec<String> {
        self.agent
            .core
            .bus
            .publish(vec![crate::event::Event::now(What::Resumed { jail: "end".into() })]);
        let mut told = Vec::new();
        while let Some((_, part)) = self.events.next().await {
            for event in part.events.iter() {
                match &event.what {
                    What::AlarmBegun(alarm) => {
                        told.push(format!("+{} {}", alarm.name.word(), alarm.about));
                    }
                    What::AlarmEnded(alarm) => {
                        told.push(format!("-{} {}", alarm.name.word(), alarm.about));
                    }
                    What::Resumed { jail } if &**jail == "end" => return told,
                    _ => {}
                }
            }
        }
        told
    }

    /// Ends with what was told of this alarm: its beginning and its end, each once.
    async fn was_told_once(&mut self, name: Name, about: &str) {
        let word = format!("{} {about}", name.word());
        let mut told = self.told().await;
        told.retain(|event| event.get(1..) == Some(&word));
        assert_eq!(told, [format!("+{word}"), format!("-{word}")]);
    }

    fn jail(&self, name: &str, paths: &[&Path]) -> jail::Spec {
        let file =
            |path: &&Path| source::Spec::File { path: path.to_path_buf(), start: Start::End };
        let filter =
            filter::Spec { failregex: vec!["^<ADDR> knocks$".into()], ..filter::Spec::default() };
        let rules =
            jail::Rules { name: name.into(), filter: Arc::new(filter), ..jail::rules(1, 600) };
        jail::Spec {
            rules,
            sources: paths.iter().map(file).collect(),
            raw_log: false,
            actions: Vec::new(),
        }
    }

    fn run(&mut self, jails: &[jail::Spec]) {
        let (looked, _) = mpsc::channel(1);
        let jails: Vec<Arc<jail::Spec>> = jails.iter().cloned().map(Arc::new).collect();
        self.agent.core.pipeline.apply(&jails, &looked).unwrap();
    }

    fn offence(&mut self, jail: &str, address: &str) {
        let prefix = address.parse::<std::net::IpAddr>().unwrap().into();
        let offence = Offence {
            prefix,
            address: prefix,
            duration: Some(Duration::from_secs(86_400)),
            ports: Vec::new(),
            evidence: Vec::new(),
            fields: Default::default(),
            time: self.now.wall,
            failures: 1,
        };
        self.now.fake();
        let read = std::time::Instant::now();
        self.agent
            .core
            .handle([Command::Offence { jail: jail.into(), offence, read, ack: None }].into_iter());
    }
}

#[tokio::test]
async fn a_trial_that_lapsed() {
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let mut bench = Bench::new(Trial::Lapsed { at });
    bench.machine(|machine| machine.attached = vec![on("eth0", 1, None)]);
    bench.agent.core.guard();
    // that the interfaces are detached is the same thing
    assert_eq!(bench.alarms(), ["trial_lapsed "]);
    let alarms = bench.agent.core.alarms(bench.now);
    assert_eq!(alarms.first().unwrap().since, at, "since it ran out, not since it was noticed");
    assert!(alarms.first().unwrap().text.starts_with("NOTHING IS ENFORCED"));
    bench.agent.core.confirm(None, bench.now);
    assert!(!bench.stands(Name::TrialLapsed, ""));
    bench.was_told_once(Name::TrialLapsed, "").await;
}

#[tokio::test]
async fn a_part_that_was_left_out() {
    let mut bench = Bench::new(Trial::Over);
    assert!(!bench.stands(Name::PartRefused, "jail slip"));
    let why = "config.toml:3: unknown key 'maxretri'".to_owned();
    bench.agent.core.config.refused = vec![config::Refused { part: "jail slip".to_owned(), why }];
    assert!(bench.stands(Name::PartRefused, "jail slip"));
    bench.agent.core.config.refused.clear();
    assert!(!bench.stands(Name::PartRefused, "jail slip"));
    bench.was_told_once(Name::PartRefused, "jail slip").await;
}

#[tokio::test]
async fn a_dry_run() {
    let mut bench = Bench::new(Trial::Over);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.machine(|machine| machine.dry_run = true);
    assert_eq!(bench.alarms(), ["dry_run "]);
    bench.machine(|machine| machine.dry_run = false);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::DryRun, "").await;
}

#[tokio::test]
async fn interfaces() {
    let mut bench = Bench::new(Trial::Over);
    bench.agent.core.config.agent.mode = config::Mode::Native;
    let native = Some(XdpMode::Native);
    for (interfaces, expected) in [
        (vec![on("eth0", 1, native)], &[][..]),
        (vec![on("eth0", 1, native), on("eth1", 0, native)], &["interface_missing eth1"][..]),
        (vec![on("eth0", 1, native), on("eth1", 2, None)], &["interface_unprotected eth1"]),
        (vec![on("eth0", 1, Some(XdpMode::Generic))], &["interface_generic eth0"]),
        (vec![on("eth0", 0, native)], &["detached ", "interface_missing eth0"]),
        (vec![on("eth\u{1b}[2J", 1, None)], &["detached ", "interface_unprotected eth\\u{1b}[2J"]),
        (vec![on("eth0", 1, native)], &[]),
    ] {
        bench.machine(|machine| machine.attached.clone_from(&interfaces));
        bench.agent.core.patrol.moved = true;
        bench.agent.core.guard();
        assert_eq!(bench.alarms(), expected, "{interfaces:?}");
    }
    bench.was_told_once(Name::InterfaceGeneric, "eth0").await;
    // where it is not asked for, generic mode is a remark
    bench.agent.core.config.agent.mode = config::Mode::Auto;
    bench.machine(|machine| machine.attached = vec![on("eth0", 1, Some(XdpMode::Generic))]);
    bench.agent.core.patrol.moved = true;
    bench.agent.core.guard();
    assert_eq!(bench.alarms(), Vec::<String>::new());
}

#[tokio::test]
async fn a_full_map_a_refusal_and_what_total_counts() {
    let mut bench = Bench::new(Trial::Over);
    let log = bench.folder.path().join("door.log");
    fs::write(&log, "").unwrap();
    bench.run(&[bench.jail("door", &[&log])]);
    let total = |bench: &Bench| {
        let counters = bench.agent.core.pipeline.jails().next().unwrap().1;
        counters.total.load(Ordering::Relaxed)
    };
    bench.offence("door", "192.0.2.1");
    assert_eq!((bench.alarms(), total(&bench)), (vec![], 1));
    // what is prolonged is no ban more
    bench.later(Duration::from_secs(1));
    bench.offence("door", "192.0.2.1");
    assert_eq!(total(&bench), 1);
    bench.offence("door", "192.0.2.2");
    assert_eq!((bench.alarms(), total(&bench)), (vec!["map_full IPv4".to_owned()], 2));
    // a jail's ban makes room
    bench.offence("door", "192.0.2.3");
    assert_eq!(bench.alarms(), ["map_full IPv4", "ban_evicted "]);
    // the other family has room
    bench.offence("door", "2001:db8::1");
    assert_eq!(total(&bench), 4);
    // half of it by hand, and the rest for ever: none makes any
    let mut plan = Default::default();
    for ban in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        bench.agent.core.ledger.release(parse_prefix(ban).unwrap(), None, &mut plan);
    }
    let door = crate::ledger::Holder::Jail("door".into());
    for (ban, holder) in [("192.0.2.8", crate::ledger::Holder::Manual), ("198.51.100.9", door)] {
        let claim = crate::ledger::Claim {
            prefix: parse_prefix(ban).unwrap(),
            holder,
            until: Boot::NEVER,
            ports: Vec::new(),
            derived: false,
        };
        bench.agent.core.ledger.claim(&claim, false, bench.now.boot, &mut plan);
    }
    bench.offence("door", "192.0.2.4");
    assert_eq!(bench.alarms(), ["ban_refused ", "map_full IPv4", "ban_evicted "]);
    assert_eq!(total(&bench), 4, "counted, and not made");
    bench.agent.core.ledger.release(parse_prefix("192.0.2.8").unwrap(), None, &mut plan);
    assert_eq!(bench.alarms(), ["ban_refused ", "ban_evicted "]);
    bench.later(RECENT);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::BanRefused, "").await;
}

#[tokio::test]
async fn a_kernel_that_refuses_and_one_that_holds_something_else() {
    let mut bench = Bench::new(Trial::Over);
    bench.machine(|machine| machine.refuse("not now\u{1b}"));
    bench.offence("door", "192.0.2.1");
    let alarms = bench.agent.core.alarms(bench.now);
    assert_eq!(alarms.first().unwrap().text, "1 steps wait for the kernel: not now\\u{1b}");
    bench.machine(|machine| machine.before = None);
    bench.agent.core.retry(bench.now);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::KernelStepsPending, "").await;

    let stranger = parse_prefix("198.51.100.1").unwrap();
    let enforced = Enforced { all: Boot::NEVER, scoped: Boot(0), ports: Vec::new() };
    let now = bench.now;
    bench.machine(|machine| machine.apply(&[Op::Set(stranger, enforced)], now).unwrap());
    let drift = |bench: &mut Bench| {
        let mut round = Round { stage: Some(Stage::Ledger(None)), ..Round::default() };
        while round.stage.is_some() {
            round = bench.agent.core.compare_maps(round).unwrap();
        }
        (round.missing, round.surplus)
    };
    assert_eq!(drift(&mut bench), (0, 1));
    assert_eq!(bench.alarms(), ["drift "]);
    bench.machine(|machine| machine.apply(&[Op::Clear(stranger)], now).unwrap());
    assert_eq!(drift(&mut bench), (0, 0));
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::Drift, "").await;
}

#[tokio::test]
async fn drift_that_was_mended_is_remembered_for_a_while() {
    let mut bench = Bench::new(Trial::Over);
    bench.offence("door", "192.0.2.1");
    let stranger = parse_prefix("198.51.100.1").unwrap();
    let enforced = Enforced { all: Boot::NEVER, scoped: Boot(0), ports: Vec::new() };
    let now = bench.now;
    bench.machine(|machine| {
        machine.plunder();
        machine.apply(&[Op::Set(stranger, enforced)], now).unwrap();
        machine.allow(&[stranger]).unwrap();
    });
    bench.agent.core.patrol.hurry();
    for _ in 0..8 {
        bench.agent.core.patrol(now);
    }
    bench.machine(|machine| {
        let held: Vec<_> = machine.held().unwrap().iter().map(|held| held.prefix).collect();
        assert_eq!(held, [parse_prefix("192.0.2.1").unwrap()]);
        assert!(machine.allows(&[]).unwrap());
    });
    assert_eq!(bench.agent.core.patrol.drifted, 3);
    assert_eq!(bench.alarms(), ["drift "]);
    bench.later(RECENT);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::Drift, "").await;
}

#[tokio::test]
async fn a_way_in_that_is_open_and_pins_that_are_gone() {
    let mut bench = Bench::new(Trial::Over);
    bench.machine(|machine| {
        machine.uncovered = vec!["eth9".into()];
        machine.pin_trouble = Some("the pins are gone".into());
    });
    bench.agent.core.guard();
    assert_eq!(bench.alarms(), ["interface_unprotected eth9", "pins_gone "]);
    bench.machine(|machine| (machine.uncovered, machine.pin_trouble) = (Vec::new(), None));
    bench.agent.core.guard();
    assert_eq!(bench.alarms(), Vec::<String>::new());
    let mut told = bench.told().await;
    told.sort();
    let expected = ["+interface_unprotected eth9", "+pins_gone "];
    assert_eq!(told, [expected, ["-interface_unprotected eth9", "-pins_gone "]].concat());
}

#[tokio::test]
async fn a_jail_that_sees_nothing_and_one_that_sees_a_part() {
    let mut bench = Bench::new(Trial::Over);
    let [here, gone, glob] =
        ["here.log", "gone.log", "*.access"].map(|name| bench.folder.path().join(name));
    fs::write(&here, "").unwrap();
    bench.run(&[bench.jail("none", &[]), bench.jail("part", &[&here, &gone, &glob])]);
    assert!(bench.stands(Name::JailWithoutSource, "none"));
    let [gone, glob] = [gone, glob].map(|path| path.display().to_string());
    bench.eventually(Name::FileNeverSeen, &gone, true).await;
    bench.eventually(Name::FileNeverSeen, &glob, true).await;
    assert!(!bench.stands(Name::JailWithoutSource, "part"));
    // one alarm for one cause
    bench.run(&[bench.jail("part", &[Path::new(&gone), Path::new(&glob)])]);
    bench.eventually(Name::JailWithoutSource, "part", true).await;
    assert!(!bench.alarms().iter().any(|alarm| alarm.starts_with("file_never_seen")));
    assert!(!bench.stands(Name::JailWithoutSource, "none"));

    fs::write(bench.folder.path().join("a.access"), "").unwrap();
    bench.eventually(Name::JailWithoutSource, "part", false).await;
    bench.eventually(Name::FileNeverSeen, &glob, false).await;
    bench.eventually(Name::FileNeverSeen, &gone, true).await;
    fs::write(&gone, "").unwrap();
    bench.eventually(Name::FileNeverSeen, &gone, false).await;
    // one that was there and is not is being rotated: no alarm
    fs::remove_file(&gone).unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(bench.alarms(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_jail_that_stopped_one_that_died_and_what_they_lack() {
    let mut bench = Bench::new(Trial::Over);
    let log = bench.folder.path().join("door.log");
    fs::write(&log, "").unwrap();
    let limits = Limits { bans: Some(1), ..Limits::default() };
    let mut jail = bench.jail("door", &[&log]);
    jail.rules.limits = limits;
    bench.run(&[jail]);
    bench.offence("door", "2001:db8::1");
    bench.offence("door", "192.0.2.2");
    assert_eq!(bench.alarms(), ["jail_stopped door"]);
    bench.agent.core.resume(Some("door"));
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::JailStopped, "door").await;

    let counters = |bench: &Bench| {
        let (_, counters) = bench.agent.core.pipeline.jails().next().unwrap();
        counters.evicted.fetch_add(7, Ordering::Relaxed);
        counters.too_old.fetch_add(3, Ordering::Relaxed);
        counters.other_clock.fetch_add(4, Ordering::Relaxed);
        *counters.lookup.lock().unwrap() = "who.example: no such host".into();
    };
    counters(&bench);
    let alarms = bench.agent.core.alarms(bench.now);
    let texts: Vec<&str> = alarms.iter().map(|alarm| &*alarm.text).collect();
    assert_eq!(
        texts,
        [
            "[door] 3 failures were older than findtime when they came: not counted",
            "[door] 4 failures are stamped by a clock that is off: they count from the moment they were read",
            "[door] had no room for 7 failures: more addresses fail than it remembers",
            "[door] who.example: no such host"
        ]
    );
    bench.later(RECENT);
    bench.agent.core.pipeline.jails().next().unwrap().1.lookup.lock().unwrap().clear();
    assert_eq!(bench.alarms(), Vec::<String>::new());
    let told = bench.told().await;
    for name in [Name::FailuresTooOld, Name::StampsOfAnotherClock, Name::SuspectsForgotten] {
        for sign in ['+', '-'] {
            let event = format!("{sign}{} door", name.word());
            assert_eq!(told.iter().filter(|said| **said == event).count(), 1, "{event}: {told:?}");
        }
    }
    bench.agent.core.pipeline.kill("door");
    bench.eventually(Name::JailDied, "door", true).await;
    bench.run(&[]);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::JailDied, "door").await;
}

/// The lines that it was at are lost to it; it counts the next ones.
#[tokio::test]
async fn a_jail_that_died_is_started_again() {
    let mut bench = Bench::new(Trial::Over);
    let log = bench.folder.path().join("door.log");
    fs::write(&log, "").unwrap();
    bench.run(&[bench.jail("door", &[&log])]);
    let write = |text: &str| {
        let mut file = fs::File::options().append(true).open(&log).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    let lines = async |bench: &Bench, count: u64| {
        for _ in 0..10_000 {
            let (_, counters) = bench.agent.core.pipeline.jails().next().unwrap();
            if counters.lines.load(Ordering::Relaxed) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{count} lines were not read");
    };
    for _ in 0..10_000 {
        if bench.agent.core.pipeline.stats().snapshot().values().any(|counters| counters.seen) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    write("one\n");
    lines(&bench, 1).await;
    for count in 1..3 {
        bench.agent.core.pipeline.kill("door");
        let texts = |bench: &mut Bench| {
            let alarms = bench.agent.core.alarms(bench.now).into_iter();
            alarms.map(|alarm| alarm.text).collect::<Vec<_>>()
        };
        while !texts(&mut bench).iter().any(|text| text.contains("bans no address")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.agent.core.pipeline.revive(bench.now);
        assert!(texts(&mut bench)[0].contains("bans no address"), "not at once, and not for ever");
        bench.later(Duration::from_secs(10));
        bench.agent.core.pipeline.revive(bench.now);
        let text = format!("[door] failed, {count} times");
        assert!(texts(&mut bench)[0].starts_with(&text), "{:?}", texts(&mut bench));
        write("another\n");
        lines(&bench, 1 + count).await;
    }
    bench.later(RECENT);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::JailDied, "door").await;
}

#[tokio::test]
async fn patterns_that_match_nothing() {
    let day = Duration::from_secs(24 * 3600);
    let mut bench = Bench::new(Trial::Over);
    let log = bench.folder.path().join("door.log");
    fs::write(&log, "").unwrap();
    bench.run(&[bench.jail("door", &[&log])]);
    let change = |bench: &Bench, near: u64, matched: u64| {
        let (_, counters) = bench.agent.core.pipeline.jails().next().unwrap();
        counters.near.store(near, Ordering::Relaxed);
        counters.matched.store(matched, Ordering::Relaxed);
    };
    change(&bench, 100, 0);
    assert_eq!(bench.alarms(), Vec::<String>::new(), "not on the first day");
    bench.later(day);
    assert_eq!(bench.alarms(), ["patterns_match_nothing door"]);
    bench.agent.core.config.agent.unmatched_after = None;
    assert_eq!(bench.alarms(), Vec::<String>::new(), "the operator knows");
    bench.agent.core.config.agent.unmatched_after = Some(day);
    change(&bench, 99, 0);
    assert_eq!(bench.alarms(), Vec::<String>::new(), "too few to tell");
    change(&bench, 100, 0);
    assert_eq!(bench.alarms(), ["patterns_match_nothing door"]);
    change(&bench, 100, 1);
    assert_eq!(bench.alarms(), Vec::<String>::new());

    // what the task itself counts, once it follows the file
    bench.now.fake();
    for _ in 0..10_000 {
        if bench.agent.core.pipeline.stats().snapshot().values().any(|counters| counters.seen) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut file = fs::File::options().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, b"nobody knocks\nquiet\n").unwrap();
    let near = |bench: &Bench| {
        let (_, counters) = bench.agent.core.pipeline.jails().next().unwrap();
        counters.near.load(Ordering::Relaxed)
    };
    for _ in 0..10_000 {
        if near(&bench) != 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(near(&bench), 101);
}

#[tokio::test]
async fn a_configuration_that_does_not_run() {
    let mut bench = Bench::new(Trial::Over);
    bench.agent.core.alarms.disk.look();
    assert_eq!(bench.alarms(), Vec::<String>::new());
    let path = bench.agent.core.path.clone();
    fs::write(&path, "[agent]\ninterfaces = [\"lo\"]\nallow = [\"192.0.2.0/24\"]\n").unwrap();
    bench.agent.core.alarms.disk.look();
    assert_eq!(bench.alarms(), ["config_newer "]);
    bench.agent.core.reload().unwrap();
    assert_eq!(bench.alarms(), Vec::<String>::new());
    // one that cannot be loaded does not run either
    fs::create_dir(bench.folder.path().join("conf.d")).unwrap();
    fs::write(bench.folder.path().join("conf.d/10.toml"), "nonsense").unwrap();
    assert!(bench.agent.core.reload().is_err());
    bench.agent.core.alarms.disk.look();
    assert_eq!(bench.alarms(), ["config_newer "]);
    fs::remove_file(bench.folder.path().join("conf.d/10.toml")).unwrap();
    bench.agent.core.alarms.disk.look();
    assert_eq!(bench.alarms(), Vec::<String>::new());
}

#[tokio::test]
async fn sources_that_fail_and_lines_and_events_that_are_lost() {
    let mut bench = Bench::new(Trial::Over);
    let origin: Arc<str> = "/var/log/\u{1b}x".into();
    let about = "/var/log/\\u{1b}x";
    let change = |bench: &Bench, error: Option<&str>, lost: u64| {
        bench.agent.core.pipeline.stats().update(&origin, |counters| {
            counters.error = error.map(Into::into);
            counters.lost = lost;
        });
    };
    change(&bench, Some("permission denied"), 0);
    assert_eq!(bench.alarms(), [format!("source_failed {about}")]);
    change(&bench, None, 0);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::SourceFailed, about).await;
    change(&bench, None, 2);
    assert_eq!(bench.alarms(), [format!("lines_lost {about}")]);
    bench.later(RECENT);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    bench.was_told_once(Name::LinesLost, about).await;

    // one that listens and never reads
    let deaf = bench.agent.core.bus.subscribe("file");
    let event = || vec![crate::event::Event::now(What::Resumed { jail: "x".into() })];
    for _ in 0..5000 {
        bench.agent.core.bus.publish(event());
    }
    let mut deaf = deaf;
    deaf.next().await;
    assert!(bench.stands(Name::EventsLost, "file"));
    bench.later(RECENT);
    assert!(!bench.stands(Name::EventsLost, "file"));
}

/// Not an alarm, but of the same bench: what is read no more has no place in the state.
#[tokio::test]
async fn positions_go_with_their_sources() {
    let mut bench = Bench::new(Trial::Over);
    let log = |name: &str| bench.folder.path().join(name);
    let [one, two] = [log("one.log"), log("two.log")];
    let jail = |path: &Path| {
        let filter = "[filters.door]\nfailregex = ['^<ADDR> knocks$']\n";
        format!("[agent]\ninterfaces = [\"lo\"]\n{filter}[jails.door]\nlogpath = {path:?}\n")
    };
    let path = bench.agent.core.path.clone();
    fs::write(&path, jail(&one)).unwrap();
    bench.agent.core.reload().unwrap();
    let key = |path: &Path| Arc::<str>::from(path.display().to_string());
    let position = Some(source::Position::File { files: Vec::new() });
    let known = |bench: &mut Bench| {
        let positions = [&one, &two].map(|path| (key(path), position.clone()));
        bench.agent.core.store.positions().handled(positions, []);
    };
    let left = |bench: &Bench| {
        let keys = bench.agent.core.store.positions().known().into_keys();
        keys.map(|key| key.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    known(&mut bench);
    bench.agent.core.start_jails(&mpsc::channel(1).0).unwrap();
    assert_eq!(left(&bench), ["one.log"]);
    known(&mut bench);
    let why = String::new();
    bench.agent.core.config.refused = vec![config::Refused { part: "jail x".to_owned(), why }];
    bench.agent.core.start_jails(&mpsc::channel(1).0).unwrap();
    assert_eq!(left(&bench).len(), 2, "one that was left out may come back");
    fs::write(&path, jail(&two)).unwrap();
    bench.agent.core.reload().unwrap();
    assert_eq!(left(&bench), ["two.log"]);
    fs::write(&path, "[agent]\ninterfaces = [\"lo\"]\n").unwrap();
    bench.agent.core.reload().unwrap();
    assert!(left(&bench).is_empty());
}
