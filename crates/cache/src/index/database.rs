//! The database file: opened, made, brought up to date, and replaced when it is damaged.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use rustix::fs::FlockOperation;

use super::schema::MIGRATIONS;
use super::uses::UsesFile;
use crate::disk_error::{DiskError, OnPath};
use crate::lock::open_lock_file;

/// How long a writer waits for other processes' writes, which take microseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a write-ahead log may be that is left for the next process, in bytes.
const MAX_LEFT_LOG: u64 = 128 * 1024;

/// The index of a store. Clones are the same index.
#[derive(Clone, Debug)]
pub struct Index(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    connection: Mutex<Connection>,
    /// Records that were used, and how often, since that was last written. Losing it costs little: it only orders what is collected.
    pub(super) used: Mutex<HashMap<i64, i64>>,
    uses: UsesFile,
    /// Makes the next opening replace the database.
    damaged_mark: PathBuf,
    /// The write-ahead log.
    log: PathBuf,
}

/// Something that the user should know but that does not keep the index from working.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexWarning {
    /// The database was damaged and a new one was made.
    #[error(
        "the index of the store was damaged and was made anew: cached steps run again, and of the local \
         images only {images} were found in it (it is kept as `{}`)",
        aside.display()
    )]
    Replaced {
        /// Where the damaged one is now.
        aside: PathBuf,
        /// How many names of images could be read from it.
        images: usize,
    },
}

/// The index cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A newer rbuild has written it.
    #[error("the index has version {found}, this rbuild knows up to {known}: use the newer rbuild")]
    Newer {
        /// Its version.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// It turned out to be damaged while it was used.
    #[error("the index of the store is damaged; the next start of rbuild makes a new one")]
    Damaged(#[source] rusqlite::Error),
    /// The database.
    #[error("cannot {action} the index of the store")]
    Database {
        /// What was being done: a verb.
        action: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// `SQLITE_IOERR_SHMSIZE`: the file that processes share beside the log could not grow, which on a local file system
/// has no other cause than a full one.
const NO_ROOM_FOR_SHARED_MEMORY: i32 = 10 | (19 << 8);

impl IndexError {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(ErrorCode::DiskFull)
                    || source
                        .sqlite_error()
                        .is_some_and(|error| error.extended_code == NO_ROOM_FOR_SHARED_MEMORY)
            }
            Self::Disk(error) => error.is_full(),
            Self::Newer { .. } | Self::Damaged(_) => false,
        }
    }
}

impl Index {
    /// Opens the index of the store in `root`, making it if there is none. A damaged one is renamed aside.
    pub(crate) fn open(root: &Path) -> Result<(Self, Vec<IndexWarning>), IndexError> {
        let files = Files::new(root);
        let mut warnings = Vec::new();
        let connection = match files.open_current()? {
            Some(connection) => connection,
            None => files.prepare(&mut warnings)?,
        };
        let inner = Inner {
            connection: Mutex::new(connection),
            used: Mutex::default(),
            uses: UsesFile::new(root),
            damaged_mark: files.damaged_mark,
            log: root.join("index.db-wal"),
        };
        Ok((Self(Arc::new(inner)), warnings))
    }

    /// Runs statements that only read. One statement sees one state; several may see several.
    pub(super) fn read<T>(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        let connection = self.0.connection.lock().unwrap_or_else(PoisonError::into_inner);
        run(&connection).map_err(|source| self.0.failed("read", source))
    }

    /// Runs statements that only read and see one state, which also takes one lock for all of them.
    pub(super) fn read_at_once<T>(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        self.read(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let value = run(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Runs statements in one transaction, which is taken back when one fails.
    pub(super) fn write<T>(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        self.0.write(run)
    }

    /// Writes what was kept back. Dropping the index does so as well, but cannot say that it failed.
    pub fn flush(&self) -> Result<(), IndexError> {
        self.0.flush()
    }

    /// Brings what is known of the use of records up to date in the database.
    pub(super) fn settle_uses(&self) -> Result<(), IndexError> {
        self.flush()?;
        if !self.0.uses.exists() {
            return Ok(());
        }
        self.write(|connection| self.0.uses.take(connection))
    }
}

impl Inner {
    fn write<T>(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let written = (|| {
            // A read transaction that turns into a writing one cannot wait for other writers.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = run(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        written.map_err(|source| self.failed("write", source))
    }

    fn failed(&self, action: &'static str, source: rusqlite::Error) -> IndexError {
        if is_damage(&source) {
            // If the mark cannot be made, the next process finds the damage as this one did.
            let _ = File::create(&self.damaged_mark);
            return IndexError::Damaged(source);
        }
        IndexError::Database { action, source }
    }

    fn flush(&self) -> Result<(), IndexError> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return Ok(());
        }
        if self.uses.append(&used)? {
            self.write(|connection| self.uses.take(connection))?;
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If it fails, collection takes these records for older than they are.
        let _ = self.flush();
        // A long log is read whole by the process that opens it next; then flushing is the smaller cost.
        if std::fs::metadata(&self.log).is_ok_and(|log| log.len() > MAX_LEFT_LOG) {
            let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
            // If it fails, the log stays as it is.
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// The files of an index.
struct Files {
    database: PathBuf,
    damaged_mark: PathBuf,
    aside: PathBuf,
    lock: PathBuf,
}

impl Files {
    fn new(root: &Path) -> Self {
        Self {
            database: root.join("index.db"),
            damaged_mark: root.join("index.db-damaged"),
            aside: root.join("index.db.damaged"),
            lock: root.join("locks/index"),
        }
    }

    /// Opens the database if it is there, whole as far as its head says, and of this version: the usual case.
    fn open_current(&self) -> Result<Option<Connection>, IndexError> {
        if self.damaged_mark.exists() {
            return Ok(None);
        }
        match self.connect(OpenFlags::empty()) {
            Ok((connection, version)) => {
                let known = MIGRATIONS.len() as i64;
                match version {
                    found if found > known => Err(IndexError::Newer { found, known }),
                    found if found == known => Ok(Some(connection)),
                    _ => Ok(None),
                }
            }
            Err(error)
                if is_damage(&error)
                    || error.sqlite_error_code() == Some(ErrorCode::CannotOpen) =>
            {
                Ok(None)
            }
            Err(source) => Err(IndexError::Database { action: "open", source }),
        }
    }

    /// Makes, migrates or replaces the database, one process at a time.
    fn prepare(&self, warnings: &mut Vec<IndexWarning>) -> Result<Connection, IndexError> {
        let lock = open_lock_file(&self.lock)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).on_path("lock", &self.lock)?;
        // Another process may have done it meanwhile.
        if let Some(connection) = self.open_current()? {
            return Ok(connection);
        }
        let opened = if self.damaged_mark.exists() {
            None
        } else {
            match self.connect(OpenFlags::SQLITE_OPEN_CREATE) {
                Ok(opened) => Some(opened),
                Err(error) if is_damage(&error) => None,
                Err(source) => return Err(IndexError::Database { action: "open", source }),
            }
        };
        let opened = match opened {
            Some((mut connection, version)) => {
                match migrate(&mut connection, version, MIGRATIONS) {
                    Ok(()) => Some(connection),
                    Err(error) if is_damage(&error) => None,
                    Err(source) => return Err(IndexError::Database { action: "migrate", source }),
                }
            }
            None => None,
        };
        if let Some(connection) = opened {
            return Ok(connection);
        }
        self.set_aside()?;
        let make = || {
            let (mut connection, version) = self.connect(OpenFlags::SQLITE_OPEN_CREATE)?;
            migrate(&mut connection, version, MIGRATIONS)?;
            Ok(connection)
        };
        let connection =
            make().map_err(|source| IndexError::Database { action: "make", source })?;
        let images = super::images::salvage(&self.aside, &connection);
        warnings.push(IndexWarning::Replaced { aside: self.aside.clone(), images });
        Ok(connection)
    }

    /// Processes that have it open go on with the renamed file, undisturbed.
    fn set_aside(&self) -> Result<(), IndexError> {
        // The log goes first, and in place of an older one: a log is believed to belong to the file beside it.
        // Without a database, a process died just here, and what is aside is what it was about to save from.
        let suffixes = ["-wal", "-shm", ""].into_iter().filter(|_| self.database.exists());
        for suffix in suffixes {
            let with = |path: &Path| {
                let mut name = path.as_os_str().to_owned();
                name.push(suffix);
                PathBuf::from(name)
            };
            let (from, to) = (with(&self.database), with(&self.aside));
            absent(std::fs::remove_file(&to)).on_path("delete", &to)?;
            absent(std::fs::rename(&from, &to)).on_path("rename the damaged index", &from)?;
        }
        absent(std::fs::remove_file(&self.damaged_mark)).on_path("delete", &self.damaged_mark)?;
        Ok(())
    }

    /// Opens the database and reads its version.
    fn connect(&self, more: OpenFlags) -> rusqlite::Result<(Connection, i64)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let connection = Connection::open_with_flags(&self.database, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // The last process to close would write the log into the database and flush both, which takes
        // milliseconds, at the end of a build that did nothing. See `Inner::drop`.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 268435456;",
        )?;
        connection.set_prepared_statement_cache_capacity(64);
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((connection, version))
    }
}

/// Takes a file that is not there for one that was dealt with.
fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Runs the scripts that a database of this version lacks.
fn migrate(connection: &mut Connection, version: i64, scripts: &[&str]) -> rusqlite::Result<()> {
    // Stays in the file.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for script in scripts.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(script)?;
    }
    transaction.pragma_update(None, "user_version", scripts.len() as i64)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_databases_are_brought_up_to_date() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let first = "CREATE TABLE a (x)";
        let mut connection = Connection::open(&path).unwrap();
        migrate(&mut connection, 0, &[first]).unwrap();
        connection.execute("INSERT INTO a VALUES (7)", []).unwrap();
        // The first script would fail if it ran again.
        migrate(&mut connection, 1, &[first, "ALTER TABLE a ADD COLUMN y DEFAULT 8"]).unwrap();
        let row = connection.query_row("SELECT x, y FROM a", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        assert_eq!(row.unwrap(), (7, 8));
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 2);
        // What fails leaves everything as it was.
        migrate(&mut connection, 2, &["", "", "DROP TABLE a", "nonsense"]).unwrap_err();
        connection.query_row("SELECT x FROM a", [], |_| Ok(())).unwrap();
    }
}
