//! Closes what the process does not need for good, by Landlock (Documentation/userspace-api/
//! landlock.rst): no other process can be looked into or changed, whatever its rights are, and files
//! can be written where a running agent writes, and nowhere else. What may be read is left alone:
//! logs lie anywhere, and files like `/etc/passwd` are replaced, which a rule for them does not
//! survive.
//!
//! Threads of one process are no bounds to each other: each of them has to be limited, the first
//! one before it starts others.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, path_beneath_rules,
};

/// Takes all files from the calling thread but those that it has open.
pub fn close_all() {
    report(closed(BTreeSet::new()));
}

/// Limits the calling thread, and those that it starts from now on, to writing these files and what
/// lies in their folders. Commands of the operator would be limited as well, and may write
/// elsewhere: if there are `commands`, other processes alone are closed, and that only if
/// `no_new_privs` is set, as the unit does.
pub fn limit(files: &[PathBuf], commands: bool) {
    if !commands {
        report(closed(files.iter().filter_map(|file| folder(file)).collect()));
    } else if rustix::thread::no_new_privs().unwrap_or(false) {
        report(apart());
    }
}

fn report(done: Result<(), RulesetError>) {
    // a kernel without Landlock is no error
    if let Err(error) = done {
        log::warn!("no confinement by Landlock: {error}");
    }
}

/// Returns the folder of a file, wherever links lead to; or the one in which that folder will be
/// made.
fn folder(file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().or_else(|_| std::path::absolute(file)).ok()?;
    file.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned)
}

/// Of the access rights of the third version; an older kernel has fewer.
fn closed(folders: BTreeSet<PathBuf>) -> Result<(), RulesetError> {
    let all = AccessFs::from_write(ABI::V3);
    let rules = Ruleset::default().handle_access(all)?.create()?;
    // programs that read the journal are given it
    let written = AccessFs::WriteFile | AccessFs::Truncate;
    let rules = match PathFd::new("/dev/null") {
        Ok(null) => rules.add_rule(PathBeneath::new(null, written))?,
        Err(_) => rules,
    };
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock;
    let rules = rules.add_rules(path_beneath_rules(folders, all & !devices))?;
    rules.restrict_self().map(drop)
}

/// A set of rules that takes next to nothing; being under one at all is what closes the others'
/// memory. Where moves between folders are not named, they are refused.
fn apart() -> Result<(), RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::MakeBlock | AccessFs::Refer)?
        .create()?
        .add_rules(path_beneath_rules(["/"], AccessFs::Refer))?
        .restrict_self()
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io,
        process::{Command, Stdio},
        thread,
    };

    use super::*;

    /// Returns what a thread finds that was limited by `limit`.
    fn inside<T: Send + 'static>(
        limit: impl FnOnce() + Send + 'static,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let task = thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            limit();
            work()
        });
        task.join().unwrap()
    }

    fn available() -> bool {
        let refused = inside(close_all, || {
            let folder = tempfile::tempdir();
            folder.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        });
        if !refused {
            println!("SKIPPED: this kernel has no Landlock");
        }
        refused
    }

    /// Returns the kinds of errors of what a thread tries in a folder.
    fn tried(folder: &Path) -> [Option<io::ErrorKind>; 6] {
        let made = |done: io::Result<()>| done.err().map(|error| error.kind());
        let at = |name: &str| folder.join(name);
        [
            made(fs::write(at("new"), "x")),
            made(File::options().append(true).open(at("there")).map(drop)),
            made(fs::create_dir(at("folder"))),
            made(std::os::unix::net::UnixDatagram::bind(at("socket")).map(drop)),
            made(fs::rename(at("gone"), at("moved"))),
            made(fs::remove_file(at("removed"))),
        ]
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["there", "gone", "removed"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        folder
    }

    #[test]
    fn what_is_not_named_is_not_written() {
        if !available() {
            return;
        }
        let (named, other) = (folder(), folder());
        let open = named.path().join("not/yet/there");
        let paths = [named.path().to_owned(), other.path().to_owned()];
        let found = inside(
            move || limit(&[open], false),
            move || {
                // read is everything, and what has no name
                assert_eq!(fs::read(paths[1].join("there")).unwrap(), b"x");
                let run = Command::new("true").stdin(Stdio::null()).stdout(Stdio::null()).status();
                assert!(run.unwrap().success());
                paths.map(|path| tried(&path))
            },
        );
        assert_eq!(found, [[None; 6], [Some(io::ErrorKind::PermissionDenied); 6]]);
    }

    #[test]
    fn no_other_process_is_looked_into() {
        if !available() {
            return;
        }
        let open = |pid: u32| {
            let path = |name: &str| format!("/proc/{pid}/{name}");
            let memory = File::options().write(true).open(path("mem")).is_ok();
            [memory, fs::read_dir(path("root")).is_ok(), fs::read_link(path("exe")).is_ok()]
        };
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = other.id();
        let without = inside(|| {}, move || open(pid));
        let closed = inside(|| limit(&["/file".into()], false), move || open(pid));
        let apart = inside(|| limit(&[], true), move || open(pid));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(without, [true; 3]);
        assert_eq!((closed, apart), ([false; 3], [false; 3]));
    }

    #[test]
    fn commands_write_and_move_what_they_want() {
        if !available() {
            return;
        }
        let (one, other) = (folder(), folder());
        let paths = [one.path().to_owned(), other.path().to_owned()];
        let found = inside(
            || limit(&[], true),
            move || {
                fs::rename(paths[0].join("there"), paths[1].join("here")).unwrap();
                fs::write(paths[0].join("there"), "x").unwrap();
                tried(&paths[0])
            },
        );
        assert_eq!(found, [None; 6]);
    }
}
