//! Timers that sleep and wake nothing meanwhile: one on the boot clock, so that a ban ends on time
//! also after a suspend, and one that tells when the wall clock was set.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::clock::Boot;

/// Fires once at an instant of the boot clock.
#[derive(Debug)]
pub(super) struct Deadline {
    timer: AsyncFd<OwnedFd>,
    set: Option<Boot>,
}

impl Deadline {
    pub(super) fn new() -> io::Result<Deadline> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        #[expect(deprecated, reason = "sound for an OwnedFd, and its successor is unsafe")]
        let timer = AsyncFd::new(timer)?;
        Ok(Deadline { timer, set: None })
    }

    /// Moves it; `None` or [`Boot::NEVER`]: it does not fire.
    pub(super) fn set(&mut self, at: Option<Boot>) -> io::Result<()> {
        let at = at.filter(|at| *at != Boot::NEVER);
        if at == self.set {
            return Ok(());
        }
        // zero would disarm the timer: what is due fires in the first nanosecond of the clock
        let value = at.map_or(Duration::ZERO, |at| Duration::from_millis(at.0) + ONE);
        let value = Timespec::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        self.set = at;
        Ok(())
    }

    /// Waits until it fires.
    pub(super) async fn reached(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut count = [0; 8];
            match rustix::io::read(self.timer.get_ref(), &mut count) {
                Ok(_) => {
                    self.set = None;
                    return Ok(());
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Tells when the wall clock was set or the machine woke up (`TFD_TIMER_CANCEL_ON_SET`, see
/// timerfd_create(2)).
#[derive(Debug)]
pub(super) struct ClockSteps {
    timer: AsyncFd<OwnedFd>,
}

impl ClockSteps {
    pub(super) fn new() -> io::Result<ClockSteps> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        #[expect(deprecated, reason = "sound for an OwnedFd, and its successor is unsafe")]
        let steps = ClockSteps { timer: AsyncFd::new(timer)? };
        steps.arm()?;
        Ok(steps)
    }

    /// Waits for the next step.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut count = [0; 8];
            match rustix::io::read(self.timer.get_ref(), &mut count) {
                Ok(_) | Err(rustix::io::Errno::CANCELED) => {
                    self.arm()?;
                    return Ok(());
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The timer has to run to be cancelled: it is set to a time that does not come.
    fn arm(&self) -> io::Result<()> {
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let far = Timespec { tv_sec: i64::from(u32::MAX), tv_nsec: 0 };
        let spec = Itimerspec { it_interval: zero, it_value: far };
        timerfd_settime(self.timer.get_ref(), flags, &spec)?;
        Ok(())
    }
}

const ONE: Duration = Duration::from_nanos(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;

    #[tokio::test]
    async fn fires_for_the_past_and_the_near_future() {
        let mut deadline = Deadline::new().unwrap();
        deadline.set(Some(Boot(0))).unwrap();
        deadline.reached().await.unwrap();
        let at = Now::read().boot.plus(20);
        deadline.set(Some(at)).unwrap();
        deadline.reached().await.unwrap();
        assert!(Now::read().boot >= at);
    }
}
