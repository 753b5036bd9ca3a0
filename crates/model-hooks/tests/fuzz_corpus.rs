//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "fuzz/gguf.rs"]
mod gguf;
#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/interventions.rs"]
mod interventions;
#[path = "fuzz/model_folder.rs"]
mod model_folder;
#[path = "fuzz/rebuilt.rs"]
mod rebuilt;
#[path = "fuzz/tokenizer.rs"]
mod tokenizer;

#[test]
fn gguf_inputs() {
    harness::replay("gguf", gguf::read);
}

#[test]
fn interventions_inputs() {
    harness::replay("interventions", interventions::read);
}

#[test]
fn model_folder_inputs() {
    harness::replay("model_folder", model_folder::read);
}

#[test]
fn sentencepiece_inputs() {
    harness::replay("sentencepiece", rebuilt::sentencepiece);
}

#[test]
fn vocab_merges_inputs() {
    harness::replay("vocab_merges", rebuilt::vocab_merges);
}

#[test]
fn tokenizer_inputs() {
    harness::replay("tokenizer", tokenizer::read);
}

use model_hooks::{Error, Tokenizer};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("first-"));
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// No number of a configuration, however large, takes memory before it is held against the weights.
#[test]
fn every_number_of_a_configuration_may_lie() {
    let _alone = harness::alone();
    let mut tried = 0;
    for seed in seeds("model_folder") {
        let (config, rest) = seed.split_at(seed.iter().position(|byte| *byte == 0).unwrap());
        let config: Value = serde_json::from_slice(config).unwrap();
        let numbers = config.as_object().unwrap().iter().filter(|(_, value)| value.is_number());
        for (key, value) in numbers.flat_map(|(key, _)| {
            let lies =
                [json!(u64::MAX), json!(1u64 << 40), json!(1 << 28), json!(65_535), json!(1e308), json!(-1), json!(0)];
            lies.map(|lie| (key.clone(), lie))
        }) {
            let mut config = config.clone();
            config[&key] = value;
            harness::bounded(&[config.to_string().as_bytes(), rest].concat(), model_folder::read);
            tried += 1;
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[track_caller]
fn tokenizer_refused(tokenizer: &Value, says: &str) {
    let text = tokenizer.to_string();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), &text).unwrap();
    let mut found = None;
    harness::bounded(text.as_bytes(), |_| {
        found = Some(Tokenizer::from_folder(dir.path()).expect_err("it opened").to_string())
    });
    let found = found.unwrap();
    assert!(found.contains(says), "{found}");
}

fn words(vocab: Value) -> Value {
    json!({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}})
}

#[test]
fn tokenizers_that_ask_for_much_or_nothing() {
    let _alone = harness::alone();
    tokenizer_refused(&words(json!({"a": 0, "b": 4_294_967_295u32})), "ids up to 4294967295");
    tokenizer_refused(&words(json!({"a": 0, "b": 4_294_967_296u64})), "tokenizer.json");
    let mut bomb = words(json!({"a": 0}));
    bomb["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "(((a{1000}){1000}){1000}){1000}"}, "behavior": "Isolated", "invert": false});
    tokenizer_refused(&bomb, "tokenizer.json");
    // A class of 130 kB, so often that each pattern stays under the limit of the crate that compiles it.
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let mut classes = words(json!({"a": 0}));
    classes["pre_tokenizer"] = split(r"\p{N}{826}");
    tokenizer_refused(&classes, "repeat classes of characters too often");
    classes["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![split(r"\p{L}\p{L}\p{L}\p{L}\p{L}\p{L}\p{L}\p{L}\p{L}\p{L}"); 13]});
    tokenizer_refused(&classes, "repeat classes of characters too often");
    // What is just allowed stays within the bound.
    for most in
        [split(r"\p{L}{75}"), split(r"(\w{5}){15}"), split(r"[^\s\p{L}]{37}\P{Lu}{38}"), split(&"a?".repeat(600))]
    {
        classes["pre_tokenizer"] = most;
        harness::bounded(classes.to_string().as_bytes(), tokenizer::read);
    }
    let mut nested = json!({"type": "Lowercase"});
    for _ in 0..120 {
        nested = json!({"type": "Sequence", "normalizers": [nested]});
    }
    let mut deep = words(json!({"a": 0}));
    deep["normalizer"] = nested;
    tokenizer_refused(&deep, "tokenizer.json");
}

/// A template that drops the text, where the first token of nothing was once looked at.
#[test]
fn a_template_without_the_text() {
    let _alone = harness::alone();
    let mut tokenizer = words(json!({"a": 0, "b": 1}));
    tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}});
    let config = r#"{"bos_token":"b"}"#;
    harness::bounded(&[tokenizer.to_string().as_bytes(), b"\0", config.as_bytes()].concat(), tokenizer::read);
}

#[cfg(unix)]
mod links {
    use super::*;
    use model_hooks::{LoadOptions, Processing, load};
    use std::os::unix::fs::symlink;

    /// A model in one shard, which lies in `blobs` and is a link to there in the folder.
    fn linked(folder: &Path, shard: &Path, to: &Path) {
        let seed = seeds("model_folder").into_iter().find(|seed| harness::parts::<3>(seed)[1].len() > 2).unwrap();
        let [config, index, weights] = harness::parts(&seed);
        fs::create_dir_all(folder).unwrap();
        fs::create_dir_all(shard.parent().unwrap()).unwrap();
        fs::write(shard, weights).unwrap();
        fs::write(folder.join("config.json"), config).unwrap();
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
        symlink(to, folder.join("a.safetensors")).unwrap();
    }

    fn opens(folder: &Path) -> model_hooks::Result<()> {
        load(folder, &LoadOptions::new(Processing::None)).map(drop)
    }

    #[test]
    fn shards_may_lie_in_the_hubs_cache_and_nowhere_else() {
        let _alone = harness::alone();
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("models--a--b");
        let folder = model.join("snapshots/0123abcd");
        linked(&folder, &model.join("blobs/sha"), Path::new("../../blobs/sha"));
        opens(&folder).unwrap();

        let beside = dir.path().join("beside");
        linked(&beside, &beside.join("b.safetensors"), Path::new("b.safetensors"));
        opens(&beside).unwrap();

        // Another folder, the blobs of another model, and blobs where there is no cache.
        for (name, shard) in [
            ("out", dir.path().join("elsewhere/x")),
            ("models--c--d/snapshots/0", dir.path().join("models--a--b/blobs/x")),
            ("plain/folder/0", dir.path().join("plain/blobs/x")),
        ] {
            let folder = dir.path().join(name);
            linked(&folder, &shard, &shard);
            let error = opens(&folder).unwrap_err();
            assert!(matches!(error, Error::BadIndex { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn devices_are_no_files() {
        let _alone = harness::alone();
        let dir = tempfile::tempdir().unwrap();
        let seed = seeds("tokenizer").remove(0);
        fs::write(dir.path().join("tokenizer.json"), harness::parts::<2>(&seed)[0]).unwrap();
        symlink("/dev/zero", dir.path().join("tokenizer_config.json")).unwrap();
        let error = Tokenizer::from_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains("expected a file of at most"), "{error}");
        for name in ["config.json", "model.gguf", "model.safetensors.index.json", "list.json"] {
            symlink("/dev/zero", dir.path().join(name)).unwrap();
        }
        fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
        let said = |error: Error| assert!(error.to_string().contains("no regular file"), "{error}");
        said(opens(dir.path()).unwrap_err());
        said(model_hooks::gguf::GgufFile::open(dir.path().join("model.gguf")).map(drop).unwrap_err());
        said(model_hooks::Interventions::load(&dir.path().join("list.json")).map(drop).unwrap_err());
    }
}

/// Fuzzing starts from models that load.
#[test]
fn the_first_inputs_are_sound() {
    let _alone = harness::alone();
    for (target, least) in
        [("model_folder", 15), ("gguf", 5), ("tokenizer", 5), ("sentencepiece", 4), ("vocab_merges", 2)]
    {
        let sound = seeds(target).iter().filter(|seed| sound(target, seed)).count();
        assert!(sound >= least, "{sound} of {target}");
    }
}

fn sound(target: &str, seed: &[u8]) -> bool {
    use model_hooks::{LoadOptions, load};
    match target {
        "gguf" => load(&harness::file("sound.gguf", seed), &LoadOptions::default()).is_ok(),
        "sentencepiece" | "vocab_merges" => {
            if target == "sentencepiece" {
                rebuilt::sentencepiece(seed)
            } else {
                rebuilt::vocab_merges(seed)
            }
            Tokenizer::from_folder(harness::folder().join("rebuilt")).is_ok()
        }
        "tokenizer" => {
            tokenizer::read(seed);
            Tokenizer::from_folder(harness::folder()).is_ok()
        }
        _ => {
            model_folder::read(seed);
            let loaded = load(&harness::folder().join("model"), &LoadOptions::default());
            if let Err(e) = &loaded {
                eprintln!("{e}");
            }
            loaded.is_ok()
        }
    }
}
