//! `DATA_DIR`: a folder for one owner, and for one receiver at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::Failure;

const RECEIVER_LOCK: Lock = Lock { file: "receiver.lock", owner: "a receiver or a demo" };
const WITNESS_LOCK: Lock = Lock { file: "witness.lock", owner: "a witness" };
const HOLDER_FILE: &str = "receiver_id";
/// 128 random bits, in hexadecimal.
const HOLDER_SIZE: usize = 32;

/// Who has a folder to itself. A receiver and a witness share no file, so they can share a folder.
struct Lock {
    file: &'static str,
    owner: &'static str,
}

/// The data folder, taken: no other receiver has it while this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Makes the folder where it is missing, readable to its owner alone, and takes it.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be written, or another receiver has it.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        Self::lock(path, &RECEIVER_LOCK)
    }

    /// Takes the folder for a witness.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be written, or another witness has it.
    pub fn take_for_witness(path: &Path) -> Result<Self, Failure> {
        Self::lock(path, &WITNESS_LOCK)
    }

    fn lock(path: &Path, kind: &Lock) -> Result<Self, Failure> {
        make_private(path).map_err(|error| not_writable(path, &error))?;
        let file = path.join(kind.file);
        let mut lock = private_file().open(&file).map_err(|error| not_writable(path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(path, &mut lock, kind.owner)),
            Err(TryLockError::Error(error)) => {
                return Err(Failure::failed(format!("{} cannot be locked: {error}", file.display()))
                    .with_hint("set DATA_DIR to a folder on a local disk"));
            }
        }
        // For people, and for the words of `taken`.
        let note = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        note.map_err(|error| not_writable(path, &error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Returns by what name the receivers of this folder hold the right to seal. It is made once, so that a receiver
    /// that was killed need not wait for its own right to expire.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or written.
    pub fn holder(&self) -> Result<String, Failure> {
        let file = self.path.join(HOLDER_FILE);
        match fs::read_to_string(&file) {
            Ok(text) if is_holder(text.trim()) => return Ok(text.trim().to_owned()),
            Ok(_) => {
                return Err(Failure::failed(format!("{} does not hold a receiver's id", file.display()))
                    .with_hint("delete the file: the next start makes a new one"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::failed(format!("{} cannot be read: {error}", file.display())));
            }
        }
        let holder = draw_holder()?;
        // The name appears with the whole content behind it, or not at all.
        let unfinished = file.with_extension("new");
        let write = || {
            let mut new = private_file().truncate(true).open(&unfinished)?;
            writeln!(new, "{holder}")?;
            new.sync_all()?;
            fs::rename(&unfinished, &file)
        };
        write().map_err(|error| not_writable(&self.path, &error))?;
        Ok(holder)
    }
}

fn is_holder(text: &str) -> bool {
    text.len() == HOLDER_SIZE && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn draw_holder() -> Result<String, Failure> {
    let mut bytes = [0; HOLDER_SIZE / 2];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::failed("the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn taken(path: &Path, lock: &mut File, kind: &str) -> Failure {
    let mut text = String::new();
    // Who has just taken it may not have written its number yet.
    let _ = lock.read_to_string(&mut text);
    let owner = match text.trim() {
        "" => "another process".to_owned(),
        id => format!("process {id}"),
    };
    Failure::failed(format!("DATA_DIR={} is in use by {owner}, {kind}", path.display()))
        .with_hint("stop that one, or set DATA_DIR to another folder")
}

fn not_writable(path: &Path, error: &io::Error) -> Failure {
    if path.is_file() {
        return Failure::failed(format!("DATA_DIR={} is a file", path.display()))
            .with_hint("set DATA_DIR to a folder");
    }
    Failure::failed(format!("DATA_DIR={} cannot be written: {error}", path.display()))
        .with_hint("set DATA_DIR to a folder that this user may write to, and that is not full")
}

/// Makes a folder, with those above it, for its owner alone.
#[cfg(unix)]
pub fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a folder, with those above it.
#[cfg(not(unix))]
pub fn make_private(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Opens for reading and writing, and makes a file that is missing readable to its owner alone.
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = DataDir::take(&path).unwrap();
        let refused = format!("{:?}", DataDir::take(&path).unwrap_err());
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        DataDir::take(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        DataDir::take(&path).unwrap().holder().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!((mode(&path.join(RECEIVER_LOCK.file)), mode(&path.join(HOLDER_FILE))), (0o600, 0o600));
    }

    #[test]
    fn the_holder_is_drawn_once() {
        let folder = tempfile::tempdir().unwrap();
        let holder = || DataDir::take(folder.path()).unwrap().holder();
        let first = holder().unwrap();
        assert!(is_holder(&first), "{first}");
        assert_eq!(holder().unwrap(), first);
        fs::write(folder.path().join(HOLDER_FILE), "short").unwrap();
        assert!(format!("{:?}", holder().unwrap_err()).contains("delete the file"));
        fs::remove_file(folder.path().join(HOLDER_FILE)).unwrap();
        assert_ne!(holder().unwrap(), first);
    }
}
