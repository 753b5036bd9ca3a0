//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "fuzz/dialects.rs"]
mod dialects;
#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/saelens.rs"]
mod saelens;

#[test]
fn saelens_inputs() {
    harness::replay("saelens", saelens::read);
}

#[test]
fn dialects_inputs() {
    harness::replay("dialects", dialects::read);
}

/// A new fixture goes to the end of the list: inputs count in it.
#[test]
fn every_fixture_is_fuzzed() {
    let entries = std::fs::read_dir(dialects::golden()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap());
    let missing: Vec<String> = folders.filter(|name| !dialects::FIXTURES.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "not in tests/fuzz/dialects.rs: {missing:?}");
}

/// Sizes are held against the weights before anything is made of them.
#[test]
fn every_number_of_a_configuration_may_lie() {
    let _alone = harness::alone();
    use serde_json::{Value, json};
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/saelens");
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        if !entry.file_name().to_string_lossy().starts_with("first-") {
            continue;
        }
        let seed = std::fs::read(entry.path()).unwrap();
        let (config, rest) = seed.split_at(seed.iter().position(|byte| *byte == 0).unwrap());
        let config: Value = serde_json::from_slice(config).unwrap();
        for key in config.as_object().unwrap().iter().filter(|(_, value)| value.is_number()).map(|(key, _)| key) {
            for lie in [json!(u64::MAX), json!(1u64 << 40), json!(u32::MAX), json!(1e308), json!(-1), json!(0)] {
                let mut config = config.clone();
                config[key] = lie;
                harness::bounded(&[config.to_string().as_bytes(), rest].concat(), saelens::read);
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "{tried}");
}
