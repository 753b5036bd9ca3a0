//! Documents in memory, the small golden model (no tokenizer), and pieces of both.
#![allow(dead_code, reason = "each test file uses its own part")]

use activation_store::{Content, DocId, DocumentSource, Piece, Result};
use model_hooks::{LanguageModel, LoadOptions, Processing, load};
use std::path::PathBuf;

/// Whole documents from memory.
pub struct InMemory(std::vec::IntoIter<Content>, u64);

impl InMemory {
    /// `content` is `Content::Text` or `Content::Tokens`.
    pub fn new<D>(documents: impl IntoIterator<Item = D>, content: fn(D) -> Content) -> Self {
        Self(documents.into_iter().map(content).collect::<Vec<_>>().into_iter(), 0)
    }
}

impl Iterator for InMemory {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let content = self.0.next()?;
        let doc = DocId { file: 0, ordinal: self.1 };
        self.1 += 1;
        Some(Ok(Piece { doc, start: 0, content, last: true }))
    }
}

impl DocumentSource for InMemory {}

/// A path from the root of the repository.
pub fn in_repo(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A model under TransformerLens' processing.
pub fn model(path: &str) -> LanguageModel {
    let mut options = LoadOptions::default();
    options.processing = Processing::TransformerLens.into();
    load(&in_repo(path), &options).unwrap()
}

/// The documents of the embedded demo.
pub fn demo_texts() -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        text: String,
    }
    let file = std::fs::read_to_string(in_repo("assets/demo/text.jsonl")).unwrap();
    file.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().text).collect()
}
