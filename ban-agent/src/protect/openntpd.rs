//! The time servers that OpenNTPD uses, as ntpctl(8) asks for them: messages of OpenBSD's imsg over
//! the daemon's socket.

use std::{
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
};

use super::clocks::{PATIENCE, odd};

/// Where it listens: Debian's, and the one of its own sources (CTLSOCKET).
pub(super) const SOCKETS: [&str; 2] = ["/var/lib/openntpd/run/ntpd.sock", "/run/ntpd.sock"];

/// `IMSG_CTL_SHOW_PEERS` (ntpd.h, 6.2 to 6.8); the answer ends with the next number.
const SHOW_PEERS: u32 = 11;
/// Type, length, flags, peer and process (imsg.h), in the host's order of bytes.
const HEAD: usize = 16;
const MAX_MESSAGE: usize = 1 << 14;
/// Peers that are listened to; it rarely has more than ten.
const MAX_PEERS: usize = 64;

/// Returns its peers: each answer begins with what ntpctl shows, the address as the first word.
pub(super) fn sources(socket: &Path) -> io::Result<Vec<IpAddr>> {
    let mut daemon = UnixStream::connect(socket)?;
    daemon.set_read_timeout(Some(PATIENCE))?;
    daemon.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::with_capacity(HEAD);
    request.extend(SHOW_PEERS.to_ne_bytes());
    request.extend([u16::try_from(HEAD).unwrap_or(0), 0].map(u16::to_ne_bytes).concat());
    request.extend([0, std::process::id()].map(u32::to_ne_bytes).concat());
    daemon.write_all(&request)?;
    let mut found = Vec::new();
    for _ in 0..MAX_PEERS {
        let mut head = [0; HEAD];
        daemon.read_exact(&mut head)?;
        let [t0, t1, t2, t3, l0, l1, ..] = head;
        if u32::from_ne_bytes([t0, t1, t2, t3]) != SHOW_PEERS {
            break;
        }
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        if !(HEAD..=MAX_MESSAGE).contains(&length) {
            return Err(odd());
        }
        let mut body = vec![0; length - HEAD];
        daemon.read_exact(&mut body)?;
        let shown = body.split(|byte| matches!(byte, b' ' | 0)).next();
        let address = shown.and_then(|word| str::from_utf8(word).ok()?.parse::<IpAddr>().ok());
        // a name that is not known yet
        found.extend(address.map(|address| address.to_canonical()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    fn message(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(HEAD + body.len()).unwrap();
        let head = [&kind.to_ne_bytes()[..], &length.to_ne_bytes(), &[0; 10]].concat();
        [&head, body].concat()
    }

    /// In the form in which 6.2p3 answered; what stood behind the text was memory that nobody cleared.
    #[test]
    fn openntpd_tells_its_peers() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("ntpd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = |text: &str| {
            let mut body = [0xd9; 128];
            body[..text.len()].copy_from_slice(text.as_bytes());
            body[text.len()] = 0;
            message(SHOW_PEERS, &body)
        };
        let peers = ["192.0.2.123 ", "2001:db8::123 from pool x", "not resolved from pool y"];
        let good = [peers.map(peer).concat(), message(SHOW_PEERS + 1, &[])].concat();
        let odd = message(SHOW_PEERS, &[0; MAX_MESSAGE]);
        let serving = thread::spawn(move || {
            for answer in [good, odd, b"short".to_vec()] {
                let (mut client, _) = listener.accept().unwrap();
                let mut request = [0; HEAD];
                client.read_exact(&mut request).unwrap();
                assert_eq!(request[..8], message(SHOW_PEERS, &[])[..8]);
                // whoever expects no more has gone
                let _ = client.write_all(&answer);
            }
        });
        let found: Vec<_> = sources(&path).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.123", "2001:db8::123"]);
        assert!(sources(&path).is_err(), "too long");
        assert!(sources(&path).is_err(), "too short");
        serving.join().unwrap();
        assert!(sources(&path).is_err(), "nobody");
    }
}
