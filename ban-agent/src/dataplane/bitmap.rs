//! The words of a gate: a few by system calls, many through a mapping that is there only
//! meanwhile. A mapping counts as our memory, all 2 MiB of it, however little is touched.

use aya::maps::{Array, Map, MapData};

use super::{error::Error, gates::Bitmap, mapped::Mapped};

/// From so many words on a mapping is cheaper than a call for each.
const MANY: usize = 256;

/// A gate's map.
pub(super) struct GateBitmap {
    name: &'static str,
    layout: (usize, usize),
    map: MapData,
    array: Array<MapData, u64>,
    mapped: Option<Mapped>,
}

impl GateBitmap {
    /// Returns the words of `map`, an array of `layout` values.
    ///
    /// # Errors
    /// If it is another array, or the kernel refuses.
    pub(super) fn new(
        name: &'static str,
        map: &MapData,
        layout: (usize, usize),
    ) -> Result<GateBitmap, Error> {
        let array = Array::try_from(Map::Array(duplicate(name, map)?))
            .map_err(|source| Error::Map { name, source: Box::new(source) })?;
        let map = duplicate(name, map)?;
        let mapped = Some(Mapped::new(name, &map, layout)?);
        Ok(GateBitmap { name, layout, map, array, mapped })
    }

    /// Maps it, for much work or because a call has failed; without a mapping calls will do.
    fn map(&mut self) {
        if self.mapped.is_none() {
            let mapped = Mapped::new(self.name, &self.map, self.layout);
            self.mapped = mapped.inspect_err(|error| log::warn!("{error}")).ok();
        }
    }
}

impl Bitmap for GateBitmap {
    fn get(&mut self, index: usize) -> u64 {
        if let Some(mapped) = &self.mapped {
            return mapped.get(index);
        }
        let at = u32::try_from(index).unwrap_or(u32::MAX);
        self.array.get(&at, 0).unwrap_or_else(|error| {
            log::debug!("{}: {error}", self.name);
            self.map();
            self.mapped.as_ref().map_or(0, |mapped| mapped.get(index))
        })
    }

    fn set(&mut self, index: usize, value: u64) {
        if let Some(mapped) = &self.mapped {
            return mapped.set(index, value);
        }
        let at = u32::try_from(index).unwrap_or(u32::MAX);
        if let Err(error) = self.array.set(at, value, 0) {
            self.map();
            match &self.mapped {
                Some(mapped) => mapped.set(index, value),
                None => log::error!("a ban may not be enforced: {}: {error}", self.name),
            }
        }
    }

    fn prepare(&mut self, count: usize) {
        if count >= MANY {
            self.map();
        }
    }

    fn rest(&mut self) {
        self.mapped = None;
    }
}

/// Returns the same map by a descriptor of its own: to open it by its id takes `CAP_SYS_ADMIN`.
pub(super) fn duplicate(name: &'static str, map: &MapData) -> Result<MapData, Error> {
    let copy = std::os::fd::AsFd::as_fd(map.fd()).try_clone_to_owned();
    let copy = copy.map_err(|e| Error::call("dup", name, e))?;
    MapData::from_fd(copy).map_err(|source| Error::Map { name, source: Box::new(source) })
}
