//! What the actions of jails need beyond what the service's unit allows them, as far as their
//! commands tell, and which shipped drop-in grants it. Reads the unit's drop-ins; runs nothing.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{action, config::Config};

/// The unit, where it is installed.
const UNITS: [&str; 3] = [
    "usr/lib/systemd/system/ban-agent.service",
    "lib/systemd/system/ban-agent.service",
    "etc/systemd/system/ban-agent.service",
];
/// Its drop-ins.
const DROP_INS: [&str; 2] =
    ["etc/systemd/system/ban-agent.service.d", "run/systemd/system/ban-agent.service.d"];
/// Ours, to be copied.
const SHIPPED: &str = "/usr/share/ban-agent/drop-in";

/// Where the service may write.
const WRITABLE: [&str; 7] = [
    "/var/log/ban-agent",
    "/var/lib/ban-agent",
    "/run/ban-agent",
    "/dev",
    "/tmp",
    "/var/tmp",
    "/proc/self",
];

/// Programs that hand a mail to a local server.
const MAILERS: [&str; 9] =
    ["mail", "mailx", "Mail", "sendmail", "exim", "exim4", "mutt", "bsd-mailx", "s-nail"];
/// Programs that change a firewall.
const FIREWALLS: [&str; 7] =
    ["iptables", "ip6tables", "ipset", "nft", "firewall-cmd", "ufw", "shorewall"];

/// Programs that ask a service of the system, through a socket that the unit hides.
const CLIENTS: [&str; 8] = [
    "systemctl",
    "systemd-run",
    "loginctl",
    "busctl",
    "dbus-send",
    "firewall-cmd",
    "docker",
    "podman",
];

/// What a command needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Mail(String),
    Firewall(String),
    System(String),
    Write(String),
}

impl Need {
    /// Returns the drop-in, and the setting in it that grants this.
    fn granted_by(&self) -> (&'static str, String) {
        match self {
            Need::Mail(_) => ("mail.conf", "NoNewPrivileges=no".to_owned()),
            Need::Firewall(_) => ("firewall.conf", "CAP_NET_RAW".to_owned()),
            Need::System(_) => ("system.conf", "InaccessiblePaths=".to_owned()),
            Need::Write(path) => {
                let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
                ("files.conf", folder.display().to_string())
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Need::Mail(program) => format!("mails with '{program}'"),
            Need::Firewall(program) => format!("changes a firewall with '{program}'"),
            Need::System(program) => format!("asks a service of the system with '{program}'"),
            Need::Write(path) => format!("writes to {path}"),
        }
    }
}

/// Returns what the service would refuse the actions of these jails; nothing where there is no
/// service. `root` is `/`.
pub(super) fn warnings(config: &Config, root: &Path) -> Vec<String> {
    if !UNITS.iter().any(|unit| root.join(unit).exists()) {
        return Vec::new();
    }
    let granted: String = DROP_INS.iter().map(|folder| texts(&root.join(folder))).collect();
    let mut told = BTreeSet::new();
    let mut warnings = Vec::new();
    if let Some(group) = &config.agent.socket_group
        && !["SupplementaryGroups=", "CAP_CHOWN"].iter().any(|setting| granted.contains(setting))
    {
        warnings.push(format!(
            "[agent] socket_group: systemd lets the service give its socket only to the service's own groups: write '[Service]' and 'SupplementaryGroups={group}' into /{}/group.conf",
            DROP_INS[0]
        ));
    }
    for jail in &config.jails {
        for action in &jail.actions {
            for need in needs(action) {
                let (file, setting) = need.granted_by();
                if granted.contains(&setting) || !told.insert((action.name.clone(), need.clone())) {
                    continue;
                }
                let (jail, what) = (&jail.rules.name, need.describe());
                warnings.push(format!(
                    "jail {jail}: action {} {what}, which the service does not allow it: copy \
                     {SHIPPED}/{file} to /{}/",
                    action.name, DROP_INS[0]
                ));
            }
        }
    }
    warnings
}

/// Returns the settings of all drop-ins in a folder.
fn texts(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "conf"));
    let texts = files.filter_map(|path| fs::read_to_string(path).ok());
    let lines = |text: String| {
        let settings = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
        settings.collect::<Vec<_>>().join("\n") + "\n"
    };
    texts.map(lines).collect()
}

fn needs(action: &action::Spec) -> BTreeSet<Need> {
    let commands = [&action.v4, &action.v6].into_iter().flat_map(|commands| {
        let action::Commands { start, stop, reload, check, repair, ban, prolong, unban, flush } =
            commands;
        [start, stop, reload, check, repair, ban, prolong, unban, flush]
    });
    commands.flat_map(|command| needs_of(command)).collect()
}

fn needs_of(command: &str) -> Vec<Need> {
    let mut needs = Vec::new();
    let words: Vec<&str> = words(command).collect();
    for (at, word) in words.iter().enumerate() {
        let program = word.rsplit('/').next().unwrap_or(word);
        if MAILERS.contains(&program) {
            needs.push(Need::Mail(program.to_owned()));
        } else if FIREWALLS.contains(&program) {
            needs.push(Need::Firewall(program.to_owned()));
        }
        if CLIENTS.contains(&program) {
            needs.push(Need::System(program.to_owned()));
        }
        let writes = matches!(*word, ">" | ">>" | "tee" | "touch");
        let target = words
            .get(at + 1..)
            .and_then(|rest| rest.iter().find(|word| !word.starts_with('-')).filter(|_| writes));
        needs.extend(target.and_then(|path| foreign(path)));
    }
    needs
}

/// Returns a path that the service may not write to.
fn foreign(path: &str) -> Option<Need> {
    let inside = |folder: &&str| Path::new(path).starts_with(folder);
    let known = path.starts_with('/') && !path.contains(['$', '<', '*']);
    (known && !WRITABLE.iter().any(inside)).then(|| Need::Write(path.to_owned()))
}

/// Returns the words of a shell's text, without its quotes; redirections are words of their own.
pub(super) fn words(command: &str) -> impl Iterator<Item = &str> {
    let mut rest = command;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "\"'`;|&(){}".contains(c));
        let arrows = rest.len() - rest.trim_start_matches('>').len();
        let length = if arrows > 0 {
            arrows
        } else {
            // a tag is no redirection
            let mut inside = false;
            let end = rest.char_indices().find(|(_, c)| {
                let was = inside;
                inside = *c == '<' || (inside && *c != '>' && !c.is_whitespace());
                c.is_whitespace() || "\"'`;|&(){}".contains(*c) || (*c == '>' && !was)
            });
            end.map_or(rest.len(), |(at, _)| at)
        };
        let (word, tail) = rest.split_at(length);
        rest = tail;
        (!word.is_empty()).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn commands_tell_what_they_need() {
        let mail = |program: &str| Need::Mail(program.to_owned());
        let write = |path: &str| Need::Write(path.to_owned());
        let system = |program: &str| Need::System(program.to_owned());
        for (command, expected) in [
            ("curl -s https://example.net/?ip=<ip>", vec![]),
            ("printf x | /usr/sbin/sendmail -f root \"dest\"", vec![mail("sendmail")]),
            ("printf %%b \"Hi <ip>\n\" | mail -s \"a mailbox\" root", vec![mail("mail")]),
            ("echo '<ip>' >> /srv/far", vec![write("/srv/far")]),
            ("echo <ip> >/etc/nginx/banned/a; true", vec![write("/etc/nginx/banned/a")]),
            ("echo x | tee -a /etc/motd >/dev/null", vec![write("/etc/motd")]),
            ("echo x >> /var/log/ban-agent/x 2>&1", vec![]),
            ("nft add element x", vec![Need::Firewall("nft".to_owned())]),
            ("systemctl reload nginx", vec![system("systemctl")]),
            (
                "firewall-cmd -q",
                vec![Need::Firewall("firewall-cmd".into()), system("firewall-cmd")],
            ),
            ("echo x > \"$LOG\"", vec![]),
        ] {
            assert_eq!(needs_of(command), expected, "{command}");
        }
    }

    #[test]
    fn a_drop_in_is_named_until_it_is_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.toml");
        fs::write(
            &path,
            "[agent]\nsocket_group = \"daemon\"\n[actions.tell]\nban = \"mail -s ban root\"\n[actions.write]\nban = \"touch /srv/far\"\n\
             [jails.sshd]\nactions = [\"tell\", \"write\"]\n",
        )
        .unwrap();
        let config = config::load(&path).unwrap();
        assert!(warnings(&config, root.path()).is_empty(), "no service");
        let unit = root.path().join(UNITS[0]);
        fs::create_dir_all(unit.parent().unwrap()).unwrap();
        fs::write(&unit, "[Service]\n").unwrap();
        let told = warnings(&config, root.path());
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("SupplementaryGroups=daemon"), "{told:?}");
        assert!(told[1].contains("mails with 'mail'") && told[1].contains("/drop-in/mail.conf"));
        assert!(told[2].contains("writes to /srv/far") && told[2].contains("files.conf"));
        let folder = root.path().join(DROP_INS[0]);
        fs::create_dir_all(&folder).unwrap();
        let mail = include_str!("../../../dist/drop-in/mail.conf");
        fs::write(folder.join("mail.conf"), mail).unwrap();
        fs::write(folder.join("group.conf"), "[Service]\nSupplementaryGroups=daemon\n").unwrap();
        fs::write(folder.join("files.conf"), "[Service]\nReadWritePaths=/srv\n").unwrap();
        assert_eq!(warnings(&config, root.path()), [""; 0]);
    }

    #[test]
    fn what_is_shipped_grants_what_it_is_named_for() {
        for (need, text) in [
            (Need::Mail(String::new()), include_str!("../../../dist/drop-in/mail.conf")),
            (Need::Firewall(String::new()), include_str!("../../../dist/drop-in/firewall.conf")),
            (Need::System(String::new()), include_str!("../../../dist/drop-in/system.conf")),
            (
                Need::Write("/etc/nginx/banned/x".to_owned()),
                include_str!("../../../dist/drop-in/files.conf"),
            ),
        ] {
            assert!(text.contains(&need.granted_by().1), "{need:?}");
        }
    }
}
