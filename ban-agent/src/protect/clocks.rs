//! The time servers that this host uses now, where its files give names: asked of the daemon that
//! keeps the time, and else looked up. On a thread of its own: a name server may take its time.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use super::{Servers, ntpd, openntpd, servers};

/// How often: chronyd asks its servers no more often (chrony.conf(5), minpoll).
const PERIOD: Duration = Duration::from_secs(64);
/// Names are looked up in every so manieth round: fail2ban's five minutes.
const NAMES: u32 = 5;
/// How long a daemon of this host may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Sources that chronyd is asked for; it rarely has more than ten.
const MAX_SOURCES: u32 = 64;

/// Where chronyd answers (chrony.conf(5), cmdport).
const CHRONYD: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 323),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 323),
];
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// The servers in use.
pub(super) type InUse = Arc<Mutex<BTreeSet<IpAddr>>>;

/// Looks for them, if they are wanted, until `found` is dropped; `changed` hears of every change.
pub(super) fn start(
    root: &'static str,
    wanted: Arc<Mutex<Servers>>,
    found: &InUse,
    changed: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let found = Arc::downgrade(found);
    let look = move || {
        let mut named = BTreeSet::new();
        for round in 0.. {
            let mut now = BTreeSet::new();
            if wanted.lock().unwrap_or_else(PoisonError::into_inner).time_servers {
                if round % NAMES == 0 {
                    look_up(&mut named, &servers::time_names(root.as_ref()));
                }
                now.extend(&named);
                now.extend(CHRONYD.iter().filter_map(|daemon| chrony(*daemon).ok()).flatten());
                now.extend(ntpd::NTPD.iter().filter_map(|at| ntpd::sources(*at).ok()).flatten());
                let sockets = openntpd::SOCKETS.iter().map(Path::new);
                now.extend(sockets.filter_map(|at| openntpd::sources(at).ok()).flatten());
                now.extend(timesyncd(SYSTEM_BUS.as_ref()).ok().flatten());
            }
            let Some(found) = Weak::upgrade(&found) else { return };
            let mut known = found.lock().unwrap_or_else(PoisonError::into_inner);
            let differs = *known != now;
            *known = now;
            drop(known);
            drop(found);
            if differs {
                changed();
            }
            thread::sleep(PERIOD);
        }
    };
    thread::Builder::new().name("clocks".to_owned()).spawn(look).map(drop)
}

/// Who cannot be looked up keeps the addresses that he had, as long as any can be.
fn look_up(known: &mut BTreeSet<IpAddr>, names: &BTreeSet<String>) {
    let mut found = BTreeSet::new();
    for name in names {
        match (name.as_str(), 0).to_socket_addrs() {
            Ok(addresses) => found.extend(addresses.map(|address| address.ip().to_canonical())),
            Err(error) => log::debug!("the time server {name} is not looked up: {error}"),
        }
    }
    if !found.is_empty() || names.is_empty() {
        *known = found;
    }
}

/// Returns the sources of chronyd (its candm.h, protocol version 6): how many, then one by one.
fn chrony(daemon: SocketAddr) -> io::Result<Vec<IpAddr>> {
    const N_SOURCES: u16 = 14;
    const SOURCE_DATA: u16 = 15;
    let here: IpAddr =
        if daemon.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((here, 0))?;
    socket.connect(daemon)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let ask = |command: u16, sequence: u32, argument: u32| -> io::Result<Vec<u8>> {
        // a request has to be as long as its answer; none of these is longer
        let mut request = vec![0; 256];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = request.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &[6, 1]);
        put(4, &command.to_be_bytes());
        put(8, &sequence.to_be_bytes());
        put(20, &argument.to_be_bytes());
        socket.send(&request)?;
        let mut answer = vec![0; 1024];
        let size = socket.recv(&mut answer)?;
        answer.truncate(size);
        let status = answer.get(8..10);
        let good = answer.get(..2) == Some(&[6, 2]) && status == Some(&[0, 0]);
        let ours = answer.get(16..20) == Some(&sequence.to_be_bytes());
        if good && ours { Ok(answer.split_off(28.min(size))) } else { Err(odd()) }
    };
    let count = ask(N_SOURCES, 1, 0)?;
    let count = u32::from_be_bytes(count.first_chunk().copied().ok_or_else(odd)?);
    let mut found = Vec::new();
    for index in 0..count.min(MAX_SOURCES) {
        let source = ask(SOURCE_DATA, 2 + index, index)?;
        let family = source.get(16..18).ok_or_else(odd)?;
        // a source whose name is not known yet has none of both
        let length = match family {
            [0, 1] => 4,
            [0, 2] => 16,
            _ => continue,
        };
        found.extend(source.get(..length).and_then(address));
    }
    Ok(found)
}

/// Returns the server of systemd-timesyncd (org.freedesktop.timesync1(5), ServerAddress), by D-Bus.
/// It is not started for that.
fn timesyncd(bus: &Path) -> io::Result<Option<IpAddr>> {
    let mut bus = UnixStream::connect(bus)?;
    bus.set_read_timeout(Some(PATIENCE))?;
    bus.set_write_timeout(Some(PATIENCE))?;
    let user: String = rustix::process::geteuid()
        .as_raw()
        .to_string()
        .bytes()
        .map(|digit| format!("{digit:02x}"))
        .collect();
    bus.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
    let mut answer = [0; 128];
    let size = bus.read(&mut answer)?;
    if !answer.get(..size).is_some_and(|answer| answer.starts_with(b"OK ")) {
        return Err(odd());
    }
    bus.write_all(b"BEGIN\r\n")?;
    let this = "org.freedesktop.DBus";
    bus.write_all(&call(1, this, "/org/freedesktop/DBus", this, "Hello", &[]))?;
    let words = ["org.freedesktop.timesync1.Manager", "ServerAddress"];
    let properties = "org.freedesktop.DBus.Properties";
    let path = "/org/freedesktop/timesync1";
    bus.write_all(&call(2, "org.freedesktop.timesync1", path, properties, "Get", &words))?;
    // first the answer to Hello; signals may come in between
    let mut answers = 0;
    loop {
        let (kind, body) = message(&mut bus)?;
        answers += u32::from(matches!(kind, METHOD_RETURN | ERROR));
        match (answers, kind) {
            (2, METHOD_RETURN) => return Ok(server_address(&body)),
            (1.., ERROR) => return Ok(None),
            _ => {}
        }
    }
}

const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// A method call with words as its arguments (D-Bus specification, "Message Protocol").
fn call(
    serial: u32,
    to: &str,
    path: &str,
    interface: &str,
    member: &str,
    words: &[&str],
) -> Vec<u8> {
    /// Do not start whom it is for.
    const NO_AUTO_START: u8 = 2;
    fn align(bytes: &mut Vec<u8>, to: usize) {
        bytes.resize(bytes.len().next_multiple_of(to), 0);
    }
    fn text(bytes: &mut Vec<u8>, text: &str) {
        align(bytes, 4);
        bytes.extend(u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(text.bytes());
        bytes.push(0);
    }
    let mut fields = Vec::new();
    for (code, kind, value) in
        [(1, b'o', path), (2, b's', interface), (3, b's', member), (6, b's', to)]
    {
        align(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        text(&mut fields, value);
    }
    let mut body = Vec::new();
    for word in words {
        text(&mut body, word);
    }
    if let Ok(count @ 1..) = u8::try_from(words.len()) {
        align(&mut fields, 8);
        fields.extend([8, 1, b'g', 0, count]);
        fields.extend(words.iter().map(|_| b's'));
        fields.push(0);
    }
    let mut bytes = vec![b'l', 1, NO_AUTO_START, 1];
    for number in [body.len(), usize::try_from(serial).unwrap_or(0), fields.len()] {
        bytes.extend(u32::try_from(number).unwrap_or(0).to_le_bytes());
    }
    bytes.extend(fields);
    align(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

/// Type and body of the next message.
fn message(bus: &mut UnixStream) -> io::Result<(u8, Vec<u8>)> {
    const MAX: usize = 1 << 16;
    let mut head = [0; 16];
    bus.read_exact(&mut head)?;
    let [b'l', kind, _, _, b0, b1, b2, b3, _, _, _, _, f0, f1, f2, f3] = head else {
        return Err(odd());
    };
    let number = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    let (body, fields) = (number([b0, b1, b2, b3]), number([f0, f1, f2, f3]));
    if body > MAX || fields > MAX {
        return Err(odd());
    }
    let fields = fields.next_multiple_of(8);
    let mut rest = vec![0; fields + body];
    bus.read_exact(&mut rest)?;
    Ok((kind, rest.split_off(fields)))
}

/// Returns a variant of `(iay)`: the family, and the bytes of the address; none while there is no
/// server.
fn server_address(body: &[u8]) -> Option<IpAddr> {
    let body = body.strip_prefix(b"\x05(iay)\0\0")?;
    let length = u32::from_le_bytes(*body.get(4..)?.first_chunk()?);
    address(body.get(8..8 + usize::try_from(length).ok()?)?)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::from(v6).to_canonical())
}

pub(super) fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an odd answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_looked_up_is_kept() {
        let name = |text: &str| BTreeSet::from([text.to_owned()]);
        let mut known = BTreeSet::new();
        look_up(&mut known, &name("localhost"));
        let local = known.clone();
        assert!(local.iter().any(IpAddr::is_loopback), "{local:?}");
        look_up(&mut known, &name("x.invalid"));
        assert_eq!(known, local);
        look_up(&mut known, &BTreeSet::new());
        assert!(known.is_empty());
    }

    /// What chronyd 4.3 answered that had `server 192.0.2.123`, `server 2001:db8::123` and a name that
    /// nobody knows.
    #[test]
    fn chronyd_tells_its_sources() {
        let texts = [
            "06020000000e0002000000000000000000000001000000000000000000000003",
            "06020000000f00030000000000000000000000020000000000000000c000027b000000000000000000000000\
             00010000000600000001000000000000ffffffff000000000000000000000000",
            "06020000000f000300000000000000000000000300000000000000002001\
             0db800000000000000000000012300020000000600000001000000000000ffffffff000000000000000000000000",
            "06020000000f0003000000000000000000000004000000000000000000000001000000000000000000000000\
             00030000000600000001000000000000ffffffff000000000000000000000000",
        ];
        let answers = texts.map(|text| {
            let digits = text.as_bytes().chunks(2);
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.map(byte).collect::<Vec<u8>>()
        });
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = daemon.local_addr().unwrap();
        let serving = thread::spawn(move || {
            for answer in answers {
                let (size, peer) = daemon.recv_from(&mut [0; 512]).unwrap();
                assert!(size >= answer.len());
                daemon.send_to(&answer, peer).unwrap();
            }
        });
        let found: Vec<_> = chrony(address).unwrap().iter().map(ToString::to_string).collect();
        serving.join().unwrap();
        assert_eq!(found, ["192.0.2.123", "2001:db8::123"]);
        // there is none any more
        assert!(chrony(address).is_err());
    }

    #[test]
    fn timesyncd_is_asked_over_a_real_bus() {
        let folder = tempfile::TempDir::new().unwrap();
        let socket = folder.path().join("bus");
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
             </policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let bus = std::process::Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut bus) = bus else {
            return println!("SKIPPED timesyncd over a bus: there is no dbus-daemon");
        };
        // it prints its address once it listens
        let mut said = [0; 1];
        bus.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let nobody = timesyncd(&socket);
        bus.kill().unwrap();
        bus.wait().unwrap();
        assert!(matches!(nobody, Ok(None)), "{nobody:?}");
        assert!(timesyncd(&socket).is_err());
        for (body, expected) in [
            (&b"\x05(iay)\0\0\x02\0\0\0\x04\0\0\0\xc0\0\x02\x7b"[..], Some("192.0.2.123")),
            (b"\x05(iay)\0\0\0\0\0\0\0\0\0\0", None),
            (
                b"\x05(iay)\0\0\x0a\0\0\0\x10\0\0\0\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
                Some("2001:db8::1"),
            ),
            (b"\x01s\0\0", None),
        ] {
            assert_eq!(
                server_address(body),
                expected.map(|text| text.parse().unwrap()),
                "{body:?}"
            );
        }
    }
}
