//! Reads what the agent reports in fail2ban's line format: who reads it has been told.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::IpAddr,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{BANTIME, JAIL, Scene};

/// How often the end of the file is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Reads until told to stop.
pub(super) fn listen(scene: &Scene<'_>) -> Result<()> {
    let path = scene.stage.file(super::REPORT);
    let file = File::options().create(true).append(true).read(true).open(&path);
    let mut lines = BufReader::new(file.with_context(|| format!("cannot open {path:?}"))?);
    let mut line = String::new();
    loop {
        let over = scene.deaf.load(Ordering::Acquire);
        // a line that is not whole yet is completed by the next look
        let read = lines.by_ref().read_line(&mut line).context("cannot read the report")?;
        if line.ends_with('\n') {
            if let Some(address) = banned(&line) {
                scene.book.open().sentenced(address, BANTIME);
            }
            line.clear();
        } else if read == 0 {
            if over {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
    }
}

/// Whose ban by the jail this line reports: a new one, or one of a former run that may have died
/// before it could report it.
fn banned(line: &str) -> Option<IpAddr> {
    let (_, event) = line.trim_end().split_once(": NOTICE ")?;
    let event = event.strip_prefix(&format!("[{JAIL}] "))?;
    event.strip_prefix("Restore ").unwrap_or(event).strip_prefix("Ban ")?.parse().ok()
}
