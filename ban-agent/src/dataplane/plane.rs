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

    /// Everything that is held.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn held(&mut self) -> anyhow::Result<Vec<Held>> {
        let mut held = Vec::new();
        self.each_held(&mut |ban| held.push(ban))?;
        Ok(held)
    }

    /// What is enforced for each of `prefixes`, in their order; `None` where anything is missing.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn holds(&mut self, prefixes: &[IpNet]) -> anyhow::Result<Vec<Option<Enforced>>> {
        let mut found = vec![None; prefixes.len()];
        self.each_held(&mut |held| {
            let at = prefixes.iter().position(|prefix| *prefix == held.prefix);
            if let Some(slot) = at.and_then(|at| found.get_mut(at)) {
                *slot = Some(held.enforced);
            }
        })?;
        Ok(found)
    }

    /// About `count` more of what is held, whoever put it there.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn sweep(&mut self, sweep: &mut Sweep, _count: usize) -> anyhow::Result<Vec<IpNet>> {
        *sweep = Sweep::over();
        Ok(Vec::new())
    }

    /// Whether the allow list is exactly this one.
    ///
    /// # Errors
    /// If the maps cannot be read.
    fn allows(&mut self, _prefixes: &[IpNet]) -> anyhow::Result<bool> {
        Ok(true)
    }

    /// Replaces the allow list; its prefixes are never dropped.
    ///
    /// # Errors
    /// If the maps cannot be written.
    fn allow(&mut self, prefixes: &[IpNet]) -> anyhow::Result<()>;

    /// The interfaces, with mode and warnings.
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

    /// How many bans fit, per family.
    fn capacity(&self) -> u32;

    /// Whether it only counts.
    fn is_dry_run(&self) -> bool;

    /// Whether it only counted before this start: its maps hold what nobody was meant to enforce.
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

    /// The note that the maps know more than the state file does.
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
        Xdp::interfaces(self)
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
        Xdp::capacity(self)
    }

    fn is_dry_run(&self) -> bool {
        Xdp::is_dry_run(self)
    }

    fn was_dry_run(&self) -> bool {
        self.maps.was_dry
    }

    fn set_dry_run(&mut self, on: bool) {
        Xdp::set_dry_run(self, on);
    }

    fn set_sampling(&self, every: u32) {
        Xdp::set_sampling(self, every);
    }

    fn verdicts(&self, of: Option<&Attached>) -> Result<Verdicts, Error> {
        of.map_or_else(|| Xdp::verdicts(self), |attached| self.verdicts_of(attached))
    }

    fn ahead(&self) -> Ahead {
        Xdp::ahead(self)
    }

    fn detach(self: Box<Self>) -> Result<Vec<String>, Error> {
        Xdp::detach(*self)
    }
}
