//! Pages that expand further than their headers state.
//!
//! The `parquet` crate decompresses gzip and brotli to their end and compares the size afterwards: a page of a few kB can stand for
//! gigabytes. (Of snappy, zstd and LZ4 it takes the stated size and no more.) Such pages are decompressed here first, without keeping anything.

use super::{Checked, PageHeader, each_page};
use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// What an LZ4 frame begins with. Files of 2019 and 2020 have such pages under the name of Hadoop's layout; `parquet` decompresses them
/// without a limit.
const LZ4_FRAME: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const BUFFER_BYTES: usize = 64 << 10;

/// Checks that no page of a row group's columns expands further than its header states. Costs one decompression of the pages of gzip and
/// brotli, and reads the first bytes of those of LZ4.
///
/// # Errors
/// A description of the violated limit.
pub fn check_expansion(
    mut file: &File,
    metadata: &ParquetMetaData,
    row_group: usize,
    reads: impl Fn(&ColumnChunkMetaData) -> bool,
) -> Checked<()> {
    let length = file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
    let columns = metadata.row_groups().get(row_group).map_or(&[][..], |group| group.columns());
    for column in columns.iter().filter(|column| reads(column)) {
        let codec = column.compression();
        if matches!(codec, Compression::GZIP(_) | Compression::BROTLI(_) | Compression::LZ4) {
            each_page(file, length, column, |header, body| check_page(file, codec, header, body))?;
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
    Ok(())
}

fn check_page(mut file: &File, codec: Compression, header: PageHeader, body: u64) -> Checked<()> {
    let stored = header.compressed.saturating_sub(header.levels);
    if !header.is_compressed || stored == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::Start(body.saturating_add(header.levels))).map_err(|e| e.to_string())?;
    let bytes = std::io::BufReader::with_capacity(BUFFER_BYTES, file.take(stored));
    let stated = header.bytes.saturating_sub(header.levels);
    match codec {
        Compression::GZIP(_) => expands_to(flate2::bufread::MultiGzDecoder::new(bytes), stated),
        Compression::BROTLI(_) => expands_to(brotli::Decompressor::new(bytes, BUFFER_BYTES), stated),
        _ => {
            let mut first = [0; 4];
            match bytes.take(4).read_exact(&mut first) {
                Ok(()) if first == LZ4_FRAME => {
                    Err("its pages are LZ4 frames, which only Arrow 0.15 to 0.17 wrote: write it again with a current version".into())
                }
                _ => Ok(()),
            }
        }
    }
}

/// Decompresses up to one byte more than stated. Damaged data is left to the reader, which says so.
fn expands_to(mut bytes: impl Read, stated: u64) -> Checked<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0;
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => total += n as u64,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // The reader of the page meets the same error before it has more than these bytes.
            Err(_) => return Ok(()),
        }
        if total > stated {
            return Err(format!("a page states {stated} bytes and expands to more"));
        }
    }
}
