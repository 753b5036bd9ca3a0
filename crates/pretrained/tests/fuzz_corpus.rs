//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/hub.rs"]
mod hub;
#[path = "fuzz/registry.rs"]
mod registry;

use std::fs;
use std::io::Write;
use std::path::Path;

#[test]
fn registry_inputs() {
    harness::replay("registry", registry::read);
}

#[test]
fn hub_inputs() {
    harness::replay("hub", hub::read);
}

/// First inputs do what their names say.
#[test]
fn the_first_inputs_are_sound() {
    let _alone = harness::alone();
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let mut sound = [0, 0];
    for (i, target) in ["registry", "hub"].into_iter().enumerate() {
        for entry in fs::read_dir(seeds.join(target)).unwrap().map(|entry| entry.unwrap()) {
            let (name, data) = (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
            if !name.starts_with("first-") {
                continue;
            }
            let opens = match target {
                "registry" => pretrained::Registry::read(&data).is_ok(),
                _ => hub::opens(&data),
            };
            let missing = name.contains("missing") || name.contains("chunked");
            assert_eq!(opens, !missing, "{target}/{name}");
            sound[i] += usize::from(opens);
        }
    }
    assert!(sound[0] > 15 && sound[1] >= 7, "{sound:?}");
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

/// Tables that unpack to much, or to very many short names.
#[test]
fn tables_that_grow() {
    let _alone = harness::alone();
    let head = "#saescope-registry\t1\n>\tmine\tme/saes\tsaelens\tgpt2\t200000\n";
    let names: String = (0..200_000).map(|i| format!("{i:x}\n")).collect();
    let table = format!("{head}{names}");
    let mut found = None;
    harness::bounded(table.as_bytes(), |table| found = Some(pretrained::Registry::read(table).map(|t| t.len())));
    assert_eq!(found.unwrap().unwrap(), 200_000);
    harness::bounded(&packed(table.as_bytes()), |table| drop(pretrained::Registry::read(table).unwrap()));
    for mb in [1, 4, 16, 64] {
        let bomb = packed(&[b"#saescope-registry\t1\n".to_vec(), vec![b'\n'; mb << 20]].concat());
        harness::bounded(&bomb, registry::read);
    }
    let twice = packed(format!("{head}a\nb\na\n").replace("200000", "3").as_bytes());
    assert!(pretrained::Registry::read(&twice).unwrap_err().to_string().contains("twice"));
}
