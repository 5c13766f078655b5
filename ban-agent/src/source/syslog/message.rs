//! Reads one syslog datagram (RFC 3164 as it is spoken, RFC 5424) into the line that a filter
//! sees: `RFC3339 host ident[pid]: message`. Pure.

use jiff::Timestamp;

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Appends the line of `datagram`, `\n` included; false if there is nothing in it.
///
/// RFC 5424 stamps are taken as they are. RFC 3164 names neither year nor zone: its lines are of
/// `now`, when they arrived. `host` stands for a sender that names none.
pub(super) fn append(line: &mut Vec<u8>, datagram: &[u8], host: &str, now: Timestamp) -> bool {
    let end = datagram.iter().rposition(|byte| !b"\n\r\0".contains(byte)).map_or(0, |at| at + 1);
    let text = datagram.get(..end).unwrap_or_default();
    let text = priority(text).unwrap_or(text);
    if text.is_empty() {
        return false;
    }
    match rfc5424(text) {
        Some(message) => message.write(line, host, now),
        None => rfc3164(text).write(line, host, now),
    }
    true
}

/// The parts of a message; empty where the sender gave none.
#[derive(Debug, Default)]
struct Message<'a> {
    time: Option<Timestamp>,
    host: &'a [u8],
    /// `ident[pid]` in front of the text.
    ident: &'a [u8],
    pid: &'a [u8],
    text: &'a [u8],
}

impl Message<'_> {
    fn write(&self, line: &mut Vec<u8>, host: &str, now: Timestamp) {
        line.extend_from_slice(self.time.unwrap_or(now).to_string().as_bytes());
        line.push(b' ');
        line.extend_from_slice(if self.host.is_empty() { host.as_bytes() } else { self.host });
        line.push(b' ');
        if !self.ident.is_empty() {
            line.extend_from_slice(self.ident);
            if !self.pid.is_empty() {
                line.push(b'[');
                line.extend_from_slice(self.pid);
                line.push(b']');
            }
            line.extend_from_slice(b": ");
        }
        // One datagram is one line: what looks like a second one is an attacker's.
        line.extend(self.text.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
        line.push(b'\n');
    }
}

/// Returns what follows `<PRI>`.
fn priority(text: &[u8]) -> Option<&[u8]> {
    let (number, rest) = split(text.strip_prefix(b"<")?, b'>')?;
    ((1..=3).contains(&number.len()) && number.iter().all(u8::is_ascii_digit)).then_some(rest)
}

/// `1 TIMESTAMP HOST APP PROCID MSGID STRUCTURED-DATA MSG`; `-` is nothing.
fn rfc5424(text: &[u8]) -> Option<Message<'_>> {
    let mut rest = text.strip_prefix(b"1 ")?;
    let mut word = || {
        let (word, after) = split(rest, b' ')?;
        rest = after;
        Some(if word == b"-" { &b""[..] } else { word })
    };
    let (time, host, ident, pid, _id) = (word()?, word()?, word()?, word()?, word()?);
    let text = after_data(rest)?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    Some(Message { time: rfc3339(time), host, ident, pid, text })
}

/// Returns what follows the structured data: `-`, or `[id name="value" …]…` where `\` escapes.
fn after_data(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    if let Some(after) = rest.strip_prefix(b"-") {
        rest = after;
    } else {
        while let Some(element) = rest.strip_prefix(b"[") {
            rest = element.get(element_end(element)?..)?;
        }
        if rest.len() == text.len() {
            return None;
        }
    }
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b" ") }
}

fn element_end(element: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in element.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b']' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// `Nov 20 12:00:00 [HOST] ident[pid]: text`, and what senders make of it: an RFC 3339 stamp, no
/// stamp, no host.
fn rfc3164(text: &[u8]) -> Message<'_> {
    let (time, rest) = stamp(text);
    if rest.len() == text.len() {
        return Message { text, ..Message::default() };
    }
    let (host, rest) = match split(rest, b' ') {
        // `ident:` or `ident[pid]:` where a host would be: the sender names none.
        Some((word, after)) if !word.is_empty() && !is_tag(word) => (word, after),
        _ => (&b""[..], rest),
    };
    Message { time, host, text: rest, ..Message::default() }
}

fn is_tag(word: &[u8]) -> bool {
    word.ends_with(b":") || word.contains(&b'[') && word.ends_with(b"]")
}

/// Cuts a leading time stamp off; its value only if it says year and zone.
fn stamp(text: &[u8]) -> (Option<Timestamp>, &[u8]) {
    if let Some((stamp, rest)) = text.split_at_checked(16)
        && MONTHS.iter().any(|month| stamp.starts_with(month))
        && stamp.get(9) == Some(&b':')
        && stamp.get(12) == Some(&b':')
        && stamp.ends_with(b" ")
    {
        return (None, rest);
    }
    match split(text, b' ') {
        Some((word, rest)) => match rfc3339(word) {
            Some(time) => (Some(time), rest),
            None => (None, text),
        },
        None => (None, text),
    }
}

fn rfc3339(word: &[u8]) -> Option<Timestamp> {
    if word.len() < 20 || word.len() > 40 || word.get(10) != Some(&b'T') {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, rest) = text.split_at(memchr::memchr(at, text)?);
    Some((before, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(datagram: &[u8]) -> String {
        let mut line = Vec::new();
        let now: Timestamp = "2026-11-20T12:00:01Z".parse().unwrap();
        append(&mut line, datagram, "edge", now);
        String::from_utf8_lossy(&line).into_owned()
    }

    #[test]
    fn what_senders_send() {
        for (datagram, expected) in [
            (
                "<134>Nov 20 12:00:00 haproxy[123]: 203.0.113.7:40000 [20/Nov/2026:12:00:00.123] x",
                "2026-11-20T12:00:01Z edge haproxy[123]: 203.0.113.7:40000 [20/Nov/2026:12:00:00.123] x\n",
            ),
            (
                "<38>Nov  2 12:00:00 web1 sshd[7]: text\n",
                "2026-11-20T12:00:01Z web1 sshd[7]: text\n",
            ),
            ("<38>Nov  2 12:00:00 sshd: text\0", "2026-11-20T12:00:01Z edge sshd: text\n"),
            (
                "<38>2026-11-20T11:00:00.5+01:00 web1 sshd[7]: text",
                "2026-11-20T10:00:00.5Z web1 sshd[7]: text\n",
            ),
            (
                "<165>1 2026-11-20T10:00:00.003Z web1 app 77 ID47 - \u{feff}text",
                "2026-11-20T10:00:00.003Z web1 app[77]: text\n",
            ),
            (
                r#"<165>1 2026-11-20T10:00:00Z - app - - [a@1 b="]\"c\\"][d@2] te xt"#,
                "2026-11-20T10:00:00Z edge app: te xt\n",
            ),
            ("<165>1 - - - - - -", "2026-11-20T12:00:01Z edge \n"),
            ("<165>1 - h a - - - forged\nNov 20", "2026-11-20T12:00:01Z h a: forged Nov 20\n"),
            ("<13>no stamp at all", "2026-11-20T12:00:01Z edge no stamp at all\n"),
            ("no priority", "2026-11-20T12:00:01Z edge no priority\n"),
            ("<1234>odd", "2026-11-20T12:00:01Z edge <1234>odd\n"),
            (
                "<165>1 2026-11-20T10:00:00Z h a",
                "2026-11-20T12:00:01Z edge 1 2026-11-20T10:00:00Z h a\n",
            ),
            ("<165>1 - h a p i [open", "2026-11-20T12:00:01Z edge 1 - h a p i [open\n"),
            ("<13>Nov 20 12:00:00 ", "2026-11-20T12:00:01Z edge \n"),
            ("<13>\n", ""),
            ("", ""),
        ] {
            assert_eq!(line(datagram.as_bytes()), expected, "{datagram:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_datagram_is_at_most_one_line(datagram in proptest::collection::vec(
            proptest::prop_oneof![proptest::prelude::any::<u8>(), proptest::sample::select(
                b"<>1 -[]\"\\\n:Nov 20T".to_vec())], 0..200)) {
            let line = line(&datagram);
            proptest::prop_assert_eq!(line.matches('\n').count(), usize::from(!line.is_empty()));
        }
    }
}
