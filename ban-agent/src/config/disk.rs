//! Whether the configuration on disk is still the one that was read. Knows files and their texts,
//! not what they mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The files as they were when the configuration was read. Clones share what was found.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    path: PathBuf,
    read: BTreeMap<PathBuf, Stamp>,
    changed: Mutex<Vec<PathBuf>>,
}

/// What tells one text of a file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    /// Device, inode, bytes, and when it was last written: as long as these are the same, the text
    /// is not read again.
    seen: Option<(u64, u64, u64, i64, i64)>,
    /// Of the text; `None`: there is none.
    text: Option<u64>,
}

impl Stamp {
    /// `known`: what it was before.
    fn of(path: &Path, known: Stamp) -> Stamp {
        let Ok(meta) = fs::metadata(path) else { return Stamp::default() };
        let seen = Some((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if seen == known.seen {
            return known;
        }
        let hash = |text: Vec<u8>| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        };
        Stamp { seen, text: fs::read(path).ok().map(hash) }
    }
}

impl Disk {
    /// As it stands, where `files` were read for the configuration at `path`.
    #[must_use]
    pub fn of(path: &Path, files: &[PathBuf]) -> Disk {
        let stamp = |path: PathBuf| (path.clone(), Stamp::of(&path, Stamp::default()));
        let read = candidates(path, files.iter()).into_iter().map(stamp).collect();
        Disk(Arc::new(Shared { path: path.to_owned(), read, changed: Mutex::default() }))
    }

    /// Looks what has changed since. It reads files: not on a thread that must not wait.
    pub fn look(&self) {
        let Shared { path, read, changed } = &*self.0;
        let is_new = |file: &PathBuf| {
            let known = read.get(file).copied().unwrap_or_default();
            Stamp::of(file, known).text != known.text
        };
        let mut found = candidates(path, read.keys());
        found.retain(is_new);
        *changed.lock().unwrap_or_else(PoisonError::into_inner) = found.into_iter().collect();
    }

    /// Returns the files that were changed, added or removed, as of the last look.
    #[must_use]
    pub fn changed(&self) -> Vec<PathBuf> {
        self.0.changed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns the files that count, and those that would if they were there: `conf.d/*.toml`, and for
/// fail2ban's files their `.local` twins and what is in their `.d` folders.
fn candidates<'a>(path: &Path, files: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let add = |folder: &Path, extensions: &[&str]| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| extensions.iter().any(|e| path.extension().is_some_and(|is| is == *e)))
            .collect::<Vec<_>>()
    };
    all.extend(add(&path.parent().unwrap_or(Path::new(".")).join("conf.d"), &["toml"]));
    for file in files {
        if file.extension().is_some_and(|extension| extension == "conf" || extension == "local") {
            all.insert(file.with_extension("local"));
            all.extend(add(&file.with_extension("d"), &["conf", "local"]));
        }
        all.insert(file.clone());
    }
    all
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn another_text_another_file_and_no_mere_touch() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["conf.d", "fail2ban/jail.d"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["config.toml", "conf.d/10.toml", "fail2ban/jail.conf"] {
            fs::write(at(name), "a").unwrap();
        }
        let files = ["config.toml", "conf.d/10.toml", "fail2ban/jail.conf"].map(at);
        let disk = Disk::of(&at("config.toml"), &files);
        let changed = || -> Vec<OsString> {
            disk.look();
            disk.changed().iter().map(|path| path.file_name().unwrap().to_owned()).collect()
        };
        assert!(changed().is_empty());
        // written anew with the same text, as configuration management does
        fs::write(at("new"), "a").unwrap();
        fs::rename(at("new"), at("config.toml")).unwrap();
        assert!(changed().is_empty());
        // as long, and written within the same second
        fs::write(at("config.toml"), "b").unwrap();
        assert_eq!(changed(), ["config.toml"]);
        fs::write(at("config.toml"), "a").unwrap();
        assert!(changed().is_empty());
        for added in ["conf.d/20.toml", "fail2ban/jail.local", "fail2ban/jail.d/x.local"] {
            fs::write(at(added), "").unwrap();
            assert_eq!(changed().len(), 1, "{added}");
            fs::remove_file(at(added)).unwrap();
            assert!(changed().is_empty(), "{added}");
        }
        // of no meaning to us
        fs::write(at("conf.d/20.toml.bak"), "").unwrap();
        fs::write(at("fail2ban/other.conf"), "").unwrap();
        assert!(changed().is_empty());
        fs::remove_file(at("conf.d/10.toml")).unwrap();
        assert_eq!(changed(), ["10.toml"]);
    }
}
