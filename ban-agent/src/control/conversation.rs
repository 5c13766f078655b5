//! One connection of the control socket: reads its request, checks who asks, hands it on, and
//! writes the answer, all within limits of time. Who leaves or does not read is forgotten, and what
//! he asked with him. A list is fetched, made and written here, page by page; the core only says
//! who is banned.

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest},
    net::UnixStream,
    sync::{Semaphore, SemaphorePermit, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, timeout},
};

use super::{
    Ban, Document, List, MAX_QUESTION, MAX_REQUEST, Refusal, Reply, Request, limits::Rank, watch,
};
use crate::{
    clock::Boot,
    event::{Bus, Wanted},
    net::IpNet,
    store::{Recall, import::Former},
};

/// How long a request may take to arrive; and one that may be a block list of a million prefixes.
const REQUEST: Duration = Duration::from_secs(5);
const BLOCK_LIST: Duration = Duration::from_secs(30);
/// How long a part of the answer may take to be read.
const PROGRESS: Duration = Duration::from_secs(10);
/// What has to be read within [`PROGRESS`].
const PART: usize = 64 << 10;
/// How often it is looked whether somebody still waits for his answer.
const LOOK: Duration = Duration::from_millis(100);
/// How often somebody who waits is told that the agent lives: with a space, which JSON ignores.
const LIFE: Duration = Duration::from_secs(1);
/// Bans that the core describes at once.
const PAGE: usize = 256;

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Takes one answer; closed when nobody waits for it any more.
    pub reply: oneshot::Sender<Reply>,
    /// Who asks: a user id.
    pub user: Option<u32>,
}

/// Everything that the socket's end asks the core.
#[derive(Debug)]
pub enum Asked {
    /// A request whose answer is one document.
    Call(Call),
    /// Who is banned.
    Roll(Roll),
    /// More of some of them.
    Page(Page),
}

impl Asked {
    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        match self {
            Asked::Call(call) => call.reply.is_closed(),
            Asked::Roll(roll) => roll.reply.is_closed(),
            Asked::Page(page) => page.reply.is_closed(),
        }
    }
}

/// Asks who is banned.
#[derive(Debug)]
pub struct Roll {
    /// Only those that this jail holds.
    pub jail: Option<String>,
    /// Takes the answer.
    pub reply: oneshot::Sender<Result<Rolled, Refusal>>,
}

/// Who is banned.
#[derive(Debug)]
pub struct Rolled {
    /// The answer, without bans.
    pub list: List,
    /// All of them with their ends, in no order.
    pub bans: Vec<(Boot, IpNet)>,
}

/// Asks for the documents of some bans.
#[derive(Debug)]
pub struct Page {
    /// Which; not many.
    pub prefixes: Vec<IpNet>,
    /// Takes those that are still there.
    pub reply: oneshot::Sender<Result<Vec<Ban>, Refusal>>,
}

/// Where the core takes requests from: those who may only look wait behind everything else.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Of root and the operators.
    pub operators: mpsc::Sender<Asked>,
    /// Of those who may only look.
    pub readers: mpsc::Sender<Asked>,
}

impl Queues {
    pub(super) async fn closed(&self) {
        self.operators.closed().await;
    }

    pub(super) fn of(&self, rank: Rank) -> mpsc::Sender<Asked> {
        match rank {
            Rank::Reader => self.readers.clone(),
            Rank::Operator | Rank::Root => self.operators.clone(),
        }
    }
}

/// What a connection needs to be served.
pub(super) struct Conversation {
    pub(super) user: u32,
    pub(super) rank: Rank,
    pub(super) queue: mpsc::Sender<Asked>,
    /// For those who want a list.
    pub(super) lists: Arc<Semaphore>,
    /// For those who send a long request: see [`MAX_REQUEST`].
    pub(super) long: Arc<Semaphore>,
    pub(super) bus: Bus,
    /// What the disk remembers; `None`: nothing.
    pub(super) recall: Option<Recall>,
}

impl Conversation {
    /// Until it ends.
    pub(super) async fn hold(self, mut stream: UnixStream) -> io::Result<()> {
        let mut turn = None;
        let request = self.request(&mut stream, &mut turn).await?;
        if !request.as_ref().is_ok_and(Request::changes) {
            drop(turn.take());
        }
        match request {
            Err(refusal) => send(&mut stream, Reply::Error(refusal)).await,
            Ok(Request::Watch { failures, drops }) => {
                watch::serve(stream, &self.bus, Wanted { failures, drops }).await
            }
            Ok(Request::Show { address }) => self.show(stream, address).await,
            Ok(Request::List { jail, limit }) => self.list(stream, jail, limit).await,
            Ok(Request::Import { formers }) => self.import(stream, formers).await,
            Ok(request) => {
                let reply = self.call(&stream, request).await?;
                send(&mut stream, reply).await
            }
        }
    }

    async fn call(&self, stream: &UnixStream, request: Request) -> io::Result<Reply> {
        let (reply, answer) = oneshot::channel();
        let call = Call { request, reply, user: Some(self.user) };
        let reply = self.ask(stream, Asked::Call(call), answer).await?;
        Ok(reply.unwrap_or_else(Reply::Error))
    }

    /// Why an address is banned: the core knows by whom, the disk because of what.
    async fn show(&self, mut stream: UnixStream, address: IpNet) -> io::Result<()> {
        let mut reply = self.call(&stream, Request::Show { address }).await?;
        if let (Reply::Done(Document::Show(show)), Some(recall)) = (&mut reply, &self.recall) {
            let bans = show
                .bans
                .iter()
                .filter_map(|ban| IpNet::new(ban.address.parse().ok()?, ban.prefix).ok());
            let recalled = recall.of(address, bans.collect());
            let (evidence, history) = attended(&stream, recalled).await?;
            show.evidence = evidence.into_iter().map(Into::into).collect();
            show.history = history;
        }
        send(&mut stream, reply).await
    }

    /// Has taken over what fail2ban remembers, but for what was taken over before: that is asked of
    /// the disk here, one import after the other.
    async fn import(&self, mut stream: UnixStream, formers: Vec<Former>) -> io::Result<()> {
        let Some(recall) = &self.recall else {
            let reply = self.call(&stream, Request::Import { formers }).await?;
            return send(&mut stream, reply).await;
        };
        let _alone = attended(&stream, recall.importing()).await?;
        let reply = match attended(&stream, recall.unknown(formers)).await? {
            Some(formers) => self.call(&stream, Request::Import { formers }).await?,
            None => Reply::Error(Refusal {
                code: 2,
                message: "the store does not answer".into(),
                hint: Some(
                    "nothing was changed; try again when `status` says that it is ok".into(),
                ),
            }),
        };
        send(&mut stream, reply).await
    }

    /// What is asked, if it may be. Who sends more than a question takes a `turn`, as long as it
    /// lasts: so much memory is spent once, not for each connection.
    async fn request<'s>(
        &'s self,
        stream: &mut UnixStream,
        turn: &mut Option<SemaphorePermit<'s>>,
    ) -> io::Result<Result<Request, Refusal>> {
        let may_change = self.rank != Rank::Reader;
        let patience = if may_change { BLOCK_LIST } else { REQUEST };
        let late = || Ok(refuse(2, "the request did not arrive in time", None));
        let mut line = Vec::new();
        if !read(stream, MAX_QUESTION, patience, &mut line).await? {
            return late();
        }
        // who only reads sends no block list
        if may_change && line.last() != Some(&b'\n') && line.len() as u64 == MAX_QUESTION {
            *turn = Some(attended(stream, self.long.acquire()).await?.map_err(io::Error::other)?);
            if !read(stream, MAX_REQUEST - MAX_QUESTION, patience, &mut line).await? {
                return late();
            }
        }
        if line.last() != Some(&b'\n') {
            return Ok(refuse(2, "the request is too long or was cut off", None));
        }
        // a long one takes time, in which the client hears that we live
        let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice(&line));
        let parsed = attended(stream, parsed).await?.map_err(io::Error::other)?;
        let request: Request = match parsed {
            Ok(request) => request,
            Err(error) => {
                let hint = "the agent may be of another version: restart it";
                return Ok(refuse(2, format!("cannot read the request: {error}"), Some(hint)));
            }
        };
        if request.changes() && !may_change {
            return Ok(refuse(
                4,
                "not permitted: you may look, but only root and the operators change anything",
                Some("use sudo, or have your user named in [agent] operators"),
            ));
        }
        Ok(Ok(request))
    }

    /// Has the core answer, as long as somebody waits for it.
    async fn ask<T>(
        &self,
        stream: &UnixStream,
        asked: Asked,
        answer: oneshot::Receiver<T>,
    ) -> io::Result<Result<T, Refusal>> {
        let answered = async {
            self.queue.send(asked).await.ok()?;
            answer.await.ok()
        };
        let stopping = || Refusal {
            code: 3,
            message: "the agent is stopping".into(),
            hint: Some("bans stay enforced".into()),
        };
        Ok(attended(stream, answered).await?.ok_or_else(stopping))
    }

    /// Tells who is banned, in the order of the bans' ends.
    async fn list(
        &self,
        mut stream: UnixStream,
        jail: Option<String>,
        limit: Option<usize>,
    ) -> io::Result<()> {
        // others who list may not read: they are cut off
        let _turn = attended(&stream, self.lists.acquire()).await?.map_err(io::Error::other)?;
        let (reply, answer) = oneshot::channel();
        let rolled = self.ask(&stream, Asked::Roll(Roll { jail, reply }), answer).await?;
        let Rolled { list, bans } = match rolled.and_then(|rolled| rolled) {
            Ok(rolled) => rolled,
            Err(refusal) => return send(&mut stream, Reply::Error(refusal)).await,
        };
        let chosen = tokio::task::spawn_blocking(move || {
            let mut bans = bans;
            bans.sort_unstable();
            bans.truncate(limit.unwrap_or(usize::MAX));
            bans
        });
        let chosen = attended(&stream, chosen).await?.map_err(io::Error::other)?;
        let frame = serde_json::to_string(&Reply::Done(Document::List(list)))?;
        let Some((head, tail)) = frame.split_once("\"bans\":[]") else {
            return Err(io::Error::other("a list without bans"));
        };
        let mut text = Vec::from(format!("{head}\"bans\":["));
        let (mut first, mut begun) = (true, false);
        for some in chosen.chunks(PAGE) {
            let (reply, answer) = oneshot::channel();
            let prefixes = some.iter().map(|(_, prefix)| *prefix).collect();
            let page = self.ask(&stream, Asked::Page(Page { prefixes, reply }), answer).await?;
            let bans = match page.and_then(|page| page) {
                Ok(bans) => bans,
                // what was begun cannot be taken back: it breaks off, which the CLI takes for a failure
                Err(refusal) if begun => return Err(io::Error::other(refusal)),
                Err(refusal) => return send(&mut stream, Reply::Error(refusal)).await,
            };
            for ban in &bans {
                if !std::mem::take(&mut first) {
                    text.push(b',');
                }
                serde_json::to_writer(&mut text, ban)?;
            }
            begun = true;
            write(&mut stream, &text).await?;
            text.clear();
        }
        text.extend_from_slice(b"]");
        text.extend_from_slice(tail.as_bytes());
        text.push(b'\n');
        write(&mut stream, &text).await
    }
}

/// Reads at most so much of a line, and not for longer; `false`: it did not come.
async fn read(
    stream: &mut UnixStream,
    most: u64,
    patience: Duration,
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    // without more room than that: what is read ahead would be lost
    let room = usize::try_from(most).unwrap_or(usize::MAX).min(PART);
    let mut reader = BufReader::with_capacity(room, stream.take(most));
    match timeout(patience, reader.read_until(b'\n', line)).await {
        Ok(read) => read.map(|_| true),
        Err(_) => Ok(false),
    }
}

fn refuse<T>(code: u8, message: impl Into<String>, hint: Option<&str>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into(), hint: hint.map(Into::into) })
}

/// Waits for something as long as the other end is there, and lets it know that we are.
async fn attended<T>(stream: &UnixStream, answer: impl Future<Output = T>) -> io::Result<T> {
    let mut answer = std::pin::pin!(answer);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lives = Instant::now() + LIFE;
    loop {
        tokio::select! {
            biased;
            now = look.tick() => {
                // its own end being shut is no reason: it may have no more to say, and listen
                let ready = timeout(Duration::ZERO, stream.ready(Interest::WRITABLE)).await;
                if let Ok(ready) = ready && ready?.is_write_closed() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                if now >= lives {
                    lives = now + LIFE;
                    match stream.try_write(b" ") {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                        _ => {}
                    }
                }
            }
            answer = &mut answer => return Ok(answer),
        }
    }
}

pub(super) async fn send(stream: &mut UnixStream, reply: Reply) -> io::Result<()> {
    let made = tokio::task::spawn_blocking(move || {
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        io::Result::Ok(line)
    });
    let line = attended(stream, made).await?.map_err(io::Error::other)??;
    write(stream, &line).await
}

/// Writes to somebody who reads; who does not is cut off.
async fn write(stream: &mut UnixStream, text: &[u8]) -> io::Result<()> {
    for part in text.chunks(PART) {
        match timeout(PROGRESS, stream.write_all(part)).await {
            Ok(written) => written?,
            Err(_) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads the answer"));
            }
        }
    }
    Ok(())
}
