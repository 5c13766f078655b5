//! Stops a jail that bans more than an attack explains: a wrong pattern, a proxy's address in
//! every line. It goes on counting; the operator lets it go on banning.

use std::{collections::VecDeque, fmt};

use crate::clock::Boot;

/// The span that bans are counted over, in ms.
const SPAN: u64 = 60_000;
/// Connected clients among the banned are no majority of anything below this many.
const FEW: usize = 10;

/// What a jail may do in a minute; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bans.
    pub bans: Option<usize>,
    /// Share of the clients that are connected, `0.0..=1.0`.
    pub share: Option<f64>,
}

/// Why a jail was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// More bans than this in a minute.
    Bans(usize),
    /// So many of so many connected clients within a minute.
    Clients(usize, usize),
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trip::Bans(limit) => write!(f, "more than {limit} bans within a minute"),
            Trip::Clients(hit, all) => {
                write!(f, "{hit} of {all} connected clients would be banned within a minute")
            }
        }
    }
}

/// Watches the offences of one jail.
#[derive(Debug, Default)]
pub struct Breaker {
    /// The last minute's bans; whether each hit a connected client.
    recent: VecDeque<(Boot, bool)>,
    clients: usize,
    tripped: Option<Trip>,
    withheld: u64,
}

impl Breaker {
    /// Whether one more ban may be, within `limits` as they are now: of a connected client, where
    /// so many are `connected`.
    ///
    /// # Errors
    /// Why not; stays so until [`Breaker::resume`], whatever becomes of the limits.
    pub fn admit(
        &mut self,
        limits: Limits,
        is_client: bool,
        connected: usize,
        now: Boot,
    ) -> Result<(), Trip> {
        self.forget(now);
        let clients = self.clients + usize::from(is_client);
        if self.tripped.is_none() {
            self.tripped = self.exceeded(limits, is_client, clients, connected);
        }
        if let Some(trip) = self.tripped {
            self.withheld += 1;
            return Err(trip);
        }
        if limits != Limits::default() {
            self.recent.push_back((now, is_client));
            self.clients = clients;
        }
        Ok(())
    }

    fn exceeded(
        &self,
        limits: Limits,
        is_client: bool,
        clients: usize,
        connected: usize,
    ) -> Option<Trip> {
        if let Some(limit) = limits.bans
            && self.recent.len() >= limit
        {
            return Some(Trip::Bans(limit));
        }
        let share = limits.share?;
        let many = is_client && clients > FEW && exceeds(clients, share, connected);
        many.then_some(Trip::Clients(clients, connected))
    }

    /// Returns why the jail is stopped, if it is.
    #[must_use]
    pub fn tripped(&self) -> Option<Trip> {
        self.tripped
    }

    /// Bans that it has kept the jail from since it was last resumed.
    #[must_use]
    pub fn withheld(&self) -> u64 {
        self.withheld
    }

    /// Lets the jail ban again, with a fresh minute; says whether it was stopped.
    pub fn resume(&mut self) -> bool {
        let was = self.tripped.is_some();
        *self = Breaker::default();
        was
    }

    fn forget(&mut self, now: Boot) {
        while let Some(&(when, was_client)) = self.recent.front()
            && when.plus(SPAN) <= now
        {
            self.recent.pop_front();
            self.clients -= usize::from(was_client);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of clients are far below 2^53")]
fn exceeds(part: usize, share: f64, whole: usize) -> bool {
    part as f64 > share * whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_bans_in_a_minute_stop_it_until_it_is_resumed() {
        let mut breaker = Breaker::default();
        let limits = Limits { bans: Some(3), share: None };
        for second in [0, 1, 2, 60, 61, 62] {
            assert_eq!(breaker.admit(limits, false, 0, Boot(second * 1000)), Ok(()), "{second}");
        }
        let trip = Err(Trip::Bans(3));
        assert_eq!(breaker.admit(limits, false, 0, Boot(63_000)), trip);
        assert_eq!(breaker.admit(limits, false, 0, Boot(1_000_000)), trip);
        assert_eq!(breaker.withheld(), 2);
        assert!(breaker.resume() && !breaker.resume());
        assert_eq!(breaker.admit(limits, false, 0, Boot(1_000_000)), Ok(()));
    }

    #[test]
    fn too_many_of_the_connected_stop_it() {
        let mut breaker = Breaker::default();
        let limits = Limits { bans: None, share: Some(0.25) };
        for number in 0..100 {
            assert_eq!(breaker.admit(limits, false, 100, Boot(number)), Ok(()));
        }
        for number in 0..25 {
            assert_eq!(breaker.admit(limits, true, 100, Boot(number)), Ok(()));
        }
        assert_eq!(breaker.admit(limits, true, 100, Boot(50)), Err(Trip::Clients(26, 100)));
        assert_eq!(breaker.tripped(), Some(Trip::Clients(26, 100)));
    }

    #[test]
    fn a_handful_of_clients_is_no_share() {
        let mut breaker = Breaker::default();
        let limits = Limits { bans: None, share: Some(0.1) };
        for number in 0..10 {
            assert_eq!(breaker.admit(limits, true, 10, Boot(number)), Ok(()));
        }
        assert!(breaker.admit(limits, true, 10, Boot(10)).is_err());
    }

    #[test]
    fn new_limits_count_from_the_resumption_on() {
        let mut breaker = Breaker::default();
        let limits = |bans| Limits { bans: Some(bans), share: None };
        breaker.admit(limits(1), false, 0, Boot(0)).unwrap();
        assert_eq!(breaker.admit(limits(1), false, 0, Boot(1)), Err(Trip::Bans(1)));
        assert_eq!(breaker.admit(limits(9), false, 0, Boot(2)), Err(Trip::Bans(1)), "stopped");
        breaker.resume();
        for number in 0..9 {
            assert_eq!(breaker.admit(limits(9), false, 0, Boot(3 + number)), Ok(()));
        }
        assert_eq!(breaker.admit(limits(4), false, 0, Boot(20)), Err(Trip::Bans(4)));
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let mut breaker = Breaker::default();
        for number in 0..1000 {
            breaker.admit(Limits::default(), true, 1, Boot(number)).unwrap();
        }
        assert!(breaker.recent.is_empty());
    }
}
