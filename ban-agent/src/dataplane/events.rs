//! The sampled drops that the program hands over in a ring buffer.

use std::{
    fmt,
    os::fd::{AsRawFd, RawFd},
    path::Path,
};

use aya::maps::{Map, MapData, RingBuf};
use ban_common::{Event, Verdict};

use super::{Dropped, error::Error};

/// Sampled drops, as they come. The descriptor is readable when there are some.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    /// Those of the ring pinned in `folder`. Each is handed out once.
    ///
    /// # Errors
    /// If the ring cannot be mapped.
    pub(super) fn open(folder: &Path) -> Result<Events, Error> {
        let failed = |source| Error::Map { name: "events", source: Box::new(source) };
        let map = MapData::from_pin(folder.join("events")).map_err(failed)?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(failed)?;
        Ok(Events { ring })
    }
}

impl Iterator for Events {
    type Item = Dropped;

    /// Returns the next one, if there is one now.
    fn next(&mut self) -> Option<Dropped> {
        let item = self.ring.next()?;
        let bytes: &[u8; size_of::<Event>()] = item.first_chunk()?;
        // SAFETY: Event is repr(C), integers only, without padding (asserted where it is
        // defined); the array has its size, and transmute_copy reads unaligned.
        let event: Event = unsafe { std::mem::transmute_copy(bytes) };
        Some(event.into())
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl From<Event> for Dropped {
    fn from(event: Event) -> Dropped {
        let address = if event.family == 6 {
            event.address.into()
        } else {
            let [a, b, c, d, ..] = event.address;
            [a, b, c, d].into()
        };
        let target = u8::try_from(event.protocol).ok().zip(u16::try_from(event.port).ok());
        Dropped {
            address,
            ifindex: event.ifindex,
            length: event.length,
            target: target.filter(|(protocol, _)| *protocol != 0),
            dry_run: event.verdict == Verdict::DryRun as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_is_written() {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[192, 0, 2, 1]);
        let event = Event {
            family: 4,
            address,
            ifindex: 3,
            length: 60,
            protocol: 6,
            port: 22,
            verdict: Verdict::DryRun as u32,
        };
        let dropped = Dropped::from(event);
        assert_eq!(dropped.address.to_string(), "192.0.2.1");
        assert_eq!((dropped.target, dropped.dry_run), (Some((6, 22)), true));
        let fragment = Event { family: 6, protocol: 0, verdict: Verdict::Drop as u32, ..event };
        let dropped = Dropped::from(fragment);
        assert_eq!(dropped.address.to_string(), "c000:201::");
        assert_eq!((dropped.target, dropped.dry_run), (None, false));
    }
}
