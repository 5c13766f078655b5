//! The peers of this host's TCP connections, and which of them are SSH sessions, by /proc.
//!
//! A connection to sshd is not yet a session: whoever guesses passwords has one, too. What counts
//! is that somebody is logged in, and sshd says so in the title of the process that serves him:
//! `sshd: alice@pts/0` (or `sshd-session: …`, since OpenSSH 9.8), whereas before that it reads
//! `sshd: unknown [priv]` or `sshd: alice [net]`.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use super::tcp;

/// State of an established connection in /proc/net/tcp (`TCP_ESTABLISHED`,
/// include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// Who is connected to this host.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// The peers of all established TCP connections but loopback's.
    pub(super) connected: HashSet<IpAddr>,
    /// Those who are logged in; none where /proc does not show other users' processes.
    pub(super) sessions: HashSet<IpAddr>,
}

/// As they are now.
pub(super) fn clients(proc: &Path) -> Clients {
    let sockets = session_sockets(proc);
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

/// The peers of all established TCP connections but loopback's.
pub(super) fn connected(proc: &Path) -> HashSet<IpAddr> {
    let peers = connections(proc).into_iter().map(|(peer, _)| peer);
    peers.filter(|peer| !peer.is_loopback()).collect()
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

/// Inodes of the sockets of processes that serve a session.
fn session_sockets(proc: &Path) -> HashSet<u64> {
    let mut sockets = HashSet::new();
    let Ok(processes) = fs::read_dir(proc) else { return sockets };
    for process in processes.flatten() {
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if !is_process || !serves_a_session(&process.path()) {
            continue;
        }
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        sockets.extend(files.flatten().filter_map(|file| socket(&file.path())));
    }
    sockets
}

fn serves_a_session(process: &Path) -> bool {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    name.starts_with(b"sshd") && is_session(&fs::read(process.join("cmdline")).unwrap_or_default())
}

/// Whether a process title is that of a session: `sshd: USER@TTY`.
fn is_session(title: &[u8]) -> bool {
    let title = String::from_utf8_lossy(title);
    let title = title.trim_end_matches(['\0', ' ']);
    let user = title.strip_prefix("sshd: ").or_else(|| title.strip_prefix("sshd-session: "));
    user.is_some_and(|user| user.contains('@') && !user.ends_with(']'))
}

/// The inode in `socket:[INODE]`.
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

    #[test]
    fn only_a_login_is_a_session() {
        for (title, expected) in [
            ("sshd: root@pts/0", true),
            ("sshd: alice@notty\0\0\0", true),
            ("sshd-session: alice@pts/3", true),
            ("sshd: /usr/sbin/sshd -D [listener] 1 of 10-100 startups", false),
            ("sshd: unknown [priv]", false),
            ("sshd: alice [net]", false),
            ("sshd: alice@example.org [priv]", false),
            ("sshd: [accepted]", false),
            ("/usr/sbin/sshd\0-D", false),
            ("", false),
        ] {
            assert_eq!(is_session(title.as_bytes()), expected, "{title}");
        }
    }

    /// A /proc of one process, with the real tables of connections.
    fn proc(title: &str, socket: &dyn AsRawFd) -> TempDir {
        let proc = TempDir::new().unwrap();
        let process = proc.path().join("4711");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), "sshd\n").unwrap();
        fs::write(process.join("cmdline"), title).unwrap();
        let inode = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        symlink(inode, process.join("fd/4")).unwrap();
        symlink("/dev/null", process.join("fd/0")).unwrap();
        symlink("/proc/net", proc.path().join("net")).unwrap();
        proc
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
            let found = |title, socket: &dyn AsRawFd| clients(proc(title, socket).path()).sessions;
            assert_eq!(found("sshd: a@pts/0", &session), HashSet::from([peer]), "{listen}");
            assert!(found("sshd: a [priv]", &session).is_empty());
            assert!(found("sshd: a@pts/0", &listener).is_empty());
            // both tables tell the same of our connection
            let inode = fs::read_link(format!("/proc/self/fd/{}", session.as_raw_fd())).unwrap();
            let inode = inode.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit());
            let ours = (peer, inode.parse().unwrap());
            assert!(listed(Path::new("/proc")).contains(&ours), "{listen}");
            assert!(tcp::established().unwrap().contains(&ours), "{listen}");
        }
    }
}
