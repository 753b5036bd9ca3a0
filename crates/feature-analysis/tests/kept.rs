//! What the loop keeps: by hand, in any batches, and what is made of it.

mod common;

use activation_store::{Exclusion, TokenFilter, TokenPos, TokenRow};
use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use candle_core::{Device, Tensor};
use common::{Columns, row, texts, tokenizer};
use feature_analysis::*;
use feature_census::{CensusBatch, CensusOptions, FeatureCensus};
use proptest::prelude::*;
use sae_core::SparseCoder;

/// Three rows of four tokens; features 0, 1 and 3 of an SAE of four. The BOS fires too.
fn places(
    rows: &[TokenRow],
    positions: &[u32],
    filter: &TokenFilter,
    tokenizer: &model_hooks::Tokenizer,
) -> Vec<Option<Exclusion>> {
    let none = Tensor::zeros((rows.len() * positions.len(), 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    filter.resolve(Some(tokenizer)).unwrap().exclusions(rows, positions, &none).unwrap()
}

/// Every position counts.
fn all(n: usize) -> Vec<Option<Exclusion>> {
    vec![None; n]
}

fn example(keep_special: bool) -> (FeatureExamples, model_hooks::Tokenizer) {
    let tokenizer = tokenizer(&["<s>", "a", "b", "c"]);
    let rows = [row(0, &[0, 1, 2, 3]), row(1, &[0, 2, 2, 2]), row(2, &[0, 1, 1, 1])];
    #[rustfmt::skip]
    let x = [
        [9., 0., 0., 0.], [0., 0., 5., 0.], [1., 2., 0., 0.], [0., 0., 0., 0.],
        [9., 0., 0., 0.], [2., 0., 0., 4.], [0., 0., 5., 0.], [2., 0., 0., 0.],
        [9., 0., 0., 0.], [0., 0., 0., 0.], [0., 0., 0., 0.], [3., 0., 0., 0f32],
    ];
    let x = Tensor::new(&x, &Device::Cpu).unwrap().reshape((3, 4, 4)).unwrap();
    let mut kept = FeatureExamples::new(&Columns(4), &[3, 0, 1], 3).unwrap();
    let filter = if keep_special { TokenFilter::everything() } else { TokenFilter::default() };
    let positions = [0, 1, 2, 3];
    for (rows, at) in [(&rows[..2], 0), (&rows[2..], 2)] {
        let acts = Columns(4).encode_only(&x.narrow(0, at, rows.len()).unwrap(), &[3, 0, 1]).unwrap();
        kept.push(rows, &positions, &places(rows, &positions, &filter, &tokenizer), &acts).unwrap();
    }
    (kept, tokenizer)
}

fn at(row: u64, pos: u32) -> TokenPos {
    TokenPos { row, pos }
}

#[test]
fn keeps_what_fired_and_says_what_was_left_out() {
    let (kept, _) = example(false);
    assert_eq!(kept.at(), [at(0, 2), at(1, 1), at(1, 3), at(2, 3)]);
    assert_eq!(kept.tokens(), [2, 2, 2, 1]);
    assert_eq!(kept.acts_of(0), [0.0, 1.0, 2.0], "columns in the order of the features");
    assert_eq!(kept.activations(0).unwrap(), [1.0, 2.0, 2.0, 3.0]);
    let counts = kept.counts();
    assert_eq!((counts.tokens, counts.excluded.special, counts.rows), (9, 3, 3));
    assert_eq!(
        counts.to_string(),
        "9 tokens in 2 batches, 3 special tokens left out; the text ended before the 3 batches asked for"
    );
    assert_eq!(kept.activations(2).unwrap_err().to_string(), "feature 2 was not collected; collected were [3, 0, 1]");
}

#[test]
fn the_notebook_keeps_special_tokens() {
    let (kept, _) = example(true);
    assert_eq!(kept.len(), 7);
    assert_eq!((kept.counts().tokens, kept.counts().excluded.total()), (12, 0));
    assert_eq!(kept.at()[0], at(0, 0));
}

#[test]
fn top_activations_are_joined_by_address_and_ties_go_to_the_lower_one() {
    let (kept, tokenizer) = example(false);
    let top = top_activations(&kept, 0, 3).unwrap();
    let pairs: Vec<_> = top.iter().map(|t| (t.activation, t.at)).collect();
    assert_eq!(pairs, [(3.0, at(2, 3)), (2.0, at(1, 1)), (2.0, at(1, 3))]);
    assert_eq!(top_activations(&kept, 3, 10).unwrap().len(), 1, "zeros are not activations");
    let frame = top_frame(&kept, 0, 2, &tokenizer, &FrameOptions::default()).unwrap();
    assert_eq!(texts(&frame, "context"), ["<s>aa|a|", "<s>|b|bb"]);
    assert_eq!(texts(&frame, "label"), ["0/3", "1/1"], "prompts count within their batch");
    assert_eq!(frame.column_by_name("activation").unwrap().as_primitive::<Float32Type>().values()[..], [3.0, 2.0]);
}

#[test]
fn numbers_of_the_histogram() {
    let positive = PositiveActivations::of(&example(false).0, 0).unwrap();
    assert_eq!(positive.values, [1.0, 2.0, 2.0, 3.0]);
    assert_eq!(positive.title(), "Histogram of positive activations - 44.444% of activations were positive");
    let positive = PositiveActivations::of(&example(true).0, 0).unwrap();
    assert!((positive.percent() - 100.0 * 7.0 / 12.0).abs() < 1e-12);
    let nothing = PositiveActivations::of(&FeatureExamples::new(&Columns(4), &[1], 0).unwrap(), 1).unwrap();
    assert_eq!(nothing.percent(), 0.0);
}

#[test]
fn reconstructions_are_of_the_chosen_features_alone() {
    let recon = example(false).0.reconstructions().unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(recon, [[1., 4., 0., 0.], [2., 0., 0., 16.], [2., 0., 0., 0.], [3., 0., 0., 0.]]);
}

#[test]
fn frames_go_to_files_and_back() {
    let (kept, tokenizer) = example(false);
    let frame = feature_frame(&kept).unwrap();
    let names: Vec<_> = frame.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["feature_3", "feature_0", "feature_1"]);
    let whole = beside(&kept.frame(&tokenizer, &FrameOptions::default()).unwrap(), &frame).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (parquet, csv) = (dir.path().join("frame.parquet"), dir.path().join("frame.csv"));
    write_parquet(&whole, &parquet).unwrap();
    let file = std::fs::File::open(&parquet).unwrap();
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    assert_eq!(builder.schema(), &whole.schema());
    assert_eq!(builder.schema().metadata()["excluded"], "3", "the file says what was left out");
    let back = builder.build().unwrap().next().unwrap().unwrap();
    assert_eq!(back.columns(), whole.columns());
    write_csv(&frame, &csv).unwrap();
    assert_eq!(
        std::fs::read_to_string(&csv).unwrap(),
        "feature_3,feature_0,feature_1\n0.0,1.0,2.0\n4.0,2.0,0.0\n0.0,2.0,0.0\n0.0,3.0,0.0\n"
    );
    assert!(beside(&frame, &frame.slice(0, 1)).unwrap_err().to_string().contains("must be equal"));
}

#[test]
fn refusals() {
    let mut kept = FeatureExamples::new(&Columns(4), &[0], 1).unwrap();
    let acts = |values: &[f32]| Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).unwrap();
    let rows = [row(0, &[1, 2])];
    assert!(
        kept.push(&rows, &[0, 1], &all(2), &acts(&[1.]))
            .unwrap_err()
            .to_string()
            .contains("[batch, positions, 1] for 2 places")
    );
    assert!(
        kept.push(&rows, &[0, 1], &all(2), &acts(&[1., f32::NAN]))
            .unwrap_err()
            .to_string()
            .contains("NaN at row 1, column 0")
    );
    assert!(kept.push(&rows, &[0, 1], &all(1), &acts(&[1., 2.])).unwrap_err().to_string().contains("exclusions"));
    assert!(
        kept.push(&rows, &[0, 1, 2], &all(3), &acts(&[1., 2., 3.]))
            .unwrap_err()
            .to_string()
            .contains("at least 3 of each")
    );
    assert!(FeatureExamples::new(&Columns(4), &[4], 1).is_err());
    assert!(kept.is_empty() && kept.reconstructions().unwrap().dims() == [0, 4]);
}

/// An SAE that was trained on some positions sees only these: the address still says where in the row a token is.
#[test]
fn a_slice_of_positions_keeps_its_addresses() {
    let rows = [row(0, &[0, 1, 2, 3]), row(1, &[0, 3, 2, 1])];
    let acts = Tensor::new(&[[1f32], [0.], [2.], [3.]], &Device::Cpu).unwrap();
    let mut kept = FeatureExamples::new(&Columns(4), &[0], 1).unwrap();
    kept.push(&rows, &[1, 3], &all(4), &acts).unwrap();
    assert_eq!(kept.at(), [at(0, 1), at(1, 1), at(1, 3)]);
    assert_eq!(kept.tokens(), [1, 3, 1]);
    assert_eq!(kept.counts().tokens, 4);
}

/// Dictionaries may have signed features: two that cancel have fired.
#[test]
fn features_that_cancel_have_fired() {
    let mut kept = FeatureExamples::new(&Columns(4), &[0, 1], 1).unwrap();
    let acts = Tensor::new(&[[1f32, -1.], [0., 0.]], &Device::Cpu).unwrap();
    kept.push(&[row(0, &[1, 2])], &[0, 1], &all(2), &acts).unwrap();
    assert_eq!(kept.at(), [at(0, 0)]);
}

proptest! {
    /// Law 5: how rows are cut into batches does not change what is kept.
    #[test]
    fn batches_do_not_matter(values in prop::collection::vec(-1i8..3, 6 * 5 * 3), cut in 1usize..6) {
        let rows: Vec<TokenRow> = (0..6).map(|r| row(r, &[0, 1, 2, 1, 2])).collect();
        let x: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
        let x = Tensor::from_vec(x, (6, 5, 3), &Device::Cpu).unwrap();
        let run = |batch: usize| {
            let mut kept = FeatureExamples::new(&Columns(3), &[2, 0], 6).unwrap();
            for (i, rows) in rows.chunks(batch).enumerate() {
                let acts = Columns(3).encode_only(&x.narrow(0, i * batch, rows.len()).unwrap(), &[2, 0]).unwrap();
                kept.push(rows, &[0, 1, 2, 3, 4], &all(5 * rows.len()), &acts).unwrap();
            }
            kept
        };
        let (whole, parts) = (run(6), run(cut));
        prop_assert_eq!(whole.at(), parts.at());
        prop_assert_eq!(whole.acts(), parts.acts());
        prop_assert_eq!(top_activations(&whole, 2, 4).unwrap(), top_activations(&parts, 2, 4).unwrap());
    }
}

#[test]
fn families_by_hand() {
    let tokenizer = tokenizer(&["<s>", " Mon", "Mon", " Tue", "x"]);
    let family = WordList::new(&["Mon", "Tue", "Wed"], &tokenizer).unwrap();
    assert_eq!(family.members, [("Mon".to_owned(), vec![1, 2]), ("Tue".to_owned(), vec![3])]);
    assert_eq!(family.not_tokens, ["Wed"], "the unknown token is not a word");
    assert!(WordList::new(&["Wed"], &tokenizer).unwrap_err().to_string().contains("none of [\"Wed\"]"));
}

#[test]
fn family_scores_by_hand() {
    let tokenizer = tokenizer(&["<s>", " Mon", "Mon", " Tue", "Tue", "x"]);
    let family = WordList::new(&["Mon", "Tue"], &tokenizer).unwrap();
    let rows = [row(0, &[0, 1, 5, 3]), row(1, &[0, 5, 2, 5])];
    // Feature 0 fires on every family token and once elsewhere; 1 on one of them alone; 2 elsewhere only; 3 on BOS only.
    #[rustfmt::skip]
    let x = [
        [0., 0., 0., 7.], [2., 0., 0., 0.], [4., 0., 1., 0.], [2., 1., 0., 0.],
        [0., 0., 0., 7.], [0., 0., 1., 0.], [2., 0., 0., 0.], [0., 0., 0., 0f32],
    ];
    let codes = Columns(4).encode(&Tensor::new(&x, &Device::Cpu).unwrap()).unwrap();
    let mut counter = WordFeatureCounter::new(&family, 4);
    let positions = [0, 1, 2, 3];
    let excluded = places(&rows, &positions, &TokenFilter::default(), &tokenizer);
    counter.push(&rows, &positions, &excluded, &codes.features).unwrap();
    let report = counter.report(10);
    assert_eq!(report.occurrences, [("Mon".to_owned(), 2), ("Tue".to_owned(), 1)]);
    let ids: Vec<_> = report.features.iter().map(|f| f.feature).collect();
    assert_eq!(ids, [0, 1], "features that never fire on the family are not listed");
    let [zero, one] = &report.features[..] else { panic!() };
    assert_eq!((zero.recall, zero.precision, zero.activation_mass, zero.firings), (1.0, 0.75, 0.6, 4));
    assert_eq!(one.recall_per_member, [0.0, 1.0]);
    assert!((one.score - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!((report.counts.tokens, report.counts.excluded.total()), (6, 2));
}

/// Codes with a sign: the features are the input's columns as they are.
struct Signed(Columns);

impl SparseCoder for Signed {
    fn d_in(&self) -> usize {
        self.0.d_in()
    }
    fn d_sae(&self) -> usize {
        self.0.d_sae()
    }
    fn coupling(&self) -> sae_core::Coupling {
        self.0.coupling()
    }
    fn encode(&self, x: &Tensor) -> sae_core::Result<sae_core::Codes> {
        let features = sae_core::SparseFeatures::from_dense(&x.reshape(((), self.d_in()))?)?;
        Ok(sae_core::Codes::from_features(features))
    }
    fn decode(&self, codes: &sae_core::Codes) -> sae_core::Result<Tensor> {
        codes.to_dense()
    }
    fn decoder_rows(&self, features: &[u32]) -> sae_core::Result<Tensor> {
        self.0.decoder_rows(features)
    }
}

proptest! {
    /// Signed codes are ranked by magnitude, here and in a census: the same values at the same addresses.
    #[test]
    fn top_activations_are_those_of_a_census(values in prop::collection::vec(-4i8..4, 6 * 4 * 3), k in 0usize..9) {
        let coder = Signed(Columns(3));
        let rows: Vec<TokenRow> = (0..6).map(|r| row(r, &[1, 2, 3, 1])).collect();
        let x: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
        let x = Tensor::from_vec(x, (6, 4, 3), &Device::Cpu).unwrap();
        let mut kept = FeatureExamples::new(&coder, &[0, 1, 2], 1).unwrap();
        kept.push(&rows, &[0, 1, 2, 3], &all(24), &coder.encode_only(&x, &[0, 1, 2]).unwrap()).unwrap();
        let at: Vec<_> = rows.iter().flat_map(|r| (0..4).map(|pos| TokenPos { row: r.row, pos })).collect();
        let tokens = rows.iter().flat_map(|r| r.tokens.clone()).collect::<Vec<_>>();
        let options = CensusOptions { top: k, documents: false, ..CensusOptions::default() };
        let mut census = FeatureCensus::new(3, options).unwrap();
        census.push(&CensusBatch::new(&at, &tokens, &coder.encode(&x).unwrap().features)).unwrap();
        for feature in 0..3 {
            let ours = top_activations(&kept, feature, k).unwrap();
            let theirs = census.top(feature).unwrap();
            let ours: Vec<_> = ours.iter().map(|t| (t.at, t.token, t.activation)).collect();
            let theirs: Vec<_> = theirs.iter().map(|t| (t.at, t.token, t.activation)).collect();
            prop_assert_eq!(ours, theirs);
            let stats = census.stats(feature).unwrap();
            let strongest = census.top(feature).unwrap().first().map_or(stats.strongest(), |top| top.activation);
            prop_assert_eq!(stats.strongest().abs(), strongest.abs());
        }
    }
}

#[test]
fn a_strong_negative_activation_is_a_top_activation() {
    let mut kept = FeatureExamples::new(&Columns(4), &[0], 1).unwrap();
    let acts = Tensor::new(&[[1f32], [-3.], [0.], [3.]], &Device::Cpu).unwrap();
    kept.push(&[row(0, &[1, 2, 3, 1])], &[0, 1, 2, 3], &all(4), &acts).unwrap();
    let top: Vec<_> = top_activations(&kept, 0, 9).unwrap().iter().map(|t| (t.activation, t.at.pos)).collect();
    assert_eq!(top, [(-3.0, 1), (3.0, 3), (1.0, 0)]);
}
