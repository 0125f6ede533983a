//! Creating and opening a database file, and holding the open file against its path.

use super::deadline::Deadline;
use super::migrations::{MIGRATIONS, SCHEMA, take};
use super::{Access, Database, Error, Fault, Identity, Place, name};
use crate::event::UnixMillis;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// The first SQLite without the WAL-reset bug (two connections writing and checkpointing at once).
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// Creating takes no locks that anybody else could hold; the bound is for a hopelessly slow disk.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages in the write-ahead log before a commit moves them into the file: 64 MiB, so that catching
/// up after an outage syncs the file every few batches instead of at each.
const CHECKPOINT_PAGES: u32 = 16 * 1024;
/// What the log is cut back to when it starts anew after a long read transaction let it grow.
const LOG_BYTES_KEPT: u32 = 64 * 1024 * 1024;
/// A batch of delivery (16 MiB of events) fits, so that no page is written twice for it.
const CACHE_KIB: u32 = 64 * 1024;

/// A file whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// The write-ahead log and its index, which SQLite finds by name only. After the database file was
/// replaced they still belong to the old one, and SQLite would play them into the new one.
#[derive(Debug, Default)]
pub(super) struct Sidecars {
    log: Cell<Option<FileId>>,
    index: Cell<Option<FileId>>,
}

/// Makes a new database with an identity of its own. It appears under its name complete or not at
/// all, readable by its owner only, for it will hold people's addresses.
///
/// # Errors
/// [`Error::Refused`] when something stands under that name already.
pub fn create(path: &Path, now: UnixMillis) -> Result<Database, Error> {
    let doing = "creating it";
    let unfinished = beside(path, ".unfinished");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        match fs::remove_file(beside(&unfinished, suffix)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(path, doing, e)),
            _ => {}
        }
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(|e| Error::io(path, doing, e))?;
    build(&unfinished, now).map_err(|e| Error::of(path, doing, e))?;
    let here = rustix::fs::CWD;
    rustix::fs::renameat_with(here, &unfinished, here, path, rustix::fs::RenameFlags::NOREPLACE).map_err(
        |e| match e {
            rustix::io::Errno::EXIST => {
                let what = "to be created: there is a file of that name already";
                Error::Refused(Fault::new(name(path), what))
            }
            e => Error::io(path, doing, e.into()),
        },
    )?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(path, doing, e))?;
    open(path, Access::ReadWrite, CREATE_TIMEOUT)
}

/// Opens a database that is there, of a schema that this release can use.
///
/// # Errors
/// [`Error::Missing`] where there is no file, which is not created; [`Error::NotOurs`] where it is
/// empty or somebody else's; [`Error::Unavailable`] where it is locked longer than `timeout`.
pub fn open(path: &Path, access: Access, timeout: Duration) -> Result<Database, Error> {
    let sqlite = rusqlite::version_number();
    if sqlite < SQLITE_VERSION_MIN {
        return Err(Error::not_ours_file(
            path,
            format!("SQLite {} loses data, 3.51.3 is needed", rusqlite::version()),
        ));
    }
    let before = stat(path)?;
    let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags |= match access {
        Access::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    // Absolute, so that no relative name can be read as a `file:` URI.
    let absolute = std::path::absolute(path).map_err(|e| Error::io(path, "opening it", e))?;
    let mut connection =
        Connection::open_with_flags(absolute, flags).map_err(|e| Error::of(path, "opening it", e))?;
    let deadline = Deadline::bind(&mut connection, timeout).map_err(|e| Error::of(path, "opening it", e))?;
    if stat(path)?.0 != before.0 {
        return Err(replaced(path, "was replaced while it was opened"));
    }
    // Looked at before it is set up: setting up writes, and an empty file is a fault that stays empty.
    let (uuid, schema) = recognise(&connection, path)?;
    settle(&connection, path, access)?;
    let database = Database {
        connection,
        deadline,
        path: path.into(),
        file: before.0,
        sidecars: Sidecars::default(),
        uuid,
        schema,
        version_seen: None,
    };
    database.check_identity()?;
    Ok(database)
}

impl Database {
    /// Which database this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let FileId { device, inode } = self.file;
        Identity { uuid: self.uuid, place: Place::File { device, inode } }
    }

    /// Holds the open file against its path.
    ///
    /// When another file stands there, the write-ahead log of the old one, which SQLite would play
    /// into the new one at the next opening, is renamed to `*.orphaned-<inode>` beside it.
    ///
    /// # Errors
    /// [`Error::Replaced`] when the path leads to another file, an empty one or none.
    pub fn check_identity(&self) -> Result<(), Error> {
        match stat(&self.path) {
            Err(Error::Missing(_)) => {
                Err(replaced(&self.path, "was moved away or deleted while it was open"))
            }
            Err(other) => Err(other),
            Ok((file, bytes)) if file != self.file || bytes == 0 => Err(match self.set_aside_sidecars() {
                Ok(()) if file == self.file => replaced(&self.path, "was emptied while it was open"),
                Ok(()) => replaced(&self.path, "was replaced by another file while it was open"),
                Err(e) => Error::Replaced(
                    Fault::new(
                        name(&self.path),
                        "was replaced or emptied while it was open; the `-wal` and `-shm` files \
                         beside it belong to the old one and could not be renamed: move them away",
                    )
                    .because(e),
                ),
            }),
            Ok(_) => {
                self.sidecars.log.set(sidecar(&beside(&self.path, "-wal")));
                self.sidecars.index.set(sidecar(&beside(&self.path, "-shm")));
                Ok(())
            }
        }
    }

    /// Keeps the write-ahead log out of whatever stands at the path now: SQLite would otherwise play it
    /// in, when the file is opened again or this connection is closed.
    fn set_aside_sidecars(&self) -> io::Result<()> {
        self.connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(io::Error::other)?;
        for (suffix, ours) in [("-wal", &self.sidecars.log), ("-shm", &self.sidecars.index)] {
            let name = beside(&self.path, suffix);
            let found = sidecar(&name);
            if found.is_some() && found == ours.get() {
                fs::rename(&name, beside(&name, &format!(".orphaned-{}", self.file.inode)))?;
            }
        }
        Ok(())
    }
}

fn build(path: &Path, now: UnixMillis) -> rusqlite::Result<()> {
    let mut connection = Connection::open_with_flags(
        std::path::absolute(path).unwrap_or_else(|_| path.into()),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let _deadline = Deadline::bind(&mut connection, CREATE_TIMEOUT)?;
    connection.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    for step in MIGRATIONS {
        take(&mut connection, step)?;
    }
    let random: [u8; 16] = connection.query_row("SELECT randomblob(16)", (), |row| row.get(0))?;
    let uuid = uuid::Builder::from_random_bytes(random).into_uuid().to_string();
    let created_at = i64::try_from(now.0).unwrap_or(i64::MAX);
    connection.execute(
        "INSERT INTO meta (key, value) VALUES ('uuid', ?1), ('created_at', ?2)",
        (uuid, created_at),
    )?;
    connection.close().map_err(|(_, e)| e)
}

/// Sets what rule 29 asks for and reads it back.
fn settle(connection: &Connection, path: &Path, access: Access) -> Result<(), Error> {
    let failed = |e| Error::of(path, "setting it up", e);
    if access == Access::ReadWrite {
        // A dump that was read back is not in WAL mode; the mode then stays with the file.
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0)).map_err(failed)?;
        expect(path, "journal_mode", &mode, "wal")?;
    }
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
             PRAGMA journal_size_limit = {LOG_BYTES_KEPT}; PRAGMA mmap_size = 0"
        ))
        .map_err(failed)?;
    for (name, wanted) in [("synchronous", 2), ("mmap_size", 0)] {
        let found: i64 = connection.pragma_query_value(None, name, |row| row.get(0)).map_err(failed)?;
        expect(path, name, &found.to_string(), &wanted.to_string())?;
    }
    Ok(())
}

fn expect(path: &Path, name: &str, found: &str, wanted: &str) -> Result<(), Error> {
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(Error::not_ours_file(path, format!("{name} is {found} and can't be set to {wanted}")))
}

/// Reads whose database this is, and of which schema.
fn recognise(connection: &Connection, path: &Path) -> Result<(Uuid, u32), Error> {
    let doing = "reading what it is";
    let tables =
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('meta', 'links', 'hits')";
    let tables: u32 =
        connection.query_row(tables, (), |row| row.get(0)).map_err(|e| Error::of(path, doing, e))?;
    if tables < 3 {
        return Err(Error::not_ours_file(
            path,
            "it lacks Holdfast's tables (`holdfast init` makes a database)",
        ));
    }
    let meta =
        "SELECT (SELECT value FROM meta WHERE key = 'uuid'), (SELECT value FROM meta WHERE key = 'schema'),
                       (SELECT value FROM meta WHERE key = 'compatible')";
    let (uuid, schema, compatible) = connection
        .query_row(meta, (), |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?, row.get::<_, u32>(2)?))
        })
        .map_err(|e| Error::of(path, doing, e))?;
    let Ok(uuid) = Uuid::parse_str(&uuid) else {
        return Err(Error::not_ours_file(path, format!("its identity {uuid:?} is no uuid")));
    };
    if compatible > SCHEMA {
        let why =
            format!("its schema {schema} is for releases that know {compatible}, this one knows {SCHEMA}");
        return Err(Error::not_ours_file(path, why));
    }
    Ok((uuid, schema))
}

fn replaced(path: &Path, how: &'static str) -> Error {
    Error::Replaced(Fault::new(name(path), how))
}

/// The file under a path, and its length.
fn stat(path: &Path) -> Result<(FileId, u64), Error> {
    match fs::metadata(path) {
        Ok(found) => Ok((FileId { device: found.dev(), inode: found.ino() }, found.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Error::Missing(Fault::new(name(path), "").because(e)))
        }
        Err(e) => Err(Error::io(path, "looking for it", e)),
    }
}

fn sidecar(path: &Path) -> Option<FileId> {
    stat(path).ok().map(|(file, _)| file)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
