//! Another size for the ban maps, without a gap: new maps are made and filled beside the old
//! ones, then take their pins. The running program keeps the old maps until it is swapped, and
//! both hold the same bans, so a crash at any point loses none.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapData;
use ban_common::Ban;
use foldhash::HashMap as Map;

use super::{
    Hits, Xdp,
    attachment::Attached,
    batch::Table,
    clock::JiffyClock,
    error::Error,
    load::{Loaded, SIZED, entries},
    maps::Maps,
    raw::MapKey,
    tables::{AllowV4, Entries, Key, LpmV6, Tables},
};

impl Xdp {
    /// Makes the maps hold `max_bans` while the program runs: copies of it over new maps are
    /// loaded, the maps are filled, then each copy is swapped in under its interface's link.
    /// `false` if they hold that many already, or more bans than that are there.
    ///
    /// # Errors
    /// If the kernel refuses; the old maps stay in use then, on all interfaces.
    pub fn resize(&mut self, max_bans: u32) -> Result<bool, Error> {
        let folder = self.pins.maps();
        let Some((next, old)) = Next::make(&folder, max_bans)? else { return Ok(false) };
        let load = |slot| Loaded::over(|name| next.pin(name), max_bans, slot);
        let mut probe = load(0)?;
        let clock = JiffyClock::measure(probe.clock()?)?;
        let mut steps = Vec::with_capacity(self.attachments.len());
        for attachment in &mut self.attachments {
            let Attached { slot, framing, .. } = attachment.interface;
            let mut program = load(slot)?.framed(framing);
            program.program()?;
            steps.push((attachment, program));
        }
        let late = next.fill(old)?;
        let maps = Maps::new(&probe, clock)?;
        all_or_none(
            &mut steps,
            |(attachment, program)| attachment.run(program),
            |(attachment, _)| attachment.run_own(),
        )?;
        next.take_over().inspect_err(|_| {
            // the pins are the old maps' still
            take_back(&mut steps, |(attachment, _)| attachment.run_own());
        })?;
        for (attachment, program) in steps {
            attachment.program = program;
        }
        self.probe = probe;
        self.maps = maps;
        self.options.max_bans = max_bans;
        late.carry(&mut self.maps);
        Ok(true)
    }
}

/// Does `step` to each, or to none: what was done before a failure is taken `back`.
pub(super) fn all_or_none<T>(
    of: &mut [T],
    mut step: impl FnMut(&mut T) -> Result<(), Error>,
    back: impl FnMut(&mut T) -> Result<(), Error>,
) -> Result<(), Error> {
    for at in 0..of.len() {
        let failed = of.get_mut(at).and_then(|one| step(one).err());
        if let Some(error) = failed {
            take_back(of.get_mut(..at).unwrap_or_default(), back);
            return Err(error);
        }
    }
    Ok(())
}

fn take_back<T>(of: &mut [T], mut back: impl FnMut(&mut T) -> Result<(), Error>) {
    for one in of.iter_mut().rev() {
        if let Err(error) = back(one) {
            log::error!("an interface keeps maps that are no longer written: {error}");
        }
    }
}

/// Makes the maps pinned in `folder` hold `max_bans`, before any program of ours uses them. What
/// is to be carried over once none uses the old ones; `None` if they hold that many already, or if
/// there are none, or more bans than that.
///
/// # Errors
/// If the kernel refuses; the pins are as they were then.
pub(super) fn resize(folder: &Path, max_bans: u32) -> Result<Option<Late>, Error> {
    let Some((next, old)) = Next::make(folder, max_bans)? else { return Ok(None) };
    let late = next.fill(old)?;
    next.take_over()?;
    Ok(Some(late))
}

/// What the old maps count after they were copied, while a program still runs on them.
pub(super) struct Late {
    old: Tables,
    /// What they had counted when they were copied; nothing where a key is missing.
    copied: Map<Key, Hits>,
}

impl Late {
    /// Adds it to what the new maps count. That this fails is no reason to give them up.
    pub(super) fn carry(self, maps: &mut Maps) {
        if let Err(error) = self.add(maps) {
            log::warn!("some counts of the old maps are lost: {error}");
        }
    }

    fn add(mut self, maps: &mut Maps) -> Result<(), Error> {
        let mut late = Vec::new();
        let each = |key, ban: Ban| {
            let copied = self.copied.get(&key).copied().unwrap_or_default();
            let packets = ban.packets.saturating_sub(copied.packets);
            if packets > 0 {
                let bytes = ban.bytes.saturating_sub(copied.bytes);
                late.push((key, Hits { packets, bytes }));
            }
        };
        self.old.each(each, |_| {})?;
        late.into_iter().try_for_each(|(key, hits)| maps.count(key, hits))
    }
}

/// The maps of the other size, pinned in a folder `next` beside the old ones. It goes, and they
/// with it, when this is dropped before they have taken over.
struct Next {
    folder: PathBuf,
    max_bans: u32,
}

impl Next {
    /// Empty maps, and the old ones, unless those in `folder` will do.
    fn make(folder: &Path, max_bans: u32) -> Result<Option<(Next, Tables)>, Error> {
        let fits = |name: &&str| {
            let size = size(&folder.join(name));
            size.is_none_or(|size| size == entries(name, max_bans))
        };
        let path = folder.join("next");
        if path.exists() {
            // Left over from a crash: not in use, the pins beside it are.
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        if SIZED.iter().all(fits) {
            return Ok(None);
        }
        let mut old = Tables::new(&Loaded::new(folder, max_bans, 0)?)?;
        old.each(|_, _| {}, |_| {})?;
        if old.largest() > max_bans as usize {
            log::warn!(
                "max_bans = {max_bans} is less than the {} bans that are held: the maps keep \
                 their size",
                old.largest()
            );
            return Ok(None);
        }
        fs::create_dir(&path).map_err(failed("mkdir", &path))?;
        Ok(Some((Next { folder: folder.to_owned(), max_bans }, old)))
    }

    fn path(&self) -> PathBuf {
        self.folder.join("next")
    }

    /// Returns where the map `name` of the new set is pinned: those without a size are shared.
    fn pin(&self, name: &str) -> PathBuf {
        if SIZED.contains(&name) { self.path().join(name) } else { self.folder.join(name) }
    }

    /// Copies every ban.
    fn fill(&self, mut old: Tables) -> Result<Late, Error> {
        let loaded = Loaded::over(|name| self.pin(name), self.max_bans, 0)?;
        self.copy_allowed::<AllowV4>("allow_v4", &loaded)?;
        self.copy_allowed::<LpmV6>("allow_v6", &loaded)?;
        let mut new = Tables::new(&loaded)?;
        let mut entries = Entries::default();
        let mut copied = Map::default();
        let copy = |key, ban: Ban| {
            if ban.packets > 0 {
                copied.insert(key, Hits { packets: ban.packets, bytes: ban.bytes });
            }
            entries.push(key, ban);
        };
        old.each(copy, |_| {})?;
        new.set(&entries, |_, _, _| {})?;
        Ok(Late { old, copied })
    }

    /// Who is allowed stays so.
    fn copy_allowed<K: MapKey>(&self, name: &'static str, new: &Loaded) -> Result<(), Error> {
        let old = MapData::from_pin(self.folder.join(name));
        let old = old.map_err(|source| Error::Map { name, source: Box::new(source) })?;
        let all = Table::<K, u32>::new(name, &old)?.all()?;
        let (keys, values): (Vec<K>, Vec<u32>) = all.into_iter().unzip();
        Table::new(name, new.map(name)?)?.set_all(&keys, &values)
    }

    /// Moves the pins over the old ones; all of them, or none.
    fn take_over(self) -> Result<(), Error> {
        let open = |name| {
            let pin = self.folder.join(name);
            let map = MapData::from_pin(&pin);
            map.map_err(|source| Error::Map { name, source: Box::new(source) })
        };
        let mut old = SIZED.map(|name| (name, open(name)));
        all_or_none(
            &mut old,
            |(name, old)| {
                if let Err(error) = old {
                    // nothing to come back to, and so nothing to replace
                    return Err(std::mem::replace(error, Error::Missing { name }));
                }
                let pin = self.pin(name);
                fs::rename(&pin, self.folder.join(*name)).map_err(failed("rename", &pin))
            },
            |(name, old)| {
                let Ok(old) = old else { return Ok(()) };
                let pin = self.pin(name);
                let pinned = old.pin(&pin);
                pinned.map_err(|e| Error::call("pin", *name, io::Error::other(e)))?;
                fs::rename(&pin, self.folder.join(*name)).map_err(failed("rename", &pin))
            },
        )
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(self.path()) {
            log::warn!("{} is left over: {error}", self.path().display());
        }
    }
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |e| Error::call(call, path, e)
}

fn size(pin: &Path) -> Option<u32> {
    MapData::from_pin(pin).ok()?.info().ok().map(|info| info.max_entries())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Error {
        Error::Missing { name: "test" }
    }

    #[test]
    fn a_step_that_fails_takes_back_those_before_it_the_last_first() {
        for fails_at in 0..4 {
            let (mut done, mut back) = (Vec::new(), Vec::new());
            let result = all_or_none(
                &mut [0, 1, 2],
                |one| {
                    done.push(*one);
                    if *one == fails_at { Err(refusal()) } else { Ok(()) }
                },
                |one| {
                    back.push(*one);
                    // one that cannot be taken back keeps no other from it
                    Err(refusal())
                },
            );
            assert_eq!(result.is_ok(), fails_at == 3);
            assert_eq!(done, (0..=fails_at.min(2)).collect::<Vec<_>>());
            let expected: Vec<i32> =
                if fails_at == 3 { Vec::new() } else { (0..fails_at).rev().collect() };
            assert_eq!(back, expected, "{fails_at}");
        }
    }
}
