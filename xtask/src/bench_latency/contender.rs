//! Starts who is timed: our agent, or fail2ban with nftables, each with its sshd filter on the
//! bench's log, banning at the first failure.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    layout,
    net_shared::{Namespace, Pins, Process, eventually, run},
};

/// How one is started.
pub(super) type Start = fn(&Namespace, &Path) -> Result<Contender>;

/// One who bans.
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) log: PathBuf,
    process: Process,
    _pins: Option<Pins>,
}

impl Contender {
    /// Processor time used so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))
            .with_context(|| format!("{} is gone", self.name))?;
        // proc_pid_stat(5): utime and stime are the 14th and 15th, in ticks of 10 ms; the name
        // before them may hold blanks.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2);
        Ok(Duration::from_millis(
            10 * ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>(),
        ))
    }
}

pub(super) fn ours(edge: &Namespace, folder: &Path) -> Result<Contender> {
    let shown = folder.display();
    let pins = Pins::new(&format!("ban-agent-bench-{}", std::process::id()));
    let config = format!(
        "[agent]\ninterfaces = [\"eth0\"]\nmode = \"native\"\nstate = \"{shown}/state.sqlite\"\n\
         pins = \"{}\"\nsocket = \"{shown}/control.sock\"\n\n\
         [jails.sshd]\nfilter = \"sshd\"\nlogpath = [\"{shown}/auth.log\"]\nmaxretry = 1\n",
        pins.path().display()
    );
    write(folder, "config.toml", &config)?;
    let agent = |words: &[&str]| {
        let mut agent = edge.command(layout::agent(true));
        agent.arg("--config").arg(folder.join("config.toml")).args(words);
        agent
    };
    let said = folder.join("agent.log");
    let process = start("ban-agent", agent(&["run"]), folder, &said, || agent(&["status"]))?;
    Ok(Contender { name: "ban-agent", log: folder.join("auth.log"), process, _pins: Some(pins) })
}

pub(super) fn fail2ban(edge: &Namespace, folder: &Path) -> Result<Contender> {
    let shown = folder.display();
    let etc = folder.join("fail2ban");
    run(Command::new("cp").arg("-r").arg("/etc/fail2ban").arg(&etc))?;
    // Nobody's own jails and settings, only the package's.
    for local in fs::read_dir(etc.join("jail.d")).context("cannot look into jail.d")? {
        fs::remove_file(local?.path()).context("cannot empty jail.d")?;
    }
    let jail = format!(
        "[DEFAULT]\nbanaction = nftables[type=allports]\nprotocol = udp\nmaxretry = 1\n\
         [sshd]\nenabled = true\nbackend = auto\nlogpath = {shown}/auth.log\n"
    );
    write(&etc, "jail.local", &jail)?;
    let server = format!(
        "[DEFAULT]\nlogtarget = {shown}/fail2ban.log\ndbfile = {shown}/fail2ban.sqlite3\n\
         socket = {shown}/fail2ban.sock\npidfile = {shown}/fail2ban.pid\n"
    );
    write(&etc, "fail2ban.local", &server)?;
    let with = |program: &str, words: &[&str]| {
        let mut command = edge.command(program);
        command.arg("-c").arg(&etc).arg("-s").arg(folder.join("fail2ban.sock"));
        command.arg("-p").arg(folder.join("fail2ban.pid")).args(words);
        command
    };
    let said = folder.join("server.log");
    let process =
        start("fail2ban", with("fail2ban-server", &["-f", "start"]), folder, &said, || {
            with("fail2ban-client", &["status", "sshd"])
        })?;
    Ok(Contender {
        name: "fail2ban + nftables",
        log: folder.join("auth.log"),
        process,
        _pins: None,
    })
}

/// Starts it on an empty log, and waits until it answers.
fn start(
    name: &str,
    mut command: Command,
    folder: &Path,
    said: &Path,
    ask: impl Fn() -> Command,
) -> Result<Process> {
    write(folder, "auth.log", "")?;
    let file = File::create(said).with_context(|| format!("cannot create {}", said.display()))?;
    let copy = file.try_clone().context("cannot share a file")?;
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    let mut process = Process::spawn(name, &mut command)?;
    eventually(&format!("{name} answers"), Duration::from_secs(30), || {
        if let Some(status) = process.ended()? {
            bail!("{name} ended with {status}:\n{}", fs::read_to_string(said).unwrap_or_default());
        }
        Ok(run(&mut ask()).is_ok())
    })?;
    Ok(process)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
