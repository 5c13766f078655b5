//! The whole kernel side as the daemon uses it: [`Xdp`], or in tests a model.

use super::{Ahead, Attached, Enforcer, Error, Hold, Verdicts, Xdp};

/// The program on its interfaces, with its maps.
pub trait Card: Enforcer {
    /// The interfaces, with mode and warnings.
    fn interfaces(&self) -> &[Attached];

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

    /// See [`Xdp::hold`].
    ///
    /// # Errors
    /// If the kernel refuses; it may be called again.
    fn hold(&mut self, wanted: Hold) -> Result<Vec<String>, Error>;

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

impl Card for Xdp {
    fn interfaces(&self) -> &[Attached] {
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

    fn hold(&mut self, wanted: Hold) -> Result<Vec<String>, Error> {
        Xdp::hold(self, wanted)
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
