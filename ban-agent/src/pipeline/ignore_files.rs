//! Keeps what a jail's `ignoreip` says by name or in a file current. Only names from the
//! configuration are ever looked up, never one from a log; who cannot be looked up keeps the
//! addresses that he had.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{net::lookup_host, sync::watch, time};

use super::worker::Counters;
use crate::{
    jail::{Ignored, Lookup},
    net::{self, IpNet},
};

/// How often files are looked at.
const FILES: Duration = Duration::from_secs(10);
/// How often names are, as a multiple of that: fail2ban's five minutes.
const NAMES: u32 = 30;
/// How long a name server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may at a start, for all names: lines wait for it.
const FIRST: Duration = Duration::from_secs(1);

/// `None` before the first look.
pub(crate) type Nets = Option<Arc<[IpNet]>>;

struct Keeper {
    jail: Arc<str>,
    lookup: Lookup,
    names: BTreeMap<String, Vec<IpNet>>,
    files: BTreeMap<PathBuf, Content>,
    troubles: BTreeMap<String, String>,
}

#[derive(Default)]
struct Content {
    stamp: Option<(SystemTime, u64)>,
    nets: Vec<IpNet>,
    names: Vec<String>,
}

/// Starts looking for a jail; ends when the receiver is dropped.
pub(crate) fn start(
    jail: Arc<str>,
    lookup: &Lookup,
    counters: Arc<Counters>,
) -> watch::Receiver<Nets> {
    let (sender, receiver) = watch::channel(None);
    let mut keeper = Keeper {
        jail,
        lookup: lookup.clone(),
        names: BTreeMap::new(),
        files: BTreeMap::new(),
        troubles: BTreeMap::new(),
    };
    tokio::spawn(async move {
        let mut tick = time::interval(FILES);
        let mut late = false;
        for round in 0_u32.. {
            tokio::select! {
                _ = tick.tick(), if !late => {}
                () = sender.closed() => return,
                () = std::future::ready(()), if late => {}
            }
            // a list may lie on a file system that does not answer
            let looking = tokio::task::spawn_blocking(move || {
                let changed = keeper.look_at_files();
                (keeper, changed)
            });
            let Ok((back, changed)) = looking.await else { return };
            keeper = back;
            let looking = keeper.look_up_names(changed || round % NAMES == 0);
            let patience = if round == 0 { FIRST } else { Duration::MAX };
            // who is not known by then comes in the next round, which begins at once
            late = time::timeout(patience, looking).await.is_err();
            let nets: Nets = Some(keeper.nets().into());
            sender.send_if_modified(|current| {
                let differ = *current != nets;
                current.clone_from(&nets);
                differ
            });
            let troubles: Vec<&str> = keeper.troubles.values().map(String::as_str).collect();
            *counters.lookup.lock().unwrap_or_else(PoisonError::into_inner) = troubles.join("; ");
        }
    });
    receiver
}

impl Keeper {
    fn nets(&self) -> Vec<IpNet> {
        let files = self.files.values().flat_map(|content| &content.nets);
        let mut nets: Vec<IpNet> = files.chain(self.names.values().flatten()).copied().collect();
        nets.sort();
        nets.dedup();
        nets
    }

    /// Returns whether one has changed.
    fn look_at_files(&mut self) -> bool {
        let mut changed = false;
        for path in self.lookup.files.clone() {
            let stamp = fs::metadata(&path)
                .and_then(|data| Ok((data.modified()?, data.len())))
                .map_err(|error| error.to_string());
            let known = self.files.entry(path.clone()).or_default();
            let subject = path.display().to_string();
            let read = match stamp {
                Ok(stamp) if known.stamp == Some(stamp) => continue,
                Ok(stamp) => fs::read_to_string(&path)
                    .map_err(|error| error.to_string())
                    .and_then(|text| content(&text))
                    .map(|content| Content { stamp: Some(stamp), ..content }),
                Err(error) => Err(error),
            };
            match read {
                Ok(content) => {
                    *known = content;
                    changed = true;
                    self.sound(&subject);
                }
                Err(error) => self.trouble(subject, &error),
            }
        }
        changed
    }

    /// All names, or those alone that are not known, or could not be looked up the last time.
    async fn look_up_names(&mut self, all: bool) {
        let named = self.files.values().flat_map(|content| content.names.clone());
        let names: BTreeSet<String> = self.lookup.names.iter().cloned().chain(named).collect();
        self.names.retain(|name, _| names.contains(name));
        for name in names {
            if !all && self.names.contains_key(&name) && !self.troubles.contains_key(&name) {
                continue;
            }
            let answer = lookup_host((name.as_str(), 0));
            let found = time::timeout(PATIENCE, async {
                answer.await.map(|all| all.map(|one| net::host(one.ip())).collect())
            })
            .await;
            match found
                .map_err(|_| "no answer".to_owned())
                .and_then(|found| found.map_err(|error| error.to_string()))
            {
                Ok(nets) => {
                    self.sound(&name);
                    self.names.insert(name, nets);
                }
                Err(error) => self.trouble(name, &error),
            }
        }
    }

    fn sound(&mut self, subject: &str) {
        if self.troubles.remove(subject).is_some() {
            log::info!("[{}] ignoreip: {subject} can be read again", self.jail);
        }
    }

    fn trouble(&mut self, subject: String, error: &str) {
        let text = format!("ignoreip: {subject}: {error}");
        if self.troubles.get(&subject) != Some(&text) {
            log::warn!("[{}] {text}; what was known of it stays", self.jail);
            self.troubles.insert(subject, text);
        }
    }
}

/// Returns all of a file, or what is wrong with it.
fn content(text: &str) -> Result<Content, String> {
    let mut content = Content::default();
    for word in Ignored::words(text) {
        match Ignored::parse(word).map_err(|error| error.to_string())? {
            Ignored::Net(net) => content.nets.push(net),
            Ignored::Name(name) => content.names.push(name),
            Ignored::File(path) => return Err(format!("names another file, {}", path.display())),
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    fn keeper(lookup: Lookup) -> Keeper {
        Keeper {
            jail: "door".into(),
            lookup,
            names: BTreeMap::new(),
            files: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_kept_when_it_is_gone() {
        let lookup = Lookup { names: vec!["localhost".into(), "x.invalid".into()], files: vec![] };
        let mut keeper = keeper(lookup);
        keeper.look_up_names(true).await;
        assert!(texts(&keeper.nets()).contains(&"127.0.0.1/32".to_owned()), "{:?}", keeper.nets());
        assert!(keeper.troubles.contains_key("x.invalid"), "{:?}", keeper.troubles);
        keeper.names.insert("x.invalid".into(), vec!["192.0.2.9/32".parse().unwrap()]);
        keeper.look_up_names(true).await;
        assert!(texts(&keeper.nets()).contains(&"192.0.2.9/32".to_owned()), "forgotten");
    }

    #[test]
    fn a_file_is_read_again_when_it_changes_and_kept_when_it_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, "192.0.2.1 # one\nlocalhost, 2001:db8::/32\n").unwrap();
        let mut keeper = keeper(Lookup { names: vec![], files: vec![path.clone()] });
        assert!(keeper.look_at_files());
        assert!(!keeper.look_at_files(), "nothing has changed");
        assert_eq!(keeper.files[&path].names, ["localhost"]);
        let first = texts(&keeper.nets());
        assert_eq!(first, ["192.0.2.1/32", "2001:db8::/32"]);

        fs::write(&path, "192.0.2.400\n").unwrap();
        assert!(!keeper.look_at_files());
        assert_eq!(texts(&keeper.nets()), first);
        assert_eq!(keeper.troubles.len(), 1);
        fs::write(&path, "192.0.2.2\n192.0.2.3\n").unwrap();
        assert!(keeper.look_at_files());
        assert_eq!(texts(&keeper.nets()), ["192.0.2.2/32", "192.0.2.3/32"]);
        assert!(keeper.troubles.is_empty());
        fs::remove_file(&path).unwrap();
        keeper.look_at_files();
        assert_eq!((keeper.nets().len(), keeper.troubles.len()), (2, 1));
    }
}
