//! The journal as a source, under a live journald: fail2ban's sshd jail bans by what syslog(3) and
//! a unit wrote into it; a restart of the agent, a rotation that removes what was read, a
//! restart of journald and a reboot lose nothing and count nothing twice.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{machine::Machine, privilege, process::eventually, stage::Stage};

/// More than any step takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const UNIT: &str = "ban-agent.service";
const FAIL2BAN: &str = "/etc/fail2ban";
/// `_COMM` is what the kernel calls the sender: a logger(1) by this name passes for sshd.
const SSHD: &str = "/usr/local/bin/sshd";

const CONFIG: &str = "[agent]\ninterfaces = [\"eth0\"]\nmax_bans = 4096\n\
                      fail2ban = \"/etc/fail2ban\"\n";
const JAIL: &str = "[sshd]\nenabled = true\nbackend = systemd\nmaxretry = 2\nfindtime = 1h\n";

/// What sshd says of a wrong password.
fn line(address: &str) -> String {
    format!("Failed password for invalid user x from {address} port 40000 ssh2")
}

struct Host<'a> {
    machine: Machine<'a>,
}

impl Host<'_> {
    fn journal(&self) -> String {
        let said =
            |words: &[&str]| self.machine.done(words).unwrap_or_else(|error| error.to_string());
        said(&["journalctl", "--no-pager", "--lines=60"])
            + &said(&["ban-agent", "-o", "json", "status", "sshd"])
            + &said(&["journalctl", "--no-pager", "--output=verbose", "SYSLOG_IDENTIFIER=sshd"])
    }

    /// Each of these fails once, by syslog(3). journald looks up who has sent a datagram, and has
    /// to find him: as a daemon does, he stays until it has.
    fn fail(&self, addresses: &[&str]) -> Result<()> {
        let said: String =
            addresses.iter().map(|address| format!("echo '{}'; ", line(address))).collect();
        let seen = format!(
            "until [ \"$(journalctl -q -o cat _COMM=sshd | grep -c .)\" -eq $((n + {})) ]",
            addresses.len()
        );
        let script = format!(
            "n=$(journalctl -q -o cat _COMM=sshd | grep -c .); \
             {{ {said} {seen}; do sleep 0.1; done; }} | {SSHD} --tag=sshd --id=4711"
        );
        self.machine
            .done(&["timeout", "60", "sh", "-c", &script])
            .with_context(|| self.journal())?;
        Ok(())
    }

    /// A field of the jail, or of its source.
    fn count(&self, pointer: &str) -> Result<u64> {
        let status = self.machine.done(&["ban-agent", "-o", "json", "status", "sshd"])?;
        let status: Value = serde_json::from_str(&status)?;
        status.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("{status}"))
    }

    /// Waits for these bans, by so many failures since the agent started.
    fn await_bans(&self, addresses: &[&str], failures: u64) -> Result<()> {
        for address in addresses {
            eventually(&format!("{address} is banned"), LIMIT, || {
                Ok(self.machine.run(&["ban-agent", "show", address])?.status.success())
            })
            .with_context(|| self.journal())?;
        }
        let matched = self.count("/jails/0/matched")?;
        ensure!(matched == failures, "{matched} failures, not {failures}: {}", self.journal());
        Ok(())
    }

    fn systemctl(&self, verb: &str, unit: &str) -> Result<()> {
        self.machine.done(&["systemctl", verb, unit]).with_context(|| self.journal())?;
        Ok(())
    }

    /// Takes away everything that the journal holds.
    fn vacuum(&self) -> Result<()> {
        self.machine.done(&["journalctl", "--sync"])?;
        self.machine.done(&["journalctl", "--rotate", "--vacuum-size=1"])?;
        let left = self.machine.run(&["journalctl", "--quiet", "_COMM=sshd"])?.stdout;
        ensure!(left.is_empty(), "not vacuumed: {}", String::from_utf8_lossy(&left));
        Ok(())
    }
}

/// A booted machine with the package, fail2ban's configuration and one jail of it.
fn host(stage: &Stage) -> Result<Host<'_>> {
    let mut machine = Machine::build(stage)?;
    machine.install()?;
    let copied = Command::new("cp").arg("-a").arg(FAIL2BAN).arg(machine.file("/etc/")).status()?;
    ensure!(copied.success(), "cannot copy {FAIL2BAN}");
    fs::write(machine.file("/etc/fail2ban/jail.local"), JAIL)?;
    // the distribution enables its jail there
    fs::remove_dir_all(machine.file("/etc/fail2ban/jail.d"))?;
    fs::write(machine.file("/etc/ban-agent/config.toml"), CONFIG)?;
    fs::copy(machine.file("/usr/bin/logger"), machine.file(SSHD))?;
    machine.boot()?;
    Ok(Host { machine })
}

#[test]
fn a_live_journal_bans_and_no_entry_is_missed_or_counted_twice() -> Result<()> {
    if !privilege::ready("the journal") {
        return Ok(());
    }
    if !Path::new(FAIL2BAN).is_dir() {
        ensure!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        println!("SKIPPED: the package fail2ban is not installed");
        return Ok(());
    }
    let stage = Stage::build()?;
    let mut host = host(&stage)?;
    // before anybody follows it; without the words around it, it is nobody's failure
    host.fail(&["203.0.113.1"])?;
    host.machine.done(&["logger", "--tag=sshd", &line("203.0.113.200")])?;
    host.systemctl("start", UNIT)?;
    host.fail(&["203.0.113.1", "203.0.113.2"])?;
    host.await_bans(&["203.0.113.1"], 3)?;
    // a unit by sshd's name
    let said = format!("echo '{0}'; echo '{0}' >&2", line("203.0.113.3"));
    let unit = ["--unit=sshd", "--property=SyslogIdentifier=sshd", "--quiet", "--wait"];
    host.machine.done(&[&["systemd-run"][..], &unit, &["sh", "-c", &said]].concat())?;
    host.await_bans(&["203.0.113.3"], 5)?;
    host.fail(&["2001:db8::4", "2001:db8::4"])?;
    host.await_bans(&["2001:db8::4"], 7)?;

    // what is written while the agent is away counts, and nothing from before it again
    host.systemctl("stop", UNIT)?;
    host.fail(&["203.0.113.5", "203.0.113.5"])?;
    host.systemctl("start", UNIT)?;
    host.await_bans(&["203.0.113.5"], 2)?;
    host.systemctl("kill", UNIT)?;
    host.fail(&["203.0.113.6", "203.0.113.6"])?;

    // rotated and vacuumed while it reads
    host.systemctl("restart", UNIT)?;
    host.await_bans(&["203.0.113.6"], 2)?;
    host.vacuum()?;
    host.fail(&["203.0.113.7", "203.0.113.7"])?;
    host.await_bans(&["203.0.113.7"], 4)?;
    // journald itself anew
    host.systemctl("restart", "systemd-journald")?;
    host.fail(&["203.0.113.8", "203.0.113.8"])?;
    host.await_bans(&["203.0.113.8"], 6)?;
    // rotated and vacuumed while it does not: the entry of its cursor is gone
    host.systemctl("stop", UNIT)?;
    host.vacuum()?;
    host.fail(&["203.0.113.9", "203.0.113.9"])?;
    host.systemctl("start", UNIT)?;
    host.await_bans(&["203.0.113.9"], 2)?;
    host.vacuum()?;
    host.fail(&["203.0.113.10", "203.0.113.10"])?;
    host.await_bans(&["203.0.113.10"], 4)?;
    ensure!(host.count("/sources/0/lost")? == 0, "{}", host.journal());

    // what was written before the reboot is read after it
    host.systemctl("stop", UNIT)?;
    host.fail(&["203.0.113.11", "203.0.113.11"])?;
    host.machine.done(&["journalctl", "--sync"])?;
    host.machine.reboot()?;
    host.systemctl("start", UNIT)?;
    host.await_bans(&["203.0.113.11"], 2)?;
    for bystander in ["203.0.113.2", "203.0.113.200"] {
        let shown = host.machine.run(&["ban-agent", "show", bystander])?;
        ensure!(shown.status.code() == Some(1), "{bystander} is banned: {}", host.journal());
    }
    Ok(())
}
