//! Any partition of the rows, merged in any order, is the census of the whole.

#[path = "census/support.rs"]
mod support;

use feature_census::*;
use proptest::prelude::*;
use support::*;

/// Rows dealt out to `parts` censuses in an order drawn from the seed, in batches of whole rows; each part in rising order if `in_order`.
fn partition(
    text: &Text,
    options: &CensusOptions,
    parts: u64,
    in_order: bool,
    random: &mut Random,
) -> Vec<FeatureCensus> {
    let mut censuses: Vec<_> = (0..parts).map(|_| FeatureCensus::new(D_SAE, options.clone()).unwrap()).collect();
    let mut rows = text.rows();
    if !in_order {
        rows.sort_by_cached_key(|_| random.next());
    }
    // Runs of rows of random length go to one part, so that some documents lie in one part and others do not.
    let (mut part, mut left) = (0, 0);
    for row in rows {
        if left == 0 {
            (part, left) = (random.below(parts) as usize, 1 + random.below(6));
        }
        left -= 1;
        // Sometimes a row comes in two batches.
        let cut = row.start + random.below(row.len() as u64) as usize;
        text.push(&mut censuses[part], row.start..cut);
        text.push(&mut censuses[part], cut..row.end);
    }
    censuses
}

fn merged(mut censuses: Vec<FeatureCensus>, random: &mut Random) -> FeatureCensus {
    while censuses.len() > 1 {
        let from = censuses.swap_remove(random.below(censuses.len() as u64) as usize);
        let into = random.below(censuses.len() as u64) as usize;
        censuses[into].merge(&from).unwrap();
    }
    censuses.remove(0)
}

fn reload(census: &FeatureCensus) -> FeatureCensus {
    let file = tempfile::NamedTempFile::new().unwrap();
    census.save(file.path()).unwrap();
    let loaded = FeatureCensus::load(file.path(), 1 << 30).unwrap();
    assert_eq!(bytes(&loaded), bytes(census));
    loaded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_partition_in_any_order(seed in any::<u64>(), tokens in 1usize..1500, parts in 1u64..7, in_order in any::<bool>()) {
        let text = Text::synthetic(tokens, seed);
        let options = CensusOptions { top: 3, samples_per_bin: 2, together: vec![0, 9], ..options() };
        let mut random = Random(seed ^ 1);
        let census = merged(partition(&text, &options, parts, in_order, &mut random), &mut random);
        let whole = text.census(&options, 100);
        assert_same(&census, &whole);
        prop_assert_eq!(bytes(&census), bytes(&whole));
        Brute::of(&text, &options).check(&census);
    }

    /// Parts that are saved and loaded again before they are merged; a part that stops, is saved, and goes on.
    #[test]
    fn files_are_a_detour_without_consequences(seed in any::<u64>(), tokens in 1usize..800, parts in 1u64..4) {
        let text = Text::synthetic(tokens, seed);
        let options = CensusOptions { top: 3, samples_per_bin: 2, together: vec![0, 9], ..options() };
        let mut random = Random(seed ^ 1);
        let censuses = partition(&text, &options, parts, false, &mut random);
        let census = merged(censuses.iter().map(reload).collect(), &mut random);
        let whole = bytes(&text.census(&options, 100));
        prop_assert_eq!(bytes(&census), &whole[..]);
        let mut halves = FeatureCensus::new(D_SAE, options.clone()).unwrap();
        let cut = random.below(tokens as u64) as usize;
        text.push(&mut halves, 0..cut);
        let mut halves = reload(&halves);
        text.push(&mut halves, cut..tokens);
        prop_assert_eq!(bytes(&halves), &whole[..]);
    }
}

#[test]
fn unlike_censuses_are_not_merged() {
    let text = Text::synthetic(100, 1);
    let census = text.census(&options(), 10);
    let refuse = |other: &FeatureCensus| census.clone().merge(other).unwrap_err().to_string();
    let other = FeatureCensus::new(D_SAE + 1, options()).unwrap();
    assert_eq!(refuse(&other), "these censuses do not go together: their numbers of features differ (300 and 301)");
    let other = FeatureCensus::new(D_SAE, CensusOptions { top: 1, ..options() }).unwrap();
    assert!(refuse(&other).contains("their options differ"));
    let names = CensusLabels { model: "another".into(), ..CensusLabels::default() };
    assert!(refuse(&FeatureCensus::new(D_SAE, options()).unwrap().named(names)).contains("their names differ"));
    assert_eq!(refuse(&census), "these censuses cannot be merged: both have row 0");
}

#[test]
fn rows_come_once_and_with_documents() {
    let text = Text::synthetic(100, 1);
    let mut census = text.census(&options(), 100);
    let before = census.clone();
    let codes = text.batch(20..24);
    let batch = CensusBatch::new(&text.at[20..24], &text.tokens[20..24], &codes);
    assert!(census.push(&batch).unwrap_err().to_string().starts_with("this census counts documents, but"));
    let twice = census.push(&batch.documents(&text.documents[20..24])).unwrap_err().to_string();
    assert_eq!(twice, "1/4 was taken in before: every row of tokens goes into a census once, its positions in order");
    assert_same(&census, &before);
}

#[test]
fn bad_activations_are_refused_whole() {
    let mut census = FeatureCensus::new(2, CensusOptions { documents: false, ..options() }).unwrap();
    let at = [0, 1].map(|pos| activation_store::TokenPos { row: 3, pos });
    for bad in [f32::NAN, f32::INFINITY, LIMIT, -LIMIT] {
        let codes = sae_core::SparseFeatures::new(vec![0, 1, 2], vec![0, 1], vec![1.0, bad], 2).unwrap();
        let error = census.push(&CensusBatch::new(&at, &[0, 0], &codes)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("feature 1 has activation {bad} at 3/1; a census takes")), "{error}");
    }
    assert_eq!((census.tokens(), census.dead().len()), (0, 2));
}
