//! The file source: follows what a path or glob names, through whatever becomes of it. One task,
//! no thread, no wake-up without an event or a deadline.
//!
//! [`files`] is the whole of it without waiting; [`watch`] knows when to look; here they meet.

mod container;
mod files;
mod follow;
#[cfg(test)]
mod model;
mod names;
mod resolve;
#[cfg(test)]
mod seams;
mod siblings;
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
use super::{Batch, Error, Limits, Looked, Position, Start, Stats};

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

pub(super) async fn run(
    path: PathBuf,
    start: Start,
    resume: impl Fn(&str) -> Option<Position> + Send,
    limits: Limits,
    stats: Stats,
    out: mpsc::Sender<Batch>,
    first_look: Looked,
) -> Result<(), Error> {
    let target = Target::new(&path).map_err(|reason| Error::Path { path: path.clone(), reason })?;
    let mut files = Files::new(target, start, limits, stats);
    let mut watch = Watch::new();
    let mut looked = Instant::now();
    let mut pace = Pace { last: Instant::now(), close: 0 };
    watch.scan(&mut files, &resume);
    drop(first_look);
    loop {
        while let Some(batch) = files.next(Instant::now()) {
            if out.send(batch).await.is_err() {
                return Ok(());
            }
            if watch.take(&mut files) {
                watch.scan(&mut files, &resume);
            }
        }
        let timer = timer(&files, &watch, looked);
        tokio::select! {
            () = out.closed() => return Ok(()),
            () = watch.changed() => pace.wait().await,
            () = at(timer) => {
                if watch.polling || files.retry || files.unsettled() {
                    looked = Instant::now();
                    watch.scan(&mut files, &resume);
                }
                files.touch_due(Instant::now());
            }
        }
        if watch.take(&mut files) {
            watch.scan(&mut files, &resume);
        }
    }
}

/// Whether the path or glob names a file now.
pub(super) fn is_there(path: &Path) -> bool {
    Target::new(path).is_ok_and(|target| !target.resolve().files.is_empty())
}

/// When to look again though nothing is heard.
fn timer(files: &Files, watch: &Watch, looked: Instant) -> Option<Instant> {
    let poll = watch.polling.then(|| looked + files.limits().poll);
    let retry = files.retry.then(|| looked + RETRY);
    let unrest = files.unsettled().then(|| Instant::now() + UNREST);
    [files.deadline(), poll, retry, unrest].into_iter().flatten().min()
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
