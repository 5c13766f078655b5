//! What fail2ban remembers is taken over, out of a database that its own code has written: live bans,
//! the history that makes the next ban longer, and the bans of the last day for the jail that counts
//! bans. Twice, and counted once.

use std::{fs::File, io::Write as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tests::{agent::Agent, privilege, stage::Stage};

/// Each ban: jail, address, hours ago, its length in seconds, how many there were by then.
const DATABASE: &str = r#"
import sys, time
sys.path.append("/usr/lib/python3/dist-packages")
from fail2ban.server.database import Fail2BanDb
from fail2ban.server.ticket import BanTicket

class Jail:
    def __init__(self, name):
        self.name, self.actions = name, self
    def getBanTime(self):
        return 600

database = Fail2BanDb(sys.argv[1])
jails = {name: Jail(name) for name in ("door", "window")}
for jail in jails.values():
    database.addJail(jail)
for jail, address, hours, length, count in [
    ("door", "203.0.113.7", 120, 600, 1),
    ("door", "203.0.113.7", 100, 1200, 2),
    ("door", "203.0.113.7", 80, 2400, 3),
    ("window", "203.0.113.8", 4, 600, 1),
    ("door", "203.0.113.8", 3, 600, 1),
    ("door", "203.0.113.8", 2, 600, 1),
    ("door", "203.0.113.9", 1, -1, 1),
    ("window", "2001:db8::10", 9, 600, 1),
    ("window", "2001:db8::10", 8, 600, 1),
    ("window", "2001:db8::10", 7, 600, 1),
    ("window", "2001:db8::10", 6, 600, 1),
]:
    ticket = BanTicket(address, time.time() - 3600 * hours, matches=["bad user from " + address])
    ticket.setBanTime(length)
    ticket.setBanCount(count)
    database.addBan(jails[jail], ticket)
"#;

const JAILS: &str = "[filters.door]\nfailregex = ['^ ?bad user from <ADDR>$']\n\
                     [jails.door]\nlogpath = \"LOG\"\nmaxretry = 1\nbantime = \"10m\"\n\
                     \"bantime.increment\" = true\n\
                     [jails.recidive]\nmaxretry = 4\n";

#[test]
fn history_is_taken_over_once() -> Result<()> {
    if !privilege::ready("import") {
        return Ok(());
    }
    if Command::new("fail2ban-server").arg("-V").output().is_err() {
        ensure!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        println!("SKIPPED: the package fail2ban is not installed");
        return Ok(());
    }
    let stage = Stage::build()?;
    let database = stage.file("f2b.sqlite3").display().to_string();
    let made = Command::new("python3").args(["-c", DATABASE, &database]).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let log = stage.file("door.log");
    let mut file = File::create(&log)?;
    let mut agent = Agent::start(&stage, &JAILS.replace("LOG", &log.display().to_string()))?;
    for _ in 0..3 {
        let imported = agent.verb(&["import", "fail2ban", "--db", &database])?;
        ensure!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        agent.await_holders("203.0.113.9", &["door"])?;
        agent.await_holders("2001:db8::10", &["recidive"])?;
        ensure!(agent.banned()?.len() == 2, "banned too many: {:?}", agent.banned()?);
        agent.terminate()?;
        agent.run()?;
    }
    let history = |address: &str| -> Result<u64> {
        // exit code 1: it is not banned
        let shown = agent.verb(&["-o", "json", "show", address])?.stdout;
        let shown: Value = serde_json::from_slice(&shown)?;
        shown.get("history").and_then(Value::as_u64).with_context(|| format!("{shown}"))
    };
    ensure!(history("203.0.113.7")? == 3, "{}", history("203.0.113.7")?);
    ensure!(history("203.0.113.8")? == 3, "{}", history("203.0.113.8")?);

    // eight times as long; the bans of last week are no reason for more
    writeln!(file, "bad user from 203.0.113.7")?;
    agent.await_holders("203.0.113.7", &["door"])?;
    let ban = agent.ban("203.0.113.7")?.context("not banned")?;
    let until: Timestamp = ban.get("until").and_then(Value::as_str).context("no end")?.parse()?;
    let left = until.duration_since(Timestamp::now()).as_secs();
    ensure!((4700..=4800).contains(&left), "banned for {left} s");
    // the fourth within a day
    writeln!(file, "bad user from 203.0.113.8")?;
    agent.await_holders("203.0.113.8", &["door", "recidive"])?;
    Ok(())
}
