//! The lab's stage: two namespaces joined by one link, nginx and the stub API and the agent on
//! the edge. Everything on it has a name of the lab's own, and goes when the stage is dropped.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{BANTIME, actors::Guest, stop, tell::Teller};
use crate::{
    command, layout,
    net_shared::{Namespace, Pins, Process, eventually, join, run},
};

/// The edge's addresses, on the link to its gateway.
pub(super) const EDGE: (&str, &str) = ("198.51.100.1", "2001:db8:64::1");
/// The gateway, behind which the others live.
const GATEWAY: (&str, &str) = ("198.51.100.254", "2001:db8:64::fe");
/// The attacker's addresses.
pub(super) const ATTACKER: (&str, &str) = ("203.0.113.66", "2001:db8:bad::66");
/// The normal client's: the same IPv4 /24 as the attacker, a site of its own in IPv6.
pub(super) const CLIENT: (&str, &str) = ("203.0.113.7", "2001:db8:cafe::7");

const EDGE_NAME: &str = "ban-lab-edge";
const OUTSIDE_NAME: &str = "ban-lab-outside";
const PINS: &str = "ban-agent-lab";
/// Root's own, and gone after a reboot.
const FOLDER: &str = "/run/ban-agent-lab";
const API_PORT: u16 = 8096;

pub(super) struct Scene {
    // In the order in which they go: who runs in a namespace before the namespace.
    processes: Vec<Process>,
    log: Follower,
    _pins: Pins,
    edge: Namespace,
    outside: Arc<Namespace>,
    _folder: Folder,
    keep: bool,
}

impl Scene {
    pub(super) fn build(keep: bool, tell: &Teller) -> Result<Self> {
        ensure!(
            !Path::new("/run/netns").join(EDGE_NAME).exists() && !Path::new(FOLDER).exists(),
            "another lab is running, or one was kept\nhint: cargo xtask run --clean"
        );
        tell.step("the stage");
        let folder = Folder::make()?;
        let edge = Namespace::named(EDGE_NAME)?;
        let outside = Arc::new(Namespace::named(OUTSIDE_NAME)?);
        wire(&edge, &outside)?;
        picture(tell);
        write_files()?;
        let pins = Pins::new(PINS);
        let mut scene = Self {
            processes: Vec::new(),
            log: Follower::idle(),
            _pins: pins,
            edge,
            outside,
            _folder: folder,
            keep,
        };
        scene.start_server(tell)?;
        scene.start_agent(tell)?;
        Ok(scene)
    }

    pub(super) fn keeps(&self) -> bool {
        self.keep
    }

    pub(super) fn outside(&self) -> Arc<Namespace> {
        Arc::clone(&self.outside)
    }

    /// A program on the edge: told to end with us, unless the stage is to stay.
    fn on_edge(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        if self.keep { self.edge.lasting_command(program) } else { self.edge.command(program) }
    }

    fn start(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let log = log_of(name);
        let file =
            File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let copy = file.try_clone().with_context(|| format!("cannot share {}", log.display()))?;
        command.stdin(std::process::Stdio::null()).stdout(file).stderr(copy);
        self.processes.push(Process::spawn(name, command)?);
        Ok(())
    }

    /// Waits until `so`, unless the process that was started last ends before.
    fn ready(&mut self, name: &str, mut so: impl FnMut(&Self) -> bool) -> Result<()> {
        let what = format!("{name} is ready; see {}", log_of(name).display());
        eventually(&what, Duration::from_secs(20), || {
            stop::check()?;
            if let Some(process) = self.processes.last_mut()
                && let Some(status) = process.ended()?
            {
                let said = fs::read_to_string(log_of(name)).unwrap_or_default();
                bail!("{name} ended with {status}:\n{}", said.trim());
            }
            Ok(so(self))
        })
    }

    fn start_server(&mut self, tell: &Teller) -> Result<()> {
        let mut api = self.on_edge(std::env::current_exe().context("who am I?")?);
        self.start("api", api.args(["lab-api", &API_PORT.to_string()]))?;
        let mut nginx = self.on_edge(command::find("nginx").context("there is no nginx")?);
        let conf = Path::new(FOLDER).join("nginx.conf");
        self.start("nginx", nginx.arg("-e").arg(log_of("nginx-error")).arg("-c").arg(conf))?;
        let url = format!("http://{}/client/api", EDGE.0);
        self.ready("nginx", |scene| {
            let mut curl = scene.outside.command("curl");
            curl.args(["--silent", "--noproxy", "*", "--output", "/dev/null", "--max-time", "2"]);
            curl.args(["--write-out", "%{http_code}", "--interface", GATEWAY.0, &url]);
            // The answer to a request without a key; 502 until the API behind nginx is up.
            run(&mut curl).is_ok_and(|status| status.trim() == "401")
        })?;
        tell.say("edge", "nginx answers, in front of the API");
        Ok(())
    }

    fn start_agent(&mut self, tell: &Teller) -> Result<()> {
        let mut agent = self.on_edge(layout::agent(false));
        agent.args(["--config", &format!("{FOLDER}/config.toml"), "run"]);
        self.log = Follower::of(log_of("agent"), tell.clone());
        self.start("agent", &mut agent)?;
        self.ready("agent", |scene| run(&mut scene.cli(&["status"])).is_ok())?;
        tell.say("edge", "the agent runs; XDP sits in the driver of the edge's link");
        self.agent(tell, &["status"])
    }

    fn cli(&self, words: &[&str]) -> Command {
        let mut agent = self.edge.command(layout::agent(false));
        agent.args(["--config", &format!("{FOLDER}/config.toml")]).args(words);
        agent
    }

    /// Runs `ban-agent WORDS…` and shows what it says.
    pub(super) fn agent(&self, tell: &Teller, words: &[&str]) -> Result<()> {
        tell.say("operator", &format!("$ ban-agent {}", words.join(" ")));
        let said = run(&mut self.cli(words))?;
        tell.say("", said.trim_end());
        Ok(())
    }

    /// The packets that a guest's ban has dropped.
    pub(super) fn packets(&self, guest: &Guest) -> Result<u64> {
        let text = run(&mut self.cli(&["-o", "json", "list"]))?;
        let list: Value = serde_json::from_str(&text).context("`list` wrote no JSON")?;
        let bans = list.get("bans").and_then(Value::as_array).context("`list` has no bans")?;
        // An IPv6 ban covers the attacker's /64: recognise it by the site.
        let mine = |ban: &&Value| {
            let address = ban.get("address").and_then(Value::as_str).unwrap_or_default();
            address == guest.address() || guest.address().starts_with(address)
        };
        let ban = bans.iter().find(mine);
        let ban = ban.with_context(|| format!("`list` does not show {}", guest.address()))?;
        ban.get("packets").and_then(Value::as_u64).context("a ban without a counter")
    }

    /// Shows the entries of the ban maps as bpftool prints them.
    pub(super) fn dump(&self, tell: &Teller) -> Result<()> {
        let mut shown = 0;
        for name in maps()? {
            let mut bpftool = Command::new("bpftool");
            bpftool.args(["map", "dump", "pinned"]).arg(&name);
            let said = run(&mut bpftool)?;
            if said.contains("\"key\"") {
                tell.say("operator", &format!("$ {}", command::shown(&bpftool)));
                tell.say("", said.trim_end());
                shown += 1;
            }
        }
        ensure!(shown > 0, "no ban map holds an entry");
        Ok(())
    }

    /// Leaves everything standing, and says what one can do with it.
    pub(super) fn leave(mut self, tell: &Teller) {
        tell.step("the stage is yours");
        let agent = layout::agent(false);
        let on_edge = format!("nsenter --net=/run/netns/{EDGE_NAME}");
        let outside = format!("nsenter --net=/run/netns/{OUTSIDE_NAME}");
        let cli = format!("{on_edge} {} --config {FOLDER}/config.toml", agent.display());
        println!("as root:");
        for (what, line) in [
            ("what is banned", format!("{cli} list")),
            ("and why", format!("{cli} show {}", ATTACKER.0)),
            ("let him in again", format!("{cli} unban {}", ATTACKER.0)),
            (
                "guess 30 passwords",
                format!(
                    "for i in $(seq 30); do {outside} curl -sm2 --interface {} 'http://{}/client/api?command=login&username=a&password='$i; echo; done",
                    ATTACKER.0, EDGE.0
                ),
            ),
            ("the access log", format!("tail -f {FOLDER}/access.log")),
            ("the agent's log", format!("tail -f {}", log_of("agent").display())),
            (
                "the maps",
                format!(
                    "ls /sys/fs/bpf/{PINS}/*; bpftool map dump pinned /sys/fs/bpf/{PINS}/v1/ban_v4"
                ),
            ),
            ("remove it all", "cargo xtask run --clean".to_owned()),
        ] {
            println!("  # {what}\n  {line}");
        }
        self.processes.drain(..).for_each(Process::keep);
        std::mem::forget(self);
    }
}

/// The pinned ban maps, whatever the version of their layout.
fn maps() -> Result<Vec<PathBuf>> {
    let pins = Path::new("/sys/fs/bpf").join(PINS);
    let mut maps = Vec::new();
    for version in entries(&pins)? {
        if version.is_dir() {
            maps.extend(entries(&version)?.into_iter().filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                ["ban_", "net_", "site_"].iter().any(|kind| name.starts_with(kind))
            }));
        }
    }
    maps.sort();
    Ok(maps)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn log_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.log"))
}

fn wire(edge: &Namespace, outside: &Namespace) -> Result<()> {
    join(edge, "eth0", outside, "eth0")?;
    edge.address("eth0", &format!("{}/24", EDGE.0))?;
    edge.address("eth0", &format!("{}/64", EDGE.1))?;
    outside.address("eth0", &format!("{}/24", GATEWAY.0))?;
    outside.address("eth0", &format!("{}/64", GATEWAY.1))?;
    for guest in [ATTACKER, CLIENT] {
        outside.address("lo", &format!("{}/32", guest.0))?;
        outside.address("lo", &format!("{}/128", guest.1))?;
    }
    edge.ip(&format!("route add default via {}", GATEWAY.0))?;
    edge.ip(&format!("-6 route add default via {}", GATEWAY.1))?;
    Ok(())
}

fn picture(tell: &Teller) {
    tell.say(
        "",
        &format!(
            "namespace {OUTSIDE_NAME}              namespace {EDGE_NAME}\n\
             attacker {:<17} │              │ XDP ─▶ nginx ─▶ CloudStack API (stub)\n\
             \x20        {:<17} ├─ gateway ──eth0 {:<15}   │ access.log\n\
             client   {:<17} │              │ {:<15}   ▼\n\
             \x20        {:<17} │              │                ban-agent",
            ATTACKER.0, ATTACKER.1, EDGE.0, CLIENT.0, EDGE.1, CLIENT.1
        ),
    );
}

fn write_files() -> Result<()> {
    let nginx = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {FOLDER}/nginx.pid;\nevents {{}}\n\
         http {{\n  access_log {FOLDER}/access.log combined;\n\
         \x20 client_body_temp_path {FOLDER}/t1;\n  proxy_temp_path {FOLDER}/t2;\n  fastcgi_temp_path {FOLDER}/t3;\n\
         \x20 uwsgi_temp_path {FOLDER}/t4;\n  scgi_temp_path {FOLDER}/t5;\n\
         \x20 server {{\n    listen 80;\n    listen [::]:80;\n\
         \x20   location /client/api {{ proxy_pass http://127.0.0.1:{API_PORT}; }}\n  }}\n}}\n"
    );
    let mut agent = format!(
        "# The shipped CloudStack jails, with a log and a shorter ban of the lab's own.\n\
         [agent]\ninterfaces = [\"eth0\"]\nmode = \"native\"\nstate = \"{FOLDER}/state.sqlite\"\n\
         pins = \"/sys/fs/bpf/{PINS}\"\nsocket = \"{FOLDER}/control.sock\"\n"
    );
    for jail in ["nginx-401", "nginx-531"] {
        agent += &format!(
            "\n[jails.{jail}]\nlogpath = [\"{FOLDER}/access.log\"]\nbantime = \"{}s\"\n",
            BANTIME.as_secs()
        );
    }
    for (name, text) in [("nginx.conf", nginx), ("config.toml", agent)] {
        let path = Path::new(FOLDER).join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The lab's folder. Dropping it removes it.
struct Folder;

impl Folder {
    fn make() -> Result<Self> {
        fs::create_dir(FOLDER).with_context(|| format!("cannot create {FOLDER}"))?;
        Ok(Self)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(FOLDER) {
            eprintln!("cannot remove {FOLDER}: {error}");
        }
    }
}

/// Shows the lines of a log as they come, until dropped.
struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Follower {
    fn idle() -> Self {
        Self { stop: Arc::default(), thread: None }
    }

    fn of(path: PathBuf, tell: Teller) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let follow = move || {
            let mut lines = None;
            loop {
                let last = asked.load(Ordering::Relaxed);
                if lines.is_none() {
                    lines = File::open(&path).ok().map(BufReader::new);
                }
                if let Some(reader) = &mut lines {
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                        tell.say("agent", line.trim_end());
                        line.clear();
                    }
                }
                if last {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
        };
        Self { stop, thread: Some(thread::spawn(follow)) }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread that shows the agent's log panicked");
        }
    }
}

/// Removes what a kept or killed lab left: by name, and only processes inside its namespaces.
pub(super) fn remove() -> Result<()> {
    for name in [EDGE_NAME, OUTSIDE_NAME] {
        if !Path::new("/run/netns").join(name).exists() {
            continue;
        }
        for signal in ["-TERM", "-KILL"] {
            let inside = || run(Command::new("ip").args(["netns", "pids", name]));
            for pid in inside()?.split_whitespace() {
                // It may have ended since.
                let _gone = run(Command::new("kill").args([signal, pid]));
            }
            let empty = || Ok(inside()?.trim().is_empty());
            if eventually("they end", Duration::from_secs(3), empty).is_ok() {
                break;
            }
        }
        run(Command::new("ip").args(["netns", "del", name]))?;
    }
    drop(Pins::new(PINS));
    if Path::new(FOLDER).exists() {
        drop(Folder);
    }
    Ok(())
}
