//! Files of every architecture that the Python `gguf` package wrote (`golden/gguf/families`, `tools/goldens/golden_gguf_families.py`): transformers'
//! logits with the weights that the blocks expand to, and the ids of the tokenizers that the vocabularies come from.

mod common;

use common::{assert_close, engines, folder, tolerance};
use model_hooks::{LanguageModel, LoadOptions, NoTap, Processing, TokenBatch, load};
use serde_json::Value as Json;
use tensor_files::SafetensorsFile;

const FILES: [&str; 9] = ["gemma", "gemma2", "gemma3", "gpt2", "gptneox", "gptneox_serial", "phi3", "qwen2", "qwen3"];

fn open(name: &str, options: &LoadOptions) -> LanguageModel {
    load(&folder(&format!("gguf/families/{name}.gguf")), options).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn logits_are_those_of_transformers() {
    let expected = SafetensorsFile::open(folder("gguf/families/expected.safetensors")).unwrap();
    let rows: Vec<Vec<i64>> = expected.load("tokens").unwrap().to_vec2().unwrap();
    let rows: Vec<Vec<u32>> = rows.into_iter().map(|row| row.into_iter().map(|id| id as u32).collect()).collect();
    let tokens = TokenBatch::new(&rows).unwrap();
    for name in FILES {
        let logits = expected.load_f32(&format!("{name}.logits")).unwrap();
        for engine in engines() {
            let model = open(name, &LoadOptions::default().engine(engine));
            let found = model.hooked().forward(&tokens, &mut NoTap).unwrap();
            assert_close(&format!("{name} on {engine:?}"), &found, &logits, tolerance(engine, 1e-4));
        }
    }
}

#[test]
fn no_file_is_left_out() {
    let mut files: Vec<String> = std::fs::read_dir(folder("gguf/families"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".gguf").map(str::to_owned))
        .collect();
    files.sort();
    assert_eq!(files, FILES);
}

#[test]
fn ids_are_those_of_the_tokenizers() {
    let text = std::fs::read_to_string(folder("gguf/families/tokenizer_ids.json")).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    for name in FILES {
        let model = open(name, &LoadOptions::new(Processing::None));
        let tokenizer = model.try_tokenizer().unwrap();
        let rows = json["answers"][json["tokenizer_of"][name].as_str().unwrap()].as_array().unwrap();
        assert!(rows.len() > 50);
        for row in rows {
            let ids: Vec<u64> = row["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
            let text = row["text"].as_str().unwrap();
            let found: Vec<u64> = tokenizer.encode(text).unwrap().ids.into_iter().map(u64::from).collect();
            assert_eq!(found, ids, "{name}: {text:?}");
        }
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)), "{name}");
    }
}
