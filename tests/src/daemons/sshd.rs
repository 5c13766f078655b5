//! OpenSSH's server and rsyslog, as on any Debian: sshd speaks to `/dev/log`, rsyslog writes
//! `auth.log`. A `/dev` of their own, in a mount namespace, so that the host's has no part in it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::{await_port, spawn};
use crate::{
    agent::LIMIT,
    host::{Family, Host, pick},
    net::{Namespace, run},
    process::{Process, eventually},
    stage::{EDGE, Stage},
};

/// A `/dev` in `$1` whose `log` is the socket `$2`, then the rest of the words.
const OWN_DEV: &str = r#"
set -e
own=$1 socket=$2
shift 2
mkdir -p "$own" && mount -t tmpfs none "$own" && mkdir "$own/pts"
for node in null zero full random urandom tty ptmx; do
    : >"$own/$node" && mount --bind "/dev/$node" "$own/$node"
done
mount --rbind /dev/pts "$own/pts"
ln -s "$socket" "$own/log"
mount --rbind "$own" /dev
exec "$@"
"#;

/// Keys that open any account.
const KEYS: &str = "authorized_keys";

/// sshd on port 22.
#[derive(Debug)]
pub struct Sshd {
    /// What rsyslog writes.
    pub log: PathBuf,
    _sshd: Process,
    _rsyslog: Process,
}

impl Sshd {
    /// Starts both.
    pub fn start(stage: &Stage) -> Result<Self> {
        let (log, socket) = (stage.file("auth.log"), stage.file("dev-log"));
        let rsyslog = rsyslog(stage, &log, &socket)?;
        let key = stage.file("hostkey");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
        let text = format!(
            "HostKey {}\nPidFile none\nUsePAM no\nPasswordAuthentication yes\n\
             PermitRootLogin yes\nMaxStartups 100\nLogLevel INFO\n\
             StrictModes no\nAuthorizedKeysFile {}\n",
            key.display(),
            stage.file(KEYS).display(),
        );
        let config = stage.write("sshd.conf", &text)?;
        // where sshd locks up its unprivileged part; the package's service would make it
        fs::create_dir_all("/run/sshd").context("cannot make /run/sshd")?;
        let mut command = stage.edge.command("unshare");
        command.args(["--mount", "sh", "-c", OWN_DEV, "own-dev"]);
        command.arg(stage.file("dev")).arg(&socket);
        command.args(["/usr/sbin/sshd", "-D", "-p", "22", "-f"]).arg(config);
        let mut sshd = spawn(stage, "sshd", &mut command)?;
        await_port(stage, "sshd", &mut sshd, 22)?;
        Ok(Self { log, _sshd: sshd, _rsyslog: rsyslog })
    }
}

fn rsyslog(stage: &Stage, log: &PathBuf, socket: &PathBuf) -> Result<Process> {
    let text = format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket={socket:?} RateLimit.Interval=\"0\")\n\
         auth,authpriv.* action(type=\"omfile\" file={log:?} \
         template=\"RSYSLOG_TraditionalFileFormat\")\n",
    );
    let config = stage.write("rsyslog.conf", &text)?;
    let mut command = stage.edge.command("rsyslogd");
    command.arg("-n").arg("-f").arg(config).arg("-i").arg(stage.file("rsyslog.pid"));
    let process = spawn(stage, "rsyslog", &mut command)?;
    eventually("rsyslog listens", LIMIT, || Ok(socket.exists()))?;
    Ok(process)
}

/// One connection of a real ssh client with this many wrong passwords. It ends by itself, or is
/// cut off.
pub fn guess(
    stage: &Stage,
    from: Host<'_>,
    family: Family,
    user: &str,
    passwords: u32,
) -> Result<()> {
    let askpass = stage.file("askpass");
    if !askpass.exists() {
        fs::write(&askpass, "#!/bin/sh\necho wrong\n")?;
        fs::set_permissions(&askpass, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let mut ssh = client(&stage.outside);
    ssh.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
    ssh.arg("-o").arg(format!("NumberOfPasswordPrompts={passwords}"));
    ssh.args(["-b", from.address(family), "-l", user, pick(family, EDGE), "true"]);
    ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ssh.status().context("cannot start ssh")?;
    Ok(())
}

/// A session of a real ssh client, by key: it has no terminal and runs nothing.
pub fn log_in(stage: &Stage, from: Host<'_>, family: Family, user: &str) -> Result<Process> {
    let key = stage.file("key");
    if !key.exists() {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
        fs::copy(stage.file("key.pub"), stage.file(KEYS)).context("cannot write the keys")?;
    }
    let mut ssh = stage.outside.command("ssh");
    ssh.args(["-F", "none", "-N", "-o", "StrictHostKeyChecking=no"]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"]).arg(&key);
    ssh.args(["-b", from.address(family), "-l", user, pick(family, EDGE)]);
    let session = spawn(stage, "ssh", &mut ssh)?;
    let accepted = format!("Accepted publickey for {user} from {} ", from.address(family));
    eventually("somebody is logged in", LIMIT, || {
        Ok(fs::read_to_string(stage.file("auth.log")).unwrap_or_default().contains(&accepted))
    })?;
    Ok(session)
}

fn client(outside: &Namespace) -> Command {
    let mut ssh = outside.command("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ]);
    ssh.args(["-o", "PubkeyAuthentication=no", "-o", "ConnectTimeout=2"]);
    ssh.args(["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"]);
    ssh
}
