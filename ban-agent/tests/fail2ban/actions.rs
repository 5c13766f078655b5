//! Actions of the installed fail2ban package, run as they stand: from the line of a log that an
//! attacker wrote to what a stub in the place of the mailer gets to see.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ban_agent::{
    action::{Action, Job, Ticket},
    clock::{Boot, Now},
    fail2ban,
    filter::{Filter, Scanner},
    jail::{Decision, Jail, Offence, Spec},
};
use jiff::Timestamp;
use tokio::sync::Semaphore;

const CONFIG: &str = "/etc/fail2ban";
const FILTER: &str =
    "[Definition]\nfailregex = ^bad user <F-USER>.*?</F-USER> from <HOST>$\ndatepattern = {NONE}\n";

/// What an attacker calls himself: every one of these would leave a file behind if a shell ever
/// read it. `{}` is the folder.
const NAMES: &[&str] = &[
    "$(touch {}/1)",
    "`touch {}/2`",
    "'; touch {}/3 #",
    "\"; touch {}/4 #",
    "| touch {}/5",
    "& touch {}/6",
    "\\\"$(touch {}/7)\\\"",
    "x\r touch {}/8 \r",
    "<(touch {}/9)",
    "${IFS}&&touch {}/10",
    "<ip> <F-USER> %s %b \\n",
];

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// The installed configuration with one jail; `None` if the package is not installed.
    fn new(action: &str) -> Option<Lab> {
        if !Path::new(CONFIG).join("action.d").exists() {
            assert!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
            eprintln!("SKIPPED: the package fail2ban is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        symlink(Path::new(CONFIG).join("action.d"), folder.path().join("action.d")).unwrap();
        fs::create_dir(folder.path().join("filter.d")).unwrap();
        fs::write(folder.path().join("filter.d/door.conf"), FILTER).unwrap();
        let lab = Lab { folder };
        fs::create_dir(lab.path("inert")).unwrap();
        lab.script("mailer", "printf '%s|' \"$@\" >> $LOG; echo >> $LOG; cat >> $LOG\n");
        let jail = format!(
            "[DEFAULT]\nbanaction = iptables-multiport\nport = ssh\nprotocol = tcp\n\
             bantime = 10m\nfindtime = 10m\nmaxretry = 1\n\
             action_ = %(banaction)s[port=\"%(port)s\", protocol=\"%(protocol)s\"]\n\
             [door]\nenabled = true\nfilter = door\nlogpath = /x\naction = %(action_)s\n         {}\n",
            action.replace("{}", &lab.folder.path().display().to_string())
        );
        fs::write(lab.path("jail.conf"), jail).unwrap();
        Some(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let log = self.path("log").display().to_string();
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{}", text.replace("$LOG", &log))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn jail(&self) -> Spec {
        let loaded = fail2ban::load(self.folder.path()).unwrap();
        assert_eq!(loaded.unsupported, []);
        let jail = loaded.jails.into_iter().next().unwrap();
        let ports: Vec<_> = jail.rules.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["tcp/22"], "the banaction is ours");
        jail
    }

    /// Bans and unbans with the jail's only action; gives what was written down.
    async fn run(&self, tickets: Vec<Ticket>) -> String {
        let jail = self.jail();
        assert_eq!(jail.actions.len(), 1);
        let spec = jail.actions.first().unwrap();
        let action = Action::start((**spec).clone(), "door", Arc::new(Semaphore::new(1)), None);
        for ticket in tickets.into_iter().map(Arc::new) {
            action.order(Job::Ban(Arc::clone(&ticket))).give();
            action.order(Job::Unban(ticket)).give();
        }
        let stats = Arc::clone(action.stats());
        action.finish().await;
        assert_eq!(stats.failed(), 0, "{:?}", stats.error());
        let left: Vec<_> = fs::read_dir(self.path("inert")).unwrap().flatten().collect();
        assert!(left.is_empty(), "a name was run: {left:?}");
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What the filter makes of these names in a log.
    fn tickets(&self, names: &[&str]) -> Vec<Ticket> {
        let inert = self.path("inert").display().to_string();
        let now = Now { boot: Boot(1_000_000), wall: "2026-11-20T12:00:00Z".parse().unwrap() };
        let spec = self.jail();
        let mut jail = Jail::new(&spec.rules);
        let mut scanner = Scanner::new(Arc::new(Filter::compile(&spec.rules.filter).unwrap()));
        let mut tickets = Vec::new();
        for name in names {
            let log = format!("bad user {} from 203.0.113.7\n", name.replace("{}", &inert));
            scanner.scan(log.as_bytes(), false, now.wall, &mut |failure, line| {
                if let Decision::Ban(offence) = jail.offence(failure, line, now) {
                    tickets.push(ticket(&offence, now.wall));
                }
            });
        }
        assert_eq!(tickets.len(), names.len(), "some names were not found");
        tickets
    }
}

fn ticket(offence: &Offence, time: Timestamp) -> Ticket {
    Ticket {
        prefix: Some(offence.prefix),
        time,
        bantime: offence.duration,
        failures: offence.failures,
        matches: offence.evidence.clone(),
        fields: offence.fields.clone(),
        ..Ticket::default()
    }
}

#[tokio::test]
async fn a_mail_with_what_the_attacker_wrote() {
    let action = "sendmail-whois-matches[name=door, mailcmd=\"{}/mailer -t\", \
                  _whois_command=\"echo whois <ip>\", sender=edge, dest=ops@example.net]";
    let Some(lab) = Lab::new(action) else { return };
    assert!(lab.jail().actions[0].norestored);
    let said = lab.run(lab.tickets(NAMES)).await;
    for text in [
        "-t|",
        "Subject: [Fail2Ban] door: started on",
        "From: Fail2Ban <edge>\nTo: ops@example.net",
        "The IP 203.0.113.7 has just been banned by Fail2Ban after\n1 attempts against door.",
        "whois 203.0.113.7",
        "bad user $(touch ",
        "bad user '; touch ",
        "Subject: [Fail2Ban] door: stopped on",
    ] {
        assert!(said.contains(text), "{text} is missing in:\n{said}");
    }
    assert_eq!(said.matches("has just been banned").count(), NAMES.len());
}

#[tokio::test]
async fn options_of_the_jail_reach_the_commands_words() {
    let action = "mail-whois-lines[name=door, mailcmd=\"{}/mailer -s\", dest=\"a b\", \
                  logpath=\"{}/auth.log\", grepmax=2, _whois_command=\"echo nobody\"]";
    let Some(lab) = Lab::new(action) else { return };
    let line = "bad user x from 203.0.113.7\n";
    fs::write(lab.path("auth.log"), line.repeat(5) + "other 203.0.113.70\n").unwrap();
    let said = lab.run(lab.tickets(&["x"])).await;
    assert!(said.contains("-s|[Fail2Ban] door: banned 203.0.113.7 from "), "{said}");
    assert_eq!(said.matches(line).count(), 2, "{said}");
}

#[tokio::test]
async fn families_and_tags_as_the_file_says() {
    let Some(lab) = Lab::new("dummy[target=\"{}/log\", init=\"go\"]") else { return };
    let mut tickets = lab.tickets(&["x"]);
    tickets.push(Ticket { prefix: Some("2001:db8::1/128".parse().unwrap()), ..Ticket::default() });
    let jail = lab.jail();
    let ban = &jail.actions[0].v6.ban;
    assert!(ban.contains("[door] dummy") && ban.contains("<family>"), "{ban}");
    // its actionstop takes the file away: what is seen is seen before
    lab.script("keep", "cp $LOG $LOG.kept\n");
    let text = fs::read_to_string(lab.path("jail.conf")).unwrap();
    let keep =
        format!("init=\"go\", actionflush=\"\", actionstop=\"{}\"", lab.path("keep").display());
    fs::write(lab.path("jail.conf"), text.replace("init=\"go\"", &keep)).unwrap();
    lab.run(tickets).await;
    let kept = fs::read_to_string(lab.path("log.kept")).unwrap();
    assert_eq!(kept, "go\n+203.0.113.7\n-203.0.113.7\n+2001:db8::1\n-2001:db8::1\n");
}

#[test]
fn conditional_words_differ_by_family() {
    let action = "cloudflare[cfuser=\"ops\", cftoken=\"secret\"]";
    let Some(lab) = Lab::new(action) else { return };
    let jail = lab.jail();
    let action = jail.actions.first().unwrap();
    assert!(action.v4.ban.contains("\"target\":\"ip\""), "{}", action.v4.ban);
    assert!(action.v6.ban.contains("\"target\":\"ip6\""), "{}", action.v6.ban);
    assert!(action.v6.unban.contains("X-Auth-Key: secret") && action.on_demand);
    assert_eq!(action.timeout, Duration::from_secs(60));
}

#[tokio::test]
async fn fields_of_the_filter_are_inert_too() {
    let Some(lab) = Lab::new("tell[mailcmd=\"{}/mailer\", timeout=5]") else { return };
    // an action of the operator's own, beside the installed ones
    fs::remove_file(lab.path("action.d")).unwrap();
    fs::create_dir(lab.path("action.d")).unwrap();
    let text = "[Definition]\nactionban = echo \"<F-USER>\" <F-USER> '<F-USER>' | <mailcmd> <F-NOBODY> \"<matches>\" <fid>\n";
    fs::write(lab.path("action.d/tell.conf"), text).unwrap();
    assert_eq!(lab.jail().actions[0].timeout, Duration::from_secs(5));
    let said = lab.run(lab.tickets(NAMES)).await;
    assert_eq!(said.matches("203.0.113.7|\n").count(), NAMES.len(), "{said}");
    assert!(said.contains("<ip> <F-USER> %s %b"), "{said}");
}

#[test]
fn every_installed_action_can_be_read() {
    let Some(lab) = Lab::new("mail") else { return };
    let jail = fs::read_to_string(lab.path("jail.conf")).unwrap();
    let mut read = 0;
    for entry in fs::read_dir(Path::new(CONFIG).join("action.d")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".conf") else { continue };
        let text = jail.replace("         mail\n", &format!("         {name}\n"));
        fs::write(lab.path("jail.conf"), text).unwrap();
        let loaded = fail2ban::load(lab.folder.path()).unwrap();
        let not_run = loaded.unsupported.iter().any(|note| note.what.contains("is not run"));
        assert!(!not_run, "{name}: {:?}", loaded.unsupported);
        read += 1;
    }
    assert!(read > 50, "only {read} actions");
}
