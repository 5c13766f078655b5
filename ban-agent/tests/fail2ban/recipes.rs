//! Configurations that operators run today, beside the installed fail2ban package's own: the
//! whole way from their files and a log line to the offence.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fmt::Write as _, fs, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use ban_agent::{
    clock::{Boot, Now},
    fail2ban,
    filter::{Filter, Scanner},
    jail::{Decision, Jail, Offence, Spec},
    source,
};
use jiff::{SignedDuration, Timestamp};

const CONFIG: &str = "/etc/fail2ban";

/// The installed configuration with more files in it; `None` if the package is not installed.
fn configuration(files: &[(&str, &str)]) -> Option<tempfile::TempDir> {
    if !Path::new(CONFIG).join("jail.conf").exists() {
        assert!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        eprintln!("skipped: the package fail2ban is not installed");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    for folder_name in ["jail.d", "filter.d"] {
        fs::create_dir(folder.path().join(folder_name)).unwrap();
        for entry in fs::read_dir(Path::new(CONFIG).join(folder_name)).unwrap().flatten() {
            let to = folder.path().join(folder_name).join(entry.file_name());
            symlink(entry.path(), to).unwrap();
        }
    }
    for entry in fs::read_dir(CONFIG).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    Some(folder)
}

fn jails(folder: &Path) -> Vec<Spec> {
    let loaded = fail2ban::load(folder).unwrap();
    for note in &loaded.unsupported {
        println!("{note}");
    }
    loaded.jails
}

fn jail<'j>(jails: &'j [Spec], name: &str) -> &'j Spec {
    jails.iter().find(|jail| &*jail.rules.name == name).unwrap()
}

/// The offences of a jail over a log.
fn offences(spec: &Spec, log: &str, now: Timestamp) -> Vec<Offence> {
    let mut scanner = Scanner::new(Arc::new(Filter::compile(&spec.rules.filter).unwrap()));
    let mut jail = Jail::new(&spec.rules);
    let mut offences = Vec::new();
    let clock = Now { boot: Boot(1_000_000), wall: now };
    scanner.scan(log.as_bytes(), false, now, &mut |failure, line| {
        if let Decision::Ban(offence) = jail.offence(failure, line, clock) {
            offences.push(offence);
        }
    });
    offences
}

/// `count` lines, one a second, the last one now; `{T}` is nginx's time, `{D}` syslog's.
fn lines(template: &str, count: i64, now: Timestamp) -> String {
    let mut log = String::new();
    for index in 0..count {
        let at = now - SignedDuration::from_secs(count - 1 - index);
        let at = at.to_zoned(jiff::tz::TimeZone::system());
        let line = template
            .replace("{T}", &at.strftime("%d/%b/%Y:%H:%M:%S %z").to_string())
            .replace("{D}", &at.strftime("%b %e %H:%M:%S").to_string());
        writeln!(log, "{line}").unwrap();
    }
    log
}

#[test]
fn failed_logins_at_an_api_behind_nginx() {
    let recipe = |status: u32| {
        let jail = format!(
            "[nginx-{status}]\nenabled  = true\nport     = http,https\nfilter   = nginx-{status}\n\
             action   = iptables-allports\nlogpath  = %(nginx_access_log)s\nbantime  = 3600\n\
             findtime = 600\nmaxretry = 25\nignoreip = 127.0.0.1/8\n"
        );
        let filter = format!(
            "[Definition]\nfailregex = ^<HOST> -.*\"(GET|POST|HEAD).*HTTP.*\" {status}\nignoreregex =\n"
        );
        (jail, filter)
    };
    let (jail_401, filter_401) = recipe(401);
    let (jail_531, filter_531) = recipe(531);
    let Some(folder) = configuration(&[
        ("jail.d/nginx-401.conf", &jail_401),
        ("filter.d/nginx-401.conf", &filter_401),
        ("jail.d/nginx-531.conf", &jail_531),
        ("filter.d/nginx-531.conf", &filter_531),
    ]) else {
        return;
    };
    let jails = jails(folder.path());
    let now = Timestamp::now();
    for status in [401, 531] {
        let spec = jail(&jails, &format!("nginx-{status}"));
        assert_eq!(
            (spec.rules.maxretry, spec.rules.findtime),
            (Some(25), Duration::from_secs(600))
        );
        assert_eq!(spec.rules.bantime, Some(Duration::from_secs(3600)));
        // All ports, although the jail names some: its action does not look at them.
        assert!(spec.rules.ports.is_empty());
        let ignored: Vec<_> = spec.rules.ignoreip.iter().map(ToString::to_string).collect();
        assert_eq!(ignored, ["127.0.0.0/8"]);
        assert!(spec.sources.iter().any(|source| matches!(source,
            source::Spec::File { path, .. } if path.starts_with("/var/log/nginx"))));
        for address in ["203.0.113.7", "2001:db8::7"] {
            let request = r#""POST /client/api?command=login HTTP/1.1""#;
            let line = format!("{address} - - [{{T}}] {request} {status} 163 \"-\" \"curl/8\"");
            assert_eq!(offences(spec, &lines(&line, 24, now), now), []);
            let found = offences(spec, &lines(&line, 25, now), now);
            assert_eq!(found.len(), 1);
            let other = line.replace(&format!(" {status} "), " 200 ");
            assert_eq!(offences(spec, &lines(&other, 100, now), now), []);
        }
    }
}

#[test]
fn two_jails_over_one_log() {
    let recipe = "[sshd]\nenabled  = true\nfilter   = sshd\nlogpath  = /var/log/auth.log\n\
                  maxretry = 3\nfindtime = 180\nbantime  = 1200\naction   = route\n\n\
                  [sshd-hourly]\nenabled  = true\nfilter   = sshd\nlogpath  = /var/log/auth.log\n\
                  maxretry = 5\nfindtime = 3600\nbantime  = 86400\naction   = route\n";
    let Some(folder) = configuration(&[("jail.local", recipe)]) else { return };
    let jails = jails(folder.path());
    let (short, long) = (jail(&jails, "sshd"), jail(&jails, "sshd-hourly"));
    assert_eq!(short.rules.bantime, Some(Duration::from_secs(1200)));
    assert_eq!(long.rules.bantime, Some(Duration::from_secs(86400)));
    assert_eq!(short.sources, long.sources);
    assert!(short.rules.ports.is_empty() && long.rules.ports.is_empty());
    let now = Timestamp::now();
    let line = "{D} edge sshd[4711]: Failed password for root from 203.0.113.7 port 4022 ssh2";
    assert_eq!(offences(short, &lines(line, 2, now), now), []);
    assert_eq!(offences(short, &lines(line, 3, now), now).len(), 1);
    assert_eq!(offences(long, &lines(line, 4, now), now), []);
    assert_eq!(offences(long, &lines(line, 5, now), now).len(), 1);
}

/// Everything that the package ships: each jail loads once it is enabled, each filter compiles.
#[test]
fn every_jail_of_the_package() {
    let Some(folder) = configuration(&[("jail.local", "[DEFAULT]\nenabled = true\n")]) else {
        return;
    };
    let jails = jails(folder.path());
    assert!(jails.len() > 60, "{}", jails.len());
    for jail in &jails {
        Filter::compile(&jail.rules.filter).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_word_of_the_installed_jails_is_known() {
    let Some(folder) = configuration(&[]) else { return };
    let action_d = folder.path().join("action.d");
    symlink(Path::new(CONFIG).join("action.d"), action_d).unwrap();
    let loaded = fail2ban::load(folder.path()).unwrap();
    let names = loaded.disabled.iter().chain([&"sshd".to_owned()]).cloned().collect::<Vec<_>>();
    assert!(names.len() > 80, "only {} jails", names.len());
    let mut local = String::new();
    for name in &names {
        let _ = write!(local, "[{name}]\nenabled = true\nlogpath = /x\n");
    }
    fs::write(folder.path().join("jail.local"), local).unwrap();
    let loaded = fail2ban::load(folder.path()).unwrap();
    let mut unknown: Vec<_> =
        loaded.unsupported.iter().filter(|note| note.what.contains("no word")).collect();
    // a variable that the package itself has left behind
    unknown.retain(|note| !(note.jail == "asterisk" && note.what.contains("'iso8601'")));
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(loaded.disabled == ["pass2allow-ftp"], "{:?}", loaded.disabled);
}
