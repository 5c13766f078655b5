//! Reads beside the writer, on a thread of its own: a disk that hangs holds the one who asks up for
//! [`PATIENCE`] once, and not again before it has answered.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use super::{schema, writer::Shared};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Reads from the file, if there is one.
type Job = Box<dyn FnOnce(Option<&Connection>) + Send>;

/// What the reading thread is told.
pub(super) enum Ask {
    /// To do this.
    Read(Job),
    /// To close the file: as long as one has it open for reading only, no process can write it, not
    /// even when its disk can be written again.
    LetGo,
    /// To end.
    End,
}

/// The handle of the reading thread.
#[derive(Debug)]
pub(super) struct Reader {
    asks: Sender<Ask>,
    /// It has not answered yet.
    busy: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Reader {
    /// Starts the thread, which opens the file when it is asked.
    pub(super) fn start(path: PathBuf, shared: Arc<Shared>) -> io::Result<Reader> {
        let (asks, asked) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store-reader".to_owned())
            .spawn(move || answer(&path, &shared, &asked))?;
        Ok(Reader { asks, busy: Arc::default(), thread: Mutex::new(Some(thread)) })
    }

    /// Returns where the writer says [`Ask::LetGo`].
    pub(super) fn sender(&self) -> Sender<Ask> {
        self.asks.clone()
    }

    /// Has the thread read; `None` if there is no file, or no answer.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Option<T> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (tell, told) = sync_channel(1);
        let busy = Arc::clone(&self.busy);
        let job: Job = Box::new(move |db| {
            let answer = db.map(read);
            busy.store(false, Ordering::Release);
            // who asked may have lost patience
            let _ = tell.send(answer);
        });
        self.asks.send(Ask::Read(job)).ok()?;
        match told.recv_timeout(PATIENCE) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                log::error!("the store does not answer: what it remembers is not considered");
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Ends the thread, unless it hangs.
    pub(super) fn finish(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let told = self.asks.send(Ask::End).is_ok();
        if told
            && !self.busy.load(Ordering::Acquire)
            && thread.is_some_and(|thread| thread.join().is_err())
        {
            log::error!("the store's reading thread has panicked");
        }
    }
}

/// Answers with the file that the writer has open now.
fn answer(path: &std::path::Path, shared: &Shared, asked: &Receiver<Ask>) {
    let mut open: Option<(u64, Connection)> = None;
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Read(job) => {
                let generation = shared.generation.load(Ordering::Acquire);
                if open.as_ref().is_none_or(|(opened, _)| *opened != generation) {
                    open = schema::open_to_read(path).ok().map(|db| (generation, db));
                }
                job(open.as_ref().map(|(_, db)| db));
                if !shared.state().is_sound() {
                    // it may keep the writer out
                    open = None;
                }
            }
            Ask::LetGo => open = None,
            Ask::End => return,
        }
    }
}
