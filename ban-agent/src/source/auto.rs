//! Where a daemon's lines are on this host: the first of its usual files that is there, else the
//! journal. Looks at names and times of files, and reads nothing itself.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, time};

use super::{Batch, Error, Limits, Looked, Resume, Start, Stats, file, journal};

/// How long until it is looked again where there is nothing.
const RETRY: Duration = Duration::from_secs(10);
/// How long until it is looked again where there is a file.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 60_000 });
/// A file that was not written to for so long does not stand before a journal: the daemon that
/// wrote it may be gone.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Where the lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// In this file.
    File(&'a Path),
    /// In the journal.
    Journal,
}

/// Returns where `logpath = "auto"` would read now, of these files and a journal with these
/// matches.
#[must_use]
pub fn find_now<'a>(files: &'a [PathBuf], matches: &[String]) -> Option<Found<'a>> {
    find(files, !matches.is_empty() && journal::is_there(), SystemTime::now())
}

pub(super) async fn run(
    files: Vec<PathBuf>,
    matches: Vec<String>,
    resume: Resume,
    limits: Limits,
    stats: Stats,
    out: mpsc::Sender<Batch>,
    looked: Looked,
) -> Result<(), Error> {
    let origin: Arc<str> = name(&files, &matches).into();
    let mut looked = Some(looked);
    let look = || find_now(&files, &matches);
    // of a journal that takes over, what the file has not told
    let mut since = None;
    loop {
        let file = match look() {
            Some(Found::File(path)) => path,
            Some(Found::Journal) => {
                log::info!("{origin}: reading the journal instead");
                stats.forget(&origin);
                drop(looked);
                return journal::run(matches, since, resume, limits, stats, out).await;
            }
            None => {
                looked = None;
                stats.update(&origin, |counters| counters.waiting = true);
                tokio::select! {
                    () = out.closed() => return Ok(()),
                    () = time::sleep(RETRY) => continue,
                }
            }
        };
        log::info!("{origin}: {} it is", file.display());
        stats.forget(&origin);
        let first = looked.take().unwrap_or_else(|| mpsc::channel(1).0);
        let (path, limits, counters) = (file.to_owned(), limits.clone(), stats.clone());
        let reading =
            file::run(path, Start::Beginning, resume.clone(), limits, counters, out.clone(), first);
        since = tokio::select! {
            result = reading => return result,
            since = until_elsewhere(file, &look) => Some(since),
        };
        log::warn!("{origin}: {} is not written any more", file.display());
        stats.forget(&file.to_string_lossy());
    }
}

/// Waits until the lines are not in this file any more, but elsewhere; since when they are not.
async fn until_elsewhere<'a>(file: &Path, look: impl Fn() -> Option<Found<'a>>) -> SystemTime {
    let modified = || fs::metadata(file).and_then(|meta| meta.modified()).ok();
    let (mut last, mut times) = (modified(), 0);
    // once may be a rotation
    while times < 2 {
        time::sleep(AGAIN).await;
        last = modified().or(last);
        let elsewhere = look().is_some_and(|found| found != Found::File(file));
        times = if elsewhere && !is_fresh(file, SystemTime::now()) { times + 1 } else { 0 };
    }
    last.unwrap_or_else(SystemTime::now)
}

fn is_fresh(path: &Path, now: SystemTime) -> bool {
    let modified = fs::metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age < STALE) || at > now)
}

/// Returns what it is called as long as nothing was found.
pub(super) fn name(files: &[PathBuf], matches: &[String]) -> String {
    let files = files.iter().map(|path| path.display().to_string());
    let journal = (!matches.is_empty()).then(|| "the journal".to_owned());
    files.chain(journal).collect::<Vec<_>>().join(" or ")
}

/// Returns the first file that is being written, else the journal, else the first file.
fn find(files: &[PathBuf], journal: bool, now: SystemTime) -> Option<Found<'_>> {
    let there = || files.iter().filter(|path| path.is_file());
    if let Some(path) = there().find(|path| is_fresh(path, now)) {
        return Some(Found::File(path));
    }
    if journal {
        return Some(Found::Journal);
    }
    there().next().map(|path| Found::File(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_comes_first_then_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["auth.log", "secure"].map(|name| folder.path().join(name)).to_vec();
        let now = SystemTime::now();
        assert_eq!(find(&files, false, now), None);
        assert_eq!(find(&files, true, now), Some(Found::Journal));
        // RHEL: only the second of them
        fs::write(&files[1], "").unwrap();
        assert_eq!(find(&files, true, now), Some(Found::File(&files[1])));
        fs::write(&files[0], "").unwrap();
        assert_eq!(find(&files, true, now), Some(Found::File(&files[0])));
        // rsyslog was removed, its file stayed
        let later = now + STALE + Duration::from_secs(60);
        assert_eq!(find(&files, true, later), Some(Found::Journal));
        assert_eq!(find(&files, false, later), Some(Found::File(&files[0])));
    }

    #[tokio::test]
    async fn what_appears_later_is_read_and_until_then_it_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.log");
        let (limits, stats) = (Limits::default(), Stats::default());
        let ((out, mut lines), (looked, mut looking)) = (mpsc::channel(2), mpsc::channel(1));
        let files = vec![path.clone()];
        let shown = stats.clone();
        tokio::spawn(run(files, Vec::new(), Resume::default(), limits, stats, out, looked));
        assert_eq!(looking.recv().await, None);
        assert!(shown.snapshot().values().all(|counters| counters.waiting));
        fs::write(&path, "a line\n").unwrap();
        let batch = time::timeout(RETRY * 3, async {
            loop {
                let batch = lines.recv().await.unwrap();
                if !batch.lines.is_empty() {
                    return batch;
                }
            }
        });
        assert_eq!(&batch.await.unwrap().lines[..], b"a line\n");
        assert_eq!(shown.snapshot().len(), 1);
    }

    /// rsyslog was removed while the agent runs, or writes elsewhere.
    #[tokio::test]
    async fn what_is_written_elsewhere_is_followed_there() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["auth.log", "secure"].map(|name| folder.path().join(name)).to_vec();
        fs::write(&files[0], "one\n").unwrap();
        let (limits, stats) = (Limits::default(), Stats::default());
        let (out, mut lines) = mpsc::channel(2);
        let shown = stats.clone();
        let looked = mpsc::channel(1).0;
        let source = run(files.clone(), Vec::new(), Resume::default(), limits, stats, out, looked);
        tokio::spawn(source);
        let mut next = async || loop {
            let batch = lines.recv().await.unwrap();
            if !batch.lines.is_empty() {
                return batch.lines;
            }
        };
        assert_eq!(&next().await[..], b"one\n");
        fs::remove_file(&files[0]).unwrap();
        fs::write(&files[1], "two\n").unwrap();
        assert_eq!(&next().await[..], b"two\n");
        let shown: Vec<_> = shown.snapshot().into_keys().collect();
        assert_eq!(shown, [Arc::from(files[1].to_string_lossy())]);
    }
}
