//! The peers of this host's TCP connections, and which of them are SSH sessions, by what the kernel
//! vouches for.
//!
//! A connection to sshd is not yet a session: an attacker who guesses passwords has one, too. And
//! any process may call itself sshd. What counts is a connection that is held by a process of
//! root's whose program is sshd, the monitor, and one of these:
//! - a child of that process, sshd as well, holds it, too, and runs under the user's own id. The
//!   child that speaks with who is not logged in yet has the id of sshd's own user (`sshd` in
//!   `/etc/passwd`; `monitor.c`, `sshd-auth.c` of OpenSSH), and commands that sshd runs for a login
//!   do not have the connection (`subprocess()` in its `misc.c`).
//! - root himself is logged in: then the monitor serves him, and says so in its title, which only
//!   root's sshd can set: `sshd: root@pts/0`, and not `sshd: root [priv]`.

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use super::tcp;

/// State of an established connection in /proc/net/tcp (`TCP_ESTABLISHED`,
/// include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// Programs that serve a session: since OpenSSH 9.8 one of its own.
const PROGRAMS: [&str; 2] = ["sshd", "sshd-session"];

/// sshd's own user, which is no session's (`SSH_PRIVSEP_USER`).
const OWN_USER: &str = "sshd:";

/// What sessions of SSH hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The inodes of their connections, and of other sockets.
    pub(super) sockets: HashSet<u64>,
    /// Root has an sshd that this process may not look into.
    pub(super) blind: bool,
}

/// As it is now.
pub(super) fn held(proc: &Path, passwd: &Path) -> Held {
    let mut found = Held::default();
    let processes = daemons(proc, &mut found.blind);
    let own_user = own_user(&fs::read_to_string(passwd).unwrap_or_default());
    for monitor in processes.iter().filter(|process| process.user == 0) {
        let sockets = sockets(&monitor.path);
        if is_session(&monitor.title) {
            found.sockets.extend(sockets);
            continue;
        }
        let served = processes.iter().filter(|process| {
            let user = process.user != 0 && Some(process.user) != own_user;
            user && process.parent == monitor.id && !process.title.ends_with(b"[net]")
        });
        for child in served {
            found.sockets.extend(self::sockets(&child.path).intersection(&sockets));
        }
    }
    found
}

/// A process whose program is sshd.
struct Daemon {
    path: PathBuf,
    id: u32,
    parent: u32,
    /// Real, effective, saved and of files: all the same.
    user: u32,
    title: Vec<u8>,
}

fn daemons(proc: &Path, blind: &mut bool) -> Vec<Daemon> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(proc) else { return found };
    for path in entries.flatten().map(|entry| entry.path()) {
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        // the name rejects early, and proves nothing
        let named = || fs::read(path.join("comm")).is_ok_and(|name| name.starts_with(b"sshd"));
        let Some(id) = id.filter(|_| named()) else { continue };
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let Some((parent, user)) = of_status(&status) else { continue };
        match fs::read_link(path.join("exe")) {
            Ok(program) if is_sshd(&program) => {}
            Ok(_) => continue,
            Err(error) => {
                *blind |= user == 0 && error.kind() == io::ErrorKind::PermissionDenied;
                continue;
            }
        }
        let mut title = fs::read(path.join("cmdline")).unwrap_or_default();
        let end = title.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |end| end + 1);
        title.truncate(end);
        found.push(Daemon { path, id, parent, user, title });
    }
    found
}

/// Parent and user, if all of its user ids are the same.
fn of_status(status: &str) -> Option<(u32, u32)> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let users: Vec<u32> =
        field("Uid:")?.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let (first, others) = users.split_first()?;
    let same = others.len() == 3 && others.iter().all(|user| user == first);
    Some((field("PPid:")?.trim().parse().ok()?, same.then_some(*first)?))
}

/// Also one whose file an upgrade has replaced.
fn is_sshd(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    PROGRAMS.contains(&name.strip_suffix(" (deleted)").unwrap_or(name))
}

fn own_user(passwd: &str) -> Option<u32> {
    let line = passwd.lines().find(|line| line.starts_with(OWN_USER))?;
    line.split(':').nth(2)?.parse().ok()
}

/// Returns whether a process title is that of a session: `sshd: USER@TTY`, or `sshd: USER` where
/// nothing but ports is asked for. All others have something in brackets: `[priv]`, `[listener]`.
fn is_session(title: &[u8]) -> bool {
    let title = String::from_utf8_lossy(title);
    let user = title.strip_prefix("sshd: ").or_else(|| title.strip_prefix("sshd-session: "));
    user.is_some_and(|user| !user.is_empty() && !user.contains('['))
}

/// Inodes of the sockets that a process holds.
fn sockets(process: &Path) -> HashSet<u64> {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return HashSet::new() };
    files.flatten().filter_map(|file| socket(&file.path())).collect()
}

/// Who is connected to this host.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// The peers of all established TCP connections but loopback's.
    pub(super) connected: HashSet<IpAddr>,
    /// Those whose connections are of `sockets`.
    pub(super) sessions: HashSet<IpAddr>,
}

/// As they are now; `sockets` were held by sessions a moment ago.
pub(super) fn clients(proc: &Path, sockets: &HashSet<u64>) -> Clients {
    let mut clients = Clients::default();
    for (peer, inode) in connections(proc) {
        if sockets.contains(&inode) {
            clients.sessions.insert(peer);
        }
        if !peer.is_loopback() {
            clients.connected.insert(peer);
        }
    }
    clients
}

/// Peer and inode of each established connection; from the text where the kernel was built
/// without sock_diag.
fn connections(proc: &Path) -> Vec<(IpAddr, u64)> {
    tcp::established().unwrap_or_else(|error| {
        log::debug!("{error}; reading /proc/net/tcp");
        listed(proc)
    })
}

fn listed(proc: &Path) -> Vec<(IpAddr, u64)> {
    let tables = ["net/tcp", "net/tcp6"].map(|table| {
        let text = fs::read_to_string(proc.join(table)).unwrap_or_default();
        text.lines().skip(1).filter_map(connection).collect::<Vec<_>>()
    });
    tables.concat()
}

/// Returns the inode in `socket:[INODE]`.
fn socket(file: &Path) -> Option<u64> {
    let target = fs::read_link(file).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Peer and inode of an established connection, from a line of /proc/net/tcp or tcp6
/// (Documentation/networking/proc_net_tcp.rst).
fn connection(line: &str) -> Option<(IpAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (peer, state) = (fields.nth(2)?, fields.next()?);
    if state != ESTABLISHED {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some((address(peer.split_once(':')?.0)?, inode))
}

/// Words of the address in the machine's byte order, in hexadecimal.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::{fd::AsRawFd, unix::fs::symlink},
    };

    use tempfile::TempDir;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nsshd:x:105:65534::/run/sshd:/bin/false\n";

    /// Returns a /proc with the real tables of connections, and no process.
    fn proc() -> TempDir {
        let proc = TempDir::new().unwrap();
        symlink("/proc/net", proc.path().join("net")).unwrap();
        fs::write(proc.path().join("passwd"), PASSWD).unwrap();
        proc
    }

    struct Fake<'a> {
        id: u32,
        parent: u32,
        users: &'a str,
        program: &'a str,
        title: &'a str,
    }

    fn add(proc: &TempDir, fake: &Fake<'_>, socket: Option<&dyn AsRawFd>) {
        let process = proc.path().join(fake.id.to_string());
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), "sshd\n").unwrap();
        fs::write(process.join("cmdline"), format!("{}\0\0", fake.title)).unwrap();
        let status = format!("Name:\tsshd\nPPid:\t{}\nUid:\t{}\n", fake.parent, fake.users);
        fs::write(process.join("status"), status).unwrap();
        symlink(fake.program, process.join("exe")).unwrap();
        symlink("/dev/null", process.join("fd/0")).unwrap();
        if let Some(socket) = socket {
            let inode = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
            symlink(inode, process.join("fd/4")).unwrap();
        }
    }

    fn peers(proc: &TempDir) -> HashSet<IpAddr> {
        let held = held(proc.path(), &proc.path().join("passwd"));
        clients(proc.path(), &held.sockets).sessions
    }

    const SSHD: &str = "/usr/sbin/sshd";
    const ROOT: &str = "0\t0\t0\t0";
    const USER: &str = "1000\t1000\t1000\t1000";

    #[test]
    fn only_a_login_is_a_session() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connection, _) = listener.accept().unwrap();
        let monitor = |title, program| Fake { id: 7, parent: 1, users: ROOT, program, title };
        let child = |title, users| Fake { id: 8, parent: 7, users, program: SSHD, title };
        let session = "/usr/lib/openssh/sshd-session";
        for (monitor, child, expected) in [
            (monitor("sshd: alice [priv]", SSHD), child("sshd: alice@pts/0", USER), true),
            // `ssh -N` has no terminal to tell of
            (monitor("sshd: alice [priv]", SSHD), child("sshd: alice [priv]", USER), true),
            (
                monitor("sshd-session: alice [priv]", session),
                child("sshd-session: alice", USER),
                true,
            ),
            (
                monitor("sshd: a [priv]", "/usr/sbin/sshd (deleted)"),
                child("sshd: a@notty", USER),
                true,
            ),
            (monitor("sshd: root@pts/0", SSHD), child("-bash", ROOT), true),
            (monitor("sshd: root", SSHD), child("-bash", ROOT), true),
            // who is not logged in yet
            (
                monitor("sshd: alice [priv]", SSHD),
                child("sshd: alice [net]", "105\t105\t105\t105"),
                false,
            ),
            (monitor("sshd: alice [priv]", SSHD), child("sshd: x@y", "105\t105\t105\t105"), false),
            (monitor("sshd: a@b.c [priv]", SSHD), child("sshd: a@b.c [net]", USER), false),
            (monitor("sshd: root [priv]", SSHD), child("sshd: root [net]", ROOT), false),
            (monitor("sshd: [accepted]", SSHD), child("sshd: [net]", USER), false),
            // who only calls himself so
            (monitor("sshd: x@y", "/usr/bin/python3"), child("sshd: x@y", USER), false),
            (Fake { users: USER, ..monitor("sshd: x@y", SSHD) }, child("sshd: x@y", USER), false),
            (
                Fake { users: "0\t1000\t0\t1000", ..monitor("sshd: x@y", SSHD) },
                child("", USER),
                false,
            ),
            (
                monitor("sshd: a [priv]", SSHD),
                Fake { parent: 9, ..child("sshd: x@y", USER) },
                false,
            ),
            (
                monitor("sshd: a [priv]", SSHD),
                Fake { program: "/bin/sh", ..child("sshd: x@y", USER) },
                false,
            ),
        ] {
            let proc = proc();
            add(&proc, &monitor, Some(&connection));
            add(&proc, &child, Some(&connection));
            let what =
                format!("{} {}, {} {}", monitor.title, monitor.users, child.title, child.users);
            assert_eq!(!peers(&proc).is_empty(), expected, "{what}");
        }
        // a command that sshd runs for a login does not have the connection
        let proc = proc();
        add(&proc, &monitor("sshd: alice [priv]", SSHD), Some(&connection));
        add(&proc, &child("sshd: alice [priv]", USER), None);
        assert!(peers(&proc).is_empty());
    }

    #[test]
    fn the_peer_of_a_session_is_found_and_no_other() {
        for (listen, peer) in
            [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")]
        {
            let listener = TcpListener::bind(listen).unwrap();
            let port = listener.local_addr().unwrap().port();
            let peer: IpAddr = peer.parse().unwrap();
            let _client = TcpStream::connect((peer, port)).unwrap();
            let (session, _) = listener.accept().unwrap();
            let found = |socket: &dyn AsRawFd| {
                let proc = proc();
                let title = "sshd: root@pts/0";
                let fake = Fake { id: 7, parent: 1, users: ROOT, program: SSHD, title };
                add(&proc, &fake, Some(socket));
                peers(&proc)
            };
            assert_eq!(found(&session), HashSet::from([peer]), "{listen}");
            assert!(found(&listener).is_empty());
            // both tables tell the same of our connection
            let inode = fs::read_link(format!("/proc/self/fd/{}", session.as_raw_fd())).unwrap();
            let inode = inode.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit());
            let ours = (peer, inode.parse().unwrap());
            assert!(listed(Path::new("/proc")).contains(&ours), "{listen}");
            assert!(tcp::established().unwrap().contains(&ours), "{listen}");
        }
    }
}
