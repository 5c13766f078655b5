//! Files that grow by whole lines, through rotation and full disks. A symbolic link in a file's place
//! is not followed: it would have root write where another user points.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{Observer, Part, Sink, Wanted, document, lost};

/// A file; opened again when it was renamed or deleted.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: Option<File>,
    /// The last write broke off inside a line.
    torn: bool,
    failing: bool,
}

impl Lines {
    pub(super) fn new(path: PathBuf) -> Lines {
        Lines { path, file: None, torn: false, failing: false }
    }

    /// Appends whole lines; says whether all of them are there. A failure is logged once, and
    /// again when it is over.
    pub(super) fn append(&mut self, text: &str) -> bool {
        let result = self.write(text);
        match (&result, self.failing) {
            (Err(error), false) => log::error!("cannot write {}: {error}", self.path.display()),
            (Ok(()), true) => log::info!("{} can be written again", self.path.display()),
            _ => {}
        }
        self.failing = result.is_err();
        result.is_ok()
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let torn = self.torn;
        let mut file = self.open()?;
        if torn {
            file.write_all(b"\n")?;
        }
        let mut rest = text.as_bytes();
        let result = loop {
            match file.write(rest) {
                _ if rest.is_empty() => break Ok(()),
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let written = text.len() - rest.len();
        self.torn = written > 0 && text.as_bytes().get(written - 1) != Some(&b'\n');
        result
    }

    fn open(&mut self) -> io::Result<&File> {
        let current = self.file.take().filter(|file| is_at(file, &self.path));
        let file = match current {
            Some(file) => file,
            None => {
                // not readable to all: the file lists attackers and what they tried
                self.torn = false;
                let mut options = OpenOptions::new();
                options.create(true).append(true).mode(0o640);
                options.custom_flags(libc::O_NOFOLLOW);
                options.open(&self.path).map_err(|error| match error.raw_os_error() {
                    Some(libc::ELOOP) => {
                        io::Error::other("it is a symbolic link, and those are not followed")
                    }
                    _ => error,
                })?
            }
        };
        Ok(self.file.insert(file))
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// A file of ECS documents, one a line.
#[derive(Debug)]
pub struct Documents {
    lines: Lines,
    observer: Observer,
    wanted: Wanted,
}

impl Documents {
    /// Into the file `path`: what `wanted` says.
    #[must_use]
    pub fn new(path: PathBuf, observer: Observer, wanted: Wanted) -> Documents {
        Documents { lines: Lines::new(path), observer, wanted }
    }
}

impl Sink for Documents {
    fn take(&mut self, missing: u64, part: &Part) -> u64 {
        let mut text = String::new();
        let mut count = 0;
        if missing > 0 {
            text.push_str(&format!("{}\n", lost(missing, &self.observer)));
        }
        for (number, event) in (part.first..).zip(part.events.iter()) {
            if self.wanted.has(&event.what) {
                text.push_str(&format!("{}\n", document(event, number, &self.observer)));
                count += 1;
            }
        }
        if text.is_empty() || self.lines.append(&text) { 0 } else { count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_costs_events_and_says_so() {
        use crate::event::{Bus, Event, What};
        let bus = Bus::default();
        let observer = bus.observer().clone();
        let mut full = Documents::new("/dev/full".into(), observer, Wanted::default());
        let mut events = bus.subscribe("test");
        bus.publish(vec![Event::now(What::Resumed { jail: "sshd".into() }); 3]);
        let (lost, part) = events.wait().unwrap();
        assert_eq!(full.take(lost, &part), 3);
        assert!(full.lines.failing);
    }

    #[test]
    fn a_link_is_not_followed_and_nobody_else_reads() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::TempDir::new().unwrap();
        let (path, other) = (folder.path().join("log"), folder.path().join("other"));
        std::fs::write(&other, "dear\n").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let mut lines = Lines::new(path.clone());
        assert!(!lines.append("one\n"));
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "dear\n");
        std::fs::remove_file(&path).unwrap();
        assert!(lines.append("two\n"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
        // put in its place while it is open
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("log.1"), &path).unwrap();
        assert!(!lines.append("three\n"));
    }

    #[test]
    fn goes_on_after_rotation_and_ends_a_torn_line() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("log");
        let mut lines = Lines::new(path.clone());
        assert!(lines.append("one\n"));
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        assert!(lines.append("two\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        lines.torn = true;
        assert!(lines.append("three\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n\nthree\n");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(!lines.append("four\n"), "nothing can be written there");
        std::fs::remove_dir(&path).unwrap();
        assert!(lines.append("five\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "five\n");
    }
}
