//! Exports of an SAE whose activations may be negative (AbsTopK), against all its codes: signs are kept, and strength is magnitude.

use activation_store::{ActivationSource, ActivationStore, DocumentOptions, Documents, StoreOptions};
use candle_core::{Device, Tensor};
use feature_analysis::export::delphi::*;
use feature_analysis::export::neuronpedia::*;
use feature_analysis::{CollectOptions, collect, views};
use model_hooks::{LanguageModel, LoadOptions, Processing, load};
use sae_core::{Activation, Sae, SaeMetadata, SaeParts, SparseCoder};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const ROWS: u64 = 6;
const D_SAE: usize = 12;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

static MODEL: LazyLock<LanguageModel> =
    LazyLock::new(|| load(&root("assets/demo/lm"), &LoadOptions::new(Processing::TransformerLens)).unwrap());

/// Directions that are no feature of anything, with decoder rows of different norms: many of its activations are negative.
static SAE: LazyLock<Sae> = LazyLock::new(|| {
    let d_in = MODEL.shape().d_model;
    let row = |feature: usize| (0..d_in).map(move |i| ((feature * 5003 + i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0);
    let w_dec = Tensor::from_vec((0..D_SAE).flat_map(row).collect::<Vec<_>>(), (D_SAE, d_in), &Device::Cpu).unwrap();
    let w_enc = w_dec.t().unwrap().contiguous().unwrap();
    let mut parts = SaeParts::new(w_enc, vec![0.0; D_SAE], w_dec, vec![0.0; d_in]);
    parts.activation = Activation::AbsTopK { k: 3, rescale_by_decoder_norm: false };
    parts.metadata = SaeMetadata {
        hook_name: Some("blocks.1.hook_resid_post".into()),
        prepend_bos: Some(true),
        context_size: Some(32),
        ..SaeMetadata::default()
    };
    Sae::on(MODEL.engine(), parts).unwrap()
});

fn source() -> impl ActivationSource {
    let text = Documents::open(&[root("assets/demo/text.jsonl")], DocumentOptions::default()).unwrap();
    ActivationStore::from_sae(&MODEL, &*SAE, text, StoreOptions::default()).unwrap().in_order()
}

/// For each feature its activations that are not 0, by (row, position), special tokens included or not.
fn all_codes(special: bool) -> BTreeMap<u32, BTreeMap<(u32, u32), f32>> {
    let mut found: BTreeMap<u32, BTreeMap<_, _>> = BTreeMap::new();
    let specials = MODEL.tokenizer().unwrap().special_ids();
    for batch in source() {
        let batch = batch.unwrap();
        let codes = SAE.encode(&batch.rows[0]).unwrap().to_dense().unwrap().to_vec2::<f32>().unwrap();
        for ((at, token), values) in batch.at.iter().zip(&batch.tokens).zip(codes) {
            if at.row >= ROWS {
                return found;
            }
            for (feature, value) in values.into_iter().enumerate().filter(|(_, value)| *value != 0.0) {
                if special || !specials.contains(token) {
                    found.entry(feature as u32).or_default().insert((at.row as u32, at.pos), value);
                }
            }
        }
    }
    found
}

#[test]
fn neuronpedia_keeps_signs_and_ranks_by_magnitude() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("np");
    let tokenizer = MODEL.tokenizer().unwrap();
    let target = NeuronpediaTarget { hook: 0, coder: &*SAE, model: &MODEL, tokenizer };
    let options = NeuronpediaOptions { rows: Some(ROWS), ..NeuronpediaOptions::new("demo", 1, "signed") };
    let report = write_neuronpedia(&mut source(), &target, &out, &options, &mut |_| {}).unwrap();
    let codes = all_codes(false);
    let all = || codes.values().flat_map(BTreeMap::values);
    assert_eq!((report.alive, report.activations), (codes.len(), all().count() as u64));
    assert_eq!(report.negative, all().filter(|value| **value < 0.0).count() as u64);
    let (least, most) = (report.activations / 10, report.activations * 9 / 10);
    assert!((least..most).contains(&report.negative), "{report:?}");
    let total = (ROWS as usize * report.context) as f64;
    let mut shown_negative = 0;
    for feature in NeuronpediaBatch::open(out.join("batch-0.json")).unwrap().features {
        let norm = SAE.decoder_rows(&[feature.feature_index]).unwrap().sqr().unwrap().sum_all().unwrap();
        let norm = f64::from(norm.to_scalar::<f32>().unwrap()).sqrt();
        let due: BTreeMap<_, f64> =
            codes[&feature.feature_index].iter().map(|(at, value)| (*at, f64::from(*value) * norm)).collect();
        // Three decimals, and the rounding of f32.
        let near = |a: f64, b: f64| (a - b).abs() <= 6e-4 + 1e-5 * b.abs();
        assert!((feature.frac_nonzero - due.len() as f64 / total).abs() <= 6e-6);
        let middles = &feature.freq_hist_data_bar_values;
        let least = due.values().copied().fold(f64::MAX, f64::min);
        let most = due.values().copied().fold(f64::MIN, f64::max);
        let half = (most - least) / 100.0;
        assert!(near(middles[0], least + half) && near(middles[49], most - half));
        assert_eq!(feature.freq_hist_data_bar_heights.iter().sum::<u64>(), due.len() as u64);
        let mut strongest: Vec<f64> = due.iter().filter(|(at, _)| at.1 > 0).map(|(_, value)| value.abs()).collect();
        strongest.sort_by(|a, b| b.total_cmp(a));
        let largest = due.values().map(|value| value.abs()).fold(0.0, f64::max);
        let chosen = |example: &NeuronpediaActivation| example.values[example.qualifying_token_index];
        let (top, others): (Vec<_>, Vec<_>) =
            feature.activations.iter().partition(|example| example.bin_contains == -1.0);
        assert_eq!(top.len(), strongest.len().min(20));
        for (example, magnitude) in top.iter().zip(&strongest) {
            assert!(near(chosen(example).abs(), *magnitude) && near(example.bin_max, largest));
        }
        for example in others {
            assert!((example.bin_min - 1e-3..=example.bin_max + 1e-3).contains(&chosen(example).abs()));
        }
        // The values beside the chosen one have their signs too.
        for example in &feature.activations {
            let is_row = |row: u32| {
                let due = |pos: usize| due.get(&(row, pos as u32 + 1)).copied().unwrap_or(0.0);
                example.values.iter().enumerate().all(|(pos, value)| near(*value, due(pos)))
            };
            assert!((0..ROWS as u32).any(is_row));
            shown_negative += usize::from(chosen(example) < 0.0);
        }
    }
    assert!(shown_negative > D_SAE);
}

#[test]
fn delphi_keeps_signs() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("latents");
    let target = ExportSae { hook: 0, coder: &*SAE, hookpoint: "layers.1".into() };
    let options = DelphiOptions { rows: Some(ROWS), n_splits: 3, ..DelphiOptions::default() };
    let report = write_delphi(&mut source(), &[target], &out, &options, &mut |_| {}).unwrap();
    let mut found: BTreeMap<u32, BTreeMap<(u32, u32), f32>> = BTreeMap::new();
    for split in DelphiCache::open(out.join("layers.1")).unwrap().read() {
        for activation in split.unwrap().activations {
            found.entry(activation.feature).or_default().insert((activation.row, activation.pos), activation.value);
        }
    }
    let due = all_codes(true);
    let count = due.values().map(BTreeMap::len).sum::<usize>();
    assert_eq!((report.activations[0], found.values().map(BTreeMap::len).sum::<usize>()), (count as u64, count));
    for (feature, due) in &due {
        for (at, value) in due {
            let found = found[feature][at];
            // Half precision: 11 bits.
            assert!((found - value).abs() <= value.abs() / 2048.0 + 1e-7, "{feature} at {at:?}: {found}, due {value}");
        }
    }
}

/// The histogram of positive activations says how many it leaves out.
#[test]
fn a_histogram_of_positive_activations_counts_the_negative_ones() {
    let text = Documents::open(&[root("assets/demo/text.jsonl")], DocumentOptions::default()).unwrap();
    let mut store = ActivationStore::from_sae(&MODEL, &*SAE, text, StoreOptions::default()).unwrap();
    let options = CollectOptions { total_batches: 2, ..CollectOptions::default() };
    let kept = collect(&*SAE, &mut store, &[0], &options, &mut |_| {}).unwrap();
    let positive = feature_analysis::PositiveActivations::of(&kept, 0).unwrap();
    let all = kept.activations(0).unwrap();
    assert!(positive.negative > 0 && positive.negative + positive.values.len() == all.len());
    let page = views::positive_figure(&positive).json().to_string();
    assert!(page.contains(&format!("{} below 0 left out", positive.negative)));
}
