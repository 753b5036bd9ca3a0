//! The notebook on the embedded demo, against what SAELens and TransformerLens answered (`tests/golden/demo`).

use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions, TokenPos};
use candle_core::{DType, Tensor};
use feature_analysis::*;
use model_hooks::{LanguageModel, LoadOptions, Processing, load};
use sae_core::{Sae, SeqposSlice};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tensor_files::SafetensorsFile;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

struct Demo {
    model: LanguageModel,
    sae: Sae,
    /// The documents, read a second time and by other code: where addresses must lead.
    texts: Vec<String>,
    answers: Value,
    tensors: SafetensorsFile,
}

static DEMO: LazyLock<Demo> = LazyLock::new(|| Demo {
    model: load(&root("assets/demo/lm"), &LoadOptions::new(Processing::TransformerLens)).unwrap(),
    sae: Sae::load(root("assets/demo/sae")).unwrap(),
    texts: std::fs::read_to_string(root("assets/demo/text.jsonl")).unwrap().lines().map(text_of).collect(),
    answers: serde_json::from_str(&std::fs::read_to_string(root("tests/golden/demo/answers.json")).unwrap()).unwrap(),
    tensors: SafetensorsFile::open(root("tests/golden/demo/answers.safetensors")).unwrap(),
});

fn text_of(line: &str) -> String {
    serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned()
}

fn store(batch: usize) -> ActivationStore {
    let options = StoreOptions { store_batch_size_prompts: batch, ..StoreOptions::default() };
    let text = Documents::open(&[root("assets/demo/text.jsonl")], DocumentOptions::default()).unwrap();
    ActivationStore::from_sae(&DEMO.model, &DEMO.sae, text, options).unwrap()
}

fn integers(name: &str) -> Vec<u64> {
    let tensor = DEMO.tensors.load(name).unwrap().flatten_all().unwrap().to_dtype(DType::I64).unwrap();
    tensor.to_vec1::<i64>().unwrap().into_iter().map(|v| v as u64).collect()
}

fn floats(name: &str) -> Vec<f64> {
    doubles(&DEMO.tensors.load_f32(name).unwrap())
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn golden_features() -> Vec<u32> {
    integers("features").into_iter().map(|f| f as u32).collect()
}

fn run(batch: usize, features: &[u32], options: &CollectOptions) -> FeatureExamples {
    collect(&DEMO.sae, &mut store(batch), features, options, &mut |_| {}).unwrap()
}

/// `batch * 1024 + prompt * 128 + pos`, as the golden counts.
fn flat(kept: &FeatureExamples, first_row: u64) -> BTreeSet<u64> {
    kept.at().iter().map(|at| (at.row - first_row) * 128 + u64::from(at.pos)).collect()
}

/// The same rows, except where a pre-activation is so near its threshold that rounding decides.
fn assert_same_rows(ours: &BTreeSet<u64>, theirs: &str, near_edge: &str) {
    let (theirs, edge): (BTreeSet<u64>, BTreeSet<u64>) =
        (integers(theirs).into_iter().collect(), integers(near_edge).into_iter().collect());
    let differ: Vec<_> = ours.symmetric_difference(&theirs).filter(|row| !edge.contains(row)).collect();
    assert!(differ.is_empty(), "{} of {} rows differ: {differ:?}", differ.len(), theirs.len());
    assert!(
        ours.symmetric_difference(&theirs).count() * 1000 < theirs.len(),
        "more differ near the edge than rounding explains"
    );
}

fn assert_near(ours: f64, theirs: &Value, relative: f64) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= relative * theirs.abs(), "{ours} against {theirs}");
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum()
}

fn sum_of_squares(values: &Tensor) -> f64 {
    doubles(values).iter().map(|v| v * v).sum()
}

#[test]
fn cells_20_to_23_as_saelens() {
    let (features, answers) = (golden_features(), &DEMO.answers);
    let kept = run(8, &features, &CollectOptions::notebook(20));
    assert_same_rows(&flat(&kept, 0), "kept", "near_edge");
    assert_near(kept.len() as f64, &answers["kept_rows"], 1e-4);
    assert_near(sum(kept.acts()), &answers["acts_sum"], 1e-4);
    assert_near(sum_of_squares(&kept.reconstructions().unwrap()), &answers["recon_sumsq"], 1e-4);
    assert_eq!(
        (kept.counts().tokens, kept.counts().excluded.special, kept.counts().ended_early()),
        (20 * 8 * 128, 0, false)
    );

    let (counts, sums, largest) = (integers("feature_counts"), floats("feature_sums"), floats("feature_max"));
    for (i, &feature) in features.iter().enumerate() {
        let acts = kept.activations(feature).unwrap();
        let positive = acts.iter().filter(|&&a| a > 0.0).count() as u64;
        assert!(positive.abs_diff(counts[i]) <= 1, "feature {feature}: {positive} against {}", counts[i]);
        let max = f64::from(acts.iter().copied().fold(0.0, f32::max));
        assert!(
            (max - largest[i]).abs() <= 1e-4 * (1.0 + largest[i]),
            "feature {feature}: {max} against {}",
            largest[i]
        );
        assert!(
            (sum(&acts) - sums[i]).abs() <= 1e-3 * (1.0 + sums[i]),
            "feature {feature}: {} against {}",
            sum(&acts),
            sums[i]
        );
    }

    let busiest = &answers["busiest"];
    let feature = busiest["feature"].as_u64().unwrap() as u32;
    let positive = PositiveActivations::of(&kept, feature).unwrap();
    assert_near(positive.percent(), &busiest["percent_positive"], 1e-3);
    assert_eq!(positive.title(), "Histogram of positive activations - 7.192% of activations were positive");
    same_top(&kept, feature, busiest["top10"].as_array().unwrap());
}

/// Cell 23: addresses, values, and contexts under both suffix rules.
fn same_top(kept: &FeatureExamples, feature: u32, golden: &[Value]) {
    let tokenizer = DEMO.model.try_tokenizer().unwrap();
    let top = top_activations(kept, feature, 10).unwrap();
    let notebook = FrameOptions { suffix: ContextEnd::Notebook, ..FrameOptions::default() };
    let frame = |options: &FrameOptions| top_frame(kept, feature, 10, tokenizer, options).unwrap();
    let column = |options: &FrameOptions, name: &str| -> Vec<String> {
        let frame = frame(options);
        let column = arrow::array::AsArray::as_string::<i32>(frame.column_by_name(name).unwrap());
        column.iter().map(|s| s.unwrap().to_owned()).collect()
    };
    let want = |key: &str| -> Vec<String> { golden.iter().map(|g| g[key].as_str().unwrap().to_owned()).collect() };
    for name in ["str_tokens", "unique_token", "context", "label"] {
        assert_eq!(column(&notebook, name), want(name), "{name}");
    }
    assert_eq!(column(&FrameOptions::default(), "context"), want("context_whole"));
    for (top, golden) in top.iter().zip(golden) {
        assert_near(f64::from(top.activation), &golden["value"], 1e-4);
        let row = golden["batch"].as_u64().unwrap() * 8 + golden["prompt"].as_u64().unwrap();
        assert_eq!(top.at, TokenPos { row, pos: golden["pos"].as_u64().unwrap() as u32 });
    }
}

#[test]
fn special_tokens_are_left_out_and_counted_unless_asked_for() {
    let kept = run(8, &golden_features(), &CollectOptions { total_batches: 20, ..options() });
    let bos = DEMO.model.try_tokenizer().unwrap().bos().unwrap();
    assert!(!kept.tokens().contains(&bos));
    let (all, special) =
        (DEMO.answers["kept_rows"].as_u64().unwrap(), DEMO.answers["kept_rows_special"].as_u64().unwrap());
    assert!((kept.len() as u64).abs_diff(all - special) <= 1);
    assert_near(sum(kept.acts()), &DEMO.answers["acts_sum_without_special"], 1e-4);
    let counts = kept.counts();
    assert!(counts.excluded.special >= 20 * 8, "every row begins with BOS: {counts}");
    assert_eq!(counts.tokens + counts.excluded.total(), 20 * 8 * 128);
}

/// Law 4: an address leads through its row to the bytes of the document that are the token.
#[test]
fn every_kept_address_resolves_to_its_text() {
    let kept = run(8, &golden_features()[..20], &CollectOptions { total_batches: 12, ..options() });
    let tokenizer = DEMO.model.try_tokenizer().unwrap();
    assert!(kept.len() > 500);
    for i in 0..kept.len() {
        let (place, at) = (kept.place(i), kept.at()[i]);
        assert_eq!((place.row.row, place.pos), (at.row, at.pos as usize));
        let origin = place.row.origin[place.pos].as_ref().expect("inserted tokens are left out");
        let text = DEMO.texts[origin.doc.ordinal as usize].as_bytes();
        let bytes = &text[origin.span.start as usize..origin.span.end as usize];
        let piece = tokenizer.piece(kept.tokens()[i]).unwrap();
        let slice = std::str::from_utf8(bytes).unwrap();
        assert!(piece == slice || piece.contains('\u{fffd}'), "{piece:?} at {at:?} is {slice:?} in the text");
    }
}

/// Law 5: rows of tokens do not depend on how many go through the model at once; values to 1e-5 while candle multiplies.
#[test]
fn batch_size_does_not_matter() {
    let features = &golden_features()[..30];
    let whole = run(8, features, &CollectOptions { total_batches: 3, ..options() });
    let parts = run(3, features, &CollectOptions { total_batches: 8, ..options() });
    assert_eq!(whole.at(), parts.at());
    let largest = whole.acts().iter().copied().fold(0.0, f32::max);
    assert!(whole.acts().iter().zip(parts.acts()).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
}

#[test]
fn the_end_of_the_text_is_said() {
    let mut last = Vec::new();
    let options = CollectOptions { total_batches: 100, skip_batches: 327, ..options() };
    let kept = collect(&DEMO.sae, &mut store(8), &[767], &options, &mut |p| last.push(p.batches_done)).unwrap();
    assert!(kept.counts().ended_early() && kept.counts().batches_done >= 2);
    assert_eq!(last.len() as u64, kept.counts().batches_done);
    assert!(kept.counts().to_string().ends_with("the text ended before the 100 batches asked for"));
    let nothing = run(8, &[767], &CollectOptions { total_batches: 1, skip_batches: 10_000, ..self::options() });
    assert!(nothing.is_empty() && nothing.counts().ended_early());
}

fn options() -> CollectOptions {
    CollectOptions::default()
}

#[test]
fn cell_24_as_transformer_lens() {
    let features = &golden_features()[..20];
    let options = LensOptions { block_features: 7, block_tokens: 1000, ..LensOptions::default() };
    let lens = logit_lens(&DEMO.model, &DEMO.sae, Some(features), &options).unwrap();
    assert_eq!(lens.processing, Processing::TransformerLens.into());
    let (ids, values) = (integers("lens.ids"), floats("lens.values"));
    for (i, entry) in lens.features.iter().enumerate() {
        for (j, &(token, value)) in entry.tokens.top.iter().enumerate() {
            let at = i * 10 + j;
            assert!(
                (f64::from(value) - values[at]).abs() < 1e-4,
                "feature {}, token {j}: {value} against {}",
                entry.feature,
                values[at]
            );
            let tie = (j > 0 && values[at - 1] - values[at] < 1e-4) || (j < 9 && values[at] - values[at + 1] < 1e-4);
            assert!(u64::from(token) == ids[at] || tie, "feature {}, place {j}", entry.feature);
        }
        assert!(entry.tokens.bottom.windows(2).all(|w| w[0].1 <= w[1].1) && entry.tokens.bottom[0].1 < 0.0);
    }
    let tokenizer = DEMO.model.try_tokenizer().unwrap();
    let words: Vec<_> = lens.features[0].tokens.top.iter().map(|&(id, _)| tokenizer.piece(id).unwrap()).collect();
    let want: Vec<_> =
        DEMO.answers["lens_tokens_feature0"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(words, want);
}

#[test]
fn the_lens_of_all_features_is_that_of_each() {
    let options = LensOptions { top: 3, bottom: 3, ..LensOptions::default() };
    let all = logit_lens(&DEMO.model, &DEMO.sae, None, &options).unwrap();
    assert_eq!(all.features.len(), 2048);
    let one = logit_lens(&DEMO.model, &DEMO.sae, Some(&[1999]), &options).unwrap();
    assert_eq!(all.features[1999].feature, 1999);
    for ((a, x), (b, y)) in all.features[1999].tokens.top.iter().zip(&one.features[0].tokens.top) {
        assert!(a == b && (x - y).abs() < 1e-5);
    }
}

#[test]
fn cells_26_and_27_as_sklearn() {
    let days = &DEMO.answers["days"];
    let number = |key: &str| days[key].as_u64().unwrap();
    let features: Vec<u32> = days["features"].as_array().unwrap().iter().map(|f| f.as_u64().unwrap() as u32).collect();
    let options = CollectOptions { skip_batches: number("first_batch"), ..CollectOptions::notebook(number("batches")) };
    let kept = run(8, &features, &options);
    let ours = flat(&kept, number("first_batch") * 8);
    assert_same_rows(&ours, "days.kept", "days.near_edge");
    assert_near(kept.len() as f64, &days["kept_rows"], 2e-3);
    assert_near(sum(kept.acts()), &days["acts_sum"], 1e-3);
    let recon = kept.reconstructions().unwrap();
    assert_near(sum_of_squares(&recon), &days["recon_sumsq"], 1e-3);
    for solver in [Solver::Auto, Solver::Linfa] {
        let pca = Pca::fit(&recon, 3, solver).unwrap();
        for i in 0..3 {
            assert_near(pca.explained_variance()[i], &days["explained_variance"][i], 1e-3);
            assert_near(pca.explained_variance_ratio()[i], &days["explained_variance_ratio"][i], 1e-3);
        }
        let components = floats("days.components");
        let differ = pca.components().iter().zip(&components).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(differ < 2e-3, "{solver:?}: components differ by {differ} (their rms is 1/16)");
        let theirs = integers("days.kept");
        if ours.iter().eq(&theirs) {
            let (ours, theirs) = (doubles(&pca.transform(&recon).unwrap()), floats("days.embedding"));
            let rms = (theirs.iter().map(|x| x * x).sum::<f64>() / theirs.len() as f64).sqrt();
            assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-3 * rms), "{solver:?}: embedding");
        }
    }
}

/// The features of day names, found by their activations: most of those that the SAE's makers found in Python.
#[test]
fn features_of_days_are_found() {
    let family = WordList::days(DEMO.model.try_tokenizer().unwrap()).unwrap();
    assert_eq!((family.members.len(), family.not_tokens.len()), (7, 0));
    let options = WordFeatureOptions { skip_batches: 289, ..WordFeatureOptions::default() };
    let report = word_features(&DEMO.sae, &mut store(8), &family, &options, &mut |_| {}).unwrap();
    assert!(report.counts.batches_done >= 40 && !report.counts.ended_early() && report.counts.excluded.total() > 0);
    assert!(report.occurrences.iter().all(|(_, n)| *n > 30), "{:?}", report.occurrences);
    let expected = [767, 1890, 199, 905, 1506, 1350, 813, 818, 1245];
    let found = report.features.iter().filter(|f| expected.contains(&f.feature)).count();
    for f in &report.features {
        println!(
            "{:5} score {:.3} recall {:.3} of firings {:.3} of mass {:.3}",
            f.feature, f.score, f.recall, f.precision, f.activation_mass
        );
    }
    assert!(
        found >= 6,
        "{found} of {expected:?} among the first 20: {:?}",
        report.features.iter().map(|f| f.feature).collect::<Vec<_>>()
    );
    assert!(report.features.windows(2).all(|w| w[0].score >= w[1].score));
}

/// Positions that the store leaves out (`seqpos_slice`) shift nothing: each example's shaded token is the one that fired.
#[test]
fn wide_contexts_of_a_slice_of_positions() {
    let slice = SeqposSlice { start: Some(5), stop: Some(-3), step: Some(2) };
    let options = StoreOptions { seqpos_slice: Some(slice), ..StoreOptions::default() };
    let text = Documents::open(&[root("assets/demo/text.jsonl")], DocumentOptions::default()).unwrap();
    let mut store = ActivationStore::from_sae(&DEMO.model, &DEMO.sae, text, options).unwrap();
    let features = &golden_features()[..20];
    let seed_loop = CollectOptions { total_batches: 4, ..CollectOptions::default() };
    let kept = collect(&DEMO.sae, &mut store, features, &seed_loop, &mut |_| {}).unwrap();
    let feature = *features.iter().max_by_key(|&&f| top_activations(&kept, f, 1000).unwrap().len()).unwrap();
    let around = FrameOptions::default();
    let examples = views::top_examples(&kept, feature, 8, &DEMO.sae, &store, &around).unwrap();
    assert_eq!(examples.len(), 8);
    for (example, top) in examples.iter().zip(top_activations(&kept, feature, 8).unwrap()) {
        assert!((example.tokens[example.focus].activation - top.activation).abs() < 1e-4 * top.activation);
        assert!(example.tokens.iter().enumerate().all(|(i, t)| i % 2 == example.focus % 2 || t.activation == 0.0));
    }
}
