//! Logs and filters by which a stranger can have somebody else banned: one table, and the remark
//! that `check` and `status` make about a jail that trusts one of them. Forbids nothing: the
//! operator may know that nobody but his own hosts can write there.

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

/// Whether its Apache has mod_cgid, which hands CGI programs the error log as their standard error
/// (modules/generators/mod_cgid.c): where Debian's a2enmod and the RHEL family's package put that.
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

/// Shipped filters whose service writes a user name (File Browser: a path) as it was sent, as far as
/// its source and its log's formatter tell: from a file or a container's output they take whole lines
/// that a stranger wrote. PHP splits what it gives to syslog at line feeds as well (main/php_syslog.c).
const RAW: &[&str] = &[
    "audiobookshelf",
    "calibre-web",
    "couchdb",
    "filebrowser",
    "firefly-iii",
    "gitea",
    "gitea-ssh",
    "guacamole",
    "jellyfin",
    "matrix-synapse",
    "opensearch",
    "paperless-ngx",
    "phpmyadmin",
    "qbittorrent",
    "servarr",
    "sogo",
    "technitium",
    "uptime-kuma",
    "vaultwarden",
    "vaultwarden-admin",
    "zimbra",
    "zoneminder",
];

/// Filters of fail2ban's that take an address out of what the client wrote.
const BLAMING: &[(&str, &str)] = &[
    ("asterisk", "the shipped jails asterisk and asterisk-security, pinned to whole lines"),
    ("courier-auth", "the shipped jail courier, pinned to the end of the line"),
    ("nginx-botsearch", "a filter of your own over nginx's access log, pinned to its beginning"),
    ("nginx-http-auth", "the shipped jail nginx-http-auth, which reads nginx's access log"),
    ("pam-generic", "a jail for the service itself, as the shipped sshd and dovecot are"),
    ("vsftpd", "the shipped jail vsftpd, pinned to the end of the line"),
];

/// What is to be said of `jail`; `theirs`: it is one of fail2ban's. At most one remark a jail.
pub(super) fn remark(jail: &jail::Spec, theirs: bool) -> Option<String> {
    remark_on(Path::new("/"), jail, theirs)
}

/// The same of the host whose files are below `root`.
fn remark_on(root: &Path, jail: &jail::Spec, theirs: bool) -> Option<String> {
    let paths: Vec<&Path> = jail.sources.iter().filter_map(file).collect();
    let patterns = || jail.rules.filter.failregex.iter().chain(&jail.rules.filter.prefregex);
    let log = LOGS.iter().find(|log| {
        let meant = paths.iter().any(|path| log.is_at(path))
            || (!paths.is_empty() && patterns().any(|pattern| pattern.contains(log.mark)));
        meant && (log.here)(root)
    });
    let name = &jail.rules.name;
    if let Some(Log { name: log, better, .. }) = log {
        return Some(format!(
            "jail {name}: {log} holds what clients sent as it came, line feeds included: a stranger can write whole lines there and get any address banned; {better}"
        ));
    }
    if !theirs && RAW.contains(&&*jail.rules.filter.name) {
        return Some(format!(
            "jail {name}: by its source, the service writes what clients sent into its log as it came, line feeds included: a stranger can write whole lines there and get any address banned; better: count its login page in the access log of the web server in front of it"
        ));
    }
    if !theirs && TRUSTING.contains(&&*jail.rules.filter.name) {
        return Some(format!(
            "jail {name}: the address is the one that X-Forwarded-For or X-Real-IP claims: whoever reaches the service past your proxy gets any address banned; let nobody but the proxy reach it, and have the proxy overwrite the header"
        ));
    }
    let (filter, better) =
        BLAMING.iter().find(|(filter, _)| theirs && *filter == jail.rules.filter.name)?;
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
    /// Whether a path or glob is, or may take in, this log.
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
        jail::Spec { rules, sources: vec![file], actions: Vec::new() }
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
            let remark = remark_on(nowhere, &jail("own", "^<ADDR> ", path), false);
            assert_eq!(remark.is_some(), told, "{path}: {remark:?}");
        }
        // wherever the log lies, its patterns are told by what they spell
        let by_pattern = jail("own", r"^ \[error\] \d+#\d+: .* client: <HOST>", "/srv/web.log");
        let text = remark(&by_pattern, false).unwrap();
        assert!(text.contains("nginx's error log") && text.contains("access log"), "{text}");
    }

    #[test]
    fn apaches_error_log_is_told_where_mod_cgid_is_loaded() {
        let root = tempfile::TempDir::new().unwrap();
        let shipped = config::shipped().unwrap();
        let theirs = jail("apache", r"^\[\S+ \S+ .*\] \[client <HOST>", "/srv/web.log");
        let mut ours = jail("own", "^<ADDR> ", "/var/log/httpd/error_log");
        ours.rules.filter = shipped.filters["apache-auth"].clone();
        let told = || [&theirs, &ours].map(|jail| remark_on(root.path(), jail, false).is_some());
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
        let text = remark_on(root.path(), &ours, false).unwrap();
        assert!(text.contains("apache-http-auth"), "{text}");
        let mut access = ours.clone();
        access.rules.filter = shipped.filters["apache-http-auth"].clone();
        access.sources = jail("x", "x", "/var/log/apache2/access.log").sources;
        assert_eq!(remark_on(root.path(), &access, false), None);
    }

    #[test]
    fn filters_that_blame_the_victim_are_told_by_name() {
        for (filter, _) in BLAMING {
            let text = remark(&jail(filter, "^<HOST>$", "/srv/a.log"), true).unwrap();
            assert!(text.contains(filter), "{text}");
            // one of ours by that name is another filter
            assert_eq!(remark(&jail(filter, "^<HOST>$", "/srv/a.log"), false), None);
        }
        assert_eq!(remark(&jail("sshd", "^<HOST>$", "/srv/a.log"), true), None);
    }

    #[test]
    fn shipped_jails_that_trust_such_a_log_are_told() {
        let names = config::shipped().unwrap().disabled;
        let all: String = names.iter().map(|name| format!("[jails.{name}]\n")).collect();
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, all).unwrap();
        let config = config::load(&path).unwrap();
        assert_eq!(config.jails.len(), names.len());
        let nowhere = Path::new("/nonexistent");
        for jail in &config.jails {
            let (name, remark) = (&jail.rules.name, remark_on(nowhere, jail, false));
            let (trusting, raw) = (TRUSTING.contains(&&**name), RAW.contains(&&**name));
            assert_eq!(remark.is_some(), trusting || raw, "{name}: {remark:?}");
            let text = remark.unwrap_or_default();
            assert!(!trusting || text.contains("X-Forwarded-For"), "{text}");
            assert!(!raw || text.contains("line feeds"), "{text}");
        }
    }
}
