//! The daemon's end of the control socket: opens it, and gives each connection that finds a place a
//! task of its own. It decides nothing else.

use std::{
    io::{self, Write as _},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use super::{
    Access, Queues, Refusal, Reply,
    conversation::Conversation,
    limits::{Limits, Rank},
};
use crate::{event::Bus, socket, store::Recall};

/// Lists that are told at once to those who may only look, and to the others: each costs memory.
const LISTS: usize = 4;
/// Requests longer than [`super::MAX_QUESTION`] that are taken at once: each costs up to
/// [`super::MAX_REQUEST`] of memory, and as much again for what is made of it.
const LONG: usize = 1;
/// How often the log hears of those for whom there is no place.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody answers on it.
    #[error("another agent listens on {}", .0.display())]
    Busy(PathBuf),
    /// There is something else.
    #[error("{} exists and is not a socket: it was left alone", .0.display())]
    Occupied(PathBuf),
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
    /// If another agent listens there, something else is there, or it cannot be made.
    pub async fn open(path: &Path, access: Access) -> Result<Server, ServerError> {
        let failed = |source| ServerError::Listen { path: path.to_owned(), source };
        if UnixStream::connect(path).await.is_ok() {
            return Err(ServerError::Busy(path.to_owned()));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        match std::fs::symlink_metadata(path) {
            // as a crash leaves it
            Ok(there) if there.file_type().is_socket() => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => return Err(ServerError::Occupied(path.to_owned())),
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        socket::give(path, access.group);
        Ok(Server { listener, path: path.to_owned(), access })
    }

    /// Takes connections until `queues` are closed; watchers hear what is on `bus`, and what the disk
    /// remembers is asked of `recall`.
    pub async fn serve(self, queues: Queues, bus: Bus, recall: Option<Recall>) {
        let limits = Limits::of_this_process();
        let lists = [(); 2].map(|()| Arc::new(Semaphore::new(LISTS)));
        let [readers, operators] = lists;
        let long = Arc::new(Semaphore::new(LONG));
        let mut failing = false;
        let mut turned_away = TurnedAway::default();
        loop {
            let accepted = tokio::select! {
                () = queues.closed() => return,
                accepted = self.listener.accept() => accepted,
            };
            let accepted = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
            match accepted {
                Ok((user, stream)) => {
                    failing = false;
                    let rank = self.access.rank(user);
                    let Some(place) = limits.enter(user, rank) else {
                        turn_away(stream);
                        turned_away.count(user);
                        continue;
                    };
                    let lists = if rank == Rank::Reader { &readers } else { &operators };
                    let conversation = Conversation {
                        asker: OnceLock::new(),
                        user,
                        rank,
                        queue: queues.of(rank),
                        lists: Arc::clone(lists),
                        long: Arc::clone(&long),
                        bus: bus.clone(),
                        recall: recall.clone(),
                    };
                    tokio::spawn(async move {
                        if let Err(error) = conversation.hold(stream).await {
                            log::debug!("control socket: {error}");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        log::warn!("control socket: {error}");
                    }
                    // out of descriptors: wait for some to be closed instead of spinning
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Counts those for whom there was no place, and tells the log of them now and then.
#[derive(Debug, Default)]
struct TurnedAway {
    count: u64,
    told: Option<Instant>,
}

impl TurnedAway {
    fn count(&mut self, user: u32) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            self.told = Some(Instant::now());
            log::warn!(
                "control socket: too many connections at once; {} were turned away since the start, \
                 the last one of user {user}",
                self.count
            );
        }
    }
}

/// Says that there is no place, without waiting for anything.
fn turn_away(stream: UnixStream) {
    let refusal = Reply::Error(Refusal {
        code: 2,
        message: "too many connections to the agent at once".into(),
        hint: Some("end those that wait, such as `ban-agent watch`, and try again".into()),
    });
    let told = stream.into_std().and_then(|mut stream| {
        let mut line = serde_json::to_vec(&refusal)?;
        line.push(b'\n');
        stream.write_all(&line)
    });
    if let Err(error) = told {
        log::debug!("control socket: {error}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        clock::{Boot, Now},
        control::{
            Asked, CallError, Choice, Document, Held, List, Request, Rolled, SCHEMA, Text, call,
            call_within, watch,
        },
        dataplane::Hits,
        event::{Event, What},
        net::IpNet,
    };

    /// For a core, and its end.
    fn queues() -> (Queues, mpsc::Receiver<Asked>) {
        let (operators, asked) = mpsc::channel(1);
        (Queues { readers: operators.clone(), operators }, asked)
    }

    #[tokio::test]
    async fn a_call_gets_its_answer_and_a_second_agent_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        assert!(matches!(Server::open(&path, Access::default()).await, Err(ServerError::Busy(_))));
        let (sender, mut calls) = queues();
        let serving = tokio::spawn(server.serve(sender, Bus::default(), None));
        let asked = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || call(&path, &Request::Reload))
        };
        let Asked::Call(taken) = calls.recv().await.unwrap() else { panic!("no call") };
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
        let (sender, _calls) = queues();
        let bus = Bus::default();
        tokio::spawn(server.serve(sender, bus.clone(), None));
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
        use std::io::Read as _;
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, _calls) = queues();
        let bus = Bus::default();
        tokio::spawn(server.serve(sender, bus.clone(), None));
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
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(bus.lost().iter().any(|(kind, lost)| *kind == "watch" && *lost > 0));
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }

    #[tokio::test]
    async fn junk_is_answered_and_hurts_nobody() {
        use std::io::Read as _;
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, _calls) = queues();
        tokio::spawn(server.serve(sender, Bus::default(), None));
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

    fn prefix(number: u32) -> IpNet {
        IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(number)))
    }

    /// A core that says who is banned until it is dropped.
    async fn tell(mut calls: mpsc::Receiver<Asked>, bans: usize) {
        while let Some(asked) = calls.recv().await {
            match asked {
                Asked::Call(call) => drop(call.reply.send(Reply::Error(Refusal {
                    code: 1,
                    message: "no".into(),
                    hint: None,
                }))),
                Asked::Roll(roll) => {
                    // the later ones first, in two parts
                    let all = u32::try_from(bans).unwrap();
                    let (some, last) = match roll.after {
                        None => (all / 2..all, Some(prefix(0))),
                        Some(_) => (0..all / 2, None),
                    };
                    let bans = some.map(|number| (Boot::NEVER, prefix(number))).collect();
                    let list =
                        List { schema: SCHEMA, total: 0, bans: Vec::new(), alarms: Vec::new() };
                    let list = roll.after.is_none().then_some(list);
                    let _ = roll.reply.send(Ok(Rolled { list, bans, last }));
                }
                Asked::Page(page) => {
                    let held = page.prefixes.iter().map(|prefix| Held {
                        prefix: *prefix,
                        claims: Vec::new(),
                        hits: Hits::default(),
                        now: Now::read(),
                    });
                    let _ = page.reply.send(Ok(held.collect()));
                }
                Asked::Release(_) | Asked::Compare(_) => panic!("nobody asks for this"),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_list_comes_in_pages_and_in_order() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, calls) = queues();
        tokio::spawn(server.serve(sender, Bus::default(), None));
        tokio::spawn(tell(calls, 1000));
        for (limit, expected) in [(None, 1000), (Some(3), 3), (Some(0), 0), (Some(256), 256)] {
            let path = path.clone();
            let request = Request::List(Choice { limit, ..Choice::default() });
            let listed = tokio::task::spawn_blocking(move || call(&path, &request).unwrap());
            let Document::List(list) = listed.await.unwrap() else { panic!("no list") };
            assert_eq!((list.bans.len(), list.total), (expected, 1000), "{limit:?}");
            assert!(list.bans.iter().zip(0u32..).all(|(ban, number)| {
                ban.address == std::net::Ipv4Addr::from(number).to_string()
            }));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_asks_by_halves_is_cut_off_and_who_leaves_is_forgotten() {
        use std::io::Read as _;
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, mut calls) = queues();
        tokio::spawn(server.serve(sender, Bus::default(), None));
        let half = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
                stream.write_all(b"{\"verb\":").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            })
        };
        let answer = half.await.unwrap();
        assert!(answer.contains("did not arrive in time"), "{answer}");

        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream.write_all(b"{\"verb\":\"reload\"}\n").unwrap();
        let mut asked = calls.recv().await.unwrap();
        assert!(!asked.is_forgotten());
        drop(stream);
        let Asked::Call(call) = &mut asked else { panic!("no call") };
        call.reply.closed().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_no_more_to_say_still_hears_the_answer() {
        use std::io::Read as _;
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, mut calls) = queues();
        tokio::spawn(server.serve(sender, Bus::default(), None));
        let asking = tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(b"{\"verb\":\"reload\"}\n").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let Asked::Call(call) = calls.recv().await.unwrap() else { panic!("no call") };
        // long enough to be told that somebody lives
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let text = Document::Text(Text { schema: SCHEMA, message: "done".into() });
        call.reply.send(Reply::Done(text)).unwrap();
        let answer = asking.await.unwrap();
        assert!(answer.starts_with(" {"), "{answer:?}");
        assert!(serde_json::from_str::<Reply>(&answer).is_ok(), "{answer:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_agent_that_hangs_is_told_from_one_that_works_for_long() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("hung.sock");
        let hung = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let asking = tokio::task::spawn_blocking(move || call(&path, &Request::Reload));
        let error = asking.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Hangs { pid: Some(_), .. }), "{error}");
        assert_eq!(error.code(), 3);
        drop(hung);

        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, mut calls) = queues();
        tokio::spawn(server.serve(sender, Bus::default(), None));
        let within = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                call_within(&path, &Request::Detach, Duration::from_millis(1200))
            })
        };
        let unheard = calls.recv().await.unwrap();
        let error = within.await.unwrap().unwrap_err();
        assert!(
            matches!(error, CallError::Hangs { .. }),
            "it lives, but has no more time: {error}"
        );
        drop(unheard);
        let asking = tokio::task::spawn_blocking(move || call(&path, &Request::Reload));
        let Asked::Call(late) = calls.recv().await.unwrap() else { panic!("no call") };
        tokio::time::sleep(Duration::from_secs(6)).await;
        let text = Document::Text(Text { schema: SCHEMA, message: "done".into() });
        late.reply.send(Reply::Done(text.clone())).unwrap();
        assert_eq!(asking.await.unwrap().unwrap(), text);
    }

    /// Who sends a block list waits until the one before has been dealt with; a question does not.
    #[tokio::test(flavor = "multi_thread")]
    async fn one_block_list_is_taken_at_a_time() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, mut calls) = queues();
        tokio::spawn(server.serve(sender, Bus::default(), None));
        let first = {
            let path = path.clone();
            // more than the socket holds: once it is written, the server is at it
            tokio::task::spawn_blocking(move || {
                let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
                stream.write_all(&[b' '; 2 << 20]).unwrap();
                stream
            })
        };
        let first = first.await.unwrap();
        let targets: Vec<IpNet> = (0..20_000_u32)
            .map(|number| IpNet::from(std::net::IpAddr::from(number.to_be_bytes())))
            .collect();
        let other = path.clone();
        let asked =
            Request::Unban { targets: targets.clone(), all: false, jail: None, reason: None };
        let second = tokio::task::spawn_blocking(move || call(&other, &asked));
        let short = tokio::task::spawn_blocking(move || call(&path, &Request::Reload));
        let mut answer = async || {
            let Some(Asked::Call(taken)) = calls.recv().await else { panic!("no call") };
            let text = Document::Text(Text { schema: SCHEMA, message: "done".into() });
            taken.reply.send(Reply::Done(text)).unwrap();
            taken.request
        };
        assert_eq!(answer().await, Request::Reload);
        short.await.unwrap().unwrap();
        drop(first);
        let mut parts = Vec::new();
        while parts.len() < targets.len() {
            let Request::Unban { targets, .. } = answer().await else { panic!("no part of it") };
            parts.extend(targets);
        }
        assert!(parts == targets, "the parts are the list");
        second.await.unwrap().unwrap();
    }

    /// Each part is answered at once; together they take longer than an agent may be silent.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_many_parts_hears_that_the_agent_lives() {
        use std::io::Read as _;
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, mut calls) = queues();
        tokio::spawn(server.serve(sender, Bus::default(), None));
        let (heard, mut hears) = mpsc::channel(1);
        tokio::spawn(async move {
            let more = Some(prefix(0));
            while hears.try_recv().is_err()
                && let Some(Asked::Roll(roll)) = calls.recv().await
            {
                let _ = roll.reply.send(Ok(Rolled { list: None, bans: Vec::new(), last: more }));
            }
        });
        let first = tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(b"{\"verb\":\"list\",\"jail\":null,\"limit\":null}\n").unwrap();
            stream.set_read_timeout(Some(crate::patience::patience())).unwrap();
            let mut first = [0];
            stream.read_exact(&mut first).unwrap();
            first
        });
        assert_eq!(first.await.unwrap(), *b" ");
        heard.send(()).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        std::fs::write(&path, "dear").unwrap();
        let refused = Server::open(&path, Access::default()).await;
        assert!(matches!(refused, Err(ServerError::Occupied(_))), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"dear");
        std::fs::remove_file(&path).unwrap();
        // as a crash leaves it
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(Server::open(&path, Access::default()).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn more_connections_than_there_are_places_are_turned_away() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("control.sock");
        let server = Server::open(&path, Access::default()).await.unwrap();
        let (sender, calls) = queues();
        tokio::spawn(server.serve(sender, Bus::default(), None));
        tokio::spawn(tell(calls, 10));
        let crowd: Vec<_> =
            (0..200).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
        let refused = {
            let path = path.clone();
            let asking = tokio::task::spawn_blocking(move || call(&path, &Request::Reload));
            asking.await.unwrap().unwrap_err()
        };
        assert!(refused.to_string().contains("too many connections"), "{refused}");
        drop(crowd);
        tokio::time::timeout(crate::patience::patience(), async {
            loop {
                let path = path.clone();
                let asking = tokio::task::spawn_blocking(move || call(&path, &Request::Reload));
                if asking.await.unwrap().unwrap_err().to_string() == "no" {
                    return;
                }
            }
        })
        .await
        .unwrap();
    }
}
