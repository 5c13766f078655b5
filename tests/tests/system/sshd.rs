//! A real sshd, rsyslog's `auth.log`, the agent, and a real ssh client that guesses passwords.

use std::{fs, io::Write as _, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::Agent,
    daemons::{Sshd, guess, log_in},
    host::{FAMILIES, Family, Host},
    privilege,
    process::{Process, eventually},
    stage::{ATTACKER, CLIENT, EDGE, Stage, VICTIM},
};

/// The shipped pair over one log. The first jail's ban cuts a guesser off at his third failure;
/// the second one's limit is set so that it is met by the third failure of his next visit.
fn jails(stage: &Stage) -> String {
    let log = stage.file("auth.log");
    format!(
        "[jails.sshd]\nlogpath = {log:?}\nbantime = \"6s\"\n\
         [jails.sshd-hourly]\nlogpath = {log:?}\nmaxretry = 6\n"
    )
}

#[test]
fn two_jails_hold_the_guesser_and_the_ban_ends_with_the_last() -> Result<()> {
    if !privilege::ready("sshd password guessing") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _sshd = Sshd::start(&stage)?;
    let agent = Agent::start(&stage, &jails(&stage))?;
    let (attacker, client) = (stage.attacker(), stage.client());
    for family in FAMILIES {
        let address = attacker.address(family);
        guess(&stage, attacker, family, "root", 3)?;
        agent.await_holders(address, &["sshd"])?;
        ensure!(!attacker.pings(family, EDGE)?, "pings come back");
        agent.await_holders(address, &[])?;

        ensure!(attacker.pings(family, EDGE)?, "the first ban did not end");
        guess(&stage, attacker, family, "root", 3)?;
        agent.await_holders(address, &["sshd", "sshd-hourly"])?;
        ensure!(attacker.connect(family, EDGE, 22)?.is_none(), "a new connection opens");
        ensure!(!attacker.pings(family, EDGE)?, "pings come back");

        agent.await_holders(address, &["sshd-hourly"])?;
        ensure!(!attacker.pings(family, EDGE)?, "the short jail's end lifted the long one's ban");
        ensure!(client.connect(family, EDGE, 22)?.is_some(), "the client suffers");
        ensure!(client.pings(family, EDGE)?, "the client's pings suffer");

        let shown = agent.verb(&["show", address])?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        ensure!(shown.status.success() && text.contains("Failed password"), "no evidence: {text}");
    }
    Ok(())
}

#[test]
fn whoever_is_named_by_a_user_name_is_not_banned() -> Result<()> {
    if !privilege::ready("sshd injection") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let sshd = Sshd::start(&stage)?;
    // three names, each of them unknown: two failures from each
    let jail = format!("[jails.sshd]\nlogpath = {:?}\nmaxretry = 6\n", stage.file("auth.log"));
    let agent = Agent::start(&stage, &jail)?;
    let attacker = stage.attacker();
    for family in FAMILIES {
        let victim = if family == Family::V4 { VICTIM.0 } else { VICTIM.1 };
        // sshd keeps 100 bytes of a name: the third one ends with the forged text right there
        let tail = format!(" from {victim} port 22 ssh2");
        let names = [
            format!("root{tail}"),
            format!("x{tail} sshd[1]: Failed password for root{tail}"),
            format!("{}{tail}", "A".repeat(100_usize.saturating_sub(tail.len()))),
        ];
        for name in &names {
            guess(&stage, attacker, family, name, 1)?;
        }
        agent.await_holders(attacker.address(family), &["sshd"])?;
        let log = fs::read_to_string(&sshd.log)?;
        // sshd takes what follows a colon for the name of a method
        let kept = tail.split(':').next().context("no text")?;
        ensure!(log.contains(kept), "the forged text did not reach the log");
    }
    // nothing that was written is still unread
    let lines = u64::try_from(fs::read_to_string(&sshd.log)?.lines().count())?;
    eventually("the log is read", Duration::from_secs(10), || Ok(agent.lines("sshd")? >= lines))?;
    let mut banned = agent.banned()?;
    banned.sort();
    ensure!(banned == [attacker.address(Family::V4), attacker.address(Family::V6)], "{banned:?}");
    let client = stage.client().connect(Family::V4, EDGE, 22)?;
    client.context("the client suffers")?;
    Ok(())
}

/// Who is logged in is protected, and nobody else who has a connection: neither to sshd before the
/// login, nor to a process of the web server's user that calls itself the sshd of a session.
#[test]
fn a_session_is_protected_and_a_pretended_one_is_not() -> Result<()> {
    const PRETENDER: &str = r#"
        use IO::Socket::INET;
        $0 = 'sshd: x@y';
        my $listener = IO::Socket::INET->new(Listen => 1, LocalPort => 8022, ReuseAddr => 1);
        my @clients;
        while (my $client = $listener->accept) { push @clients, $client }
    "#;
    if !privilege::ready("SSH sessions") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _sshd = Sshd::start(&stage)?;
    let mut perl = stage.edge.command("setpriv");
    perl.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "perl", "-e", PRETENDER]);
    let _pretender = Process::spawn("perl", perl.stdout(Stdio::null()))?;
    // from four addresses: a session of root's, one of somebody else's, and two that are none
    let root = Host::new(&stage.outside, VICTIM);
    let _sessions = [
        log_in(&stage, stage.client(), Family::V4, "nobody")?,
        log_in(&stage, root, Family::V6, "root")?,
    ];
    let mut pretended = None;
    eventually("the pretender listens", Duration::from_secs(10), || {
        pretended = stage.attacker().connect(Family::V4, EDGE, 8022).unwrap_or_default();
        Ok(pretended.is_some())
    })?;
    let _early = stage.attacker().connect(Family::V6, EDGE, 22)?.context("sshd is closed")?;

    let log = stage.write("app.log", "")?;
    let jail = format!(
        "[filters.app]\nfailregex = ['^slow <ADDR>$']\n\
         [jails.app]\nlogpath = {log:?}\nmaxretry = 1\n"
    );
    let agent = Agent::start(&stage, &jail)?;
    let mut file = fs::File::options().append(true).open(&log)?;
    let mut complain = |address: &str| writeln!(file, "slow {address}");
    // each ban has the sessions looked at again, and lets go of who has one by then
    for (address, number) in [(CLIENT.0, 0), (VICTIM.1, 0), (ATTACKER.0, 1), (ATTACKER.1, 2)] {
        complain(address)?;
        eventually("it is decided", Duration::from_secs(10), || {
            Ok(agent.banned()?.len() == number && agent.lines("app")? > 0)
        })
        .with_context(|| format!("{address}: {:?}\n{}", agent.banned(), agent.log()))?;
    }
    for (number, address) in ["203.0.113.1", "203.0.113.2", "203.0.113.3"].into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(1100));
        complain(address)?;
        eventually("others are banned", Duration::from_secs(10), || {
            Ok(agent.banned()?.len() == 3 + number)
        })?;
    }
    let banned = agent.banned()?;
    let has = |address: &str| banned.iter().any(|banned| banned == address);
    ensure!(has(ATTACKER.0) && has(ATTACKER.1), "{banned:?}\n{}", agent.log());
    ensure!(!has(CLIENT.0) && !has(VICTIM.1), "{banned:?}\n{}", agent.log());
    for prefix in [format!("{}/32", CLIENT.0), format!("{}/128", VICTIM.1)] {
        let refused = format!("{prefix} is the peer of an SSH session");
        ensure!(agent.log().contains(&refused), "{refused}\n{}", agent.log());
    }
    Ok(())
}

/// The jails as they are shipped, told no file: only the paths that they look at differ.
#[test]
fn a_host_is_protected_wherever_its_sshd_logs() -> Result<()> {
    if !privilege::ready("sshd, source found out") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _sshd = Sshd::start(&stage)?;
    // the first is Debian's, which this host has not; the second is there
    let text = format!(
        "[filters.sshd]\nlogs = [{:?}, {:?}]\njournalmatch = []\n\
         [filters.sshd-preauth]\nlogs = [{:?}]\njournalmatch = []\n\
         [jails.sshd]\n[jails.sshd-preauth]\nmaxretry = 2\n",
        stage.file("absent.log"),
        stage.file("auth.log"),
        stage.file("auth.log"),
    );
    let agent = Agent::start(&stage, &text)?;
    let attacker = stage.attacker();
    guess(&stage, attacker, Family::V4, "root", 3)?;
    agent.await_holders(attacker.address(Family::V4), &["sshd"])?;
    // connections that name a user and end without a login
    guess(&stage, attacker, Family::V6, "root", 1)?;
    guess(&stage, attacker, Family::V6, "root", 1)?;
    agent.await_holders(attacker.address(Family::V6), &["sshd-preauth"])?;
    Ok(())
}
