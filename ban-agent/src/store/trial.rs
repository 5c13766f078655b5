//! What became of a start on trial (`run --grace`), in a small file beside the state: it has to
//! be readable where SQLite is not, and by people.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a later start has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trial", rename_all = "lowercase")]
pub enum Record {
    /// The operator has not confirmed yet.
    Running {
        /// When it was begun, by the wall clock.
        from: Timestamp,
        /// Until when the operator may.
        until: Timestamp,
    },
    /// The operator did not.
    Lapsed {
        /// Since when nothing is enforced.
        at: Timestamp,
    },
    /// The operator did.
    Confirmed {
        /// When.
        at: Timestamp,
    },
}

/// Returns the file beside the state `state`.
#[must_use]
pub fn path(state: &Path) -> PathBuf {
    state.with_extension("trial")
}

/// Returns what the file says; `None` if there is none.
///
/// # Errors
/// If it cannot be read, or makes no sense.
pub fn load(path: &Path) -> io::Result<Option<Record>> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces what it says: all of it, or nothing, also if the machine dies meanwhile.
///
/// # Errors
/// As the file system says.
pub fn save(path: &Path, record: &Record) -> io::Result<()> {
    let new = path.with_extension("trial.new");
    let mut file = fs::File::create(&new)?;
    let text = serde_json::to_string(record).map_err(io::Error::other)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_and_junk_is_an_error() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = path(&folder.path().join("state.sqlite"));
        assert_eq!(load(&file).unwrap(), None);
        let (from, until) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(300).unwrap());
        let records = [
            Record::Running { from, until },
            Record::Lapsed { at: until },
            Record::Confirmed { at: until },
        ];
        for record in records {
            save(&file, &record).unwrap();
            assert_eq!(load(&file).unwrap(), Some(record));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        fs::write(&file, "\0\0\0").unwrap();
        assert!(load(&file).is_err());
    }
}
