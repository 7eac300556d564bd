//! The pages of a file as its last commit left them: those in its log in place of older ones.
//!
//! Layouts are those of <https://www.sqlite.org/fileformat2.html>.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::{
    super::file::PAGE_SIZE,
    cells::{Cell, cells},
};

const LOG_HEADER_SIZE: u64 = 32;
const FRAME_HEADER_SIZE: u64 = 24;
/// Pages that one page of the pointer map tells of: 5 bytes each.
const MAPPED_PAGES: u64 = PAGE_SIZE / 5;
/// The page of the byte at 1 GiB, which SQLite leaves out.
const LOCK_PAGE: u64 = (1 << 30) / PAGE_SIZE + 1;
/// A page of the free list, in the pointer map.
const FREE: u8 = 2;

pub(super) struct Pages {
    file: File,
    count: u64,
    log: Option<File>,
    /// Where the latest version of a page stands in the log.
    in_log: HashMap<u64, u64>,
}

impl Pages {
    pub(super) fn open(path: &Path, log: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut pages = Self { file, count: size.div_ceil(PAGE_SIZE), log: None, in_log: HashMap::new() };
        match File::open(log) {
            Ok(log) => pages.read_log(log)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(pages)
    }

    /// Finds the pages in the log up to its last commit. Sums are not checked: what is read from a page proves itself.
    fn read_log(&mut self, mut log: File) -> io::Result<()> {
        let size = log.metadata()?.len();
        let mut uncommitted = Vec::new();
        let mut salt = None;
        let mut at = LOG_HEADER_SIZE;
        while at + FRAME_HEADER_SIZE + PAGE_SIZE <= size {
            let mut header = [0; FRAME_HEADER_SIZE as usize];
            log.seek(SeekFrom::Start(at))?;
            log.read_exact(&mut header)?;
            let number = |place: usize| u64::from(u32_at(&header, place).unwrap_or_default());
            // Frames of an earlier time have another salt.
            if *salt.get_or_insert((number(8), number(12))) == (number(8), number(12)) {
                uncommitted.push((number(0), at + FRAME_HEADER_SIZE));
                if number(4) > 0 {
                    self.in_log.extend(uncommitted.drain(..));
                }
            }
            at += FRAME_HEADER_SIZE + PAGE_SIZE;
        }
        // A number beyond all that the log could add was damaged.
        let possible = self.count + size / PAGE_SIZE;
        let last = self.in_log.keys().copied().filter(|number| *number <= possible).max();
        self.count = last.unwrap_or_default().max(self.count);
        self.log = Some(log);
        Ok(())
    }

    /// Calls `each` with every row of every table. Pages that cannot be read have none.
    pub(super) fn each_cell<E>(&mut self, mut each: impl FnMut(Cell) -> Result<(), E>) -> Result<(), E> {
        let mut map: Option<(u64, Vec<u8>)> = None;
        for number in 1..=self.count {
            let map_number = map_page(number);
            if map.as_ref().is_none_or(|(number, _)| *number != map_number) {
                map = Some((map_number, self.read(map_number).unwrap_or_default()));
            }
            let is_free = map.as_ref().is_some_and(|(_, map)| is_free(map, number, map_number));
            // What it holds was deleted.
            if number == map_number || is_free {
                continue;
            }
            let Some(page) = self.read(number) else { continue };
            for cell in cells(&page, number == 1, |overflow| self.read(overflow)) {
                each(cell)?;
            }
        }
        Ok(())
    }

    /// Reads a page, or what the file still has of it.
    fn read(&mut self, number: u64) -> Option<Vec<u8>> {
        let (file, at) = match (self.in_log.get(&number), &mut self.log) {
            (Some(at), Some(log)) => (log, *at),
            _ => (&mut self.file, number.checked_sub(1)? * PAGE_SIZE),
        };
        let mut page = Vec::new();
        file.seek(SeekFrom::Start(at)).ok()?;
        file.take(PAGE_SIZE).read_to_end(&mut page).ok()?;
        if page.is_empty() {
            return None;
        }
        page.resize(PAGE_SIZE as usize, 0);
        Some(page)
    }
}

/// Returns the page of the pointer map that tells of a page: page 2, and one after each so many.
fn map_page(number: u64) -> u64 {
    let first = number.saturating_sub(2) / (MAPPED_PAGES + 1) * (MAPPED_PAGES + 1) + 2;
    if first == LOCK_PAGE { first + 1 } else { first }
}

fn is_free(map: &[u8], number: u64, map_number: u64) -> bool {
    let entry = number.checked_sub(map_number + 1).and_then(|place| usize::try_from(place * 5).ok());
    let entry = entry.and_then(|place| map.get(place..place + 5));
    // A free page has no parent.
    entry.is_some_and(|entry| entry == [FREE, 0, 0, 0, 0])
}

/// Reads four bytes, the highest first.
pub(super) fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    let bytes = bytes.get(place..place.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}
