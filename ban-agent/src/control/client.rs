//! The CLI's end of the control socket: blocking, one call; or a watch, one line after the other.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use super::{Document, Refusal, Reply, Request};

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

impl CallError {
    /// The documented exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            CallError::NotRunning { .. } => 3,
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
    Ok(ask(path, request)?.0)
}

/// Watches the agent behind the socket `path`.
///
/// # Errors
/// If nobody answers, or the answer is no.
pub fn watch(path: &Path, request: &Request) -> Result<Watch, CallError> {
    let (_, lines) = ask(path, request)?;
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

fn ask(path: &Path, request: &Request) -> Result<(Document, BufReader<UnixStream>), CallError> {
    let broken = |message: String| CallError::Broken { path: path.to_owned(), message };
    let mut stream = UnixStream::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => CallError::NotPermitted { path: path.to_owned() },
        _ => CallError::NotRunning { path: path.to_owned(), source },
    })?;
    let mut line = serde_json::to_vec(request).map_err(|error| broken(error.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|error| broken(error.to_string()))?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut answer).map_err(|error| broken(error.to_string()))?;
    if answer.is_empty() {
        return Err(broken("the agent ended before it answered".into()));
    }
    match serde_json::from_str(&answer).map_err(|error| broken(error.to_string()))? {
        Reply::Done(document) => Ok((document, reader)),
        Reply::Error(refusal) => Err(refusal.into()),
    }
}
