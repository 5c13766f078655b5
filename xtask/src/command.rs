//! Runs other programs, always showing the exact command first. Knows nothing of what they do.

use std::{
    env,
    ffi::OsStr,
    fs::File,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The cargo that runs us, or the one on PATH.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::layout::root());
    cargo
}

/// The command as one could type it into a shell.
pub(crate) fn shown(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={}", key.display(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    set.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs it with our own output, and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("  $ {}", shown(command));
    let status = command.status().with_context(|| not_started(command))?;
    if status.success() { Ok(()) } else { bail!("`{}` ended with {status}", shown(command)) }
}

/// Runs it with its output in a file, whose last lines become part of the error.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    println!("  $ {} >{} 2>&1", shown(command), log.display());
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let copy = file.try_clone().with_context(|| format!("cannot share {}", log.display()))?;
    let status =
        command.stdout(file).stderr(copy).status().with_context(|| not_started(command))?;
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    bail!(
        "`{}` ended with {status}; the end of {}:\n{}",
        shown(command),
        log.display(),
        tail(&text, 15)
    )
}

/// Its standard output, quietly.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| not_started(command))?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        bail!("`{}` ended with {}: {}", shown(command), done.status, tail(text.trim(), 5));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The last `count` lines.
fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

fn not_started(command: &Command) -> String {
    format!("cannot start `{}`", shown(command))
}

/// Where the system's own programs lie, which a user's PATH often lacks.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Starts this program over with the folders of the system's programs on PATH, if one is missing.
/// Whatever it starts inherits them.
pub(crate) fn with_system_programs() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let missing: Vec<PathBuf> =
        SYSTEM.into_iter().map(PathBuf::from).filter(|folder| !folders.contains(folder)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let longer = env::join_paths(folders.iter().chain(&missing)).context("cannot extend PATH")?;
    let this = env::current_exe().context("cannot find this program")?;
    let error = Command::new(this).args(env::args_os().skip(1)).env("PATH", longer).exec();
    Err(error).context("cannot start over with a longer PATH")
}

/// The first executable of that name on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}
