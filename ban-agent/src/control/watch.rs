//! Events over the control socket. A watcher that does not read is cut off; one that is slow
//! misses events, and is told how many.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{Document, Reply, SCHEMA, Text, conversation::send};
use crate::event::{Bus, Observer, Part, Wanted, document, lost};

/// How long a watcher may take to read what it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends what `wanted` says until the watcher leaves or the agent ends.
pub(super) async fn serve(mut stream: UnixStream, bus: &Bus, wanted: Wanted) -> io::Result<()> {
    let observer = bus.observer();
    let _interest = bus.interest(wanted);
    let mut events = bus.subscribe("watch");
    // what happens from this answer on is heard
    let message = "watching".into();
    let greeting = Reply::Done(Document::Text(Text { schema: SCHEMA, message }));
    send(&mut stream, greeting).await?;
    let (mut reader, mut writer) = stream.split();
    let mut nothing = [0];
    loop {
        let (missing, part) = tokio::select! {
            // it has nothing more to say: whatever comes, it is leaving
            _ = reader.read(&mut nothing) => return Ok(()),
            next = events.next() => match next {
                Some(next) => next,
                None => return Ok(()),
            },
        };
        let text = lines(missing, &part, wanted, observer);
        match tokio::time::timeout(PATIENCE, writer.write_all(text.as_bytes())).await {
            Ok(written) => written?,
            Err(_) => {
                events.lose(part.events.len() as u64);
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "a client of `watch` does not read",
                ));
            }
        }
    }
}

fn lines(missing: u64, part: &Part, wanted: Wanted, observer: &Observer) -> String {
    let mut text = String::new();
    if missing > 0 {
        text.push_str(&format!("{}\n", lost(missing, observer)));
    }
    for (number, event) in (part.first..).zip(part.events.iter()) {
        if wanted.has(&event.what) {
            text.push_str(&format!("{}\n", document(event, number, observer)));
        }
    }
    text
}
