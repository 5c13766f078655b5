//! The guide for those who come from fail2ban, followed to the letter: every command in its boxes,
//! in order, against the real fail2ban and the real agent, at their usual places. Those places are
//! copies that nobody else sees.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::binary,
    privilege,
    stage::{DEVICE, Stage},
};

/// The guide.
const GUIDE: &str = "docs/migrating-from-fail2ban.md";

/// `/etc`, `/var` and `/run` of its own, and what stands for the service manager. `$1`: a folder,
/// `$2`: the commands, `$3`: the agent, `$4`: the source tree.
const HOST: &str = r#"
set -eu
folder=$1 commands=$2 agent=$3 tree=$4
mount --make-rprivate /
mount -t tmpfs none "$folder"
for name in etc var; do
    mkdir "$folder/$name" "$folder/$name.work"
    mount -t overlay -o "lowerdir=/$name,upperdir=$folder/$name,workdir=$folder/$name.work" none "/$name"
done
mount -t tmpfs none /run
mount -t bpf bpf /sys/fs/bpf
mkdir -p "$folder/bin" /run/fail2ban /etc/ban-agent /var/lib/ban-agent /var/lib/fail2ban
ln -s "$agent" "$folder/bin/ban-agent"
export PATH="$folder/bin:$PATH"
# the guide's package has put its files here
mkdir "$folder/usr.share" "$folder/usr.work"
mount -t overlay -o "lowerdir=/usr/share,upperdir=$folder/usr.share,workdir=$folder/usr.work" none /usr/share
mkdir -p /usr/share/ban-agent
cp -r "$tree/dist/fail2ban" /usr/share/ban-agent/

answers() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }
background() { "$@" & answers ban-agent -o json status; }
gone() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 || return 0; sleep 0.1; done; return 1; }
# the guide's services
systemctl() {
    case "$*" in
    "enable --now ban-agent") background ban-agent run ;;
    "disable --now ban-agent")
        kill -TERM "$(ban-agent -o json status | grep -o '"pid":[0-9]*' | cut -d: -f2)"
        gone ban-agent -o json status ;;
    "enable --now fail2ban")
        fail2ban-server -x -b start && answers fail2ban-client status sshd
        # it takes a moment to make its former bans again
        [ -z "${before:-}" ] || answers banned ;;
    "disable --now fail2ban") fail2ban-client stop && gone fail2ban-client ping ;;
    *) echo "no such service: $*"; return 1 ;;
    esac
}
finish() { ban-agent detach; fail2ban-client stop; wait; }
trap 'finish >/dev/null 2>&1' EXIT

banned() { fail2ban-client status sshd | grep -q 203.0.113.7; }

# a host as it is today: fail2ban has banned somebody, by a log and by hand
touch /var/log/auth.log
printf '[sshd]\nenabled = true\nbackend = polling\nlogpath = /var/log/auth.log\n' \
    > /etc/fail2ban/jail.local
systemctl enable --now fail2ban
for _ in 1 2 3 4 5 6; do
    echo "$(date '+%b %d %H:%M:%S') edge sshd[7]: Failed password for invalid user x from 203.0.113.7 port 4 ssh2"
done >> /var/log/auth.log
answers banned
before=1
. "$commands"
"#;

/// The guide's commands, each with its words before it.
fn commands(guide: &str) -> String {
    let mut script = String::new();
    let mut fence: Option<bool> = None;
    let mut document = false;
    for line in guide.lines() {
        match (fence, line) {
            (None, "```sh") => fence = Some(false),
            (None, "```sh background") => fence = Some(true),
            (Some(_), "```") => fence = None,
            (Some(_), _) if document => {
                document = line != "END";
                script += &format!("{line}\n");
            }
            (Some(background), _) => {
                document = line.ends_with("<<'END'");
                let shown = line.replace('\'', "'\\''");
                let word = if background { "background " } else { "" };
                script += &format!("echo '$ {shown}'\n{word}{line}\n");
            }
            (None, _) => {}
        }
    }
    // the heredocs, too
    script.replace("\"eth0\"", &format!("\"{DEVICE}\""))
}

#[test]
fn the_guide_can_be_followed() -> Result<()> {
    if !privilege::ready("migration") {
        return Ok(());
    }
    if Command::new("fail2ban-server").arg("-V").output().is_err() {
        ensure!(std::env::var_os("CI").is_none(), "the package fail2ban is not installed");
        println!("SKIPPED: the package fail2ban is not installed");
        return Ok(());
    }
    let stage = Stage::build()?;
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let guide = fs::read_to_string(tree.join(GUIDE)).context("there is no guide")?;
    let script = commands(&guide);
    ensure!(script.matches("echo '$ ").count() > 30, "the guide has lost its commands");
    let host = stage.write("host.sh", HOST)?;
    fs::set_permissions(&host, fs::Permissions::from_mode(0o755))?;
    let commands = stage.write("guide.sh", &script)?;
    let folder = stage.file("own");
    fs::create_dir(&folder)?;
    let agent = binary()?.canonicalize()?;
    let mut command = stage.edge.command("unshare");
    // what it starts ends with it
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]);
    command.arg(&host).arg(&folder).arg(&commands).arg(&agent).arg(&tree).stdin(Stdio::null());
    let output = command.output().context("cannot start unshare")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}:\n{said}", output.status);
    println!("{said}");

    let part = |from: &str, to: &str| -> Result<&str> {
        let (_, tail) = said.split_once(from).with_context(|| format!("no '{from}' in {said}"))?;
        Ok(tail.split_once(to).with_context(|| format!("no '{to}' in {said}"))?.0)
    };
    // taken over, on the jail's ports, once
    let list = part("$ ban-agent import fail2ban", "$ ban-agent confirm")?;
    let list = list.split_once("$ ban-agent list").context("no list")?.1;
    ensure!(list.contains("203.0.113.7") && list.contains("tcp/22"), "not taken over: {list}");
    ensure!(!list.contains("sshd,sshd"), "held twice: {list}");
    // fail2ban has it again after the way back
    let back = part("$ fail2ban-client status sshd", "$ rm -f")?;
    ensure!(back.contains("203.0.113.7"), "fail2ban has forgotten: {back}");
    ensure!(said.contains("f2b-sshd"), "fail2ban's ban was not enforced: {said}");
    Ok(())
}
