//! A process of its own that knows which connections are sessions of SSH.
//!
//! To see which process holds which connection takes CAP_SYS_PTRACE, with which one may write the
//! memory of any process. The agent reads what attackers write, and must not have it. The helper
//! takes one question, answers with numbers of sockets, and reads nothing but what the kernel and
//! `/etc/passwd` say. The package's units start it when it is asked; else the agent starts it
//! before it lets go of its own capabilities.

use std::{
    collections::HashSet,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command, ExitCode, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect,
        recv, send, socket_with, socketpair,
    },
};

use super::sessions::{self, Held};

/// The program's only argument when it is the helper.
const WORD: &str = "watch-sessions-of-sshd";
/// Where `ban-agent-sessions.socket` listens; only root may connect.
const SOCKET: &str = "/run/ban-agent-sessions.sock";
/// Sockets in an answer; sessions beyond them are not protected.
const MAX_SOCKETS: usize = 4096;
/// Bytes of a socket's inode in an answer.
const INODE: usize = size_of::<u64>();
/// How long an answer may take.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Which connections are sessions, asked of the helper.
#[derive(Debug, Default)]
pub struct Sessions {
    helper: Option<Helper>,
    /// The last answer.
    sockets: HashSet<u64>,
    blind: bool,
    failing: bool,
}

impl Sessions {
    /// Finds the helper, or starts it with the capabilities of the caller.
    #[must_use]
    pub fn start() -> Sessions {
        let mut sessions = Sessions::default();
        match Helper::reach().or_else(|_| Helper::spawn()) {
            Ok(helper) => sessions.helper = Some(helper),
            Err(error) => log::error!("no SSH session is protected: {error}"),
        }
        sessions
    }

    /// The inodes of their sockets. If there is no answer, those of the last one: who was protected
    /// stays so.
    pub(super) fn look(&mut self) -> &HashSet<u64> {
        match self.ask() {
            Ok(None) => {}
            Ok(Some(Held { sockets, blind })) => {
                if blind && !self.blind {
                    let remedy = "that takes CAP_SYS_PTRACE at the start";
                    log::warn!("no SSH session is protected: {remedy}");
                }
                self.sockets = sockets;
                (self.blind, self.failing) = (blind, false);
            }
            Err(error) => {
                if !self.failing {
                    log::error!("who is logged in over SSH cannot be seen: {error}");
                }
                self.failing = true;
            }
        }
        &self.sockets
    }

    /// `None` if there is no helper.
    fn ask(&mut self) -> io::Result<Option<Held>> {
        let Some(helper) = &self.helper else { return Ok(None) };
        if let Ok(held) = helper.ask() {
            return Ok(Some(held));
        }
        // systemd starts it again
        self.helper.insert(Helper::reach()?).ask().map(Some)
    }
}

#[derive(Debug)]
struct Helper {
    socket: Option<OwnedFd>,
    /// `None` if systemd started it.
    child: Option<Child>,
}

impl Drop for Helper {
    fn drop(&mut self) {
        // it ends when its standard input is closed
        self.socket = None;
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}

impl Helper {
    fn reach() -> io::Result<Helper> {
        let kind = SocketType::SEQPACKET;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(SOCKET)?)?;
        Ok(Helper { socket: Some(socket), child: None })
    }

    fn spawn() -> io::Result<Helper> {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("ban-agent").arg(WORD).env_clear().current_dir("/");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
        Ok(Helper { socket: Some(ours), child: Some(command.spawn()?) })
    }

    fn ask(&self) -> io::Result<Held> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut answer = vec![0; 1 + MAX_SOCKETS * INODE];
        // one that came too late the last time
        while recv(socket, answer.as_mut_slice(), RecvFlags::DONTWAIT).is_ok_and(|(_, n)| n > 0) {}
        send(socket, &[0], SendFlags::NOSIGNAL)?;
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&PATIENCE))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (_, size) = recv(socket, answer.as_mut_slice(), RecvFlags::empty())?;
        answer.truncate(size);
        let (blind, inodes) = answer.split_first().ok_or(io::ErrorKind::UnexpectedEof)?;
        let (inodes, _) = inodes.as_chunks::<INODE>();
        let sockets = inodes.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
        Ok(Held { sockets, blind: *blind != 0 })
    }
}

/// Returns whether this process is to be the helper.
#[must_use]
pub fn is_helper() -> bool {
    let mut words = std::env::args_os().skip(1);
    words.next().is_some_and(|word| word == WORD) && words.next().is_none()
}

/// Answers on standard input until its other end is closed.
#[must_use]
pub fn serve() -> ExitCode {
    let socket = io::stdin();
    loop {
        match recv(&socket, &mut [0; 1][..], RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok((_, 1..)) => {}
            Ok(_) | Err(_) => return ExitCode::SUCCESS,
        }
        let Held { sockets, blind } = sessions::held("/proc".as_ref(), "/etc/passwd".as_ref());
        let mut answer = vec![u8::from(blind)];
        answer.extend(sockets.iter().take(MAX_SOCKETS).flat_map(|inode| inode.to_ne_bytes()));
        if send(&socket, &answer, SendFlags::NOSIGNAL).is_err() {
            return ExitCode::FAILURE;
        }
    }
}
