//! The start: the program is loaded over the pinned maps and put on the interfaces, on all or on none.
//! Where an earlier agent's program runs, it is swapped without a gap.

use ban_common::SLOTS;

use super::{
    attach::{Undo, attach},
    attachment::{Attached, Attachment},
    clock::JiffyClock,
    error::Error,
    guard::Guard,
    lifetime::Lifetime,
    link::Link,
    load::Loaded,
    maps::Maps,
    pins::Pinned,
    plane::DataPlane as _,
    resize::resize,
    select::{Choice, Chosen, Scene, choose},
    xdp::{Options, Xdp},
};

/// The maps, the copy of the program for test runs, and what is attached.
type Started = (Maps, Loaded, Vec<Attachment>);

impl Xdp {
    /// Loads the program over the pinned maps and puts it on the interfaces; where an earlier
    /// agent's program runs, it is swapped without a gap.
    ///
    /// # Errors
    /// If anything fails; then everything is as it was before.
    pub fn start(options: Options) -> Result<Xdp, Error> {
        let scene = Scene::read()?;
        let chosen = choose(&options, &scene)?;
        let mut xdp = Xdp::start_on(options, chosen)?;
        xdp.note_uncovered(&scene);
        Ok(xdp)
    }

    /// As [`Xdp::start`], on no interface: for `BPF_PROG_TEST_RUN`.
    ///
    /// # Errors
    /// If anything fails; then everything is as it was before.
    pub fn load(options: Options) -> Result<Xdp, Error> {
        Xdp::start_on(options, Chosen::default())
    }

    fn start_on(options: Options, chosen: Chosen) -> Result<Xdp, Error> {
        let pins = Pinned::open(&options.pins)?;
        match Xdp::attach_all(&options, &pins, chosen) {
            Ok((maps, probe, attachments)) => {
                let guard = Guard::default();
                let xdp = Xdp { options, pins, maps, probe, attachments, guard };
                xdp.release_others()?;
                if xdp.options.lifetime == Lifetime::Process {
                    xdp.unpin()?;
                }
                Ok(xdp)
            }
            Err(error) => {
                if let Err(left) = pins.undo() {
                    log::warn!("pins are left over: {left}");
                }
                Err(error)
            }
        }
    }

    fn attach_all(options: &Options, pins: &Pinned, chosen: Chosen) -> Result<Started, Error> {
        let Chosen { found: mut interfaces, missing, lenient } = chosen;
        pins.check_versions()?;
        let folder = pins.maps();
        let late = resize(&folder, options.max_bans)?;
        if late.is_some() {
            log::info!("the ban maps now hold {} bans per family", options.max_bans);
        }
        let mut first = Loaded::new(folder.as_path(), options.max_bans, 0)?;
        let clock = JiffyClock::measure(first.clock()?)?;
        let mut maps = Maps::new(&first, clock)?;
        maps.controls.dry_run(options.dry_run);
        maps.controls.sample(options.sample_every);
        if lenient {
            interfaces.truncate(SLOTS as usize - 1);
        }
        let present: Vec<u32> = interfaces.iter().map(|(found, _)| found.index).collect();
        let alive = |index| present.contains(&index);
        let count = interfaces.len() + missing.len();
        let slot = |index| {
            let slot = maps.controls.slot(index, alive);
            slot.ok_or(Error::TooManyInterfaces { count, limit: SLOTS })
        };
        let mut attachments = Vec::with_capacity(count);
        for (interface, _) in &interfaces {
            let slot = slot(interface.index)?;
            let mut program = Loaded::new(folder.as_path(), options.max_bans, slot)?;
            if let Some(framing) = interface.framing() {
                program.frame(framing);
                program.program()?;
            }
            let on = Attached::missing(interface.name.clone(), slot);
            attachments.push(Attachment::loose(on, program));
        }
        put_on(options, pins, interfaces.into_iter().zip(&mut attachments), lenient)?;
        for (number, name) in (0..).zip(missing) {
            // no interface has such an index
            let slot = slot(1 << 31 | number)?;
            let warnings = vec![format!("{name} is missing")];
            let on = Attached { warnings, ..Attached::missing(name, slot) };
            let program = Loaded::new(folder.as_path(), options.max_bans, slot)?;
            attachments.push(Attachment::loose(on, program));
        }
        if let Some(late) = late {
            late.carry(&mut maps);
        }
        Ok((maps, first, attachments))
    }

    /// Takes the program off interfaces that an earlier agent protected and we do not.
    fn release_others(&self) -> Result<(), Error> {
        for name in self.pins.linked()? {
            let ours = |on: &&Attached| on.name == name && on.mode.is_some();
            if self.interfaces().iter().any(ours) {
                continue;
            }
            let pin = self.pins.link(&name);
            let failed = |e| Error::call("detach", name.clone(), e);
            if let Some(link) = Link::open(&pin).map_err(failed)? {
                // Fails only where the interface itself is gone.
                drop(link.detach());
            }
            std::fs::remove_file(&pin).map_err(failed)?;
            log::info!("released {name}, which is not configured any more");
        }
        Ok(())
    }
}

/// Puts each program on its interface, or none.
///
/// # Errors
/// The first failure; if `lenient` only one that all share.
fn put_on<'a>(
    options: &Options,
    pins: &Pinned,
    all: impl Iterator<Item = (Choice, &'a mut Attachment)>,
    lenient: bool,
) -> Result<(), Error> {
    let mut done: Vec<(&mut Attachment, Undo)> = Vec::new();
    let mut failed = None;
    for ((interface, mut warnings), attachment) in all {
        let Attachment { interface: on, program, .. } = &mut *attachment;
        if options.lifetime == Lifetime::Detached {
            (on.ifindex, on.warnings) = (interface.index, warnings);
            continue;
        }
        let put =
            attach(options, pins, &interface, program).and_then(|put| put.undo.pin().map(|()| put));
        match put {
            Ok(put) => {
                warnings.extend(put.warning);
                on.put(&interface, put.mode, None);
                on.warnings = warnings;
                done.push((attachment, put.undo));
            }
            Err(error) if lenient => {
                on.ifindex = interface.index;
                on.trouble = Some(format!("{}: nothing is dropped: {error}", interface.name));
                failed = failed.or(Some(error));
            }
            Err(error) => {
                done.into_iter().rev().for_each(|(_, undo)| undo.run());
                return Err(error);
            }
        }
    }
    match failed {
        Some(error) if done.is_empty() => Err(error),
        _ => {
            for (attachment, undo) in done {
                attachment.link = Some(undo.into_link());
            }
            Ok(())
        }
    }
}
