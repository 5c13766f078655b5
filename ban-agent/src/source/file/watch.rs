//! Tells when to look at files and directories: inotify, and where that fails, that they have to
//! be polled. Reads no log.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    future,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::Instant,
};

use glob::Pattern;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

use super::{
    files::Files,
    tail::{self, FileId},
};
use crate::source::Position;

/// Directories may appear while they are looked through; an attacker must not keep us at it.
const MAX_LOOKS: usize = 8;

/// The watches of one source.
#[derive(Debug)]
pub(super) struct Watch {
    /// `None`: the kernel gives no more; everything is polled.
    inotify: Option<AsyncFd<OwnedFd>>,
    dirs: HashMap<PathBuf, i32>,
    /// Names that matter, by watched directory.
    names: HashMap<i32, Vec<Pattern>>,
    files: HashMap<FileId, i32>,
    /// Whom to touch, by watched file.
    paths: HashMap<i32, PathBuf>,
    /// Some directory or file changes unseen.
    pub(super) polling: bool,
}

impl Watch {
    pub(super) fn new() -> Watch {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        #[expect(deprecated, reason = "sound for an OwnedFd, and its successor is unsafe")]
        let inotify = fd.ok().and_then(|fd| AsyncFd::new(fd).ok());
        if inotify.is_none() {
            log::warn!("no inotify instance left: files are polled");
        }
        Watch::with(inotify)
    }

    #[cfg(test)]
    pub(super) fn without_inotify() -> Watch {
        Watch::with(None)
    }

    fn with(inotify: Option<AsyncFd<OwnedFd>>) -> Watch {
        Watch {
            inotify,
            dirs: HashMap::new(),
            names: HashMap::new(),
            files: HashMap::new(),
            paths: HashMap::new(),
            polling: false,
        }
    }

    /// Waits until [`Watch::take`] has something to say.
    pub(super) async fn changed(&self) {
        match &self.inotify {
            Some(fd) => match fd.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => future::pending().await,
            },
            None => future::pending().await,
        }
    }

    /// Takes what happened: touches the files that changed. True if names did, so that
    /// [`Watch::scan`] is due.
    pub(super) fn take(&mut self, files: &mut Files) -> bool {
        let Some(inotify) = self.inotify.take() else { return false };
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        let mut names = false;
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_bytes());
            names |= self.handle(event.wd(), event.events(), name, files);
        }
        self.inotify = Some(inotify);
        names
    }

    /// Looks at all names, and watches whatever they lead to.
    pub(super) fn scan(&mut self, files: &mut Files, resume: &impl Fn(&str) -> Option<Position>) {
        self.polling = self.inotify.is_none();
        let mut resolved = files.resolve();
        for _ in 0..MAX_LOOKS {
            if !self.watch_dirs(&resolved.dirs) {
                break;
            }
            // Something may have come between the look and the watch.
            resolved = files.resolve();
        }
        files.update(&resolved.files, resume, Instant::now());
        self.watch_files(files);
    }

    fn handle(&mut self, wd: i32, what: ReadFlags, name: Option<&[u8]>, files: &mut Files) -> bool {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            files.touch_all();
            return true;
        }
        if let Some(path) = self.paths.get(&wd) {
            files.touch(path);
            if what.contains(ReadFlags::IGNORED) {
                self.paths.remove(&wd);
                self.files.retain(|_, other| *other != wd);
            }
            return false;
        }
        let Some(names) = self.names.get(&wd) else { return false };
        if let Some(name) = name {
            let name = String::from_utf8_lossy(name);
            return names.iter().any(|pattern| pattern.matches(&name));
        }
        let lost = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED;
        if what.intersects(lost | ReadFlags::UNMOUNT) {
            self.forget_dir(wd);
        }
        true
    }

    /// Watches these directories and no others; true if any of them was not watched before.
    fn watch_dirs(&mut self, wanted: &BTreeMap<PathBuf, Vec<Pattern>>) -> bool {
        let gone: HashSet<i32> = self
            .dirs
            .iter()
            .filter(|(path, _)| !wanted.contains_key(*path))
            .map(|(_, wd)| *wd)
            .collect();
        gone.into_iter().for_each(|wd| self.forget_dir(wd));
        self.names.clear();
        let mut fresh = false;
        for (path, names) in wanted {
            fresh |= !self.dirs.contains_key(path);
            self.polling |= !names.is_empty() && File::open(path).is_ok_and(tail::is_remote);
            match self.watch_dir(path, names.is_empty()) {
                Ok(wd) => self.names.entry(wd).or_default().extend_from_slice(names),
                Err(_) => self.polling = true,
            }
        }
        fresh
    }

    fn watch_dir(&mut self, path: &Path, on_the_way: bool) -> Result<i32, Errno> {
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        let entries = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB;
        let flags = if on_the_way { itself } else { itself | entries };
        // One directory may have several paths: what one of them wants is not taken from it.
        let wd = self.add(path, flags | WatchFlags::MASK_ADD)?;
        self.dirs.insert(path.to_owned(), wd);
        Ok(wd)
    }

    /// Watches the open files and no others.
    fn watch_files(&mut self, files: &mut Files) {
        let mut open = HashSet::new();
        self.paths.clear();
        let mut fresh = Vec::new();
        for (path, tail) in files.tails() {
            open.insert(tail.id);
            let known = self.files.get(&tail.id).copied();
            let add = || {
                // By descriptor: the name may lead to another file by now.
                let own = PathBuf::from(format!("/proc/self/fd/{}", tail.file.as_raw_fd()));
                self.add(&own, WatchFlags::MODIFY | WatchFlags::ATTRIB)
            };
            let wd = known.map_or_else(add, Ok);
            match wd {
                Ok(wd) => {
                    self.files.insert(tail.id, wd);
                    self.paths.insert(wd, path.clone());
                }
                Err(_) => tail.polled = true,
            }
            self.polling |= tail.polled;
            if known.is_none() {
                fresh.push(path.clone());
            }
        }
        let closed: Vec<FileId> =
            self.files.keys().filter(|id| !open.contains(id)).copied().collect();
        for id in closed {
            if let Some(wd) = self.files.remove(&id) {
                self.remove(wd);
            }
        }
        fresh.iter().for_each(|path| files.touch(path));
        files.report_polling();
    }

    fn forget_dir(&mut self, wd: i32) {
        self.dirs.retain(|_, other| *other != wd);
        self.names.remove(&wd);
        self.remove(wd);
    }

    fn add(&self, path: &Path, flags: WatchFlags) -> Result<i32, Errno> {
        let inotify = self.inotify.as_ref().ok_or(Errno::NOSPC)?;
        inotify::add_watch(inotify.get_ref(), path.as_os_str().as_bytes(), flags)
    }

    fn remove(&self, wd: i32) {
        if let Some(inotify) = &self.inotify {
            // The kernel may have removed it already.
            let _ = inotify::remove_watch(inotify.get_ref(), wd);
        }
    }
}
