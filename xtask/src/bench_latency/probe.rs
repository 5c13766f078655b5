//! Times one ban after the other: packets from an address, the line that accuses it, and the
//! first packet that is missing at the socket.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::load::stamp;
use crate::net_shared::Namespace;

/// Where the sources of packets live (RFC 2544: for benchmarks).
pub(super) const SOURCES: &str = "198.18.0.0/15";
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Between two packets: the resolution of the measurement.
const PACE: Duration = Duration::from_micros(50);
/// A packet that was not seen for so long is not late but dropped.
const GONE: Duration = Duration::from_millis(30);
/// Between two trials, so that each meets an agent at rest.
const REST: Duration = Duration::from_millis(40);

/// A socket on the edge, and one after the other the addresses that send to it.
pub(super) struct Probe {
    outside: String,
    behind: UdpSocket,
    target: SocketAddr,
    log: File,
    next: u32,
}

impl Probe {
    pub(super) fn new(edge: &Namespace, outside: &Namespace, log: &Path) -> Result<Self> {
        let behind = within(edge.name(), || UdpSocket::bind("198.51.100.1:0"))?;
        behind.set_nonblocking(true).context("cannot set up the socket")?;
        let target = behind.local_addr().context("cannot ask for the port")?;
        let log = OpenOptions::new().append(true).open(log).context("cannot open the log")?;
        Ok(Self { outside: outside.name().to_owned(), behind, target, log, next: FIRST.into() })
    }

    /// How long it takes to ban the next address; `None` if longer than `patience`.
    pub(super) fn trial(&mut self, patience: Duration) -> Result<Option<Duration>> {
        let source = Ipv4Addr::from(self.next);
        self.next += 1;
        thread::sleep(REST);
        let sender = within(&self.outside, || UdpSocket::bind((source, 0)))?;
        sender.connect(self.target).context("cannot send to the edge")?;
        let mut flow = Flow { sender: &sender, behind: &self.behind, sent: Vec::new(), seen: 0 };
        let begun = Instant::now();
        while flow.seen < 20 {
            flow.step()?;
            if begun.elapsed() > patience {
                bail!("packets of {source} do not reach the edge at all");
            }
        }
        let line = format!(
            "{} edge sshd[4711]: Failed password for root from {source} port 40000 ssh2\n",
            stamp()
        );
        let written = Instant::now();
        self.log.write_all(line.as_bytes()).context("cannot write the log")?;
        loop {
            flow.step()?;
            if let Some(dropped) = flow.dropped() {
                return Ok(Some(dropped.saturating_duration_since(written)));
            }
            if written.elapsed() > patience {
                return Ok(None);
            }
        }
    }
}

/// Numbered packets from one address.
struct Flow<'a> {
    sender: &'a UdpSocket,
    behind: &'a UdpSocket,
    /// When each was sent; its index is its number.
    sent: Vec<Instant>,
    /// The first that was not seen behind the link yet.
    seen: usize,
}

impl Flow<'_> {
    /// Sends one packet, and sees which came through.
    fn step(&mut self) -> Result<()> {
        let number = u64::try_from(self.sent.len()).context("too many packets")?;
        self.sent.push(Instant::now());
        // nftables may refuse a packet by an answer, which the next call reports.
        let _refused = self.sender.send(&number.to_be_bytes());
        let me = self.sender.local_addr().context("cannot ask for the address")?;
        let mut packet = [0; 8];
        loop {
            match self.behind.recv_from(&mut packet) {
                Ok((_, from)) if from == me => {
                    let number = usize::try_from(u64::from_be_bytes(packet))?;
                    self.seen = self.seen.max(number + 1);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(anyhow!(error).context("cannot receive")),
            }
        }
        thread::sleep(PACE);
        Ok(())
    }

    /// When the first of the packets was sent that never came.
    fn dropped(&self) -> Option<Instant> {
        self.sent.get(self.seen).filter(|sent| sent.elapsed() > GONE).copied()
    }
}

/// Does it in a namespace. A thread of its own goes there, and ends: sockets stay where they
/// were made.
fn within<T: Send>(namespace: &str, make: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    let path = format!("/run/netns/{namespace}");
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            make()
        });
        there.join().map_err(|_| anyhow!("a thread died"))?.context("cannot make a socket")
    })
}
