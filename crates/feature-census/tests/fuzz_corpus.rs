//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "fuzz/census.rs"]
mod census;
#[path = "../../../fuzz/harness.rs"]
mod harness;

#[test]
fn census_inputs() {
    harness::replay("census", census::read);
}

/// A census of four features, which no script can make.
#[test]
fn a_sound_census_is_read() {
    let _alone = harness::alone();
    use feature_census::{CensusOptions, FeatureCensus};
    let options =
        CensusOptions { together: vec![1], top: 2, samples_per_bin: 1, sample_bins: 4, ..CensusOptions::default() };
    let census = FeatureCensus::new(4, options).unwrap();
    let path = harness::folder().join("sound.parquet");
    census.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(FeatureCensus::load(&path, 4 << 20).is_ok());
    harness::bounded(&bytes, census::read);
    // `SAESCOPE_FUZZ_SEED=1 cargo test` keeps it as a first input of the fuzz target.
    if std::env::var_os("SAESCOPE_FUZZ_SEED").is_some() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/census");
        std::fs::create_dir_all(&seeds).unwrap();
        std::fs::write(seeds.join("first-small"), bytes).unwrap();
    }
}
