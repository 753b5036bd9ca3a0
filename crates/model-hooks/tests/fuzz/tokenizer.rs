//! `tokenizer.json` and the small files beside it; then a text there and back.

use crate::harness;
use model_hooks::{AddBos, Tokenizer};

pub fn read(data: &[u8]) {
    let [tokenizer, config, special, model] = harness::parts(data);
    harness::file("tokenizer.json", tokenizer);
    harness::file_if_any("tokenizer_config.json", config);
    harness::file_if_any("special_tokens_map.json", special);
    harness::file_if_any("generation_config.json", model);
    if let Ok(tokenizer) = Tokenizer::from_folder(harness::folder()) {
        work(&tokenizer);
    }
}

/// Uses a tokenizer.
pub fn work(tokenizer: &Tokenizer) {
    let Ok(tokens) = tokenizer.to_tokens("The cat's 12 hats,\n\n  \u{e9}\u{4f60}!", AddBos::Never, Some(64)) else {
        return;
    };
    let _ = tokenizer.to_tokens("a", AddBos::TokenizerDefault, None);
    let _ = tokenizer.decode(&tokens.ids);
    let _ = tokenizer.readable(&tokens.ids);
    let _ = tokenizer.to_str_tokens(&tokens.ids);
}
