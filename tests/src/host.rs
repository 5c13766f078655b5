//! Someone on the outside with addresses of his own: real sockets and pings, bound to them.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    net::{AddressFamily, SocketType, bind, connect, socket, sockopt},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::net::Namespace;

/// A silence this long means that packets die: the link is a piece of memory.
const SILENCE: Duration = Duration::from_millis(800);

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both of them.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The address of a pair.
pub fn pick(family: Family, addresses: (&'static str, &'static str)) -> &'static str {
    match family {
        Family::V4 => addresses.0,
        Family::V6 => addresses.1,
    }
}

/// Someone in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    namespace: &'a Namespace,
    addresses: (&'static str, &'static str),
}

impl<'a> Host<'a> {
    /// Who has these addresses.
    pub fn new(namespace: &'a Namespace, addresses: (&'static str, &'static str)) -> Self {
        Self { namespace, addresses }
    }

    /// His address.
    pub fn address(&self, family: Family) -> &'static str {
        pick(family, self.addresses)
    }

    /// Whether one ping comes back.
    pub fn pings(&self, family: Family, target: (&'static str, &'static str)) -> Result<bool> {
        let mut ping = self.namespace.command("ping");
        ping.args(["-n", "-c", "1", "-W", "1", "-I", self.address(family), pick(family, target)]);
        let done = ping.stdout(Stdio::null()).stderr(Stdio::null()).status();
        Ok(done.context("cannot start ping")?.success())
    }

    /// Opens a connection; `None` if nothing answers.
    pub fn connect(
        &self,
        family: Family,
        target: (&'static str, &'static str),
        port: u16,
    ) -> Result<Option<Connection>> {
        self.connect_from(0, family, target, port)
    }

    /// The same, from a port of one's choice; 0: any.
    pub fn connect_from(
        &self,
        source: u16,
        family: Family,
        target: (&'static str, &'static str),
        port: u16,
    ) -> Result<Option<Connection>> {
        let from = SocketAddr::new(self.address(family).parse::<IpAddr>()?, source);
        let to = SocketAddr::new(pick(family, target).parse::<IpAddr>()?, port);
        let stream = within(self.namespace, move || dial(from, to))?;
        Ok(stream.map(Connection))
    }
}

/// Runs `work` on a thread inside the namespace; sockets it makes stay there.
pub fn within<T: Send>(
    namespace: &Namespace,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let path = format!("/run/netns/{}", namespace.name());
    let file = std::fs::File::open(&path).with_context(|| format!("cannot open {path}"))?;
    thread::scope(|scope| {
        let task = scope.spawn(move || {
            use std::os::fd::AsFd as _;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter {path}"))?;
            work()
        });
        task.join().map_err(|_panic| anyhow!("a thread inside a namespace panicked"))?
    })
}

fn dial(from: SocketAddr, to: SocketAddr) -> Result<Option<TcpStream>> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None).context("cannot make a socket")?;
    bind(&socket, &from).with_context(|| format!("cannot bind {from}"))?;
    // also bounds connect()
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(SILENCE))?;
    match connect(&socket, &to) {
        Ok(()) => Ok(Some(TcpStream::from(socket))),
        Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot connect to {to}")),
    }
}

/// An open TCP connection.
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    /// Asks a web server, on a connection that stays open; the status, `None` if nothing answers.
    pub fn ask(&mut self, request: &str) -> Result<Option<u16>> {
        self.0.set_read_timeout(Some(SILENCE))?;
        let head = format!("{request} HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n");
        self.send(&format!("{head}\r\n"))
    }

    /// Asks with header lines of one's own, each ended by CRLF.
    pub fn ask_with(&mut self, request: &str, headers: &str) -> Result<Option<u16>> {
        self.0.set_read_timeout(Some(SILENCE))?;
        let head = format!("{request} HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n{headers}");
        self.send(&format!("{head}\r\n"))
    }

    /// Sends a text as it is, and reads until the other side closes; nothing if it is silent.
    pub fn shout(mut self, text: &str) -> Result<Vec<u8>> {
        self.0.set_read_timeout(Some(SILENCE))?;
        self.0.write_all(text.as_bytes()).context("cannot send")?;
        let mut answer = Vec::new();
        match self.0.read_to_end(&mut answer) {
            Ok(_) => Ok(answer),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(answer),
            Err(error) => Err(error).context("cannot receive"),
        }
    }

    fn send(&mut self, request: &str) -> Result<Option<u16>> {
        self.0.write_all(request.as_bytes()).context("cannot send")?;
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&answer);
            if let Some(status) = whole(&text) {
                return Ok(Some(status));
            }
            match self.0.read(&mut piece) {
                Ok(0) => anyhow::bail!("closed after {text:?}"),
                Ok(length) => answer.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }
}

/// The status of an answer that is complete.
fn whole(answer: &str) -> Option<u16> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
        })
        .unwrap_or(0);
    if body.len() < length {
        return None;
    }
    head.split(' ').nth(1)?.parse().ok()
}
