//! Joins the files of a configuration: includes, `.d` folders, `.local` twins. Later files win,
//! and what they replaced stays known as `%(known/key)s`. `%(…)s` is resolved here.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Error,
    ini::{self, Section, Value},
};

/// Interpolations inside interpolations; more is a circle.
const MAX_DEPTH: usize = 10;

/// Joined files.
#[derive(Debug, Default)]
pub(super) struct Config {
    sections: BTreeMap<String, Section>,
    /// The values that later ones replaced.
    known: BTreeMap<String, Section>,
    /// The files, in the order in which they were read.
    pub files: Vec<PathBuf>,
}

/// Values that are asked before the configuration: options of a jail or of its filter.
pub(super) type Vars = BTreeMap<String, String>;

impl Config {
    /// Reads `base.conf`, `base.d/*.conf`, `base.local`, `base.d/*.local` and what they include;
    /// false if none exists.
    pub(super) fn read(&mut self, base: &Path) -> Result<bool, Error> {
        let folder = suffixed(base, ".d");
        let mut paths = vec![suffixed(base, ".conf")];
        paths.extend(listed(&folder, "conf")?);
        paths.push(suffixed(base, ".local"));
        paths.extend(listed(&folder, "local")?);
        paths.retain(|path| path.exists());
        if paths.is_empty() {
            return Ok(false);
        }
        self.read_all(&paths, &mut Vec::new())?;
        Ok(true)
    }

    fn read_all(&mut self, paths: &[PathBuf], above: &mut Vec<PathBuf>) -> Result<(), Error> {
        for path in paths {
            self.read_one(path, above)?;
            let local = path.with_extension("local");
            if !paths.contains(&local) && local.is_file() {
                self.read_one(&local, above)?;
            }
        }
        Ok(())
    }

    /// Reads one file between what it includes before and after it; one that does not exist is
    /// no error, as operators name files that may come.
    fn read_one(&mut self, path: &Path, above: &mut Vec<PathBuf>) -> Result<(), Error> {
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        let file =
            ini::parse(path, &text).map_err(|(place, what)| Error::Syntax { place, what })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let included = |key: &str| -> Vec<PathBuf> {
            let value = file.get("INCLUDES").and_then(|section| section.get(key));
            let lines = value.iter().flat_map(|value| value.text.lines());
            lines
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(|line| folder.join(line))
                .collect()
        };
        let (mut before, mut after) = (included("before"), included("after"));
        above.push(path.to_owned());
        before.retain(|path| !above.contains(path));
        after.retain(|path| !above.contains(path));
        self.read_all(&before, above)?;
        self.files.push(path.to_owned());
        self.merge(file);
        self.read_all(&after, above)?;
        above.pop();
        Ok(())
    }

    fn merge(&mut self, file: ini::File) {
        for (name, section) in file {
            // `[Init?family=inet6]` is a condition on the keys of [Init].
            let (name, condition) = match name.split_once('?') {
                Some((base, condition)) => (base.to_owned(), format!("?{condition}")),
                None => (name, String::new()),
            };
            let merged = self.sections.entry(name.clone()).or_default();
            for (key, value) in section {
                let key = key + &condition;
                if let Some(replaced) = merged.insert(key.clone(), value) {
                    self.known.entry(name.clone()).or_default().insert(key, replaced);
                }
            }
        }
    }

    /// Names of the sections.
    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// Returns all values as they were written, the replaced ones, too.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let sections = self.sections.values().chain(self.known.values());
        sections.flat_map(Section::values).map(|value| value.text.as_str())
    }

    /// Returns the keys that a section itself has.
    pub(super) fn keys(&self, section: &str) -> impl Iterator<Item = &str> {
        self.sections
            .get(section)
            .into_iter()
            .flat_map(|section| section.keys().map(String::as_str))
    }

    /// Adds a value, unless one is there, to a section.
    pub(super) fn add(&mut self, section: &str, key: &str, value: Value) {
        self.sections.entry(section.to_owned()).or_default().entry(key.to_owned()).or_insert(value);
    }

    /// Returns a value as written, of the section or of `[DEFAULT]`.
    pub(super) fn raw(&self, section: &str, key: &str) -> Option<&Value> {
        let get = |name: &str| self.sections.get(name).and_then(|section| section.get(key));
        get(section).or_else(|| get("DEFAULT"))
    }

    /// Returns a resolved value; `None` if there is none.
    pub(super) fn get(
        &self,
        section: &str,
        key: &str,
        vars: &Vars,
    ) -> Result<Option<Value>, Error> {
        if let Some(text) = vars.get(key) {
            let place = self.raw(section, key).map_or_else(nowhere, |value| value.place.clone());
            return Ok(Some(Value { text: text.clone(), place }));
        }
        let Some(value) = self.raw(section, key) else { return Ok(None) };
        let text = self.interpolate(section, key, value, vars, 0)?;
        Ok(Some(Value { text, place: value.place.clone() }))
    }

    /// Returns the value that a `<section/key>` or `<key>` tag of a definition names.
    pub(super) fn tag(&self, name: &str, vars: &Vars) -> Result<Option<String>, Error> {
        let section = "Definition";
        if let Some((from, key)) = name.split_once('/') {
            let key = key.to_lowercase();
            let value = if from.eq_ignore_ascii_case("known") {
                self.known.get(section).and_then(|known| known.get(&key))
            } else {
                self.sections.get(from).and_then(|section| section.get(&key))
            };
            if let Some(value) = value {
                return self.interpolate(from, &key, value, &Vars::new(), 0).map(Some);
            }
            if let Some(value) = self.raw(from, &key) {
                return self.interpolate(section, &key, value, vars, 0).map(Some);
            }
        }
        Ok(self.get(section, &name.to_lowercase(), vars)?.map(|value| value.text))
    }

    /// Replaces `%(…)s` and `%%` in a value.
    fn interpolate(
        &self,
        section: &str,
        key: &str,
        value: &Value,
        vars: &Vars,
        depth: usize,
    ) -> Result<String, Error> {
        let bad = |what: String| Error::Value {
            place: value.place.clone(),
            section: section.to_owned(),
            key: key.to_owned(),
            what,
        };
        if depth > MAX_DEPTH {
            return Err(bad("its %(…)s refer to each other in a circle".to_owned()));
        }
        let mut out = String::new();
        let mut rest = value.text.as_str();
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            if let Some(tail) = after.strip_prefix('%') {
                out.push('%');
                rest = tail;
            } else if let Some((name, tail)) =
                after.strip_prefix('(').and_then(|after| after.split_once(")s"))
            {
                match self.variable(section, name, vars) {
                    None => return Err(bad(format!("%({name})s is not defined"))),
                    Some(Found::Text(text)) => out.push_str(&text),
                    Some(Found::Value(value)) => {
                        out.push_str(&self.interpolate(section, key, value, vars, depth + 1)?);
                    }
                }
                rest = tail;
            } else {
                return Err(bad("a '%' has to be written '%%', or to begin a %(name)s".to_owned()));
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn variable<'c>(&'c self, section: &str, name: &str, vars: &Vars) -> Option<Found<'c>> {
        if name == "__name__" {
            return Some(Found::Text(section.to_owned()));
        }
        let lower = name.to_lowercase();
        if let Some(text) = vars.get(&lower) {
            return Some(Found::Text(text.clone()));
        }
        if let Some(value) = self.raw(section, &lower) {
            return Some(Found::Value(value));
        }
        let (from, key) = name.split_once('/')?;
        let key = key.to_lowercase();
        if from.eq_ignore_ascii_case("known") {
            let known = self.known.get(section).and_then(|known| known.get(&key));
            return known.or_else(|| self.raw("DEFAULT", &key)).map(Found::Value);
        }
        self.raw(from, &key).map(Found::Value)
    }
}

enum Found<'c> {
    /// To be taken as it is.
    Text(String),
    /// To be resolved further.
    Value(&'c Value),
}

fn nowhere() -> ini::Place {
    ini::Place { file: Path::new("").into(), line: 0 }
}

fn suffixed(base: &Path, suffix: &str) -> PathBuf {
    let mut path = base.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Returns the files of a folder with this extension, by name; none if there is no folder.
fn listed(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: folder.to_owned(), source }),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}
