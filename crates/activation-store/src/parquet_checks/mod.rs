//! What a Parquet file claims, held against what it has, before the `parquet` crate believes it.
//!
//! That crate takes memory for as many columns, values and bytes as a footer or a page's header states. Both are walked here first
//! (Thrift's compact protocol, without a word of their meaning but the few numbers that size something).

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod expansion;

pub use expansion::check_expansion;

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Footers above this are refused; those of tables with thousands of row groups have a few MB.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Columns nest no deeper: the reader goes down recursively.
const MAX_DEPTH: usize = 64;
/// Page headers above this are refused (they hold the least and the greatest value).
const MAX_PAGE_HEADER_BYTES: u64 = 1 << 20;
/// What a column may expand to whatever the file's size, in bytes and in values.
const FREE_BYTES: u64 = 2 << 20;
const FREE_VALUES: u64 = 1 << 18;

type Checked<T> = Result<T, String>;

/// What the pages of columns say of themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Bytes when decompressed.
    pub bytes: u64,
    /// Values, those that are null and those in lists among them.
    pub values: u64,
    /// Bytes of the largest dictionary: any row may stand for all of it.
    pub dictionary: u64,
    /// Bytes of a value, on average in the page where that is most.
    pub value_bytes: u64,
}

/// Checks the footer: its length, the lengths of its lists, and the tree of columns.
///
/// # Errors
/// A description of what is malformed.
pub fn check_footer(mut file: &File) -> Checked<()> {
    let io = |e: std::io::Error| e.to_string();
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    if length < 12 {
        return Err(format!("{length} bytes, a Parquet file has at least 12"));
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::Start(length - 8)).map_err(io)?;
    file.read_exact(&mut tail).map_err(io)?;
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if footer > MAX_FOOTER_BYTES.min(length - 12) {
        return Err(format!(
            "its footer claims {footer} bytes, at most {} are possible",
            MAX_FOOTER_BYTES.min(length - 12)
        ));
    }
    let mut bytes = vec![0; footer as usize];
    file.seek(SeekFrom::Start(length - 8 - footer)).map_err(io)?;
    file.read_exact(&mut bytes).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    // Another crate's error is better than one from here where the footer is no Thrift at all (or is encrypted).
    if tail[4..] != *b"PAR1" {
        return Ok(());
    }
    let children = Thrift { bytes: &bytes, at: 0 }
        .schema()
        .ok_or("its footer has lists longer than itself or of no use, or is cut off")?;
    check_tree(&children)
}

/// The columns in depth-first order, each with the number of its children.
fn check_tree(children: &[i64]) -> Checked<()> {
    let mut open: Vec<i64> = Vec::new();
    for (at, &n) in children.iter().enumerate() {
        if n < 0 || n as u64 >= children.len() as u64 {
            return Err(format!("column {at} of {} in its schema claims {n} children", children.len()));
        }
        open.push(n);
        if open.len() > MAX_DEPTH {
            return Err(format!("its columns nest more than {MAX_DEPTH} deep"));
        }
        while open.last() == Some(&0) {
            open.pop();
            open.last_mut().into_iter().for_each(|left| *left -= 1);
        }
    }
    Ok(())
}

/// Walks the page headers of some columns. Together they may expand to 2 MiB, or 64 times the file (or `allowed` bytes, where a caller
/// knows that more may come), and hold 2^18 values, or 16 for each byte of the file (or of `allowed`).
///
/// # Errors
/// A description of what is malformed, or of the violated limit.
pub fn check_pages(
    mut file: &File,
    metadata: &ParquetMetaData,
    allowed: u64,
    reads: impl Fn(&ColumnChunkMetaData) -> bool,
) -> Checked<Pages> {
    let length = file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
    let most_bytes = length.saturating_mul(64).max(allowed).saturating_add(FREE_BYTES);
    let most_values = length.saturating_mul(16).max(allowed).saturating_add(FREE_VALUES);
    let mut pages = Pages::default();
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()).filter(|column| reads(column)) {
        each_page(file, length, column, |header, _| {
            pages.add(header);
            if pages.bytes > most_bytes || pages.values > most_values {
                let Pages { bytes, values, .. } = pages;
                return Err(format!(
                    "a column expands to {bytes} bytes and {values} values or more, allowed are {most_bytes} and {most_values}"
                ));
            }
            Ok(())
        })?;
    }
    file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
    Ok(pages)
}

/// Goes from page to page of a column: the header of each, and where the bytes after the header start.
fn each_page(
    file: &File,
    length: u64,
    column: &ColumnChunkMetaData,
    mut visit: impl FnMut(PageHeader, u64) -> Checked<()>,
) -> Checked<()> {
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let range = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
    let end = range.and_then(|(start, size)| start.checked_add(size)).filter(|end| *end <= length);
    let (Some((mut at, _)), Some(end)) = (range, end) else {
        return Err(format!("a column claims {} bytes at {start}, the file has {length}", column.compressed_size()));
    };
    while at < end {
        let (header, size) = page_header(file, at, end)?;
        let body = at.saturating_add(size);
        at = body.saturating_add(header.compressed);
        if at > end {
            return Err(format!("a page claims {} bytes, more than its column has", header.compressed));
        }
        visit(header, body)?;
    }
    Ok(())
}

impl Pages {
    fn add(&mut self, page: PageHeader) {
        self.bytes = self.bytes.saturating_add(page.bytes);
        self.values = self.values.saturating_add(page.values);
        if page.is_dictionary {
            self.dictionary = self.dictionary.max(page.bytes);
        } else {
            self.value_bytes = self.value_bytes.max(page.bytes / page.values.max(1));
        }
    }
}

/// The numbers of a page's header that size something.
#[derive(Clone, Copy)]
struct PageHeader {
    compressed: u64,
    bytes: u64,
    values: u64,
    is_dictionary: bool,
    /// Bytes at the start of the page that are never compressed: the levels of a page of the second version.
    levels: u64,
    is_compressed: bool,
}

/// The header of the page at `at`, and its length.
fn page_header(mut file: &File, at: u64, end: u64) -> Checked<(PageHeader, u64)> {
    let mut size = 256;
    loop {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at)).map_err(|e| e.to_string())?;
        file.take(size.min(end - at)).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        let mut thrift = Thrift { bytes: &bytes, at: 0 };
        match thrift.page() {
            Some(Some(header)) => return Ok((header, thrift.at as u64)),
            Some(None) => return Err("a page's header has a negative size, or none".into()),
            None if size >= end - at || size >= MAX_PAGE_HEADER_BYTES => {
                return Err("a page's header is cut off".into());
            }
            None => size *= 8,
        }
    }
}

/// Thrift's compact protocol. `None`: the bytes end early, a list is longer than they are, or things nest too deep.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

const STRUCT: u8 = 12;
const LIST: u8 = 9;

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn forward(&mut self, n: u64) -> Option<()> {
        let left = self.bytes.len() - self.at;
        let n = usize::try_from(n).ok().filter(|n| *n <= left)?;
        self.at += n;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn number(&mut self) -> Option<i64> {
        let n = self.varint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// The next field of a struct, number and type; `Some(None)` at its end.
    fn field(&mut self, last: &mut i64) -> Option<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte & 15 == 0 {
            return Some(None);
        }
        *last = if byte >> 4 == 0 { self.number()? } else { last.saturating_add(i64::from(byte >> 4)) };
        Some(Some((*last, byte & 15)))
    }

    /// Length and type of a list, each of whose elements has a byte at least.
    fn list(&mut self) -> Option<(u64, u8)> {
        let byte = self.byte()?;
        let n = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
        (n <= (self.bytes.len() - self.at) as u64).then_some((n, byte & 15))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.forward(1),
            4..=6 => self.varint().map(drop),
            7 => self.forward(8),
            8 => self.varint().and_then(|n| self.forward(n)),
            LIST | 10 => {
                let (n, kind) = self.list()?;
                // Booleans in lists, and maps, stand in no metadata of Parquet. The `parquet` crate takes no byte for such a boolean: it
                // would count to 2^31, for seconds, and go on elsewhere than this.
                (0..n).try_for_each(|_| if kind <= 2 { None } else { self.skip(kind, depth + 1) })
            }
            11 => (self.varint()? == 0).then_some(()),
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            13 => self.forward(16),
            _ => None,
        }
    }

    /// A footer: of each column of the schema, how many children it claims.
    fn schema(&mut self) -> Option<Vec<i64>> {
        let (mut children, mut last) = (Vec::new(), 0);
        while let Some((id, kind)) = self.field(&mut last)? {
            if (id, kind) != (2, LIST) {
                self.skip(kind, 0)?;
                continue;
            }
            let (n, kind) = self.list()?;
            for _ in 0..n {
                if kind != STRUCT {
                    return None;
                }
                let (mut last, mut claimed) = (0, 0);
                while let Some((id, kind)) = self.field(&mut last)? {
                    if (id, kind) == (5, 5) { claimed = self.number()? } else { self.skip(kind, 0)? }
                }
                children.push(claimed);
            }
        }
        Some(children)
    }

    /// A page's header; `Some(None)` where it lacks a size or has a negative one.
    fn page(&mut self) -> Option<Option<PageHeader>> {
        let (mut bytes, mut compressed) = (None, None);
        let (mut values, mut kind_of_page, mut last) = (0, None, 0);
        let (mut levels, mut is_compressed) = (0, true);
        while let Some((id, kind)) = self.field(&mut last)? {
            match (id, kind) {
                (1, 5) => kind_of_page = Some(self.number()?),
                (2, 5) => bytes = u64::try_from(self.number()?).ok(),
                (3, 5) => compressed = u64::try_from(self.number()?).ok(),
                // Of data, of a dictionary, of data in the second version: the first field is the number of values.
                (5 | 7 | 8, STRUCT) => {
                    let (mut last, second) = (0, id == 8);
                    while let Some((id, kind)) = self.field(&mut last)? {
                        match (id, kind) {
                            (1, 5) => values = self.number()?.max(0) as u64,
                            (5 | 6, 5) if second => levels += self.number()?.clamp(0, i64::from(i32::MAX)) as u64,
                            // A boolean is its own type: 1 is true, 2 is false.
                            (7, 1 | 2) if second => is_compressed = kind == 1,
                            _ => self.skip(kind, 0)?,
                        }
                    }
                }
                _ => self.skip(kind, 0)?,
            }
        }
        let (Some(bytes), Some(compressed)) = (bytes, compressed) else { return Some(None) };
        let is_dictionary = kind_of_page == Some(2);
        Some(Some(PageHeader { compressed, bytes, values, is_dictionary, levels, is_compressed }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_columns_may_not_lie() {
        assert!(check_tree(&[2, 0, 1, 0]).is_ok());
        assert!(check_tree(&[i64::from(i32::MAX), 0]).unwrap_err().contains("claims 2147483647 children"));
        assert!(check_tree(&[-1]).is_err());
        let deep: Vec<i64> = (0..100).map(|_| 1).chain([0]).collect();
        assert!(check_tree(&deep).unwrap_err().contains("deep"));
    }

    #[test]
    fn a_list_is_no_longer_than_what_is_left() {
        // Field 4, a list of structs, of 2^31 - 1 elements.
        let bytes = [0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0];
        assert!(Thrift { bytes: &bytes, at: 0 }.schema().is_none());
        // Field 4: a map of as many booleans; a list of two booleans, which is long enough.
        for bytes in [&[0x4b, 0xff, 0xff, 0xff, 0xff, 0x07, 0x11, 0, 0, 0][..], &[0x49, 0x21, 1, 1, 0]] {
            assert!(Thrift { bytes, at: 0 }.schema().is_none());
        }
        assert_eq!(Thrift { bytes: &[0x4b, 0, 0x19, 0x03, 0], at: 0 }.schema(), Some(vec![]));
    }
}
