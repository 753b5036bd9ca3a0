//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/documents.rs"]
mod documents;
#[path = "fuzz/parquet.rs"]
mod parquet;

#[test]
fn documents_inputs() {
    harness::replay("documents", documents::read);
}

#[test]
fn parquet_inputs() {
    harness::replay("parquet", parquet::read);
}
