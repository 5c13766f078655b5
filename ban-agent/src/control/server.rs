//! The daemon's end of the control socket. It checks who asks and hands requests on; it decides
//! nothing else.

use std::{
    io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use super::{Access, MAX_QUESTION, MAX_REQUEST, Refusal, Reply, Request, watch};
use crate::event::{Bus, Wanted};

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Takes one answer.
    pub reply: oneshot::Sender<Reply>,
    /// Who asks: a user id.
    pub user: Option<u32>,
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody answers on it.
    #[error("another agent listens on {}", .0.display())]
    Busy(PathBuf),
    /// It cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The configured group does not exist.
    #[error("there is no group '{0}'")]
    Group(String),
    /// A configured operator does not exist.
    #[error("there is no user '{0}'")]
    Operator(String),
}

/// The open socket; its file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    access: Access,
}

impl Server {
    /// Opens the socket at `path`, mode 0660, for root and the group of `access`.
    ///
    /// # Errors
    /// If another agent listens there, or it cannot be made.
    pub async fn open(path: &Path, access: Access) -> Result<Server, ServerError> {
        let failed = |source| ServerError::Listen { path: path.to_owned(), source };
        if UnixStream::connect(path).await.is_ok() {
            return Err(ServerError::Busy(path.to_owned()));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        chown(path, None, access.group).map_err(failed)?;
        Ok(Server { listener, path: path.to_owned(), access })
    }

    /// Takes connections until `calls` is closed; watchers hear what is on `bus`.
    pub async fn serve(self, calls: mpsc::Sender<Call>, bus: Bus) {
        loop {
            let accepted = tokio::select! {
                () = calls.closed() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let access = self.access.clone();
                    tokio::spawn(converse(stream, access, calls.clone(), bus.clone()));
                }
                Err(error) => {
                    log::warn!("control socket: {error}");
                    // out of descriptors: wait for some to be closed instead of spinning
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// What becomes of a connection once its request is read.
enum Answer {
    /// This, and it ends.
    Reply(Reply),
    /// Events, as long as it lasts.
    Watch(Wanted),
}

async fn converse(mut stream: UnixStream, access: Access, calls: mpsc::Sender<Call>, bus: Bus) {
    let talked = match answer(&mut stream, &access, &calls).await {
        Ok(Answer::Reply(reply)) => send(&mut stream, &reply).await,
        Ok(Answer::Watch(wanted)) => watch::serve(stream, &bus, wanted).await,
        Err(error) => Err(error),
    };
    if let Err(error) = talked {
        log::debug!("control socket: {error}");
    }
}

pub(super) async fn send(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn answer(
    stream: &mut UnixStream,
    access: &Access,
    calls: &mpsc::Sender<Call>,
) -> io::Result<Answer> {
    let peer = stream.peer_cred()?;
    let may_change = access.may_change(peer.uid());
    // who only reads sends no block list
    let longest = if may_change { MAX_REQUEST } else { MAX_QUESTION };
    let mut line = Vec::new();
    BufReader::new(stream.take(longest)).read_until(b'\n', &mut line).await?;
    let refuse = |code, message: String, hint: Option<&str>| {
        let hint = hint.map(Into::into);
        Ok(Answer::Reply(Reply::Error(Refusal { code, message, hint })))
    };
    if line.last() != Some(&b'\n') {
        return refuse(2, "the request is too long or was cut off".into(), None);
    }
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => {
            return refuse(
                2,
                format!("cannot read the request: {error}"),
                Some("the agent may be of another version: restart it"),
            );
        }
    };
    if request.changes() && !may_change {
        return refuse(
            4,
            "not permitted: you may look, but only root and the operators change anything".into(),
            Some("use sudo, or have your user named in [agent] operators"),
        );
    }
    if let Request::Watch { failures, drops } = request {
        return Ok(Answer::Watch(Wanted { failures, drops }));
    }
    let (reply, answer) = oneshot::channel();
    if calls.send(Call { request, reply, user: Some(peer.uid()) }).await.is_err() {
        return refuse(3, "the agent is stopping".into(), None);
    }
    match answer.await {
        Ok(reply) => Ok(Answer::Reply(reply)),
        Err(_) => refuse(3, "the agent is stopping".into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::{CallError, Document, SCHEMA, Text, call, watch},
        event::{Event, What},
    };

    #[tokio::test]
    async fn a_call_gets_its_answer_and_a_second_agent_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        assert!(matches!(Server::open(&path, Access::default()).await, Err(ServerError::Busy(_))));
        let (sender, mut calls) = mpsc::channel(1);
        let serving = tokio::spawn(server.serve(sender, Bus::default()));
        let asked = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || call(&path, &Request::Reload))
        };
        let taken = calls.recv().await.unwrap();
        assert_eq!(taken.request, Request::Reload);
        let text = Document::Text(Text { schema: SCHEMA, message: "done".into() });
        taken.reply.send(Reply::Done(text.clone())).unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), text);
        drop(calls);
        serving.await.unwrap();
        assert!(!path.exists(), "the socket goes with its server");
        let gone = call(&path, &Request::Reload).unwrap_err();
        assert!(matches!(gone, CallError::NotRunning { .. }));
        assert_eq!(gone.code(), 3);
    }

    #[tokio::test]
    async fn a_watcher_hears_of_everything_after_the_answer_and_leaves_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, _calls) = mpsc::channel(1);
        let bus = Bus::default();
        tokio::spawn(server.serve(sender, bus.clone()));
        let watching = {
            let path = path.clone();
            let request = Request::Watch { failures: false, drops: true };
            tokio::task::spawn_blocking(move || watch(&path, &request).unwrap())
        };
        let mut watching = watching.await.unwrap();
        assert_eq!((*bus.wants_drops().borrow(), bus.wants_failures()), (1, false));
        let resumed = |jail: &str| Event::now(What::Resumed { jail: jail.into() });
        let found = What::Found {
            jail: "hidden".into(),
            address: "192.0.2.1/32".parse().unwrap(),
            time: jiff::Timestamp::UNIX_EPOCH,
        };
        bus.publish(vec![resumed("a"), Event::now(found), resumed("b\u{1b}")]);
        let heard = tokio::task::spawn_blocking(move || {
            let mut next = || watching.next().unwrap().unwrap();
            [next(), next()]
        });
        let heard = heard.await.unwrap().map(|line| {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            (event["event"]["sequence"].as_u64().unwrap(), event["rule"]["name"].to_string())
        });
        assert_eq!(heard, [(0, "\"a\"".into()), (2, "\"b\\\\u{1b}\"".into())]);
        // the watcher is gone, and its interest with it
        bus.wants_drops().wait_for(|count| *count == 0).await.unwrap();
    }

    #[tokio::test]
    async fn a_watcher_that_does_not_read_is_cut_off() {
        use std::io::{Read as _, Write as _};
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, _calls) = mpsc::channel(1);
        let bus = Bus::default();
        tokio::spawn(server.serve(sender, bus.clone()));
        let stuck = tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(b"{\"verb\":\"watch\",\"failures\":true,\"drops\":false}\n").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
        });
        let mut stream = stuck.await.unwrap();
        assert!(bus.wants_failures());
        tokio::time::pause();
        let resumed = || Event::now(What::Resumed { jail: "x".repeat(100).into() });
        while bus.wants_failures() {
            bus.publish((0..1000).map(|_| resumed()).collect());
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        assert!(bus.lost().iter().any(|(kind, lost)| *kind == "watch" && *lost > 0));
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }

    #[tokio::test]
    async fn junk_is_answered_and_hurts_nobody() {
        use std::io::{Read as _, Write as _};
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, _calls) = mpsc::channel(1);
        tokio::spawn(server.serve(sender, Bus::default()));
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(b"{\"verb\":\"\x00\xff\"}\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
        .await
        .unwrap();
        assert!(answer.contains("\"code\":2"), "{answer}");
    }
}
