//! Configurations that are right, and the errors of those that are not.

use std::{fs, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::{ledger::Protected, source};

fn load_text(text: &str) -> (TempDir, Result<Config, Error>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    let config = load(&path);
    (folder, config)
}

fn failure(text: &str) -> (usize, String, String) {
    match load_text(text).1 {
        Err(Error::Invalid { path, line, message, hint }) => {
            assert!(path.ends_with("config.toml"), "{}", path.display());
            (line, message, hint.unwrap_or_default())
        }
        other => panic!("expected an error with a place, not {other:?}"),
    }
}

const GOOD: &str = r#"
[agent]
interfaces = ["eth0"]
max_bans = 2048

[defaults]
ignoreip = ["127.0.0.0/8", "::1"]
findtime = "10m"

[filters.web]
failregex = ['^<ADDR> .* 401 ']

[jails.web]
filter = "web"
logpath = ["/var/log/nginx/access.log"]
maxretry = 25
bantime = -1
port = "tcp/80,443"
"#;

#[test]
fn reads_fail2bans_words_and_fills_in_defaults() {
    let config = load_text(GOOD).1.unwrap();
    assert_eq!(config.agent.interfaces, ["eth0"]);
    assert_eq!(config.agent.max_bans, 2048);
    let [jail] = config.jails.as_slice() else { panic!("one jail") };
    assert_eq!((jail.rules.maxretry, jail.rules.bantime), (Some(25), None));
    assert_eq!(jail.rules.findtime, Duration::from_secs(600));
    assert_eq!((jail.rules.prefix_v4, jail.rules.prefix_v6), (32, 64));
    assert_eq!(jail.rules.ignoreip.len(), 2);
    assert_eq!(jail.rules.ports.len(), 2);
    assert!(matches!(jail.sources.as_slice(), [source::Spec::File { .. }]));
}

#[test]
fn conf_d_wins_key_by_key() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, GOOD).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(folder.path().join("conf.d/10.toml"), "[jails.web]\nmaxretry = 3\n").unwrap();
    fs::write(folder.path().join("conf.d/20.toml"), "[jails.web]\nfindtime = 60\n").unwrap();
    fs::write(folder.path().join("conf.d/30.txt"), "not read").unwrap();
    let config = load(&path).unwrap();
    assert_eq!(config.jails[0].rules.maxretry, Some(3));
    assert_eq!(config.jails[0].rules.findtime, Duration::from_secs(60));
    assert_eq!(config.jails[0].rules.bantime, None);
    assert_eq!(config.files.len(), 3);
}

#[test]
fn lists_of_whom_is_protected_add_up() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    let agent = "[agent]\nallow = \"192.0.2.0/24, 2001:db8::/32\"\noperators = [\"eve\"]\nsocket_group = \"adm\"";
    fs::write(&path, GOOD.replace("[agent]", agent)).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    let more = "[agent]\nallow = [\"198.51.100.1\"]\ninterfaces = [\"eth1\"]\noperators = [\"bob\"]\n\
                [defaults]\nignoreip = \"203.0.113.1\"\n[jails.web]\nlogpath = [\"/other\"]\n\
                [jails.sshd]\nignoreip = [\"203.0.113.9\"]\n";
    fs::write(folder.path().join("conf.d/10.toml"), more).unwrap();
    fs::write(folder.path().join("conf.d/20.toml"), "[jails.sshd]\nignoreip = \"203.0.113.10\"\n")
        .unwrap();
    let config = load(&path).unwrap();
    let shown = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(shown(&config.agent.allow), "192.0.2.0/24 2001:db8::/32 198.51.100.1/32");
    assert_eq!(config.agent.interfaces, ["eth0", "eth1"]);
    assert_eq!(config.agent.operators, ["eve", "bob"]);
    let jail = |name: &str| config.jails.iter().find(|jail| &*jail.rules.name == name).unwrap();
    assert_eq!(shown(&jail("web").rules.ignoreip), "127.0.0.0/8 ::1/128 203.0.113.1/32");
    // a jail's own list stands for itself, as in fail2ban
    assert_eq!(shown(&jail("sshd").rules.ignoreip), "203.0.113.9/32 203.0.113.10/32");
    // what is read is another matter: the later file wins
    assert!(matches!(jail("web").sources.as_slice(),
        [source::Spec::File { path, .. }] if path == Path::new("/other")));
}

#[test]
fn a_key_with_a_dot_wants_quotes() {
    let hint = "a key that contains a dot needs quotes: \"bantime.increment\" = …";
    assert_eq!(failure(&format!("{GOOD}bantime.increment = true\n")).2, hint);
    let alone = GOOD.replace("bantime = -1", "bantime.increment = true");
    assert_eq!(failure(&alone).2, hint);
    let quoted = load_text(&format!("{GOOD}\"bantime.increment\" = true\n")).1.unwrap();
    assert!(quoted.jails[0].rules.increment.is_some());
}

#[test]
fn a_jail_that_is_off_is_listed_as_such() {
    let config = load_text(&format!("{GOOD}enabled = false\n")).1.unwrap();
    assert!(config.jails.is_empty());
    assert!(config.disabled.contains(&"web".to_owned()));
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn errors_name_the_line_and_the_remedy() {
    let (line, message, hint) = failure("[agent]\n\ninterface = [\"eth0\"]\n");
    assert_eq!((line, message.as_str()), (3, "unknown key 'interface'"));
    assert_eq!(hint, "did you mean 'interfaces'?");

    let (line, message, _) = failure(&GOOD.replace("\"::1\"", "\"::1/129\""));
    assert_eq!(line, 7);
    assert!(message.contains("::1/129"), "{message}");

    let (line, message, _) = failure(&GOOD.replace("\"10m\"", "\"10 parsecs\""));
    assert_eq!(line, 8);
    assert!(message.contains("10 parsecs"), "{message}");

    let (line, message, hint) = failure(&GOOD.replace("filter = \"web\"", "filter = \"wep\""));
    assert_eq!(line, 14);
    assert!(message.contains("no filter 'wep'"), "{message}");
    assert!(hint.contains("'web'"), "{hint}");

    let (line, message, _) = failure(&GOOD.replace("maxretry = 25", "maxretry = 0"));
    assert_eq!(line, 16);
    assert!(message.contains("at least 1"), "{message}");

    let (line, _, hint) = failure(&GOOD.replace("logpath = [\"/var/log/nginx/access.log\"]", ""));
    assert_eq!(line, 13);
    assert!(hint.contains("logpath"), "{hint}");

    // what could never be read, where it is said and not when it is tried
    let log = "logpath = [\"/var/log/nginx/access.log\"]";
    for (instead, about) in [
        ("syslog = \"udp://localhost:5514\"", "udp://ADDRESS:PORT"),
        ("syslog = \"unix:///run/x?mode=rw\"", "unix:///PATH"),
        ("journalmatch = \"--vacuum-size=1\"", "_SYSTEMD_UNIT"),
        ("logpath = [\"/var/log/[a\"]", "every [ needs"),
    ] {
        let (line, message, hint) = failure(&GOOD.replace(log, instead));
        assert_eq!(line, 15, "{message}");
        assert!(message.starts_with("jail 'web': ") && hint.contains(about), "{message}; {hint}");
    }

    assert_eq!(failure("[agent\n").0, 1);
}

#[test]
fn a_shipped_jail_finds_out_where_its_daemon_logs() {
    let sources = |text: &str| load_text(text).1.unwrap().jails[0].sources.clone();
    let auto = |source: &source::Spec| matches!(source, source::Spec::Auto { .. });
    let [source] = &sources("[jails.sshd]\n")[..] else { panic!("one source") };
    let source::Spec::Auto { files, matches } = source else { panic!("{source:?}") };
    assert_eq!(files, &[Path::new("/var/log/auth.log"), Path::new("/var/log/secure")]);
    assert!(matches.contains(&"_SYSTEMD_UNIT=ssh.service".to_owned()), "{matches:?}");
    assert!(sources("[jails.door]\nfilter = \"sshd\"\nlogpath = \"auto\"\n").iter().all(auto));
    // one that is named stands instead
    let journal = "[jails.sshd]\njournalmatch = \"_SYSTEMD_UNIT=my-ssh.service\"\n";
    assert!(matches!(&sources(journal)[..], [source::Spec::Journal { .. }]));
    let file = "[jails.sshd]\nlogpath = \"/srv/auth.log\"\n";
    assert!(matches!(&sources(file)[..], [source::Spec::File { .. }]));
    let (line, message, hint) =
        failure(&GOOD.replace("[\"/var/log/nginx/access.log\"]", "\"auto\""));
    assert_eq!(line, 15, "{message}");
    assert!(hint.contains("journalmatch"), "{hint}");
}

#[test]
fn a_missing_file_says_which() {
    let error = load(Path::new("/nonexistent/config.toml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/config.toml"), "{error}");
    assert!(error.hint().unwrap().contains("--config"));
}

#[test]
fn jails_of_fail2ban_join_ours() {
    let folder = TempDir::new().unwrap();
    let theirs = folder.path().join("fail2ban");
    fs::create_dir_all(theirs.join("filter.d")).unwrap();
    fs::write(theirs.join("filter.d/door.conf"), "[Definition]\nfailregex = ^bad <HOST>$\n")
        .unwrap();
    let jails =
        "[DEFAULT]\nenabled = true\nfilter = door\nlogpath = /x\naction = route\n[door]\n[web]\n";
    fs::write(theirs.join("jail.conf"), jails).unwrap();
    let path = folder.path().join("config.toml");
    let agent = format!("[agent]\nfail2ban = {:?}", theirs.display().to_string());
    fs::write(&path, GOOD.replace("[agent]", &agent)).unwrap();
    let config = load(&path).unwrap();
    let names: Vec<_> = config.jails.iter().map(|jail| &*jail.rules.name).collect();
    assert_eq!(names, ["door", "web"]);
    assert_eq!(config.jails[1].rules.maxretry, Some(25));
    assert!(config.warnings[0].starts_with("jail web: ours is used"), "{:?}", config.warnings);
    assert!(config.files.contains(&theirs.join("jail.conf")));

    fs::write(theirs.join("jail.conf"), "[door]\nenabled = perhaps\n").unwrap();
    let message = load(&path).unwrap_err().to_string();
    assert!(
        message.ends_with("jail.conf:2: [door] enabled: 'perhaps' is neither true nor false"),
        "{message}"
    );
}

/// serde lists the keys that it knows when it meets one that it does not.
fn known_keys(section: &str) -> Vec<String> {
    let (_, _, hint) = failure(&format!("[{section}]\n\"~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\" = 1\n"));
    let list = hint.strip_prefix("known keys here: ").unwrap();
    list.split(", ").map(Into::into).collect()
}

#[test]
fn every_key_is_documented() {
    let text = include_str!("../../../docs/configuration.md");
    for (section, title) in [
        ("agent", "## `[agent]`"),
        ("metrics", "## `[metrics]`"),
        ("events", "## `[events]`"),
        ("hooks.x", "## `[hooks.NAME]`"),
        ("geoip", "## `[geoip]`"),
        ("jails.x", "## `[jails.NAME]`"),
        ("filters.x", "## `[filters"),
        ("actions.x", "## `[actions"),
    ] {
        let start = text.find(title).unwrap();
        let part = text[start..].split("\n## ").next().unwrap();
        for key in known_keys(section) {
            assert!(part.contains(&format!("| `{key}` |")), "{section}: {key} is not documented");
        }
    }
}

#[test]
fn a_hook_has_one_target_that_exists() {
    let hook = |text: &str| load_text(&format!("[hooks.x]\n{text}\n")).1.unwrap().hooks.remove(0);
    let slack = hook("url = \"https://example.net/secret\"\njails = \"sshd\"");
    assert_eq!((slack.every, slack.timeout), (Duration::from_secs(10), Duration::from_secs(10)));
    assert_eq!((slack.tell.len(), slack.jails.as_slice()), (3, &["sshd".to_owned()][..]));
    assert!(!format!("{slack:?}").contains("secret"), "{slack:?}");
    let command = hook("command = [\"/bin/notify\"]\ntell = [\"bans\"]\nevery = \"1m\"");
    assert_eq!((command.tell.len(), command.every), (1, Duration::from_secs(60)));
    for (text, line, said) in [
        ("", 1, "hook 'x' has no url and no command"),
        ("url = \"https://a\"\ncommand = [\"/b\"]", 3, "hook 'x' has a url and a command"),
        ("url = \"ftp://a\"", 2, "hook 'x': url is not an http or https URL"),
        ("url = \"https://\"", 2, "hook 'x': url is not an http or https URL"),
        ("command = []", 2, "hook 'x': command must be a list that begins with an absolute path"),
        (
            "command = [\"notify\"]",
            2,
            "hook 'x': command must be a list that begins with an absolute path",
        ),
        ("command = [\"/b\"]\nformat = \"json\"", 3, "hook 'x': format is for a url"),
        ("url = \"https://a\"\ntell = [\"all\"]", 3, "unknown variant `all`"),
    ] {
        let (at, message, _) = failure(&format!("[hooks.x]\n{text}\n"));
        assert_eq!(at, line, "{text}: {message}");
        assert!(message.contains(said), "{text}: {message}");
    }
}

#[test]
fn metrics_for_others_have_to_be_meant() {
    let metrics = |text: &str| load_text(&format!("[metrics]\n{text}")).1.unwrap().metrics;
    assert_eq!(load_text(GOOD).1.unwrap().metrics, None, "off unless asked for");
    for listen in ["127.0.0.1:9938", "[::1]:9938", "unix:/run/x.sock"] {
        let text = format!("listen = \"{listen}\"\n");
        assert_eq!(metrics(&text), Some(listen.parse().unwrap()));
    }
    let open = "listen = \"0.0.0.0:9938\"\n";
    let (line, message, hint) = failure(&format!("[metrics]\n{open}"));
    assert_eq!(line, 2);
    assert!(message.contains("could be read from other hosts"), "{message}");
    assert!(hint.contains("allow_remote = true"), "{hint}");
    assert_eq!(metrics(&format!("{open}allow_remote = true\n")), "0.0.0.0:9938".parse().ok());
    for listen in ["localhost", "unix:x.sock"] {
        assert_eq!(failure(&format!("[metrics]\n\nlisten = \"{listen}\"\n")).0, 3);
    }
}

#[test]
fn an_export_resolves_to_the_same_jails() {
    let text = format!(
        "{GOOD}\"bantime.increment\" = true\n\"bantime.maxtime\" = \"1w\"\n\
         [jails.sshd]\nport = \"ssh\"\nprefix_v6 = 64\nextend_hits = 9\n\
         \"bantime.increment\" = true\n\"bantime.formula\" = \"ban.Time * ban.Count\"\n\
         [jails.log]\nfilter = \"web\"\nsyslog = \"udp://127.0.0.1:5514\"\nlogpath = \"/x tail\"\n\
         ignoreregex = ['friend']\nignoreip = \"192.0.2.1 host.example.net file:/etc/friends\"\n\
         ignorecommand = \"test <ip> = 192.0.2.2\"\n\
         ignorecache = {{ key = \"<ip>\", max-count = 5, max-time = \"1m\" }}\nactions = [\"tell\"]\n\
         [actions.tell]\nban = \"echo <ip>\"\nunban = \"true\"\nnorestored = true\n\
         inet6.ban = \"echo six\"\ntimeout = \"1m 30s\"\n"
    );
    let config = load_text(&text).1.unwrap();
    assert_eq!(config.jails.len(), 3);
    let again = load_text(&export(&config)).1.unwrap();
    let unnamed = |config: &Config| {
        let mut jails = config.jails.clone();
        for jail in &mut jails {
            let jail = Arc::make_mut(jail);
            Arc::make_mut(&mut jail.rules.filter).name.clear();
            for action in &mut jail.actions {
                Arc::make_mut(action).name = "".into();
            }
        }
        jails
    };
    assert_eq!(unnamed(&again), unnamed(&config));
}

#[test]
fn actions_are_found_by_name() {
    let text = format!(
        "{GOOD}actions = \"tell\"\n[actions.tell]\nban = \"b\"\ninet6.ban = \"six\"\n\
         [jails.sshd]\n[jails.log]\nfilter = \"web\"\nlogpath = \"/x\"\nactions = [\"tel\"]\n"
    );
    let (line, message, hint) = failure(&text);
    assert_eq!(line, text.lines().count());
    assert_eq!(message, "jail 'log': there is no action 'tel'");
    assert_eq!(hint, "did you mean 'tell'? or define [actions.tel]");
    let config = load_text(&text.replace("\"tel\"", "\"tell\"")).1.unwrap();
    let web = config.jails.iter().find(|jail| &*jail.rules.name == "web").unwrap();
    let [tell] = web.actions.as_slice() else { panic!("one action") };
    assert_eq!((tell.v4.ban.as_str(), tell.v6.ban.as_str(), tell.on_demand), ("b", "six", true));
    assert!(config.jails.iter().any(|jail| &*jail.rules.name == "sshd" && jail.actions.is_empty()));
    assert_eq!(failure(&text.replace("inet6.ban", "inet6.bam")).2, "did you mean 'ban'?");
}

#[test]
fn the_socket_is_found_in_a_broken_configuration() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    assert_eq!(socket(&path), Path::new(DEFAULT_SOCKET));
    fs::write(&path, "[agent]\nsocket = \"/a\"\nnonsense = [\n[jails").unwrap();
    assert_eq!(socket(&path), Path::new("/a"));
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(folder.path().join("conf.d/1.toml"), "[agent]\nsocket = \"/b\"\n").unwrap();
    assert_eq!(socket(&path), Path::new("/b"));
}

#[test]
fn a_port_that_may_be_absent_is_warned_of() {
    let text = |pattern: &str| {
        format!(
            "[filters.a]\nfailregex = ['{pattern}']\n[jails.a]\nlogpath = '/a.log'\nfilter = 'a'\n"
        )
    };
    let warnings = |pattern| load_text(&text(pattern)).1.unwrap().warnings;
    let warned = warnings(r"\[client <ADDR>(?::\d+)?\]");
    assert!(
        warned
            .iter()
            .any(|text| text.contains("jail a: failregex '") && text.contains(r"<ADDR>:\d+")),
        "{warned:?}"
    );
    assert!(warnings(r"\[client <ADDR>:\d+\]").is_empty());
}

#[test]
fn what_others_could_misuse_is_warned_of() {
    let (folder, config) = load_text(
        "[filters.web]\nfailregex = ['^<ADDR> no']\n\
         [jails.log]\nfilter = \"web\"\nsyslog = \"unix:///run/x?mode=0666\"\n\
         [jails.shut]\nfilter = \"web\"\nsyslog = \"unix:///run/y\"\n",
    );
    let config = config.unwrap();
    let told = |config: &Config, what: &str| {
        config.warnings.iter().filter(|warning| warning.contains(what)).count()
    };
    assert_eq!(told(&config, "every user of this host"), 1, "{:?}", config.warnings);
    assert_eq!(told(&config, "can be written by"), 0, "{:?}", config.warnings);
    let path = folder.path().join("config.toml");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    assert_eq!(told(&load(&path).unwrap(), "can be written by everybody"), 1);
}

#[test]
fn one_part_that_makes_no_sense_stops_no_other() {
    let text = format!(
        "{GOOD}actions = [\"tell\", \"mail\"]\n\
         [actions.tell]\nban = \"true\"\n[actions.mail]\nbann = \"true\"\n\
         [filters.odd]\nfailregex = '('\n[jails.odd]\nlogpath = \"/x\"\n\
         [jails.slip]\nfilter = \"web\"\nlogpath = \"/x\"\nmaxretri = 3\n\
         [jails.blind]\nfilter = \"web\"\n[hooks.nowhere]\n"
    );
    let (folder, strict) = load_text(&text);
    let message = strict.unwrap_err().to_string();
    assert!(message.contains("unknown key 'bann'"), "{message}");
    let (config, faults) = load_sound(&folder.path().join("config.toml")).unwrap();
    let [web] = config.jails.as_slice() else { panic!("{:?}", config.jails) };
    assert_eq!((&*web.rules.name, web.actions.len()), ("web", 1), "it bans without its mail");
    let refused: Vec<_> = config.refused.iter().map(|refused| refused.part.as_str()).collect();
    let expected =
        ["action mail", "jail slip", "filter odd", "hook nowhere", "jail blind", "jail odd"];
    assert_eq!(refused, expected);
    assert_eq!(faults.len(), expected.len() - 1, "what follows is told once");
    assert!(config.refused[1].why.contains("unknown key 'maxretri'"), "{:?}", config.refused);
    assert_eq!(config.refused[5].why, "jail odd: its filter 'odd' is not valid");

    // what all share is another matter: nobody guesses whom to allow
    for text in ["[agent]\nallow = [\"x\"]\n", "[defaults]\nmaxretry = 0\n", "[jails"] {
        assert!(load_sound(load_text(text).0.path().join("config.toml").as_path()).is_err());
    }
}

#[test]
fn a_jail_for_bans_by_hand() {
    let text = "[filters.hand]\nfailregex = []\n[jails.hand]\nlogpath = []\nbantime = \"2 * 1d\"\n";
    let config = load_text(text).1.unwrap();
    assert!(config.jails[0].sources.is_empty());
    assert_eq!(config.jails[0].rules.bantime, Some(Duration::from_secs(2 * 86_400)));
    assert_eq!(load_text(&export(&config)).1.unwrap().jails, config.jails);
}

#[test]
fn what_waits_for_the_next_start_is_named() {
    let hook = "[hooks.x]\nurl = \"https://example.net/\"\n";
    let load = |text: &str| load_text(text).1.unwrap();
    let former = load(&format!("{GOOD}{hook}"));
    let same = load(&format!("{GOOD}{hook}").replace("maxretry = 25", "maxretry = 26"));
    assert!(same.waits_for_start(&former).is_empty());
    let at_once = format!("{GOOD}{hook}")
        .replace("[agent]", "[agent]\nallow = \"192.0.2.1\"\nmanual_bantime = -1");
    assert!(load(&at_once).waits_for_start(&former).is_empty());
    let text = GOOD
        .replace("eth0", "eth1")
        .replace("[agent]", "[agent]\ndry_run = true\nmode = \"generic\"");
    let new = load(&format!("{text}[events]\njournal = true\nsample = 1\n"));
    let named =
        ["[agent] interfaces", "[agent] mode", "[agent] dry_run", "[events] journal", "[hooks.x]"];
    assert_eq!(new.waits_for_start(&former), named);
}

/// As many as the maps hold, or a refusal with its place: never fewer in force than are listed.
#[test]
fn an_allow_list_is_in_force_or_refused() {
    let list = |from: u32, count: u32| {
        let nets = (from..from + count).map(|net| std::net::Ipv4Addr::from(0x0a00_0000 + net * 2));
        nets.map(|net| format!("'{net}'")).collect::<Vec<_>>().join(",")
    };
    let config = |count, more: &str| {
        let text = format!("[agent]\n{more}\nallow = [{}]\n", list(0, count));
        load_text(&text).1.map(|config| config.agent.allowed().len())
    };
    let place = |refused: Result<usize, Error>| match refused {
        Err(Error::Invalid { line, message, .. }) => (line, message),
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(config(250_000, "").unwrap(), 750_000, "twice behind translators");
    let (line, message) = place(config(250_001, ""));
    assert!(line == 3 && message.contains("at most 250000"), "{line}: {message}");
    let own = |count: u16| {
        let own = (0..count).map(|number| format!("'2001:db8:{number}::/96'"));
        format!("nat64 = [{}]", own.collect::<Vec<_>>().join(","))
    };
    assert_eq!(config(250_000, &own(2)).unwrap(), 1_250_000);
    let (line, message) = place(config(250_000, &own(3)));
    assert!(line == 3 && message.contains("1250000 prefixes of IPv6"), "{line}: {message}");

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, format!("[agent]\nallow = [{}]\n", list(0, 150_000))).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    let more = format!("[agent]\nallow = [{}]\n", list(200_000, 150_000));
    fs::write(folder.path().join("conf.d/10.toml"), more).unwrap();
    let (_, message) = place(load(&path).map(|_| 0));
    assert!(message.contains("300000 prefixes are too many"), "{message}");
}

#[test]
fn proxies_are_named_by_address_by_list_and_in_files() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("own.list");
    fs::write(&own, "# mine\n192.0.2.128/25 # edge\n2001:db8:9::/48\n").unwrap();
    let path = folder.path().join("config.toml");
    let text = format!(
        "[agent]\ntrusted_proxies = [\"cdn:fastly\", \"198.51.100.7\", {own:?}]\n\
         [jails.nginx-401]\ntrusted_proxies = \"203.0.113.0/24\"\n[jails.sshd]\n"
    );
    fs::write(&path, &text).unwrap();
    let config = load(&path).unwrap();
    let why = |net: &str| {
        let proxies = &config.agent.protect.proxies;
        let net: IpNet = net.parse().unwrap();
        proxies.iter().find(|(proxy, _)| proxy.contains(&net)).map(|(_, why)| *why)
    };
    assert_eq!(why("151.101.1.1/32"), Some(Protected::Cdn("cdn:fastly")));
    for net in ["198.51.100.7/32", "192.0.2.200/32", "2001:db8:9::1/128", "64:ff9b::c633:6407/128"]
    {
        assert_eq!(why(net), Some(Protected::Proxy), "{net}");
    }
    // never without being asked for
    for net in ["173.245.48.1/32", "203.0.113.1/32", "192.0.2.1/32"] {
        assert_eq!(why(net), None, "{net}");
    }
    let of = |name: &str| config.jails.iter().find(|jail| &*jail.rules.name == name).unwrap();
    assert_eq!(of("nginx-401").rules.proxies[0].to_string(), "203.0.113.0/24");
    assert!(of("sshd").rules.proxies.is_empty());
    assert!(of("sshd").rules.filter.proxies.is_empty());
    // a change of the file is a change of the configuration
    assert_eq!(config.files, [path.clone(), own.clone()]);

    // a list that cannot be read is said, and takes nothing else along
    fs::write(&own, "192.0.2.128/25\n192.0.2.400\n").unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert!(error.contains("own.list:2: '192.0.2.400' is neither"), "{error}");
    fs::remove_file(&own).unwrap();
    let (config, errors) = load_sound(&path).unwrap();
    assert!(errors[0].to_string().contains("config.toml:2: cannot read"), "{}", errors[0]);
    assert_eq!(config.refused[0].part, "agent trusted_proxies");
    assert_eq!((config.jails.len(), config.agent.protect.proxies.is_empty()), (2, false));
    // but no jail bans those whom it should trust
    fs::write(&path, format!("[jails.sshd]\n[jails.nginx-401]\ntrusted_proxies = {own:?}\n"))
        .unwrap();
    let (config, errors) = load_sound(&path).unwrap();
    assert_eq!((config.jails.len(), errors.len()), (1, 1));
}

#[test]
fn lists_of_words_stand_in_the_configuration_in_files_or_in_the_binary() {
    let folder = tempfile::tempdir().unwrap();
    let (path, list) = (folder.path().join("config.toml"), folder.path().join("own.list"));
    fs::write(&list, "# mine\n/a b\n\n/c\r\n").unwrap();
    let filter = |name: &str| format!("[filters.{name}]\nfailregex = '^<ADDR> <LIST:{name}>$'\n");
    let jail = |name: &str| format!("[jails.{name}]\nlogpath = \"/var/log/x\"\n");
    let names = ["one", "two", "probe-paths"];
    let parts: String = names.iter().map(|name| filter(name) + &jail(name)).collect();
    let text = format!("[words]\none = [\"/x\", \"/y\"]\ntwo = {list:?}\n{parts}");
    fs::write(&path, &text).unwrap();
    let config = load(&path).unwrap();
    let words = |name: &str| config.filters[name].words[name].to_vec();
    assert_eq!(
        (words("one"), words("two")),
        (vec!["/x".into(), "/y".into()], vec!["/a b".into(), "/c".into()])
    );
    assert!(words("probe-paths").contains(&"/.env".to_owned()));
    assert!(config.filters["sshd"].words.is_empty());
    assert_eq!(config.files, [path.clone(), list.clone()]);
    fs::remove_file(&list).unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert!(error.contains("config.toml:3: list 'two': cannot read"), "{error}");
    fs::write(&path, filter("three") + &jail("three")).unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert!(error.contains("there is no list 'three'"), "{error}");
}

#[test]
fn a_filter_that_asks_for_the_chain_knows_the_proxies_of_agent_and_jail() {
    let text = "[agent]\ntrusted_proxies = \"192.0.2.0/24\"\n\
        [jails.shop]\nlogpath = \"/var/log/shop\"\ntrusted_proxies = \"2001:db8::/48\"\n\
        [jails.sshd]\nlogpath = \"/var/log/auth.log\"\n\
        [filters.shop]\nfailregex = \"^<ADDR> <F-XFF>.*</F-XFF>$\"\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    let config = load(&path).unwrap();
    let trusted = |name: &str| {
        let jail = config.jails.iter().find(|jail| &*jail.rules.name == name).unwrap();
        jail.rules.filter.proxies.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for net in ["192.0.2.0/24", "2001:db8::/48", "64:ff9b::c000:200/120"] {
        assert!(trusted("shop").iter().any(|known| known == net), "{net}: {:?}", trusted("shop"));
    }
    assert!(trusted("sshd").is_empty());
}

/// They would be asked in vain.
#[test]
fn a_jail_of_bans_has_no_patterns_of_its_own() {
    let count = |filter: &str, more: &str| {
        format!("{filter}\n[jails.again]\nfilter = \"recidive\"\nbans = true\n{more}")
    };
    let shipped = format!("[filters.recidive]\nfailregex = '{}'", source::BAN_LINE);
    let config = load_text(&count(&shipped, "")).1.unwrap();
    assert_eq!(config.jails[0].sources, [source::Spec::Bans]);
    let other = "[filters.recidive]\nfailregex = '^ \\[sshd\\] Ban <SUBNET>$'";
    for text in [count(other, ""), count(&shipped, "ignoreregex = 'sshd'\n")] {
        let (line, message, hint) = failure(&text);
        assert_eq!(
            (line, message.as_str()),
            (5, "jail 'again': its patterns are not asked about bans")
        );
        assert!(hint.contains("without ignoreregex"), "{hint}");
    }
}

#[test]
fn what_two_files_set_is_told_with_both_places() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    let more = folder.path().join("conf.d");
    fs::create_dir(&more).unwrap();
    fs::write(&path, "[agent]\nmax_bans = 2048\nallow = [\"192.0.2.1\"]\n[jails.sshd]\n").unwrap();
    let text = "[agent]\nmax_bans = 4096\nallow = [\"192.0.2.2\"]\n[jails.sshd]\nmaxretry = 4\n";
    fs::write(more.join("a.toml"), text).unwrap();
    let text = "[jails.sshd]\nmaxretry = 9\n[agent]\nmax_bans = 4096\n";
    fs::write(more.join("b.toml"), text).unwrap();
    let config = load(&path).unwrap();
    assert_eq!((config.agent.max_bans, config.agent.allow.len()), (4096, 2));
    let [bans, retry] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    let place = |file: &str, line: u32| format!("{}:{line}", folder.path().join(file).display());
    let said =
        |key: &str, used: &str, not: &str| format!("{key} is set twice: {used} is used, not {not}");
    let (first, second) = (place("config.toml", 2), place("conf.d/a.toml", 2));
    assert_eq!(*bans, said("[agent] max_bans", &second, &first), "the same once more says nothing");
    let (first, second) = (place("conf.d/a.toml", 5), place("conf.d/b.toml", 2));
    assert_eq!(*retry, said("[jails.sshd] maxretry", &second, &first));
}

#[test]
fn a_default_about_lines_is_not_asked_about_bans() {
    let text = "[defaults]\nignoreregex = ['x']\n[jails.recidive]\n[jails.sshd]\n";
    let config = load_text(text).1.unwrap();
    let patterns = |name: &str| {
        let jail = config.jails.iter().find(|jail| *jail.rules.name == *name).unwrap();
        jail.rules.filter.ignoreregex.clone()
    };
    assert!(patterns("recidive").is_empty());
    assert!(patterns("sshd").contains(&"x".to_owned()));
    let own = text.replace("[jails.sshd]", "ignoreregex = ['x']\n");
    assert!(load_text(&own).1.unwrap_err().to_string().contains("not asked about bans"));
}
