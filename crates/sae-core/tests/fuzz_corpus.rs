//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/saelens.rs"]
mod saelens;

#[test]
fn saelens_inputs() {
    harness::replay("saelens", saelens::read);
}
