//! Who is measured, how it is run and how its count is read. Peers come from Debian's packages
//! and from crates.io; what would install a service is unpacked under `target/`, not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::meter;
use crate::{command, layout};

/// What one run took and found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Seconds.
    pub wall: f64,
    /// Seconds of processor time, user and system.
    pub cpu: f64,
    pub rss_mb: f64,
    /// Failures found.
    pub found: Option<u64>,
}

/// Where the programs are.
pub(super) struct Peers {
    scan: PathBuf,
    fail2ban_rs: PathBuf,
    sshguard: PathBuf,
    folder: PathBuf,
}

/// What is run over a log.
pub(super) struct Job {
    pub name: &'static str,
    pub ours: bool,
    /// Too slow for a whole log.
    pub slow: bool,
    what: What,
}

enum What {
    /// The log engine with a shipped filter.
    Ours(&'static str),
    /// The log engine with a filter of `/etc/fail2ban`, or of the recipes.
    OursFail2ban(&'static str),
    Fail2banRegex(&'static str),
    Fail2banRs {
        format: &'static str,
        pattern: &'static str,
    },
    Sshguard,
    Ripgrep(&'static str),
}

/// The recipe for failed logins in nginx's access log, as fail2ban reads it.
const RECIPE: &str = "[Definition]\nfailregex = ^<HOST> -.*\"(GET|POST|HEAD).*HTTP.*\" 401\n";

fn job(name: &'static str, what: What) -> Job {
    let ours = matches!(what, What::Ours(_) | What::OursFail2ban(_));
    Job { name, ours, slow: matches!(what, What::Fail2banRegex(_)), what }
}

pub(super) fn sshd() -> Vec<Job> {
    let pattern = r"sshd\[\d+\]: Failed password for .* from <HOST> port \d+";
    vec![
        job("ban-agent, own filter", What::Ours("sshd")),
        job("ban-agent, fail2ban's sshd", What::OursFail2ban("sshd")),
        job("fail2ban-regex, sshd", What::Fail2banRegex("sshd")),
        job("fail2ban-rs dry-run", What::Fail2banRs { format: "syslog", pattern }),
        job("sshguard (sshg-parser)", What::Sshguard),
        job(
            "rg, one structured regex",
            What::Ripgrep(r"sshd\[\d+\]: Failed password for .* from \S+ port \d+ ssh2$"),
        ),
        job("rg, one literal", What::Ripgrep("Failed password for")),
    ]
}

pub(super) fn access() -> Vec<Job> {
    let pattern = r#"^<HOST> .*"(GET|POST|HEAD) .* HTTP/[0-9.]+" 401 "#;
    vec![
        job("ban-agent, own filter", What::Ours("nginx-401")),
        job("ban-agent, the fail2ban recipe", What::OursFail2ban("nginx-401")),
        job("fail2ban-regex, the recipe", What::Fail2banRegex("nginx-401")),
        job("fail2ban-rs dry-run", What::Fail2banRs { format: "common", pattern }),
        job(
            "rg, one structured regex",
            What::Ripgrep(r#"^\S+ - .*"(GET|POST|HEAD).*HTTP.*" 401 "#),
        ),
        job("rg, one literal", What::Ripgrep("\" 401 ")),
    ]
}

pub(super) fn caddy() -> Vec<Job> {
    vec![
        job("ban-agent, own filter (JSON)", What::Ours("caddy")),
        job("rg, one literal", What::Ripgrep("\":401")),
    ]
}

pub(super) fn error() -> Vec<Job> {
    vec![
        job("ban-agent, fail2ban's nginx-http-auth", What::OursFail2ban("nginx-http-auth")),
        job("fail2ban-regex, nginx-http-auth", What::Fail2banRegex("nginx-http-auth")),
        job("rg, one literal", What::Ripgrep("password mismatch, client: ")),
    ]
}

/// Builds what is ours, fetches what is not.
pub(super) fn prepare(folder: &Path, ours: bool) -> Result<Peers> {
    command::run(command::cargo().args([
        "build",
        "--release",
        "-q",
        "-p",
        "ban-agent",
        "--example",
        "scan",
    ]))?;
    let scan = layout::target().join("release/examples/scan");
    let peers = Peers {
        scan,
        fail2ban_rs: folder.join("cargo/bin/fail2ban-rs"),
        sshguard: folder.join("sshguard/usr/libexec/sshguard/sshg-parser"),
        folder: folder.to_owned(),
    };
    let filters = folder.join("fail2ban/filter.d");
    fs::create_dir_all(&filters).with_context(|| format!("cannot create {}", filters.display()))?;
    fs::write(filters.join("nginx-401.conf"), RECIPE).context("cannot write the recipe")?;
    if !ours && command::find("fail2ban-regex").is_none() {
        bail!("fail2ban is needed: apt-get install fail2ban");
    }
    if !ours && !peers.fail2ban_rs.exists() {
        let root = folder.join("cargo");
        command::run(command::cargo().args(["install", "-q", "fail2ban-rs", "--root"]).arg(root))?;
    }
    if !ours && !peers.sshguard.exists() {
        command::run(
            Command::new("apt-get").args(["download", "-q", "sshguard"]).current_dir(folder),
        )?;
        let package = fs::read_dir(folder)
            .context("cannot read the bench folder")?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get downloaded no package")?;
        command::run(Command::new("dpkg").arg("-x").arg(package).arg(folder.join("sshguard")))?;
    }
    Ok(peers)
}

impl Job {
    /// Runs it over `log`.
    pub(super) fn measure(&self, peers: &Peers, log: &Path) -> Result<Measured> {
        let text = |path: PathBuf| path.display().to_string();
        let filter = |name: &str| match name {
            "nginx-401" => text(peers.folder.join("fail2ban")),
            _ => "/etc/fail2ban".to_owned(),
        };
        let file = text(log.to_owned());
        let words: Vec<String> = match &self.what {
            What::Ours(name) => vec![text(peers.scan.clone()), (*name).to_owned(), file],
            What::OursFail2ban(name) => {
                vec![text(peers.scan.clone()), format!("{}:{name}", filter(name)), file]
            }
            What::Fail2banRegex(name) => {
                let options = ["--no-check-all", "--usedns", "no", "-c"].map(str::to_owned);
                let mut words = vec!["fail2ban-regex".to_owned()];
                words.extend(options);
                words.extend([filter(name), file, (*name).to_owned()]);
                words
            }
            What::Fail2banRs { format, pattern } => {
                let config = peers.folder.join("fail2ban-rs.toml");
                let jail = format!(
                    "[global]\n[jail.bench]\nenabled = true\nlog_path = '{file}'\n\
                     date_format = '{format}'\nfilter = ['{pattern}']\nport = ['22']\n"
                );
                fs::write(&config, jail).context("cannot write the jail of fail2ban-rs")?;
                let program = text(peers.fail2ban_rs.clone());
                ["-c", &text(config), "dry-run", "-j", "bench", &file].iter().fold(
                    vec![program],
                    |mut words, word| {
                        words.push((*word).to_owned());
                        words
                    },
                )
            }
            What::Sshguard => vec![text(peers.sshguard.clone())],
            What::Ripgrep(pattern) => {
                ["rg", "-c", "-e", pattern, &file].map(str::to_owned).to_vec()
            }
        };
        let (program, rest) = words.split_first().context("no program")?;
        let run = meter::run(Command::new(program).args(rest), log)?;
        let found = self.found(&run.output)?;
        Ok(Measured { wall: run.wall, cpu: run.cpu, rss_mb: run.rss_mb, found })
    }

    /// The count in what it printed.
    fn found(&self, output: &str) -> Result<Option<u64>> {
        Ok(match &self.what {
            What::Ours(_) | What::OursFail2ban(_) => {
                let counts: serde_json::Value =
                    serde_json::from_str(output).context("our counts")?;
                counts.get("matched").and_then(serde_json::Value::as_u64)
            }
            What::Fail2banRegex(_) => before(output, " matched"),
            What::Fail2banRs { .. } => output
                .lines()
                .find_map(|line| line.trim().strip_prefix("Matches:"))
                .and_then(|count| count.trim().parse().ok()),
            What::Sshguard => Some(output.lines().count() as u64),
            What::Ripgrep(_) => output.trim().parse().ok(),
        })
    }
}

/// The number before `word`.
fn before(text: &str, word: &str) -> Option<u64> {
    let head = text.split_once(word)?.0;
    head.split_whitespace().next_back()?.parse().ok()
}
