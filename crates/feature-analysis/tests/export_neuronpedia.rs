//! Neuronpedia's dashboards of the demo, against sums over all its activations in f64.

#[path = "../../tensor-files/tests/crash/mod.rs"]
mod crash;

use activation_store::{ActivationSource, ActivationStore, DocumentOptions, Documents, StoreOptions};
use candle_core::{Device, Tensor};
use feature_analysis::Error;
use feature_analysis::export::neuronpedia::*;
use feature_analysis::export::{ExportError, ExportStage};
use model_hooks::{BlockPart, HookPoint, LanguageModel, LoadOptions, Processing, Tokenizer, load};
use sae_core::{Sae, SaeMetadata, SaeParts, SparseCoder};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const ROWS: u64 = 10;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

static MODEL: LazyLock<LanguageModel> =
    LazyLock::new(|| load(&root("assets/demo/lm"), &LoadOptions::new(Processing::TransformerLens)).unwrap());
static SAE: LazyLock<Sae> = LazyLock::new(|| Sae::load(root("assets/demo/sae")).unwrap());

fn tokenizer() -> &'static Tokenizer {
    MODEL.tokenizer().unwrap()
}

fn harvest() -> impl ActivationSource {
    let options = StoreOptions { store_batch_size_prompts: 4, ..StoreOptions::default() };
    let text = Documents::open(&[root("assets/demo/text.jsonl")], DocumentOptions::default()).unwrap();
    ActivationStore::from_sae(&MODEL, &*SAE, text, options).unwrap().in_order()
}

fn options() -> NeuronpediaOptions {
    NeuronpediaOptions { rows: Some(ROWS), dataset: "demo".into(), ..NeuronpediaOptions::new("demo", 1, "res") }
}

fn target() -> NeuronpediaTarget<'static> {
    NeuronpediaTarget { hook: 0, coder: &*SAE, model: &MODEL, tokenizer: tokenizer() }
}

fn norms() -> Vec<f64> {
    let all: Vec<u32> = (0..SAE.d_sae() as u32).collect();
    let rows: Vec<Vec<f32>> = SAE.decoder_rows(&all).unwrap().to_vec2().unwrap();
    rows.iter().map(|row| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()).collect()
}

/// Rows of tokens, and of each feature the activations that are not 0, in units of a decoder row of norm 1, by (row, position).
type Brute = (Vec<Vec<u32>>, BTreeMap<u32, BTreeMap<(usize, usize), f64>>);

fn brute_force() -> Brute {
    let (mut rows, mut acts, norms): (Vec<Vec<u32>>, BTreeMap<_, BTreeMap<_, _>>, _) =
        (vec![], BTreeMap::new(), norms());
    let mut source = harvest();
    while let Some(batch) = source.next() {
        let batch = batch.unwrap();
        let codes = SAE.encode(&batch.rows[0]).unwrap().to_dense().unwrap().to_vec2::<f32>().unwrap();
        for ((at, token), values) in batch.at.iter().zip(&batch.tokens).zip(codes) {
            let row = at.row as usize;
            if row >= ROWS as usize {
                return (rows, acts);
            }
            if row == rows.len() {
                rows.push(source.token_rows().unwrap().get(at.row).unwrap().tokens.to_vec());
            }
            if tokenizer().special_ids().contains(token) {
                continue;
            }
            for (feature, value) in values.into_iter().enumerate().filter(|(_, value)| *value > 0.0) {
                let place = (row, at.pos as usize);
                acts.entry(feature as u32).or_default().insert(place, f64::from(value) * norms[feature]);
            }
        }
    }
    (rows, acts)
}

#[track_caller]
fn export_error<T>(result: feature_analysis::Result<T>) -> ExportError {
    match result {
        Err(Error::Export(error)) => *error,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

fn near(found: f64, expected: f64) -> bool {
    // Three decimals, and the rounding of f32.
    (found - expected).abs() <= 6e-4 + 1e-5 * expected.abs()
}

fn check_activations(feature: &NeuronpediaFeature, rows: &[Vec<u32>], acts: &BTreeMap<(usize, usize), f64>) {
    let (j, total) = (feature.feature_index, (rows.len() * rows[0].len()) as f64);
    assert!((feature.frac_nonzero - acts.len() as f64 / total).abs() <= 6e-6, "{j}");
    assert_eq!(feature.freq_hist_data_bar_heights.iter().sum::<u64>(), acts.len() as u64, "{j}");
    let most = acts.values().copied().fold(0.0, f64::max);
    let mut strongest: Vec<f64> = acts.iter().filter(|(at, _)| at.1 > 0).map(|(_, value)| *value).collect();
    strongest.sort_by(|a, b| b.total_cmp(a));
    strongest.truncate(20);
    let top: Vec<_> = feature.activations.iter().filter(|example| example.bin_contains == -1.0).collect();
    assert_eq!(top.len(), strongest.len(), "{j}");
    for (example, value) in top.iter().zip(&strongest) {
        assert!(near(example.values[example.qualifying_token_index], *value) && near(example.bin_max, most), "{j}");
    }
    for example in &feature.activations {
        let value = example.values[example.qualifying_token_index];
        assert!(value > 0.0 && (example.bin_min - 1e-3..=example.bin_max + 1e-3).contains(&value), "{j}");
        // The whole row, with all the feature's activations in it, belongs to one row of the text.
        let is_row = |(i, row): (usize, &Vec<u32>)| {
            let tokens = row[1..].iter().map(|token| tokenizer().piece(*token).unwrap());
            let due = |pos: usize| acts.get(&(i, pos + 1)).copied().unwrap_or(0.0);
            tokens.eq(example.tokens.iter().map(String::as_str))
                && example.values.iter().enumerate().all(|(pos, value)| near(*value, due(pos)))
        };
        assert!(rows.iter().enumerate().any(is_row), "{j}");
    }
    for fifth in 0..5 {
        let (low, high) = (most * f64::from(fifth) / 5.0, most * f64::from(fifth + 1) / 5.0);
        let of = |example: &&NeuronpediaActivation| {
            near(example.bin_min, low) && near(example.bin_max, high) && example.bin_contains >= 0.0
        };
        let inside = |value: f64| value >= low * (1.0 - 1e-6) && value <= high * (1.0 + 1e-6);
        let shown = acts.iter().filter(|(at, value)| at.1 > 0 && inside(**value)).count();
        assert_eq!(feature.activations.iter().filter(of).count(), shown.min(5), "{j}: fifth {fifth}");
    }
}

fn check_logits(feature: &NeuronpediaFeature, w_u: &[Vec<f32>], norms: &[f64]) {
    let row = &SAE.decoder_rows(&[feature.feature_index]).unwrap().to_vec2::<f32>().unwrap()[0];
    let norm = norms[feature.feature_index as usize];
    let logit =
        |token: usize| row.iter().zip(w_u).map(|(a, b)| f64::from(*a) * f64::from(b[token])).sum::<f64>() / norm;
    let mut logits: Vec<f64> = (0..w_u[0].len()).map(logit).collect();
    assert_eq!(feature.logits_hist_data_bar_heights.iter().sum::<u64>(), logits.len() as u64);
    logits.sort_by(f64::total_cmp);
    for i in 0..10 {
        assert!(near(feature.neg_values[i], logits[i]) && near(feature.pos_values[i], logits[logits.len() - 1 - i]));
    }
    let mut entries: Vec<f64> = row.iter().map(|v| f64::from(*v) / norm).collect();
    entries.sort_by(|a, b| b.total_cmp(a));
    assert!(feature.neuron_alignment_values.iter().zip(&entries).all(|(a, b)| near(*a, *b)));
}

#[test]
fn dashboards_are_what_all_activations_say() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/res");
    let mut stages = Vec::new();
    let report = write_neuronpedia(&mut harvest(), &target(), &out, &options(), &mut |p| stages.push(p)).unwrap();
    let (rows, acts) = brute_force();
    assert_eq!((report.rows, report.context), (ROWS, rows[0].len()));
    assert_eq!((report.alive, report.activations), (acts.len(), acts.values().map(|acts| acts.len() as u64).sum()));
    let last = stages.last().unwrap();
    assert!(last.stage == ExportStage::Files && last.done == report.files as u64 && last.of == Some(last.done));
    let w_u = MODEL.hooked().w_u_columns(0, MODEL.shape().d_vocab).unwrap().to_vec2::<f32>().unwrap();
    let (mut next, none, norms) = (0, BTreeMap::new(), norms());
    for file in 0..report.files {
        let batch = NeuronpediaBatch::open(out.join(format!("batch-{file}.json"))).unwrap();
        assert_eq!((&*batch.model_id, batch.layer, &*batch.sae_set, &batch.sae_id_suffix), ("demo", 1, "res", &None));
        assert!(batch.features.len() <= 128);
        for feature in &batch.features {
            assert_eq!(feature.feature_index, next);
            next += 1;
            let acts = acts.get(&feature.feature_index).unwrap_or(&none);
            if acts.is_empty() {
                assert!(feature.activations.is_empty() && feature.frac_nonzero == 0.0);
                assert!(feature.freq_hist_data_bar_heights.is_empty());
            } else {
                check_activations(feature, &rows, acts);
            }
            if feature.feature_index % 50 == 0 {
                check_logits(feature, &w_u, &norms);
            }
        }
    }
    assert_eq!(next as usize, SAE.d_sae());
    // The same again, to the byte, however features are cut into files.
    let again = dir.path().join("again");
    let other = NeuronpediaOptions { features_per_file: 1000, ..options() };
    write_neuronpedia(&mut harvest(), &target(), &again, &other, &mut |_| {}).unwrap();
    let first = |out: &Path| NeuronpediaBatch::open(out.join("batch-0.json")).unwrap().features[..20].to_vec();
    assert_eq!(first(&out), first(&again));
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let write = |target: &NeuronpediaTarget<'_>, out: &Path, options: &NeuronpediaOptions| {
        write_neuronpedia(&mut harvest(), target, out, options, &mut |_| {})
    };
    let out = dir.path().join("res");
    let none = write(&target(), &out, &NeuronpediaOptions { rows: Some(0), ..options() });
    assert!(matches!(export_error(none), ExportError::NoText));
    let none = write(&target(), &out, &NeuronpediaOptions { features_per_file: 0, ..options() });
    assert!(matches!(none, Err(Error::Option { option: "features_per_file", .. })), "{none:?}");
    let none = write(&NeuronpediaTarget { hook: 3, ..target() }, &out, &options());
    assert!(matches!(none, Err(Error::Option { option: "hook", .. })), "{none:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    std::fs::create_dir(&out).unwrap();
    let none = write(&target(), &out, &options());
    assert!(matches!(export_error(none), ExportError::Exists { .. }));
}

#[test]
fn what_is_no_batch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("batch-0.json");
    assert!(matches!(NeuronpediaBatch::open(&path), Err(Error::Io { .. })));
    for text in
        ["", "{", "[]", r#"{"model_id": "x"}"#, r#"{"model_id": 1, "layer": 0, "sae_set": "s", "features": []}"#]
    {
        std::fs::write(&path, text).unwrap();
        let refused = NeuronpediaBatch::open(&path);
        assert!(matches!(export_error(refused), ExportError::Malformed { .. }), "{text}");
    }
}

/// An SAE on all heads' `z`, as wide as the stream: its logits go through `W_O`.
#[test]
fn logits_of_an_sae_on_attention_go_through_w_o() {
    let d_model = MODEL.shape().d_model;
    let row =
        |feature: usize| (0..d_model).map(move |i| ((feature * 5003 + i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0);
    let flat: Vec<f32> = (0..4).flat_map(row).collect();
    let w_dec = Tensor::from_vec(flat, (4, d_model), &Device::Cpu).unwrap();
    let z: HookPoint = "blocks.1.attn.hook_z".parse().unwrap();
    let mut parts = SaeParts::new(w_dec.t().unwrap().contiguous().unwrap(), vec![0.0; 4], w_dec, vec![0.0; d_model]);
    parts.metadata = SaeMetadata {
        hook_name: Some(z.to_string()),
        prepend_bos: Some(true),
        context_size: Some(32),
        ..SaeMetadata::default()
    };
    let sae = Sae::on(MODEL.engine(), parts).unwrap();
    let text = Documents::open(&[root("assets/demo/text.jsonl")], DocumentOptions::default()).unwrap();
    let store = StoreOptions::default();
    let mut source = ActivationStore::from_sae(&MODEL, &sae, text, store).unwrap().in_order();
    let target = NeuronpediaTarget { hook: 0, coder: &sae, model: &MODEL, tokenizer: tokenizer() };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("np");
    write_neuronpedia(&mut source, &target, &out, &NeuronpediaOptions { rows: Some(2), ..options() }, &mut |_| {})
        .unwrap();
    let batch: NeuronpediaBatch = serde_json::from_slice(&std::fs::read(out.join("batch-0.json")).unwrap()).unwrap();
    let w_u = MODEL.hooked().w_u_columns(0, MODEL.shape().d_vocab).unwrap().contiguous().unwrap();
    let w_o = MODEL.hooked().output_weights(1, BlockPart::Attention).unwrap().w;
    let logits = sae.w_dec().matmul(&w_o).unwrap().matmul(&w_u).unwrap().to_vec2::<f32>().unwrap();
    for (feature, (logits, row)) in batch.features.iter().zip(logits.iter().zip(sae.w_dec().to_vec2::<f32>().unwrap()))
    {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        let largest = logits.iter().copied().fold(f32::MIN, f32::max) / norm;
        let smallest = logits.iter().copied().fold(f32::MAX, f32::min) / norm;
        assert!((f64::from(largest) - feature.pos_values[0]).abs() < 2e-3, "{largest} {:?}", feature.pos_values);
        assert!((f64::from(smallest) - feature.neg_values[0]).abs() < 2e-3, "{smallest} {:?}", feature.neg_values);
    }
}

#[test]
fn an_export_that_ends_at_any_step_leaves_nothing_or_all_of_it() {
    const FILES: [&str; 3] = ["batch-0.json", "run_settings.json", "skipped_indexes.json"];
    let options = NeuronpediaOptions { rows: Some(1), ..options() };
    // A few features, so that many exports take little time.
    let row = |feature: usize| (0..SAE.d_in()).map(move |i| f32::from(u8::from(i == feature)));
    let w_dec = Tensor::from_vec((0..8).flat_map(row).collect::<Vec<_>>(), (8, SAE.d_in()), &Device::Cpu).unwrap();
    let w_enc = w_dec.t().unwrap().contiguous().unwrap();
    let mut parts = SaeParts::new(w_enc, vec![0.0; 8], w_dec, vec![0.0; SAE.d_in()]);
    parts.metadata = SAE.metadata().clone();
    let sae = Sae::on(MODEL.engine(), parts).unwrap();
    let target = NeuronpediaTarget { coder: &sae, ..target() };
    let write =
        |dir: &Path| write_neuronpedia(&mut harvest(), &target, &dir.join("out"), &options, &mut |_| {}).unwrap();
    let all = |dir: &Path| FILES.map(|file| std::fs::read(dir.join("out").join(file)).unwrap());
    let whole = tempfile::tempdir().unwrap();
    write(whole.path());
    crash::at_every_step(
        "an_export_that_ends_at_any_step_leaves_nothing_or_all_of_it",
        |_| {},
        |dir| {
            write(dir);
        },
        |dir, finished| {
            if !dir.join("out").exists() {
                assert!(!finished);
                write(dir);
            }
            assert!(all(dir) == all(whole.path()));
            assert_eq!(
                (crash::names(dir), crash::names(&dir.join("out"))),
                (vec!["out".into()], FILES.map(String::from).to_vec())
            );
        },
    );
}
