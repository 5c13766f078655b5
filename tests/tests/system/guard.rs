//! What enforces the bans is taken away under the running agent: it sees that, says so, and puts
//! it back.

use std::{fs, path::Path, process::Command};

use ban_agent::dataplane::{Options, Xdp};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT},
    host::{Family, within},
    net::run,
    privilege,
    process::{Pins, eventually},
    stage::{ATTACKER, DEVICE, EDGE, Stage},
};

/// An agent with the attacker banned.
fn begin(stage: &Stage) -> Result<Agent<'_>> {
    let agent = Agent::start(stage, "")?;
    ban(&agent)?;
    ensure!(!passes(stage)?, "not dropped");
    Ok(agent)
}

fn ban(agent: &Agent<'_>) -> Result<()> {
    ensure!(agent.verb(&["ban", ATTACKER.0, "--for", "1h"])?.status.success(), "ban");
    Ok(())
}

fn passes(stage: &Stage) -> Result<bool> {
    stage.attacker().pings(Family::V4, EDGE)
}

fn bpftool(words: &str) -> Result<String> {
    run(Command::new("bpftool").args(words.split_whitespace()))
}

fn alarms(agent: &Agent<'_>) -> Result<String> {
    Ok(agent.json(&["status"])?.get("alarms").map(Value::to_string).unwrap_or_default())
}

fn program(stage: &Stage) -> Result<Option<u64>> {
    let shown = stage.edge.ip(&format!("-j link show dev {DEVICE}"))?;
    let shown: Value = serde_json::from_str(&shown)?;
    Ok(shown.pointer("/0/xdp/prog/id").and_then(Value::as_u64))
}

#[test]
fn pins_that_are_removed_come_back() -> Result<()> {
    if !privilege::ready("removed pins") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let mut agent = begin(&stage)?;
    let link = stage.pins().join("v1/links").join(DEVICE);
    ensure!(link.exists(), "no pin at {}", link.display());
    fs::remove_dir_all(stage.pins())?;
    eventually("the pins are back", LIMIT, || {
        Ok(link.exists() && agent.log().contains("were gone: they are back"))
    })?;
    ensure!(!passes(&stage)?, "passed meanwhile");
    // one map alone, and in its place another one
    let map = stage.pins().join("v1/ban_v4");
    let own = bpftool(&format!("map show pinned {}", map.display()))?;
    fs::remove_file(&map)?;
    bpftool(&format!(
        "map create {} type hash key 4 value 48 entries 16 name ban_v4 flags 1",
        map.display()
    ))?;
    eventually("the right map is pinned", LIMIT, || {
        Ok(bpftool(&format!("map show pinned {}", map.display())).is_ok_and(|shown| shown == own))
    })?;
    agent.kill()?;
    ensure!(!passes(&stage)?, "the ban ended with the agent");
    agent.run()?;
    ensure!(agent.banned()? == [ATTACKER.0], "the ban is lost");
    Ok(())
}

#[test]
fn a_program_that_is_taken_off_comes_back() -> Result<()> {
    if !privilege::ready("a program that is taken off") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let agent = begin(&stage)?;
    let link = stage.pins().join("v1/links").join(DEVICE);
    for _ in 0..2 {
        bpftool(&format!("link detach pinned {}", link.display()))?;
        eventually("the program is back", LIMIT, || stage.attached())?;
        eventually("nothing passes", LIMIT, || Ok(!passes(&stage)?))?;
    }
    ensure!(agent.log().contains("had been taken off eth0: it is back"), "{}", agent.log());
    // this the kernel refuses while there is a link
    let _refused = stage.edge.ip(&format!("link set {DEVICE} xdp off"));
    eventually("the program is there", LIMIT, || Ok(stage.attached()? && !passes(&stage)?))?;
    eventually("the link is pinned", LIMIT, || Ok(link.exists()))?;
    // both at once
    bpftool(&format!("link detach pinned {}", link.display()))?;
    fs::remove_dir_all(stage.pins())?;
    eventually("all of it is back", LIMIT, || {
        Ok(link.exists() && stage.attached()? && !passes(&stage)?)
    })
}

#[test]
fn who_takes_the_slot_keeps_it_and_is_named() -> Result<()> {
    if !privilege::ready("a slot that another takes") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let agent = begin(&stage)?;
    let link = stage.pins().join("v1/links").join(DEVICE);
    let pins = Pins::new(&format!("ban-test-owner-{}", std::process::id()));
    agent.signal(Signal::STOP)?;
    bpftool(&format!("link detach pinned {}", link.display()))?;
    let options = Options {
        interfaces: vec![DEVICE.to_owned()],
        pins: pins.path().to_owned(),
        max_bans: 64,
        ..Options::default()
    };
    let owner = within(&stage.edge, move || Ok(Xdp::start(options)?))?;
    let theirs = program(&stage)?;
    agent.signal(Signal::CONT)?;
    eventually("the agent says who is there", LIMIT, || {
        Ok(alarms(&agent)?.contains("nothing is dropped: eth0 already runs the XDP program"))
    })?;
    let interfaces = agent.json(&["status"])?.get("interfaces").map(Value::to_string);
    ensure!(interfaces.is_some_and(|shown| shown.contains("detached")), "shown as attached");
    ensure!(program(&stage)? == theirs, "the agent fights");
    owner.detach().context("the other owner")?;
    eventually("the agent is back", LIMIT, || {
        Ok(stage.attached()? && !passes(&stage)? && !alarms(&agent)?.contains("already runs"))
    })
}

#[test]
fn an_unmounted_file_system_is_said() -> Result<()> {
    if !privilege::ready("an unmounted BPF file system") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let mount = stage.file("bpf");
    fs::create_dir(&mount)?;
    let mounted = Mount::new(&mount)?;
    let pins = mount.join("pins");
    stage.write(
        "config.toml",
        &format!(
            "[agent]\ninterfaces = [\"{DEVICE}\"]\nstate = {:?}\npins = {pins:?}\n\
             socket = {:?}\nmax_bans = 4096\n",
            stage.file("state.sqlite"),
            stage.file("control.sock"),
        ),
    )?;
    let mut agent = Agent::idle(&stage);
    agent.run()?;
    ban(&agent)?;
    run(Command::new("umount").arg("-l").arg(&mount))?;
    eventually("the agent says so", LIMIT, || {
        let said = alarms(&agent)?;
        Ok(said.contains("the pins are gone") && said.contains("mount -t bpf"))
    })?;
    ensure!(!passes(&stage)?, "passed while the agent lives");
    run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&mount))?;
    eventually("it is not said any more", LIMIT, || {
        Ok(!alarms(&agent)?.contains("the pins are gone"))
    })?;
    agent.kill()?;
    ensure!(!passes(&stage)?, "the ban ended with the agent");
    drop(mounted);
    Ok(())
}

/// A BPF file system of our own.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(path: &'a Path) -> Result<Self> {
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(path))?;
        Ok(Mount(path))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // the pins go with it
        if let Err(error) = run(Command::new("umount").arg("-l").arg(self.0)) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn maps_that_drift_are_mended() -> Result<()> {
    if !privilege::ready("maps that drift") {
        return Ok(());
    }
    let stage = Stage::on_veth()?;
    let agent = begin(&stage)?;
    let v6 = ATTACKER.1;
    ensure!(agent.verb(&["ban", v6, "--for", "1h"])?.status.success(), "ban {v6}");
    let map = |name: &str| stage.pins().join("v1").join(name).display().to_string();
    let drop_entry = || {
        bpftool(&format!("map delete pinned {} key 192 0 2 66", map("ban_v4")))?;
        ensure!(passes(&stage)?, "bpftool did nothing");
        Ok(())
    };
    // the word of 192.0.2.0/24: the address without its last 14 bits
    let shut_gate = || {
        let word = (u32::from_be_bytes([192, 0, 2, 66]) >> 14).to_le_bytes();
        let key = word.map(|byte| byte.to_string()).join(" ");
        bpftool(&format!("map update pinned {} key {key} value 0 0 0 0 0 0 0 0", map("gate_v4")))?;
        ensure!(passes(&stage)?, "bpftool did nothing");
        Ok(())
    };
    // by itself, within a minute
    drop_entry()?;
    eventually("the entry is back", LIMIT, || Ok(!passes(&stage)?))?;
    ensure!(agent.log().contains("were not what the ledger says"), "{}", agent.log());
    ensure!(alarms(&agent)?.contains("\"drift\""), "{}", alarms(&agent)?);
    // by a reload
    let mended = |what: &str, broken: &dyn Fn() -> Result<()>| -> Result<()> {
        broken()?;
        ensure!(agent.verb(&["reload"])?.status.success(), "reload");
        eventually(what, LIMIT, || Ok(!passes(&stage)?))
    };
    mended("the entry is back", &drop_entry)?;
    mended("the gate is open", &shut_gate)?;
    mended("both", &|| {
        shut_gate()?;
        bpftool(&format!("map delete pinned {} key 192 0 2 66", map("ban_v4")))?;
        Ok(())
    })?;
    // what nobody banned, and what nobody allowed
    let stray = "key 192 0 2 7 value hex ff ff ff ff ff ff ff 7f 00 00 00 00 00 00 00 00 00 00 00 \
                 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 20 00 \
                 00 00";
    bpftool(&format!("map update pinned {} {stray}", map("ban_v4")))?;
    let allow = "key 32 0 0 0 192 0 2 66 value 1 0 0 0";
    bpftool(&format!("map update pinned {} {allow}", map("allow_v4")))?;
    ensure!(agent.verb(&["reload"])?.status.success(), "reload");
    eventually("the strays are gone", LIMIT, || {
        let dump = |name: &str| -> Result<String> {
            let dump = bpftool(&format!("map dump pinned {}", map(name)))?;
            Ok(dump.split_whitespace().collect())
        };
        let (bans, allowed) = (dump("ban_v4")?, dump("allow_v4")?);
        Ok(!bans.contains("192,0,2,7]") && !allowed.contains("192,0,2,66]"))
    })?;
    ensure!(!passes(&stage)?, "the ban is lost");
    ensure!(stage.client().pings(Family::V4, EDGE)?, "the client is still dropped");
    Ok(())
}
