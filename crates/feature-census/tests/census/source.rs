//! A source of activations without a model, and a dictionary of its positive entries.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::support::Random;
use activation_store::{
    ActivationBatch, ActivationSource, ActivationSpec, DocId, HookRows, Origin, Result, RowIndex, TokenPos, TokenRow,
};
use candle_core::{Device, Tensor};
use model_hooks::{HookPoint, ModelShape, Site};
use sae_core::{Codes, Coupling, SparseCoder, SparseFeatures};

pub const WIDTH: usize = 64;
/// Tokens in a batch and in a row.
pub const BATCH: usize = 32;
const CONTEXT: usize = 8;

/// Batches of two hooks, the same each time.
pub struct Synthetic {
    spec: ActivationSpec,
    batch: usize,
    tokens: usize,
    next: usize,
    rows: Option<RowIndex>,
}

impl Synthetic {
    pub fn new(batches: usize) -> Self {
        let point = HookPoint::Block { layer: 0, site: Site::ResidPre };
        let hook = HookRows::resolve(point, &ModelShape::new(WIDTH, 1, 1, CONTEXT)).unwrap();
        let spec = ActivationSpec::new("synthetic", vec![hook, hook], BATCH);
        Self { spec, batch: BATCH, tokens: batches * BATCH, next: 0, rows: Some(RowIndex::new()) }
    }

    pub fn batches_of(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    pub fn forgetful(mut self) -> Self {
        self.rows = None;
        self
    }
}

fn row(number: u64) -> TokenRow {
    let doc = |pos: u64| DocId { file: 0, ordinal: (number * CONTEXT as u64 + pos) / 11 };
    let origin = |pos: u64| (pos > 0).then(|| Origin { doc: doc(pos), span: pos..pos + 1 });
    TokenRow { row: number, tokens: (0..CONTEXT as u32).collect(), origin: (0..CONTEXT as u64).map(origin).collect() }
}

impl Iterator for Synthetic {
    type Item = Result<ActivationBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let n = self.batch.min(self.tokens - self.next);
        if n == 0 {
            return None;
        }
        let places = self.next..self.next + n;
        self.next += n;
        let at: Vec<TokenPos> =
            places.clone().map(|i| TokenPos { row: (i / CONTEXT) as u64, pos: (i % CONTEXT) as u32 }).collect();
        if let Some(rows) = &mut self.rows {
            *rows = RowIndex::new();
            at.iter().filter(|at| at.pos == 0).for_each(|at| rows.insert(row(at.row)));
        }
        let value = |random: &mut Random| (3.0 * random.uniform() - 2.4) as f32 * 8.0;
        let mut entries = Vec::with_capacity(n * WIDTH);
        for i in places {
            let mut random = Random(i as u64);
            entries.extend((0..WIDTH).map(|_| value(&mut random)));
        }
        let rows = Tensor::from_vec(entries, (n, WIDTH), &Device::Cpu).unwrap();
        let tokens = at.iter().map(|at| at.pos).collect();
        Some(Ok(ActivationBatch { rows: vec![rows.clone(), rows], at, tokens }))
    }
}

impl ActivationSource for Synthetic {
    fn spec(&self) -> &ActivationSpec {
        &self.spec
    }

    fn token_rows(&self) -> Option<&RowIndex> {
        self.rows.as_ref()
    }

    fn skip_batches(&mut self, batches: u64) -> Result<u64> {
        let most = (self.tokens - self.next).div_ceil(self.batch) as u64;
        let passed = batches.min(most);
        self.next = self.tokens.min(self.next + passed as usize * self.batch);
        Ok(passed)
    }
}

/// Features are the positive entries of the input.
pub struct Positive(pub usize);

impl SparseCoder for Positive {
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
        Ok(Codes::from_features(SparseFeatures::from_dense(&x.relu()?)?))
    }
    fn decode(&self, codes: &Codes) -> sae_core::Result<Tensor> {
        codes.to_dense()
    }
    fn decoder_rows(&self, features: &[u32]) -> sae_core::Result<Tensor> {
        Ok(Tensor::zeros((features.len(), self.0), candle_core::DType::F32, &Device::Cpu)?)
    }
}
