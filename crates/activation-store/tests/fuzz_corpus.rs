//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "fuzz/documents.rs"]
mod documents;
#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/parquet.rs"]
mod parquet;

#[test]
fn documents_inputs() {
    harness::replay("documents", documents::read);
}

#[test]
fn parquet_inputs() {
    harness::replay("parquet", parquet::read);
}

use activation_store::{DocumentOptions, Documents};
use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use std::sync::Arc;

/// Reads a file of this name within the bound on memory: how many pieces it has, or why it is refused.
fn within(name: &str, bytes: &[u8]) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let mut outcome = Ok(0);
    harness::bounded(bytes, |_| {
        outcome = Documents::open(&[&path], DocumentOptions::default())
            .and_then(|documents| documents.map(|piece| piece.map(drop)).try_fold(0, |n, piece| piece.map(|()| n + 1)))
            .map_err(|error| error.to_string());
    });
    outcome
}

#[test]
fn bombs_of_text() {
    let _alone = harness::alone();
    // 256 MiB in a few kilobytes, as one line and as one text.
    let text = vec![b' '; 1 << 20];
    let mut zipped = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    use std::io::Write;
    zipped.write_all(b"{\"text\":\"").unwrap();
    for _ in 0..256 {
        zipped.write_all(&text).unwrap();
        gzipped.write_all(&text).unwrap();
    }
    zipped.write_all(b"\"}").unwrap();
    let zipped = zipped.finish().unwrap();
    assert!(zipped.len() < 100_000);
    assert_eq!(within("a.jsonl.zst", &zipped), Ok(256));
    assert_eq!(within("a.txt.gz", &gzipped.finish().unwrap()), Ok(256));
    // Frames that ask for windows of 2 GiB (no memory is taken for what is not filled), of more, and of 8 MiB.
    let frame = |window: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0, window][..], &[1 | 1 << 3, 0, 0, b'a']].concat();
    assert_eq!(within("a.txt.zst", &frame(21 << 3)), Ok(1));
    assert!(within("a.txt.zst", &frame(21 << 3 | 1)).unwrap_err().contains("window is 2415919104 bytes"));
    assert_eq!(within("a.txt.zst", &frame(13 << 3)), Ok(1));
}

fn parquet_of(name: &str, column: ArrayRef, dictionary: bool) -> Vec<u8> {
    use ::parquet::basic::{Compression, ZstdLevel};
    let batch = RecordBatch::try_from_iter([(name, column)]).unwrap();
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(dictionary)
        .set_dictionary_page_size_limit(16 << 20)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn bombs_of_tables() {
    let _alone = harness::alone();
    // One text of 64 MiB that takes 6 kB.
    let long = parquet_of("text", Arc::new(StringArray::from(vec!["a".repeat(64 << 20)])), false);
    assert!(long.len() < 100_000);
    assert!(within("a.parquet", &long).unwrap_err().contains("expands to"));
    // A million token ids in one row, all the same.
    let ids = vec![Some(vec![Some(7); 1 << 22])];
    let ids = parquet_of("tokens", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(ids)), true);
    assert!(ids.len() < 20_000, "{}", ids.len());
    assert!(within("a.parquet", &ids).unwrap_err().contains("expands to"));
    // A text of a MiB, four hundred times: the dictionary has it once.
    let text = "a".repeat(1 << 20);
    let repeated = parquet_of("text", Arc::new(StringArray::from_iter_values((0..400).map(|_| &text))), true);
    assert!(repeated.len() < 100_000, "{}", repeated.len());
    assert_eq!(within("a.parquet", &repeated), Ok(400));
}

#[test]
fn footers_that_lie() {
    let _alone = harness::alone();
    let sound = parquet_of("tokens", Arc::new(Int32Array::from(vec![1, 2])), false);
    let mut long = sound.clone();
    let at = long.len() - 8;
    long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(within("a.parquet", &long).unwrap_err().contains("footer claims 4294967295 bytes"));
    assert!(within("a.parquet", b"PAR1PAR1").unwrap_err().contains("at least 12"));
}
