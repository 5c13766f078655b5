//! `cargo xtask run` without arguments: the lab. Tells one story from the first request to the
//! end of a ban, on a real nginx and real packets, and checks every step of it. This file is the
//! story; the stage is built in `scene`.

mod actors;
pub(crate) mod api;
mod picture;
mod scene;
mod stop;
mod tell;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{net_shared::eventually, privilege, setup::system};
use actors::{Client, Family, Guest, Reply};
use scene::Scene;
use tell::Teller;

/// How long a ban lasts in the lab; the shipped hour would be long to watch.
const BANTIME: Duration = Duration::from_secs(30);
/// The shipped jails ban at the 25th failed login; a few more may be answered before that.
const TRIES: usize = 60;

/// Plays the story; leaves the stage standing, and draws what was told, if asked to.
pub(crate) fn play(keep: bool, picture: Option<&Path>) -> Result<ExitCode> {
    ensure!(privilege::is_root(), "the lab needs root");
    system::install(&[system::LAB])?;
    privilege::bpffs()?;
    stop::on_signals()?;
    let tell = Teller::new();
    let told = Scene::build(keep, &tell).and_then(|scene| {
        story(&scene, &tell)?;
        if keep {
            scene.leave(&tell);
        }
        Ok(())
    });
    match told {
        Err(_) if stop::asked() => {
            tell.step("stopped; everything is removed again");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(error),
        Ok(()) => {
            tell.step(if keep { "the lab stands" } else { "done; everything is removed again" });
            if let Some(path) = picture {
                fs::write(path, picture::svg(&tell.take()))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Removes what a kept or killed lab left.
pub(crate) fn clean() -> Result<ExitCode> {
    ensure!(privilege::is_root(), "removing the lab needs root");
    scene::remove()?;
    println!("the lab is removed");
    Ok(ExitCode::SUCCESS)
}

fn story(scene: &Scene, tell: &Teller) -> Result<()> {
    let v4 = Guest::attacker(Family::V4);
    let v6 = Guest::attacker(Family::V6);
    before(scene, tell, &[&v4, &v6])?;

    tell.step("a normal client starts to work; it asks twice a second from now on");
    let client = Client::start(scene.outside())?;
    for guest in [&v4, &v6] {
        attack(scene, tell, guest)?;
    }
    tell.step("why are they banned?");
    scene.agent(tell, &["list"])?;
    scene.agent(tell, &["show", v4.address()])?;
    dead(scene, tell, &[&v4, &v6])?;

    tell.step("the normal client goes on");
    client.still_served(tell)?;
    if scene.keeps() {
        return Ok(());
    }
    ended(scene, tell, &[&v4, &v6])?;
    let served = client.finish()?;
    tell.say("client", &format!("{served} requests, every one of them answered 200"));
    tell.step("the agent detaches: no program, no pin is left");
    scene.agent(tell, &["detach"])
}

fn before(scene: &Scene, tell: &Teller, guests: &[&Guest]) -> Result<()> {
    tell.step("before: everybody is answered");
    for guest in guests {
        expect(guest.pings(&scene.outside())?, "ping before the ban")?;
        tell.say("attacker", &format!("{} pings the edge: answered", guest.address()));
    }
    Ok(())
}

fn expect(so: bool, what: &str) -> Result<()> {
    if so { Ok(()) } else { bail!("not as expected: {what}") }
}

/// Guesses passwords until the edge no longer answers.
fn attack(scene: &Scene, tell: &Teller, guest: &Guest) -> Result<()> {
    tell.step(&format!("{} guesses passwords, {}", guest.address(), guest.method()));
    for attempt in 1..=TRIES {
        stop::check()?;
        match guest.guesses(&scene.outside(), attempt)? {
            Reply::Status(status) if attempt <= 3 || attempt % 5 == 0 => {
                tell.say("attacker", &format!("try {attempt}: HTTP {status}"));
            }
            Reply::Status(_) => {}
            Reply::Nothing => {
                tell.say(
                    "attacker",
                    &format!("try {attempt}: no answer, the connection times out"),
                );
                return Ok(());
            }
        }
    }
    bail!("{} still gets answers after {TRIES} failed logins", guest.address())
}

/// The banned addresses reach nothing, and the counters show it.
fn dead(scene: &Scene, tell: &Teller, guests: &[&Guest]) -> Result<()> {
    tell.step("the ban covers every packet, and counts it");
    for guest in guests {
        let earlier = scene.packets(guest)?;
        expect(!guest.pings(&scene.outside())?, "pings of a banned address die")?;
        tell.say("attacker", &format!("{} pings the edge: nothing", guest.address()));
        let later = scene.packets(guest)?;
        tell.say("counter", &format!("packets dropped: {earlier}, and after the ping {later}"));
        expect(later > earlier, "the counter of a ban rises")?;
    }
    tell.step("the same in the kernel's maps, read with bpftool");
    scene.dump(tell)
}

/// Waits for the end of the bans, and sees the addresses come through again.
fn ended(scene: &Scene, tell: &Teller, guests: &[&Guest]) -> Result<()> {
    tell.step(&format!("the bans end by themselves, {}s after they began", BANTIME.as_secs()));
    for guest in guests {
        eventually("the ban ends", BANTIME + Duration::from_secs(15), || {
            stop::check()?;
            guest.pings(&scene.outside())
        })?;
        tell.say("attacker", &format!("{} pings the edge: answered again", guest.address()));
    }
    scene.agent(tell, &["list"])
}
