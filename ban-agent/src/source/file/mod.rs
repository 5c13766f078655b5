//! The file source: follows what a path or glob names, through whatever becomes of it. One thread,
//! which may wait for a disk; no wake-up without an event or a deadline.
//!
//! [`files`] is the whole of it without waiting; [`watch`] knows when to look; here they meet.

mod container;
#[cfg(test)]
mod disk;
mod files;
mod follow;
#[cfg(test)]
mod model;
mod names;
mod resolve;
#[cfg(test)]
mod seams;
mod siblings;
#[cfg(test)]
mod storm;
mod tail;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time};

pub(super) use self::container::{Format, Unwrap};
use self::{files::Files, resolve::Target, watch::Watch};
use super::{Batch, Error, Limits, Looked, Resume, Start, Stats};

/// Where another process may come between two of our steps; in the tests one does.
#[cfg(not(test))]
const fn seam() {}
#[cfg(test)]
use self::seams::seam;

/// How long until a file that could not be opened is tried again without an event.
const RETRY: Duration = Duration::from_secs(10);
/// How long until names that changed too fast are looked at again.
const UNREST: Duration = Duration::from_millis(5);
/// Events that come this close to each other, [`BURST`] times in a row, are taken together:
/// a writer of 200,000 lines a second must not cost 200,000 wake-ups.
const PAUSE: Duration = Duration::from_millis(1);
const BURST: u32 = 8;

/// Of its time, a source that follows very many files looks at names no more than one part in so
/// many; but a new name is seen after this long at the latest, where the machine allows it.
const SHARE: u32 = 10;
const REST: Duration = Duration::from_secs(1);

pub(super) async fn run(
    path: PathBuf,
    start: Start,
    resume: Resume,
    limits: Limits,
    stats: Stats,
    out: mpsc::Sender<Batch>,
    first_look: Looked,
) -> Result<(), Error> {
    let target = Target::new(&path).map_err(|reason| Error::Path { path: path.clone(), reason })?;
    let mut files = Files::new(target, start, limits, stats);
    files.expect(resume.origins(), Instant::now());
    let mut looker = Looker {
        watch: Watch::new(),
        resume,
        ended: Instant::now(),
        rest: Duration::ZERO,
        due: true,
    };
    let mut pace = Pace { last: Instant::now(), close: 0 };
    looker.look(&mut files);
    drop(first_look);
    loop {
        while let Some(batch) = files.next(Instant::now()) {
            looker.resume.sent(&batch);
            if out.send(batch).await.is_err() {
                return Ok(());
            }
            looker.take(&mut files);
        }
        let timer = looker.timer(&files);
        tokio::select! {
            () = out.closed() => return Ok(()),
            () = looker.watch.changed() => pace.wait().await,
            () = at(timer) => {
                looker.due |= looker.watch.polling || files.retry || files.unsettled();
                files.touch_due(Instant::now());
            }
        }
        looker.take(&mut files);
    }
}

/// Returns whether the path or glob names a file now.
pub(super) fn is_there(path: &Path) -> bool {
    Target::new(path).is_ok_and(|target| !target.resolve().files.is_empty())
}

/// Whether this is a path or glob that can be followed.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let target = Target::new(path);
    target.map(|_| ()).map_err(|reason| Error::Path { path: path.to_owned(), reason })
}

/// Looks at names: when they change, and where nothing tells of it, now and then.
struct Looker {
    watch: Watch,
    resume: Resume,
    /// The last look.
    ended: Instant,
    /// How long none should follow it: each takes a moment for every file.
    rest: Duration,
    /// Names may have changed since.
    due: bool,
}

impl Looker {
    /// Takes over what changed.
    fn take(&mut self, files: &mut Files) {
        self.due |= self.watch.take(files);
        if self.due && self.ended.elapsed() >= self.rest {
            self.look(files);
        }
    }

    fn look(&mut self, files: &mut Files) {
        let begun = Instant::now();
        self.watch.scan(files, &|origin: &str| self.resume.get(origin));
        self.ended = Instant::now();
        // what is done at once needs no rest
        let took = begun.elapsed();
        self.rest = if took < PAUSE { Duration::ZERO } else { (took * (SHARE - 1)).min(REST) };
        self.due = false;
    }

    /// Returns when to look again though nothing is heard.
    fn timer(&self, files: &Files) -> Option<Instant> {
        let polling = self.watch.polling;
        let poll = polling.then(|| self.ended + self.rest.max(files.limits().poll));
        let retry = files.retry.then(|| self.ended + RETRY);
        let unrest = files.unsettled().then(|| Instant::now() + UNREST);
        let due = self.due.then(|| self.ended + self.rest);
        [files.deadline(), poll, retry, unrest, due].into_iter().flatten().min()
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => time::sleep_until(instant.into()).await,
        None => future::pending().await,
    }
}

/// Lets a burst of events gather.
struct Pace {
    last: Instant,
    close: u32,
}

impl Pace {
    async fn wait(&mut self) {
        let close = self.last.elapsed() < PAUSE / 2;
        self.close = if close { self.close.saturating_add(1) } else { 0 };
        if self.close > BURST {
            time::sleep(PAUSE).await;
        }
        self.last = Instant::now();
    }
}
