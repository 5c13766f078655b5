//! The store against real files: restarts, clocks, and everything that a disk can do to it.

use std::{
    collections::BTreeMap, fs, os::unix::fs::FileExt, process::Command, sync::Mutex, thread,
};

use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::*;
use crate::{
    clock::Boot,
    ledger::{Ledger, Plan},
    net::{parse_ports, parse_prefix},
    source::{Checkpoint, Position},
};

fn now(boot: u64, wall: i64) -> Now {
    Now { boot: Boot(boot), wall: Timestamp::from_millisecond(1_800_000_000_000 + wall).unwrap() }
}

const START: (u64, i64) = (1_000_000, 0);

fn start() -> Now {
    now(START.0, START.1)
}

fn claim(prefix: &str, holder: Holder, until: Boot) -> Claim {
    Claim {
        prefix: parse_prefix(prefix).unwrap(),
        holder,
        until,
        ports: Vec::new(),
        derived: false,
    }
}

fn jail(name: &str) -> Holder {
    Holder::Jail(name.into())
}

fn numbered(number: u32) -> Claim {
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
    claim(&address.to_string(), jail("sshd"), Boot(START.0 + 60_000))
}

fn offence(claim: &Claim, lines: &[&[u8]]) -> Offence {
    Offence {
        prefix: claim.prefix,
        address: claim.prefix,
        duration: None,
        ports: Vec::new(),
        evidence: lines.iter().map(|line| (*line).into()).collect(),
        fields: BTreeMap::new(),
        time: start().wall,
        failures: 3,
    }
}

fn position(offset: u64) -> Position {
    Position::File {
        files: vec![Checkpoint {
            dev: 1,
            ino: 2,
            offset,
            head: 3,
            head_len: 4,
            last: 5,
            last_len: 6,
            copy: false,
            rotated: false,
        }],
    }
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("state.sqlite")
}

fn durable(store: &mut Store) -> bool {
    store.barrier().blocking_recv().is_ok()
}

/// Waits until the store reaches the disk again; it tries once a second.
fn recovered(store: &mut Store) {
    for _ in 0..1000 {
        if durable(store) && store.state().is_sound() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the store has not recovered: {}", store.state());
}

fn all(store: &mut Store, now: Now) -> Vec<Claim> {
    let mut claims = Vec::new();
    store.load(now, |claim| claims.push(claim));
    claims
}

fn loaded(path: &Path, now: Now) -> Vec<Claim> {
    let mut store = Store::open(path).unwrap();
    let mut claims = all(&mut store, now);
    store.close();
    claims.sort_by_key(|claim| (claim.prefix, claim.holder.clone(), claim.ports.clone()));
    claims
}

#[test]
fn everything_comes_back() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    let ports = [parse_ports("tcp/22,80").unwrap(), parse_ports("udp/1000-2000").unwrap()].concat();
    let claims = [
        claim("192.0.2.1", jail("a"), Boot(START.0 + 5000)),
        claim("192.0.2.1", jail("b"), Boot::NEVER),
        Claim { ports, ..claim("192.0.2.0/24", Holder::Manual, Boot(START.0 + 7000)) },
        claim("2001:db8::/64", jail("a"), Boot(START.0 + 1)),
    ];
    let given = offence(&claims[0], &[b"one \x1b[31m", b"two \xff"]);
    for claim in &claims {
        store.claim(claim, Some(&given), start());
    }
    store.claim(&claims[0], None, start());
    store.manual(&claims[2], Some("a whim"), start());
    let count = Count { failures: 2, first: 5, last: start().wall.as_millisecond() };
    let counted = |number, count| ((Arc::from("a"), numbered(number).prefix), count);
    let log = Arc::from("/var/log/auth.log");
    store.positions().handled(Some(("/var/log/gone.log".into(), Some(position(5)))), []);
    store
        .positions()
        .handled(Some((Arc::clone(&log), Some(position(6)))), vec![counted(1, Some(count))]);
    store
        .positions()
        .handled(Some((log, Some(position(7)))), vec![counted(1, None), counted(2, Some(count))]);
    store.positions().handled(Some(("/var/log/gone.log".into(), None)), []);
    let let_go = [(Some(numbered(9).prefix), Some(jail("a"))), (None, Some(jail("b")))];
    for unbanned in let_go.clone() {
        store.mark_unban(unbanned, start().wall);
    }
    assert!(durable(&mut store));
    store.close();

    let mut store = Store::open(&path).unwrap();
    let mut back = Vec::new();
    let Loaded { counts, unban_marks, complete } =
        store.load(now(START.0 + 900, 900), |claim| back.push(claim));
    assert!(complete);
    back.sort_by_key(|claim| (claim.prefix, claim.holder.clone()));
    let mut expected = claims.to_vec();
    expected.sort_by_key(|claim| (claim.prefix, claim.holder.clone()));
    assert_eq!(back, expected);
    let positions = store.positions().known();
    assert_eq!(positions["/var/log/auth.log"], position(7));
    assert_eq!(positions.len(), 1, "{positions:?}");
    assert_eq!(counts[&Arc::from("a")], [(numbered(2).prefix, count)]);
    let mut expected = UnbanMarks::default();
    let_go.into_iter().for_each(|unbanned| expected.insert(unbanned, start().wall, None));
    assert_eq!(unban_marks, expected);
    let evidence = store.evidence(claims[0].prefix);
    assert_eq!(evidence.len(), 2);
    assert_eq!((&evidence[0].holder, evidence[0].failures), (&jail("a"), 3));
    assert_eq!(evidence[0].lines, [b"one \x1b[31m".to_vec(), b"two \xff".to_vec()]);
    assert_eq!(store.evidence(claims[2].prefix)[0].reason.as_deref(), Some("a whim"));
    assert_eq!(store.former_bans(claims[0].prefix, "a", false, start()), 1);
    assert_eq!(store.former_bans(claims[0].prefix, "c", false, start()), 0);
    assert_eq!(store.history(claims[0].prefix), 2);
    store.close();
}

#[test]
fn what_was_released_is_not_resurrected() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    for number in 0..10 {
        store.claim(&numbered(number), None, start());
    }
    assert!(durable(&mut store));
    for number in 0..9 {
        store.release(&numbered(number));
    }
    store.release(&numbered(10));
    store.claim(&numbered(10), None, start());
    store.claim(&numbered(11), None, start());
    store.release(&numbered(11));
    assert!(durable(&mut store));
    // Read beside the running store: nothing waits for its end.
    let mut other = Store::open(&path).unwrap();
    let mut prefixes: Vec<IpNet> = all(&mut other, start()).iter().map(|c| c.prefix).collect();
    prefixes.sort_unstable();
    assert_eq!(prefixes, [numbered(9).prefix, numbered(10).prefix]);
    other.close();
    store.close();
}

#[test]
fn what_the_ledger_ends_is_what_was_recorded() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let ports = parse_ports("tcp/443,80,80").unwrap();
    let given = Claim { ports, ..claim("192.0.2.1", jail("a"), Boot(START.0 + 5)) };
    let (mut ledger, mut plan) = (Ledger::new(9), Plan::default());
    ledger.claim(&given, false, start().boot, &mut plan);
    ledger.expire(given.until, &mut plan);
    let mut store = Store::open(&path).unwrap();
    store.claim(&given, None, start());
    assert!(durable(&mut store));
    store.release(&plan.ended[0].claim);
    store.close();
    assert_eq!(loaded(&path, start()), []);
}

#[test]
fn what_fail2ban_remembered_lengthens_our_bans() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&file(&directory)).unwrap();
    let prefix = parse_prefix("192.0.2.1").unwrap();
    let former = Former {
        prefix,
        jail: "sshd".to_owned(),
        at: start().wall,
        until: None,
        bans: 4,
        times: Vec::new(),
        failures: 5,
        lines: vec!["one".to_owned(), "two".to_owned()],
    };
    let recall = store.recall();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let unknown = |bans| {
        let former = Former { bans, ..former.clone() };
        let other = Former { jail: "manual".to_owned(), ..former.clone() };
        let left = runtime.block_on(recall.unknown(vec![former, other])).unwrap();
        left.iter().map(|former| former.bans).collect::<Vec<_>>()
    };
    assert_eq!(unknown(4), [4, 4]);
    store.former(&former);
    assert!(durable(&mut store));
    assert_eq!((unknown(4), unknown(6)), (vec![0, 4], vec![2, 6]));
    assert_eq!(store.former_bans(prefix, "sshd", false, start()), 4);
    let evidence = &store.evidence(prefix)[0];
    assert_eq!((evidence.failures, evidence.lines.len()), (5, 2));
    store.close();
}

#[test]
fn a_stepped_clock_moves_nothing_within_a_boot() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    store.claim(&claim("192.0.2.1", jail("a"), Boot(START.0 + 60_000)), None, start());
    store.close();
    // Ten seconds later, but the wall clock was set a day back.
    let claims = loaded(&path, now(START.0 + 10_000, -86_400_000));
    assert_eq!(claims[0].until, Boot(START.0 + 60_000));
}

#[test]
fn after_a_reboot_wall_time_counts() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    store.claim(&claim("192.0.2.1", jail("a"), Boot(START.0 + 60_000)), None, start());
    store.claim(&claim("192.0.2.2", jail("a"), Boot::NEVER), None, start());
    store.claim(&claim("192.0.2.3", jail("a"), Boot(START.0 + 1000)), None, start());
    store.close();
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE boots SET boot_id = 'another'", []).unwrap();
    drop(db);
    // The machine was up for 5 s when it is read, 20 s after it was written.
    let ends: Vec<Boot> = loaded(&path, now(5000, 20_000)).iter().map(|c| c.until).collect();
    assert_eq!(ends, [Boot(45_000), Boot::NEVER, Boot(0)]);
}

#[test]
fn a_file_that_is_not_ours_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    Connection::open(&path).unwrap().execute("CREATE TABLE bips (ip TEXT)", []).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Foreign(_))));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_later_versions_file_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    Store::open(&path).unwrap().close();
    let later = Connection::open(&path).unwrap();
    later.execute_batch("CREATE TABLE later (x); PRAGMA user_version = 99").unwrap();
    drop(later);
    assert!(matches!(Store::open(&path), Err(Error::Newer { found: 99, .. })));
}

#[test]
fn a_damaged_number_is_told_from_a_later_version() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    store.claim(&numbered(1), None, start());
    store.close();
    for damage in [
        "PRAGMA user_version = 99",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -5",
        "PRAGMA application_id = 7",
        "PRAGMA application_id = 7; PRAGMA user_version = 1",
    ] {
        Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        assert_eq!(loaded(&path, start()), [numbered(1)], "{damage}");
        let number = |name| {
            let db = Connection::open(&path).unwrap();
            db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!((number("user_version"), number("application_id")), (6, 0x6261_6e31));
    }
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let directory = TempDir::new().unwrap();
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [folder, fifo, socket] {
        assert!(matches!(Store::open(&path), Err(Error::NotAFile(_))), "{}", path.display());
    }
}

#[test]
fn nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new/state.sqlite");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut store = Store::open(&path).unwrap();
    store.claim(&numbered(1), None, start());
    assert!(durable(&mut store));
    let wal = directory.path().join("new/state.sqlite-wal");
    assert_eq!([mode(path.parent().unwrap()), mode(&path), mode(&wal)], [0o700, 0o600, 0o600]);
    store.close();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    Store::open(&path).unwrap().close();
    assert_eq!(mode(&path), 0o600, "as an earlier version made it");
}

#[test]
fn junk_in_the_files_place_is_kept_aside() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let mut store = Store::open(&path).unwrap();
    assert!(store.state().is_sound() && !store.load(start(), |_| {}).complete);
    store.claim(&numbered(1), None, start());
    assert!(durable(&mut store));
    store.close();
    assert_eq!(loaded(&path, start()), [numbered(1)]);
    let kept: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".corrupt-"))
        .collect();
    assert_eq!(fs::read(&kept[0]).unwrap(), vec![b'x'; 10_000]);
}

#[test]
fn what_can_be_read_of_a_corrupt_file_is_saved() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    for number in 0..5000 {
        store.claim(&numbered(number), None, start());
    }
    store.close();
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    let disk = fs::OpenOptions::new().write(true).open(&path).unwrap();
    disk.write_all_at(&[0xee; 4096], (pages - pages / 4) * 4096).unwrap();
    drop(disk);

    let mut store = Store::open(&path).unwrap();
    let saved = all(&mut store, start());
    assert!(!saved.is_empty() && saved.len() < 5000, "{}", saved.len());
    durable(&mut store);
    assert!(store.wants_snapshot());
    store.snapshot(saved.iter().cloned(), start());
    store.claim(&numbered(9999), None, start());
    recovered(&mut store);
    assert!(!store.wants_snapshot());
    store.close();
    assert_eq!(loaded(&path, start()).len(), saved.len() + 1);
}

#[test]
fn a_file_that_was_removed_is_made_anew_from_a_snapshot() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    store.claim(&numbered(1), None, start());
    assert!(durable(&mut store));
    fs::remove_file(&path).unwrap();
    let _ = fs::remove_file(directory.path().join("state.sqlite-wal"));
    store.claim(&numbered(2), None, start());
    durable(&mut store);
    assert!(store.wants_snapshot() && !store.state().is_sound());
    let at = position(9);
    store.positions().restore([("log".into(), at.clone())].into());
    let claims = [numbered(1), numbered(2)];
    store.snapshot(claims.iter().cloned(), start());
    recovered(&mut store);
    store.close();
    let mut store = Store::open(&path).unwrap();
    store.load(start(), |_| {});
    let positions = store.positions().known();
    assert_eq!((all(&mut store, start()).len(), &positions["log"]), (2, &at));
    store.close();
}

#[test]
fn a_locked_file_holds_nobody_up() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    assert!(durable(&mut store));
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.claim(&numbered(1), Some(&offence(&numbered(1), &[b"line"])), start());
    assert!(!durable(&mut store));
    assert!(store.state().to_string().contains("locked"), "{}", store.state());
    other.execute_batch("ROLLBACK").unwrap();
    recovered(&mut store);
    assert_eq!(store.history(numbered(1).prefix), 1);
    store.close();
    assert_eq!(loaded(&path, start()), [numbered(1)]);
}

/// What is told of the past is what was on record before this ban, though it is read later, and the
/// disk holds nobody up who asks for it.
#[test]
fn the_past_is_told_before_what_follows_is_written() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&file(&directory)).unwrap();
    let claim = numbered(1);
    store.claim(&claim, Some(&offence(&claim, &[b"first"])), start());
    assert!(durable(&mut store));
    let shared = Arc::clone(&store.shared);
    let hangs = shared.hang.lock().unwrap();
    let past = store.past(claim.prefix);
    store.claim(&claim, Some(&offence(&claim, &[b"second"])), start());
    assert_eq!(past.get(), None);
    drop(hangs);
    assert!(durable(&mut store));
    let lines = |evidence: &Evidence| evidence.lines.clone();
    assert_eq!(past.get().unwrap().iter().map(lines).collect::<Vec<_>>(), [[b"first".to_vec()]]);
    assert_eq!(store.evidence(claim.prefix)[0].lines, [b"second".to_vec()]);
    // more than may wait
    let hangs = shared.hang.lock().unwrap();
    let pasts: Vec<Past> = (0..20_000).map(|_| store.past(claim.prefix)).collect();
    drop(hangs);
    assert!(durable(&mut store));
    assert!(pasts.iter().any(|past| past.get().is_some()) && store.lost() > 0);
    store.close();
}

#[test]
fn a_disk_that_hangs_holds_nobody_up_who_asks() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&file(&directory)).unwrap();
    let claim = numbered(1);
    store.claim(&claim, Some(&offence(&claim, &[b"line"])), start());
    assert!(durable(&mut store));
    let bans = |store: &Store| store.former_bans(claim.prefix, "sshd", false, start());
    assert_eq!(bans(&store), 1);
    let (end, ended) = mpsc::channel::<()>();
    assert_eq!(store.ask(move |_| ended.recv()), None, "not answered");
    assert_eq!((bans(&store), store.evidence(claim.prefix)), (1, Vec::new()), "not asked");
    drop(end);
    while store.evidence(claim.prefix).is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    store.close();
}

#[test]
fn a_disk_that_hangs_does_not_keep_the_agent_from_ending() {
    let directory = TempDir::new().unwrap();
    let mut store = Store::open(&file(&directory)).unwrap();
    let (end, ended) = mpsc::channel::<()>();
    assert_eq!(store.ask(move |_| ended.recv()), None, "not answered");
    store.claim(&numbered(1), None, start());
    store.close();
    drop(end);
    assert_eq!(loaded(&file(&directory), start()), [numbered(1)]);
}

#[test]
fn old_entries_go_and_the_file_shrinks() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    let line = [b'x'; 500];
    for number in 0..3000 {
        let claim = numbered(number);
        let old = Offence { time: Timestamp::UNIX_EPOCH, ..offence(&claim, &[&line, &line]) };
        store.claim(&claim, Some(&old), start());
        if number > 0 {
            store.release(&claim);
        }
        assert!(number % 1000 > 0 || durable(&mut store));
    }
    store.close();
    let before = fs::metadata(&path).unwrap().len();
    let mut store = Store::open(&path).unwrap();
    store.set_purge_age(Duration::MAX);
    store.release(&numbered(1));
    // a commit purges once it has been told of
    assert!(durable(&mut store) && durable(&mut store));
    assert_eq!(store.history(numbered(1).prefix), 1, "young enough");
    store.set_purge_age(Duration::ZERO);
    store.release(&numbered(1));
    assert!(durable(&mut store) && durable(&mut store));
    assert_eq!(store.history(numbered(0).prefix), 1, "a claim still rests on it");
    assert_eq!(store.history(numbered(1).prefix), 0);
    store.close();
    let after = fs::metadata(&path).unwrap().len();
    assert!(before > 3_000_000 && after < before / 10, "{before} {after}");
}

#[test]
fn a_disk_that_hangs_under_a_flood_costs_bounded_memory_and_no_ban() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    store.set_max_bans(1000);
    store.claim(&numbered(0), None, start());
    assert!(durable(&mut store));
    let shared = Arc::clone(&store.shared);
    let hang = shared.hang.lock().unwrap();
    let line = [b'x'; 500];
    let mut told = Vec::new();
    // many more than may wait; all but the last thousand end again
    for number in 1..=150_000 {
        let claim = numbered(number);
        store.claim(&claim, Some(&offence(&claim, &[&line[..]; 10])), start());
        if number > 1000 {
            store.release(&numbered(number - 1000));
        }
        store.mark_unban((Some(claim.prefix), None), start().wall);
        store
            .positions()
            .handled([(number.to_string().as_str().into(), Some(position(number.into())))], []);
        told.push(store.barrier());
    }
    assert!(store.wants_snapshot() && !store.state().is_sound());
    let [claims, lines, positions, barriers, unban_marks] = store.queue.sizes();
    assert!(claims <= pending::MIN_CLAIMS, "{claims} claims wait");
    assert!(lines <= pending::MAX_LINES, "{lines} bytes of evidence wait");
    assert!(positions <= pending::MAX_POSITIONS, "{positions} positions wait");
    assert!(barriers <= pending::MAX_BARRIERS && unban_marks <= pending::MAX_GROUNDS);
    assert!(store.lost() > 0);
    let live = || (149_001..=150_000).chain([0]).map(numbered);
    store.snapshot(live(), start());
    // and one more, which used to take the others with it
    store.claim(&numbered(150_001), None, start());
    let last = store.barrier();
    drop(hang);
    assert!(last.blocking_recv().is_ok());
    recovered(&mut store);
    let told = told.into_iter().filter_map(|told| told.blocking_recv().ok()).count();
    assert!(told < 1000, "{told} were told that what was given up is on disk");
    store.close();
    let mut expected: Vec<Claim> = live().chain([numbered(150_001)]).collect();
    expected.sort_by_key(|claim| claim.prefix);
    assert_eq!(loaded(&path, start()), expected);
}

#[test]
fn a_disk_that_hangs_at_the_end_is_left_behind() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    assert!(durable(&mut store));
    let (shared, queue) = (Arc::clone(&store.shared), Arc::clone(&store.queue));
    let hang = shared.hang.lock().unwrap();
    store.claim(&numbered(1), None, start());
    // within its patience: the test would not end otherwise
    store.close();
    assert!(shared.state().to_string().contains("does not answer"), "{}", shared.state());
    drop(hang);
    while Arc::strong_count(&queue) > 1 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(loaded(&path, start()), [numbered(1)], "written when it answered at last");
}

/// An agent that ends as soon as the disk answers must not be taken for one that recorded all.
#[test]
fn all_is_well_once_what_was_decided_meanwhile_is_written() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    assert!(durable(&mut store));
    let seen = Arc::new(Mutex::new(None));
    let (sink, queue) = (Arc::clone(&seen), Arc::clone(&store.queue));
    store.watch(move |state| {
        if state.is_sound() {
            *sink.lock().unwrap() = Some(queue.sizes()[0]);
        }
    });
    let shared = Arc::clone(&store.shared);
    let hang = shared.hang.lock().unwrap();
    store.claim(&numbered(1), None, start());
    while !shared.give_up() {
        thread::sleep(Duration::from_millis(1));
    }
    store.claim(&numbered(2), None, start());
    drop(hang);
    while !shared.state().is_sound() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(*seen.lock().unwrap(), Some(0), "claims that wait when all is said to be well");
    store.close();
    assert_eq!(loaded(&path, start()).len(), 2);
}

/// Whatever is recorded, and whenever a commit fails: what a barrier vouches for is on disk.
#[test]
fn a_barrier_vouches_for_everything_before_it() {
    let directory = TempDir::new().unwrap();
    let mut disk = Database::open(&file(&directory)).unwrap();
    let (mut seed, mut vouched, mut overflows) = (7_u64, 0, 0);
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut pending = pending::Pending::default();
    pending.set_max_claims(20);
    let mut ledger: BTreeMap<u32, i64> = BTreeMap::new();
    let mut record = |pending: &mut pending::Pending, ledger: &mut BTreeMap<u32, i64>| {
        let number = u32::try_from(random(60)).unwrap();
        let key = Key::of(&numbered(number));
        match random(20) {
            0 if pending.is_overflowed() || random(5) == 0 => {
                let claims = ledger.iter().map(|(number, until)| {
                    let span = Span { since: 0, until: Some(*until), boot_until: None };
                    (Key::of(&numbered(*number)), span)
                });
                pending.begin_gathering();
                pending.gather(claims.collect());
                pending.replace(HashMap::new());
            }
            0..12 => {
                let until = i64::try_from(random(1000)).unwrap();
                ledger.insert(number, until);
                pending.claim(key, Some(Span { since: 0, until: Some(until), boot_until: None }));
            }
            _ => {
                ledger.remove(&number);
                pending.claim(key, None);
            }
        }
        random(4) == 0
    };
    for round in 0..3000 {
        for _ in 0..round % 40 {
            record(&mut pending, &mut ledger);
        }
        let (tell, mut told) = oneshot::channel();
        pending.barrier(tell);
        overflows += u32::from(pending.is_overflowed());
        let then = ledger.clone();
        let taken = pending.take();
        let mut fails = false;
        for _ in 0..round % 7 {
            fails |= record(&mut pending, &mut ledger);
        }
        if fails {
            let mut taken = taken;
            taken.absorb(pending.take());
            taken.failed();
            pending = taken;
            assert!(told.try_recv().is_err());
            continue;
        }
        taken.write(&mut disk.connection, disk.boot, &|| ()).unwrap();
        taken.tell();
        if told.try_recv().is_ok() {
            vouched += 1;
            let mut rows = disk.connection.prepare("SELECT prefix, until FROM claims").unwrap();
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            let rows: BTreeMap<String, i64> = rows.map(Result::unwrap).collect();
            let expected =
                then.iter().map(|(number, until)| (numbered(*number).prefix.to_string(), *until));
            assert_eq!(rows, expected.collect(), "round {round}");
        }
    }
    println!("{vouched} barriers, {overflows} overflows");
    assert!(vouched > 300 && overflows > 100, "{vouched} barriers, {overflows} overflows");
}

#[test]
fn a_burst_is_committed_in_groups() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory);
    let mut store = Store::open(&path).unwrap();
    for number in 0..100_000 {
        let claim = numbered(number);
        store.claim(&claim, Some(&offence(&claim, &[b"line"])), start());
    }
    assert!(durable(&mut store));
    let commits = store.shared.commits.load(Ordering::Relaxed);
    assert!(commits < 1000, "{commits} commits");
    store.close();
    let db = Connection::open(&path).unwrap();
    let count: u32 = db
        .query_row("SELECT count(*) FROM claims WHERE until > ?1", params![0], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 100_000);
}

/// A file system of 1 MiB, gone with the value.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(test: &str) -> Option<SmallDisk> {
        let directory = TempDir::new().unwrap();
        let disk = SmallDisk(directory);
        if disk.mounted(&["-t", "tmpfs", "-o", "size=1m", "ban-agent-test"]) {
            return Some(disk);
        }
        println!("SKIPPED {test}: mounting a tmpfs needs root");
        None
    }

    fn mounted(&self, arguments: &[&str]) -> bool {
        let mount = Command::new("mount").args(arguments).arg(self.0.path()).output();
        mount.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::mount("a_full_disk_loses_nothing") else { return };
    let path = disk.0.path().join("state.sqlite");
    let mut store = Store::open(&path).unwrap();
    store.claim(&numbered(0), None, start());
    assert!(durable(&mut store));
    let ballast = disk.0.path().join("ballast");
    let _ = fs::write(&ballast, vec![0; 2 << 20]);
    for number in 1..2000 {
        store.claim(&numbered(number), None, start());
    }
    store.release(&numbered(0));
    assert!(!durable(&mut store));
    assert!(!store.state().is_sound());
    fs::remove_file(&ballast).unwrap();
    recovered(&mut store);
    store.close();
    let claims = loaded(&path, start());
    assert_eq!((claims.len(), claims[0].prefix), (1999, numbered(1).prefix));
}

#[test]
fn a_disk_full_at_the_start_is_read_and_waited_for() {
    let Some(disk) = SmallDisk::mount("a_disk_full_at_the_start_is_read_and_waited_for") else {
        return;
    };
    let path = disk.0.path().join("state.sqlite");
    let mut store = Store::open(&path).unwrap();
    store.claim(&numbered(1), None, start());
    store.close();
    let ballast = disk.0.path().join("ballast");
    let _ = fs::write(&ballast, vec![0; 2 << 20]);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(all(&mut store, start()), [numbered(1)]);
    store.claim(&numbered(2), None, start());
    durable(&mut store);
    fs::remove_file(&ballast).unwrap();
    recovered(&mut store);
    store.close();
    assert_eq!(loaded(&path, start()), [numbered(1), numbered(2)]);
}

#[test]
fn what_a_crash_left_in_the_log_is_read_on_a_full_disk() {
    let test = "what_a_crash_left_in_the_log_is_read_on_a_full_disk";
    let Some(disk) = SmallDisk::mount(test) else { return };
    let (from, path) = (TempDir::new().unwrap(), disk.0.path().join("state.sqlite"));
    let original = from.path().join("state.sqlite");
    let mut store = Store::open(&original).unwrap();
    for number in 1..400 {
        store.claim(&numbered(number), None, start());
    }
    assert!(durable(&mut store));
    // as kill -9 leaves it: most of it is in the log
    let log = |path: &Path| path.with_extension("sqlite-wal");
    fs::copy(&original, &path).unwrap();
    assert!(fs::copy(log(&original), log(&path)).unwrap() > 0);
    store.close();
    let ballast = disk.0.path().join("ballast");
    let _ = fs::write(&ballast, vec![0; 2 << 20]);
    let mut store = Store::open(&path).unwrap();
    assert!(!store.state().is_sound());
    assert_eq!(all(&mut store, start()).len(), 399);
    store.release(&numbered(1));
    durable(&mut store);
    fs::remove_file(&ballast).unwrap();
    recovered(&mut store);
    store.close();
    assert_eq!(loaded(&path, start()).len(), 398);
}

#[test]
fn a_disk_that_turns_read_only_is_waited_for() {
    let Some(disk) = SmallDisk::mount("a_disk_that_turns_read_only_is_waited_for") else { return };
    let path = disk.0.path().join("state.sqlite");
    let mut store = Store::open(&path).unwrap();
    store.claim(&numbered(1), None, start());
    store.close();
    assert!(disk.mounted(&["-o", "remount,ro"]));
    let mut store = Store::open(&path).unwrap();
    assert!(!store.state().is_sound());
    assert_eq!(all(&mut store, start()), [numbered(1)]);
    store.claim(&numbered(2), None, start());
    assert!(!durable(&mut store));
    assert!(disk.mounted(&["-o", "remount,rw"]));
    recovered(&mut store);
    store.close();
    assert_eq!(loaded(&path, start()), [numbered(1), numbered(2)]);
}

/// What the engine has not decided when it ends is read again, though nobody holds it any more.
#[test]
fn nothing_counts_as_handled_after_the_end() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(&file(&directory)).unwrap();
    let positions = store.positions().clone();
    let handled = |offset| positions.handled([("log".into(), Some(position(offset)))], []);
    handled(1);
    let closing = store.positions().closing();
    handled(2);
    drop(closing);
    handled(3);
    assert_eq!(positions.known()["log"], position(2));
}
