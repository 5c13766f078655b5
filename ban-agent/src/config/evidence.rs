//! Logs and filters by which a stranger can have somebody else banned: one table, and the remark
//! that `check` and `status` make about a jail that trusts one of them. Refuses nothing: that is
//! for who resolves the jail, as the operator may know that only hosts of his own can write there.

use std::{fs, path::Path};

use crate::{jail, source};

/// A log in which a daemon writes what clients sent as it came, line feeds included.
struct Log {
    /// Its name in a sentence.
    name: &'static str,
    /// Part of its path, in lower case: the daemon's name.
    daemon: &'static str,
    /// Part of the file's name.
    word: &'static str,
    /// Names that a glob would take in with it.
    names: &'static [&'static str],
    /// Text that only patterns for this log hold, wherever it lies.
    mark: &'static str,
    /// What to read instead.
    better: &'static str,
    /// Whether it is so on the host whose files are below this folder.
    here: fn(&Path) -> bool,
}

/// Returns whether its Apache has mod_cgid, which hands CGI programs the error log as their
/// standard error (modules/generators/mod_cgid.c): where Debian's a2enmod and the RHEL family's
/// package put that.
fn has_cgid(root: &Path) -> bool {
    let loaded = |text: &str| {
        let mut lines = text.lines().map(str::trim_start);
        lines.any(|line| line.starts_with("LoadModule cgid_module"))
    };
    ["etc/apache2/mods-enabled/cgid.load", "etc/httpd/conf.modules.d/01-cgi.conf"]
        .iter()
        .any(|file| fs::read_to_string(root.join(file)).is_ok_and(|text| loaded(&text)))
}

const LOGS: &[Log] = &[
    Log {
        name: "nginx's error log",
        daemon: "nginx",
        word: "error",
        names: &["error.log", "site.error.log", "site-error.log"],
        mark: r"\d+#\d+",
        better: "read nginx's access log, as the shipped jails nginx-http-auth and nginx-401 do",
        here: |_| true,
    },
    Log {
        name: "the log of Ceph's manager",
        daemon: "ceph",
        word: "ceph-mgr",
        names: &["ceph-mgr.x.log"],
        mark: r"\[dashboard INFO request\]",
        better: "read the log of the HAProxy in front of it, as the shipped jail ceph-dashboard does",
        here: |_| true,
    },
    // DefaultLoginAPIAuthenticatorCmd.java, getDomainName: the parameter `domain` as it came
    Log {
        name: "CloudStack's API log",
        daemon: "cloudstack",
        word: "apilog",
        names: &["apilog.log"],
        mark: r"ApiServlet\]",
        better: "read the access log of the nginx in front of it, as the shipped jails nginx-401 and nginx-531 do",
        here: |_| true,
    },
    Log {
        name: "Apache's error log, into which mod_cgid has CGI programs write,",
        daemon: "apache",
        word: "error",
        names: &["error.log", "site.error.log", "site-error.log"],
        mark: r"\[client <",
        better: "read Apache's access log, as the shipped jail apache-http-auth does, or run CGI programs by \
                 mod_cgi, which escapes what they write",
        here: has_cgid,
    },
    Log {
        name: "Odoo's log",
        daemon: "odoo",
        word: "odoo",
        names: &["odoo.log", "odoo-server.log"],
        mark: "addons\\.base",
        better: "read the access log of the web server in front of it, as the shipped jail web-login-form does",
        here: |_| true,
    },
    Log {
        name: "Redmine's log",
        daemon: "redmine",
        word: "production",
        names: &["production.log"],
        mark: "Failed login for '",
        better: "read the access log of the web server in front of it, with a pattern for its login page",
        here: |_| true,
    },
];

/// Services that log the address that X-Forwarded-For or X-Real-IP claims, whoever connects; the
/// shipped jail of each bears its name.
const TRUSTING: &[&str] = &["authelia", "mealie", "navidrome"];

/// Filters of fail2ban's for the log of a service whose shipped filter says that it is raw.
const SAME: &[&str] = &[
    "asterisk",
    "bitwarden",
    "freeswitch",
    "guacamole",
    "horde",
    "mssql-auth",
    "mysqld-auth",
    "phpmyadmin-syslog",
    "roundcube-auth",
    "sogo-auth",
    "zoneminder",
];

/// Filters of fail2ban's that take an address out of what the client wrote.
const BLAMING: &[(&str, &str)] = &[
    ("courier-auth", "the shipped jail courier, pinned to the end of the line"),
    ("nginx-botsearch", "a filter of your own over nginx's access log, pinned to its beginning"),
    ("nginx-http-auth", "the shipped jail nginx-http-auth, which reads nginx's access log"),
    ("pam-generic", "a jail for the service itself, as the shipped sshd and dovecot are"),
    ("vsftpd", "the shipped jail vsftpd, pinned to the end of the line"),
];

/// Why what a jail reads is no evidence.
pub(super) struct Raw {
    /// What the log holds, in a sentence without its jail.
    pub(super) what: String,
    /// What to read instead.
    pub(super) better: &'static str,
}

/// Whether strangers can write whole lines into what `jail` reads. `filter`: its filter says so.
pub(super) fn raw(jail: &jail::Spec, filter: bool) -> Option<Raw> {
    raw_below(Path::new("/"), jail, filter)
}

/// The same of one of fail2ban's jails.
pub(super) fn raw_of_fail2bans(jail: &jail::Spec) -> Option<Raw> {
    raw(jail, SAME.contains(&&*jail.rules.filter.name))
}

/// The same of the host whose files are below `root`.
fn raw_below(root: &Path, jail: &jail::Spec, filter: bool) -> Option<Raw> {
    let paths: Vec<&Path> = jail.sources.iter().filter_map(file).collect();
    let patterns = || jail.rules.filter.failregex.iter().chain(&jail.rules.filter.prefregex);
    let log = LOGS.iter().find(|log| {
        let meant = paths.iter().any(|path| log.is_at(path))
            || (!paths.is_empty() && patterns().any(|pattern| pattern.contains(log.mark)));
        meant && (log.here)(root)
    });
    let told = |who: &str, better| {
        let what = format!(
            "{who} what clients sent as it came, line feeds included: a stranger can write whole lines \
             there and get any address banned"
        );
        Raw { what, better }
    };
    log.map(|log| told(&format!("{} holds", log.name), log.better)).or_else(|| {
        let who = "as far as its source tells, the service writes into its log";
        filter.then(|| told(who, LOGIN_PAGE))
    })
}

/// What to read instead of a log of the service itself.
const LOGIN_PAGE: &str =
    "count its login page in the access log of the web server in front of it, if it has one";

/// Returns what is to be said of `jail`, which reads such a log if it has one; `theirs`: it is one
/// of fail2ban's. At most one remark a jail.
pub(super) fn remark(jail: &jail::Spec, raw: Option<Raw>, theirs: bool) -> Option<String> {
    let name = &jail.rules.name;
    if let Some(Raw { what, better }) = raw {
        return Some(format!("jail {name}: {what}; better: {better}"));
    }
    let filter = &*jail.rules.filter.name;
    if !theirs && TRUSTING.contains(&filter) {
        return Some(format!(
            "jail {name}: the address is the one that X-Forwarded-For or X-Real-IP claims: whoever reaches the service past your proxy gets any address banned; let nobody but the proxy reach it, and have the proxy overwrite the header"
        ));
    }
    let (filter, better) = BLAMING.iter().find(|(known, _)| theirs && *known == filter)?;
    Some(format!(
        "jail {name}: fail2ban's filter {filter} lets a client's own text choose the address that is banned; better: {better}"
    ))
}

fn file(source: &source::Spec) -> Option<&Path> {
    match source {
        source::Spec::File { path, .. } => Some(path),
        _ => None,
    }
}

impl Log {
    /// Returns whether a path or glob is, or may take in, this log.
    fn is_at(&self, path: &Path) -> bool {
        let text = path.to_string_lossy().to_lowercase();
        let name = text.rsplit('/').next().unwrap_or_default();
        let taken_in = glob::Pattern::new(name)
            .is_ok_and(|pattern| self.names.iter().any(|known| pattern.matches(known)));
        text.contains(self.daemon) && (name.contains(self.word) || taken_in)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{config, filter, source::Start};

    fn jail(filter: &str, failregex: &str, path: &str) -> jail::Spec {
        let shipped = config::shipped().unwrap();
        let spec = filter::Spec {
            name: filter.into(),
            failregex: vec![failregex.into()],
            ..filter::Spec::clone(&shipped.filters["sshd"])
        };
        let file = source::Spec::File { path: path.into(), start: Start::End };
        let rules = jail::Rules { filter: Arc::new(spec), ..jail::rules(5, 600) };
        jail::Spec { rules, sources: vec![file], raw_log: false, actions: Vec::new() }
    }

    #[test]
    fn a_log_with_raw_line_feeds_is_told_with_the_better_one() {
        for (path, told) in [
            ("/var/log/nginx/error.log", true),
            ("/var/log/nginx/shop.example.org-error.log", true),
            ("/var/log/nginx/error_shop.log", true),
            ("/var/log/nginx/*error.log", true),
            ("/var/log/nginx/*.log", true),
            ("/var/log/nginx/*", true),
            ("/srv/logs/nginx-error.log", true),
            ("/var/log/nginx/access.log", false),
            ("/var/log/nginx/*access.log", false),
            ("/var/log/apache2/error.log", false),
            ("/var/log/ceph/ceph-mgr.node1.log", true),
            ("/var/log/ceph/*.log", true),
            ("/var/log/ceph/ceph.log", false),
            ("/var/log/ceph/ceph-client.rgw.a.log", false),
            ("/var/log/cloudstack/management/apilog.log", true),
            ("/var/log/cloudstack/management/*.log", true),
            ("/var/log/cloudstack/agent/agent.log", false),
            ("/var/log/odoo/odoo-server.log", true),
            ("/srv/redmine/log/production.log", true),
            ("/srv/shop/log/production.log", false),
        ] {
            let nowhere = Path::new("/nonexistent");
            let raw = raw_below(nowhere, &jail("own", "^<ADDR> ", path), false);
            assert_eq!(raw.is_some(), told, "{path}");
        }
        // wherever the log lies, its patterns are told by what they spell
        let by_pattern = jail("own", r"^ \[error\] \d+#\d+: .* client: <HOST>", "/srv/web.log");
        let text = remark(&by_pattern, raw(&by_pattern, false), true).unwrap();
        assert!(text.contains("nginx's error log") && text.contains("access log"), "{text}");
    }

    #[test]
    fn apaches_error_log_is_told_where_mod_cgid_is_loaded() {
        let root = tempfile::TempDir::new().unwrap();
        let shipped = config::shipped().unwrap();
        let theirs = jail("apache", r"^\[\S+ \S+ .*\] \[client <HOST>", "/srv/web.log");
        let mut ours = jail("own", "^<ADDR> ", "/var/log/httpd/error_log");
        ours.rules.filter = shipped.filters["apache-auth"].clone();
        let told = || [&theirs, &ours].map(|jail| raw_below(root.path(), jail, false).is_some());
        assert_eq!(told(), [false, false]);
        for (file, text, expected) in [
            ("etc/httpd/conf.modules.d/01-cgi.conf", "#LoadModule cgid_module x\n", false),
            ("etc/httpd/conf.modules.d/01-cgi.conf", "<If>\n  LoadModule cgid_module x\n", true),
            ("etc/httpd/conf.modules.d/01-cgi.conf", "LoadModule cgi_module x\n", false),
            ("etc/apache2/mods-enabled/cgid.load", "LoadModule cgid_module x\n", true),
        ] {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
            assert_eq!(told(), [expected, expected], "{text}");
        }
        let better = raw_below(root.path(), &ours, false).unwrap().better;
        assert!(better.contains("apache-http-auth"), "{better}");
        let mut access = ours.clone();
        access.rules.filter = shipped.filters["apache-http-auth"].clone();
        access.sources = jail("x", "x", "/var/log/apache2/access.log").sources;
        assert!(raw_below(root.path(), &access, false).is_none());
    }

    #[test]
    fn filters_that_blame_the_victim_are_told_by_name() {
        for (filter, _) in BLAMING {
            let text = remark(&jail(filter, "^<HOST>$", "/srv/a.log"), None, true).unwrap();
            assert!(text.contains(filter), "{text}");
            // one of ours by that name is another filter
            assert_eq!(remark(&jail(filter, "^<HOST>$", "/srv/a.log"), None, false), None);
        }
        assert_eq!(remark(&jail("sshd", "^<HOST>$", "/srv/a.log"), None, true), None);
    }

    /// Returns the configuration of this text, and what is wrong with it.
    fn load(text: &str) -> (config::Config, Vec<config::Error>) {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        config::load_sound(&path).unwrap()
    }

    #[test]
    fn a_jail_over_a_raw_log_is_refused_unless_it_says_so() {
        let path = "/var/lib/gitea/log/gitea.log";
        let text = format!("[jails.sshd]\n[jails.gitea]\nlogpath = \"{path}\"\n");
        let (config, faults) = load(&text);
        let names: Vec<&str> = config.jails.iter().map(|jail| &*jail.rules.name).collect();
        assert_eq!(names, ["sshd"], "the others are protected");
        assert_eq!(config.refused[0].part, "jail gitea");
        assert_eq!(&*config.raw[0].rules.name, "gitea", "a replay shows what it would do");
        let [config::Error::Invalid { line: 2, message, hint: Some(hint), .. }] = &*faults else {
            panic!("{faults:?}")
        };
        assert!(
            message.starts_with("jail 'gitea': ") && message.contains("line feeds"),
            "{message}"
        );
        assert!(hint.contains("access log") && hint.contains("raw_log = true"), "{hint}");

        let (config, faults) = load(&format!("{text}raw_log = true\n"));
        assert!(faults.is_empty(), "{faults:?}");
        let accepted: Vec<_> =
            config.jails.iter().map(|jail| (&*jail.rules.name, jail.raw_log)).collect();
        assert_eq!(accepted, [("gitea", true), ("sshd", false)]);
        assert!(config.warnings.iter().any(|told| told.starts_with("jail gitea: ")));
        let (again, faults) = load(&config::export(&config));
        assert!(faults.is_empty() && again.jails.len() == 2, "{faults:?}");

        // one by its path, and one whose own filter says so
        let own = "failregex = '^x <ADDR>$'\n";
        let nginx = format!("[filters.a]\n{own}[jails.a]\nlogpath = '/var/log/nginx/error.log'\n");
        let raw = format!("[filters.a]\nraw = true\n{own}[jails.a]\nlogpath = '/srv/a.log'\n");
        for text in [nginx, raw] {
            assert_eq!(load(&text).1.len(), 1, "{text}");
            assert_eq!(load(&format!("{text}raw_log = true\n")).1.len(), 0, "{text}");
        }
    }

    #[test]
    fn every_service_of_fail2bans_names_is_a_raw_one_here() {
        let shipped = config::catalogue().unwrap();
        let jails = shipped.iter().flat_map(|service| &service.jails);
        let raw: Vec<&str> =
            jails.filter(|jail| jail.raw_log).map(|jail| &*jail.rules.filter.name).collect();
        for name in SAME {
            let ours =
                ["-auth", "-syslog"].iter().fold(*name, |name, end| name.trim_end_matches(end));
            assert!(
                raw.contains(&ours.trim_end_matches('d')) || raw.contains(&ours),
                "{name}: {raw:?}"
            );
        }
    }

    /// What PostgreSQL 15 wrote with Debian's `log_line_prefix` for a database named
    /// `x`, a line feed, `2026-11-28 12:00:00.000 UTC [1] 198.51.100.66`.
    #[test]
    fn what_a_database_is_called_can_be_a_line() {
        let log = b"2026-11-28 09:01:32.720 UTC [27562] postgres@x\n\
            2026-11-28 12:00:00.000 UTC [1] 198.51.100.66 FATAL:  password authentication failed for user \"postgres\"\n";
        let shipped = config::shipped().unwrap();
        let filter = filter::Filter::compile(&shipped.filters["postgresql"]).unwrap();
        let mut named = Vec::new();
        let now = "2026-11-28T12:00:00Z".parse().unwrap();
        filter::Scanner::new(Arc::new(filter)).scan(log, false, now, &mut |failure, _| {
            named.extend(failure.address);
        });
        assert_eq!(named, ["198.51.100.66".parse::<std::net::IpAddr>().unwrap()]);
        let (_, faults) = load("[jails.postgresql]\n");
        assert_eq!(faults.len(), 1, "and so its jail is refused");
    }

    #[test]
    fn nobody_takes_every_raw_log_at_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "[defaults]\nraw_log = true\n").unwrap();
        let message = config::load(&path).unwrap_err().to_string();
        assert!(message.contains("config.toml:2: raw_log is the word of a jail"), "{message}");
    }

    #[test]
    fn one_of_fail2bans_goes_on_and_is_warned_of() {
        let folder = tempfile::TempDir::new().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("filter.d")).unwrap();
        write("filter.d/x.conf", "[Definition]\nfailregex = ^<HOST> x$\n");
        let jail = "enabled = true\nbackend = polling\nfilter = x\nlogpath = ";
        write("jail.conf", &format!("[x]\n{jail}/var/log/nginx/error.log\n"));
        let (config, faults) = load(&format!("[agent]\nfail2ban = {:?}\n", folder.path()));
        assert!(faults.is_empty(), "{faults:?}");
        assert!(config.jails[0].raw_log);
        assert!(config.warnings.iter().any(|text| text.contains("nginx's error log")));
        // and so does what export-config makes of it
        let (again, faults) = load(&config::export(&config));
        assert!(faults.is_empty() && again.jails[0].raw_log, "{faults:?}");
    }

    #[test]
    fn shipped_jails_that_believe_a_header_are_told() {
        let text: String = TRUSTING.iter().map(|name| format!("[jails.{name}]\n")).collect();
        let (config, faults) = load(&text);
        assert!(faults.is_empty(), "{faults:?}");
        for name in TRUSTING {
            let start = format!("jail {name}: ");
            let told = config.warnings.iter().find(|text| text.starts_with(&start)).unwrap();
            assert!(told.contains("X-Forwarded-For"), "{told}");
        }
    }
}
