//! Ctrl-C and a request to end: remembered here, noticed by whoever waits. The program then
//! returns through all its guards, which clean up.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP are remembered instead of ending us at once.
pub(super) fn on_signals() -> Result<()> {
    ctrlc::set_handler(|| ASKED.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")
}

/// Whether we were asked to stop.
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// An error once we were asked to stop.
pub(super) fn check() -> Result<()> {
    if asked() { bail!("stopped") } else { Ok(()) }
}
