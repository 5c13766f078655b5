//! Standard input, read to its end. In a thread of its own: a read of a pipe or
//! a terminal cannot be waited for otherwise without changing it for whoever shares it.

use std::{
    io::{self, Read},
    sync::Arc,
    thread,
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Batch, Error, Limits, Stats, lines::Lines};

pub(super) async fn run(
    limits: Limits,
    stats: Stats,
    out: mpsc::Sender<Batch>,
) -> Result<(), Error> {
    let (ended, end) = tokio::sync::oneshot::channel();
    let closed = out.clone();
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || ended.send(read(io::stdin().lock(), &limits, &stats, &out)))
        .map_err(|source| Error::System { operation: "start a thread for stdin", source })?;
    tokio::select! {
        () = closed.closed() => Ok(()),
        result = end => result.unwrap_or(Ok(())),
    }
}

fn read(
    mut input: impl Read,
    limits: &Limits,
    stats: &Stats,
    out: &mpsc::Sender<Batch>,
) -> Result<(), Error> {
    let origin: Arc<str> = "stdin".into();
    let mut lines = Lines::new(limits.line);
    let mut buffer = vec![0; limits.batch.max(1)];
    loop {
        let length = match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => {
                read.map_err(|source| Error::System { operation: "read standard input", source })?
            }
        };
        let chunk = buffer.get(..length).unwrap_or_default();
        let whole = if chunk.is_empty() { lines.finish() } else { lines.push(chunk) };
        tally(&origin, &whole, &mut lines, stats);
        let batch = Batch {
            origin: Arc::clone(&origin),
            lines: whole,
            stamped: false,
            raw: None,
            backlog: false,
            // whoever pipes a log may pipe an old one
            live: false,
            position: None,
            gone: false,
            torn: false,
            read: Instant::now(),
        };
        if !batch.lines.is_empty() && out.blocking_send(batch).is_err() || chunk.is_empty() {
            return Ok(());
        }
    }
}

fn tally(origin: &Arc<str>, whole: &Bytes, lines: &mut Lines, stats: &Stats) {
    let (overlong, nuls) = lines.take_counts();
    let count = memchr::memchr_iter(b'\n', whole).count();
    stats.update(origin, |counters| {
        counters.lines += u64::try_from(count).unwrap_or(0);
        counters.bytes += u64::try_from(whole.len()).unwrap_or(0);
        counters.overlong += overlong;
        counters.nuls += nuls;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_the_last_line_without_an_end() {
        let (out, mut batches) = mpsc::channel(10);
        let limits = Limits { batch: 4, line: 8, ..Limits::default() };
        let stats = Stats::default();
        let input = &b"one\ntwo\nmuch too long\nend"[..];
        read(input, &limits, &stats, &out).unwrap();
        drop(out);
        let mut text = Vec::new();
        while let Some(batch) = batches.blocking_recv() {
            text.extend_from_slice(&batch.lines);
        }
        assert_eq!(String::from_utf8(text).unwrap(), "one\ntwo\nend\n");
        let counters = &stats.snapshot()["stdin"];
        assert_eq!((counters.lines, counters.overlong), (3, 1));
    }
}
