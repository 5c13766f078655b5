//! Asks a jail's `ignorecommand` before an offence becomes a ban. Only the offence waits, neither
//! the jail nor the core; its lines are not recorded as handled before it is decided. No answer is no pardon: a command that fails or takes too long, or too
//! many offences at once, leave the ban as it is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{actions::ticket_of, message::Message, order::Receipt, worker::Counters};
use crate::{
    action::{Answers, ask},
    jail::IgnoreCommand,
};

/// Offences that may wait for their answers.
const QUEUE: usize = 1024;
/// Commands of one jail that run at once.
const AT_ONCE: usize = 4;

/// Where a jail's offences go first.
pub(super) type Sender = mpsc::Sender<Offence>;

/// A sentence that waits, and the lines that led to it.
pub(super) type Offence = (Message, Arc<Receipt>);

struct Inquiry {
    jail: Arc<str>,
    command: Arc<str>,
    answers: Option<Answers>,
    counters: Arc<Counters>,
    core: mpsc::Sender<Message>,
}

/// What a command has said.
struct Said {
    key: Option<String>,
    answer: Result<bool, String>,
    offence: Offence,
}

/// Starts asking for a jail; ends when the sender is dropped.
pub(super) fn start(
    jail: Arc<str>,
    rule: &IgnoreCommand,
    counters: Arc<Counters>,
    core: mpsc::Sender<Message>,
) -> Sender {
    let (sender, offences) = mpsc::channel(QUEUE);
    let answers =
        rule.cache.as_ref().map(|cache| Answers::new(&cache.key, cache.count, cache.time));
    let command = rule.command.as_str().into();
    tokio::spawn(Inquiry { jail, command, answers, counters, core }.run(offences));
    sender
}

impl Inquiry {
    async fn run(mut self, mut offences: mpsc::Receiver<Offence>) {
        let mut asking: JoinSet<Said> = JoinSet::new();
        loop {
            tokio::select! {
                Some(said) = asking.join_next() => {
                    if let Ok(said) = said {
                        self.decide(said).await;
                    }
                }
                offence = offences.recv(), if asking.len() < AT_ONCE => {
                    let Some(offence) = offence else { break };
                    self.ask(offence, &mut asking).await;
                }
            }
        }
        // the jail is gone, but what it found is not
        while let Some(said) = asking.join_next().await {
            if let Ok(said) = said {
                self.decide(said).await;
            }
        }
    }

    async fn ask(&mut self, offence: Offence, asking: &mut JoinSet<Said>) {
        let Message::Sentence { sentence, .. } = &offence.0 else { return };
        let ticket = ticket_of(sentence);
        let key = self.answers.as_ref().map(|answers| answers.key(&ticket));
        let known = key.as_ref().and_then(|key| self.answers.as_ref()?.get(key, Instant::now()));
        if let Some(answer) = known {
            return self.decide(Said { key: None, answer: Ok(answer), offence }).await;
        }
        let command = Arc::clone(&self.command);
        asking.spawn(async move { Said { key, answer: ask(&command, &ticket).await, offence } });
    }

    async fn decide(&mut self, said: Said) {
        let Said { key, answer, offence } = said;
        let (message, _lines) = offence;
        let Message::Sentence { sentence, .. } = &message else { return };
        match &answer {
            Ok(pardoned) => {
                if let (Some(answers), Some(key)) = (&mut self.answers, key) {
                    answers.set(key, *pardoned, Instant::now());
                }
            }
            Err(error) => {
                log::error!("[{}] ignorecommand of {} failed: {error}", self.jail, sentence.prefix);
            }
        }
        if answer == Ok(true) {
            self.counters.pardoned.fetch_add(1, Ordering::Relaxed);
            log::info!("[{}] {} is ignored: ignorecommand says so", self.jail, sentence.prefix);
            return;
        }
        // the core is gone: the agent ends
        let _ = self.core.send(message).await;
    }
}
