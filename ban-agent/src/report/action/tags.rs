//! Puts a ban into a command's tags. Pure.
//!
//! What an attacker wrote never becomes shell text: as in fail2ban, a value with a character that
//! means something to a shell is passed in the environment, and its tag becomes a reference to
//! that variable. Nothing inside a value is a tag again.

use std::{borrow::Cow, fmt::Write as _, fs, net::IpAddr, sync::LazyLock, time::Duration};

use super::{Family, Of, Ticket};
use crate::event::Shown;

/// Characters that mean something to a shell.
const SPECIAL: &str = "\\#&;`|*?~<>^()[]{}$'\"\n\r";
/// Bytes of one value: a process takes no string of 128 KiB.
const LONGEST: usize = 64 << 10;

/// A command that is ready to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// For the shell.
    pub(super) text: String,
    /// For the environment.
    pub(super) vars: Vec<(String, String)>,
}

/// `command` with the values of `ticket`; a tag that is none stays.
pub(super) fn fill(command: &str, family: Family, ticket: &Ticket) -> Script {
    let mut script = Script::default();
    for part in parts(command, family, ticket) {
        match part {
            Part::Text(text) => script.text.push_str(text),
            Part::Value(tag, value) => script.insert(tag, &value),
        }
    }
    script
}

/// The same as mere text, for no shell.
pub(super) fn text(template: &str, family: Family, ticket: &Ticket) -> String {
    let parts = parts(template, family, ticket).into_iter();
    let text = parts.map(|part| match part {
        Part::Text(text) => Cow::Borrowed(text),
        Part::Value(_, value) => value,
    });
    text.collect()
}

enum Part<'t> {
    Text(&'t str),
    Value(&'t str, Cow<'t, str>),
}

fn parts<'t>(template: &'t str, family: Family, ticket: &'t Ticket) -> Vec<Part<'t>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((before, inside)) = rest.split_once('<') {
        parts.push(Part::Text(before));
        let tag = inside.split_once(['<', '>', ' ']).filter(|(tag, _)| !tag.is_empty());
        let closed = |tag: &str| inside.get(tag.len()..).is_some_and(|rest| rest.starts_with('>'));
        let tag = tag.filter(|(tag, _)| closed(tag));
        match tag.and_then(|(tag, after)| Some((tag, after, value(tag, family, ticket)?))) {
            Some((tag, after, value)) => {
                parts.push(Part::Value(tag, value));
                rest = after;
            }
            None => {
                parts.push(Part::Text("<"));
                rest = inside;
            }
        }
    }
    parts.push(Part::Text(rest));
    parts
}

impl Script {
    fn insert(&mut self, tag: &str, value: &str) {
        // these two are ours, and mean what they are
        if matches!(tag, "br" | "sp") || value.chars().all(is_plain) {
            return self.text.push_str(value);
        }
        let tag =
            tag.strip_prefix("F-").map_or(tag.into(), |tag| format!("F_{}", tag.to_lowercase()));
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = "f2bV_".chars().chain(tag.chars().map(word)).collect();
        // writing to a String cannot fail
        let _ = write!(self.text, "${{{name}}}");
        if self.vars.iter().all(|(known, _)| *known != name) {
            self.vars.push((name, tail(value).replace('\0', "")));
        }
    }
}

fn is_plain(character: char) -> bool {
    !SPECIAL.contains(character) && (character == '\t' || !character.is_control())
}

/// Returns the end of a value that is too long.
fn tail(value: &str) -> &str {
    let from = value.len().saturating_sub(LONGEST);
    (from..=value.len()).find_map(|from| value.get(from..)).unwrap_or_default()
}

fn value<'t>(tag: &str, family: Family, ticket: &'t Ticket) -> Option<Cow<'t, str>> {
    let address = || ticket.prefix.map(|prefix| Shown(prefix).to_string()).unwrap_or_default();
    if let Some(name) = tag.strip_prefix("F-").filter(|name| is_field(name)) {
        return Some(
            field(name, ticket)
                .unwrap_or_else(|| if name == "ID" { address().into() } else { "".into() }),
        );
    }
    Some(match tag {
        // of what is no address, what it is
        "ip" | "ip-host" if ticket.prefix.is_none() => field("ID", ticket).unwrap_or_default(),
        "ip" | "ip-host" => address().into(),
        "fid" => field("ID", ticket).unwrap_or_else(|| address().into()),
        "family" => if family == Family::V4 { "inet4" } else { "inet6" }.into(),
        "ip-rev" => ticket.prefix.map(|prefix| reversed(prefix.addr())).unwrap_or_default().into(),
        "time" => {
            let recorded = ticket.recorded().filter(|_| ticket.ended);
            recorded.map_or(ticket.time, |ban| ban.at).as_second().to_string().into()
        }
        "bantime" => {
            let recorded = ticket.recorded().filter(|_| ticket.ended);
            let bantime = recorded.and_then(|ban| ban.bantime).or(ticket.bantime);
            // it was measured between two clocks, one of which counts in ms
            let seconds =
                |time: Duration| time.saturating_add(Duration::from_millis(500)).as_secs();
            bantime.map_or("-1".into(), |time| seconds(time).to_string().into())
        }
        "bancount" => ticket.bancount.to_string().into(),
        "failures" if ticket.recorded().is_some() => ticket.failures(Of::Jail).to_string().into(),
        "failures" => ticket.failures.to_string().into(),
        "ipfailures" => ticket.failures(Of::All).to_string().into(),
        "ipjailfailures" => ticket.failures(Of::Jail).to_string().into(),
        "matches" if ticket.recorded().is_some() => joined(ticket.lines(Of::Jail)).into(),
        "matches" => joined(ticket.matches.iter().map(|line| &**line)).into(),
        "ipmatches" => joined(ticket.lines(Of::All)).into(),
        "ipjailmatches" => joined(ticket.lines(Of::Jail)).into(),
        "restored" => if ticket.restored { "1" } else { "0" }.into(),
        "br" => "\n".into(),
        "sp" => " ".into(),
        "fq-hostname" => HOST.0.as_str().into(),
        "sh-hostname" => HOST.1.as_str().into(),
        _ => return None,
    })
}

fn is_field(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    !name.is_empty() && name.chars().all(letter)
}

fn field<'t>(name: &str, ticket: &'t Ticket) -> Option<Cow<'t, str>> {
    let name = match name.to_lowercase().as_str() {
        "id" => "fid".to_owned(),
        "port" => "fport".to_owned(),
        other => other.to_owned(),
    };
    let recorded = || ticket.recorded()?.fields.get(&name);
    ticket.fields.get(&name).or_else(recorded).map(|text| text.as_str().into())
}

fn joined<'t>(lines: impl Iterator<Item = &'t [u8]>) -> String {
    String::from_utf8_lossy(&lines.collect::<Vec<_>>().join(&b'\n')).into_owned()
}

/// Returns the beginning of a name in a reverse zone, with its last dot.
fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            address.octets().iter().rev().map(|byte| format!("{byte}.")).collect()
        }
        IpAddr::V6(address) => {
            let nibbles =
                address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect()
        }
    }
}

/// This host's names, the whole and the short one.
static HOST: LazyLock<(String, String)> = LazyLock::new(|| {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let short = node.split('.').next().unwrap_or_default().to_owned();
    (full_name(&node, &hosts), short)
});

/// Returns the name with a domain, if the list of hosts knows one.
fn full_name(node: &str, hosts: &str) -> String {
    if node.contains('.') {
        return node.to_owned();
    }
    let lines = hosts.lines().filter_map(|line| line.split('#').next());
    let names = lines.map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    let own = names.filter(|names| names.contains(&node)).flatten();
    let full = own
        .into_iter()
        .find(|name| name.strip_prefix(node).is_some_and(|rest| rest.starts_with('.')));
    full.unwrap_or(node).to_owned()
}

#[cfg(test)]
mod tests {

    use jiff::Timestamp;

    use super::*;
    use crate::{action::Past, ledger::Holder, store::Evidence};

    fn ticket() -> Ticket {
        Ticket {
            prefix: Some("203.0.113.7/32".parse().unwrap()),
            time: Timestamp::from_second(1_790_000_000).unwrap(),
            bantime: Some(Duration::from_secs(600)),
            failures: 5,
            bancount: 2,
            matches: vec![b"one $(reboot)".as_slice().into(), b"two \xff".as_slice().into()],
            fields: [("user", "root"), ("evil", "'; `id` #"), ("nul", "a\0b\n"), ("tag", "<ip>")]
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
            restored: true,
            ..Ticket::default()
        }
    }

    fn check(command: &str, text: &str, vars: &[(&str, &str)]) {
        let script = fill(command, Family::V4, &ticket());
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        assert_eq!(script, Script { text: text.to_owned(), vars: vars.collect() }, "{command}");
    }

    #[test]
    fn harmless_values_stand_in_the_text() {
        check("x <ip> <family> <fid>", "x 203.0.113.7 inet4 203.0.113.7", &[]);
        check("<time>|<bantime>|<bancount>", "1790000000|600|2", &[]);
        check("<failures><br><sp><restored>", "5\n 1", &[]);
        check("dig <ip-rev>zone <F-USER> <F-NONE>.", "dig 7.113.0.203.zone root .", &[]);
    }

    #[test]
    fn what_is_known_of_an_address_ends_with_this_ban() {
        let holder = |name: &str| Holder::Jail(name.into());
        let before = |name: &str, failures, line: &str| Evidence {
            prefix: "203.0.113.7/32".parse().unwrap(),
            holder: holder(name),
            at: Timestamp::UNIX_EPOCH,
            failures,
            reason: None,
            lines: vec![line.as_bytes().to_vec()],
            bantime: Some(Duration::from_secs(3600)),
            fields: [("user".to_owned(), format!("{name}'s"))].into(),
        };
        let past = Past::default();
        let ticket = Ticket {
            past: Past { holder: Some(holder("sshd")), ..past.clone() },
            matches: vec![b"now".as_slice().into()],
            ..ticket()
        };
        let said = |ticket: &Ticket| {
            let command = "<ipfailures> <ipjailfailures>|<ipmatches>|<ipjailmatches>";
            text(command, Family::V4, ticket).replace('\n', ",")
        };
        assert_eq!(said(&ticket), "5 5|now|now", "the disk does not answer");
        let known = vec![before("sshd", 3, "here"), before("web", 4, "there")];
        ticket.past.evidence.set(known).unwrap();
        assert_eq!(said(&ticket), "12 8|here,there,now|here,now");
        // one of an earlier run: what is on record of it
        let earlier = Ticket { matches: Vec::new(), fields: Default::default(), ..ticket.clone() };
        let of =
            |ticket| text("<time> <bantime> <F-USER> <failures> <matches>", Family::V4, &ticket);
        let ended = Ticket { ended: true, restored: false, failures: 0, ..earlier.clone() };
        assert_eq!(of(ended), "0 3600 sshd's 3 here");
        let restored = Ticket { ended: false, restored: true, failures: 0, ..earlier };
        assert_eq!(of(restored), "1790000000 600 sshd's 3 here");
        let past = ticket.past.shortened();
        assert_eq!(said(&Ticket { past, matches: Vec::new(), ..ticket }), "12 8||");
    }

    #[test]
    fn what_means_something_to_a_shell_is_a_variable() {
        check(
            "echo \"<matches>\" <F-EVIL> <F-EVIL>",
            "echo \"${f2bV_matches}\" ${f2bV_F_evil} ${f2bV_F_evil}",
            &[("f2bV_matches", "one $(reboot)\ntwo \u{fffd}"), ("f2bV_F_evil", "'; `id` #")],
        );
        check("<F-NUL>", "${f2bV_F_nul}", &[("f2bV_F_nul", "ab\n")]);
    }

    #[test]
    fn nothing_in_a_value_is_a_tag() {
        check("<F-TAG>", "${f2bV_F_tag}", &[("f2bV_F_tag", "<ip>")]);
    }

    #[test]
    fn what_is_no_tag_stays() {
        let text = "cat <<END < file <sender> <> a<b <a b> 2>&1 <f-user>";
        check(text, text, &[]);
        check("From: <<ip>>", "From: <203.0.113.7>", &[]);
    }

    #[test]
    fn a_long_value_keeps_its_end() {
        let line = vec![b'$'; LONGEST].into_boxed_slice();
        let ticket = Ticket { matches: vec![line, "ä".as_bytes().into()], ..ticket() };
        let script = fill("<matches>", Family::V4, &ticket);
        assert_eq!(script.vars[0].1.len(), LONGEST);
        assert!(script.vars[0].1.ends_with("\nä"));
    }

    #[test]
    fn ipv6_and_nobody() {
        let ticket =
            Ticket { prefix: Some("2001:db8::1/128".parse().unwrap()), ..Ticket::default() };
        let zone = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.";
        assert_eq!(fill("<ip-rev>", Family::V6, &ticket).text, zone);
        let nobody = fill("[<ip>] <family> <bantime>", Family::V6, &Ticket::default());
        assert_eq!(nobody.text, "[] inet6 -1");
    }

    #[test]
    fn names_of_this_host() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 edge.example.net edge # us\n";
        for (node, expected) in
            [("edge", "edge.example.net"), ("other", "other"), ("a.b", "a.b"), ("edg", "edg")]
        {
            assert_eq!(full_name(node, hosts), expected);
        }
    }

    proptest::proptest! {
        /// Outside of the environment there is nothing of what an attacker wrote but characters
        /// that mean nothing to a shell.
        #[test]
        fn no_value_reaches_the_shell(text in "\\PC{0,20}[\\x00-\\x7f]{0,20}") {
            let ticket = Ticket { fields: [("user".to_owned(), text.clone())].into(), ..ticket() };
            let script = fill("<F-USER>", Family::V4, &ticket);
            let plain = script.text == text && text.chars().all(is_plain);
            let variable = script.text == "${f2bV_F_user}";
            proptest::prop_assert!(plain || variable, "{}", script.text);
        }
    }
}
