//! Reads `jail.conf` and its family into [`crate::jail::Spec`]s.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use super::{
    Error, Loaded, Unsupported,
    action::{self, Whose},
    filter::{self, Resolved},
    increment,
    ini::{Place, Value},
    merge::Config,
    options::{self, Call},
    services::Services,
    words::{self, Words},
};
use crate::{
    action::Spec as Run,
    jail::{Limits, Rules, Spec},
    memory,
    net::{Ports, Translators},
    source,
};

/// The filter of fail2ban's own log.
const RECIDIVE: &str = "recidive";

/// Backends that follow files.
const BACKENDS: [&str; 5] = ["", "auto", "pyinotify", "gamin", "polling"];

/// Loads the jails of `dir`.
pub(super) fn load(dir: &Path) -> Result<Loaded, Error> {
    let mut config = Config::default();
    let built_in =
        |text: String| Value { text, place: Place { file: dir.join("jail.conf").into(), line: 0 } };
    config.add("DEFAULT", "fail2ban_confpath", built_in(dir.display().to_string()));
    config.add("DEFAULT", "fail2ban_version", built_in("1.0.2".to_owned()));
    if !config.read(&dir.join("jail"))? {
        return Err(Error::NoJails(dir.to_owned()));
    }
    let mut loaded = Loaded { files: config.files.clone(), ..Loaded::default() };
    let services = Services::system();
    let names: Vec<String> = config
        .sections()
        .filter(|name| !matches!(*name, "INCLUDES" | "DEFAULT"))
        .map(str::to_owned)
        .collect();
    for name in names {
        let words = Words { config: &config, name: &name };
        let mut reader = Reader {
            dir,
            services: &services,
            unsupported: Vec::new(),
            inverted: false,
            skipped: false,
        };
        match words.flag("enabled", false) {
            Ok(false) => loaded.disabled.push(name),
            // one that makes no sense stops no other
            Err(error) => loaded.refused.push((name, error)),
            Ok(true) => match reader.jail(&mut config, &name) {
                Ok(_) if reader.skipped => loaded.disabled.push(name),
                Err(error) => loaded.refused.push((name, error)),
                Ok(_) if reader.inverted => loaded.disabled.push(name),
                Ok(jail) => loaded.jails.push(jail),
            },
        }
        loaded.unsupported.append(&mut reader.unsupported);
    }
    words::unknown(&config, &mut loaded);
    Ok(loaded)
}

/// Reads one jail.
pub(super) struct Reader<'l> {
    dir: &'l Path,
    services: &'l Services,
    unsupported: Vec<Unsupported>,
    /// The jail lets addresses in instead of banning them.
    inverted: bool,
    /// It has nothing to read, and is not to run then.
    skipped: bool,
}

/// Where the lines of a jail are.
struct Backend {
    journal: bool,
    /// Its files, or the journal if there are none.
    auto: bool,
    /// What journalctl is told besides the matches.
    options: Vec<String>,
}

impl Reader<'_> {
    fn jail(&mut self, config: &mut Config, name: &str) -> Result<Spec, Error> {
        let words = Words { config, name };
        let backend = self.backend(&words)?;
        let call = words.value("filter")?.map_or_else(|| name.to_owned(), |value| value.text);
        let call = options::parse(&call)
            .map_err(|what| words.bad("filter", format!("'{call}': {what}")))?;
        let mut filter = if call.name.is_empty() {
            filter::none(name, words.place("filter"))
        } else {
            filter::read(self.dir, &call, backend.journal)?
        };
        for (place, what) in std::mem::take(&mut filter.unused) {
            let place = place.unwrap_or_else(|| words.place("filter"));
            let what = format!("filter '{}': {what}", filter.name);
            self.unsupported.push(Unsupported { place, jail: name.to_owned(), what });
        }
        // A jail may refer to its filter's words as %(known/failregex)s.
        for (word, text) in &filter.known {
            let value = Value { text: text.replace('%', "%%"), place: filter.place.clone() };
            config.add(name, &format!("known/{word}"), value);
        }
        let words = Words { config, name };
        self.override_words(&words, &mut filter)?;
        if filter.words.get("failregex").is_none_or(|text| text.trim().is_empty())
            && call.name != RECIDIVE
        {
            let what = "no failregex: this jail only holds what is banned by hand";
            self.note(&words, "filter", what.to_owned());
        }
        let zone = words.text("logtimezone")?;
        let maxretry = words.number("maxretry", 5_u32)?.max(1);
        let (ports, actions) = self.actions(&words)?;
        let (ignoreip, lookup) = self.ignoreip(&words)?;
        let (filter, sources) = if call.name == RECIDIVE {
            self.recidive(&words)
        } else {
            (filter::spec(&filter, zone)?, self.sources(&words, &filter, &backend)?)
        };
        let rules = Rules {
            name: name.into(),
            filter: Arc::new(filter),
            maxretry: Some(maxretry),
            distinct: BTreeMap::new(),
            count_by: None,
            findtime: words
                .duration("findtime", Some(Duration::from_secs(600)))?
                .ok_or_else(|| words.bad("findtime", "has to end".to_owned()))?,
            bantime: words.duration("bantime", Some(Duration::from_secs(600)))?,
            increment: increment::read(&words)?,
            bans: ports.is_some(),
            ports: ports.unwrap_or_default(),
            ignoreip,
            lookup,
            // fail2ban has no word for them
            proxies: Vec::new(),
            ignorecommand: self.ignorecommand(&words)?,
            prefix_v4: 32,
            prefix_v6: 128,
            translators: Translators::default(),
            maxmatches: words.number("maxmatches", usize::try_from(maxretry).unwrap_or(5))?,
            max_tracked: memory::max_tracked(),
            widen: None,
            extend: None,
            limits: Limits::default(),
        };
        self.rest(&words)?;
        Ok(Spec { rules, sources, raw_log: false, actions })
    }

    /// The jail that reads fail2ban's own log counts our bans: nobody writes that log any more.
    fn recidive(&mut self, words: &Words<'_>) -> (crate::filter::Spec, Vec<source::Spec>) {
        let what = "filter 'recidive' counts the bans of this agent: no log is read for it";
        self.note(words, "filter", what.to_owned());
        let filter = crate::filter::Spec {
            name: RECIDIVE.to_owned(),
            failregex: vec![source::BAN_LINE.to_owned()],
            maxlines: 1,
            ..crate::filter::Spec::default()
        };
        (filter, vec![source::Spec::Bans])
    }

    fn backend(&mut self, words: &Words<'_>) -> Result<Backend, Error> {
        let text = words.text("backend")?.unwrap_or_default();
        let call = options::parse(&text).map_err(|what| words.bad("backend", what))?;
        let journal = call.name == "systemd";
        let auto = matches!(call.name.as_str(), "" | "auto");
        if !journal && !BACKENDS.contains(&call.name.as_str()) {
            let what =
                format!("backend = {text}: not known; its files are followed as they change");
            self.note(words, "backend", what);
        }
        let mut options = Vec::new();
        for (option, value) in &call.options {
            let known = (journal || auto).then(|| journalctl(option, value)).flatten();
            let Some(mut known) = known else {
                let what = format!(
                    "backend = {}: its option {option} = {value} is without effect",
                    call.name
                );
                self.note(words, "backend", what);
                continue;
            };
            options.append(&mut known);
        }
        Ok(Backend { journal, auto, options })
    }

    /// Words of the filter that the jail sets itself.
    fn override_words(&mut self, words: &Words<'_>, filter: &mut Resolved) -> Result<(), Error> {
        for word in filter::WORDS {
            if let Some(value) = words.value(word)? {
                filter.words.insert(word.to_owned(), value.text);
            }
        }
        let usedns = filter.words.get("usedns").map(|text| text.trim().to_lowercase());
        let by_default = words.config.raw(words.name, "usedns").is_none_or(|value| {
            words.config.raw("DEFAULT", "usedns").is_some_and(|default| default == value)
        });
        match usedns.as_deref() {
            None | Some("no" | "warn" | "raw") => {}
            // What fail2ban ships as its default is nobody's wish.
            Some(_) if by_default => {}
            Some(other) => {
                let what = format!(
                    "usedns = {other}: host names in logs are never resolved, because an attacker chooses them"
                );
                self.note(words, "usedns", what);
            }
        }
        Ok(())
    }

    fn sources(
        &mut self,
        words: &Words<'_>,
        filter: &Resolved,
        backend: &Backend,
    ) -> Result<Vec<source::Spec>, Error> {
        if backend.journal {
            let journal = in_journal(filter, backend);
            journal.check().map_err(|fault| words.bad("backend", fault.to_string()))?;
            return Ok(vec![journal]);
        }
        let mut sources = Vec::new();
        let text = words.text("logpath")?.unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (path, start) = match line.rsplit_once(' ') {
                Some((path, "tail")) => (path.trim(), source::Start::End),
                Some((path, "head")) => (path.trim(), source::Start::Beginning),
                _ => (line, source::Start::Beginning),
            };
            let source = source::Spec::File { path: path.into(), start };
            source.check().map_err(|fault| words.bad("logpath", fault.to_string()))?;
            sources.push(source);
        }
        let matched = filter.words.get("journalmatch").is_some_and(|text| !text.trim().is_empty());
        let somewhere = sources.iter().any(source::Spec::is_there);
        if backend.auto && !somewhere && matched && words.flag("systemd_if_nologs", true)? {
            return Ok(vec![in_journal(filter, backend)]);
        }
        if !sources.is_empty() && !somewhere && words.flag("skip_if_nologs", false)? {
            let what = "no log file: skip_if_nologs leaves this jail out until the next reload";
            self.note(words, "logpath", what.to_owned());
            self.skipped = true;
        }
        if sources.is_empty() {
            self.note(words, "logpath", "no logpath: this jail reads nothing".to_owned());
        }
        if let Some(encoding) = words.text("logencoding")?
            && !["auto", "utf-8", "utf8", "ascii", "us-ascii"]
                .contains(&encoding.to_lowercase().as_str())
        {
            let what =
                format!("logencoding = {encoding}: lines are read as UTF-8, other bytes as U+FFFD");
            self.note(words, "logencoding", what);
        }
        Ok(sources)
    }

    /// Returns the ports of the ban (`None`: no action bans), and the actions that are run.
    fn actions(&mut self, words: &Words<'_>) -> Result<(Option<Ports>, Vec<Arc<Run>>), Error> {
        let mut banactions = Vec::new();
        for key in ["banaction", "banaction_allports"] {
            if let Some(text) = words.text(key)?
                && let Ok(call) = options::parse(&text)
            {
                banactions.push(call.name);
            }
        }
        let mut ports: Option<Ports> = None;
        let mut runs: Vec<Arc<Run>> = Vec::new();
        for text in options::split(&words.text("action")?.unwrap_or_default()) {
            let call: Call = options::parse(&text)
                .map_err(|what| words.bad("action", format!("'{text}': {what}")))?;
            let whose = action::whose(self.dir, &call, &banactions)?;
            if whose != Whose::Ours {
                match self.run(words, &call)? {
                    Some(run) if runs.iter().any(|other| other.name == run.name) => {
                        let what = format!(
                            "action '{}' is there twice: give one of them another actname",
                            run.name
                        );
                        self.note(words, "action", what);
                    }
                    run => runs.extend(run),
                }
            }
            if whose == Whose::None {
                continue;
            }
            if let Some(option) = action::inverts(&call) {
                let what = format!(
                    "action '{}' with {option} lets addresses in instead of banning them: this jail does not run",
                    call.name
                );
                self.note(words, "action", what);
                self.inverted = true;
            }
            let mut own = action::ports(&call, self.services)
                .map_err(|what| words.bad("action", format!("{}: {what}", call.name)))?;
            if !own.is_empty()
                && let Some(chain) = action::translated(self.dir, &call)?
            {
                let what = format!(
                    "action '{}': chain {chain} sees ports once they are translated, and the wire \
                     has those that are published: addresses are banned on all ports",
                    call.name
                );
                self.note(words, "action", what);
                own = Ports::new();
            }
            ports = Some(match ports {
                None => own,
                // Two actions ban what either bans.
                Some(other) if other.is_empty() || own.is_empty() => Ports::new(),
                Some(mut other) => {
                    other.extend(own);
                    other.sort();
                    other.dedup();
                    other
                }
            });
        }
        Ok((ports, runs))
    }

    /// An action that is run; listed if it cannot be.
    fn run(&mut self, words: &Words<'_>, call: &Call) -> Result<Option<Arc<Run>>, Error> {
        let mut notes = Vec::new();
        let read = action::read(self.dir, call, words.name, &mut |place, what| {
            notes.push(Unsupported { place, jail: words.name.to_owned(), what });
        })?;
        self.unsupported.append(&mut notes);
        match read {
            action::Read::Commands(spec) => Ok(Some(Arc::new(*spec))),
            action::Read::Not(why) => {
                self.note(words, "action", format!("action '{}' {why}", call.name));
                Ok(None)
            }
        }
    }

    /// Words that we know of and do not follow.
    fn rest(&mut self, words: &Words<'_>) -> Result<(), Error> {
        if words.text("ignorecache")?.is_some() && words.text("ignorecommand")?.is_none() {
            let what = "ignorecache without an ignorecommand: there is nothing slow to keep";
            self.note(words, "ignorecache", what.to_owned());
        }
        if !words.flag("ignoreself", true)? {
            let what =
                "ignoreself = false: the host's own addresses are never banned by a log line";
            self.note(words, "ignoreself", what.to_owned());
        }
        Ok(())
    }

    /// Lists something that is not followed.
    pub(super) fn note(&mut self, words: &Words<'_>, key: &str, what: String) {
        let jail = words.name.to_owned();
        self.unsupported.push(Unsupported { place: words.place(key), jail, what });
    }
}

/// Returns the journal with the matches of a filter or jail.
fn in_journal(filter: &Resolved, backend: &Backend) -> source::Spec {
    let mut all = backend.options.clone();
    let matches = filter.words.get("journalmatch").map_or("", String::as_str);
    let lines = matches.lines().map(str::trim).filter(|line| !line.is_empty());
    for (number, line) in lines.enumerate() {
        if number > 0 {
            all.push("+".to_owned());
        }
        all.extend(line.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()));
    }
    source::Spec::Journal { matches: all }
}

/// Returns an option of the backend as journalctl has it; `None`: it has none like it.
fn journalctl(option: &str, value: &str) -> Option<Vec<String>> {
    let split = |key: &str| -> Vec<String> {
        let values = value.split([',', ' ', '\n']).filter(|value| !value.is_empty());
        values.map(|value| format!("--{key}={value}")).collect()
    };
    Some(match option {
        "journalpath" => vec![format!("--directory={value}")],
        "journalfiles" => split("file"),
        "namespace" => vec![format!("--namespace={value}")],
        // rotated files are always read
        "rotated" => Vec::new(),
        // sd_journal_open(3): which journals are opened
        "journalflags" => {
            let mut flags: u32 = value.trim().parse().ok()?;
            let mut options = Vec::new();
            for (flag, option) in [
                (1, None),
                (2, Some("--directory=/run/log/journal")),
                (4, Some("--system")),
                (8, Some("--user")),
                (32, Some("--namespace=*")),
            ] {
                if flags & flag != 0 {
                    flags &= !flag;
                    options.extend(option.map(str::to_owned));
                }
            }
            if flags != 0 {
                return None;
            }
            options
        }
        _ => return None,
    })
}
