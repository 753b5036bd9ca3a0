//! Intervals against the resampling that they stand for, done by brute force: documents repeated as rows.

use crate::toy::{Map, on_toy, plain, row_of, toy};
use activation_store::TokenRow;
use feature_analysis::evals::{Bootstrap, EvalOptions, Evaluation, Interval};
use model_hooks::LanguageModel;

const D: usize = 4;
const TOKENS: u64 = 40;

fn model() -> LanguageModel {
    let vectors: Vec<Vec<f32>> = (0..TOKENS)
        .map(|t| (0..D as u64).map(|i| ((t * 37 + i * 101) as f32).sin() * 3.0 + i as f32).collect())
        .collect();
    toy(&vectors.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Documents of one to three rows. The tokens of a row repeat its document's favorites, so that documents differ.
fn documents(count: u64) -> Vec<Vec<TokenRow>> {
    let row = |doc: u64, part: u64| -> TokenRow {
        let token = |i: u64| ((doc * 7 + part * 3 + i * (1 + doc % 5)) % TOKENS) as u32;
        row_of(doc * 3 + part, doc, &(0..9).map(token).collect::<Vec<_>>())
    };
    (0..count).map(|doc| (0..1 + doc % 3).map(|part| row(doc, part)).collect()).collect()
}

fn coder() -> Map<impl Fn(&[f32]) -> Vec<f32>> {
    Map(D, |x: &[f32]| x.iter().map(|x| (x * 2.0).round() / 2.0 - 0.1).collect())
}

fn evaluate(documents: &[Vec<TokenRow>], bootstrap: Bootstrap) -> Evaluation {
    // With the mean given by zero ablation alone the resamples differ in nothing but the documents.
    let options = EvalOptions { mean_ablation: false, batch_size_prompts: 1000, bootstrap, ..plain() };
    on_toy(&model(), &coder(), &documents.concat(), &options).unwrap()
}

#[test]
fn intervals_are_those_of_repeated_documents() {
    let documents = documents(7);
    let bootstrap = Bootstrap { resamples: 60, seed: 11, level: 0.9 };
    let none = Bootstrap { resamples: 0, ..bootstrap };
    let found = evaluate(&documents, bootstrap);
    assert_eq!((found.counts.units, found.counts.rows_among_units), (7, 0));
    let resampled: Vec<Evaluation> = (0..bootstrap.resamples)
        .map(|i| {
            let times = bootstrap.draw(i, documents.len());
            let drawn = documents.iter().zip(times).flat_map(|(rows, times)| vec![rows.clone(); times as usize]);
            evaluate(&drawn.collect::<Vec<_>>(), none)
        })
        .collect();
    let mut checked = 0;
    for measured in &found.metrics {
        let key = measured.metric.key();
        let Some(Interval { low, high }) = measured.interval else { continue };
        // The batch means of the legacy metric stay what they were.
        if key == "explained_variance_legacy" {
            continue;
        }
        let mut values: Vec<f64> = resampled.iter().map(|e| e.value(key).unwrap()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let quantile = |q: f64| {
            let place = q * (values.len() - 1) as f64;
            let below = place as usize;
            values[below] + (values[below + 1] - values[below]) * (place - below as f64)
        };
        let tolerance = 1e-9 * (1.0 + high.abs());
        assert!((low - quantile(0.05)).abs() < tolerance, "{key}: {low} {}", quantile(0.05));
        assert!((high - quantile(0.95)).abs() < tolerance, "{key}: {high} {}", quantile(0.95));
        assert!(low < high, "{key}: the resamples differ");
        checked += 1;
    }
    assert_eq!(checked, 19);
}

#[test]
fn more_documents_make_narrower_intervals_around_the_value() {
    // The same documents over and over, each time as documents of their own.
    let width = |times: u64| {
        let again = |time: u64| {
            let mut documents = documents(6);
            documents
                .iter_mut()
                .flatten()
                .flat_map(|row| row.origin.iter_mut().flatten())
                .for_each(|origin| origin.doc.file = time as u32);
            documents
        };
        let all: Vec<_> = (0..times).flat_map(again).collect();
        let found = evaluate(&all, Bootstrap { resamples: 400, ..Bootstrap::default() });
        assert_eq!(found.counts.units, 6 * times);
        let of = |key: &str| {
            let measured = found.get(key).unwrap();
            let Interval { low, high } = measured.interval.unwrap();
            assert!(low <= measured.value && measured.value <= high, "{key}: {low} {} {high}", measured.value);
            high - low
        };
        ["explained_variance", "ce_loss_score", "kl_div_with_sae", "l1"].map(of)
    };
    let (few, many) = (width(1), width(9));
    for (few, many) in few.into_iter().zip(many) {
        // A third, but for the draws.
        assert!(many < 0.45 * few && many > 0.2 * few, "{many} against {few}");
    }
}

#[test]
fn a_higher_level_is_wider_another_seed_is_another_draw_and_one_document_has_none() {
    let found = |bootstrap: Bootstrap| evaluate(&documents(8), bootstrap).get("l1").unwrap().interval.unwrap();
    let base = Bootstrap { resamples: 200, ..Bootstrap::default() };
    let (narrow, wide) = (found(Bootstrap { level: 0.5, ..base }), found(base));
    assert!(wide.low < narrow.low && narrow.high < wide.high);
    assert_eq!(found(base), wide);
    assert_ne!(found(Bootstrap { seed: 1, ..base }), wide);
    let one = evaluate(&documents(1), base);
    assert!(one.metrics.iter().all(|m| m.interval.is_none()));
    assert!(one.to_json()["intervals"].as_object().unwrap().is_empty());
}

/// Tokens of several documents in one row, some inserted, and rows of which no document is known.
#[test]
fn units_are_documents_where_they_are_known_and_rows_elsewhere() {
    let mut rows = vec![row_of(0, 0, &[0, 1, 2, 3]), row_of(1, 0, &[1, 1, 2, 0]), row_of(2, 5, &[3, 2, 2, 1])];
    // The second row goes over to document 5 half-way.
    rows[1].origin[2] = None;
    rows[1].origin[3] = rows[2].origin[3].clone();
    rows.push(TokenRow { origin: vec![None; 4], ..row_of(9, 0, &[4, 3, 0, 0]) });
    let options = EvalOptions { bootstrap: Bootstrap { resamples: 10, ..Bootstrap::default() }, ..plain() };
    let found = on_toy(&model(), &coder(), &rows, &options).unwrap();
    assert_eq!((found.counts.units, found.counts.rows_among_units), (3, 1));
    assert!(found.describe().contains("2 documents, 1 rows of none"), "{}", found.describe());
}
