//! What is about many bans is done in parts, and what happens between two of them is not lost.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{chores::PART, command::Command, rig, rig::Agent, trial::Trial};
use crate::{
    clock::{Boot, Now},
    config,
    control::{Call, Document, Refusal, Release, Released, Reply, Request, Term},
    dataplane::{DataPlane as _, Double, Wire},
    event::{Bus, What},
    ledger::{Claim, Holder, Plan},
    net::IpNet,
    store::Store,
};

struct Bench {
    folder: TempDir,
    /// What is banned is one of very many.
    quiet: bool,
    agent: Agent,
    machine: Arc<Mutex<Double>>,
}

impl Bench {
    fn new(max_bans: u32) -> Bench {
        let folder = rig::folder();
        let path = folder.path().join("config.toml");
        fs::write(&path, "[agent]\ninterfaces = [\"lo\"]\n").unwrap();
        let mut config = config::load(&path).unwrap();
        config.agent.max_bans = max_bans;
        config.agent.state = folder.path().join("state.sqlite");
        let machine = Arc::new(Mutex::new(Double::new(1, max_bans, folder.path().to_owned())));
        let card = Box::new(Wire::to(&machine));
        let now = Now::read();
        let mut agent = Agent::new(config, path, card, Trial::Over, Bus::default(), now);
        // part by part
        agent.core.holds.slice = Duration::ZERO;
        Bench { folder, quiet: false, agent, machine }
    }

    /// Claims of the numbers, made without a request.
    fn fill(&mut self, numbers: std::ops::Range<u32>, until: Boot) {
        let now = Now::read();
        let core = &mut self.agent.core;
        let mut plan = Plan::default();
        for number in numbers {
            let claim = claim(number, until);
            core.ledger.claim(&claim, false, Boot(0), &mut plan);
            core.store.claim(&claim, None, now);
        }
        core.commit(plan, Vec::new(), None, now);
    }

    fn ban(&mut self, numbers: &[u32], jail: Option<&str>, time: u64) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Ban {
            targets: numbers.iter().map(|number| host(*number)).collect(),
            duration: Some(Term::For(Duration::from_secs(time))),
            jail: jail.map(str::to_owned),
            ports: Vec::new(),
            reason: None,
            force: false,
        };
        let call = Call { request, reply, user: None, more: false, quiet: self.quiet };
        self.agent.core.handle(std::iter::once(Command::Call(call)));
        answer
    }

    fn release(&mut self, after: Option<IpNet>) -> Result<Released, Refusal> {
        let (reply, mut answer) = oneshot::channel();
        let (user, reason) = (None, None);
        let release = Release { jail: None, after, reply, user, reason, quiet: false };
        self.agent.core.handle(std::iter::once(Command::Release(release)));
        answer.try_recv().unwrap()
    }

    fn held(&self) -> BTreeSet<IpNet> {
        self.agent.core.ledger.iter().map(|ban| ban.prefix).collect()
    }

    /// Ledger, maps and disk hold the same.
    async fn check(&mut self) {
        let core = &mut self.agent.core;
        core.store.barrier().await.unwrap();
        let held = self.held();
        let copy = self.folder.path().join("copy.sqlite");
        let _ = fs::remove_file(&copy);
        rig::copy_state(&self.folder.path().join("state.sqlite"), &copy);
        let mut stored = BTreeSet::new();
        Store::open(&copy).unwrap().load(Now::read(), |claim| _ = stored.insert(claim.prefix));
        assert_eq!(stored, held, "on disk");
        let mut machine = self.machine.lock().unwrap();
        let kernel: BTreeSet<_> = machine.held().unwrap().iter().map(|ban| ban.prefix).collect();
        assert_eq!(kernel, held, "in the maps");
    }
}

fn host(number: u32) -> IpNet {
    IpNet::from(IpAddr::from(Ipv4Addr::from(0x1000_0000 + number)))
}

fn claim(number: u32, until: Boot) -> Claim {
    let (holder, ports) = (Holder::Manual, Vec::new());
    Claim { prefix: host(number), holder, until, ports, derived: false }
}

fn many(parts: usize) -> u32 {
    u32::try_from(parts * PART).unwrap()
}

#[tokio::test]
async fn many_ends_come_in_parts() {
    let mut bench = Bench::new(8192);
    let now = Now::read();
    bench.fill(0..many(3), now.boot.plus(1000));
    bench.fill(5000..5010, now.boot.plus(100_000));
    let later = Now { boot: now.boot.plus(2000), ..now };
    bench.agent.core.expire(later);
    assert_eq!(bench.held().len(), 2 * PART + 10);
    // somebody comes in between, and ends as late as he should
    bench.ban(&[0], None, 3600).await.unwrap();
    assert!(bench.agent.core.has_chores());
    bench.agent.core.finish_chores(later);
    assert_eq!(bench.held().len(), 11);
    bench.check().await;
}

#[tokio::test]
async fn what_changes_while_all_is_written_anew_is_written() {
    let mut bench = Bench::new(8192);
    bench.fill(0..many(4), Boot::NEVER);
    let now = Now::read();
    bench.agent.core.clocks_changed(now);
    // the entries of the maps, then half of what goes to the disk
    for _ in 0..7 {
        bench.agent.core.chore(now);
    }
    assert!(bench.agent.core.chores.gather.is_some(), "it is half done");
    let mut plan = Plan::default();
    for number in [0, many(4) - 1] {
        bench.agent.core.ledger.release(host(number), None, &mut plan);
    }
    bench.agent.core.commit(plan, Vec::new(), None, now);
    bench.ban(&[7000], None, 3600).await.unwrap();
    bench.agent.core.finish_chores(now);
    assert_eq!(bench.held().len(), 4 * PART - 1);
    bench.check().await;
}

#[tokio::test]
async fn everybody_is_let_go_in_parts() {
    let mut bench = Bench::new(8192);
    bench.fill(1..many(3), Boot::NEVER);
    let first = bench.release(None).unwrap();
    assert_eq!(first.changes.changes.len(), PART);
    assert_eq!(bench.held().len(), 2 * PART - 1);
    // one comes where all were let go, one where they were not yet
    bench.ban(&[0, 7000], None, 3600).await.unwrap();
    let mut last = first.last;
    while last.is_some() {
        last = bench.release(last).unwrap().last;
    }
    assert_eq!(bench.held(), [host(0)].into());
    bench.check().await;
}

#[tokio::test]
async fn a_guard_that_covers_many_takes_them_in_parts() {
    let mut bench = Bench::new(8192);
    bench.fill(0..4000, Boot::NEVER);
    let mut plan = Plan::default();
    bench.agent.core.ledger.set_allowed(&["16.0.0.0/8".parse().unwrap()], &mut plan);
    let now = Now::read();
    bench.agent.core.commit(plan, Vec::new(), None, now);
    assert!(bench.held().len() > 2000 && bench.agent.core.has_chores());
    bench.agent.core.finish_chores(now);
    assert_eq!(bench.held().len(), 0);
    bench.check().await;
}

#[tokio::test]
async fn who_is_named_twice_over_a_full_table_is_recorded() {
    for quiet in [false, true] {
        name_twice_over_a_full_table(quiet).await;
    }
}

async fn name_twice_over_a_full_table(quiet: bool) {
    let mut bench = Bench::new(4);
    bench.quiet = quiet;
    let jail = Some("f2b-door");
    bench.ban(&[0, 1, 2, 3], jail, 3600).await.unwrap();
    // each newcomer pushes somebody out, and some of those come back at once
    let reply = bench.ban(&[4, 5, 0, 1, 2, 3, 4, 5, 0], jail, 7200).await.unwrap();
    assert!(matches!(reply, Reply::Done(Document::Changes(_))), "{reply:?}");
    assert_eq!(bench.held().len(), 4);
    bench.check().await;
}

#[tokio::test]
async fn of_very_many_the_claims_alone_are_recorded() {
    let mut bench = Bench::new(8192);
    let mut heard = bench.agent.core.bus.subscribe("test");
    bench.ban(&[1], None, 3600).await.unwrap();
    bench.quiet = true;
    bench.ban(&(2..600).collect::<Vec<_>>(), None, 3600).await.unwrap();
    bench.check().await;
    let core = &bench.agent.core;
    assert_eq!([1, 2].map(|number| core.store.history(host(number))), [1, 0]);
    core.bus.close();
    let mut bans = 0;
    while let Some((_, part)) = heard.next().await {
        bans += part.events.iter().filter(|event| matches!(event.what, What::Ban(_))).count();
    }
    assert_eq!(bans, 1);
}

#[tokio::test]
async fn a_part_is_answered_before_the_disk_has_it_and_the_last_one_after() {
    let mut bench = Bench::new(64);
    let (reply, mut answer) = oneshot::channel();
    let request = Request::Unban { targets: vec![host(1)], all: false, jail: None, reason: None };
    let call = Call { request, reply, user: None, more: true, quiet: false };
    bench.agent.core.handle(std::iter::once(Command::Call(call)));
    assert!(matches!(answer.try_recv(), Ok(Reply::Done(_))));
    let mut last = bench.ban(&[2], None, 60);
    assert!(last.try_recv().is_err(), "its task has not run yet");
    assert!(matches!(last.await, Ok(Reply::Done(_))));
}
