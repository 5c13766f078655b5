//! The program's settings, in memory that it reads directly.

use std::mem::offset_of;

use ban_common::{SLOTS, Settings};

use super::{clock::JiffyClock, error::Error, load::Loaded, mapped::Mapped, raw::Cells};

/// How many prefixes there are of each kind that costs the program a lookup.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PrefixCounts {
    /// IPv4 prefixes.
    pub(super) nets_v4: u32,
    /// IPv6 prefixes that are no sites.
    pub(super) nets_v6: u32,
    /// Those of them that the gate does not know.
    pub(super) wide_v6: u32,
    /// Sites by length.
    pub(super) sites: [u32; 3],
}

/// The one entry of the map `settings`.
#[derive(Debug)]
pub(super) struct Controls<C = Mapped>(pub(super) C);

impl Controls {
    /// Maps the settings that `loaded` reads.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn new(loaded: &Loaded) -> Result<Controls, Error> {
        Ok(Controls(Mapped::new("settings", loaded.map("settings")?, (size_of::<Settings>(), 1))?))
    }
}

impl<C: Cells> Controls<C> {
    fn write_u32(&self, offset: usize, value: u32) {
        let index = offset / 8;
        let shift = if offset.is_multiple_of(8) == cfg!(target_endian = "little") { 0 } else { 32 };
        let old = self.0.get(index);
        self.0.set(index, old & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift);
    }

    fn read_u32(&self, offset: usize) -> u32 {
        let shift = if offset.is_multiple_of(8) == cfg!(target_endian = "little") { 0 } else { 32 };
        u32::try_from((self.0.get(offset / 8) >> shift) & u64::from(u32::MAX)).unwrap_or(0)
    }

    /// Counts without dropping, or drops.
    pub(super) fn dry_run(&self, on: bool) {
        self.write_u32(offset_of!(Settings, dry_run), on.into());
    }

    /// Returns whether it only counts.
    #[must_use]
    pub(super) fn is_dry_run(&self) -> bool {
        self.read_u32(offset_of!(Settings, dry_run)) != 0
    }

    /// Reports one drop in about so many, a power of two being exact; 0: none.
    pub(super) fn sample(&self, every: u32) {
        let mask = match every {
            0 => u32::MAX,
            every => every.checked_next_power_of_two().map_or(u32::MAX >> 1, |power| power - 1),
        };
        self.write_u32(offset_of!(Settings, sample_mask), mask);
    }

    /// How many prefixes the tries hold, and the site hash by length.
    pub(super) fn counts(&self, counts: &PrefixCounts) {
        self.write_u32(offset_of!(Settings, nets_v4), counts.nets_v4);
        self.write_u32(offset_of!(Settings, nets_v6), counts.nets_v6);
        self.write_u32(offset_of!(Settings, wide_v6), counts.wide_v6);
        for (index, count) in counts.sites.into_iter().enumerate() {
            self.write_u32(offset_of!(Settings, sites) + index * 4, count);
        }
    }

    /// How many bans name ports.
    pub(super) fn scoped(&self, bans: u32) {
        self.write_u32(offset_of!(Settings, scoped), bans);
    }

    /// How many prefixes the allow list holds.
    pub(super) fn allowed(&self, v4: u32, v6: u32) {
        self.write_u32(offset_of!(Settings, allow_v4), v4);
        self.write_u32(offset_of!(Settings, allow_v6), v6);
    }

    /// At most so many prefixes does the allow list hold.
    #[must_use]
    pub(super) fn known_allowed(&self) -> (u32, u32) {
        let read = |offset| self.read_u32(offset);
        (read(offset_of!(Settings, allow_v4)), read(offset_of!(Settings, allow_v6)))
    }

    /// Notes how deadlines are to be read.
    pub(super) fn clock(&self, clock: &JiffyClock) {
        self.0.set(offset_of!(Settings, boot_ns) / 8, clock.boot_ns);
        self.0.set(offset_of!(Settings, jiffies) / 8, clock.jiffies);
    }

    /// Returns how deadlines that are there were written; `None` in a fresh map.
    #[must_use]
    pub(super) fn noted_clock(&self, now: &JiffyClock) -> Option<JiffyClock> {
        let boot_ns = self.0.get(offset_of!(Settings, boot_ns) / 8);
        let jiffies = self.0.get(offset_of!(Settings, jiffies) / 8);
        (boot_ns != 0).then_some(JiffyClock { boot_ns, jiffies, ..*now })
    }

    /// Returns the slot of an interface (0 is for test runs): its own, or a free one, or one of an
    /// interface that is gone.
    #[must_use]
    pub(super) fn slot(&self, ifindex: u32, alive: impl Fn(u32) -> bool) -> Option<u32> {
        let holder = |slot: &u32| self.read_u32(slot_offset(*slot));
        let found = (1..SLOTS).find(|slot| holder(slot) == ifindex);
        let slot = found
            .or_else(|| (1..SLOTS).find(|slot| holder(slot) == 0))
            .or_else(|| (1..SLOTS).find(|slot| !alive(holder(slot))))?;
        self.write_u32(slot_offset(slot), ifindex);
        Some(slot)
    }

    /// The slot counts for this interface from now on.
    pub(super) fn claim(&self, slot: u32, ifindex: u32) {
        self.write_u32(slot_offset(slot), ifindex);
    }
}

fn slot_offset(slot: u32) -> usize {
    offset_of!(Settings, slots) + slot as usize * 4
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const WORDS: usize = size_of::<Settings>() / 8;

    impl Cells for RefCell<[u64; WORDS]> {
        fn get(&self, index: usize) -> u64 {
            self.borrow()[index]
        }

        fn set(&self, index: usize, value: u64) {
            self.borrow_mut()[index] = value;
        }
    }

    fn controls() -> Controls<RefCell<[u64; WORDS]>> {
        Controls(RefCell::new([0; WORDS]))
    }

    /// Returns the value of a field, as the program reads it.
    fn field(controls: &Controls<RefCell<[u64; WORDS]>>, offset: usize) -> u32 {
        let bytes: Vec<u8> =
            controls.0.borrow().iter().flat_map(|word| word.to_ne_bytes()).collect();
        u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    #[test]
    fn two_fields_of_one_word_leave_each_other_alone() {
        let controls = controls();
        controls.sample(1024);
        controls.dry_run(true);
        assert!(controls.is_dry_run());
        assert_eq!(field(&controls, offset_of!(Settings, sample_mask)), 1023);
        controls.dry_run(false);
        assert_eq!(field(&controls, offset_of!(Settings, dry_run)), 0);
        assert_eq!(field(&controls, offset_of!(Settings, sample_mask)), 1023);
        controls.allowed(3, 7);
        assert_eq!(controls.known_allowed(), (3, 7));
        controls.counts(&PrefixCounts { nets_v4: 1, nets_v6: 2, wide_v6: 3, sites: [4, 5, 6] });
        let first = offset_of!(Settings, nets_v4);
        let read: Vec<u32> = (0..6).map(|at| field(&controls, first + 4 * at)).collect();
        assert_eq!(read, [1, 2, 3, 4, 5, 6]);
        assert_eq!(controls.known_allowed(), (3, 7));
    }

    #[test]
    fn a_sampling_rate_becomes_the_next_power_of_two() {
        for (every, mask) in
            [(0, u32::MAX), (1, 0), (2, 1), (1000, 1023), (u32::MAX, u32::MAX >> 1)]
        {
            let controls = controls();
            controls.sample(every);
            assert_eq!(field(&controls, offset_of!(Settings, sample_mask)), mask, "{every}");
        }
    }

    #[test]
    fn an_interface_keeps_its_slot_and_takes_one_of_the_gone_when_none_is_free() {
        let controls = controls();
        for ifindex in 1..SLOTS {
            assert_eq!(controls.slot(100 + ifindex, |_| true), Some(ifindex));
        }
        assert_eq!(controls.slot(105, |_| true), Some(5), "its own");
        assert_eq!(controls.slot(999, |_| true), None, "all are taken");
        assert_eq!(controls.slot(999, |index| index != 107), Some(7), "the interface is gone");
        assert_eq!(controls.slot(999, |_| true), Some(7));
        controls.claim(7, 107);
        assert_eq!(controls.slot(107, |_| true), Some(7));
    }

    #[test]
    fn only_maps_that_were_used_know_a_clock() {
        let controls = controls();
        let now = JiffyClock { tick_ns: 4_000_000, jiffies: 6, boot_ns: 5, slept_ns: 0 };
        assert_eq!(controls.noted_clock(&now), None);
        controls.clock(&JiffyClock { boot_ns: 1 << 40, jiffies: 77, ..now });
        let noted = controls.noted_clock(&now).unwrap();
        assert_eq!((noted.boot_ns, noted.jiffies), (1 << 40, 77));
    }
}
