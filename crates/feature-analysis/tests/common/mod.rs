//! What several tests need: a tokenizer made of given words, rows by hand, and an SAE whose features are the input's columns.
#![allow(dead_code, reason = "each test file uses its own part")]

use activation_store::{DocId, Origin, TokenRow};
use arrow::array::{AsArray, RecordBatch};
use candle_core::Tensor;
use model_hooks::{SpecialTokens, Tokenizer};
use sae_core::{Codes, Coupling, SparseCoder, SparseFeatures};

/// A tokenizer whose token `i` is `words[i]`; token 0 is BOS.
pub fn tokenizer(words: &[&str]) -> Tokenizer {
    let vocab = words.iter().enumerate().map(|(i, w)| ((*w).to_owned(), i as u32)).collect();
    let model =
        tokenizers::models::wordlevel::WordLevel::builder().vocab(vocab).unk_token(words[0].into()).build().unwrap();
    let mut special = SpecialTokens::default();
    special.bos = Some(0);
    Tokenizer::from_parts(tokenizers::Tokenizer::new(model), special).unwrap()
}

/// A row of tokens; token 0 was inserted, the others are the `i`-th tokens of document `row`.
pub fn row(row: u64, tokens: &[u32]) -> TokenRow {
    let doc = DocId { file: 0, ordinal: row };
    let origin = |(i, &t): (u64, &u32)| (t != 0).then(|| Origin { doc, span: i..i + 1 });
    TokenRow { row, tokens: tokens.to_vec(), origin: (0..).zip(tokens).map(origin).collect() }
}

/// Features are the positive entries of the input; decoder rows are multiples of the unit vectors.
pub struct Columns(pub usize);

impl SparseCoder for Columns {
    fn d_in(&self) -> usize {
        self.0
    }
    fn d_sae(&self) -> usize {
        self.0
    }
    fn coupling(&self) -> Coupling {
        Coupling::Independent
    }
    fn encode(&self, x: &Tensor) -> sae_core::Result<Codes> {
        Ok(Codes::from_features(SparseFeatures::from_dense(&x.relu()?.reshape(((), self.0))?)?))
    }
    fn decode(&self, codes: &Codes) -> sae_core::Result<Tensor> {
        codes.to_dense()
    }
    fn decoder_rows(&self, features: &[u32]) -> sae_core::Result<Tensor> {
        let mut rows = vec![0f32; features.len() * self.0];
        features.iter().enumerate().for_each(|(i, &f)| rows[i * self.0 + f as usize] = (f + 1) as f32);
        Ok(Tensor::from_vec(rows, (features.len(), self.0), &candle_core::Device::Cpu)?)
    }
}

/// A string column of a frame.
pub fn texts(frame: &RecordBatch, column: &str) -> Vec<String> {
    frame.column_by_name(column).unwrap().as_string::<i32>().iter().map(|s| s.unwrap().to_owned()).collect()
}
