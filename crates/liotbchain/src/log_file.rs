//! `LOG_FILE`: a file that is put aside when it is full, so that a log never fills a disk.
//!
//! `liotbchain.log` becomes `liotbchain.log.1`, that one `liotbchain.log.2`, and so on; the oldest is deleted. This
//! file is the writing alone: that nobody waits for it is the business of [`crate::log_queue`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::data_dir::make_private;

/// A log file that this process has for itself.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    size_max: u64,
    files_max: u32,
    file: File,
    size: u64,
}

/// Why a log file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LogFileError {
    /// A pipe or a terminal cannot be put aside, and opening one may wait for ever.
    #[error("it is no regular file")]
    NotRegular,
    /// Of two processes each would put the other's file aside.
    #[error("another process logs to it")]
    InUse,
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl LogFile {
    /// Opens the file to write at its end, or makes it, and its folder, readable to its owner alone.
    ///
    /// # Errors
    ///
    /// [`LogFileError`].
    pub fn open(path: &Path, size_max: u64, files_max: u32) -> Result<Self, LogFileError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            make_private(folder)?;
        }
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(LogFileError::NotRegular);
        }
        let file = private_file().open(path)?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(LogFileError::InUse);
        }
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), size_max, files_max, file, size })
    }

    /// Returns where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a line whole or not at all, into a new file where the old one has no room for it.
    ///
    /// # Errors
    ///
    /// Where the disk is full, or the folder cannot be written. A later line may have more luck.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if length > self.size_max {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "a line is longer than LOG_FILE_SIZE_MAX"));
        }
        if self.size + length > self.size_max {
            self.rotate()?;
        }
        let written = self.file.write_all(line);
        match written {
            Ok(()) => self.size += length,
            // Half a line would run into the next one.
            Err(_) => _ = self.file.set_len(self.size),
        }
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        // First what may fail: where no file can be made, none is lost either.
        let new_path = self.path.with_added_extension("new");
        let new = private_file().open(&new_path)?;
        new.set_len(0)?;
        for number in (1..self.files_max).rev() {
            match fs::rename(self.numbered(number - 1), self.numbered(number)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&new_path, &self.path)?;
        // Nobody else knows the file yet, and a file system without locks has given none before.
        let _ = new.try_lock();
        (self.file, self.size) = (new, 0);
        Ok(())
    }

    /// Returns the path of the file that was put aside so many files ago.
    fn numbered(&self, number: u32) -> PathBuf {
        match number {
            0 => self.path.clone(),
            number => self.path.with_added_extension(number.to_string()),
        }
    }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn keeps_so_many_files_of_so_many_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.log");
        let mut log = LogFile::open(&path, 10, 3).unwrap();
        for number in 0..9 {
            log.write(format!("line{number}").as_bytes()).unwrap();
        }
        assert_eq!(names(path.parent().unwrap()), ["a.log", "a.log.1", "a.log.2"]);
        assert_eq!(text(&path), "line8");
        assert_eq!(text(&log.numbered(1)), "line6line7");
        assert_eq!(text(&log.numbered(2)), "line4line5");
    }

    #[test]
    fn one_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut log = LogFile::open(&path, 10, 1).unwrap();
        for number in 0..3 {
            log.write(format!("line{number}").as_bytes()).unwrap();
        }
        assert_eq!((names(folder.path()), text(&path)), (vec!["a.log".to_owned()], "line2".to_owned()));
    }

    #[test]
    fn goes_on_where_the_last_process_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        LogFile::open(&path, 10, 2).unwrap().write(b"before").unwrap();
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        log.write(b"now").unwrap();
        assert_eq!(text(&path), "beforenow");
        log.write(b"then").unwrap();
        assert_eq!((text(&path), text(&log.numbered(1))), ("then".into(), "beforenow".into()));
    }

    #[test]
    fn has_the_file_for_itself_also_after_it_was_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        for _ in 0..2 {
            log.write(b"0123456789").unwrap();
            assert!(matches!(LogFile::open(&path, 10, 2), Err(LogFileError::InUse)));
        }
        drop(log);
        LogFile::open(&path, 10, 2).unwrap();
    }

    #[test]
    fn loses_no_old_file_where_no_new_one_can_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut log = LogFile::open(&path, 10, 3).unwrap();
        log.write(b"first line").unwrap();
        log.write(b"other line").unwrap();
        // A folder of that name is in the way, whoever runs this test.
        fs::create_dir(folder.path().join("a.log.new")).unwrap();
        for _ in 0..5 {
            log.write(b"third line").unwrap_err();
        }
        assert_eq!((text(&path), text(&log.numbered(1))), ("other line".into(), "first line".into()));
        fs::remove_dir(folder.path().join("a.log.new")).unwrap();
        log.write(b"third line").unwrap();
        assert_eq!(text(&path), "third line");
    }

    #[test]
    fn refuses_what_is_no_file_and_what_fits_into_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(LogFile::open(folder.path(), 10, 2), Err(LogFileError::NotRegular)));
        assert!(matches!(LogFile::open(Path::new("/dev/null"), 10, 2), Err(LogFileError::NotRegular)));
        let path = folder.path().join("a.log");
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        log.write(b"01234567890").unwrap_err();
        log.write(b"0123456789").unwrap();
        assert_eq!(names(folder.path()), ["a.log"]);
    }

    #[cfg(unix)]
    #[test]
    fn every_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.log");
        let mut log = LogFile::open(&path, 5, 2).unwrap();
        log.write(b"line0").unwrap();
        log.write(b"line1").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(&log.numbered(1)), mode(path.parent().unwrap())),
            (0o600, 0o600, 0o700)
        );
    }
}
