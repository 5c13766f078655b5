//! A socket that takes syslog datagrams. Owns the socket; [`message`] reads what comes.

mod message;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    net::{UdpSocket, UnixDatagram},
    sync::mpsc,
};

use super::{Batch, Error, Limits, Looked, Stats};

/// Asked of the kernel for bursts; it gives at most `net.core.rmem_max`.
const QUEUE: usize = 8 << 20;
/// Of a unix socket, unless the configuration says otherwise: a user who can write to it can have
/// addresses banned.
const MODE: u32 = 0o660;
/// Datagrams that are taken in one turn; in tests few, as the kernel keeps few for them.
const TURN: usize = if cfg!(test) { 64 } else { 1024 };
/// No datagram is longer.
const DATAGRAM: usize = 64 << 10;

pub(super) async fn run(
    listen: String,
    limits: Limits,
    stats: Stats,
    out: mpsc::Sender<Batch>,
    looked: Looked,
) -> Result<(), Error> {
    let socket = Socket::bind(&listen).await?;
    drop(looked);
    let origin: Arc<str> = listen.into();
    stats.update(&origin, |counters| (counters.waiting, counters.error) = (false, None));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.split_whitespace().next().unwrap_or("localhost");
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let readable = tokio::select! {
            () = out.closed() => return Ok(()),
            readable = socket.readable() => readable,
        };
        readable.map_err(|source| Error::System { operation: "read the syslog socket", source })?;
        let mut lines = Vec::new();
        let (mut count, mut malformed) = (0, 0);
        for _ in 0..TURN {
            if lines.len() >= limits.batch {
                break;
            }
            let Ok(length) = socket.receive(&mut buffer) else { break };
            let datagram = buffer.get(..length).unwrap_or_default();
            match message::append(&mut lines, datagram, host, Timestamp::now()) {
                true => count += 1,
                false => malformed += 1,
            }
        }
        stats.update(&origin, |counters| {
            counters.lines += count;
            counters.bytes += u64::try_from(lines.len()).unwrap_or(0);
            counters.malformed += malformed;
        });
        if lines.is_empty() {
            // a flood of empty datagrams must not keep a worker
            tokio::task::yield_now().await;
            continue;
        }
        let lines = Bytes::from(lines);
        let batch = Batch {
            origin: Arc::clone(&origin),
            lines,
            stamped: true,
            raw: None,
            backlog: false,
            live: true,
            position: None,
            gone: false,
            torn: false,
            read: Instant::now(),
        };
        if out.send(batch).await.is_err() {
            return Ok(());
        }
    }
}

/// Whether this is an address at which one can listen.
pub(super) fn check(listen: &str) -> Result<(), Error> {
    let refused = |source| Error::Listen { listen: listen.to_owned(), source };
    if let Some(path) = listen.strip_prefix("unix://") {
        let (path, _) = place(path).map_err(refused)?;
        return if path.starts_with('/') { Ok(()) } else { Err(refused(not_an_address())) };
    }
    let address = listen.strip_prefix("udp://").and_then(|text| text.parse::<SocketAddr>().ok());
    address.map(|_| ()).ok_or_else(|| refused(not_an_address()))
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    /// The path is taken away again when the source ends.
    Unix(UnixDatagram, PathBuf),
}

impl Socket {
    async fn bind(listen: &str) -> Result<Socket, Error> {
        let refused = |source| Error::Listen { listen: listen.to_owned(), source };
        let socket = if let Some(address) = listen.strip_prefix("udp://") {
            let address: SocketAddr = address.parse().map_err(|_| refused(not_an_address()))?;
            Socket::Udp(UdpSocket::bind(address).await.map_err(refused)?)
        } else if let Some(path) = listen.strip_prefix("unix://") {
            let (path, mode) = place(path).map_err(refused)?;
            bind_unix(Path::new(path), mode).map_err(refused)?
        } else {
            return Err(refused(not_an_address()));
        };
        socket.enlarge();
        Ok(socket)
    }

    /// More room for bursts; whatever the kernel grants will do.
    fn enlarge(&self) {
        use rustix::net::sockopt::set_socket_recv_buffer_size as set;
        let _ = match self {
            Socket::Udp(socket) => set(socket, QUEUE),
            Socket::Unix(socket, _) => set(socket, QUEUE),
        };
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Socket::Udp(socket) => socket.readable().await,
            Socket::Unix(socket, _) => socket.readable().await,
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Udp(socket) => socket.try_recv(buffer),
            Socket::Unix(socket, _) => socket.try_recv(buffer),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

fn not_an_address() -> io::Error {
    let text = "not udp://ADDRESS:PORT or unix:///PATH";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Returns where a unix socket lies.
pub(super) fn path(listen: &str) -> Option<&Path> {
    place(listen.strip_prefix("unix://")?).ok().map(|(path, _)| Path::new(path))
}

/// `/PATH`, or `/PATH?mode=0666`.
fn place(text: &str) -> io::Result<(&str, u32)> {
    let Some((path, options)) = text.split_once('?') else { return Ok((text, MODE)) };
    let mode = options.strip_prefix("mode=").and_then(|mode| u32::from_str_radix(mode, 8).ok());
    let mode = mode.filter(|mode| *mode <= 0o777);
    let wrong = || {
        let text = format!("'?{options}' is not ?mode=0660 or the like");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    Ok((path, mode.ok_or_else(wrong)?))
}

/// A socket without a listener is a dead agent's, and is replaced.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    let stale = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && UnixDatagram::unbound()?.connect(path).is_err();
    if stale {
        fs::remove_file(path)?;
    }
    let socket = UnixDatagram::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(Socket::Unix(socket, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::patience::patience;

    /// Returns what comes of a datagram that is sent until one arrives: nothing tells a sender when
    /// the source listens.
    async fn lines(listen: String, send: impl AsyncFn()) -> String {
        let (out, mut batches) = mpsc::channel(1);
        let looked = mpsc::channel(1).0;
        let (limits, stats) = (Limits::default(), Stats::default());
        let task = tokio::spawn(run(listen.clone(), limits, stats, out, looked));
        let batch = loop {
            send().await;
            if let Ok(batch) = timeout(Duration::from_millis(5), batches.recv()).await {
                break batch.unwrap();
            }
        };
        assert!(batch.stamped && *batch.origin == *listen);
        drop(batches);
        task.await.unwrap().unwrap();
        String::from_utf8(batch.lines.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_unix_socket_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        drop(UnixDatagram::bind(&path).unwrap());
        let client = UnixDatagram::unbound().unwrap();
        let send = async || drop(client.send_to(b"<13>Nov 20 12:00:00 h a[1]: one", &path).await);
        let text = lines(format!("unix://{}", path.display()), send).await;
        assert!(text.lines().all(|line| line.ends_with("Z h a[1]: one")), "{text}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn who_may_write_is_for_the_operator_to_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (options, expected) in [("", 0o660), ("?mode=0666", 0o666), ("?mode=600", 0o600)] {
            let socket =
                Socket::bind(&format!("unix://{}{options}", path.display())).await.unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{options}");
            drop(socket);
        }
    }

    #[tokio::test]
    async fn udp() {
        // The port was free a moment ago; nobody else picks it out of all of them now.
        let free = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let send = async || drop(client.send_to(b"<13>Nov 20 12:00:00 h a: two", free).await);
        let text = lines(format!("udp://{free}"), send).await;
        assert!(text.lines().all(|line| line.ends_with("Z h a: two")), "{text}");
    }

    /// One worker, which is everybody's: who floods the socket has a bounded turn of it, and then the
    /// others have theirs.
    #[tokio::test]
    async fn a_flood_of_empty_datagrams_keeps_no_worker() {
        let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let ((out, mut batches), stats) = (mpsc::channel(1), Stats::default());
        let (listen, (looked, mut looking)) = (format!("udp://{address}"), mpsc::channel(1));
        let source =
            tokio::spawn(run(listen.clone(), Limits::default(), stats.clone(), out, looked));
        assert_eq!(looking.recv().await, None);
        // as many as the kernel keeps by default, and more than a turn takes
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        const FLOOD: usize = 3 * TURN;
        for _ in 0..FLOOD {
            assert_eq!(client.send_to(b"", address).unwrap(), 0);
        }
        client.send_to(b"<13>Nov 20 12:00:00 h a: one", address).unwrap();
        let mut turns = Vec::new();
        while turns.last() != Some(&FLOOD) {
            tokio::task::yield_now().await;
            let seen = stats.snapshot().get(&*listen).map_or(0, |counters| counters.malformed);
            let seen = usize::try_from(seen).unwrap();
            if seen > 0 && turns.last() != Some(&seen) {
                turns.push(seen);
            }
        }
        assert_eq!(turns, [TURN, 2 * TURN, 3 * TURN], "nobody else had a turn");
        // what is no junk still comes through
        let batch = timeout(patience(), batches.recv()).await.unwrap().unwrap();
        assert!(batch.lines.ends_with(b"Z h a: one\n"));
        source.abort();
    }

    #[tokio::test]
    async fn bad_addresses() {
        for listen in [
            "",
            "udp://",
            "udp://nowhere",
            "tcp://127.0.0.1:1",
            "unix:///no/such/dir/s",
            "unix:///tmp/s?mode=rw",
            "unix:///tmp/s?mode=1777",
            "unix:///tmp/s?group=adm",
        ] {
            let error = Socket::bind(listen).await.unwrap_err();
            assert!(matches!(error, Error::Listen { .. }), "{listen}");
            // a folder may be made later
            assert_eq!(check(listen).is_err(), !listen.contains("no/such"), "{listen}");
        }
    }
}
