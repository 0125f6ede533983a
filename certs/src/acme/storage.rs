//! Where the account and the certificates are kept: one folder on the edge's own disk.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::record::RECORD_BYTES_MAX;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// A temporary file has this in front of its name; what stands there after a crash is half written.
const UNFINISHED: &str = ".unfinished-";
/// The folder of entries that could not be read, inside the other.
const ASIDE: &str = "aside";

/// What keeps entries of bytes by name, durably; names are host names with `.record`, and `account-…`.
///
/// A wrong answer costs: a write that is reported done and is not loses a certificate at the next
/// start, which orders it again; an entry that is invented is found out by its checksum.
///
/// # Blocking
/// All methods wait for the disk.
pub trait Storage: Send + Sync + 'static {
    /// The names of all entries.
    ///
    /// # Errors
    /// The whole can't be read.
    fn names(&self) -> io::Result<Vec<String>>;

    /// The bytes of one entry; none when it is not there.
    ///
    /// # Errors
    /// It can't be read.
    fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>>;

    /// Puts an entry in place of what is there under its name, whole or not at all, and durably.
    ///
    /// # Errors
    /// It is not done; what was there stays.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Moves an entry out of the way without deleting it.
    ///
    /// # Errors
    /// It stays where it is.
    fn set_aside(&self, name: &str) -> io::Result<()>;

    /// Removes an entry; one that is not there is no error.
    ///
    /// # Errors
    /// It may still be there.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A folder with a file of mode 0600 for each entry.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder if it is not there, with mode 0700, and takes everybody else's rights to it
    /// away if it is.
    ///
    /// # Blocking
    /// Waits for the disk.
    ///
    /// # Errors
    /// It can't be made or changed.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&path)?;
        let mode = fs::metadata(&path)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(FOLDER_MODE))?;
        }
        let folder = Self { path };
        for name in folder.files()? {
            if name.starts_with(UNFINISHED) {
                fs::remove_file(folder.path.join(name))?;
            }
        }
        Ok(folder)
    }

    /// The folder as it is, which a running edge may be using; to read from.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn files(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // A name that is no text is none of ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn place(&self, name: &str) -> io::Result<PathBuf> {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !plain || name.starts_with('.') || name.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of an entry"));
        }
        Ok(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Storage for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.files()?;
        names.retain(|name| !name.starts_with('.'));
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        match read(&self.place(name)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(name)?;
        let unfinished = self.path.join(format!("{UNFINISHED}{name}"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&unfinished)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&unfinished, &place)) {
            // Whether this works or not: the next start removes it.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        self.sync()
    }

    fn set_aside(&self, name: &str) -> io::Result<()> {
        let place = self.place(name)?;
        let aside = self.path.join(ASIDE);
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&aside)?;
        // An earlier one of that name is overwritten, which bounds what is kept.
        fs::rename(place, aside.join(name))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.place(name)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    // Of full length from the start: a vector that grows leaves copies of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(RECORD_BYTES_MAX + 2));
    file.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn entries_are_written_for_the_owner_only() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("a/b");
        let folder = Folder::open(&path).expect("it is made");
        folder.write("click.brand.example.record", b"one").expect("it is written");
        folder.write("click.brand.example.record", b"two").expect("it is replaced");
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("click.brand.example.record")), 0o600);
        assert_eq!(folder.names().expect("they are read"), ["click.brand.example.record"]);
        let bytes = folder.read("click.brand.example.record").expect("readable").expect("there");
        assert_eq!(bytes.as_slice(), b"two");
        assert!(folder.read("other.brand.example.record").expect("readable").is_none());
    }

    #[test]
    fn rights_that_are_too_wide_are_taken_away() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("records");
        fs::create_dir(&path).expect("it is made");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is changed");
        fs::write(path.join("a.example.record"), "text").expect("it is written");
        fs::set_permissions(path.join("a.example.record"), Permissions::from_mode(0o644)).expect("changed");
        let folder = Folder::open(&path).expect("it is opened");
        folder.read("a.example.record").expect("it is read");
        assert_eq!((mode(&path), mode(&path.join("a.example.record"))), (0o700, 0o600));
    }

    #[test]
    fn what_a_crash_left_half_written_is_removed() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(scratch.path()).expect("it is opened");
        folder.write("a.example.record", b"whole").expect("it is written");
        fs::write(scratch.path().join(".unfinished-a.example.record"), "ha").expect("it is written");
        let folder = Folder::open(scratch.path()).expect("it is opened again");
        assert!(!scratch.path().join(".unfinished-a.example.record").exists());
        assert_eq!(folder.names().expect("they are read").len(), 1);
    }

    #[test]
    fn an_entry_is_set_aside_once_and_removed_twice() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(scratch.path()).expect("it is opened");
        folder.write("a.example.record", b"damaged").expect("it is written");
        folder.set_aside("a.example.record").expect("it is moved");
        assert_eq!(fs::read(scratch.path().join("aside/a.example.record")).expect("there"), b"damaged");
        assert!(folder.names().expect("they are read").is_empty());
        assert!(folder.set_aside("a.example.record").is_err());
        folder.remove("a.example.record").expect("nothing to do");
    }

    #[test]
    fn names_can_not_leave_the_folder() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(scratch.path()).expect("it is opened");
        for name in ["", ".", "..", "../a", "/etc/a", ".hidden", "a/b", "a\0b"] {
            assert!(folder.write(name, b"x").is_err(), "{name:?}");
        }
    }
}
