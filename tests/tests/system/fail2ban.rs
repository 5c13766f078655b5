//! fail2ban decides and the agent enforces: the real fail2ban-server with our action, in a folder of
//! its own, beside the real agent.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, binary},
    privilege,
    process::{Process, eventually},
    stage::Stage,
};

const LIMIT: Duration = Duration::from_secs(60);

/// fail2ban-server with a configuration of its own.
struct Server<'s> {
    stage: &'s Stage,
    process: Process,
}

impl<'s> Server<'s> {
    fn start(stage: &'s Stage) -> Result<Self> {
        let mut command = stage.edge.command("fail2ban-server");
        let log = File::options().create(true).append(true).open(stage.file("server.log"))?;
        Self::options(stage, &mut command);
        command.args(["-f", "start"]).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn("fail2ban-server", &mut command)?;
        let mut server = Server { stage, process };
        eventually("fail2ban answers", LIMIT, || {
            if let Some(status) = server.process.ended()? {
                bail!("fail2ban ended with {status}:\n{}", log_of(stage));
            }
            server.runs()
        })?;
        Ok(server)
    }

    fn options(stage: &Stage, command: &mut Command) {
        command.arg("-c").arg(stage.file("fail2ban")).arg("-s").arg(stage.file("f2b.sock"));
        command.arg("-p").arg(stage.file("f2b.pid"));
    }

    fn client(&self, words: &[&str]) -> Result<bool> {
        let mut command = self.stage.edge.command("fail2ban-client");
        Self::options(self.stage, &mut command);
        let output = command.args(words).output().context("cannot start fail2ban-client")?;
        Ok(output.status.success())
    }

    fn runs(&self) -> Result<bool> {
        self.client(&["status", "door"])
    }

    fn stop(self) -> Result<()> {
        ensure!(self.client(&["stop"])?, "fail2ban does not stop");
        self.process.end()?;
        Ok(())
    }
}

fn log_of(stage: &Stage) -> String {
    fs::read_to_string(stage.file("server.log")).unwrap_or_default()
}

fn configure(stage: &Stage) -> Result<()> {
    let folder = stage.file("fail2ban");
    for name in ["filter.d", "action.d"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text);
    let database = stage.file("f2b.sqlite3");
    write(
        "fail2ban.conf",
        &format!(
            "[Definition]\nloglevel = INFO\nlogtarget = STDOUT\nsyslogsocket = auto\nallowipv6 = yes\n\
             socket = {}\npidfile = {}\ndbfile = {}\ndbpurgeage = 1d\n",
            stage.file("f2b.sock").display(),
            stage.file("f2b.pid").display(),
            database.display()
        ),
    )?;
    write("filter.d/door.conf", "[Definition]\nfailregex = ^ bad user from <ADDR>$\n")?;
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/fail2ban");
    for entry in fs::read_dir(&ours).context("no dist/fail2ban")?.flatten() {
        fs::copy(entry.path(), folder.join("action.d").join(entry.file_name()))?;
    }
    let agent =
        format!("{} --socket {}", binary()?.display(), stage.file("control.sock").display());
    for log in ["door.log", "all.log"] {
        File::create(stage.file(log))?;
    }
    let jail = format!(
        "[DEFAULT]\nbackend = polling\nbantime = 10m\nfindtime = 10m\nmaxretry = 2\nusedns = no\n\
         filter = door\nprotocol = tcp\nport = 0:65535\nlogencoding = utf-8\n\
         banaction = ban-agent\nbanaction_allports = ban-agent-allports\n\
         action = %(banaction)s[port=\"%(port)s\", protocol=\"%(protocol)s\", agent=\"{agent}\"]\n\
         [door]\nenabled = true\nport = ssh,8000:8010\nlogpath = {}\n\
         [all]\nenabled = true\nbanaction = %(banaction_allports)s\nlogpath = {}\n",
        stage.file("door.log").display(),
        stage.file("all.log").display()
    );
    write("jail.conf", &jail)?;
    Ok(())
}

#[test]
fn fail2ban_decides_and_the_agent_enforces() -> Result<()> {
    if !privilege::ready("fail2ban") {
        return Ok(());
    }
    if Command::new("fail2ban-server").arg("-V").output().is_err() {
        ensure!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        println!("SKIPPED: the package fail2ban is not installed");
        return Ok(());
    }
    let stage = Stage::build()?;
    let jail = "[filters.door]\nfailregex = ['^bad user from <ADDR>$']\n\
                [jails.door]\nlogpath = \"/nonexistent/log\"\nport = \"tcp/22\"\n";
    let agent = Agent::start(&stage, jail)?;
    let quiet = agent.verb(&["--quiet", "status"])?;
    ensure!(quiet.stdout.is_empty(), "our actioncheck talks");
    configure(&stage)?;
    let server = Server::start(&stage)?;
    let fail = |log: &str, address: &str| -> Result<()> {
        let mut file = File::options().append(true).open(stage.file(log))?;
        for _ in 0..2 {
            let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
            writeln!(file, "{now} bad user from {address}")?;
        }
        Ok(())
    };
    let holds = |address: &str, holders: &[&str]| -> Result<()> {
        eventually(&format!("{holders:?} hold {address}"), LIMIT, || {
            Ok(agent.holders(address)? == holders)
        })
        .with_context(|| log_of(&stage))
    };
    fail("door.log", "203.0.113.7")?;
    fail("door.log", "2001:db8::7")?;
    fail("all.log", "203.0.113.8")?;
    holds("203.0.113.7", &["f2b-door"])?;
    holds("2001:db8::7", &["f2b-door"])?;
    holds("203.0.113.8", &["f2b-all"])?;
    let ports = |address: &str| -> Result<Value> {
        let ban = agent.ban(address)?.context("not banned")?;
        ban.get("ports").cloned().context("no ports")
    };
    ensure!(ports("203.0.113.7")? == serde_json::json!(["tcp/22", "tcp/8000-8010"]), "ports");
    ensure!(ports("203.0.113.8")? == serde_json::json!([]), "ports of the whole ban");
    let ban = agent.ban("203.0.113.7")?.context("not banned")?;
    let until: jiff::Timestamp =
        ban.get("until").and_then(Value::as_str).context("no end")?.parse()?;
    let left = until.duration_since(jiff::Timestamp::now()).as_secs();
    ensure!((500..=600).contains(&left), "banned for {left} s");

    // its database is taken over while it runs: the same bans, held by the jails' own names
    let database = stage.file("f2b.sqlite3").display().to_string();
    let imported = agent.verb(&["import", "fail2ban", "--db", &database])?;
    ensure!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    holds("203.0.113.7", &["door", "f2b-door"])?;
    let both = serde_json::json!(["tcp/22", "tcp/8000-8010"]);
    ensure!(ports("203.0.113.7")? == both, "not on the jail's ports");
    let shown = agent.json(&["show", "203.0.113.7"])?.to_string();
    ensure!(shown.contains("bad user from 203.0.113.7"), "the lines are lost: {shown}");
    for jail in ["door", "all"] {
        ensure!(agent.verb(&["unban", "--all", "--jail", jail])?.status.success(), "unban");
    }

    // one jail lets go of one address; another claim on it is not fail2ban's to lift
    ensure!(agent.verb(&["ban", "2001:db8::7", "--for", "1h"])?.status.success(), "ban");
    for address in ["203.0.113.7", "2001:db8::7"] {
        ensure!(server.client(&["set", "door", "unbanip", address])?, "unbanip");
    }
    holds("203.0.113.7", &[])?;
    holds("2001:db8::7", &["manual"])?;
    // a ban that ended by itself is no error
    ensure!(agent.verb(&["unban", "203.0.113.8"])?.status.success(), "unban");
    ensure!(server.client(&["set", "all", "unbanip", "203.0.113.8"])?, "unbanip");
    // a stop lifts what is left of its own
    fail("all.log", "203.0.113.9")?;
    holds("203.0.113.9", &["f2b-all"])?;
    server.stop()?;
    ensure!(agent.banned()? == ["2001:db8::7"], "left behind: {:?}", agent.banned()?);
    let log = log_of(&stage);
    // whoever waits for a jail asks for it before fail2ban has read its configuration
    let asked_early = |line: &&str| line.contains("UnknownJailException");
    let complaint =
        log.lines().filter(|line| !asked_early(line)).any(|line| line.contains("ERROR"));
    ensure!(!complaint, "fail2ban complained:\n{log}");
    Ok(())
}
