//! Frames and pages that are written while the process is killed: each file is the old one or the new one.

#[path = "../../tensor-files/tests/crash/mod.rs"]
mod crash;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use crash::{at_every_step, names};
use feature_analysis::page::Page;
use feature_analysis::{write_csv, write_parquet};
use std::path::Path;

#[test]
fn results_are_old_or_new() {
    const FILES: [&str; 3] = ["frame.csv", "frame.parquet", "page.html"];
    let write = |dir: &Path, n: usize| {
        let column: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![n as i64]));
        let frame = RecordBatch::try_from_iter([("n", column)]).unwrap();
        write_csv(&frame, &dir.join("frame.csv")).unwrap();
        write_parquet(&frame, &dir.join("frame.parquet")).unwrap();
        Page::new(n.to_string(), "").write(&dir.join("page.html")).unwrap();
    };
    let all = |dir: &Path| FILES.map(|file| std::fs::read(dir.join(file)).unwrap());
    let [old, new] = [1, 2].map(|n| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), n);
        all(dir.path())
    });
    at_every_step(
        "results_are_old_or_new",
        |dir| write(dir, 1),
        |dir| write(dir, 2),
        |dir, finished| {
            let state = all(dir).into_iter().zip(old.iter().zip(&new)).map(|(found, (old, new))| {
                assert!(found == *new || !finished && found == *old);
                u8::from(found == *new)
            });
            // They are written one after the other.
            assert!(state.collect::<Vec<_>>().is_sorted_by(|a, b| a >= b));
            write(dir, 2);
            assert!(all(dir) == new && names(dir) == FILES);
        },
    );
}
