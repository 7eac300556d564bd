//! The rows on a page, read with no trust in any of its bytes.

use super::{super::file::PAGE_SIZE, pages::u32_at};

/// First byte of a page that holds rows of a table.
const TABLE_LEAF: u8 = 0x0d;
/// Bytes before the first page's tree.
const FILE_HEADER_SIZE: usize = 100;
const PAGE_HEADER_SIZE: usize = 8;
/// No row of ours has more: payload and signature have 64 KiB each at most.
const ROW_SIZE_MAX: usize = 192 << 10;
/// No table of ours has more columns.
const COLUMNS_MAX: usize = 8;

/// A row of some table.
#[derive(Debug, PartialEq)]
pub(super) struct Cell {
    pub rowid: i64,
    pub values: Vec<Value>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// Returns the rows on a page, but those that make no sense. `read` gets the pages on which long ones go on.
pub(super) fn cells(page: &[u8], is_first: bool, mut read: impl FnMut(u64) -> Option<Vec<u8>>) -> Vec<Cell> {
    let start = if is_first { FILE_HEADER_SIZE } else { 0 };
    if page.get(start) != Some(&TABLE_LEAF) {
        return Vec::new();
    }
    let count = u16_at(page, start + 3).unwrap_or_default();
    (0..usize::from(count))
        .filter_map(|place| {
            let pointer = u16_at(page, start + PAGE_HEADER_SIZE + 2 * place)?;
            cell(page, usize::from(pointer), &mut read)
        })
        .collect()
}

fn cell(page: &[u8], pointer: usize, read: &mut impl FnMut(u64) -> Option<Vec<u8>>) -> Option<Cell> {
    let mut rest = page.get(pointer..)?;
    let size = usize::try_from(varint(&mut rest)?).ok().filter(|size| *size <= ROW_SIZE_MAX)?;
    let rowid = varint(&mut rest)?;
    let here = local_size(size);
    let mut row = rest.get(..here)?.to_vec();
    let mut next = if here < size { u32_at(rest, here)? } else { 0 };
    while row.len() < size {
        let page = read(u64::from(next))?;
        next = u32_at(&page, 0)?;
        let more = page.get(4..)?;
        row.extend_from_slice(&more[..more.len().min(size - row.len())]);
    }
    Some(Cell { rowid, values: values(&row)? })
}

/// Returns how many bytes of a row stand on its own page.
fn local_size(size: usize) -> usize {
    let usable = PAGE_SIZE as usize;
    let (least, most) = ((usable - 12) * 32 / 255 - 23, usable - 35);
    if size <= most {
        return size;
    }
    let some = least + (size - least) % (usable - 4);
    if some <= most { some } else { least }
}

fn values(row: &[u8]) -> Option<Vec<Value>> {
    let mut rest = row;
    let header_size = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = row.get(row.len() - rest.len()..header_size)?;
    let mut body = row.get(header_size..)?;
    let mut values = Vec::with_capacity(COLUMNS_MAX);
    while !types.is_empty() {
        if values.len() == COLUMNS_MAX {
            return None;
        }
        let kind = varint(&mut types)?;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 => 8,
            12.. => (kind - 12) / 2,
            _ => return None,
        };
        let (bytes, after) = body.split_at_checked(usize::try_from(size).ok()?)?;
        body = after;
        values.push(match kind {
            0 => Value::Null,
            1..=6 => Value::Integer(integer(bytes)),
            8 | 9 => Value::Integer(kind - 8),
            _ if kind % 2 == 0 => Value::Blob(bytes.to_vec()),
            _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
        });
    }
    Some(values)
}

/// Reads a whole number of up to eight bytes, the highest first.
fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte))
}

/// Takes a number of one to nine bytes: seven bits each, eight in the ninth.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for place in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if place == 8 {
            return Some((value << 8 | u64::from(*byte)).cast_signed());
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value.cast_signed())
}

fn u16_at(bytes: &[u8], place: usize) -> Option<u16> {
    let bytes = bytes.get(place..place.checked_add(2)?)?;
    bytes.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_numbers_of_every_size() {
        for (bytes, expected) in [
            (&[0x7f][..], 127),
            (&[0x81, 0x00], 128),
            (&[0xff; 9], -1),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], 1),
        ] {
            assert_eq!(varint(&mut &*bytes), Some(expected));
        }
        assert_eq!(varint(&mut &[0x80][..]), None);
        assert_eq!(integer(&[0xff, 0x00]), -256);
        assert_eq!(integer(&[]), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            pointers in prop::collection::vec(0..5000u16, 0..8),
        ) {
            let mut page = vec![TABLE_LEAF, 0, 0, 0, 8, 0, 0, 0];
            page.extend(pointers.iter().flat_map(|pointer| pointer.to_be_bytes()));
            page.extend(&bytes);
            page.resize(PAGE_SIZE as usize, 0x81);
            // A chain that never ends, by itself.
            cells(&page, false, |_| Some(page.clone()));
            cells(&bytes, true, |_| None);
        }
    }
}
