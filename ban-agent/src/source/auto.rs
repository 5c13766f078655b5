//! Where a daemon's lines are on this host: the first of its usual files that is there, else the
//! journal. Looks at names and times of files, and reads nothing itself.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, time};

use super::{Batch, Error, Limits, Looked, Position, Start, Stats, file, journal};

/// How long until it is looked again where there is nothing.
const RETRY: Duration = Duration::from_secs(10);
/// A file that nobody has written to for so long does not stand before a journal: the daemon that
/// wrote it may be gone.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
enum Found<'a> {
    File(&'a Path),
    Journal,
}

pub(super) async fn run(
    files: Vec<PathBuf>,
    matches: Vec<String>,
    resume: impl Fn(&str) -> Option<Position> + Send,
    limits: Limits,
    stats: Stats,
    out: mpsc::Sender<Batch>,
    looked: Looked,
) -> Result<(), Error> {
    let origin: Arc<str> = name(&files, &matches).into();
    let mut looked = Some(looked);
    loop {
        let journal = !matches.is_empty() && journal::is_there();
        match find(&files, journal, SystemTime::now()) {
            Some(Found::File(path)) => {
                log::info!("{origin}: {} it is", path.display());
                stats.forget(&origin);
                let looked = looked.take().unwrap_or_else(|| mpsc::channel(1).0);
                let path = path.to_owned();
                return file::run(path, Start::Beginning, resume, limits, stats, out, looked).await;
            }
            Some(Found::Journal) => {
                log::info!("{origin}: the journal it is");
                stats.forget(&origin);
                drop(looked);
                return journal::run(matches, resume, limits, stats, out).await;
            }
            None => {
                looked = None;
                stats.update(&origin, |counters| counters.waiting = true);
            }
        }
        tokio::select! {
            () = out.closed() => return Ok(()),
            () = time::sleep(RETRY) => {}
        }
    }
}

/// What it is called as long as nothing was found.
pub(super) fn name(files: &[PathBuf], matches: &[String]) -> String {
    let files = files.iter().map(|path| path.display().to_string());
    let journal = (!matches.is_empty()).then(|| "the journal".to_owned());
    files.chain(journal).collect::<Vec<_>>().join(" or ")
}

/// The first file that is being written, else the journal, else the first file.
fn find(files: &[PathBuf], journal: bool, now: SystemTime) -> Option<Found<'_>> {
    let there = || files.iter().filter(|path| path.is_file());
    let fresh = |path: &&PathBuf| {
        let modified = fs::metadata(path).and_then(|meta| meta.modified());
        modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age < STALE) || at > now)
    };
    if let Some(path) = there().find(fresh) {
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
        tokio::spawn(run(files, Vec::new(), |_| None, limits, stats, out, looked));
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
}
