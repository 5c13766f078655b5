//! The package on a clean root: what it brings, that it runs there, and what it leaves behind.

use anyhow::{Context as _, Result, ensure};
use tests::{
    machine::{Machine, mode},
    privilege,
    stage::{DEVICE, Stage},
};

/// Where each thing lies, and how.
const FILES: [(&str, &str); 21] = [
    ("/usr/bin/ban-agent", "0 0 755"),
    ("/etc/ban-agent", "0 0 755"),
    ("/etc/ban-agent/config.toml", "0 0 644"),
    ("/etc/ban-agent/conf.d", "0 0 755"),
    ("/etc/logrotate.d/ban-agent", "0 0 644"),
    ("/usr/lib/systemd/system/ban-agent.service", "0 0 644"),
    ("/usr/lib/systemd/system/ban-agent-sessions.socket", "0 0 644"),
    ("/usr/lib/systemd/system/ban-agent-sessions@.service", "0 0 644"),
    ("/usr/share/ban-agent/drop-in/system.conf", "0 0 644"),
    ("/usr/share/man/man1/ban-agent.1.gz", "0 0 644"),
    ("/usr/share/man/man1/ban-agent-confirm.1.gz", "0 0 644"),
    ("/usr/share/bash-completion/completions/ban-agent", "0 0 644"),
    ("/usr/share/zsh/vendor-completions/_ban-agent", "0 0 644"),
    ("/usr/share/fish/vendor_completions.d/ban-agent.fish", "0 0 644"),
    ("/usr/share/doc/ban-agent/shipped/ssh/sshd.toml", "0 0 644"),
    ("/usr/share/doc/ban-agent/shipped/platform/cloudstack.toml", "0 0 644"),
    ("/usr/share/doc/ban-agent/copyright", "0 0 644"),
    ("/usr/share/doc/ban-agent/changelog.gz", "0 0 644"),
    ("/usr/share/doc/ban-agent/CHANGELOG.md", "0 0 644"),
    ("/usr/share/doc/ban-agent/docs/operations.md", "0 0 644"),
    ("/usr/share/doc/ban-agent/README.md", "0 0 644"),
];

#[test]
fn it_installs_runs_and_goes() -> Result<()> {
    if !privilege::ready("the package on a clean root") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let machine = Machine::build(&stage)?;
    machine.install()?;
    for (file, expected) in FILES {
        let found = mode(&machine.file(file))?;
        ensure!(found == expected, "{file}: {found}, not {expected}");
    }
    let conffiles = machine.done(&["dpkg-query", "-W", "-f", "${Conffiles}", "ban-agent"])?;
    for file in ["/etc/ban-agent/config.toml", "/etc/logrotate.d/ban-agent"] {
        ensure!(conffiles.contains(file), "{file} is no conffile");
    }
    let changed = machine.done(&["dpkg", "--verify", "ban-agent"])?;
    ensure!(changed.is_empty(), "not as it was packed: {changed}");
    let wanted = machine.file("/etc/systemd/system/multi-user.target.wants/ban-agent.service");
    ensure!(!wanted.exists(), "installing it enabled it");

    let version = machine.done(&["ban-agent", "--version"])?;
    ensure!(version.trim() == concat!("ban-agent ", env!("CARGO_PKG_VERSION")), "{version}");
    let checked = machine.done(&["ban-agent", "check"])?;
    ensure!(checked.contains("sshd") && checked.contains("sshd-hourly"), "{checked}");

    // the daemon itself, as the sample configuration has it but for the name of the card
    let script = format!(
        "ban-agent run -i {DEVICE} & agent=$!
         until ban-agent -o json status >/dev/null; do kill -0 $agent || exit 9; sleep 0.1; done
         ban-agent ban 192.0.2.66 --for 1h && ban-agent -o json list && kill $agent && wait $agent"
    );
    let said = machine.done(&["sh", "-ec", &script])?;
    ensure!(said.contains("\"address\":\"192.0.2.66\""), "{said}");
    ensure!(stage.attached()?, "SIGTERM took the program away");
    let state = machine.file("/var/lib/ban-agent/state.sqlite");
    ensure!(state.exists(), "no state");

    // a removal takes the program off, and keeps what the administrator may want again
    machine.done(&["dpkg", "--remove", "ban-agent"])?;
    ensure!(!stage.attached()?, "the removal left the program");
    ensure!(state.exists() && machine.file("/etc/ban-agent/config.toml").exists(), "too much");
    machine.done(&["dpkg", "--purge", "ban-agent"])?;
    let find = ["find", "/etc", "/usr", "/var", "/run", "-xdev", "-name", "*ban-agent*"];
    let left = machine.done(&find)?;
    ensure!(left.is_empty(), "left behind:\n{left}");
    Ok(())
}

#[test]
fn its_own_log_is_rotated_and_loses_nothing() -> Result<()> {
    if !privilege::ready("logrotate") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let machine = Machine::build(&stage)?;
    machine.install()?;
    let config = machine.file("/etc/ban-agent/config.toml");
    let text = std::fs::read_to_string(&config).context("no configuration")?;
    let log = "[agent]\nfail2ban_log = \"/var/log/ban-agent/fail2ban.log\"";
    std::fs::write(&config, text.replacen("[agent]", log, 1))?;
    let script = format!(
        "mkdir -p /var/log/ban-agent; ban-agent run -i {DEVICE} & agent=$!
         until ban-agent -o json status >/dev/null; do kill -0 $agent || exit 9; sleep 0.1; done
         ban-agent --quiet ban 192.0.2.66
         tries=0; until grep -q Ban /var/log/ban-agent/fail2ban.log; do
             tries=$((tries + 1)); [ $tries -lt 150 ]; sleep 0.2; done
         logrotate --force /etc/logrotate.d/ban-agent
         ban-agent --quiet unban 192.0.2.66
         kill $agent; wait $agent; cd /var/log/ban-agent
         for file in fail2ban.log.1 fail2ban.log; do echo \"$file: $(cat $file)\"; done"
    );
    let said = machine.done(&["sh", "-ec", &script])?;
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    ensure!(line("fail2ban.log.1: ").ends_with(" Ban 192.0.2.66"), "{said}");
    ensure!(line("fail2ban.log: ").ends_with(" Unban 192.0.2.66"), "{said}");
    Ok(())
}
