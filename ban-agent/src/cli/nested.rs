//! Finds commands that hand an attacker's text to a second interpreter. Our shell gets such text in
//! the environment, where it is inert; `sh -c "echo <F-USER>"` puts it into the program text of
//! another shell, which runs it. Only reads the commands.

use std::collections::BTreeSet;

use super::confined;
use crate::{action, config::Config};

/// Programs whose arguments are program text, and what says so; nothing: all of them are.
const INTERPRETERS: [(&[&str], &[&str]); 5] = [
    (&["sh", "bash", "dash", "ash", "ksh", "zsh", "su", "runuser", "python", "python3"], &["c"]),
    (&["perl", "ruby", "node"], &["e", "E"]),
    (&["php"], &["r"]),
    (&["mysql", "mariadb", "psql"], &["e", "c"]),
    (&["ssh", "eval", "sqlite3", "awk", "gawk", "mawk"], &[]),
];

/// Returns one warning for each action or `ignorecommand` that does.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut warnings = Vec::new();
    for jail in &config.jails {
        let actions = jail.actions.iter().flat_map(|action| {
            let what = format!("action {}", action.name);
            commands(action).map(move |command| (what.clone(), command.as_str()))
        });
        let asked =
            jail.rules.ignorecommand.iter().map(|ask| ("ignorecommand".into(), &*ask.command));
        for (what, command) in actions.chain(asked) {
            let Some((program, tag)) = nested(command) else { continue };
            if told.insert((jail.rules.name.to_string(), what.clone(), program.clone())) {
                warnings.push(format!(
                    "jail {}: {what} gives <{tag}>, which an attacker writes, to '{program}' as \
                     program text: it may be run as a command; hand it over on standard input or \
                     in the environment instead",
                    jail.rules.name
                ));
            }
        }
    }
    warnings
}

fn commands(action: &action::Spec) -> impl Iterator<Item = &String> {
    [&action.v4, &action.v6].into_iter().flat_map(|commands| {
        let action::Commands { start, stop, reload, check, repair, ban, prolong, unban, flush } =
            commands;
        [start, stop, reload, check, repair, ban, prolong, unban, flush]
    })
}

/// Returns the second interpreter of a command, and the tag that reaches it.
fn nested(command: &str) -> Option<(String, String)> {
    let words: Vec<&str> = confined::words(command).collect();
    words.iter().enumerate().find_map(|(at, word)| {
        let program = word.rsplit('/').next().unwrap_or(word);
        let (_, switches) = INTERPRETERS.iter().find(|(names, _)| names.contains(&program))?;
        let rest = words.get(at + 1..)?;
        let text = if switches.is_empty() {
            rest
        } else {
            let from = rest.iter().position(|word| is_switch(word, switches))?;
            rest.get(from + 1..)?
        };
        let tag = text.iter().find_map(|word| hostile(word))?;
        Some((program.to_owned(), tag.to_owned()))
    })
}

/// `-c`, or a cluster that ends in it: `-ec`, `-lc`; and the long forms.
fn is_switch(word: &str, switches: &[&str]) -> bool {
    if let Some(long) = word.strip_prefix("--") {
        return ["command", "execute", "eval"].iter().any(|name| long.starts_with(name));
    }
    word.strip_prefix('-').is_some_and(|short| switches.iter().any(|end| short.ends_with(end)))
}

/// Returns the first tag in a word whose value comes from a log line.
fn hostile(word: &str) -> Option<&str> {
    let mut rest = word;
    while let Some((_, inside)) = rest.split_once('<') {
        let (tag, after) = inside.split_once('>')?;
        if tag.starts_with("F-") || tag.ends_with("matches") || tag == "fid" {
            return Some(tag);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_interpreter_is_found() {
        for (command, expected) in [
            (r#"sh -c "echo <F-USER>""#, Some(("sh", "F-USER"))),
            (r#"/bin/bash -ec 'logger "$1"; echo "<matches>"'"#, Some(("bash", "matches"))),
            (r#"ssh router "block <ip> <F-USER>""#, Some(("ssh", "F-USER"))),
            (r#"su -c "mail <ipmatches>" bob"#, Some(("su", "ipmatches"))),
            (r#"eval echo "<F-HOST>""#, Some(("eval", "F-HOST"))),
            (r#"python3 -c "print('<F-USER>')""#, Some(("python3", "F-USER"))),
            (r#"mysql --execute "insert '<fid>'""#, Some(("mysql", "fid"))),
            // the address is ours, and cannot be anything else
            (r#"ssh router "block <ip> <time>""#, None),
            (r#"sh -c "echo <ip>"; echo ok"#, None),
            (r#"printf %s "<F-USER>" | mail -s ban root"#, None),
            (r#"curl --data-urlencode "user=<F-USER>" https://example.net/"#, None),
            (r#"bash /usr/local/bin/tell "<F-USER>""#, None),
        ] {
            let found = nested(command);
            let found = found.as_ref().map(|(program, tag)| (program.as_str(), tag.as_str()));
            assert_eq!(found, expected, "{command}");
        }
    }

    #[test]
    fn check_names_the_jail_and_the_action() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.toml");
        std::fs::write(
            &path,
            "[actions.tell]\nban = '''sh -c \"echo <F-USER>\"'''\n[jails.sshd]\nactions = [\"tell\"]\n",
        )
        .unwrap();
        let told = warnings(&crate::config::load(&path).unwrap());
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("jail sshd: action tell gives <F-USER>"), "{told:?}");
    }
}
