//! What a disk can do to the real agent: it fills up, turns read-only, its file is overwritten or
//! held by another process. Bans go on reaching the kernel, the trouble is shown, it ends by
//! itself, and neither a crash in the middle of it nor a reboot after it loses what was said.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::{Agent, LIMIT},
    host::FAMILIES,
    net::run,
    ordeal::trouble::SmallDisk,
    privilege,
    process::{Process, eventually},
    stage::{DEVICE, EDGE, Stage},
};

const METRICS: &str = "http://127.0.0.1:9938/metrics";
/// Banned while all was well, and let go in the middle of the trouble.
const LIFTED: &str = "203.0.113.1";
/// Banned while all was well.
const EARLY: &str = "203.0.113.2";
/// Banned by hand in the middle of the trouble.
const LATE: &str = "203.0.113.3";
/// Banned by hand once it is over.
const LAST: &str = "203.0.113.4";

/// A stage whose state lies on a disk of its own.
struct Scene<D> {
    // goes first: the disk lies in the stage's folder
    disk: D,
    stage: Stage,
}

impl Scene<SmallDisk> {
    fn build() -> Result<Self> {
        Self::on(|stage| SmallDisk::mount(stage.file("disk"), 4))
    }
}

impl<D> Scene<D> {
    fn on(mount: impl FnOnce(&Stage) -> Result<D>) -> Result<Self> {
        let stage = Stage::build()?;
        let disk = mount(&stage)?;
        stage.write("door.log", "")?;
        let text = format!(
            "[agent]\ninterfaces = [\"{DEVICE}\"]\nstate = {:?}\npins = {:?}\nsocket = {:?}\n\
             max_bans = 4096\n[metrics]\nlisten = \"127.0.0.1:9938\"\n\
             [filters.door]\nfailregex = ['^<ADDR> knocks$']\ndatepattern = ['{{NONE}}']\n\
             [jails.door]\nmaxretry = 2\nbantime = \"1h\"\nlogpath = {:?}\n",
            state(&stage),
            stage.pins(),
            stage.file("control.sock"),
            stage.file("door.log"),
        );
        stage.write("config.toml", &text)?;
        Ok(Scene { disk, stage })
    }

    /// An agent on it, in good health, with two bans.
    fn begin(&self) -> Result<Agent<'_>> {
        let mut agent = Agent::idle(&self.stage);
        agent.run()?;
        for address in [LIFTED, EARLY] {
            ensure!(ban(&agent, address)?.is_none(), "in good health {address} was not recorded");
        }
        await_health(&agent, true)?;
        Ok(agent)
    }

    /// Bans by a log line and by hand, and an unban, while nothing can be recorded.
    fn act(&self, agent: &Agent<'_>) -> Result<()> {
        let warning = ban(agent, LATE)?.context("nobody was told that it is not on disk")?;
        ensure!(warning.contains("not on disk"), "{warning}");
        ensure!(agent.verb(&["unban", LIFTED])?.status.success(), "unban failed");
        self.offend(agent)?;
        await_health(agent, false)?;
        self.holds(agent)
    }

    /// The attacker gets himself banned.
    fn offend(&self, agent: &Agent<'_>) -> Result<()> {
        let mut log = File::options().append(true).open(self.stage.file("door.log"))?;
        let attacker = self.stage.attacker();
        for family in FAMILIES {
            let address = attacker.address(family);
            write!(log, "{address} knocks\n{address} knocks\n")?;
            agent.await_holders(address, &["door"])?;
        }
        Ok(())
    }

    /// What was done so far is what is so, for the agent and for packets.
    fn holds(&self, agent: &Agent<'_>) -> Result<()> {
        let mut banned = agent.banned()?;
        banned.sort();
        let attacker = self.stage.attacker();
        let mut expected: Vec<String> =
            FAMILIES.iter().map(|family| attacker.address(*family).to_owned()).collect();
        expected.extend([EARLY.to_owned(), LATE.to_owned()]);
        expected.sort();
        banned.retain(|address| address != LAST);
        ensure!(banned == expected, "banned are {banned:?}, not {expected:?}:\n{}", agent.log());
        for family in FAMILIES {
            ensure!(!attacker.pings(family, EDGE)?, "a packet of the attacker came through");
            eventually("the client is answered", LIMIT, || {
                self.stage.client().pings(family, EDGE)
            })?;
        }
        Ok(())
    }

    /// Killed, and the kernel has forgotten everything: all of it is on disk.
    fn is_durable(&self, agent: &mut Agent<'_>) -> Result<()> {
        ensure!(ban(agent, LAST)?.is_none(), "recovered, but {LAST} was not recorded");
        agent.kill()?;
        fs::remove_dir_all(self.stage.pins()).context("cannot remove the pins")?;
        agent.run()?;
        ensure!(agent.ban(LAST)?.is_some(), "{LAST} was recorded and is lost");
        self.holds(agent)?;
        await_health(agent, true)
    }
}

fn state(stage: &Stage) -> PathBuf {
    stage.file("disk/state.sqlite")
}

/// Bans by hand; the warning that came with the answer.
fn ban(agent: &Agent<'_>, address: &str) -> Result<Option<String>> {
    let done = agent.json(&["ban", address, "--for", "1h"])?;
    Ok(done.get("warning").and_then(|warning| warning.as_str()).map(str::to_owned))
}

/// Waits until status and metrics say that the store is, or is not, as it should be.
fn await_health(agent: &Agent<'_>, sound: bool) -> Result<()> {
    let store = |status: &serde_json::Value| -> Option<String> {
        Some(status.get("store")?.as_str()?.to_owned())
    };
    eventually(&format!("the store is sound: {sound}"), LIMIT, || {
        let status = agent.json(&["status"])?;
        let told = store(&status).context("no store in the status")?;
        let alarms = status.get("alarms").context("no alarms in the status")?;
        let alarm = alarms.to_string().contains("\"store_degraded\"");
        Ok((told == "ok") == sound && alarm != sound && (sound || told.starts_with("degraded: ")))
    })
    .with_context(|| format!("the agent said:\n{}", agent.log()))?;
    let sample = format!("\nban_agent_store_degraded {}\n", u8::from(!sound));
    let page = run(agent.on_edge("curl").args(["-sS", "--max-time", "30", METRICS]))?;
    ensure!(page.contains(&sample), "no {sample:?} in\n{page}");
    Ok(())
}

#[test]
fn a_full_disk_and_a_crash_in_the_middle_of_it() -> Result<()> {
    if !privilege::ready("the agent on a full disk") {
        return Ok(());
    }
    let scene = Scene::build()?;
    let mut agent = scene.begin()?;
    scene.disk.fill()?;
    scene.act(&agent)?;
    ensure!(agent.log().contains("alarm store_degraded"), "nothing in the log:\n{}", agent.log());
    // the note among the pins: what the maps hold is newer than what the file says
    agent.kill()?;
    agent.run()?;
    scene.holds(&agent)?;
    await_health(&agent, false)?;
    // it outlives an orderly end as well
    agent.terminate()?;
    agent.run()?;
    scene.holds(&agent)?;
    scene.disk.clear()?;
    await_health(&agent, true)?;
    ensure!(agent.log().contains("the store works again"), "{}", agent.log());
    scene.is_durable(&mut agent)
}

#[test]
fn a_disk_that_turns_read_only() -> Result<()> {
    if !privilege::ready("the agent on a read-only disk") {
        return Ok(());
    }
    let scene = Scene::build()?;
    let mut agent = scene.begin()?;
    // nobody can take the disk from a program that writes: it is so when the agent comes back,
    // and what was recorded last is still in SQLite's log
    agent.kill()?;
    scene.disk.read_only(true)?;
    agent.run()?;
    scene.act(&agent)?;
    agent.kill()?;
    agent.run()?;
    scene.holds(&agent)?;
    await_health(&agent, false)?;
    scene.disk.read_only(false)?;
    await_health(&agent, true)?;
    scene.is_durable(&mut agent)
}

#[test]
fn a_file_that_is_overwritten() -> Result<()> {
    if !privilege::ready("the agent over a corrupt file") {
        return Ok(());
    }
    let scene = Scene::build()?;
    let mut agent = scene.begin()?;
    overwrite(&state(&scene.stage))?;
    // SQLite may have all it needs in its memory: then nobody has seen it yet
    ban(&agent, LATE)?;
    ensure!(agent.verb(&["unban", LIFTED])?.status.success(), "unban failed");
    scene.offend(&agent)?;
    scene.holds(&agent)?;
    agent.kill()?;
    agent.run()?;
    scene.holds(&agent)?;
    await_health(&agent, true)?;
    let log = agent.log();
    ensure!(log.contains("is corrupt; it was kept as"), "nobody was told:\n{log}");
    scene.is_durable(&mut agent)
}

#[test]
fn a_file_that_another_process_holds() -> Result<()> {
    if !privilege::ready("the agent and a locked file") {
        return Ok(());
    }
    let scene = Scene::build()?;
    let mut agent = scene.begin()?;
    let lock = Lock::take(&scene.stage)?;
    scene.act(&agent)?;
    agent.kill()?;
    // what the kernel enforces is safe without an agent
    agent.run()?;
    scene.holds(&agent)?;
    await_health(&agent, false)?;
    lock.release()?;
    await_health(&agent, true)?;
    scene.is_durable(&mut agent)
}

#[test]
fn a_disk_that_does_not_answer() -> Result<()> {
    if !privilege::ready("the agent on a disk that hangs") {
        return Ok(());
    }
    let scene = Scene::on(FrozenDisk::mount)?;
    let mut agent = scene.begin()?;
    // thawed before the agent is waited for, whatever happens
    let frozen = scene.disk.freeze()?;
    scene.act(&agent)?;
    let status = agent.json(&["status"])?;
    ensure!(status["store"] == "degraded: the disk does not answer", "{status}");
    // nor does who asks why wait for it
    ensure!(agent.verb(&["show", EARLY])?.status.success(), "show failed");
    drop(frozen);
    await_health(&agent, true)?;
    scene.is_durable(&mut agent)
}

#[test]
fn a_flood_on_a_disk_that_hangs_and_an_end_without_it() -> Result<()> {
    if !privilege::ready("the agent on a disk that hangs") {
        return Ok(());
    }
    const MANY: u32 = 15_000;
    let scene = Scene::on(|stage| FrozenDisk::of_size(stage, 512))?;
    let config = scene.stage.file("config.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replacen("max_bans = 4096", "max_bans = 16384", 1))?;
    let mut agent = scene.begin()?;
    let addresses = |first: u32| -> Result<String> {
        let all = (first..first + MANY).map(|number| std::net::Ipv4Addr::from(number).to_string());
        let list = scene.stage.write("list", &all.collect::<Vec<_>>().join("\n"))?;
        Ok(list.display().to_string())
    };
    let ban = |first| -> Result<()> {
        let list = File::open(addresses(first)?)?;
        let mut command = Command::new(tests::agent::binary()?);
        command.arg("--socket").arg(scene.stage.file("control.sock"));
        command.args(["--quiet", "ban", "--for", "1h", "-"]).stdin(list).stdout(Stdio::null());
        ensure!(command.status()?.success(), "the bans were not made");
        Ok(())
    };
    // once in good health, so that memory for so many is there
    ban(0x0b00_0000)?;
    ensure!(agent.verb(&["unban", "--all"])?.status.success(), "unban failed");
    await_health(&agent, true)?;
    let before = agent.memory()?;
    let frozen = scene.disk.freeze()?;
    for round in 0..5 {
        if round > 0 {
            ensure!(agent.verb(&["unban", "--all"])?.status.success(), "unban failed");
        }
        ban(0x0c00_0000 + round * MANY)?;
    }
    let after = agent.memory()?;
    println!("{} changes on a disk that hangs: {before} KiB before, {after} KiB then", 9 * MANY);
    ensure!(after < before + (150 << 10), "{before} KiB before, {after} KiB then");
    ensure!(agent.banned()?.len() == usize::try_from(MANY)?, "not all are banned");
    // an end does not wait for it, as far as the kernel lets a process end
    agent.signal(rustix::process::Signal::TERM)?;
    eventually("the agent gives the disk up", LIMIT, || {
        Ok(agent.log().contains("the latest decisions are in force"))
    })?;
    drop(frozen);
    agent.await_end()?;
    agent.run()?;
    await_health(&agent, true)?;
    ensure!(agent.banned()?.len() == usize::try_from(MANY)?, "bans were lost:\n{}", agent.log());
    agent.kill()?;
    fs::remove_dir_all(scene.stage.pins()).context("cannot remove the pins")?;
    agent.run()?;
    ensure!(agent.banned()?.len() == usize::try_from(MANY)?, "bans were not recorded");
    Ok(())
}

/// A disk whose writers can be made to wait, as one that fails makes them.
struct FrozenDisk(PathBuf);

impl FrozenDisk {
    fn mount(stage: &Stage) -> Result<FrozenDisk> {
        Self::of_size(stage, 16)
    }

    /// Of so many MiB.
    fn of_size(stage: &Stage, size: u64) -> Result<FrozenDisk> {
        let (image, folder) = (stage.file("image"), stage.file("disk"));
        File::create(&image)?.set_len(size << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        fs::create_dir(&folder)?;
        run(Command::new("mount").args(["-o", "loop"]).args([&image, &folder]))?;
        Ok(FrozenDisk(folder))
    }

    fn freeze(&self) -> Result<Frozen<'_>> {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.0))?;
        Ok(Frozen(&self.0))
    }
}

impl Drop for FrozenDisk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("-l").arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}

/// Nobody writes until this is dropped, and nobody who tries can be ended.
struct Frozen<'a>(&'a Path);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("fsfreeze").arg("--unfreeze").arg(self.0)) {
            eprintln!("{error:#}");
        }
    }
}

/// Everything that SQLite keeps there, from its header to its last page.
fn overwrite(path: &Path) -> Result<()> {
    for suffix in ["", "-wal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let file = File::options().write(true).open(&name)?;
        let length = usize::try_from(file.metadata()?.len())?;
        file.write_all_at(&vec![0xa5; length], 0)?;
    }
    Ok(())
}

/// A process that holds SQLite's lock on the state.
struct Lock(Process);

impl Lock {
    const PROGRAM: &str = "import sqlite3, sys; \
                           base = sqlite3.connect(sys.argv[1], isolation_level=None); \
                           base.execute('BEGIN EXCLUSIVE'); \
                           print('locked', flush=True); sys.stdin.read()";

    fn take(stage: &Stage) -> Result<Lock> {
        let said = stage.file("lock");
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", Self::PROGRAM]).arg(state(stage));
        command.stdin(Stdio::piped()).stdout(File::create(&said)?);
        let holder = Process::spawn("the lock's holder", &mut command)?;
        eventually("the state is locked", LIMIT, || {
            Ok(fs::read_to_string(&said)?.contains("locked"))
        })?;
        Ok(Lock(holder))
    }

    fn release(mut self) -> Result<()> {
        drop(self.0.child().and_then(|child| child.stdin.take()));
        eventually("the lock is released", LIMIT, || Ok(self.0.ended()?.is_some()))
    }
}
