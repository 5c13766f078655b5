//! The shipped filters, as they lie in `dist/shipped/`, and what `dist/samples/` holds for each
//! service: found by looking into the folders, so that none can be forgotten.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    thread,
};

use ban_agent::{
    config::{self, Config},
    filter::{Filter, Scanner, Spec},
};
use jiff::Timestamp;

/// One file of `dist/shipped/`.
pub(crate) struct Service {
    /// `KIND/NAME`.
    pub(crate) name: String,
    /// Names of its filters.
    pub(crate) filters: Vec<String>,
    /// Its samples: all files of that service that end with `.log`.
    pub(crate) logs: Vec<Log>,
}

/// A sample log.
pub(crate) struct Log {
    /// `KIND/NAME`, `KIND/NAME.VARIANT`, with `.inject` or `.normal` behind it.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) text: Vec<u8>,
    /// Its failures, one a line: `LINE FILTER ADDRESS TIME [USER]`; none are told of normal traffic.
    pub(crate) expected: Option<String>,
}

/// Filters, and the address that each is to find.
pub(crate) type Told<'a> = Vec<(&'a str, &'a str)>;

/// What a sample log is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Attack,
    Normal,
    Inject,
}

impl Log {
    pub(crate) fn kind(&self) -> Kind {
        match self.name.rsplit('.').next() {
            Some("normal") => Kind::Normal,
            Some("inject") => Kind::Inject,
            _ => Kind::Attack,
        }
    }

    /// Its lines, and of each what its expectations say: filter and address.
    pub(crate) fn lines(&self) -> Vec<(&[u8], Told<'_>)> {
        let mut told: BTreeMap<usize, Told<'_>> = BTreeMap::new();
        for line in self.expected.iter().flat_map(|text| text.lines()) {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_else(|| panic!("{}: {line}", self.name));
            let number: usize = word().parse().expect(line);
            told.entry(number).or_default().push((word(), word()));
        }
        let lines = self.text.split_inclusive(|byte| *byte == b'\n');
        let told = |number| told.get(&number).cloned().unwrap_or_default();
        lines.enumerate().map(|(at, line)| (line, told(at + 1))).collect()
    }
}

fn dist(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(folder)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = read.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// The files of `dist/shipped/`: `KIND/NAME`, and where it lies.
fn files() -> Vec<(String, PathBuf)> {
    let name = |path: &Path, above: usize| {
        let part = path.iter().rev().nth(above).expect("a name");
        part.to_str().expect("UTF-8").to_owned()
    };
    let files = entries(&dist("shipped")).into_iter().flat_map(|kind| entries(&kind));
    let files = files
        .map(|path| (format!("{}/{}", name(&path, 1), name(&path, 0).replace(".toml", "")), path));
    files.collect()
}

/// All that is shipped, with each jail on. Read from the folder, so that a changed file needs no
/// new build.
pub(crate) fn config() -> &'static Config {
    static LOADED: LazyLock<Config> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.toml");
        fs::write(&path, "").expect("config.toml");
        fs::create_dir(folder.path().join("conf.d")).expect("conf.d");
        let mut raw = String::new();
        for (name, file) in files() {
            let copy = folder.path().join(format!("conf.d/{}.toml", name.replace('/', "-")));
            fs::copy(&file, copy).expect(&name);
            let text = fs::read_to_string(&file).expect(&name);
            let table: toml::Table = text.parse().expect(&name);
            let names = table.get("jails").and_then(toml::Value::as_table).expect(&name).keys();
            raw.extend(names.map(|name| format!("[jails.{name}]\nraw_log = true\n")));
        }
        fs::write(folder.path().join("conf.d/raw.toml"), raw).expect("raw.toml");
        config::load(&path).unwrap_or_else(|error| panic!("{error:?}"))
    });
    &LOADED
}

/// All services but the one that reads the agent's own bans: that has no log.
pub(crate) fn services() -> &'static [Service] {
    static FOUND: LazyLock<Vec<Service>> = LazyLock::new(|| {
        let mut services = Vec::new();
        for (name, path) in files().into_iter().filter(|(name, _)| name != "network/recidive") {
            let text = fs::read_to_string(&path).expect(&name);
            let table: toml::Table = text.parse().expect(&name);
            let filters = table.get("filters").and_then(toml::Value::as_table).expect(&name);
            let (kind, service) = name.split_once('/').expect("a kind");
            let logs = match dist("samples").join(kind) {
                folder if folder.is_dir() => entries(&folder),
                _ => Vec::new(),
            };
            let logs = logs.iter().filter_map(|path| {
                let stem = path.file_name()?.to_str()?.strip_suffix(".log")?;
                (stem.split('.').next() == Some(service)).then(|| Log {
                    name: format!("{kind}/{stem}"),
                    text: fs::read(path).expect(stem),
                    expected: fs::read_to_string(path.with_extension("expect")).ok(),
                })
            });
            let logs = logs.collect();
            services.push(Service { filters: filters.keys().cloned().collect(), logs, name });
        }
        services
    });
    &FOUND
}

/// A shipped filter at work, compiled once; the samples were written in UTC.
pub(crate) fn scanner(name: &str) -> Scanner {
    static COMPILED: LazyLock<BTreeMap<String, Arc<Filter>>> = LazyLock::new(|| {
        let specs: Vec<_> = config().filters.iter().collect();
        let compile = |(name, spec): &(&String, &Arc<Spec>)| {
            let spec = Spec { logtimezone: Some("UTC".into()), ..Spec::clone(spec) };
            let filter = Filter::compile(&spec).unwrap_or_else(|error| panic!("{error}"));
            ((*name).clone(), Arc::new(filter))
        };
        thread::scope(|scope| {
            let parts: Vec<_> = specs
                .chunks(specs.len().div_ceil(2))
                .map(|part| scope.spawn(move || part.iter().map(compile).collect::<Vec<_>>()))
                .collect();
            parts.into_iter().flat_map(|part| part.join().expect("filters compile")).collect()
        })
    });
    Scanner::new(Arc::clone(COMPILED.get(name).unwrap_or_else(|| panic!("no filter {name}"))))
}

/// When the last of the samples were made.
pub(crate) fn made() -> Timestamp {
    let text = fs::read_to_string(dist("samples/made")).expect("made");
    text.trim().parse().expect("a time stamp")
}
