//! Where the agent's own words go: to its standard error, by a thread of its own. A journal or a
//! terminal that takes nothing holds nobody up who has something to say; what finds no room then is
//! counted, and said when there is room again. Knows nothing of what is said.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

/// Bytes that may wait.
const ROOM: usize = 1 << 20;
/// How long the end waits for the last words.
const PATIENCE: Duration = Duration::from_secs(2);

/// What waits.
#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    /// Lines that found no room since the last that did.
    lost: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns everything that waits; `None` once it is all written and nothing comes any more.
    fn next(&self) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        while waiting.text.is_empty() && waiting.lost == 0 {
            if waiting.closed {
                return None;
            }
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let mut text = std::mem::take(&mut waiting.text);
        let lost = std::mem::take(&mut waiting.lost);
        if lost > 0 {
            // priority 4 of syslog, which the journal reads, and everybody else sees
            let line = format!(
                "<4>{lost} lines of this log were lost: the journal did not take them in time\n"
            );
            text.extend_from_slice(line.as_bytes());
        }
        Some(text)
    }
}

/// Takes lines, and never waits for them to be read.
#[derive(Debug)]
pub(super) struct Queue(Arc<Shared>);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock();
        // in order: nothing overtakes what was lost
        if waiting.lost > 0 || waiting.text.len() + line.len() > ROOM {
            waiting.lost += 1;
        } else {
            waiting.text.extend_from_slice(line);
        }
        drop(waiting);
        self.0.wake.notify_one();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has the last words written when it is dropped, but does not wait for ever.
#[derive(Debug)]
pub(super) struct Last {
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

impl Drop for Last {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        // it is closed when the thread has ended
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// Starts the thread that writes to `out`.
///
/// # Errors
/// If there can be none.
pub(super) fn start(mut out: impl Write + Send + 'static) -> io::Result<(Queue, Last)> {
    let shared = Arc::new(Shared::default());
    let (ends, ended) = mpsc::channel();
    let its = Arc::clone(&shared);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        // it is started before the others are limited, and writes what attackers wrote
        crate::daemon::capability::drop_all();
        crate::daemon::landlock::close_all();
        let _ends: mpsc::Sender<()> = ends;
        while let Some(text) = its.next() {
            // nowhere left to complain to
            let _ = out.write_all(&text).and_then(|()| out.flush());
        }
    })?;
    Ok((Queue(Arc::clone(&shared)), Last { shared, ended }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing until it is told to.
    struct Hung(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Hung {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            // goes on once the other end is gone
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_hangs_holds_nobody_up_and_hears_what_was_lost() {
        let (go_on, hangs) = mpsc::channel();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut queue, last) = start(Hung(hangs, Arc::clone(&said))).unwrap();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        for _ in 0..100_000 {
            queue.write_all(&line).unwrap();
        }
        assert!(queue.0.lock().text.len() <= ROOM);
        let lost = queue.0.lock().lost;
        assert!(lost > 50_000, "{lost}");
        drop(go_on);
        while queue.0.lock().lost > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        queue.write_all(b"heard again\n").unwrap();
        drop(last);
        let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        assert!(said.ends_with("in time\nheard again\n"), "{}", &said[said.len() - 100..]);
        assert!(said.contains(&format!("<4>{lost} lines of this log were lost")));
    }

    #[test]
    fn an_end_does_not_wait_for_a_reader_that_hangs() {
        let (_go_on, hangs) = mpsc::channel();
        let (mut queue, last) = start(Hung(hangs, Arc::default())).unwrap();
        queue.write_all(b"last words\n").unwrap();
        drop(last);
    }
}
