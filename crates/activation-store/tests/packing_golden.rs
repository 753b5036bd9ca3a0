//! The whole demo text through GPT-2's tokenizer and the packing, against SAELens 6.54.12 (`tools/goldens/golden_packing.py`).

mod common;

use activation_store::{Content, PackingOptions, PretokenizedRows, TokenRows};
use common::{InMemory, demo_texts, in_repo};
use model_hooks::Tokenizer;
use std::sync::Arc;

#[derive(serde::Deserialize)]
struct Case {
    settings: Settings,
    rows: usize,
    fnv: String,
    first: Vec<Vec<u32>>,
}

#[derive(serde::Deserialize)]
struct Settings {
    context_size: usize,
    begin_batch: Option<u32>,
    begin_sequence: Option<u32>,
    separator: Option<u32>,
    disable_concat: bool,
}

/// FNV-1a over the ids, each as four little-endian bytes.
fn fnv<'a>(rows: impl Iterator<Item = &'a Vec<u32>>) -> String {
    let bytes = rows.flatten().flat_map(|token| token.to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[test]
fn every_row_equals_saelens() {
    let tokenizer = Tokenizer::from_folder(in_repo("crates/model-hooks/tests/golden/gpt2_tokenizer")).unwrap();
    let tokenizer = Arc::new(tokenizer);
    let golden = std::fs::read(in_repo("crates/activation-store/tests/golden/packing.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&golden).unwrap();
    assert_eq!(cases.len(), 3);
    for Case { settings, rows, fnv: hash, first } in cases {
        let options = PackingOptions {
            begin_batch: settings.begin_batch,
            begin_sequence: settings.begin_sequence,
            separator: settings.separator,
            disable_concat: settings.disable_concat,
            tokens: PretokenizedRows::Pack,
            ..PackingOptions::new(settings.context_size)
        };
        let documents = InMemory::new(demo_texts(), Content::Text);
        let found = TokenRows::new(documents, Some(tokenizer.clone()), options).unwrap();
        let found: Vec<Vec<u32>> = found.map(|row| row.unwrap().tokens).collect();
        assert_eq!((&found[..3], found.len()), (&first[..], rows));
        assert_eq!(fnv(found.iter()), hash);
    }
}
