//! Actions under the real unit: they are confined as the agent is, and a drop-in lets them do what
//! they have to.

use std::{fs, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{machine::Machine, privilege, process::eventually, stage::Stage};

/// More than any step takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const LOG: &str = "/var/log/app.log";
const UNIT: &str = "ban-agent.service";

/// One writes where the agent may, one where it may not, and one is a setgid program, as mailers
/// are.
const CONFIG: &str = r#"
[agent]
interfaces = ["eth0"]
max_bans = 4096
[filters.app]
failregex = ['^slow <ADDR>$']
[actions.near]
ban = 'echo "<ip>" >> /var/log/ban-agent/near'
[actions.far]
ban = 'echo "<ip>" >> /srv/far'
[actions.mailer]
ban = '/usr/local/bin/mailer -g >> /var/log/ban-agent/mailer'
[jails.app]
logpath = "/var/log/app.log"
maxretry = 1
actions = ["near", "far", "mailer"]
"#;

/// What docs/actions.md tells operators to write.
const DROP_IN: &str = "[Service]\nReadWritePaths=/srv\nNoNewPrivileges=no\nRestrictSUIDSGID=no\n";

fn complain(machine: &Machine<'_>, address: &str) -> Result<()> {
    let mut file = fs::File::options().append(true).open(machine.file(LOG))?;
    Ok(writeln!(file, "slow {address}")?)
}

fn read(machine: &Machine<'_>, name: &str) -> String {
    fs::read_to_string(machine.file(name)).unwrap_or_default()
}

#[test]
fn actions_are_confined_until_a_drop_in_frees_them() -> Result<()> {
    if !privilege::ready("actions under systemd") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut machine = Machine::build(&stage)?;
    machine.install()?;
    fs::write(machine.file(LOG), "")?;
    fs::write(machine.file("/etc/ban-agent/config.toml"), CONFIG)?;
    machine.boot()?;
    machine.done(&["cp", "/usr/bin/id", "/usr/local/bin/mailer"])?;
    machine.done(&["chgrp", "mail", "/usr/local/bin/mailer"])?;
    machine.done(&["chmod", "2755", "/usr/local/bin/mailer"])?;
    let mail = machine.done(&["/usr/local/bin/mailer", "-g"])?;
    ensure!(mail.trim() != "0", "the mailer has no group of its own: {mail}");
    let journal = || machine.done(&["journalctl", "--no-pager", "--unit", UNIT]);
    machine.done(&["systemctl", "start", UNIT]).with_context(|| journal().unwrap_or_default())?;

    complain(&machine, "203.0.113.1")?;
    let near = "/var/log/ban-agent/near";
    eventually("what is near is told", LIMIT, || Ok(read(&machine, near) == "203.0.113.1\n"))
        .with_context(|| journal().unwrap_or_default())?;
    eventually("what is far is not", LIMIT, || {
        let status = machine.done(&["ban-agent", "status"])?;
        Ok(status.contains("ALARM action_failed")
            && status.contains("actionban of 203.0.113.1 failed"))
    })?;
    let mailer = "/var/log/ban-agent/mailer";
    eventually("the mailer has run", LIMIT, || Ok(read(&machine, mailer) == "0\n"))?;

    let folder = machine.file("/etc/systemd/system/ban-agent.service.d");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("actions.conf"), DROP_IN)?;
    machine.done(&["systemctl", "daemon-reload"])?;
    machine.done(&["systemctl", "restart", UNIT])?;
    complain(&machine, "203.0.113.2")?;
    eventually("what is far is told", LIMIT, || {
        // the restart has told of the ban that goes on
        Ok(read(&machine, "/srv/far") == "203.0.113.1\n203.0.113.2\n")
    })
    .with_context(|| journal().unwrap_or_default())?;
    eventually("the mailer has its group", LIMIT, || {
        Ok(read(&machine, mailer) == format!("0\n{mail}{mail}"))
    })
    .with_context(|| read(&machine, mailer))?;
    Ok(())
}
