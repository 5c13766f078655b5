//! The real agent, as an operator runs it: one process on the edge, asked through its command
//! line.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    process::{Process, eventually},
    stage::{DEVICE, Stage},
};

/// The deadline of any step.
pub const LIMIT: Duration = crate::patience::PATIENCE;

/// The binary: `BAN_AGENT`, else where cargo builds it, beside this test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BAN_AGENT") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("who am I?")?;
    let found = own.ancestors().map(|folder| folder.join("ban-agent")).find(|path| path.is_file());
    found.ok_or_else(|| anyhow!("there is no ban-agent beside {}: cargo build", own.display()))
}

/// The agent on a stage.
#[derive(Debug)]
pub struct Agent<'a> {
    stage: &'a Stage,
    process: Option<Process>,
}

impl<'a> Agent<'a> {
    /// Starts it with these jails and waits until it answers.
    pub fn start(stage: &'a Stage, jails: &str) -> Result<Self> {
        Self::start_with(stage, jails, &[])
    }

    /// Starts it with these jails and these words after `run`, and waits until it answers.
    pub fn start_with(stage: &'a Stage, jails: &str, words: &[&str]) -> Result<Self> {
        configure(stage, jails)?;
        let mut agent = Self::idle(stage);
        agent.run_by(words)?;
        Ok(agent)
    }

    /// One that does not run yet; its configuration is the caller's.
    pub fn idle(stage: &'a Stage) -> Self {
        Self { stage, process: None }
    }

    /// Starts it again with the configuration that it has.
    pub fn run(&mut self) -> Result<()> {
        self.run_by(&[])
    }

    /// The same with these words after `run`.
    pub fn run_by(&mut self, words: &[&str]) -> Result<()> {
        self.run_as(self.stage.edge.command(binary()?), words)
    }

    /// Starts it with no more than these capabilities, in the words of setpriv(1).
    pub fn run_with(&mut self, capabilities: &str) -> Result<()> {
        let mut command = self.stage.edge.command("setpriv");
        command.args(["--bounding-set", capabilities, "--inh-caps", "-all", "--no-new-privs"]);
        command.arg(binary()?);
        self.run_as(command, &[])
    }

    /// Starts it again, trusting this certificate and no other.
    pub fn run_trusting(&mut self, certificate: &Path) -> Result<()> {
        let mut command = self.stage.edge.command(binary()?);
        command.env("SSL_CERT_FILE", certificate).env_remove("SSL_CERT_DIR");
        self.run_as(command, &[])
    }

    fn run_as(&mut self, mut command: Command, words: &[&str]) -> Result<()> {
        command.arg("--config").arg(self.stage.file("config.toml")).args(["-v", "run"]);
        command.args(words);
        self.launch(command)?;
        self.await_answer()
    }

    /// What [`Agent::run`] runs.
    pub fn command(&self) -> Result<Command> {
        let mut command = self.stage.edge.command(binary()?);
        command.arg("--config").arg(self.stage.file("config.toml")).args(["-v", "run"]);
        Ok(command)
    }

    /// Another program beside it, on the edge.
    pub fn on_edge(&self, program: &str) -> Command {
        self.stage.edge.command(program)
    }

    /// Starts it, and does not wait.
    pub fn launch(&mut self, mut command: Command) -> Result<()> {
        let log = self.stage.file("agent.log");
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        self.process = Some(Process::spawn("ban-agent", &mut command)?);
        Ok(())
    }

    /// Waits until it answers.
    pub fn await_answer(&mut self) -> Result<()> {
        let answers = eventually("the agent answers", LIMIT, || {
            if let Some(status) = self.process.as_mut().map(Process::ended).transpose()?.flatten() {
                bail!("the agent ended with {status}");
            }
            Ok(self.verb(&["status"])?.status.success())
        });
        answers.with_context(|| format!("it said:\n{}", self.last_words()))
    }

    /// Its process id; 0 if it does not run.
    pub fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::id)
    }

    /// Its resident memory, in KiB.
    pub fn memory(&self) -> Result<u64> {
        let status = Path::new("/proc").join(self.id().to_string()).join("status");
        let status = fs::read_to_string(status)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("no VmRSS")?.trim().trim_end_matches(" kB").trim().parse()?)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.stage.file("agent.log")).unwrap_or_default()
    }

    /// The end of what it logged.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.process.as_mut().map_or(Ok(None), Process::ended)
    }

    /// Runs a verb.
    pub fn verb(&self, words: &[&str]) -> Result<Output> {
        verb(self.stage, words)
    }

    /// Runs a verb that has to succeed and gives its JSON document.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let done = self.verb(&[&["-o", "json"], words].concat())?;
        ensure!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).with_context(|| format!("{words:?} printed no JSON"))
    }

    /// The ban of an address.
    pub fn ban(&self, address: &str) -> Result<Option<Value>> {
        let list = self.json(&["list"])?;
        let bans = list.get("bans").and_then(Value::as_array).context("no bans in the list")?;
        Ok(bans.iter().find(|ban| ban.get("address") == Some(&address.into())).cloned())
    }

    /// Who is banned.
    pub fn banned(&self) -> Result<Vec<String>> {
        let list = self.json(&["list"])?;
        let bans = list.get("bans").and_then(Value::as_array).context("no bans in the list")?;
        let name = |ban: &Value| ban.get("address").and_then(Value::as_str).map(str::to_owned);
        Ok(bans.iter().filter_map(name).collect())
    }

    /// The jails that hold an address, in order of name.
    pub fn holders(&self, address: &str) -> Result<Vec<String>> {
        let Some(ban) = self.ban(address)? else { return Ok(Vec::new()) };
        let holders = ban.get("holders").and_then(Value::as_array).context("no holders")?;
        let jail = |holder: &Value| holder.get("jail").and_then(Value::as_str).map(str::to_owned);
        let mut jails: Vec<_> = holders.iter().filter_map(jail).collect();
        jails.sort();
        Ok(jails)
    }

    /// Packets of an address that were dropped.
    pub fn dropped(&self, address: &str) -> Result<u64> {
        let ban = self.ban(address)?.with_context(|| format!("{address} is not banned"))?;
        ban.get("packets").and_then(Value::as_u64).context("no packets")
    }

    /// Lines that a jail has read.
    pub fn lines(&self, jail: &str) -> Result<u64> {
        let status = self.json(&["status", jail])?;
        let jails = status.get("jails").and_then(Value::as_array).context("no jails")?;
        let found = jails.iter().find(|entry| entry.get("name") == Some(&jail.into()));
        found.and_then(|jail| jail.get("lines")?.as_u64()).context("no lines")
    }

    /// Waits until these jails, and no other, hold the address.
    pub fn await_holders(&self, address: &str, jails: &[&str]) -> Result<()> {
        eventually(&format!("{jails:?} hold {address}"), LIMIT, || {
            Ok(self.holders(address)? == jails)
        })
        .with_context(|| format!("the agent said:\n{}", self.log()))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("the agent does not run")?.signal(signal)
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("the agent does not run")?;
        process.signal(Signal::KILL)?;
        process.end()?;
        Ok(())
    }

    /// Ends it as the service manager would; it has to end well.
    pub fn terminate(&mut self) -> Result<()> {
        let status = self.process.take().context("the agent does not run")?.end()?;
        ensure!(status.success(), "after SIGTERM: {status}\n{}", self.log());
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub fn await_end(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the agent does not run")?;
        eventually("the agent ends", LIMIT, || Ok(process.ended()?.is_some()))?;
        self.process = None;
        Ok(())
    }
}

/// Writes the agent's configuration: the stage's files, and these jails.
pub fn configure(stage: &Stage, jails: &str) -> Result<PathBuf> {
    let text = format!(
        "[agent]\ninterfaces = [\"{DEVICE}\"]\nstate = {:?}\npins = {:?}\nsocket = {:?}\n\
         max_bans = 4096\n[defaults]\nignoreip = [\"127.0.0.0/8\", \"::1\"]\n{jails}\n",
        stage.file("state.sqlite"),
        stage.pins(),
        stage.file("control.sock"),
    );
    stage.write("config.toml", &text)
}

/// Runs a verb of the command line on the edge, whether or not an agent runs.
pub fn verb(stage: &Stage, words: &[&str]) -> Result<Output> {
    let mut command: Command = stage.edge.command(binary()?);
    // by name: a configuration that cannot be read names no socket
    command.arg("--socket").arg(stage.file("control.sock"));
    command.arg("--config").arg(stage.file("config.toml")).args(words);
    command.stdin(Stdio::null()).output().context("cannot start the agent's command line")
}
