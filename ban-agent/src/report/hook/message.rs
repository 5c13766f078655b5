//! What a receiver gets. Nothing in it is markup, a command or an escape sequence.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Format, gather::Gathered};
use crate::{
    event::{Action, Observer, What, document},
    report::SCHEMA,
};

/// Lines in a text for people.
const LINES: usize = 15;

/// Returns the message as JSON.
pub(super) fn body(gathered: &Gathered, format: Format, observer: &Observer) -> Value {
    match format {
        // mrkdwn: without it asterisks and the like would act
        Format::Slack => json!({ "text": plain(&text(gathered, observer)), "mrkdwn": false }),
        Format::Json => json!({
            "schema": SCHEMA,
            "text": text(gathered, observer),
            "events": gathered
                .events
                .iter()
                .map(|(number, event)| document(event, *number, observer))
                .collect::<Vec<_>>(),
            "more": gathered.more,
        }),
    }
}

/// Returns what Slack and its like would act upon
/// (<https://docs.slack.dev/messaging/formatting-message-text>).
fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// For people: what it is about, and the first few events.
fn text(gathered: &Gathered, observer: &Observer) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, event) in &gathered.events {
        *counts.entry(kind(&event.what)).or_default() += 1;
    }
    if gathered.more > 0 {
        counts.insert("more", gathered.more);
    }
    let counts: Vec<String> =
        counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let mut lines = vec![format!("ban-agent on {}: {}", observer.hostname(), counts.join(", "))];
    let shown = gathered.events.iter().take(LINES);
    lines.extend(shown.map(|(_, event)| event.what.to_string()));
    if gathered.count() > LINES as u64 {
        lines.push(format!("and {} more", gathered.count() - LINES as u64));
    }
    lines.join("\n")
}

fn kind(what: &What) -> &'static str {
    match what {
        What::Ban(ban) => match ban.action {
            Action::Ban | Action::Restore => "banned",
            Action::Extend => "banned for longer",
            Action::Unban(_) => "unbanned",
        },
        _ => "about the agent itself",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Ban, Bus, Event},
        ledger::{Cause, Holder},
    };

    fn gathered(jail: &str, count: u64) -> Gathered {
        let mut gathered = Gathered::default();
        for number in 0..count {
            let action = if number == 0 { Action::Unban(Cause::Expired) } else { Action::Ban };
            let ban = Ban {
                action,
                holder: Holder::Jail(jail.into()),
                prefix: "2001:db8::/64".parse().unwrap(),
                until: None,
                failures: Some(3),
                reason: None,
                by: None,
            };
            gathered.add(number, &Event::now(What::Ban(ban)));
        }
        gathered
    }

    #[test]
    fn markup_and_escapes_are_inert() {
        let hostile = "<!channel> <https://evil|x> &amp; \u{1b}[2J\r\n\u{202e}@here";
        let body = body(&gathered(hostile, 1), Format::Slack, Bus::default().observer());
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("&lt;!channel&gt; &lt;https://evil|x&gt; &amp;amp; "), "{text}");
        assert!(!text.contains(['<', '>', '\u{1b}', '\r', '\u{202e}']), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(body["mrkdwn"], false);
    }

    #[test]
    fn many_events_are_one_message() {
        let observer = Bus::default().observer().clone();
        let body = body(&gathered("sshd", 1000), Format::Json, &observer);
        assert_eq!(body["events"].as_array().unwrap().len(), 500);
        assert_eq!(body["more"], 500);
        let text = body["text"].as_str().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let title =
            format!("ban-agent on {}: 499 banned, 500 more, 1 unbanned", observer.hostname());
        assert_eq!(lines[0], title);
        assert_eq!(lines[1], "[sshd] unbanned 2001:db8::/64: its time was up");
        assert_eq!(lines[2], "[sshd] banned 2001:db8::/64 for ever after 3 failures");
        assert_eq!((lines.len(), lines[16]), (17, "and 985 more"));
    }
}
