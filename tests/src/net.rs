//! Network namespaces for tests and the lab, torn down when dropped. All addresses live inside
//! them; the host's own interfaces, routes and rules are never touched.
//!
//! No VLAN devices: kernels without 8021q exist, and tagged frames can be sent over a packet
//! socket. Also compiled into xtask for the lab, so it uses nothing of the agent's.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};

/// A network namespace of our own. Dropping it removes it, and every link in it; processes in it
/// must be dropped before.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace `ban-ROLE-PID-N` with loopback up.
    pub fn new(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::named(format!("ban-{role}-{}-{number}", std::process::id()))
    }

    /// Makes a namespace of exactly this name.
    pub fn named(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        // Addresses are usable at once, as on a link that has been up for a while.
        namespace.ip("link set lo up")?;
        for scope in ["all", "default"] {
            let key = format!("net.ipv6.conf.{scope}.accept_dad=0");
            run(namespace.command("sysctl").args(["-q", "-w", &key]))?;
        }
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program, to run inside; told to end when we die. In a process group of its own, so that
    /// a Ctrl-C in the terminal reaches us alone. `ip netns exec` would hide the BPF file system.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.lasting_command("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program);
        command
    }

    /// The program, to run inside, and to go on when we are gone.
    pub fn lasting_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program).process_group(0);
        command
    }

    /// Runs `ip WORDS…` inside and gives its output.
    pub fn ip(&self, words: &str) -> Result<String> {
        run(self.command("ip").args(words.split_whitespace()))
    }

    /// Gives the device an address with its prefix length, `192.0.2.1/24` or `2001:db8::1/64`.
    pub fn address(&self, device: &str, address: &str) -> Result<()> {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("address add {address} dev {device} {nodad}"))?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("cannot remove the namespace {}: {error:#}", self.name);
        }
    }
}

/// Joins two namespaces by a veth pair, both ends up. The link goes when either namespace does.
pub fn join(one: &Namespace, device: &str, other: &Namespace, peer: &str) -> Result<()> {
    // From within: outside the names may be taken.
    let to = other.name();
    one.ip(&format!("link add {device} type veth peer name {peer} netns {to}"))?;
    one.ip(&format!("link set {device} up"))?;
    other.ip(&format!("link set {peer} up"))?;
    Ok(())
}

/// Runs it to its end; its output, or an error with what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?} ended with {}: {}", done.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
