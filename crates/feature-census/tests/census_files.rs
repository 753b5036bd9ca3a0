//! Files of censuses: damaged, foreign, of another version, too large.

#[path = "census/support.rs"]
mod support;

use arrow::array::RecordBatch;
use feature_census::*;
use parquet::arrow::ArrowWriter;
use std::path::Path;
use support::*;

fn refuse(path: &Path) -> String {
    match FeatureCensus::load(path, 1 << 30).unwrap_err() {
        Error::File { path: found, reason } => {
            assert_eq!(found, path);
            reason
        }
        other => panic!("{other}"),
    }
}

fn write_parquet(frame: &RecordBatch, path: &Path) {
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), frame.schema(), None).unwrap();
    writer.write(frame).unwrap();
    writer.close().unwrap();
}

fn small() -> FeatureCensus {
    let options = CensusOptions { together: vec![4], top: 3, samples_per_bin: 2, ..options() };
    Text::synthetic(400, 5).census(&options, 100)
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let whole = bytes(&small());
    let mut random = Random(1);
    for i in 0..400 {
        let mut damaged = whole.clone();
        if i % 4 == 0 {
            damaged.truncate(random.below(whole.len() as u64) as usize);
        } else {
            let at = random.below(whole.len() as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
        }
        std::fs::write(&path, &damaged).unwrap();
        // Some bits mean nothing to the reader. Whatever it accepts is the census that was saved.
        if let Ok(census) = FeatureCensus::load(&path, 1 << 30) {
            assert_eq!(bytes(&census), whole);
        } else {
            refuse(&path);
        }
    }
}

#[test]
fn foreign_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    std::fs::write(&path, b"not Parquet at all").unwrap();
    refuse(&path);
    std::fs::write(&path, b"").unwrap();
    refuse(&path);
    write_parquet(&small().stats_frame().unwrap(), &path);
    assert_eq!(refuse(&path), "it is a Parquet file, but no census");
    assert!(matches!(FeatureCensus::load(&dir.path().join("none"), 1), Err(Error::Io { .. })));
    // Without a bound.
    std::fs::write(&path, bytes(&small())).unwrap();
    assert_eq!(bytes(&FeatureCensus::load(&path, u64::MAX).unwrap()), bytes(&small()));
}

/// A frame that says it is a census.
fn with_header(path: &Path, header: &str) {
    let frame = small().stats_frame().unwrap();
    let metadata = [("saescope.census".to_owned(), header.to_owned())].into();
    let schema = frame.schema().as_ref().clone().with_metadata(metadata);
    write_parquet(&frame.with_schema(schema.into()).unwrap(), path);
}

#[test]
fn other_versions_and_columns_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    with_header(&path, r#"{"format":"saescope census","version":1,"more":[]}"#);
    assert_eq!(refuse(&path), "it is of version 1, this program reads version 2");
    with_header(&path, r#"{"format":"something else","version":2}"#);
    assert_eq!(refuse(&path), "its format is `something else`, expected `saescope census`");
    with_header(&path, "{");
    assert!(refuse(&path).starts_with("`saescope.census` cannot be read: EOF"));
    let options = r#""options":{"top":1,"samples_per_bin":1,"sample_bins":1,"seed":0,"together":[],"documents":false,
        "filter":{"special":"keep","exclude_ids":[],"positions":null,"exclude_inserted":false,"max_norm":null}}"#;
    let names = r#""names":{"model":"","sae":"","hook":"","engine":"","source":""},"runs":[]"#;
    let left_out = r#""excluded":{"position":0,"special":0,"ids":0,"inserted":0,"norm":0}"#;
    with_header(
        &path,
        &format!(r#"{{"format":"saescope census","version":2,"d_sae":300,"tokens":1,{left_out},{options},{names}}}"#),
    );
    assert!(refuse(&path).starts_with("its columns are not those of a census: [\"feature\", \"count\", \"density\""));
}

#[test]
fn a_file_may_not_ask_for_more_memory_than_is_allowed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let census = small();
    census.save(file.path()).unwrap();
    let needs = census.options().memory_bytes(D_SAE);
    assert!(FeatureCensus::load(file.path(), needs).is_ok());
    let error = FeatureCensus::load(file.path(), needs - 1).unwrap_err().to_string();
    assert!(error.ends_with(&format!("it needs {needs} bytes of memory, allowed are {}", needs - 1)), "{error}");
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deeper/x.parquet");
    small().save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes(&small()));
    // A folder in the way.
    let folder = dir.path().join("folder");
    std::fs::create_dir_all(folder.join("in it")).unwrap();
    assert!(small().save(&folder).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no litter");
}
