//! The CLI's end of the control socket: blocking, one call; or a watch, one line after the other.
//! It waits for an agent that works, however long that takes, and not for one that hangs: an agent
//! that lives says so once a second.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{Document, Refusal, Reply, Request, origin};

/// How long an agent may be silent; and one that may be at work on a block list, on a busy machine.
const SILENCE: Duration = Duration::from_secs(5);
const AT_WORK: Duration = Duration::from_secs(15);
/// What is read at once.
const PIECE: usize = 64 << 10;

/// Why a call had no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("the agent does not run: {}: {source}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The socket may not be used.
    #[error("not permitted: {}", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody listens, and says nothing.
    #[error("the agent{} hangs: no answer over {}", shown(*pid), path.display())]
    Hangs {
        /// The socket.
        path: PathBuf,
        /// Who listens.
        pid: Option<i32>,
    },
    /// The agent answered no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection broke or the answer makes no sense.
    #[error("{}: {message}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        message: String,
    },
}

fn shown(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl CallError {
    /// The documented exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            CallError::NotRunning { .. } | CallError::Hangs { .. } => 3,
            CallError::NotPermitted { .. } => 4,
            CallError::Refused(refusal) => refusal.code,
            CallError::Broken { .. } => 2,
        }
    }

    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            CallError::NotRunning { .. } => Some(
                "start it with `systemctl start ban-agent` or `ban-agent run`, or name its socket \
                 with --socket"
                    .into(),
            ),
            CallError::NotPermitted { .. } => {
                Some("use sudo, or join the group that [agent] socket_group names, to read".into())
            }
            CallError::Hangs { .. } => Some(
                "its bans stay enforced; `systemctl restart ban-agent` ends it and starts another, \
                 `ban-agent detach` ends all bans without it"
                    .into(),
            ),
            CallError::Refused(refusal) => refusal.hint.clone(),
            CallError::Broken { .. } => None,
        }
    }
}

/// Asks the agent behind the socket `path`.
///
/// # Errors
/// If nobody answers, or the answer is no.
pub fn call(path: &Path, request: &Request) -> Result<Document, CallError> {
    Ok(ask(path, request, None)?.0)
}

/// The same; the agent has to answer within `limit`, whether it lives or not.
///
/// # Errors
/// If nobody answers, or the answer is no.
pub fn call_within(path: &Path, request: &Request, limit: Duration) -> Result<Document, CallError> {
    Ok(ask(path, request, Some(limit))?.0)
}

/// The same for a list, whose document goes to `sink` as it comes: there may be a million bans in it.
///
/// # Errors
/// If nobody answers, the answer is no or breaks off, or `sink` fails: then that is the inner error.
pub fn pour<E>(
    path: &Path,
    request: &Request,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Result<(), E>, CallError> {
    const HEAD: &[u8] = b"{\"done\":{\"list\":";
    const TAIL: &[u8] = b"}}\n";
    let broken = |message: String| CallError::Broken { path: path.to_owned(), message };
    let (mut held, mut begun, mut failed) = (Vec::new(), false, None);
    exchange(path, request, None, |piece| {
        // between the bans it says now and then that it lives
        let blank = |held: &[u8]| held.iter().take_while(|byte| **byte == b' ').count();
        held.extend_from_slice(piece);
        if !begun {
            let spaces = blank(&held);
            let line = held.get(spaces..).unwrap_or_default();
            if !line.starts_with(HEAD) {
                return true;
            }
            begun = true;
            held.drain(..spaces + HEAD.len());
        }
        let ready = held.len().saturating_sub(TAIL.len());
        failed = sink(held.get(..ready).unwrap_or_default()).err();
        held.drain(..ready);
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Ok(Err(error));
    }
    match (begun, &*held) {
        (true, TAIL) => Ok(Ok(())),
        (true, _) => Err(broken("the agent ended before it answered".into())),
        (false, line) => match serde_json::from_slice(line) {
            Ok(Reply::Error(refusal)) => Err(refusal.into()),
            Ok(Reply::Done(_)) => Err(broken("odd answer".into())),
            Err(error) => Err(broken(error.to_string())),
        },
    }
}

/// Watches the agent behind the socket `path`.
///
/// # Errors
/// If nobody answers, or the answer is no.
pub fn watch(path: &Path, request: &Request) -> Result<Watch, CallError> {
    let (_, lines) = ask(path, request, None)?;
    // nothing may happen for long
    lines
        .get_ref()
        .set_read_timeout(None)
        .map_err(|error| CallError::Broken { path: path.to_owned(), message: error.to_string() })?;
    Ok(Watch { path: path.to_owned(), lines })
}

/// Events as they come, each a JSON document; ends with the agent.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    lines: BufReader<UnixStream>,
}

impl Iterator for Watch {
    type Item = Result<String, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(line)),
            Err(error) => {
                Some(Err(CallError::Broken { path: self.path.clone(), message: error.to_string() }))
            }
        }
    }
}

fn ask(
    path: &Path,
    request: &Request,
    limit: Option<Duration>,
) -> Result<(Document, BufReader<UnixStream>), CallError> {
    let broken = |message: String| CallError::Broken { path: path.to_owned(), message };
    let mut answer = Vec::new();
    let reader = exchange(path, request, limit, |piece| {
        answer.extend_from_slice(piece);
        true
    })?;
    if answer.last() != Some(&b'\n') {
        return Err(broken("the agent ended before it answered".into()));
    }
    match serde_json::from_slice(&answer).map_err(|error| broken(error.to_string()))? {
        Reply::Done(document) => Ok((document, reader)),
        Reply::Error(refusal) => Err(refusal.into()),
    }
}

/// Sends a request, and shows `each` piece of the line that answers it, as long as that says so.
fn exchange(
    path: &Path,
    request: &Request,
    limit: Option<Duration>,
    each: impl FnMut(&[u8]) -> bool,
) -> Result<BufReader<UnixStream>, CallError> {
    let end = limit.map(|limit| Instant::now() + limit);
    let silence = if request.changes() { AT_WORK } else { SILENCE };
    let mut stream = connect(path)?;
    let pid = rustix::net::sockopt::socket_peercred(&stream).ok();
    let pid = pid.map(|credentials| credentials.pid.as_raw_nonzero().get());
    let broken = |message: String| CallError::Broken { path: path.to_owned(), message };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            CallError::Hangs { path: path.to_owned(), pid }
        }
        _ => broken(error.to_string()),
    };
    stream.set_write_timeout(Some(silence)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| broken(error.to_string()))?;
    if request.changes()
        && let Ok(from) = serde_json::to_string(&origin::own())
    {
        // beside what is asked, in the same object
        line.splice(..1, format!("{{\"from\":{from},").into_bytes());
    }
    line.push(b'\n');
    match stream.write_all(&line) {
        // it has said why before it hung up
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.map_err(failed)?,
    }
    let mut reader = BufReader::with_capacity(PIECE, stream);
    answer(&mut reader, silence, end, each).map_err(failed)?;
    Ok(reader)
}

/// The pieces of one line, as long as it goes on growing, and not after `end`.
fn answer(
    reader: &mut BufReader<UnixStream>,
    silence: Duration,
    end: Option<Instant>,
    mut each: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        reader.get_ref().set_read_timeout(Some(left.unwrap_or(silence).min(silence)))?;
        let some = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let line = memchr::memchr(b'\n', some).map(|end| end + 1);
        let length = line.unwrap_or(some.len());
        let goes_on = each(some.get(..length).unwrap_or_default());
        reader.consume(length);
        if line.is_some() || length == 0 || !goes_on {
            return Ok(());
        }
    }
}

/// Connects; who listens, and takes nobody in any more, is not waited for.
fn connect(path: &Path) -> Result<UnixStream, CallError> {
    let (tell, told) = mpsc::channel();
    let own = path.to_owned();
    let connecting = thread::Builder::new().spawn(move || {
        // nobody may wait for it any more
        let _ = tell.send(UnixStream::connect(own));
    });
    let connected = match connecting.map(|_| told.recv_timeout(SILENCE)) {
        Ok(Ok(connected)) => connected,
        Ok(Err(_)) => return Err(CallError::Hangs { path: path.to_owned(), pid: None }),
        Err(error) => Err(error),
    };
    connected.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => CallError::NotPermitted { path: path.to_owned() },
        _ => CallError::NotRunning { path: path.to_owned(), source },
    })
}
