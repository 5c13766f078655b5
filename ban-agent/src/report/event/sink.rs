//! Threads that write events where a write may block: a file, a socket, another program. A thread
//! that hangs holds up no other; its events are lost and counted.

use std::{io, thread, time::Duration};

use tokio::sync::oneshot;

use super::{Bus, Part, Subscription};

/// How long an end waits for what is left to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes events; may block.
pub trait Sink: Send + 'static {
    /// Takes some events; `lost`: how many it did not get before them. Says how many of these it
    /// could not keep.
    fn take(&mut self, lost: u64, part: &Part) -> u64;
}

/// A thread at work.
#[derive(Debug)]
pub struct Running {
    kind: &'static str,
    ended: oneshot::Receiver<()>,
}

/// Starts a thread that hands all events from now on to `sink`, until the bus is closed.
///
/// # Errors
/// If there can be no more threads.
pub fn start(kind: &'static str, bus: &Bus, mut sink: impl Sink) -> io::Result<Running> {
    let mut events: Subscription = bus.subscribe(kind);
    let (ending, ended) = oneshot::channel();
    thread::Builder::new().name(kind.to_owned()).spawn(move || {
        while let Some((lost, part)) = events.wait() {
            events.lose(sink.take(lost, &part));
        }
        // the one that waits may have lost patience
        let _ = ending.send(());
    })?;
    Ok(Running { kind, ended })
}

impl Running {
    /// Waits for the end; to be called when the bus is closed.
    pub async fn finish(self) {
        if tokio::time::timeout(PATIENCE, self.ended).await.is_err() {
            log::warn!("the last events could not be written: {} hangs", self.kind);
        }
    }
}
