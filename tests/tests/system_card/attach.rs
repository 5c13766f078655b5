//! The program on real interfaces, in namespaces: start, swap, stop, and what gets in the way.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use ban_agent::{
    clock::{Boot, Now},
    dataplane::{self, DataPlane as _, Error, Mode, Options, Xdp, XdpMode},
    ledger::Op,
    net::parse_prefix,
};
use ban_common::Verdict;
use tests::{
    bench::{all, set},
    net::{Namespace, join},
    privilege::kernel,
    process::Pins,
    require_root,
};

const BAD: &str = "192.0.2.2";

/// An edge with two links to an attacker.
struct Stage {
    edge: Namespace,
    attacker: Namespace,
    pins: Pins,
}

impl Stage {
    fn new(name: &str) -> Stage {
        let edge = Namespace::new(&format!("k{name}e")).unwrap();
        let attacker = Namespace::new(&format!("k{name}a")).unwrap();
        join(&edge, "edge0", &attacker, "far0").unwrap();
        join(&edge, "edge1", &attacker, "far1").unwrap();
        edge.address("edge0", "192.0.2.1/24").unwrap();
        attacker.address("far0", "192.0.2.2/24").unwrap();
        let pins = Pins::new(&format!("ban-attach-{name}-{}", std::process::id()));
        Stage { edge, attacker, pins }
    }

    fn options(&self, interfaces: &[&str]) -> Options {
        Options {
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            pins: self.pins.path().to_owned(),
            max_bans: 1_024,
            ..Options::default()
        }
    }

    /// Starts inside the edge's namespace.
    fn start(&self, options: Options) -> Result<Xdp, Error> {
        inside(&self.edge, move || Xdp::start(options))
    }

    /// What `ip` says of the XDP program on a device.
    fn program_on(&self, device: &str) -> Option<u64> {
        let json = self.edge.ip(&format!("-j link show dev {device}")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json[0]["xdp"]["prog"]["id"].as_u64()
    }
}

/// Runs `work` on a thread of its own inside the namespace.
fn inside<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let path = format!("/run/netns/{}", namespace.name());
    let thread = thread::spawn(move || {
        let file = std::fs::File::open(path).unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind).unwrap();
        work()
    });
    thread.join().unwrap()
}

fn ban(xdp: &mut Xdp) {
    xdp.apply(&[set(BAD, all(Boot::NEVER))], Now::read()).unwrap();
}

#[test]
fn it_starts_stays_and_goes() {
    require_root!("attachments");
    let stage = Stage::new("life");
    let mut xdp = stage.start(stage.options(&["edge0", "edge1"])).unwrap();
    let shown: Vec<_> = xdp.interfaces().iter().map(|a| (a.name.clone(), a.mode)).collect();
    let native = Some(XdpMode::Native);
    assert_eq!(shown, [("edge0".into(), native), ("edge1".into(), native)]);
    assert!(xdp.interfaces().iter().all(|attached| attached.warnings.is_empty()));
    ban(&mut xdp);
    let ping =
        || stage.attacker.command("ping").args(["-c1", "-W1", "192.0.2.1"]).output().unwrap();
    assert!(!ping().status.success(), "banned");
    let dropped = xdp.verdicts().unwrap().of(Verdict::Drop);
    assert!(dropped.packets > 0);
    let edge0 = xdp.interfaces()[0].clone();
    assert!(xdp.verdicts_of(&edge0).unwrap().of(Verdict::Drop).packets > 0);
    let edge1 = xdp.interfaces()[1].clone();
    assert_eq!(xdp.verdicts_of(&edge1).unwrap().of(Verdict::Drop).packets, 0);

    match stage.start(stage.options(&["edge0"])) {
        Err(Error::Running { path }) => assert_eq!(path, stage.pins.path()),
        other => panic!("two agents on one set of pins: {other:?}"),
    }

    let before = stage.program_on("edge0");
    drop(xdp);
    assert_eq!(stage.program_on("edge0"), before, "it stays without the agent");
    assert!(!ping().status.success(), "banned without the agent");

    let mut xdp = stage.start(stage.options(&["edge0"])).unwrap();
    assert_ne!(stage.program_on("edge0"), before, "swapped");
    assert_eq!(stage.program_on("edge1"), None, "not configured any more");
    let held = xdp.held().unwrap();
    assert_eq!(held.len(), 1);
    assert!(held[0].hits.packets >= dropped.packets, "counters survive");
    assert!(!ping().status.success(), "still banned");

    let detached = xdp.detach().unwrap();
    assert_eq!(detached, ["edge0"]);
    assert_eq!(stage.program_on("edge0"), None);
    assert!(!stage.pins.path().exists());
    assert!(ping().status.success(), "nothing is enforced any more");
    assert_eq!(dataplane::detach(stage.pins.path()).unwrap(), Vec::<String>::new());
}

#[test]
fn it_starts_whole_or_not_at_all() {
    require_root!("failed starts");
    let stage = Stage::new("whole");
    let other = Pins::new(&format!("ban-attach-owner-{}", std::process::id()));
    let owner_options = Options { pins: other.path().to_owned(), ..stage.options(&["edge1"]) };
    let owner = stage.start(owner_options).unwrap();

    let taken = stage.start(stage.options(&["edge0", "edge1"])).unwrap_err();
    let Error::SlotTaken { interface, owner: name } = &taken else { panic!("{taken:?}") };
    assert_eq!(interface, "edge1");
    // before Linux 5.18 `ban_agent_flat`
    assert!(name.contains("'ban_agent"), "{name}");
    assert!(taken.hint().unwrap().contains("--replace"));
    assert_eq!(stage.program_on("edge0"), None, "half attached");
    assert!(!stage.pins.path().exists(), "pins are left over");

    let missing = stage.start(stage.options(&["eth98", "eth99"])).unwrap_err();
    assert!(missing.to_string().contains("'eth98'"), "{missing}");
    assert!(missing.hint().unwrap().contains("edge0"), "{:?}", missing.hint());
    assert!(!stage.pins.path().exists());

    stage.edge.ip("address del 192.0.2.1/24 dev edge0").unwrap();
    let none = stage.start(stage.options(&[])).unwrap_err();
    assert!(matches!(none, Error::NoDefaultRoute));
    assert!(!stage.pins.path().exists());
    stage.edge.address("edge0", "192.0.2.1/24").unwrap();
    stage.edge.address("edge1", "198.51.100.1/24").unwrap();
    // nobody named edge1: that it is taken does not stop the other
    let xdp = stage.start(stage.options(&[])).unwrap();
    assert_eq!(xdp.interfaces()[0].mode, Some(XdpMode::Native), "{:?}", xdp.interfaces());
    let trouble = xdp.interfaces()[1].trouble.as_ref().unwrap();
    assert!(trouble.contains("edge1: nothing is dropped"), "{trouble}");
    assert_eq!(xdp.uncovered(), ["edge1"]);
    drop(xdp);
    stage.edge.ip("address del 198.51.100.1/24 dev edge1").unwrap();

    // A failed restart leaves the earlier program in place.
    let before = stage.program_on("edge0");
    let again = stage.start(stage.options(&["edge0", "edge1"])).unwrap_err();
    assert!(matches!(again, Error::SlotTaken { .. }));
    assert_eq!(stage.program_on("edge0"), before, "swapped back");

    drop(owner);
    let replace = Options { replace: true, ..stage.options(&["edge0", "edge1"]) };
    let xdp = stage.start(replace).unwrap();
    assert_eq!(xdp.interfaces().len(), 2);
}

#[test]
fn no_bpffs_is_said() {
    require_root!("the pin path's check");
    let folder = tempfile::tempdir().unwrap();
    let options = Options { pins: folder.path().join("pins"), ..Options::default() };
    let error = Xdp::load(options).unwrap_err();
    assert!(matches!(error, Error::NoBpffs { .. }), "{error}");
    assert!(error.hint().unwrap().contains("mount -t bpf"));
    assert!(!folder.path().join("pins").exists());
}

#[test]
fn missing_capabilities_are_said() {
    require_root!("the check of capabilities");
    let pins = Pins::new(&format!("ban-attach-caps-{}", std::process::id()));
    let options = Options { pins: pins.path().to_owned(), ..Options::default() };
    // Capabilities belong to a thread: this one gives up all of them.
    let error = thread::spawn(move || {
        let none = rustix::thread::CapabilitySet::empty();
        let sets =
            rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        Xdp::load(options).unwrap_err()
    });
    let error = error.join().unwrap();
    assert!(error.is_permission(), "{error:?}");
    assert!(error.hint().unwrap().contains("CAP_BPF"));
}

#[test]
fn generic_mode_is_visible() {
    require_root!("generic mode");
    let stage = Stage::new("mode");
    // Loopback has no native XDP.
    let refused =
        stage.start(Options { mode: Mode::Native, ..stage.options(&["lo"]) }).unwrap_err();
    assert!(matches!(refused, Error::NoNative { .. }), "{refused:?}");
    let xdp = stage.start(stage.options(&["lo"])).unwrap();
    let attached = &xdp.interfaces()[0];
    assert_eq!(attached.mode, Some(XdpMode::Generic));
    assert!(attached.warnings[0].contains("generic"), "{:?}", attached.warnings);
    drop(xdp);
    let xdp = stage.start(stage.options(&["lo"])).unwrap();
    assert!(xdp.interfaces()[0].warnings[0].contains("generic"), "still visible after a restart");
}

#[test]
fn a_port_is_protected_with_a_warning() {
    require_root!("the port of a bridge");
    let stage = Stage::new("port");
    stage.edge.ip("link add br0 type bridge").unwrap();
    stage.edge.ip("link set edge0 master br0").unwrap();
    let xdp = stage.start(stage.options(&["edge0", "edge1"])).unwrap();
    let [port, other] = xdp.interfaces()[..] else { panic!("{:?}", xdp.interfaces()) };
    assert_eq!(port.mode, Some(XdpMode::Native));
    assert!(port.warnings[0].contains("edge0 is a port of the bridge br0"), "{port:?}");
    assert!(other.warnings.is_empty(), "{other:?}");
}

#[test]
fn jumbo_frames_are_dropped() {
    require_root!("jumbo frames");
    let stage = Stage::new("jumbo");
    stage.edge.ip("link set edge0 mtu 9000").unwrap();
    stage.attacker.ip("link set far0 mtu 9000").unwrap();
    let mut xdp = stage.start(stage.options(&["edge0"])).unwrap();
    // In several buffers since 5.18; before that a driver refuses, and generic mode takes over.
    let mode = if kernel() >= Some((5, 18)) { XdpMode::Native } else { XdpMode::Generic };
    assert_eq!(xdp.interfaces()[0].mode, Some(mode), "{:?}", xdp.interfaces());
    ban(&mut xdp);
    let _filled =
        stage.attacker.command("ping").args(["-c1", "-W1", "-s8900", "192.0.2.1"]).output();
    let dropped = xdp.verdicts().unwrap().of(Verdict::Drop);
    let held = xdp.held().unwrap();
    assert!(held[0].hits.bytes >= 8_900, "all buffers are counted: {:?} {dropped:?}", held[0].hits);
}

#[test]
fn no_packet_passes_while_programs_and_maps_are_swapped() {
    require_root!("the swap");
    let stage = Stage::new("swap");
    let mut xdp = stage.start(stage.options(&["edge0"])).unwrap();
    ban(&mut xdp);
    let received = inside(&stage.edge, || UdpSocket::bind("192.0.2.1:9999").unwrap());
    received.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let flood = {
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        // The neighbour is known already: what is dropped cannot answer ARP.
        let mac = mac_of(&stage.edge, "edge0");
        stage.attacker.ip(&format!("neigh replace 192.0.2.1 lladdr {mac} dev far0")).unwrap();
        let namespace = format!("/run/netns/{}", stage.attacker.name());
        thread::spawn(move || flood(&namespace, &stop, &sent))
    };
    let reached = |count: u64| {
        while sent.load(Ordering::Relaxed) < count {
            thread::yield_now();
        }
    };
    reached(1_000);
    for round in 0..8 {
        drop(xdp);
        xdp = stage.start(stage.options(&["edge0"])).unwrap();
        reached(sent.load(Ordering::Relaxed) + 100 + round);
        // and other maps under the same flood
        assert!(xdp.resize(2_048 << round).unwrap(), "maps of another size");
        assert_eq!(xdp.capacity(), 2_048 << round);
        reached(sent.load(Ordering::Relaxed) + 100 + round);
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    let total = sent.load(Ordering::Relaxed);
    let passed = received.recv_from(&mut [0; 64]);
    assert!(passed.is_err(), "a packet passed: {passed:?}");
    let dropped = xdp.held().unwrap()[0].hits.packets;
    assert!(dropped > total / 2, "{dropped} of {total} were dropped: the test saw too little");
    // The verdicts have one map all along; of a ban's count only what comes in the instant in
    // which the agent writes it may be lost.
    let counted = xdp.verdicts().unwrap().of(Verdict::Drop).packets;
    assert!(dropped > counted - counted / 100, "{dropped} of {counted} drops were carried over");
    // The other way round: without the ban the same packets arrive.
    xdp.apply(
        &[Op::Clear(BAD.parse::<Ipv4Addr>().map(|a| ban_agent::net::host(a.into())).unwrap())],
        Now::read(),
    )
    .unwrap();
    inside(&stage.attacker, || {
        UdpSocket::bind("192.0.2.2:0").unwrap().send_to(b"x", "192.0.2.1:9999").unwrap()
    });
    assert!(received.recv_from(&mut [0; 64]).is_ok(), "the socket would have seen them");
}

fn flood(namespace: &str, stop: &AtomicBool, sent: &AtomicU64) {
    let file = std::fs::File::open(Path::new(namespace)).unwrap();
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind).unwrap();
    let socket = UdpSocket::bind("192.0.2.2:0").unwrap();
    // Bounded: a test that hangs must not flood for ever.
    for _ in 0..20_000_000 {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if socket.send_to(b"flood", "192.0.2.1:9999").is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn mac_of(namespace: &Namespace, device: &str) -> String {
    let json = namespace.ip(&format!("-j link show dev {device}")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json[0]["address"].as_str().unwrap().to_owned()
}

#[test]
fn an_interface_that_comes_back_is_protected_again() {
    require_root!("interfaces that vanish");
    let stage = Stage::new("hot");
    let mut xdp = stage.start(stage.options(&["edge0"])).unwrap();
    ban(&mut xdp);
    stage.edge.ip("link del edge0").unwrap();
    let (edge, mut xdp) = (stage.edge.name().to_owned(), xdp);
    let check = move |mut xdp: Xdp| {
        let changes = xdp.check_interfaces().unwrap();
        (xdp, changes)
    };
    let changes;
    (xdp, changes) = inside(&stage.edge, move || check(xdp));
    assert_eq!(changes, ["edge0 is gone"], "in {edge}");
    assert_eq!(xdp.interfaces()[0].ifindex, 0);
    join(&stage.edge, "edge0", &stage.attacker, "far0").unwrap();
    stage.edge.address("edge0", "192.0.2.1/24").unwrap();
    stage.attacker.address("far0", "192.0.2.2/24").unwrap();
    let changes;
    (xdp, changes) = inside(&stage.edge, move || check(xdp));
    assert_eq!(changes, ["edge0 has come back and is protected"]);
    let ping = stage.attacker.command("ping").args(["-c1", "-W1", "192.0.2.1"]).output().unwrap();
    assert!(!ping.status.success(), "still banned");
    let (xdp, changes) = inside(&stage.edge, move || check(xdp));
    assert!(changes.is_empty(), "{changes:?}");
    drop(xdp);
}

#[test]
fn another_size_keeps_every_ban() {
    require_root!("the resizing of maps");
    let stage = Stage::new("size");
    let nets: Vec<_> = (0..200_u32)
        .flat_map(|n| {
            [format!("10.{n}.0.1"), format!("11.{n}.0.0/16"), format!("2001:db8:{n:x}::/64")]
        })
        .collect();
    let mut xdp = stage.start(stage.options(&["edge0"])).unwrap();
    let ops: Vec<_> = nets.iter().map(|net| set(net, all(Boot::NEVER))).collect();
    xdp.apply(&ops, Now::read()).unwrap();
    ban(&mut xdp);
    for size in [4_096, 601, 100] {
        drop(xdp);
        xdp = stage.start(Options { max_bans: size, ..stage.options(&["edge0"]) }).unwrap();
        assert_eq!(xdp.held().unwrap().len(), 601);
        assert_eq!(xdp.capacity(), size.max(601), "it does not shrink below what it holds");
        let ping = stage.attacker.command("ping").args(["-c1", "-W1", "192.0.2.1"]).output();
        assert!(!ping.unwrap().status.success(), "still banned");
    }
    let full: Vec<_> = (0..700_u32)
        .map(|n| set(&format!("12.0.{}.{}", n >> 8, n & 255), all(Boot::NEVER)))
        .collect();
    let error = xdp.apply(&full, Now::read()).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::Full { max: 601, .. })), "{error}");
}

#[test]
fn pins_of_another_version_are_refused() {
    require_root!("pins of another version");
    let stage = Stage::new("abi");
    let xdp = stage.start(stage.options(&["edge0"])).unwrap();
    drop(xdp);
    let (ours, theirs) = (stage.pins.path().join("v1"), stage.pins.path().join("v0"));
    std::fs::rename(&ours, &theirs).unwrap();
    let error = stage.start(stage.options(&["edge0"])).unwrap_err();
    assert!(matches!(&error, Error::OtherVersion { path } if *path == theirs), "{error}");
    assert!(stage.program_on("edge0").is_some(), "it stays in force");
    assert_eq!(dataplane::detach(stage.pins.path()).unwrap(), ["edge0"]);
    assert_eq!(stage.program_on("edge0"), None);
}

#[test]
fn maps_of_another_layout_are_refused_before_anything_is_attached() {
    require_root!("maps of another layout");
    let stage = Stage::new("layout");
    let version = stage.pins.path().join("v1");
    std::fs::create_dir_all(&version).unwrap();
    let stranger = version.join("ban_v4");
    let made = std::process::Command::new("bpftool")
        .args(["map", "create", stranger.to_str().unwrap(), "type", "hash", "key", "4"])
        .args(["value", "8", "entries", "1024", "name", "ban_v4"])
        .status();
    assert!(made.unwrap().success());
    let error = stage.start(stage.options(&["edge0"])).unwrap_err();
    assert!(matches!(error, Error::Layout { name: "ban_v4", value: 8, .. }), "{error}");
    assert!(error.hint().unwrap().contains("detach"));
    assert_eq!(stage.program_on("edge0"), None);
    let left: Vec<_> = std::fs::read_dir(&version).unwrap().flatten().map(|e| e.path()).collect();
    assert_eq!(left, [stranger], "only what was there before");
}

#[test]
fn one_that_fails_hides_no_other() {
    require_root!("several interfaces that come back");
    let stage = Stage::new("both");
    let other = Pins::new(&format!("ban-attach-thief-{}", std::process::id()));
    let mut xdp = stage.start(stage.options(&["edge0", "edge1"])).unwrap();
    ban(&mut xdp);
    for device in ["edge0", "edge1"] {
        stage.edge.ip(&format!("link del {device}")).unwrap();
    }
    let check = |mut xdp: Xdp| {
        inside(&stage.edge, move || {
            let changes = xdp.check_interfaces().unwrap();
            (xdp, changes)
        })
    };
    let (xdp, changes) = check(xdp);
    assert_eq!(changes, ["edge0 is gone", "edge1 is gone"]);
    join(&stage.edge, "edge0", &stage.attacker, "far0").unwrap();
    join(&stage.edge, "edge1", &stage.attacker, "far1").unwrap();
    // the first one is taken by somebody else
    let thief = Options { pins: other.path().to_owned(), ..stage.options(&["edge0"]) };
    let thief = stage.start(thief).unwrap();
    let (xdp, changes) = check(xdp);
    assert!(changes[0].contains("edge0 already runs the XDP program"), "{changes:?}");
    assert_eq!(changes[1], "edge1 has come back and is protected");
    assert!(xdp.interfaces()[0].trouble.is_some() && xdp.interfaces()[1].trouble.is_none());
    assert!(stage.program_on("edge1").is_some());
    assert_eq!(thief.detach().unwrap(), ["edge0"]);
    let (xdp, changes) = check(xdp);
    assert_eq!(changes, ["edge0 has come back and is protected"]);
    assert!(xdp.interfaces()[0].trouble.is_none(), "{:?}", xdp.interfaces());
    let (_, changes) = check(xdp);
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn a_pin_of_an_earlier_agent_is_recognized() {
    require_root!("pins by their former names");
    let stage = Stage::new("dots");
    for device in ["edge0", "edge1"] {
        stage.edge.ip(&format!("link set {device} down")).unwrap();
    }
    stage.edge.ip("link set edge0 name e.1").unwrap();
    stage.edge.ip("link set edge1 name e~1").unwrap();
    let xdp = stage.start(stage.options(&["e.1"])).unwrap();
    drop(xdp);
    let links = stage.pins.path().join("v1/links");
    std::fs::rename(links.join("e:1"), links.join("e~1")).unwrap();
    let before = stage.program_on("e.1");
    assert!(before.is_some());
    let xdp = stage.start(stage.options(&["e.1", "e~1"])).unwrap();
    let mut pins: Vec<_> =
        std::fs::read_dir(&links).unwrap().flatten().map(|entry| entry.file_name()).collect();
    pins.sort();
    assert_eq!(pins, ["e:1", "e~1"]);
    assert_ne!(stage.program_on("e.1"), before, "swapped under its own link");
    let one = stage.program_on("e~1");
    drop(xdp);
    // one of them alone: the other is released, and no other
    let xdp = stage.start(stage.options(&["e~1"])).unwrap();
    assert_eq!(stage.program_on("e.1"), None);
    assert_ne!(stage.program_on("e~1"), one);
    assert_eq!(xdp.detach().unwrap(), ["e~1"]);
}

/// The second link can take no program any more when it comes to it: the first has its former one
/// back, over maps that are written.
#[test]
fn a_resize_that_fails_half_way_leaves_all_as_it_was() {
    require_root!("a resize that fails");
    let stage = Stage::new("half");
    stage.edge.address("edge1", "198.51.100.1/24").unwrap();
    stage.attacker.address("far1", "198.51.100.2/24").unwrap();
    let pings = |to: &str| {
        let mut ping = stage.attacker.command("ping");
        ping.args(["-c1", "-W1", to]).output().unwrap().status.success()
    };
    let mut xdp = stage.start(stage.options(&["edge0", "edge1"])).unwrap();
    ban(&mut xdp);
    let before = stage.program_on("edge0");
    let link = stage.pins.path().join("v1/links/edge1");
    let mut bpftool = std::process::Command::new("bpftool");
    let detached = bpftool.args(["link", "detach", "pinned"]).arg(&link).status().unwrap();
    assert!(detached.success());
    let error = xdp.resize(4_096).unwrap_err().to_string();
    assert!(error.contains("edge1"), "{error}");
    assert_eq!((stage.program_on("edge0"), xdp.capacity()), (before, 1_024));
    assert!(!stage.pins.path().join("v1/next").exists());
    // what is written from now on is what the first interface reads
    assert!(!pings("192.0.2.1"), "still banned");
    xdp.apply(&[Op::Clear(parse_prefix(BAD).unwrap())], Now::read()).unwrap();
    assert!(pings("192.0.2.1"), "let go");
    ban(&mut xdp);
    assert!(!pings("192.0.2.1"), "banned again");
    xdp.allow(&[parse_prefix(BAD).unwrap()]).unwrap();
    assert!(pings("192.0.2.1"), "allowed");
    xdp.allow(&[]).unwrap();

    let mut xdp = inside(&stage.edge, move || {
        xdp.look().unwrap();
        xdp
    });
    assert!(xdp.resize(4_096).unwrap(), "once the link is back");
    assert_ne!(stage.program_on("edge0"), before);
    xdp.apply(&[set("198.51.100.2", all(Boot::NEVER))], Now::read()).unwrap();
    assert_eq!((pings("192.0.2.1"), pings("198.51.100.1")), (false, false), "on both");
    xdp.detach().unwrap();
}
