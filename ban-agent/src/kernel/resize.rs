//! Another size for the ban maps, without a gap: new maps are made and filled beside the old
//! ones, then take their pins. The running program keeps the old maps until it is swapped, and
//! both hold the same bans, so a crash at any point loses none.

use std::{fs, path::Path};

use aya::maps::MapData;

use super::{
    error::Error,
    load::{Loaded, SIZED, entries},
    tables::{Entries, Tables},
};

/// Makes the maps pinned in `folder` hold `max_bans`; `false` if they do already, or if there
/// are none, or more bans than that.
///
/// # Errors
/// If the kernel refuses; the pins are as they were then.
pub(super) fn resize(folder: &Path, max_bans: u32) -> Result<bool, Error> {
    let next = folder.join("next");
    let failed = |call| {
        let next = next.display().to_string();
        move |e| Error::call(call, next, e)
    };
    if next.exists() {
        // Left over from a crash: not in use, the pins beside it are.
        fs::remove_dir_all(&next).map_err(failed("remove"))?;
    }
    let fits = |name: &&str| {
        let size = size(&folder.join(name));
        size.is_none_or(|size| size == entries(name, max_bans))
    };
    if SIZED.iter().all(fits) {
        return Ok(false);
    }
    let mut old = Tables::new(&Loaded::new(folder, max_bans, 0)?)?;
    let all = old.all()?;
    if old.largest() > max_bans as usize {
        log::warn!(
            "max_bans = {max_bans} is less than the {} bans that are held: the maps keep their size",
            old.largest()
        );
        return Ok(false);
    }
    fs::create_dir(&next).map_err(failed("mkdir"))?;
    let made = fill(folder, &next, max_bans, all);
    if made.is_err() {
        drop(fs::remove_dir_all(&next));
    }
    made?;
    for name in SIZED {
        fs::rename(next.join(name), folder.join(name)).map_err(failed("rename"))?;
    }
    fs::remove_dir(&next).map_err(failed("rmdir"))?;
    Ok(true)
}

fn fill(
    folder: &Path,
    next: &Path,
    max_bans: u32,
    all: Vec<(super::tables::Key, ban_common::Ban)>,
) -> Result<(), Error> {
    let pin = |name: &str| {
        if SIZED.contains(&name) { next.join(name) } else { folder.join(name) }
    };
    let mut new = Tables::new(&Loaded::over(pin, max_bans, 0)?)?;
    let mut entries = Entries::default();
    all.into_iter().for_each(|(key, ban)| entries.push(key, ban));
    new.set(&entries, |_| {})
}

fn size(pin: &Path) -> Option<u32> {
    MapData::from_pin(pin).ok()?.info().ok().map(|info| info.max_entries())
}
