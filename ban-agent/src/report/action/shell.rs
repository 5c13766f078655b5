//! Runs one command in a shell, with a limit on its time and on what is kept of its words. Knows
//! nothing of actions.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time,
};

use super::tags::Script;
use crate::{children::Group, event::escape};

/// Bytes that are kept of what a command says on each of its outputs.
const WORDS: usize = 512;
/// How long the output of a command that has ended is waited for: what it left in the background
/// may keep it open for ever.
const LINGER: Duration = Duration::from_millis(100);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// There is no shell, or no more processes.
    #[error("cannot be started: {0}")]
    Start(#[source] std::io::Error),
    /// It said no.
    #[error("{status}{said}")]
    Status {
        /// How it ended.
        status: ExitStatus,
        /// What it said, escaped.
        said: String,
    },
    /// It was killed.
    #[error("killed after {after:?}{said}")]
    Late {
        /// Its limit.
        after: Duration,
        /// What it said, escaped.
        said: String,
    },
}

/// Runs it to its end.
///
/// # Errors
/// Why it failed; then nothing of it runs any more, but for what it put into a group of its own.
pub(super) async fn run(script: &Script, timeout: Duration) -> Result<(), Failed> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(&script.text).envs(script.vars.iter().map(|(name, value)| (name, value)));
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // a group of its own, so that all of it can be ended
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(Failed::Start)?;
    // killed with all it has started, should the task that waits be dropped
    let group = Group::of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut said = Said::default();
    let finished = {
        let Said { out, err } = &mut said;
        let mut hearing =
            std::pin::pin!(async { tokio::join!(hear(stdout, out), hear(stderr, err)) });
        let waiting = async {
            let mut heard = false;
            loop {
                tokio::select! {
                    status = child.wait() => return (status, heard),
                    _ = &mut hearing, if !heard => heard = true,
                }
            }
        };
        let finished = time::timeout(timeout, waiting).await;
        if let Ok((_, false)) = finished {
            let _ = time::timeout(LINGER, &mut hearing).await;
        }
        finished
    };
    let status = match finished {
        Ok((status, _)) => {
            group.leave();
            status
        }
        Err(_) => {
            group.end(&mut child).await;
            return Err(Failed::Late { after: timeout, said: said.text() });
        }
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed::Status { status, said: said.text() }),
        Err(error) => Err(Failed::Start(error)),
    }
}

#[derive(Default)]
struct Said {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Said {
    fn text(&self) -> String {
        let words: Vec<String> = [&self.err, &self.out]
            .into_iter()
            .map(|bytes| escape(bytes.trim_ascii()))
            .filter(|words| !words.is_empty())
            .collect();
        if words.is_empty() { String::new() } else { format!(": {}", words.join("; ")) }
    }
}

/// Reads to the end and keeps the beginning, so that no writer is held up.
async fn hear(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        let room = WORDS.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(text: &str, vars: &[(&str, &str)], timeout: Duration) -> String {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let script = Script { text: text.to_owned(), vars: vars.collect() };
        match run(&script, timeout).await {
            Ok(()) => "good".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn ends_as_the_command_does() {
        for (text, expected) in [
            ("true", "good"),
            ("echo out; echo 'a\x1b[2J' >&2; exit 3", "exit status: 3: a\\u{1b}[2J; out"),
            ("kill -9 $$", "signal: 9 (SIGKILL)"),
        ] {
            assert_eq!(check(text, &[], LONG).await, expected, "{text}");
        }
        let many = check("yes | head -c 300000; exit 1", &[], LONG).await;
        assert!(many.len() < 8 * WORDS && many.starts_with("exit status: 1: y"), "{many}");
    }

    #[tokio::test]
    async fn the_environment_carries_values() {
        let value = "$(exit 9)`exit 9`'\"\n;exit 9";
        let text = "test \"${f2bV_x}\" = \"$(printenv f2bV_x)\" && test ${#f2bV_x} -eq 27";
        assert_eq!(value.len(), 27);
        assert_eq!(check(text, &[("f2bV_x", value)], LONG).await, "good");
    }

    #[tokio::test]
    async fn a_late_command_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let text =
            format!("trap '' TERM; sleep 1000 & echo $! > {}; echo begun; wait", file.display());
        let said = check(&text, &[], Duration::from_millis(300)).await;
        assert_eq!(said, "killed after 300ms: begun");
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !gone() {
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_command_that_nobody_waits_for_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let text = format!(
            "trap '' TERM; sh -c 'trap \"\" TERM; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait'",
            file.display()
        );
        let script = Script { text, vars: Vec::new() };
        let running = tokio::spawn(async move { run(&script, LONG).await.is_ok() });
        while !file.exists() {
            time::sleep(Duration::from_millis(10)).await;
        }
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        while std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_stays_in_the_background_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let text = format!("sleep 1000 & echo $! > {}", file.display());
        assert_eq!(check(&text, &[], LONG).await, "good");
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}
