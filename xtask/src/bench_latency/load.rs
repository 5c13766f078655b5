//! Innocent lines at a steady rate, one write each, as daemons write them.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

/// Lines are written in spurts so far apart.
const TICK: Duration = Duration::from_millis(1);
/// What a busy sshd says of people who may come in.
const LINES: [&str; 4] = [
    "Accepted publickey for backup from 192.0.2.10 port 50022 ssh2: ED25519 SHA256:c29tZSBrZXkgb2Ygc29tZWJvZHk",
    "pam_unix(sshd:session): session opened for user backup(uid=1001) by (uid=0)",
    "Received disconnect from 192.0.2.10 port 50022:11: disconnected by user",
    "pam_unix(sshd:session): session closed for user backup",
];

/// A writer at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<Result<f64>>,
}

impl Load {
    pub(super) fn start(log: &Path, rate: u32) -> Result<Self> {
        let mut file = OpenOptions::new().append(true).open(log).context("cannot open the log")?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let writer = thread::spawn(move || {
            let begun = Instant::now();
            let mut written = 0_u32;
            let stamp = stamp();
            let lines = LINES.map(|text| format!("{stamp} edge sshd[4242]: {text}\n"));
            while !asked.load(Ordering::Relaxed) {
                let due = begun.elapsed().as_secs_f64() * f64::from(rate);
                while f64::from(written) < due {
                    for line in &lines {
                        file.write_all(line.as_bytes()).context("cannot write the log")?;
                        written += 1;
                    }
                }
                thread::sleep(TICK);
            }
            Ok(f64::from(written) / begun.elapsed().as_secs_f64())
        });
        // Let everybody get used to it.
        thread::sleep(Duration::from_secs(1));
        Ok(Self { stop, writer })
    }

    /// Stops it; the rate that it reached.
    pub(super) fn end(self) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.join().map_err(|_| anyhow!("the writer died"))?
    }
}

/// The time as sshd's log has it, with its zone.
pub(super) fn stamp() -> String {
    let date = Command::new("date").arg("--iso-8601=seconds").output();
    date.map_or_else(
        |_| String::new(),
        |date| String::from_utf8_lossy(&date.stdout).trim().to_owned(),
    )
}
