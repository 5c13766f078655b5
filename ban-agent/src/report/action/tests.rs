//! Actions at work: what is run, in which order, and what becomes of too much.

use std::{fs, time::Duration};

use tokio::sync::Semaphore;

use super::{
    queue::{DETAILED, QUEUE},
    *,
};
use crate::report::Deliveries;

/// Commands that write down what they are, each with a failure on request.
fn spec(log: &std::path::Path) -> Spec {
    let note = |step: &str| {
        format!("echo {step} <ip> <family> >> {0}; test ! -e {0}.{step}", log.display())
    };
    let commands = Commands {
        start: note("start"),
        stop: note("stop"),
        reload: note("reload"),
        check: note("check"),
        repair: String::new(),
        ban: note("ban"),
        prolong: note("prolong"),
        unban: note("unban"),
        flush: note("flush"),
    };
    Spec {
        name: "note".into(),
        v4: commands.clone(),
        v6: commands,
        on_demand: false,
        timeout: Duration::from_secs(60),
        norestored: false,
        repair_on_unban: false,
    }
}

fn ticket(address: &str) -> Arc<Ticket> {
    Arc::new(Ticket { prefix: Some(address.parse().unwrap()), ..Ticket::default() })
}

async fn lines(spec: Spec, log: &std::path::Path, jobs: Vec<Job>) -> Vec<String> {
    let action = Action::start(spec, "door", Arc::new(Semaphore::new(1)), None);
    jobs.into_iter().for_each(|job| action.order(job).give());
    action.finish().await;
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn runs_what_it_is_told_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (v4, v6) = (ticket("192.0.2.1/32"), ticket("2001:db8::1/128"));
    let jobs = vec![
        Job::Ban(v4.clone()),
        Job::Prolong(v4.clone()),
        Job::Reload,
        Job::Ban(v6),
        Job::Unban(v4),
        Job::Flush,
    ];
    // commands without a family are the same for both: start, stop and reload run once
    let mut spec = spec(&log);
    for commands in [&mut spec.v4, &mut spec.v6] {
        for command in [&mut commands.start, &mut commands.stop, &mut commands.reload] {
            *command = command.replace("<family>", "");
        }
    }
    let expected = [
        "start",
        "ban 192.0.2.1 inet4",
        "prolong 192.0.2.1 inet4",
        "reload",
        "ban 2001:db8::1 inet6",
        "unban 192.0.2.1 inet4",
        "flush inet4",
        "flush inet6",
        "stop",
    ];
    assert_eq!(lines(spec, &log, jobs).await, expected);
}

#[tokio::test]
async fn starts_on_demand_by_family() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut spec = Spec { on_demand: true, ..spec(&log) };
    spec.v6.start = spec.v6.start.replace("start", "start6");
    let jobs = vec![Job::Ban(ticket("2001:db8::1/128")), Job::Ban(ticket("2001:db8::2/128"))];
    let expected = ["start6 inet6", "ban 2001:db8::1 inet6", "ban 2001:db8::2 inet6", "stop inet6"];
    assert_eq!(lines(spec, &log, jobs).await, expected);
}

#[tokio::test]
async fn a_failure_is_checked_and_tried_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    fs::write(folder.path().join("log.ban"), "").unwrap();
    let jobs = vec![Job::Ban(ticket("192.0.2.1/32"))];
    let expected =
        ["start inet4", "ban 192.0.2.1 inet4", "check inet4", "ban 192.0.2.1 inet4", "stop inet4"];
    let got = lines(Spec { on_demand: true, ..spec(&log) }, &log, jobs).await;
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_broken_environment_is_started_anew_but_not_for_an_unban() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    for step in ["ban", "unban", "check"] {
        fs::write(folder.path().join(format!("log.{step}")), "").unwrap();
    }
    let ticket = ticket("192.0.2.1/32");
    let mut spec = Spec { on_demand: true, ..spec(&log) };
    // starting mends it
    let mend = format!("; rm {}.check", log.display());
    spec.v4.start.push_str(&mend);
    spec.v4.start = spec.v4.start.replace("; test", " && test");
    let jobs = vec![Job::Ban(ticket.clone())];
    let expected =
        ["start inet4", "ban 192.0.2.1 inet4", "check inet4", "ban 192.0.2.1 inet4", "stop inet4"];
    assert_eq!(lines(spec.clone(), &log, jobs).await, expected);

    fs::write(folder.path().join("log.check"), "").unwrap();
    fs::remove_file(&log).unwrap();
    let jobs = vec![Job::Unban(ticket)];
    let expected = ["unban 192.0.2.1 inet4", "check inet4"];
    assert_eq!(lines(spec, &log, jobs).await, expected);
}

#[tokio::test]
async fn a_replaced_action_stops_before_the_next_one_starts() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let permits = Arc::new(Semaphore::new(4));
    let first = Action::start(spec(&log), "door", Arc::clone(&permits), None);
    first.order(Job::Ban(ticket("192.0.2.1/32"))).give();
    let mut spec = spec(&log);
    for commands in [&mut spec.v4, &mut spec.v6] {
        commands.start = commands.start.replace("start", "second").replace("<family>", "");
        commands.stop.clear();
    }
    Action::start(spec, "door", permits, Some(first)).finish().await;
    let text = fs::read_to_string(&log).unwrap();
    let steps: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(steps, ["start", "start", "ban", "stop", "stop", "second"]);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let permits = Arc::new(Semaphore::new(0));
    let action = Action::start(spec(&log), "door", Arc::clone(&permits), None);
    for _ in 0..QUEUE + 3 {
        action.order(Job::Reload).give();
    }
    assert_eq!(action.stats().dropped(), 3);
}

#[tokio::test]
async fn behind_many_others_only_the_lines_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let permits = Arc::new(Semaphore::new(0));
    let action = Action::start(spec(&folder.path().join("log")), "door", permits, None);
    let long = Arc::new(Ticket {
        matches: vec![b"line".as_slice().into()],
        failures: 5,
        ..Ticket::clone(&ticket("192.0.2.1/32"))
    });
    let shortened = || Arc::strong_count(&long) - 1;
    // it waits to start, and takes nothing
    for _ in 0..DETAILED {
        action.order(Job::Ban(Arc::clone(&long))).give();
    }
    assert_eq!(shortened(), DETAILED, "all of them whole");
    action.order(Job::Ban(Arc::clone(&long))).give();
    assert_eq!(shortened(), DETAILED, "without its lines");
    let mut job = Job::Ban(Arc::clone(&long));
    job.shorten();
    let Job::Ban(short) = job else { panic!("another job") };
    assert_eq!((short.matches.len(), short.failures, short.prefix), (0, 5, long.prefix));
    assert_eq!(action.stats().dropped(), 0);
}

#[tokio::test]
async fn no_more_at_once_than_there_are_permits() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    // fails if another one runs
    let ban = format!("mkdir {0} && sleep 0.05 && rmdir {0}", lock.display());
    let mut spec = spec(&folder.path().join("log"));
    (spec.v4, spec.v6) = (Commands { ban, ..Commands::default() }, Commands::default());
    let permits = Arc::new(Semaphore::new(1));
    let actions: Vec<Action> =
        (0..5).map(|_| Action::start(spec.clone(), "door", Arc::clone(&permits), None)).collect();
    let stats: Vec<Arc<Deliveries>> =
        actions.iter().map(|action| Arc::clone(action.stats())).collect();
    for action in &actions {
        action.order(Job::Ban(ticket("192.0.2.1/32"))).give();
    }
    for action in actions {
        action.finish().await;
    }
    let count = |of: fn(&Deliveries) -> u64| -> u64 { stats.iter().map(|stats| of(stats)).sum() };
    assert_eq!((count(Deliveries::done), count(Deliveries::failed)), (5, 0));
}
