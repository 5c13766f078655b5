//! Events as entries of the systemd journal, with fields to search for
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).

use std::{fmt::Write as _, io, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use serde_json::Value;

use super::{Observer, Part, Sink, Wanted, document};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// How long journald may keep an event waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a document's fields are called in the journal.
const FIELDS: &[(&str, &str)] = &[
    ("MESSAGE", "/message"),
    ("BAN_AGENT_ACTION", "/event/action"),
    ("BAN_AGENT_JAIL", "/rule/name"),
    ("BAN_AGENT_ADDRESS", "/source/address"),
    ("BAN_AGENT_UNTIL", "/ban_agent/until"),
    ("BAN_AGENT_REASON", "/event/reason"),
    ("BAN_AGENT_ALARM", "/ban_agent/alarm"),
    ("BAN_AGENT_ABOUT", "/ban_agent/about"),
];

/// The journal's socket.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
    observer: Observer,
    wanted: Wanted,
    failing: bool,
}

impl Journal {
    /// Behind the socket `path`, usually [`SOCKET`]; it need not be there yet.
    ///
    /// # Errors
    /// If there can be no socket.
    pub fn new(path: PathBuf, observer: Observer, wanted: Wanted) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Journal { path, socket, observer, wanted, failing: false })
    }

    fn send(&mut self, entry: &str) -> bool {
        let result = self.socket.send_to(entry.as_bytes(), &self.path);
        match (&result, self.failing) {
            (Err(error), false) => log::error!("cannot write to the journal: {error}"),
            (Ok(_), true) => log::info!("the journal can be written again"),
            _ => {}
        }
        self.failing = result.is_err();
        result.is_ok()
    }
}

impl Sink for Journal {
    fn take(&mut self, _lost: u64, part: &Part) -> u64 {
        let mut missed = 0;
        for (number, event) in (part.first..).zip(part.events.iter()) {
            if self.wanted.has(&event.what) {
                let entry = entry(&document(event, number, &self.observer));
                missed += u64::from(!self.send(&entry));
            }
        }
        missed
    }
}

/// The values hold no line ends: they are escaped, and JSON has none.
fn entry(document: &Value) -> String {
    let alert = document.pointer("/event/kind").and_then(Value::as_str) == Some("alert");
    let priority = if alert { 4 } else { 6 };
    let mut entry = format!("SYSLOG_IDENTIFIER=ban-agent\nPRIORITY={priority}\n");
    for (name, place) in FIELDS {
        if let Some(value) = document.pointer(place).and_then(Value::as_str) {
            // writing to a String cannot fail
            let _ = writeln!(entry, "{name}={value}");
        }
    }
    let _ = writeln!(entry, "BAN_AGENT_EVENT={document}");
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Bus, Event, What, start};

    #[tokio::test]
    async fn an_event_becomes_an_entry_and_a_deaf_journal_loses_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("socket");
        let bus = Bus::default();
        let observer = bus.observer().clone();
        let journal = Journal::new(path.clone(), observer, Wanted::default()).unwrap();
        let running = start("journal", &bus, journal).unwrap();
        let stopped = What::Stopped { jail: "ssh\nd".into(), reason: "too many".into() };
        bus.publish(vec![Event::now(stopped.clone())]);
        while bus.lost() == [("journal", 0)] {
            tokio::task::yield_now().await;
        }
        assert_eq!(bus.lost(), [("journal", 1)], "nobody listened");

        let socket = UnixDatagram::bind(&path).unwrap();
        bus.publish(vec![Event::now(stopped)]);
        let mut buffer = vec![0; 4096];
        let length = tokio::task::spawn_blocking(move || {
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        });
        let entry = length.await.unwrap();
        let lines: Vec<&str> = entry.lines().collect();
        let expected = [
            "SYSLOG_IDENTIFIER=ban-agent",
            "PRIORITY=4",
            "MESSAGE=[ssh\\u{a}d] stopped banning: too many",
            "BAN_AGENT_ACTION=jail-stopped",
            "BAN_AGENT_JAIL=ssh\\u{a}d",
            "BAN_AGENT_REASON=too many",
        ];
        assert_eq!(lines.get(..6).unwrap(), expected);
        assert_eq!(lines.len(), 7, "{entry}");
        bus.close();
        running.finish().await;
        assert_eq!(bus.lost(), [("journal", 1)]);
    }
}
