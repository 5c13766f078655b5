//! What the engine knows of the data plane: [`Xdp`], or in tests the same bookkeeping in memory.

use super::{Ahead, Attached, Error, Held, Hits, Lifetime, Sweep, Verdicts, Xdp};
use crate::{
    clock::Now,
    ledger::{Enforced, Op},
    net::IpNet,
};

/// The program on its interfaces, with its maps.
pub trait DataPlane: Send {
    /// Applies `ops` in order, in as few system calls as it can.
    ///
    /// # Errors
    /// The first failure; earlier ops stay applied, and applying all of them again is harmless.
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()>;

    /// Counters of these prefixes, in their order; zero where a prefix is not held.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>>;

    /// Shows `visit` everything that is held, and keeps nothing of it: there may be millions.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()>;

    /// Returns everything that is held.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn held(&mut self) -> anyhow::Result<Vec<Held>> {
        let mut held = Vec::new();
        self.each_held(&mut |ban| held.push(ban))?;
        Ok(held)
    }

    /// Returns what is enforced for each of `prefixes`, in their order; `None` where anything is
    /// missing.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn holds(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Option<Enforced>>>;

    /// Returns about `count` more of what the maps hold, our own or not.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn sweep(&mut self, sweep: &mut Sweep, count: usize) -> anyhow::Result<Vec<IpNet>>;

    /// Returns whether the allow list is exactly this one.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn allows(&mut self, prefixes: &[IpNet]) -> anyhow::Result<bool>;

    /// Replaces the allow list; its prefixes are never dropped.
    ///
    /// # Errors
    /// If the maps cannot be written.
    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()>;

    /// Returns the interfaces, with mode and warnings.
    fn interfaces(&self) -> Vec<&Attached>;

    /// See [`Xdp::check_interfaces`].
    ///
    /// # Errors
    /// If the kernel does not answer, or refuses the program.
    fn check_interfaces(&mut self) -> Result<Vec<String>, Error>;

    /// See [`Xdp::look`].
    ///
    /// # Errors
    /// If the kernel does not answer.
    fn look(&mut self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// See [`Xdp::pin_trouble`].
    fn pin_trouble(&self) -> Option<&str> {
        None
    }

    /// See [`Xdp::uncovered`].
    fn uncovered(&self) -> &[String] {
        &[]
    }

    /// See [`Xdp::set_lifetime`].
    ///
    /// # Errors
    /// If the kernel refuses; it may be called again.
    fn set_lifetime(&mut self, wanted: Lifetime) -> Result<Vec<String>, Error>;

    /// See [`Xdp::resize`].
    ///
    /// # Errors
    /// If the kernel refuses; the old maps stay in use then.
    fn resize(&mut self, max_bans: u32) -> Result<bool, Error>;

    /// Returns how many bans fit, per family.
    fn capacity(&self) -> u32;

    /// Returns whether it only counts.
    fn is_dry_run(&self) -> bool;

    /// Returns whether it only counted before this start: its maps hold what was not to be
    /// enforced.
    fn was_dry_run(&self) -> bool {
        false
    }

    /// Count without dropping, or drop.
    fn set_dry_run(&mut self, _on: bool) {}

    /// One event for about `every` drops; 0: none.
    fn set_sampling(&self, every: u32);

    /// Counters of one interface, or of all together.
    ///
    /// # Errors
    /// If the map cannot be read.
    fn verdicts(&self, of: Option<&Attached>) -> Result<Verdicts, Error>;

    /// Returns the note that the maps know more than the state file does.
    fn ahead(&self) -> Ahead;

    /// See [`Xdp::detach`].
    ///
    /// # Errors
    /// The first failure.
    fn detach(self: Box<Self>) -> Result<Vec<String>, Error>;
}

impl DataPlane for Xdp {
    fn apply(&mut self, ops: &[Op], now: Now) -> anyhow::Result<()> {
        self.check_clock()?;
        Ok(self.maps.apply(ops, now)?)
    }

    fn hits(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Hits>> {
        Ok(self.maps.hits(prefixes)?)
    }

    fn each_held(&mut self, visit: &mut dyn FnMut(Held)) -> anyhow::Result<()> {
        Ok(self.maps.each_held(Now::read(), visit)?)
    }

    fn holds(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Option<Enforced>>> {
        Ok(self.maps.holds(prefixes)?)
    }

    fn sweep(&mut self, sweep: &mut Sweep, count: usize) -> anyhow::Result<Vec<IpNet>> {
        Ok(self.maps.sweep(sweep, count)?)
    }

    fn allows(&mut self, prefixes: &[IpNet]) -> anyhow::Result<bool> {
        Ok(self.maps.allows(prefixes)?)
    }

    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()> {
        Ok(self.maps.allow(prefixes)?)
    }

    fn interfaces(&self) -> Vec<&Attached> {
        self.attachments.iter().map(|attachment| &attachment.interface).collect()
    }

    fn check_interfaces(&mut self) -> Result<Vec<String>, Error> {
        Xdp::check_interfaces(self)
    }

    fn look(&mut self) -> Result<Vec<String>, Error> {
        Xdp::look(self)
    }

    fn pin_trouble(&self) -> Option<&str> {
        Xdp::pin_trouble(self)
    }

    fn uncovered(&self) -> &[String] {
        Xdp::uncovered(self)
    }

    fn set_lifetime(&mut self, wanted: Lifetime) -> Result<Vec<String>, Error> {
        Xdp::set_lifetime(self, wanted)
    }

    fn resize(&mut self, max_bans: u32) -> Result<bool, Error> {
        Xdp::resize(self, max_bans)
    }

    fn capacity(&self) -> u32 {
        self.maps.capacity()
    }

    fn is_dry_run(&self) -> bool {
        self.maps.controls.is_dry_run()
    }

    fn was_dry_run(&self) -> bool {
        self.maps.was_dry
    }

    fn set_dry_run(&mut self, on: bool) {
        // what is looked after from now on
        self.options.dry_run = on;
        self.maps.controls.dry_run(on);
    }

    fn set_sampling(&self, every: u32) {
        self.maps.controls.sample(every);
    }

    fn verdicts(&self, of: Option<&Attached>) -> Result<Verdicts, Error> {
        of.map_or_else(|| Xdp::verdicts(self), |attached| self.verdicts_of(attached))
    }

    fn ahead(&self) -> Ahead {
        self.pins.ahead()
    }

    fn detach(self: Box<Self>) -> Result<Vec<String>, Error> {
        Xdp::detach(*self)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{clock::Boot, dataplane::Double, net::parse_prefix};

    #[test]
    fn all_that_is_shown_is_held() {
        let mut double = Double::new(1, 1_024, PathBuf::new());
        let prefixes =
            ["192.0.2.1", "203.0.113.0/25", "2001:db8::1", "2001:db8::/64", "2001:db8::/33"]
                .map(|prefix| parse_prefix(prefix).unwrap());
        let forever = Enforced { all: Boot::NEVER, scoped: Boot(0), ports: Default::default() };
        let ops = prefixes.map(|prefix| Op::Set(prefix, forever.clone()));
        double.apply(&ops, Now::read()).unwrap();
        let mut held: Vec<IpNet> =
            double.held().unwrap().into_iter().map(|ban| ban.prefix).collect();
        held.sort_unstable();
        let mut all = prefixes.to_vec();
        all.sort_unstable();
        assert_eq!(held, all);
        assert_eq!(double.holds(&prefixes).unwrap(), vec![Some(forever); prefixes.len()]);
        let mut sweep = Sweep::default();
        let mut swept = Vec::new();
        while !sweep.is_over() {
            swept.extend(double.sweep(&mut sweep, 1).unwrap());
        }
        swept.sort_unstable();
        assert_eq!(swept, all, "each is swept once");
    }
}
