//! The pin folder: `<pins>/v<ABI>/` with the maps, `links/` in it with the attachments. Owned by
//! one agent at a time.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use ban_common::ABI;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};

use super::{Error, link};

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Left under the pins by [`detach_by_force`]: an agent that goes on after it ends. The next start
/// removes it.
const DETACHED: &str = "detached";

/// The locked pin folder. The lock is flock(2) on the folder `<pins>` itself: bpffs holds no
/// files, and the lock dies with the process.
#[derive(Debug)]
pub struct Pinned {
    root: PathBuf,
    /// Maps that were pinned when we came.
    before: Vec<PathBuf>,
    lock: std::os::fd::OwnedFd,
}

impl Drop for Pinned {
    /// Gives the lock back at once: a child between fork and exec holds a copy of the descriptor,
    /// and with it the lock, a moment longer.
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// The pin folders at some moment: device, inode and the last change of each. Another one:
/// something came or went.
pub(super) type Seal = [(u64, u64, i64, i64); 3];

impl Pinned {
    /// Makes the folders that are missing, and takes the lock.
    ///
    /// # Errors
    /// If the path is not on bpffs, may not be written, or belongs to a running agent.
    pub fn open(root: &Path) -> Result<Pinned, Error> {
        check_bpffs(root)?;
        make(root)?;
        let lock = lock(root)?;
        remove_folder(&root.join(DETACHED))?;
        let mut pinned = Pinned { root: root.to_owned(), before: Vec::new(), lock };
        pinned.before = files(&pinned.maps());
        make(&pinned.links())?;
        Ok(pinned)
    }

    /// Returns whether another process has taken all of it off by force since we came.
    pub(super) fn is_detached(&self) -> bool {
        self.root.join(DETACHED).exists()
    }

    /// Returns the folders as they are; `None`: one is not there.
    pub(super) fn seal(&self) -> Option<Seal> {
        use std::os::unix::fs::MetadataExt as _;
        let folder = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
        };
        Some([folder(&self.root)?, folder(&self.maps())?, folder(&self.links())?])
    }

    /// Makes folders that another process removed, and locks them.
    ///
    /// # Errors
    /// If the path is not on bpffs any more, or belongs to another agent meanwhile.
    pub(super) fn restore(&mut self) -> Result<(), Error> {
        check_bpffs(&self.root)?;
        make(&self.root)?;
        let failed =
            |e: rustix::io::Errno| Error::call("stat", self.root.display().to_string(), e.into());
        let here = rustix::fs::stat(&self.root).map_err(failed)?;
        let locked = rustix::fs::fstat(&self.lock).map_err(failed)?;
        if (here.st_dev, here.st_ino) != (locked.st_dev, locked.st_ino) {
            self.lock = lock(&self.root)?;
        }
        make(&self.links())
    }

    /// Refuses to start beside pins of another version that enforce something: two programs
    /// cannot share an interface, and maps of another layout cannot be read.
    ///
    /// # Errors
    /// [`Error::OtherVersion`] if there are such pins.
    pub(super) fn check_versions(&self) -> Result<(), Error> {
        let mine = self.maps();
        let linked = |folder: &Path| {
            fs::read_dir(folder.join("links")).is_ok_and(|mut links| links.next().is_some())
        };
        match versions(&self.root).into_iter().find(|other| *other != mine && linked(other)) {
            Some(path) => Err(Error::OtherVersion { path }),
            None => Ok(()),
        }
    }

    /// Returns the folder of this version's maps.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.root.join(format!("v{ABI}"))
    }

    /// Returns the folder of the links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.maps().join("links")
    }

    /// Returns the note that the maps know more than the state file does.
    #[must_use]
    pub fn ahead(&self) -> Ahead {
        Ahead(self.maps().join("ahead"))
    }

    /// Returns the pin of an interface's link.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.links().join(link::pin_name(interface))
    }

    /// Interfaces that have a pinned link.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn linked(&self) -> Result<Vec<String>, Error> {
        let links = self.links();
        let entries = fs::read_dir(&links)
            .map_err(|e| Error::call("readdir", links.display().to_string(), e))?;
        Ok(entries.flatten().map(|entry| link::interface_name(&entry.path())).collect())
    }

    /// Removes everything under the pin path, of every version. The names of the interfaces that
    /// were attached.
    ///
    /// # Errors
    /// The first failure.
    pub fn remove(self) -> Result<Vec<String>, Error> {
        remove(&self.root)
    }

    /// Removes what a failed start has made: the maps that were not there before, and the folders
    /// if nothing is left in them. Links are taken back one by one where they are made.
    ///
    /// # Errors
    /// The first failure.
    pub(super) fn undo(self) -> Result<(), Error> {
        let maps = self.maps();
        let failed = |e| Error::call("remove", maps.display().to_string(), e);
        for path in files(&maps) {
            if !self.before.contains(&path) {
                fs::remove_file(&path).map_err(failed)?;
            }
        }
        // From the inside out, as far as they are empty: others live in the rest.
        for folder in [self.links(), maps.clone(), self.root.clone()] {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Says, as long as the maps live, that what they hold was not all recorded: an empty folder beside
/// them. It goes with them, by `detach` or a reboot.
#[derive(Clone, Debug)]
pub struct Ahead(PathBuf);

impl Ahead {
    /// In this folder, for tests.
    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Ahead {
        Ahead(folder.join("ahead"))
    }

    /// Returns whether it is noted.
    #[must_use]
    pub fn is_noted(&self) -> bool {
        self.0.exists()
    }

    /// Notes it, or takes it back.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn note(&self, on: bool) -> Result<(), Error> {
        let done = if on { fs::create_dir(&self.0) } else { fs::remove_dir(&self.0) };
        match done {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && on => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !on => Ok(()),
            other => other.map_err(|e| Error::call("note", self.0.display().to_string(), e)),
        }
    }
}

/// Links first, so that nothing is enforced by halves, then the maps.
fn remove_version(version: &Path) -> Result<Vec<String>, Error> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e| Error::call("remove", path, e)
    };
    let mut detached = Vec::new();
    let links = version.join("links");
    if links.exists() {
        detached = link::remove_all(&links).map_err(failed(&links))?;
    }
    fs::remove_dir_all(version).map_err(failed(version))?;
    Ok(detached)
}

/// Removes every link and pin under `root`. The names of the interfaces that were attached;
/// none if there was nothing.
///
/// # Errors
/// If an agent is running on them, or the kernel refuses.
pub fn detach(root: &Path) -> Result<Vec<String>, Error> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    Pinned::open(root)?.remove()
}

/// The same although an agent may be running on them: one that hangs. Should it go on, it ends
/// ([`Error::Detached`]).
///
/// # Errors
/// If the kernel refuses.
pub fn detach_by_force(root: &Path) -> Result<Vec<String>, Error> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    check_bpffs(root)?;
    let mark = root.join(DETACHED);
    // first: it may go on at any moment
    make(&mark)?;
    let detached = remove(root)?;
    // another folder than the one that it has locked, for the next agent
    make(&mark)?;
    Ok(detached)
}

fn remove(root: &Path) -> Result<Vec<String>, Error> {
    let mut detached = Vec::new();
    for version in versions(root) {
        detached.extend(remove_version(&version)?);
    }
    remove_folder(&root.join(DETACHED))?;
    remove_folder(root)?;
    detached.sort();
    detached.dedup();
    Ok(detached)
}

/// Removes an empty folder, if it is there.
fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::call("rmdir", path.display().to_string(), e))
        }
        _ => Ok(()),
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| !path.is_dir()).collect()
}

/// Returns the folders of all versions under `root`.
fn versions(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir() && !path.ends_with(DETACHED));
    found.sort();
    found
}

/// Whether pins can lie at `root`.
///
/// # Errors
/// If it is not on a bpffs.
pub fn check_bpffs(root: &Path) -> Result<(), Error> {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = statfs(existing)
        .map_err(|e| Error::call("statfs", existing.display().to_string(), e.into()))?;
    #[expect(clippy::useless_conversion, reason = "the width of f_type depends on the target")]
    if i64::from(found.f_type) != BPF_FS_MAGIC {
        return Err(Error::NoBpffs { path: root.to_owned() });
    }
    Ok(())
}

fn make(path: &Path) -> Result<(), Error> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::Permission { what: "write to the BPF file system" })
        }
        Err(e) => Err(Error::call("mkdir", path.display().to_string(), e)),
        Ok(()) => Ok(()),
    }
}

fn lock(root: &Path) -> Result<std::os::fd::OwnedFd, Error> {
    let failed = |e: rustix::io::Errno| Error::call("flock", root.display().to_string(), e.into());
    let folder = open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(folder),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Running { path: root.to_owned() }),
        Err(e) => Err(failed(e)),
    }
}
