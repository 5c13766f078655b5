//! Whole configurations, written to a folder and loaded.

use std::{fs, path::Path, time::Duration};

use super::*;
use crate::{
    filter::Filter,
    jail::{IgnoreCache, IgnoreCommand, Spec},
    source::{self, Start},
};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = folder.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self) -> Loaded {
        load(self.path()).unwrap()
    }

    fn jail(&self, name: &str) -> Spec {
        self.load().jails.into_iter().find(|jail| &*jail.rules.name == name).unwrap()
    }

    fn error(&self) -> String {
        let first = |loaded: Loaded| loaded.refused.into_iter().next().unwrap().1;
        let error = load(self.path()).map_or_else(|error| error, first);
        error.to_string().replace(&self.path().display().to_string(), "")
    }
}

const FILTER: &str = "[Definition]\nfailregex = ^bad <HOST>$\nignoreregex =\n";

#[test]
fn two_jails_on_one_log() {
    let folder = Folder::new(&[
        ("filter.d/door.conf", FILTER),
        (
            "jail.conf",
            "[DEFAULT]\nenabled = false\nfindtime = 10m\nbantime = 10m\nmaxretry = 5\n\
             door_log = /var/log/door.log\naction = route\n\
             [door]\nenabled = true\nlogpath = %(door_log)s\nmaxretry = 3\nfindtime = 180\nbantime = 1200\n\
             [door-hourly]\nenabled = true\nfilter = door\nlogpath = %(door_log)s tail\n\
             \x20         /var/log/second\nbantime = -1\nignoreip = 127.0.0.1/8, 10.0.0.0/8\n  ::1\n\
             [off]\nfilter = nosuch\n",
        ),
    ]);
    let loaded = folder.load();
    assert_eq!(loaded.disabled, ["off"]);
    assert_eq!(loaded.unsupported, []);
    let door = folder.jail("door");
    assert_eq!(
        (door.rules.maxretry, door.rules.findtime, door.rules.bantime),
        (Some(3), Duration::from_secs(180), Some(Duration::from_secs(1200)))
    );
    assert!(door.rules.ports.is_empty());
    let hourly = folder.jail("door-hourly");
    assert_eq!((hourly.rules.bantime, hourly.rules.maxretry), (None, Some(5)));
    assert_eq!(
        hourly.sources,
        [
            source::Spec::File { path: "/var/log/door.log".into(), start: Start::End },
            source::Spec::File { path: "/var/log/second".into(), start: Start::Beginning },
        ]
    );
    let shown: Vec<_> = hourly.rules.ignoreip.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "127.0.0.0/8", "::1/128"]);
}

#[test]
fn local_files_and_folders_override() {
    let folder = Folder::new(&[
        ("filter.d/door.conf", FILTER),
        (
            "filter.d/door.local",
            "[Definition]\nfailregex = %(known/failregex)s\n  ^worse <HOST>$\n",
        ),
        ("paths.conf", "[INCLUDES]\nafter = paths.local\n[DEFAULT]\nwhere = /a\n"),
        ("paths.local", "[DEFAULT]\nwhere = /b\n"),
        (
            "jail.conf",
            "[INCLUDES]\nbefore = paths.conf\n[door]\nlogpath = %(where)s\nmaxretry = 1\n",
        ),
        ("jail.d/10.conf", "[door]\nenabled = true\nmaxretry = 2\n"),
        ("jail.d/20.conf", "[door]\nmaxretry = 3\n"),
        ("jail.local", "[door]\nmaxretry = 4\n"),
        ("jail.d/30.local", "[door]\nmaxretry = 5\n"),
    ]);
    let door = folder.jail("door");
    assert_eq!(door.rules.maxretry, Some(5));
    assert_eq!(door.rules.filter.failregex, ["^bad <HOST>$", "^worse <HOST>$"]);
    assert_eq!(door.sources, [source::Spec::File { path: "/b".into(), start: Start::Beginning }]);
}

#[test]
fn filters_with_options_and_includes() {
    let folder = Folder::new(&[
        (
            "filter.d/common.conf",
            "[DEFAULT]\n_daemon = \\S*\n__prefix = <lt_<logtype>/prefix>\nlogtype = file\n[lt_file]\nprefix = ^f <_daemon>:\n[lt_short]\nprefix = ^s %(x)s\nx = y\n[lt_journal]\nprefix = ^j\n",
        ),
        (
            "filter.d/door.conf",
            "[INCLUDES]\nbefore = common.conf\n[Definition]\n_daemon = door\nmode = normal\n\
             re-normal = bad\nre-loud = bad\n  loud 100%%\n\
             prefregex = %(__prefix)s <F-CONTENT>.*</F-CONTENT>$\n\
             failregex = ^<re-<mode>> <HOST>$\n  ^always <HOST>\n\
             datepattern = {^LN-BEG}%%Y\nmaxlines = 2\n[Init]\nextra = 1\n",
        ),
    ]);
    let normal = filter(folder.path(), "door").unwrap();
    assert_eq!(normal.prefregex.as_deref(), Some("^f door: <F-CONTENT>.*</F-CONTENT>$"));
    assert_eq!(normal.failregex, ["^bad <HOST>$", "^always <HOST>"]);
    assert_eq!(normal.datepattern, ["{^LN-BEG}%Y"]);
    assert_eq!(normal.maxlines, 2);
    let loud = filter(folder.path(), "door[mode=loud, logtype=short]").unwrap();
    assert_eq!(loud.failregex, ["^bad", "loud 100% <HOST>$", "^always <HOST>"]);
    assert_eq!(loud.prefregex.as_deref(), Some("^s y <F-CONTENT>.*</F-CONTENT>$"));
}

#[test]
fn a_jail_refines_its_filter() {
    let folder = Folder::new(&[
        ("filter.d/door.conf", "[Definition]\nfailregex = ^bad 100%% <HOST>$\n"),
        (
            "jail.conf",
            "[door]\nenabled = true\nlogpath = /x\nfailregex = %(known/failregex)s\n    ^worse <HOST>$\nignoreregex = friend\n",
        ),
    ]);
    let door = folder.jail("door");
    assert_eq!(door.rules.filter.failregex, ["^bad 100% <HOST>$", "^worse <HOST>$"]);
    assert_eq!(door.rules.filter.ignoreregex, ["friend"]);
}

#[test]
fn the_journal() {
    let folder = Folder::new(&[
        (
            "filter.d/door.conf",
            "[Definition]\nfailregex = ^<logtype> <HOST>$\njournalmatch = _SYSTEMD_UNIT=door.service + _COMM=door\n",
        ),
        ("jail.conf", "[door]\nenabled = true\nbackend = systemd\n"),
    ]);
    let door = folder.jail("door");
    let matches = ["_SYSTEMD_UNIT=door.service", "+", "_COMM=door"].map(str::to_owned).to_vec();
    assert_eq!(door.sources, [source::Spec::Journal { matches }]);
    assert_eq!(door.rules.filter.failregex, ["^journal <HOST>$"]);
}

#[test]
fn growing_bans() {
    let jail = |more: &str| {
        Folder::new(&[
            ("filter.d/door.conf", FILTER),
            (
                "jail.conf",
                &format!(
                    "[door]\nenabled = true\nlogpath = /x\nbantime.increment = true\n{more}\n"
                ),
            ),
        ])
    };
    let increment = |more: &str| jail(more).jail("door").rules.increment.unwrap();
    let plain =
        increment("bantime.maxtime = 5w\nbantime.rndtime = 1m\nbantime.overalljails = true");
    assert_eq!((plain.factor, plain.multipliers.len()), (1.0, 0));
    assert_eq!(plain.maxtime, Some(Duration::from_secs(5 * 7 * 86400)));
    assert_eq!((plain.rndtime, plain.overalljails), (Duration::from_secs(60), true));
    assert_eq!(increment("bantime.multipliers = 1 2 4").multipliers, [1.0, 2.0, 4.0]);
    let formula =
        "bantime.formula = ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)";
    let grown = increment(&format!("bantime.factor = 2\n{formula}"));
    assert!(grown.formula.is_some());
    assert_eq!(increment("bantime.factor = 24*3600/600").factor, 144.0);
    let error = jail("bantime.formula = ban.Time * exec('x')").error();
    assert!(
        error.starts_with("/jail.conf:5: [door] bantime.formula: only arithmetic is evaluated"),
        "{error}"
    );
}

#[test]
fn one_jail_that_makes_no_sense_stops_no_other() {
    let folder = Folder::new(&[
        ("filter.d/door.conf", FILTER),
        (
            "jail.conf",
            "[DEFAULT]\nenabled = true\nlogpath = /x\naction = route\nfilter = door\n\
             [bad]\nbantime = soon\n[door]\n[gone]\nfilter = nosuch\n[perhaps]\nenabled = perhaps\n",
        ),
    ]);
    let loaded = folder.load();
    assert_eq!(loaded.jails.iter().map(|jail| &*jail.rules.name).collect::<Vec<_>>(), ["door"]);
    let refused: Vec<_> = loaded.refused.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(refused, ["bad", "gone", "perhaps"]);
}

/// Jails of fail2ban hosts, each of which fail2ban runs.
#[test]
fn what_fail2ban_runs_is_loaded() {
    let common = "[DEFAULT]\nlogtype = file\n__prefix_line = <lt_<logtype>/__prefix_line>\n\
                  datepattern = <lt_<logtype>/datepattern>\n\
                  [lt_file]\n__prefix_line = f:\ndatepattern = {^LN-BEG}\n\
                  [lt_mine]\n__prefix_line = m:\n";
    let folder = Folder::new(&[
        ("filter.d/hand.conf", "[Definition]\nfailregex =\nignoreregex =\n"),
        ("filter.d/common.conf", common),
        (
            "filter.d/door.conf",
            "[INCLUDES]\nbefore = common.conf\n[Definition]\n_daemon = door(?:man)?\n\
             failregex = ^%(__prefix_line)s bad <HOST>$\n[Init]\nlevel = loud\n",
        ),
        (
            "jail.conf",
            "[DEFAULT]\nenabled = true\nlogpath = /x\nbanaction = route\naction = %(banaction)s\n\
             [hand]\n\
             [own]\nfilter =\nfailregex = ^bad <HOST>$\n\
             [family]\nfilter = door\nbanaction = iptables-ipset[blocktype=\"DROP\", blocktype?family=inet6=\"REJECT\"]\n\
             [sums]\nfilter = door\nbantime = 60*60*24*7\nfindtime = 1d-1h\nbantime.increment = true\n\
             [sums2]\nfilter = door\nbantime = -1d\n\
             [grown]\nfilter = door\nbantime = 86400 * 7\nbantime.increment = true\n\
             bantime.factor = 24*3600/600\nbantime.maxtime = 1 year + 1 month - 1 week\n\
             bantime.formula = ban.Time * 1.5 ** ban.Count\n\
             [words]\nfilter = door\nfailregex = ^%(known/_daemon)s %(known/level)s bad <HOST>$\n\
             [mine]\nfilter = door[logtype=mine]\n",
        ),
    ]);
    let loaded = folder.load();
    for (name, error) in &loaded.refused {
        println!("{name}: {error}");
    }
    assert!(loaded.refused.is_empty());
    assert_eq!(loaded.jails.len(), 8);
    for jail in &loaded.jails {
        Filter::compile(&jail.rules.filter).unwrap();
    }
    assert_eq!(folder.jail("hand").rules.filter.failregex, [""; 0]);
    assert_eq!(folder.jail("own").rules.filter.failregex, ["^bad <HOST>$"]);
    let sums = folder.jail("sums");
    assert_eq!(sums.rules.bantime, Some(Duration::from_secs(604_800)));
    assert_eq!(sums.rules.findtime, Duration::from_secs(82_800));
    assert_eq!(folder.jail("sums2").rules.bantime, None);
    let grown = folder.jail("grown");
    assert_eq!(grown.rules.bantime_for(2, 0.0), Some(Duration::from_millis(1_360_800_000)));
    assert_eq!(folder.jail("words").rules.filter.failregex, ["^door(?:man)? loud bad <HOST>$"]);
    let mine = folder.jail("mine");
    assert_eq!(mine.rules.filter.failregex, ["^m: bad <HOST>$"]);
    assert!(mine.rules.filter.datepattern.is_empty());
    let notes: Vec<_> = loaded.unsupported.iter().map(ToString::to_string).collect();
    assert!(notes.iter().any(|note| note.contains("jail hand: no failregex")), "{notes:?}");
}

#[test]
fn what_is_not_done_is_listed() {
    let folder = Folder::new(&[
        ("filter.d/door.conf", FILTER),
        (
            "jail.conf",
            "[DEFAULT]\nusedns = warn\nport = 0:65535\nprotocol = tcp\nbanaction = mywall\n\
             act = %(banaction)s[port=\"%(port)s\", protocol=\"%(protocol)s\"]\n\
             [door]\nenabled = true\nport = ssh,8022\nlogpath = /x\nusedns = yes\n\
             ignorecommand = /bin/true <ip>\nignoreself = false\n\
             action = %(act)s\n  mail[dest=\"a b\"]\n",
        ),
    ]);
    let shown: Vec<_> = folder
        .load()
        .unsupported
        .iter()
        .map(|note| note.to_string().replace(&folder.path().display().to_string(), ""))
        .collect();
    assert_eq!(
        shown,
        [
            "/jail.conf:11: jail door: usedns = yes: host names in logs are never resolved, because an attacker chooses them",
            "/jail.conf:14: jail door: action 'mail' is not run: there is no /action.d/mail.conf",
            "/jail.conf:13: jail door: ignoreself = false: the host's own addresses are never banned by a log line",
        ]
    );
    let ports: Vec<_> = folder.jail("door").rules.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["tcp/22", "tcp/8022"]);
}

#[test]
fn words_that_mean_nothing_are_listed() {
    let folder = Folder::new(&[
        (
            "filter.d/door.conf",
            "[Definition]\nfailregx = x\n_daemon = a\nmdre-loud = b\nown = c\n\
             failregex = ^%(own)s <mdre-<mode>> <HOST>$\n[Init]\nmaxline = 3\n",
        ),
        (
            "action.d/tell.conf",
            "[Definition]\nactionban = echo <mine>\nactionunbann = x\nmine = y\nleft = z\n",
        ),
        (
            "jail.conf",
            "[DEFAULT]\nshipped_and_unused = 1\naction = route\n\
             [door]\nenabled = true\nfilter = door[mode=loud, mod=x]\nwhere = /x\nlogpath = %(where)s\n\
             maxretri = 3\nbackend = inotify\nignorecache = key=a\n\
             action = iptables[blocktype=DROP]\n  tell\n  tell[mine=again]\n  tell[actname=other]\n\
             [pass]\nenabled = true\nfilter = door[mode=loud]\nlogpath = /x\n\
             action = iptables[blocktype=RETURN]\n\
             [off]\nnonsense = 1\n",
        ),
        ("jail.local", "[DEFAULT]\nbantim = 5\n[door]\nbackend = systemd[rotted=on]\n"),
    ]);
    let loaded = folder.load();
    assert_eq!(
        (loaded.jails.len(), loaded.disabled),
        (1, vec!["off".to_owned(), "pass".to_owned()])
    );
    let path = folder.path().display().to_string();
    let shown: Vec<_> =
        loaded.unsupported.iter().map(|note| note.to_string().replace(&path, "")).collect();
    let nothing = "is not a fail2ban option, and nothing refers to it: it has no effect";
    let did = |word: &str, meant: &str| format!("'{word}' {nothing}; did you mean '{meant}'?");
    let expected = [
        "/jail.local:4: jail door: backend = systemd: its option rotted = on is without effect".to_owned(),
        format!("/filter.d/door.conf:2: jail door: filter 'door': {}", did("failregx", "failregex")),
        format!("/filter.d/door.conf:8: jail door: filter 'door': {}", did("maxline", "maxlines")),
        format!("/jail.conf:6: jail door: filter 'door': {}", did("mod", "mode")),
        format!("/action.d/tell.conf:3: jail door: action 'tell': {}", did("actionunbann", "actionunban")),
        format!("/action.d/tell.conf:3: jail door: action 'tell': {}", did("actionunbann", "actionunban")),
        "/jail.conf:12: jail door: action 'tell' is there twice: give one of them another actname".to_owned(),
        format!("/action.d/tell.conf:3: jail door: action 'tell': {}", did("actionunbann", "actionunban")),
        "/jail.conf:11: jail door: ignorecache without an ignorecommand: there is nothing slow to keep".to_owned(),
        format!("/filter.d/door.conf:2: jail pass: filter 'door': {}", did("failregx", "failregex")),
        format!("/filter.d/door.conf:8: jail pass: filter 'door': {}", did("maxline", "maxlines")),
        "/jail.conf:20: jail pass: action 'iptables' with blocktype = RETURN lets addresses in instead of banning them: this jail does not run".to_owned(),
        format!("/jail.conf:9: jail door: {}", did("maxretri", "maxretry")),
        format!("/jail.local:2: jail DEFAULT: {}", did("bantim", "bantime")),
    ];
    assert_eq!(shown, expected);
    let actions = loaded.jails[0].actions.iter().map(|action| &*action.name);
    assert_eq!(actions.collect::<Vec<_>>(), ["tell", "other"]);
    fs::write(folder.path().join("jail.local"), "").unwrap();
    let notes = folder.load().unsupported;
    let backend = notes.iter().find(|note| note.what.contains("backend")).unwrap();
    assert_eq!(backend.what, "backend = inotify: not known; its files are followed as they change");
}

#[test]
fn the_recidive_jail_counts_our_own_bans() {
    let folder = Folder::new(&[
        ("filter.d/recidive.conf", "[Definition]\nfailregex = NOTICE.*Ban <HOST>\n"),
        (
            "jail.conf",
            "[again]\nenabled = true\nfilter = recidive[_jailname=again]\nlogpath = /var/log/fail2ban.log\n\
             maxretry = 3\nfindtime = 1d\nbantime = 1w\naction = iptables-allports\n",
        ),
    ]);
    let again = folder.jail("again");
    assert_eq!(again.sources, [source::Spec::Bans]);
    assert_eq!(again.rules.filter.failregex, [source::BAN_LINE]);
    assert_eq!(again.rules.bantime, Some(Duration::from_secs(604_800)));
    let notes: Vec<_> = folder.load().unsupported.into_iter().map(|note| note.what).collect();
    assert!(notes.iter().any(|what| what.contains("counts the bans of this agent")), "{notes:?}");
}

#[test]
fn ports_as_fail2ban_writes_them() {
    let shown = |rule: &str| {
        let ports = ports(rule)?;
        Ok::<_, String>(ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(shown("tcp/ssh,8000:8010").unwrap(), "tcp/22 tcp/8000-8010");
    assert_eq!(shown("tcp/0:65535").unwrap(), "");
    assert_eq!(shown("all/ssh").unwrap(), "");
    assert_eq!(shown("ssh").unwrap_err(), "'ssh' is no PROTOCOL/PORT");
    assert_eq!(shown("tcp/nosuchport").unwrap_err(), "unknown port 'nosuchport'");
}

#[test]
fn whom_to_ignore() {
    let jail = |words: &str| {
        let text = format!("[door]\nenabled = true\nlogpath = /x\naction = route\n{words}\n");
        Folder::new(&[("filter.d/door.conf", FILTER), ("jail.conf", &text)])
    };
    let words = "ignoreip = 192.0.2.0/24, host.example.net file:/etc/friends\n\
                 ignorecommand = /bin/check <ip> \"<F-USER>\"\n\
                 ignorecache = key=\"<F-USER>@<ip>\", max-count=50, max-time=10m";
    let door = jail(words).jail("door");
    assert_eq!(door.rules.ignoreip, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(door.rules.lookup.names, ["host.example.net"]);
    assert_eq!(door.rules.lookup.files, [Path::new("/etc/friends")]);
    let cache =
        IgnoreCache { key: "<F-USER>@<ip>".to_owned(), count: 50, time: Duration::from_secs(600) };
    let command = "/bin/check <ip> \"<F-USER>\"".to_owned();
    assert_eq!(door.rules.ignorecommand, Some(IgnoreCommand { command, cache: Some(cache) }));
    for (words, expected) in [
        (
            "ignoreip = 192.0.2.400",
            "[door] ignoreip: '192.0.2.400' is not an address, prefix, host name or file:/PATH",
        ),
        (
            "ignorecommand = x\nignorecache = max-count=5",
            "[door] ignorecache: it has no key: write key=\"<ip>\"",
        ),
        (
            "ignorecommand = x\nignorecache = key=a, max-count=0",
            "[door] ignorecache: max-count = 0 is not from 1 to 100000",
        ),
        (
            "ignorecommand = x\nignorecache = key=a, max-time=-1",
            "[door] ignorecache: max-time has to end",
        ),
        ("ignorecommand = x\nignorecache = key", "[door] ignorecache: 'key' is no key=value"),
    ] {
        let error = jail(words).error();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn errors_have_file_and_line() {
    for (jail, expected) in [
        (
            "[door]\nenabled = maybe\n",
            "/jail.conf:2: [door] enabled: 'maybe' is neither true nor false",
        ),
        (
            "[door]\nenabled = 1\nlogpath = %(nolog)s\n",
            "/jail.conf:3: [door] logpath: %(nolog)s is not defined",
        ),
        (
            "[door]\nenabled = 1\nlogpath = 5%\n",
            "/jail.conf:3: [door] logpath: a '%' has to be written '%%', or to begin a %(name)s",
        ),
        (
            "[door]\nenabled = 1\nlogpath = %(logpath)s\n",
            "/jail.conf:3: [door] logpath: its %(…)s refer to each other in a circle",
        ),
        (
            "[door]\nenabled = 1\nbantime = soon\n",
            "/jail.conf:3: [door] bantime: 'soon' is not a duration such as 600, 10m, 1h30m, 1d or 2w",
        ),
        ("[door]\nenabled = 1\nfilter = nosuch\n", "there is no filter 'nosuch' in /filter.d"),
        (
            "[door]\nenabled = 1\nfilter = door[mode\n",
            "/jail.conf:3: [door] filter: 'door[mode': its last ']' is missing",
        ),
        (
            "[door]\nenabled = 1\nignoreip = 300.1.1.1\n",
            "/jail.conf:3: [door] ignoreip: '300.1.1.1' is not an address, prefix, host name or file:/PATH",
        ),
        ("nonsense\n", "/jail.conf:1: 'nonsense' is neither a [section] nor a key = value"),
    ] {
        let folder = Folder::new(&[("filter.d/door.conf", FILTER), ("jail.conf", jail)]);
        assert_eq!(folder.error(), expected);
    }
    assert_eq!(Folder::new(&[]).error(), " holds no jail.conf");
}

#[test]
fn a_loaded_filter_compiles() {
    let folder = Folder::new(&[("filter.d/door.conf", FILTER)]);
    let spec = filter(folder.path(), "door").unwrap();
    assert!(Filter::compile(&spec).unwrap().rejects_early());
}

/// Returns what is said of the jail `door`, in a folder with one filter.
fn remarks(loaded: &Loaded) -> Vec<String> {
    loaded.unsupported.iter().map(|note| note.what.clone()).collect()
}

#[test]
fn ports_behind_a_translation_are_not_those_of_the_wire() {
    let jail = |action: &str, more: &str| {
        let folder = Folder::new(&[
            ("filter.d/door.conf", FILTER),
            ("action.d/iptables.conf", more),
            (
                "jail.conf",
                &format!("[door]\nenabled = true\nlogpath = /x\nport = http\naction = {action}\n"),
            ),
        ]);
        let loaded = folder.load();
        let ports: Vec<_> = loaded.jails[0].rules.ports.iter().map(ToString::to_string).collect();
        (ports.join(" "), remarks(&loaded).join(" "))
    };
    let plain = "[Definition]\nactionban = x\n[Init]\nchain = INPUT\n";
    let docker = "[Definition]\nactionban = x\n[Init]\nchain = DOCKER-USER\n";
    for (action, file, ports, chain) in [
        ("iptables[port=http, chain=DOCKER-USER]", plain, "", "DOCKER-USER"),
        ("iptables[port=http, chain=\"FORWARD\"]", plain, "", "FORWARD"),
        ("iptables[port=http]", docker, "", "DOCKER-USER"),
        ("iptables[port=http, chain=\"<known/chain>\"]", docker, "", "DOCKER-USER"),
        ("nftables[port=http, chain_hook=forward]", plain, "", "forward"),
        ("firewallcmd-ipset[port=http, chain=INPUT_direct]", plain, "tcp/80", ""),
        ("nftables[port=http, chain=f2b-chain]", plain, "tcp/80", ""),
        ("iptables[port=http, chain=INPUT]", docker, "tcp/80", ""),
        ("iptables[port=http]", plain, "tcp/80", ""),
        // all ports are all ports
        ("iptables-allports[chain=DOCKER-USER]", plain, "", ""),
    ] {
        let (found, said) = jail(action, file);
        assert_eq!(found, ports, "{action}: {said}");
        let told = said.contains(&format!("chain {chain} sees ports once they are translated"));
        assert_eq!(told, !chain.is_empty(), "{action}: {said}");
    }
}

#[test]
fn where_a_jail_reads_is_found_as_fail2ban_finds_it() {
    let there = tempfile::NamedTempFile::new().unwrap();
    let jail = |words: &str| {
        let words = words.replace("THERE", &there.path().display().to_string());
        let folder = Folder::new(&[
            ("filter.d/door.conf", FILTER),
            (
                "filter.d/unit.conf",
                &(FILTER.to_owned() + "journalmatch = _SYSTEMD_UNIT=door.service\n"),
            ),
            ("jail.conf", &format!("[door]\nenabled = true\naction = route\n{words}\n")),
        ]);
        let loaded = folder.load();
        let said = remarks(&loaded).join(" ");
        let sources = loaded.jails.first().map(|jail| jail.sources.clone());
        let sources =
            sources.unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>();
        (sources.join(", "), said)
    };
    for (words, sources, said) in [
        // 1.1.1: the journal where there are no files
        ("filter = unit\nlogpath = /nosuch/log", "journal _SYSTEMD_UNIT=door.service", ""),
        (
            "filter = unit\nbackend = auto\nlogpath = /nosuch/*.log",
            "journal _SYSTEMD_UNIT=door.service",
            "",
        ),
        ("journalmatch = _COMM=door", "journal _COMM=door", ""),
        ("journalmatch = _COMM=door\nlogpath = THERE", "THERE", ""),
        ("filter = unit\nlogpath = /nosuch\n         THERE", "/nosuch, THERE", ""),
        ("filter = unit\nlogpath = /nosuch\nsystemd_if_nologs = false", "/nosuch", ""),
        ("filter = unit\nlogpath = /nosuch\nbackend = polling", "/nosuch", ""),
        ("logpath = /nosuch", "/nosuch", ""),
        ("logpath = /nosuch\nskip_if_nologs = true", "", "skip_if_nologs leaves this jail out"),
        ("logpath = THERE\nskip_if_nologs = true", "THERE", ""),
        (
            "filter = unit\nlogpath = /nosuch\nskip_if_nologs = true",
            "journal _SYSTEMD_UNIT=door.service",
            "",
        ),
        // which journal
        (
            "backend = systemd[journalpath=/var/log/journal/remote]\njournalmatch = _COMM=a",
            "journal --directory=/var/log/journal/remote _COMM=a",
            "",
        ),
        (
            "backend = systemd[journalfiles=\"/a.journal, /b.journal\", rotated=on]",
            "journal --file=/a.journal --file=/b.journal",
            "",
        ),
        ("backend = systemd[journalflags=1]\njournalmatch = _COMM=a", "journal _COMM=a", ""),
        ("backend = systemd[journalflags=4]", "journal --system", ""),
        ("backend = systemd[namespace=web]", "journal --namespace=web", ""),
        (
            "backend = systemd[journalflags=64]",
            "journal ",
            "its option journalflags = 64 is without",
        ),
    ] {
        let (found, remarks) = jail(words);
        let found = found.replace(&there.path().display().to_string(), "THERE");
        assert_eq!(found, sources, "{words}: {remarks}");
        assert!(
            remarks.contains(said) && said.is_empty() == remarks.is_empty(),
            "{words}: {remarks}"
        );
    }
}

#[test]
fn a_banaction_of_ones_own_that_acts_elsewhere_is_run_as_well() {
    let folder = Folder::new(&[
        ("filter.d/door.conf", FILTER),
        ("action.d/my-gate.conf", "[Definition]\nactionban = curl -d <ip> https://router/ban\n"),
        ("action.d/my-wall.conf", "[Definition]\nactionban = ipset add f2b <ip>\n"),
        (
            "jail.conf",
            "[DEFAULT]\nbanaction = my-gate\nlogpath = /x\nport = ssh\n\
             action = %(banaction)s[port=\"%(port)s\"]\n\
             [router]\nenabled = true\nfilter = door\n\
             [wall]\nenabled = true\nfilter = door\nbanaction = my-wall\n\
             [mail]\nenabled = true\nfilter = door\naction = sendmail\n",
        ),
        ("action.d/sendmail.conf", "[Definition]\nactionban = mail root\n"),
    ]);
    for (name, runs, bans) in [("router", 1, true), ("wall", 0, true), ("mail", 1, false)] {
        let jail = folder.jail(name);
        assert_eq!((jail.actions.len(), jail.rules.bans), (runs, bans), "{name}");
        let ports: Vec<_> = jail.rules.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports.join(" "), if bans { "tcp/22" } else { "" }, "{name}");
    }
    assert_eq!(remarks(&folder.load()), Vec::<String>::new());
}
