//! The database file: opens it, knows whose it is, and brings its schema up to date.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Error;

/// `PRAGMA application_id` of our files: "ban1".
const APPLICATION_ID: i64 = 0x6261_6e31;
/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_millis(200);
/// The write-ahead log shrinks to this once it was written back.
const WAL_LIMIT: i64 = 16 << 20;

/// One step each; `PRAGMA user_version` counts those that were made. Never change one that was
/// released: add another. Each makes or changes a table: a number that the tables do not bear out
/// is taken for damage.
const MIGRATIONS: &[&str] = &[FIRST, COUNTS, GROUNDS, LISTS, DEEDS, ORDERS];

const FIRST: &str = "
    CREATE TABLE boots (id INTEGER PRIMARY KEY, boot_id TEXT NOT NULL UNIQUE);
    -- One row for each live claim. until: ms since 1970, NULL: permanent. boot_until: the same
    -- instant in ms of the boot clock, true during that boot whatever happens to the wall clock.
    CREATE TABLE claims (
        prefix TEXT NOT NULL, holder TEXT NOT NULL, ports TEXT NOT NULL,
        since INTEGER NOT NULL, until INTEGER, boot INTEGER NOT NULL, boot_until INTEGER,
        PRIMARY KEY (prefix, holder, ports)
    ) WITHOUT ROWID;
    -- How often a holder has banned a prefix, and when last (ms since 1970).
    CREATE TABLE history (
        prefix TEXT NOT NULL, holder TEXT NOT NULL,
        bans INTEGER NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (prefix, holder)
    ) WITHOUT ROWID;
    CREATE INDEX history_last ON history (last);
    -- Why the last ban was given. lines: as the attacker wrote them, one a line.
    CREATE TABLE evidence (
        prefix TEXT NOT NULL, holder TEXT NOT NULL,
        at INTEGER NOT NULL, failures INTEGER NOT NULL, reason TEXT, lines BLOB NOT NULL,
        PRIMARY KEY (prefix, holder)
    );
    CREATE INDEX evidence_at ON evidence (at);
    CREATE TABLE positions (origin TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
";

const COUNTS: &str = "
    -- What each jail has counted at the recorded positions (ms of log time since 1970).
    CREATE TABLE counts (
        jail TEXT NOT NULL, prefix TEXT NOT NULL,
        failures INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (jail, prefix)
    ) WITHOUT ROWID;
    -- What was let go by hand (an empty text: all of them), and when (ms since 1970): lines from
    -- before that ban it no more.
    CREATE TABLE pardons (
        prefix TEXT NOT NULL, holder TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (prefix, holder)
    ) WITHOUT ROWID;
";

const GROUNDS: &str = "
    -- How long that ban was to last, in ms (NULL: for ever, or not known), and the fields of its last
    -- failure as the attacker wrote them: a JSON object.
    ALTER TABLE evidence ADD COLUMN bantime INTEGER;
    ALTER TABLE evidence ADD COLUMN fields TEXT NOT NULL DEFAULT '{}';
";

const LISTS: &str = "
    -- Claims by hand, on all ports, that were made together and end together: as in `claims`, where
    -- none of them is. prefixes: in order from first to last, packed (store/lists.rs).
    CREATE TABLE lists (
        id INTEGER PRIMARY KEY, first TEXT NOT NULL, last TEXT NOT NULL,
        since INTEGER NOT NULL, until INTEGER, boot INTEGER NOT NULL, boot_until INTEGER,
        prefixes BLOB NOT NULL
    );
";

const DEEDS: &str = "
    -- What was done, a row each: at and until in ms since 1970, prefix '' where it is about none, by as a
    -- JSON object (NULL: a log line, or the agent itself).
    CREATE TABLE deeds (
        at INTEGER NOT NULL, what TEXT NOT NULL, prefix TEXT NOT NULL, holder TEXT NOT NULL,
        until INTEGER, failures INTEGER NOT NULL, reason TEXT, by TEXT
    );
    CREATE INDEX deeds_at ON deeds (at);
    CREATE INDEX deeds_prefix ON deeds (prefix, at);
";

const ORDERS: &str = "
    -- What an operator has ordered at run time (ms since 1970; until NULL: until it is taken back).
    CREATE TABLE orders (
        kind TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER,
        reason TEXT, by TEXT, PRIMARY KEY (kind, name)
    ) WITHOUT ROWID;
";

/// An open database that is ours and up to date.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
    /// It was made just now: whatever was known is not in it.
    pub(super) fresh: bool,
    /// Number of this boot in `boots`.
    pub(super) boot: i64,
    file: (u64, u64),
}

impl Database {
    /// Opens the file for writing; makes it if there is none.
    pub(super) fn open(path: &Path) -> Result<Database, Error> {
        make_directory(path)?;
        make_file(path)?;
        let error = |source| Error::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(error)?;
        connection.busy_timeout(BUSY).map_err(error)?;
        let fresh = check_owner(&connection, path)?;
        hide(path)?;
        prepare(&connection, fresh).map_err(error)?;
        mend(&connection).map_err(error)?;
        migrate(&connection).map_err(error)?;
        let boot = this_boot(&connection).map_err(error)?;
        let file = identity(path).map_err(|source| Error::File {
            doing: "look at",
            path: path.to_owned(),
            source,
        })?;
        Ok(Database { connection, fresh, boot, file })
    }

    /// Whether the path still leads to the file that is open.
    pub(super) fn is_in_place(&self, path: &Path) -> bool {
        identity(path).is_ok_and(|file| file == self.file)
    }
}

/// Opens the file for reading only; also where nothing can be written, a full or read-only disk.
/// Not to be kept there: nobody else can open it meanwhile.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match open_with(path, path, flags, &[]) {
        Err(Error::Open { source, .. }) if cannot_write(&source) => {}
        other => return other,
    }
    // Without room for the index of its write-ahead log: alone with the file, SQLite keeps that
    // in memory (<https://sqlite.org/wal.html#noshm>).
    let alone = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match open_with(path, path, alone, &[("locking_mode", "EXCLUSIVE"), ("query_only", "1")]) {
        Err(Error::Open { source, .. }) if cannot_write(&source) => {}
        other => return other,
    }
    let flags = flags | OpenFlags::SQLITE_OPEN_URI;
    open_with(path, Path::new(&immutable(path)), flags, &[])
}

fn open_with(
    path: &Path,
    name: &Path,
    flags: OpenFlags,
    pragmas: &[(&str, &str)],
) -> Result<Connection, Error> {
    let error = |source| Error::Open { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(name, flags).map_err(error)?;
    connection.busy_timeout(BUSY).map_err(error)?;
    // nothing is sorted that is large, and the agent may write to no other folder
    let memory = ("temp_store", "MEMORY");
    for (pragma, value) in pragmas.iter().chain([&memory]) {
        connection.pragma_update(None, pragma, value).map_err(error)?;
    }
    check_owner(&connection, path)?;
    Ok(connection)
}

/// Whether the file's content is beyond use.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether another process holds the file.
pub(super) fn is_locked(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Renames the file and what SQLite keeps beside it, so that a new one can take its place;
/// returns the new name.
pub(super) fn move_aside(path: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = with(suffix);
    for part in ["", "-wal", "-shm"] {
        let (from, to) = (with(part), with(&format!("{suffix}{part}")));
        match fs::rename(&from, to) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::File { doing: "rename", path: from, source });
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    if directory.exists() {
        return Ok(());
    }
    let error = |source| Error::File { doing: "make", path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(error)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(error)
}

/// Makes the file, if there is none, for nobody else to read: it names attackers and holds what
/// they wrote. SQLite makes its other files like it.
fn make_file(path: &Path) -> Result<(), Error> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            // a full or read-only disk, for example: SQLite says so, and is asked again
            log::debug!("cannot make {}: {source}", path.display());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Takes a file of ours away from others, should an earlier version have made it.
fn hide(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { doing: "look at", path: path.to_owned(), source };
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        let mode = match fs::metadata(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(failed)?.permissions().mode(),
        };
        if mode & 0o077 != 0
            && let Err(error) = fs::set_permissions(&name, fs::Permissions::from_mode(0o600))
        {
            log::warn!("others may read {}: {error}", Path::new(&name).display());
        }
    }
    Ok(())
}

/// What is at the path, if it can be the state.
///
/// # Errors
/// If it is no file: a FIFO would hold up whoever opens it.
pub(super) fn check_kind(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(Error::NotAFile(path.to_owned())),
        _ => Ok(()),
    }
}

/// Whether the file is empty; an error if it is another program's, or a later version's.
fn check_owner(connection: &Connection, path: &Path) -> Result<bool, Error> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let error = |source| Error::Open { path: path.to_owned(), source };
    let version = pragma("user_version").map_err(error)?;
    let owner = pragma("application_id").map_err(error)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(error)?;
    if tables == 0 && version == 0 {
        return Ok(true);
    }
    let known = known();
    if (owner != APPLICATION_ID || version != known) && is_current(connection).map_err(error)? {
        log::error!(
            "the head of {} is damaged (schema {version}, owner {owner:#x}), its tables are as they \
             should be: going on with them",
            path.display()
        );
        return Ok(false);
    }
    if owner != APPLICATION_ID {
        return Err(Error::Foreign(path.to_owned()));
    }
    if version > known {
        return Err(Error::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(false)
}

fn prepare(connection: &Connection, fresh: bool) -> rusqlite::Result<()> {
    if fresh {
        // Has to come before the first table and before WAL.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A reported ban survives a power cut: WAL is synced with every commit.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_LIMIT, |_| Ok(()))
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Whether the tables are those of this version, whatever number the file bears.
fn is_current(connection: &Connection) -> rusqlite::Result<bool> {
    let ours = Connection::open_in_memory()?;
    migrate(&ours)?;
    let tables = |connection: &Connection| {
        let mut rows = connection
            .prepare("SELECT name, coalesce(sql, '') FROM sqlite_master ORDER BY name")?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<(String, String)>>>()
    };
    Ok(tables(connection)? == tables(&ours)?)
}

/// Gives the file its numbers back, if they are damaged.
fn mend(connection: &Connection) -> rusqlite::Result<()> {
    let known = known();
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if (pragma("user_version")?, pragma("application_id")?) != (known, APPLICATION_ID)
        && is_current(connection)?
    {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {known}; COMMIT;"
        ))?;
    }
    Ok(())
}

fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    for (number, migration) in (1i64..).zip(MIGRATIONS) {
        if number > version {
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {migration}
                 PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
            ))?;
        }
    }
    Ok(())
}

/// This boot's number in `boots`; boots that no claim remembers are forgotten.
fn this_boot(connection: &Connection) -> rusqlite::Result<i64> {
    let boot_id = boot_id();
    let known = "SELECT id FROM boots WHERE boot_id = ?1";
    let find = || connection.query_row(known, [&boot_id], |row| row.get(0));
    match find() {
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            connection.execute("INSERT INTO boots (boot_id) VALUES (?1)", [&boot_id])?;
            find()
        }
        other => other,
    }
}

/// The kernel's name of this boot; empty if it has none to tell.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// SQLite cannot read a WAL database without making a file beside it, unless it is promised that
/// nobody writes.
fn cannot_write(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::DiskFull)
            | Some(ErrorCode::SystemIoFailure | ErrorCode::PermissionDenied)
    )
}

fn immutable(path: &Path) -> String {
    let name = path.to_string_lossy();
    let escaped = name.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{escaped}?immutable=1")
}
