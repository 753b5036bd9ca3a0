//! From text to shuffled activations on the embedded demo, against SAELens 6.54.12 (`tests/golden/demo`).

mod common;

use activation_store::{ActivationSource, ActivationStore, Content, KeepRows, StoreOptions, TokenFilter};
use common::{InMemory, demo_texts, in_repo};
use model_hooks::LanguageModel;
use sae_core::Sae;
use std::sync::LazyLock;
use tensor_files::SafetensorsFile;

static MODEL: LazyLock<LanguageModel> = LazyLock::new(|| common::model("assets/demo/lm"));
static SAE: LazyLock<Sae> = LazyLock::new(|| Sae::load(in_repo("assets/demo/sae")).unwrap());

#[test]
fn batches_and_activations_equal_saelens() {
    let golden = SafetensorsFile::open(in_repo("tests/golden/demo/answers.safetensors")).unwrap();
    let batches: Vec<Vec<Vec<u32>>> =
        golden.load("batches").unwrap().to_dtype(candle_core::DType::U32).unwrap().to_vec3().unwrap();
    let mut store =
        ActivationStore::from_sae(&MODEL, &*SAE, InMemory::new(demo_texts(), Content::Text), StoreOptions::default())
            .unwrap();
    for (i, expected) in batches.iter().enumerate() {
        let batch = store.get_batch_tokens().unwrap().unwrap();
        let found: Vec<&Vec<u32>> = batch.rows.iter().map(|row| &row.tokens).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "batch {i}");
        if i == 0 {
            let x = store.activations(&batch).unwrap().get(0).unwrap().narrow(0, 0, 32).unwrap();
            let reference = golden.load_f32("resid").unwrap();
            let rms = reference.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
            let worst = (x - reference).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst <= 1e-4 * rms, "{worst} of rms {rms}");
        }
    }
    // All of the text: SAELens makes 329 whole batches of it.
    let mut whole = 3;
    while let Some(batch) = store.get_batch_tokens().unwrap() {
        whole += usize::from(batch.len() == 8);
    }
    assert_eq!(whole, 329);
}

#[test]
fn shuffled_rows_lead_back_to_their_bytes() {
    let texts: Vec<String> = demo_texts().into_iter().take(40).collect();
    let options = StoreOptions { keep_rows: KeepRows::All, ..Default::default() };
    let mut store =
        ActivationStore::from_sae(&MODEL, &*SAE, InMemory::new(texts.clone(), Content::Text), options).unwrap();
    let tokenizer = MODEL.try_tokenizer().unwrap();
    let bos = tokenizer.bos().unwrap();
    // The SAE was trained without special tokens, and its metadata says so.
    assert_eq!(store.spec().filter, TokenFilter::structural());
    let (mut rows, mut last) = (0, 4096);
    while let Some(batch) = store.next_batch().unwrap() {
        assert_eq!((batch.rows[0].dims(), last), (&[batch.len(), 256][..], 4096));
        for (at, &token) in batch.at.iter().zip(&batch.tokens) {
            assert_ne!(token, bos);
            let origin = store.index().locate(*at).unwrap().origin.unwrap();
            let bytes =
                &texts[origin.doc.ordinal as usize].as_bytes()[origin.span.start as usize..origin.span.end as usize];
            let piece = tokenizer.piece(token).unwrap();
            assert!(piece.contains('\u{FFFD}') || piece.as_bytes() == bytes, "{piece:?} at {at}");
        }
        (rows, last) = (rows + batch.len(), batch.len());
    }
    let report = store.report();
    assert_eq!(rows as u64, report.rows);
    assert_eq!(report.rows + report.excluded.special, report.packing.rows * 128);
    assert!(report.excluded.special >= report.packing.rows && report.packing.documents == 40);
}

#[test]
fn text_without_tokens_gives_no_rows() {
    let documents = InMemory::new(["", "", "a few words"].map(String::from), Content::Text);
    let mut store = ActivationStore::from_sae(&MODEL, &*SAE, documents, StoreOptions::default()).unwrap();
    assert!(store.next_batch().unwrap().is_none());
    let packing = store.report().packing;
    assert_eq!((packing.documents, packing.empty_documents, packing.rows), (3, 2, 0));
    assert_eq!(packing.dropped_tokens, packing.tokens);
}

/// The packing of 24 rows of Debian's jargon file and fortunes, as SAELens 6.54.12 does it with GPT-2's tokenizer.
/// `SAESCOPE_PEER_ROOT` names the folder that `tools/peers/make_corpus.py` and `tools/goldens/golden_gpt2.py` wrote.
#[test]
#[ignore = "needs the corpus and goldens that tools/ make"]
fn gpt2_batches_equal_saelens() {
    let root = std::path::PathBuf::from(std::env::var("SAESCOPE_PEER_ROOT").expect("SAESCOPE_PEER_ROOT"));
    let golden = root.join("golden/gpt2-small-random/store_batches.safetensors");
    let golden = SafetensorsFile::open(golden).unwrap();
    let name = golden.names().remove(0);
    let batches: Vec<Vec<Vec<u32>>> =
        golden.load(&name).unwrap().to_dtype(candle_core::DType::U32).unwrap().to_vec3().unwrap();
    let corpus = std::fs::read_to_string(root.join("corpus/corpus.jsonl")).unwrap();
    let texts = corpus
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["text"].as_str().unwrap().to_owned());
    let tokenizer =
        model_hooks::Tokenizer::from_folder(in_repo("crates/model-hooks/tests/golden/gpt2_tokenizer")).unwrap();
    let bos = tokenizer.bos();
    let options = activation_store::PackingOptions {
        begin_batch: bos,
        separator: bos,
        ..activation_store::PackingOptions::new(128)
    };
    let rows = activation_store::TokenRows::new(
        InMemory::new(texts, Content::Text),
        Some(std::sync::Arc::new(tokenizer)),
        options,
    );
    let rows: Vec<Vec<u32>> = rows.unwrap().take(24).map(|row| row.unwrap().tokens).collect();
    assert_eq!(rows, batches.concat());
}
