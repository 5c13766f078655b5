//! A log in fail2ban's line format, for pipelines that already read one:
//! `2026-11-20 12:00:00,123 fail2ban.actions[4711]: NOTICE [sshd] Ban 203.0.113.7`.
//!
//! One space between the words, where fail2ban pads: the patterns in the field allow for no more.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::tz::TimeZone;

use super::{Event, Shown, escape};

/// The file; opened again when logrotate took it away.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    failing: bool,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> LogFile {
        LogFile { path, file: None, failing: false }
    }

    /// Appends a line for each event; a failure is logged once, and again when it is over.
    pub(super) fn write(&mut self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let text: String = events.iter().map(|event| line(event, &TimeZone::system())).collect();
        let result = self.open().and_then(|mut file| file.write_all(text.as_bytes()));
        match (result, self.failing) {
            (Err(error), false) => {
                log::error!("cannot write {}: {error}", self.path.display());
                self.failing = true;
            }
            (Ok(()), true) => {
                log::info!("{} can be written again", self.path.display());
                self.failing = false;
            }
            _ => {}
        }
    }

    fn open(&mut self) -> io::Result<&File> {
        let current = self.file.take().filter(|file| is_at(file, &self.path));
        let file = match current {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn line(event: &Event, zone: &TimeZone) -> String {
    let time = event.at.to_zoned(zone.clone());
    let mut text = String::new();
    // writing to a String cannot fail
    let _ = writeln!(
        text,
        "{},{:03} fail2ban.actions[{}]: NOTICE [{}] {} {}",
        time.strftime("%Y-%m-%d %H:%M:%S"),
        time.millisecond(),
        std::process::id(),
        escape(event.holder.to_string().as_bytes()),
        event.action,
        Shown(event.prefix)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Action, ledger::Holder};

    fn event(action: Action) -> Event {
        Event {
            at: "2026-11-20T12:00:00.123Z".parse().unwrap(),
            action,
            holder: Holder::Jail("sshd".into()),
            prefix: "203.0.113.7/32".parse().unwrap(),
            until: None,
        }
    }

    #[test]
    fn lines_match_the_patterns_in_the_field() {
        let text = line(&event(Action::Ban), &TimeZone::UTC);
        let pattern = r"(?x)^(?<date>\d{4}-\d{2}-\d{2}\x20\d{2}:\d{2}:\d{2},\d+)\x20
            (\w+)\.(\w+)\[(\d+)\]:\x20(?<level>\w+)\x20\[(?<jail>\w+-?\w+?)\]\x20
            (?<action>\w+)\x20(?<ip>[0-9.]+)\n$";
        let captures = regex::Regex::new(pattern).unwrap().captures(&text).unwrap();
        assert_eq!(&captures["jail"], "sshd");
        assert_eq!(&captures["action"], "Ban");
        assert_eq!(&captures["ip"], "203.0.113.7");
    }

    #[test]
    fn goes_on_after_rotation() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("fail2ban.log");
        let mut log = LogFile::new(path.clone());
        log.write(&[event(Action::Ban)]);
        std::fs::rename(&path, folder.path().join("fail2ban.log.1")).unwrap();
        log.write(&[event(Action::Unban)]);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("Unban 203.0.113.7\n"));
    }
}
