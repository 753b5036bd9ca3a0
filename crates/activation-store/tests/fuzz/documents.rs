//! Text and JSON Lines, compressed or not. The first byte says which, and how long pieces are.

use crate::harness;
use activation_store::{DocumentOptions, Documents, Error, TextSplit};

const NAMES: [&str; 8] = ["a.txt", "a.jsonl", "a.json", "a.txt.gz", "a.jsonl.gz", "a.txt.zst", "a.jsonl.zst", "b.txt"];

pub fn read(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let path = harness::file(NAMES[usize::from(kind % 8)], data);
    let split = if kind % 16 < 8 { TextSplit::File } else { TextSplit::BlankLines };
    let options =
        DocumentOptions::default().text_split(split).max_piece_bytes(if kind % 32 < 16 { 16 } else { 1 << 20 });
    pieces(&path, options);
}

/// Reads some pieces. A reader that stopped without a word has panicked.
pub fn pieces(path: &std::path::Path, options: DocumentOptions) {
    let Ok(documents) = Documents::open(&[path], options) else { return };
    for piece in documents.take(1 << 12) {
        if let Err(error) = piece {
            assert!(!matches!(error, Error::ReaderStopped { .. }), "{error}");
            let _ = error.to_string();
        }
    }
}
