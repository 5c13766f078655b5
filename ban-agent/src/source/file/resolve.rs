//! Finds the files that a path or glob names now, and the directories where that can change.
//! Reads directories; opens no file.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt, fs, io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::names;

/// Symbolic links in one path; as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A path or glob, cut into its components.
#[derive(Clone, Debug)]
pub(super) struct Target {
    steps: Vec<Step>,
}

/// One component of a path.
#[derive(Clone, Debug)]
struct Step {
    name: Pattern,
    /// The name itself if it holds no wildcard.
    literal: Option<Vec<u8>>,
    /// Part of the path as the operator wrote it, not of a link's target.
    shown: bool,
}

/// What a [`Target`] names at the moment.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Where each file is, by the path to show.
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
    /// Directories that matter, and the names in them whose coming or going does. No names:
    /// only the directory's own fate.
    pub(super) dirs: BTreeMap<PathBuf, Vec<Pattern>>,
}

impl Target {
    /// Cuts an absolute path; the reason if it is none or holds a bad wildcard.
    pub(super) fn new(path: &Path) -> Result<Target, String> {
        if !path.is_absolute() {
            return Err("the path must be absolute".to_owned());
        }
        let steps = steps(path, true)?;
        if steps.is_empty() {
            return Err("the path names no file".to_owned());
        }
        Ok(Target { steps })
    }

    /// Returns the path itself, if it is no glob: it is waited for, even when nothing is there.
    pub(super) fn literal(&self) -> Option<PathBuf> {
        let mut path = PathBuf::from("/");
        for step in &self.steps {
            path.push(OsStr::from_bytes(step.literal.as_ref()?));
        }
        Some(path)
    }

    /// Looks at the file system.
    pub(super) fn resolve(&self) -> Resolved {
        let mut resolved = Resolved::default();
        resolved.walk(Path::new("/"), Path::new("/"), &self.steps, 0);
        resolved
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| match &step.literal {
            Some(name) => write!(f, "/{}", String::from_utf8_lossy(name)),
            None => write!(f, "/{}", step.name.as_str()),
        })
    }
}

impl Resolved {
    fn walk(&mut self, real: &Path, shown: &Path, steps: &[Step], links: usize) {
        let Some((step, rest)) = steps.split_first() else { return };
        self.dirs.entry(real.to_owned()).or_default();
        match &step.literal {
            Some(name) if name == b".." => {
                self.walk(real.parent().unwrap_or(real), shown, rest, links);
            }
            Some(name) => self.enter(real, shown, step, OsStr::from_bytes(name), rest, links),
            None => {
                self.watch(real, step);
                for name in matching(real, &step.name, rest.is_empty()) {
                    self.enter(real, shown, step, &name, rest, links);
                }
            }
        }
    }

    fn enter(
        &mut self,
        dir: &Path,
        shown: &Path,
        step: &Step,
        name: &OsStr,
        rest: &[Step],
        links: usize,
    ) {
        let real = dir.join(name);
        let shown = if step.shown { shown.join(name) } else { shown.to_owned() };
        super::seam();
        let Ok(meta) = fs::symlink_metadata(&real) else {
            return self.watch(dir, step);
        };
        if meta.is_symlink() {
            self.watch(dir, step);
            if let (Ok(target), true) = (fs::read_link(&real), links < MAX_LINKS) {
                self.follow(dir, &shown, &target, rest, links + 1);
            }
        } else if rest.is_empty() {
            self.watch(dir, step);
            if meta.is_file() {
                self.files.insert(shown, real);
            }
        } else if meta.is_dir() {
            self.walk(&real, &shown, rest, links);
        } else {
            self.watch(dir, step);
        }
    }

    fn follow(&mut self, dir: &Path, shown: &Path, target: &Path, rest: &[Step], links: usize) {
        let Ok(mut all) = steps(target, false) else { return };
        all.extend_from_slice(rest);
        let from = if target.is_absolute() { Path::new("/") } else { dir };
        self.walk(from, shown, &all, links);
    }

    fn watch(&mut self, dir: &Path, step: &Step) {
        let names = self.dirs.entry(dir.to_owned()).or_default();
        if !names.contains(&step.name) {
            names.push(step.name.clone());
        }
    }
}

/// Wildcards mean what they mean to a shell: none of them matches a leading dot.
fn matching(dir: &Path, pattern: &Pattern, last: bool) -> Vec<std::ffi::OsString> {
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
    let entries = fs::read_dir(dir).into_iter().flatten();
    let names = entries.filter_map(io::Result::ok).map(|entry| entry.file_name());
    names
        .filter(|name| {
            let text = name.to_string_lossy();
            pattern.matches_with(&text, options) && !(last && names::is_rotation(&text))
        })
        .collect()
}

/// `shown`: the operator wrote it, and may have meant wildcards.
fn steps(path: &Path, shown: bool) -> Result<Vec<Step>, String> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    });
    names
        .map(|name| {
            let text = name.to_string_lossy();
            let wild = shown && text.contains(['*', '?', '[']);
            let text = if wild { text.into_owned() } else { Pattern::escape(&text) };
            let literal = (!wild).then(|| name.as_bytes().to_vec());
            let name = Pattern::new(&text).map_err(|error| error.to_string())?;
            Ok(Step { name, literal, shown })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn files(pattern: &Path) -> Vec<String> {
        let resolved = Target::new(pattern).unwrap().resolve();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        resolved
            .files
            .iter()
            .map(|(shown, real)| format!("{}={}", name(shown), name(real)))
            .collect()
    }

    #[test]
    fn globs_skip_rotations_and_hidden_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log", "b.log", "a.log.1", "a.log.2.gz", ".c.log", "d.txt"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(files(&dir.path().join("*.log*")), ["a.log=a.log", "b.log=b.log"]);
        assert_eq!(files(&dir.path().join("[ab].log")), ["a.log=a.log", "b.log=b.log"]);
        assert_eq!(files(&dir.path().join("a.log.1")), ["a.log.1=a.log.1"]);
        assert_eq!(files(&dir.path().join("no/such/*.log")), Vec::<String>::new());
    }

    #[test]
    fn links_are_followed_and_their_directories_watched() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("v1/deep")).unwrap();
        fs::write(root.join("v1/deep/real"), "").unwrap();
        symlink("v1", root.join("current")).unwrap();
        symlink("../current/deep/real", root.join("v1/log")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(files(&root.join("current/log")), ["log=real"]);
        assert_eq!(files(&root.join("loop")), Vec::<String>::new());
        let dirs = Target::new(&root.join("current/log")).unwrap().resolve().dirs;
        let named = |at: &str, name: &str| {
            dirs.get(&root.join(at)).is_some_and(|all| all.iter().any(|p| p.matches(name)))
        };
        assert!(named("", "current") && named("v1", "log") && named("v1/deep", "real"), "{dirs:?}");
        assert!(!named("", "v1"), "a plain directory on the way is watched for its own fate only");
    }

    #[test]
    fn what_is_missing_is_watched_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let dirs = Target::new(&root.join("later/x.log")).unwrap().resolve().dirs;
        assert!(dirs[&root].iter().any(|name| name.matches("later")));
    }

    #[test]
    fn bad_paths() {
        for path in ["relative/log", "/", "/var/log/[a"] {
            assert!(Target::new(Path::new(path)).is_err(), "{path}");
        }
    }
}
