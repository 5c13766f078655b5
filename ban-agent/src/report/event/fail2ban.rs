//! A log in fail2ban's line format, for pipelines that already read one:
//! `2026-11-20 12:00:00,123 fail2ban.actions[4711]: NOTICE [sshd] Ban 203.0.113.7`.
//!
//! One space between the words, where fail2ban pads: the patterns in the field allow for no more.

use std::{fmt::Write as _, path::PathBuf};

use jiff::tz::TimeZone;

use super::{Ban, Event, Part, Shown, Sink, What, escape, file::Lines};

/// The file.
#[derive(Debug)]
pub struct Fail2banLog(Lines);

impl Fail2banLog {
    /// At `path`; opened again when logrotate took it away.
    #[must_use]
    pub fn new(path: PathBuf) -> Fail2banLog {
        Fail2banLog(Lines::new(path))
    }
}

impl Sink for Fail2banLog {
    fn take(&mut self, _lost: u64, part: &Part) -> u64 {
        let zone = TimeZone::system();
        let lines: Vec<String> =
            part.events.iter().filter_map(|event| line(event, &zone)).collect();
        if lines.is_empty() || self.0.append(&lines.concat()) { 0 } else { lines.len() as u64 }
    }
}

/// Returns what fail2ban would say of it, if anything.
fn line(event: &Event, zone: &TimeZone) -> Option<String> {
    let (logger, level, jail, said) = match &event.what {
        What::Ban(Ban { action, holder, prefix, .. }) => {
            ("actions", "NOTICE", holder.to_string(), format!("{action} {}", Shown(*prefix)))
        }
        What::Found { jail, address, time } => {
            let time = time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
            ("filter", "INFO", jail.to_string(), format!("Found {} - {time}", Shown(*address)))
        }
        _ => return None,
    };
    let time = event.at.to_zoned(zone.clone());
    let mut text = String::new();
    // writing to a String cannot fail
    let _ = writeln!(
        text,
        "{},{:03} fail2ban.{logger}[{}]: {level} [{}] {said}",
        time.strftime("%Y-%m-%d %H:%M:%S"),
        time.millisecond(),
        std::process::id(),
        escape(jail.as_bytes()),
    );
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Action,
        ledger::{Cause, Holder},
    };

    fn said(what: What) -> Option<String> {
        let event = Event { at: "2026-11-20T12:00:00.123Z".parse().unwrap(), what };
        let text = line(&event, &TimeZone::UTC)?;
        let pid = format!("[{}]", std::process::id());
        Some(text.replace(&pid, "[4711]"))
    }

    #[test]
    fn says_what_fail2ban_would() {
        let ban = |action| {
            What::Ban(Ban {
                action,
                holder: Holder::Jail("sshd".into()),
                prefix: "203.0.113.7/32".parse().unwrap(),
                until: None,
                failures: None,
                reason: None,
                by: None,
            })
        };
        let actions = "2026-11-20 12:00:00,123 fail2ban.actions[4711]: NOTICE [sshd]";
        for (action, word) in [
            (Action::Ban, "Ban"),
            (Action::Extend, "Ban"),
            (Action::Restore, "Restore Ban"),
            (Action::Unban(Cause::Expired), "Unban"),
        ] {
            assert_eq!(said(ban(action)), Some(format!("{actions} {word} 203.0.113.7\n")));
        }
        let found = What::Found {
            jail: "sshd".into(),
            address: "2001:db8::7/128".parse().unwrap(),
            time: "2026-11-20T11:59:58Z".parse().unwrap(),
        };
        let expected = "2026-11-20 12:00:00,123 fail2ban.filter[4711]: INFO [sshd] \
                        Found 2001:db8::7 - 2026-11-20 11:59:58\n";
        assert_eq!(said(found).unwrap(), expected);
        assert_eq!(said(What::Resumed { jail: "sshd".into() }), None);
    }
}
