//! Sees that the program, its links and the pins are in place, and puts back what is gone.
//!
//! Never fights: who took the slot keeps it, and what is taken off again and again is put back
//! more and more rarely. What is amiss is said for as long as it is: [`Attached::trouble`],
//! [`Xdp::pin_trouble`], [`Xdp::uncovered`].

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use ban_common::SLOTS;

use super::{
    attach::attach,
    attachment::{Attached, Attachment},
    error::Error,
    lifetime::Lifetime,
    link::{self, Link},
    load::{Loaded, PINNED},
    plane::DataPlane as _,
    select::Scene,
    xdp::{Options, Xdp},
};

/// Looks after which the pins are compared one by one, though nothing seems to have changed.
const EVERY: u32 = 60;

/// When something may be mended again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    wait: Duration,
    until: Option<Instant>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(60);

    fn ready(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// It was mended, or tried to be.
    fn tried(&mut self, now: Instant) {
        self.wait = (self.wait * 2).clamp(Backoff::FIRST, Backoff::MOST);
        self.until = now.checked_add(self.wait);
    }

    /// It is in order.
    fn calm(&mut self, now: Instant) {
        let long_ago = |until: Instant| now.saturating_duration_since(until) > Backoff::MOST;
        if self.until.is_some_and(long_ago) {
            *self = Backoff::default();
        }
    }
}

/// An interface, its slot, and the thread that loads its program.
type Coming = (String, u32, thread::JoinHandle<Result<Loaded, Error>>);

/// What the guard remembers from look to look.
#[derive(Debug, Default)]
pub(super) struct Guard {
    looks: u32,
    /// The pin folders as they were when all was well.
    seal: Option<super::pins::Seal>,
    pin_trouble: Option<String>,
    pin_backoff: Backoff,
    /// Ways in that are not protected.
    pub(super) uncovered: Vec<String>,
    /// A program that is being loaded for an interface that has come.
    coming: Option<Coming>,
}

impl Xdp {
    /// A look at what must be in place, and the repair of what is not: a few system calls if all
    /// is well. To be called every second. What has changed, for the log.
    ///
    /// # Errors
    /// If the kernel does not answer, or all of it was detached by force ([`Error::Detached`]).
    pub fn look(&mut self) -> Result<Vec<String>, Error> {
        self.maps.rest();
        self.must_be_wanted()?;
        self.guard.looks = self.guard.looks.wrapping_add(1);
        let mut changes = Vec::new();
        if self.maps.controls.is_dry_run() != self.options.dry_run {
            self.maps.controls.dry_run(self.options.dry_run);
            changes.push(
                "another process changed the program's settings: they were restored".to_owned(),
            );
        }
        if self.options.lifetime == Lifetime::Detached {
            return Ok(changes);
        }
        let now = Instant::now();
        changes.extend(self.tend_pins(now));
        if self.wants_tending(now) {
            changes.extend(self.check_interfaces()?);
        }
        Ok(changes)
    }

    /// Nothing is put back that was taken off on purpose.
    pub(super) fn must_be_wanted(&self) -> Result<(), Error> {
        if self.pins.is_detached() { Err(Error::Detached) } else { Ok(()) }
    }

    /// Looks at the interfaces again: where one has come back (a new device of the same name), or
    /// the program was taken off, it is put on; where none was named, a new way in is protected as
    /// well. What has changed, for the log. To be called when rtnetlink reports a link or address.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn check_interfaces(&mut self) -> Result<Vec<String>, Error> {
        self.must_be_wanted()?;
        if self.options.lifetime == Lifetime::Detached {
            return Ok(Vec::new());
        }
        let now = Instant::now();
        let scene = Scene::read()?;
        let mut changes = Vec::new();
        if self.options.interfaces.is_empty() {
            changes.extend(self.follow(&scene));
        }
        for at in 0..self.attachments.len() {
            let tended = self.tend(at, &scene, now);
            let Some(Attachment { interface: on, .. }) = self.attachments.get_mut(at) else {
                break;
            };
            match tended {
                Ok(change) => changes.extend(change),
                Err(error) => {
                    let trouble = format!("{}: nothing is dropped: {error}", on.name);
                    if on.trouble.as_ref() != Some(&trouble) {
                        changes.push(trouble.clone());
                    }
                    on.mode = None;
                    on.trouble = Some(trouble);
                }
            }
        }
        self.forget_gone(&scene);
        self.note_uncovered(&scene);
        if self.options.lifetime == Lifetime::Process {
            self.unpin()?;
        } else {
            changes.extend(self.tend_pins(now));
        }
        Ok(changes)
    }

    /// Returns why what is in force would not outlive this process, if that is so.
    #[must_use]
    pub fn pin_trouble(&self) -> Option<&str> {
        self.guard.pin_trouble.as_deref()
    }

    /// Interfaces by which the outside reaches this host, and that run no program.
    #[must_use]
    pub fn uncovered(&self) -> &[String] {
        &self.guard.uncovered
    }

    pub(super) fn note_uncovered(&mut self, scene: &Scene) {
        let sits = |on: &&Attached| on.mode.is_some() && on.ifindex != 0;
        let protected: HashSet<u32> =
            self.interfaces().into_iter().filter(sits).map(|on| on.ifindex).collect();
        self.guard.uncovered = scene.uncovered(&protected, &self.options.unprotected);
    }

    fn wants_tending(&mut self, now: Instant) -> bool {
        let Xdp { attachments, guard, .. } = self;
        if guard.coming.as_ref().is_some_and(|(.., loading)| loading.is_finished()) {
            return true;
        }
        let mut wanted = false;
        for attachment in attachments {
            let (ifindex, troubled) =
                (attachment.interface.ifindex, attachment.interface.trouble.is_some());
            // rtnetlink tells when one that is gone comes back
            if ifindex == 0 && !troubled {
                continue;
            }
            if !troubled && attachment.sits() {
                attachment.interface.backoff.calm(now);
            } else {
                wanted |= attachment.interface.backoff.ready(now);
            }
        }
        wanted
    }

    /// Puts the program on one interface if it does not sit there.
    fn tend(&mut self, at: usize, scene: &Scene, now: Instant) -> Result<Option<String>, Error> {
        let Xdp { attachments, pins, options, maps, .. } = self;
        let Some(attachment) = attachments.get_mut(at) else { return Ok(None) };
        let name = attachment.interface.name.clone();
        let Some(interface) = scene.all.iter().find(|interface| interface.name == name) else {
            let Attachment { interface: on, link, .. } = attachment;
            *link = None;
            on.trouble = None;
            if on.ifindex == 0 {
                return Ok(None);
            }
            on.ifindex = 0;
            on.warnings = vec![format!("{name} is gone")];
            return Ok(Some(format!("{name} is gone")));
        };
        let same = interface.index == attachment.interface.ifindex;
        if same && attachment.sits() {
            attachment.interface.trouble = None;
            return Ok(None);
        }
        // from a device that is new no program has been taken off
        if same && !attachment.interface.backoff.ready(now) {
            return Ok(None);
        }
        attachment.interface.backoff.tried(now);
        let alive = same && attachment.alive(interface).is_some();
        let Attachment { interface: on, program, link } = attachment;
        if let (true, Some(link)) = (alive, &*link) {
            link.update(program.descriptor()?)
                .map_err(|e| Error::call("swap the program", name.clone(), e))?;
            on.trouble = None;
            return Ok(Some(format!(
                "another program ran on {name} in place of ours: ours is back"
            )));
        }
        *link = None;
        // who took the slot meanwhile keeps it
        let options = Options { replace: false, ..options.clone() };
        let done = attach(&options, pins, interface, program)?;
        if let Err(error) = done.undo.pin() {
            // it drops all the same; the next look at the pins says what is wrong with them
            log::debug!("{error}");
        }
        maps.controls.claim(on.slot, interface.index);
        let fresh = on.ifindex == 0 && on.warnings.is_empty();
        on.put(interface, done.mode, done.warning);
        *link = Some(done.undo.into_link());
        Ok(Some(if same {
            format!("the program had been taken off {name}: it is back")
        } else if fresh {
            format!("{name} leads to the outside: it is protected as well")
        } else {
            format!("{name} has come back and is protected")
        }))
    }

    /// Has a program loaded for a way in that is new, beside the caller: the verifier takes its
    /// time.
    fn follow(&mut self, scene: &Scene) -> Option<String> {
        if let Some((.., loading)) = &self.guard.coming
            && !loading.is_finished()
        {
            return None;
        }
        let mut failed = None;
        if let Some((name, slot, loading)) = self.guard.coming.take() {
            match loading.join() {
                Ok(Ok(program)) => {
                    let on = Attached::missing(name, slot);
                    self.attachments.push(Attachment::loose(on, program));
                }
                Ok(Err(error)) => failed = Some(format!("{name}: {error}")),
                Err(_) => failed = Some(format!("{name}: the loader has panicked")),
            }
        }
        // empty maps must not be made where ours are missing
        if self.guard.pin_trouble.is_some() || self.attachments.len() + 1 >= SLOTS as usize {
            return failed;
        }
        let known = |name: &str| self.interfaces().iter().any(|on| on.name == name);
        let fresh = scene
            .entries(&self.options.unprotected)
            .into_iter()
            .find(|(interface, _)| !known(&interface.name) && interface.framing().is_some());
        if let Some((interface, _)) = fresh {
            let alive = |index| self.interfaces().iter().any(|on| on.ifindex == index);
            let slot = self.maps.controls.slot(interface.index, alive)?;
            let (folder, max_bans) = (self.pins.maps(), self.options.max_bans);
            let framing = interface.framing()?;
            let load = move || {
                let mut program = Loaded::new(&folder, max_bans, slot)?.framed(framing);
                program.program()?;
                Ok(program)
            };
            match thread::Builder::new().name("load".to_owned()).spawn(load) {
                Ok(loading) => self.guard.coming = Some((interface.name, slot, loading)),
                Err(error) => failed = Some(format!("{}: {error}", interface.name)),
            }
        }
        failed
    }

    /// Where none was named, one that is gone is waited for only if it was the last: tunnels come
    /// under new names.
    fn forget_gone(&mut self, scene: &Scene) {
        if !self.options.interfaces.is_empty() {
            return;
        }
        let gone = |on: &Attached| !scene.all.iter().any(|interface| interface.name == on.name);
        let mut at = 0;
        while let Some(attachment) = self.attachments.get(at) {
            let others = self.interfaces().iter().any(|on| on.ifindex != 0);
            if gone(&attachment.interface) && others {
                self.attachments.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Puts pins back that are gone, or are not ours.
    fn tend_pins(&mut self, now: Instant) -> Option<String> {
        let unchanged = self.guard.seal.is_some() && self.guard.seal == self.pins.seal();
        if unchanged && !self.guard.looks.is_multiple_of(EVERY) {
            self.guard.pin_backoff.calm(now);
            return None;
        }
        if !self.guard.pin_backoff.ready(now) {
            return None;
        }
        match self.mend_pins() {
            Ok(mended) => {
                let troubled = self.guard.pin_trouble.take().is_some();
                self.guard.seal = self.pins.seal();
                if mended > 0 {
                    self.guard.pin_backoff.tried(now);
                }
                let folder = self.pins.maps().display().to_string();
                (mended > 0 || troubled)
                    .then(|| format!("pins in {folder} were gone: they are back"))
            }
            Err(error) => {
                self.guard.pin_backoff.tried(now);
                self.guard.seal = None;
                let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
                let trouble = format!(
                    "the pins are gone, bans hold only as long as this process lives: {error}{hint}"
                );
                let new = self.guard.pin_trouble.as_ref() != Some(&trouble);
                self.guard.pin_trouble = Some(trouble.clone());
                new.then_some(trouble)
            }
        }
    }

    fn mend_pins(&mut self) -> Result<usize, Error> {
        self.pins.restore()?;
        let folder = self.pins.maps();
        let mut mended = 0;
        for name in PINNED {
            let map = self.probe.map(name)?;
            let path = folder.join(name);
            let id = |map: &MapData| map.info().ok().map(|info| info.id());
            let there = MapData::from_pin(&path).ok();
            if there.is_some_and(|there| id(&there).is_some() && id(&there) == id(map)) {
                continue;
            }
            remove(&path)?;
            link::pin(map.fd(), &path)
                .map_err(|e| Error::call("pin", path.display().to_string(), e))?;
            mended += 1;
        }
        if self.options.lifetime != Lifetime::Pinned {
            return Ok(mended);
        }
        for Attachment { interface: on, link, .. } in &self.attachments {
            let (name, Some(link)) = (&on.name, link) else { continue };
            let failed = |e| Error::call("pin the link of", name.clone(), e);
            let info = link.info().map_err(failed)?;
            // one that is dead is put back first
            if info.ifindex == 0 {
                continue;
            }
            let path = self.pins.link(name);
            let there = Link::open(&path).ok().flatten().and_then(|there| there.info().ok());
            if there.is_some_and(|there| there.id == info.id) {
                continue;
            }
            remove(&path)?;
            link.pin(&path).map_err(failed)?;
            mended += 1;
        }
        Ok(mended)
    }
}

/// Removes what is there, if anything is.
fn remove(path: &std::path::Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::call("remove", path.display().to_string(), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_off_again_and_again_is_put_back_more_and_more_rarely() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut backoff = Backoff::default();
        let mut tries = Vec::new();
        for second in 0..300 {
            if backoff.ready(at(second)) {
                tries.push(second);
                backoff.tried(at(second));
            }
            backoff.calm(at(second));
        }
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        backoff.calm(at(363));
        assert_ne!(
            backoff,
            Backoff::default(),
            "quiet for a minute since it might have been tried"
        );
        backoff.calm(at(364));
        assert_eq!(backoff, Backoff::default());
    }
}
