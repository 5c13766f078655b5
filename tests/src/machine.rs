//! A clean machine to install the package on: a copy of the distribution's root in a container,
//! in the edge's network namespace, with a BPF file system of its own. Gone when dropped.

use std::{
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    process::{Process, eventually},
    stage::Stage,
};

/// A boot takes five seconds; a busy machine may need many times that.
const BOOT: Duration = Duration::from_secs(120);

/// What an unconfined root has beside what a container's has: the unit confines itself.
const CAPABILITIES: &str = "CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_DAC_READ_SEARCH,CAP_SYSLOG,\
                            CAP_SYS_RESOURCE,CAP_SYS_ADMIN";

/// The machine.
#[derive(Debug)]
pub struct Machine<'a> {
    stage: &'a Stage,
    name: String,
    root: PathBuf,
    bpffs: Mount,
    booted: Option<Process>,
    _folder: TempDir,
}

/// A mount of ours; dropping it takes it away.
#[derive(Debug)]
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.0.display());
        }
    }
}

impl<'a> Machine<'a> {
    /// Copies the root that `BAN_AGENT_ROOT` names, and puts the package beside it as
    /// `/ban-agent.deb`.
    pub fn build(stage: &'a Stage) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let hint = "run it by `cargo xtask test package`";
        let clean = PathBuf::from(std::env::var_os("BAN_AGENT_ROOT").context(hint)?);
        let package = std::env::var_os("BAN_AGENT_PACKAGE").context(hint)?;
        let beside = clean.parent().context("the root is not /")?;
        let folder = tempfile::Builder::new().prefix("machine-").tempdir_in(beside)?;
        let (root, bpffs) = (folder.path().join("root"), folder.path().join("bpf"));
        run(Command::new("cp").args(["-a", "--reflink=auto"]).args([&clean, &root]))?;
        fs::copy(package, root.join("ban-agent.deb")).context("cannot copy the package")?;
        fs::create_dir(&bpffs)?;
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ban-{}-{number}", std::process::id());
        Ok(Self { stage, name, root, bpffs: Mount(bpffs), booted: None, _folder: folder })
    }

    /// A file of the machine, from outside.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name.trim_start_matches('/'))
    }

    /// Runs a program in the machine; without a boot it is the only one.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = match &self.booted {
            Some(process) => inside(leader(process.id())?),
            None => self.container(&["--as-pid2"]),
        };
        command.args(words).stdin(Stdio::null());
        command.output().with_context(|| format!("cannot start {words:?}"))
    }

    /// The same; it has to succeed. What it printed.
    pub fn done(&self, words: &[&str]) -> Result<String> {
        let done = self.run(words)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&done.stdout), text(&done.stderr));
        ensure!(done.status.success(), "{words:?}: {}\n{out}\n{error}", done.status);
        Ok(out)
    }

    /// Installs the package.
    pub fn install(&self) -> Result<String> {
        self.done(&["dpkg", "--install", "/ban-agent.deb"])
    }

    /// Starts its systemd and waits until that is done.
    pub fn boot(&mut self) -> Result<()> {
        let log = fs::File::create(self.file("boot.log"))?;
        let mut command = self.container(&["--boot"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.booted = Some(Process::spawn("systemd-nspawn", &mut command)?);
        let up = eventually("the machine is up", BOOT, || {
            let ended = self.booted.as_mut().and_then(|process| process.ended().transpose());
            if let Some(status) = ended.transpose()? {
                bail!("systemd-nspawn: {status}");
            }
            let Ok(done) = self.run(&["systemctl", "is-system-running"]) else { return Ok(false) };
            let state = String::from_utf8_lossy(&done.stdout).into_owned();
            Ok(["running", "degraded"].contains(&state.trim()))
        });
        let log = || fs::read_to_string(self.file("boot.log")).unwrap_or_default();
        up.with_context(|| format!("it said:\n{}", log()))
    }

    /// Pulls the plug, and starts it again: another boot to its journal.
    pub fn reboot(&mut self) -> Result<()> {
        self.booted = None;
        self.boot()
    }

    fn container(&self, words: &[&str]) -> Command {
        // The one hierarchy of today, whatever the host has mounted, if anything; for it alone.
        let script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec systemd-nspawn \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe"]);
        command.args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"]);
        command.arg(format!("--machine={}", self.name));
        command.arg(format!("--directory={}", self.root.display()));
        let network = self.stage.edge.name();
        command.arg(format!("--network-namespace-path=/run/netns/{network}"));
        command.arg(format!("--bind={}:/sys/fs/bpf", self.bpffs.0.display()));
        command.arg(format!("--capability={CAPABILITIES}"));
        // of 252 knows nothing of Landlock
        let calls = "bpf perf_event_open landlock_create_ruleset landlock_add_rule \
                     landlock_restrict_self";
        command.arg(format!("--system-call-filter={calls}"));
        command.args(words);
        command
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // before its root and its file systems go
        self.booted = None;
    }
}

/// The first process inside the container that systemd-nspawn `outside` runs.
fn leader(outside: u32) -> Result<u32> {
    let path = format!("/proc/{outside}/task/{outside}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let first = children.split_whitespace().next().context("the container has no process")?;
    Ok(first.parse()?)
}

fn inside(leader: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--all", &format!("--target={leader}"), "--"]);
    command
}

/// Owner, group and mode of a file, as `ls` would show them: `0 0 644`.
pub fn mode(path: &Path) -> Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = path.metadata().with_context(|| format!("there is no {}", path.display()))?;
    let kind = if meta.file_type().is_socket() { " socket" } else { "" };
    Ok(format!("{} {} {:o}{kind}", meta.uid(), meta.gid(), meta.mode() & 0o7777))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
