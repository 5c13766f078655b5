//! One connection of the control socket: reads its request, checks who asks, hands it on, and
//! writes the answer, all within limits of time. Who leaves or does not read is forgotten, and what
//! he asked with him. What is about many bans goes to the core in parts, one after the other, so that
//! it is held up by none: a list is fetched, made and written here page by page, and a change of many
//! is a row of small ones. Who leaves in the middle of one leaves it half done; again, it is finished.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest},
    net::UnixStream,
    sync::{Semaphore, SemaphorePermit, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, timeout},
};

use super::{
    Ban, Changes, Choice, Document, Drift, Held, List, MAX_QUESTION, MAX_REQUEST, Refusal, Reply,
    Request, SCHEMA,
    limits::Rank,
    parts::{Gathered, TOLD, WINDOW, cut},
    past, watch,
};
use crate::{
    clock::Boot,
    dataplane::Sweep,
    event::{Bus, Wanted},
    net::IpNet,
    store::{Asker, Many, Origin, Recall, import::Former},
};

/// How long a request may take to arrive; and one that may be a block list of a million prefixes.
const REQUEST: Duration = Duration::from_secs(5);
const BLOCK_LIST: Duration = Duration::from_secs(30);
/// How long a part of the answer may take to be read.
const PROGRESS: Duration = Duration::from_secs(10);
/// What has to be read within [`PROGRESS`].
const PIECE: usize = 64 << 10;
/// How often it is looked whether somebody still waits for his answer.
const LOOK: Duration = Duration::from_millis(100);
/// How often somebody who waits is told that the agent lives: with a space, which JSON ignores.
const LIFE: Duration = Duration::from_secs(1);
/// Bans that the core describes at once.
const PAGE: usize = 256;
/// Parts of a request that are on their way at once.
const AHEAD: usize = 16;
/// Windows of a change that may wait for the disk at once.
const BEHIND: usize = 2;
/// Deeds that `show` tells of an address.
const DEEDS: usize = 5;

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Takes one answer; closed when nobody waits for it any more.
    pub reply: oneshot::Sender<Reply>,
    /// Who asks.
    pub user: Option<Arc<Asker>>,
    /// More of the same follows: the answer does not wait for the disk.
    pub more: bool,
    /// So much of the same came before that no target of this is told of any more.
    pub quiet: bool,
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
    /// Let go of some more.
    Release(Release),
    /// Where do some more differ from the kernel's?
    Compare(Compare),
}

impl Asked {
    /// A word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Asked::Call(call) => call.request.name(),
            Asked::Roll(_) | Asked::Page(_) => "list",
            Asked::Release(_) => "unban",
            Asked::Compare(_) => "doctor",
        }
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        match self {
            Asked::Call(call) => call.reply.is_closed(),
            Asked::Roll(roll) => roll.reply.is_closed(),
            Asked::Page(page) => page.reply.is_closed(),
            Asked::Release(release) => release.reply.is_closed(),
            Asked::Compare(compare) => compare.reply.is_closed(),
        }
    }
}

/// Asks who is banned, some at a time.
#[derive(Debug)]
pub struct Roll {
    /// Only those that this jail holds.
    pub jail: Option<String>,
    /// Those behind this one, in the ledger's order; `None`: the first ones.
    pub after: Option<IpNet>,
    /// Takes the answer.
    pub reply: oneshot::Sender<Result<Rolled, Refusal>>,
}

/// Some of those who are banned.
#[derive(Debug)]
pub struct Rolled {
    /// The answer, without bans; with the first ones.
    pub list: Option<List>,
    /// With their ends, in the ledger's order.
    pub bans: Vec<(Boot, IpNet)>,
    /// The last that was looked at; `None`: there are no more.
    pub last: Option<IpNet>,
}

/// Asks to let go of everybody, some at a time.
#[derive(Debug)]
pub struct Release {
    /// Only of this jail's claims.
    pub jail: Option<String>,
    /// Of those behind this one, in the ledger's order; `None`: the first ones.
    pub after: Option<IpNet>,
    /// Takes the answer.
    pub reply: oneshot::Sender<Result<Released, Refusal>>,
    /// Who asks.
    pub user: Option<Arc<Asker>>,
    /// Why; with the first ones.
    pub reason: Option<String>,
    /// So many were let go before that of no more is told.
    pub quiet: bool,
}

/// Whom one part let go.
#[derive(Debug)]
pub struct Released {
    /// What changed.
    pub changes: Changes,
    /// The last that was looked at; `None`: there are no more.
    pub last: Option<IpNet>,
    /// Why not all of it is in force yet.
    pub trouble: Option<Refusal>,
}

/// Asks where the kernel's maps differ from the ledger, some at a time.
#[derive(Debug)]
pub struct Compare {
    /// How far it has come.
    pub round: Round,
    /// Takes it back, further on.
    pub reply: oneshot::Sender<Result<Round, Refusal>>,
}

/// How far a comparison has come, and what it has found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// What is looked at next; `None`: it is over.
    pub stage: Option<Stage>,
    /// Bans that the kernel does not hold as they are.
    pub missing: usize,
    /// What the kernel holds beside them.
    pub surplus: usize,
    /// Kernel steps that wait; once it is over.
    pub pending: usize,
}

/// What a comparison of ledger and maps looks at.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// The ledger's bans behind this one are looked up in the maps.
    Ledger(Option<IpNet>),
    /// The maps are searched for what the ledger does not have.
    Maps(Sweep),
}

/// Asks for the documents of some bans.
#[derive(Debug)]
pub struct Page {
    /// Which; not many.
    pub prefixes: Vec<IpNet>,
    /// Takes those that are still there.
    pub reply: oneshot::Sender<Result<Vec<Held>, Refusal>>,
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
    /// Who asks, once he has said so.
    pub(super) asker: OnceLock<Asker>,
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
            Ok(Request::List(choice)) => self.list(stream, choice).await,
            Ok(Request::Import { formers }) => self.import(stream, formers).await,
            Ok(Request::History(search)) => {
                let answer = past::history(self.recall.as_ref(), search);
                let reply = attended(&stream, answer).await?;
                send(&mut stream, reply).await
            }
            Ok(Request::Stats { by, since, limit }) => {
                let geo = self.bus.observer().geo();
                let answer = past::stats(self.recall.as_ref(), geo, by, since, limit);
                let reply = attended(&stream, answer).await?;
                send(&mut stream, reply).await
            }
            Ok(Request::Unban { all: true, jail, reason, .. }) => {
                let reply = self.release(&stream, jail, reason).await?;
                send(&mut stream, reply).await
            }
            Ok(request @ (Request::Ban { .. } | Request::Unban { .. })) => {
                let reply = self.change(&stream, request).await?;
                send(&mut stream, reply).await
            }
            Ok(Request::Drift) => {
                let reply = self.compare(&stream).await?;
                send(&mut stream, reply).await
            }
            Ok(request) => {
                let reply = self.call(&stream, request).await?;
                send(&mut stream, reply).await
            }
        }
    }

    /// Who asks for this.
    fn asker(&self, many: Many) -> Arc<Asker> {
        let asker = self.asker.get().cloned();
        let asker = asker.unwrap_or_else(|| Asker { user: self.user, ..Asker::default() });
        Arc::new(Asker { many, ..asker })
    }

    async fn call(&self, stream: &UnixStream, request: Request) -> io::Result<Reply> {
        let (reply, answer) = oneshot::channel();
        let user = Some(self.asker(Many::No));
        let call = Call { request, reply, user, more: false, quiet: false };
        let reply = self.ask(stream, Asked::Call(call), answer).await?;
        Ok(reply.unwrap_or_else(Reply::Error))
    }

    /// Has the core change something, in parts; the next ones are on their way before it has answered
    /// one. The last part waits for the disk, and some do in between: what is not written yet is
    /// bounded. Where one is refused, the others are tried all the same, and that is the answer.
    async fn change(&self, stream: &UnixStream, request: Request) -> io::Result<Reply> {
        let verb = request.name();
        let mut many = Many::First(match &request {
            Request::Ban { targets, .. } | Request::Unban { targets, .. } => targets.len(),
            Request::Import { formers } => formers.len(),
            _ => 0,
        });
        let mut parts = cut(request).peekable();
        let cut_up = parts.peek().is_some_and(|(size, _)| *size > 0);
        let (mut ahead, mut behind) = (VecDeque::new(), VecDeque::new());
        let (mut gathered, mut refused, mut window) = (Gathered::default(), None, 0);
        let mut given = 0;
        let mut take = |reply| match reply {
            Some(Reply::Done(Document::Changes(changes))) => gathered.add(changes),
            Some(Reply::Done(_)) => {}
            Some(Reply::Error(refusal)) => drop(refused.get_or_insert(refusal)),
            None => drop(refused.get_or_insert(stopping())),
        };
        let mut pulse = Pulse::new();
        while let Some((size, request)) = parts.next() {
            pulse.beat(stream)?;
            window += size;
            let more = parts.peek().is_some() && window < WINDOW;
            let (reply, answer) = oneshot::channel();
            let quiet = given >= TOLD;
            given += size;
            let user = Some(self.asker(if cut_up { many } else { Many::No }));
            many = Many::Rest;
            let call = Call { request, reply, user, more, quiet };
            let sent = attended(stream, self.queue.send(Asked::Call(call))).await?;
            if sent.is_err() {
                take(None);
                break;
            }
            let (waiting, most) = if more {
                (&mut ahead, AHEAD)
            } else {
                window = 0;
                (&mut behind, BEHIND)
            };
            waiting.push_back(answer);
            if waiting.len() >= most
                && let Some(answer) = waiting.pop_front()
            {
                take(attended(stream, answer).await?.ok());
            }
        }
        for answer in ahead.into_iter().chain(behind) {
            take(attended(stream, answer).await?.ok());
        }
        tell_of_many(verb, given);
        Ok(refused.map_or_else(|| Reply::Done(Document::Changes(gathered.finish())), Reply::Error))
    }

    /// Has the core let go of everybody, in parts, and waits for the disk at the end.
    async fn release(
        &self,
        stream: &UnixStream,
        jail: Option<String>,
        reason: Option<String>,
    ) -> io::Result<Reply> {
        let (mut gathered, mut after, mut window) = (Gathered::default(), None, 0);
        let (mut refused, mut pulse, mut given) = (None, Pulse::new(), 0);
        loop {
            pulse.beat(stream)?;
            let (reply, answer) = oneshot::channel();
            let (jail, quiet) = (jail.clone(), given >= TOLD);
            let (user, reason) = (Some(self.asker(Many::Rest)), reason.clone());
            let release = Release { jail, after, reply, user, reason, quiet };
            let released = self.ask(stream, Asked::Release(release), answer).await?;
            let Released { changes, last, trouble } = match released.and_then(|released| released) {
                Ok(released) => released,
                Err(refusal) => return Ok(Reply::Error(refusal)),
            };
            refused = refused.or(trouble);
            window += changes.changes.len();
            given += changes.changes.len();
            gathered.add(changes);
            after = last;
            if after.is_none() || window >= WINDOW {
                window = 0;
                // of nobody: it is answered once all before it is on disk
                let (targets, all, jail, reason) = (Vec::new(), false, None, None);
                let nobody = Request::Unban { targets, all, jail, reason };
                match self.call(stream, nobody).await? {
                    Reply::Done(Document::Changes(changes)) => gathered.add(changes),
                    other => return Ok(other),
                }
            }
            if after.is_none() {
                tell_of_many("unban", given);
                let done = || Reply::Done(Document::Changes(gathered.finish()));
                return Ok(refused.map_or_else(done, Reply::Error));
            }
        }
    }

    /// Compares the ledger with the maps, in parts.
    async fn compare(&self, stream: &UnixStream) -> io::Result<Reply> {
        let mut round = Round { stage: Some(Stage::Ledger(None)), ..Round::default() };
        let mut pulse = Pulse::new();
        while round.stage.is_some() {
            pulse.beat(stream)?;
            let (reply, answer) = oneshot::channel();
            let compared =
                self.ask(stream, Asked::Compare(Compare { round, reply }), answer).await?;
            round = match compared.and_then(|compared| compared) {
                Ok(round) => round,
                Err(refusal) => return Ok(Reply::Error(refusal)),
            };
        }
        let Round { missing, surplus, pending, .. } = round;
        Ok(Reply::Done(Document::Drift(Drift { schema: SCHEMA, missing, surplus, pending })))
    }

    /// Asks for the documents of some bans.
    async fn page(
        &self,
        stream: &UnixStream,
        some: &[(Boot, IpNet)],
    ) -> io::Result<oneshot::Receiver<Result<Vec<Held>, Refusal>>> {
        let (reply, answer) = oneshot::channel();
        let prefixes = some.iter().map(|(_, prefix)| *prefix).collect();
        // a core that is gone has dropped the other end of the answer
        let _ = attended(stream, self.queue.send(Asked::Page(Page { prefixes, reply }))).await?;
        Ok(answer)
    }

    /// Some bans as they are told: with what the store remembers of them, and where they are.
    async fn told(&self, stream: &UnixStream, some: Vec<Held>) -> io::Result<Vec<Ban>> {
        let facts = match &self.recall {
            Some(recall) => {
                let prefixes = some.iter().map(|held| held.prefix).collect();
                attended(stream, recall.facts(prefixes)).await?
            }
            None => HashMap::new(),
        };
        let geo = self.bus.observer().geo();
        let told = some.into_iter().map(|held| {
            let prefix = held.prefix;
            let mut ban = Ban::from(held);
            ban.place = geo.place(prefix.addr());
            if let Some(facts) = facts.get(&prefix) {
                ban.recall(facts);
            }
            ban
        });
        Ok(told.collect())
    }

    /// Why an address is banned: the core knows by whom, the disk because of what.
    async fn show(&self, mut stream: UnixStream, address: IpNet) -> io::Result<()> {
        let mut reply = self.call(&stream, Request::Show { address }).await?;
        if let (Reply::Done(Document::Show(show)), Some(recall)) = (&mut reply, &self.recall) {
            let bans = show.bans.iter().filter_map(|ban| ban.net().ok());
            let recalled = recall.of(address, bans.collect());
            let (evidence, history) = attended(&stream, recalled).await?;
            show.evidence = evidence.into_iter().map(Into::into).collect();
            show.history = history;
            if address.prefix_len() == address.max_prefix_len() {
                let deeds = attended(&stream, recall.latest(address, DEEDS)).await?;
                show.deeds = deeds.into_iter().map(Into::into).collect();
            }
        }
        if let Reply::Done(Document::Show(show)) = &mut reply {
            let geo = self.bus.observer().geo();
            for ban in &mut show.bans {
                ban.place = ban.net().map(|prefix| geo.place(prefix.addr())).unwrap_or_default();
            }
        }
        send(&mut stream, reply).await
    }

    /// Has taken over what fail2ban remembers, but for what was taken over before: that is asked of
    /// the disk here, one import after the other.
    async fn import(&self, mut stream: UnixStream, formers: Vec<Former>) -> io::Result<()> {
        let Some(recall) = &self.recall else {
            let reply = self.change(&stream, Request::Import { formers }).await?;
            return send(&mut stream, reply).await;
        };
        let _alone = attended(&stream, recall.importing()).await?;
        let reply = match attended(&stream, recall.unknown(formers)).await? {
            Some(formers) => self.change(&stream, Request::Import { formers }).await?,
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
        let parsed = tokio::task::spawn_blocking(move || {
            // one that says nothing of itself is one that says nothing
            let beside: Beside = serde_json::from_slice(&line).unwrap_or_default();
            (serde_json::from_slice(&line), beside.from)
        });
        let (parsed, origin) = attended(stream, parsed).await?.map_err(io::Error::other)?;
        let asker = Asker { user: self.user, origin: origin.bounded(), many: Many::No };
        self.asker.get_or_init(|| asker);
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
        Ok(attended(stream, answered).await?.ok_or_else(stopping))
    }

    /// Tells who is banned, in the order of the bans' ends.
    async fn list(&self, mut stream: UnixStream, choice: Choice) -> io::Result<()> {
        let Choice { jail, limit, within, country } = choice;
        // others who list may not read: they are cut off
        let _turn = attended(&stream, self.lists.acquire()).await?.map_err(io::Error::other)?;
        let (mut list, mut bans, mut after) = (None, Vec::new(), None);
        let mut pulse = Pulse::new();
        loop {
            pulse.beat(&stream)?;
            let (reply, answer) = oneshot::channel();
            let roll = Roll { jail: jail.clone(), after, reply };
            let rolled = self.ask(&stream, Asked::Roll(roll), answer).await?;
            let rolled = match rolled.and_then(|rolled| rolled) {
                Ok(rolled) => rolled,
                Err(refusal) => return send(&mut stream, Reply::Error(refusal)).await,
            };
            list = list.or(rolled.list);
            bans.extend(rolled.bans);
            after = rolled.last;
            if after.is_none() {
                break;
            }
        }
        let mut list = list.ok_or_else(|| io::Error::other("a list without a head"))?;
        let geo = self.bus.observer().geo().clone();
        let chosen = tokio::task::spawn_blocking(move || {
            let mut bans = bans;
            if let Some(within) = within {
                bans.retain(|(_, prefix)| within.contains(prefix));
            }
            if country.is_some() {
                bans.retain(|(_, prefix)| geo.place(prefix.addr()).country == country);
            }
            let total = bans.len();
            bans.sort_unstable();
            bans.truncate(limit.unwrap_or(usize::MAX));
            (total, bans)
        });
        let (total, chosen) = attended(&stream, chosen).await?.map_err(io::Error::other)?;
        list.total = total as u64;
        let frame = serde_json::to_string(&Reply::Done(Document::List(list)))?;
        let Some((head, tail)) = frame.split_once("\"bans\":[]") else {
            return Err(io::Error::other("a list without bans"));
        };
        let mut text = Vec::from(format!("{head}\"bans\":["));
        let (mut first, mut begun) = (true, false);
        let (mut pages, mut ahead) = (chosen.chunks(PAGE), VecDeque::new());
        loop {
            // the core gathers the next pages while this one is made and written
            while ahead.len() < AHEAD
                && let Some(some) = pages.next()
            {
                ahead.push_back(self.page(&stream, some).await?);
            }
            let Some(answer) = ahead.pop_front() else { break };
            let page = attended(&stream, answer).await?;
            let bans = match page.unwrap_or_else(|_| Err(stopping())) {
                Ok(bans) => bans,
                // what was begun cannot be taken back: it breaks off, which the CLI takes for a failure
                Err(refusal) if begun => return Err(io::Error::other(refusal)),
                Err(refusal) => return send(&mut stream, Reply::Error(refusal)).await,
            };
            // what the disk knows of a million would take longer than all the rest
            if chosen.len() > TOLD {
                for ban in &bans {
                    if !std::mem::take(&mut first) {
                        text.push(b',');
                    }
                    serde_json::to_writer(&mut text, ban)?;
                }
            } else {
                for ban in self.told(&stream, bans).await? {
                    if !std::mem::take(&mut first) {
                        text.push(b',');
                    }
                    serde_json::to_writer(&mut text, &ban)?;
                }
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

/// What a request says beside what it asks.
#[derive(Default, Deserialize)]
struct Beside {
    #[serde(default)]
    from: Origin,
}

/// Reads at most so much of a line, and not for longer; `false`: it did not come.
async fn read(
    stream: &mut UnixStream,
    most: u64,
    patience: Duration,
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    // without more room than that: what is read ahead would be lost
    let room = usize::try_from(most).unwrap_or(usize::MAX).min(PIECE);
    let mut reader = BufReader::with_capacity(room, stream.take(most));
    match timeout(patience, reader.read_until(b'\n', line)).await {
        Ok(read) => read.map(|_| true),
        Err(_) => Ok(false),
    }
}

/// One line for the log, in place of those that were not written.
fn tell_of_many(verb: &str, targets: usize) {
    if targets > TOLD {
        log::info!(
            "{verb}: {targets} targets, of which the first {TOLD} or so are told one by one"
        );
    }
}

fn stopping() -> Refusal {
    Refusal {
        code: 3,
        message: "the agent is stopping".into(),
        hint: Some("bans stay enforced".into()),
    }
}

fn refuse<T>(code: u8, message: impl Into<String>, hint: Option<&str>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into(), hint: hint.map(Into::into) })
}

/// Lets the other end know that we live, over many waits of which each is short.
struct Pulse(Instant);

impl Pulse {
    fn new() -> Pulse {
        Pulse(Instant::now() + LIFE)
    }

    /// A sign of life, if one is due.
    fn beat(&mut self, stream: &UnixStream) -> io::Result<()> {
        let now = Instant::now();
        if now < self.0 {
            return Ok(());
        }
        self.0 = now + LIFE;
        match stream.try_write(b" ") {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

/// Waits for something as long as the other end is there, and lets it know that we are.
async fn attended<T>(stream: &UnixStream, answer: impl Future<Output = T>) -> io::Result<T> {
    let mut answer = std::pin::pin!(answer);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pulse = Pulse::new();
    loop {
        tokio::select! {
            biased;
            _ = look.tick() => {
                // its own end being shut is no reason: it may have no more to say, and listen
                let ready = timeout(Duration::ZERO, stream.ready(Interest::WRITABLE)).await;
                if let Ok(ready) = ready && ready?.is_write_closed() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                pulse.beat(stream)?;
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
    for part in text.chunks(PIECE) {
        match timeout(PROGRESS, stream.write_all(part)).await {
            Ok(written) => written?,
            Err(_) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads the answer"));
            }
        }
    }
    Ok(())
}
