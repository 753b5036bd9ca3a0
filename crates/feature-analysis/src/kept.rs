//! What the seed loop keeps: the tokens on which chosen features fired, by address.

use crate::token_frame::Place;
use crate::{Error, FrameOptions, Result, token_frame_at, with_report};
use activation_store::{Exclusion, ExclusionCounts, TokenPos, TokenRow};
use arrow::array::RecordBatch;
use candle_core::{DType, Device, Tensor};
use model_hooks::Tokenizer;
use sae_core::SparseCoder;
use std::collections::BTreeMap;

/// How much was looked at. Every output of the loop carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectReport {
    /// Batches asked for.
    pub batches_asked: u64,
    /// Batches done: fewer than asked when the text ran out.
    pub batches_done: u64,
    /// Rows of tokens seen.
    pub rows: u64,
    /// Tokens looked at; the denominator of every share.
    pub tokens: u64,
    /// Tokens that the filter excluded, not part of `tokens`.
    pub excluded: ExclusionCounts,
}

impl CollectReport {
    /// Whether the text ran out before the batches that were asked for.
    #[must_use]
    pub fn ended_early(&self) -> bool {
        self.batches_done < self.batches_asked
    }
}

impl std::fmt::Display for CollectReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batches_asked, batches_done, tokens, excluded, .. } = self;
        write!(f, "{tokens} tokens in {batches_done} batches, {excluded}")?;
        match self.ended_early() {
            true => write!(f, "; the text ended before the {batches_asked} batches asked for"),
            false => Ok(()),
        }
    }
}

/// The places of these rows that have activations, in the activations' order: prompt, row and position.
pub(crate) fn places<'a>(
    rows: &'a [TokenRow],
    positions: &'a [u32],
) -> impl Iterator<Item = (u32, &'a TokenRow, usize)> {
    (0..).zip(rows).flat_map(move |(prompt, row)| positions.iter().map(move |&pos| (prompt, row, pos as usize)))
}

/// Checks that every position is in every row, and that there is one exclusion for each of them.
pub(crate) fn check_places(rows: &[TokenRow], positions: &[u32], excluded: &[Option<Exclusion>]) -> Result<()> {
    let last = positions.iter().max().map_or(0, |&pos| pos as usize + 1);
    if let Some(row) = rows.iter().find(|row| row.tokens.len() < last || row.origin.len() < last) {
        let found = vec![row.tokens.len(), row.origin.len()];
        let expected = format!("at least {last} of each");
        return Err(Error::Shape { what: "a row of tokens and origins", expected, found });
    }
    let count = rows.len() * positions.len();
    if excluded.len() != count {
        let (what, expected) = ("the exclusions", format!("{count}, one for each position of each row"));
        return Err(Error::Shape { what, expected, found: vec![excluded.len()] });
    }
    Ok(())
}

/// The tokens on which any of the chosen features fired, in the order in which they were seen, with their activations.
///
/// Contexts and reconstructions are made when asked for, from the rows that hold a kept token. Memory: `4 n (features + 6)` bytes for
/// `n` kept tokens, the rows of tokens they stand in (about 44 bytes a position), and the features' decoder rows.
#[derive(Clone, Debug)]
pub struct FeatureExamples {
    features: Vec<u32>,
    decoder: Tensor,
    acts: Vec<f32>,
    at: Vec<TokenPos>,
    tokens: Vec<u32>,
    rows: BTreeMap<u64, KeptRow>,
    counts: CollectReport,
}

#[derive(Clone, Debug)]
struct KeptRow {
    row: TokenRow,
    batch: u64,
    prompt: u32,
}

impl FeatureExamples {
    /// Nothing kept yet, for these features of an SAE.
    ///
    /// # Errors
    /// An empty list, a feature outside the SAE, or one named twice.
    pub fn new(coder: &dyn SparseCoder, features: &[u32], batches_asked: u64) -> Result<Self> {
        sae_core::check_feature_list(features, coder.d_sae())?;
        let decoder = coder.decoder_rows(features)?.to_dtype(DType::F32)?;
        let counts = CollectReport { batches_asked, ..CollectReport::default() };
        let features = features.to_vec();
        Ok(Self { features, decoder, acts: vec![], at: vec![], tokens: vec![], rows: BTreeMap::new(), counts })
    }

    /// Takes in one batch: keeps each place where any of the features fired, that is, has an activation other than zero. (The notebook
    /// asks for a sum above zero: the same wherever activations are not negative.)
    ///
    /// # Shapes
    /// `acts [batch, positions, features]`, or flattened `[batch * positions, features]`, of f32, for these positions of each row; `excluded` says
    /// in the same order which of them do not count ([`activation_store::ResolvedFilter::exclusions`]).
    ///
    /// # Errors
    /// Another shape, rows that are too short, or an activation that is NaN or infinite.
    pub fn push(
        &mut self,
        rows: &[TokenRow],
        positions: &[u32],
        excluded: &[Option<Exclusion>],
        acts: &Tensor,
    ) -> Result<()> {
        let (width, count) = (self.features.len(), rows.len() * positions.len());
        if acts.elem_count() != count * width || acts.dims().last() != Some(&width) {
            let expected = format!("[batch, positions, {width}] for {count} places");
            return Err(Error::Shape { what: "the features' activations", expected, found: acts.dims().to_vec() });
        }
        check_places(rows, positions, excluded)?;
        let flat = acts.flatten_all()?.to_vec1::<f32>()?;
        if let Some(i) = flat.iter().position(|a| !a.is_finite()) {
            let (row, column) = (i / width, i % width);
            return Err(Error::NotFinite { what: "the features' activations", value: flat[i], row, column });
        }
        let lines = places(rows, positions).zip(excluded).zip(flat.chunks_exact(width));
        for (((prompt, row, pos), exclusion), line) in lines {
            match exclusion {
                None => self.look_at(row, pos, prompt, line),
                Some(exclusion) => self.counts.excluded.count(*exclusion),
            }
        }
        self.counts.rows += rows.len() as u64;
        self.counts.batches_done += 1;
        Ok(())
    }

    fn look_at(&mut self, row: &TokenRow, pos: usize, prompt: u32, line: &[f32]) {
        self.counts.tokens += 1;
        if line.iter().all(|&a| a == 0.0) {
            return;
        }
        self.acts.extend_from_slice(line);
        self.tokens.push(row.tokens[pos]);
        self.at.push(TokenPos { row: row.row, pos: pos as u32 });
        let batch = self.counts.batches_done;
        self.rows.entry(row.row).or_insert_with(|| KeptRow { row: row.clone(), batch, prompt });
    }

    /// Number of kept tokens ("Examples found").
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether nothing fired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The features, in the order of the columns.
    #[must_use]
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// What was looked at.
    #[must_use]
    pub fn counts(&self) -> &CollectReport {
        &self.counts
    }

    /// The address of each kept token.
    #[must_use]
    pub fn at(&self) -> &[TokenPos] {
        &self.at
    }

    /// The id of each kept token.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The features' activations at kept token `i`.
    ///
    /// # Panics
    /// If there is no kept token `i`.
    #[must_use]
    pub fn acts_of(&self, i: usize) -> &[f32] {
        let width = self.features.len();
        &self.acts[i * width..(i + 1) * width]
    }

    /// All activations, `[n, features]`, row after row.
    #[must_use]
    pub fn acts(&self) -> &[f32] {
        &self.acts
    }

    /// One feature's activations on the kept tokens, `[n]`; zero where only others fired.
    ///
    /// # Errors
    /// [`Error::NotCollected`].
    pub fn activations(&self, feature: u32) -> Result<Vec<f32>> {
        let column = self.column(feature)?;
        Ok(self.acts.iter().skip(column).step_by(self.features.len()).copied().collect())
    }

    /// Which column a feature has.
    ///
    /// # Errors
    /// [`Error::NotCollected`].
    pub fn column(&self, feature: u32) -> Result<usize> {
        let place = self.features.iter().position(|&f| f == feature);
        place.ok_or_else(|| Error::NotCollected { feature, collected: self.features.clone() })
    }

    /// What the chosen features alone reconstruct, without `b_dec`: `acts [n, features] @ W_dec[features]`, `[n, d_in]`.
    ///
    /// As in the notebook, in the units of the SAE's own decoder: a per-token norm of the input is not undone.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn reconstructions(&self) -> Result<Tensor> {
        if self.is_empty() {
            return Ok(Tensor::zeros((0, self.decoder.dim(1)?), DType::F32, &Device::Cpu)?);
        }
        let acts = Tensor::from_slice(&self.acts, (self.len(), self.features.len()), &Device::Cpu)?;
        Ok(acts.matmul(&self.decoder)?)
    }

    /// The row of tokens of an address, if one of its tokens was kept.
    #[must_use]
    pub fn row(&self, row: u64) -> Option<&TokenRow> {
        self.rows.get(&row).map(|kept| &kept.row)
    }

    /// Kept token `i` as a place in its row.
    ///
    /// # Panics
    /// If there is no kept token `i`.
    #[must_use]
    pub fn place(&self, i: usize) -> Place<'_> {
        let TokenPos { row, pos } = self.at[i];
        let kept = self.rows.get(&row).expect("`look_at` stores the row of every address that it keeps");
        Place { row: &kept.row, pos: pos as usize, batch: kept.batch, prompt: kept.prompt }
    }

    /// The token frame of all kept tokens, in their order; its metadata says what was looked at ([`with_report`]).
    ///
    /// # Errors
    /// As [`token_frame_at`].
    pub fn frame(&self, tokenizer: &Tokenizer, options: &FrameOptions) -> Result<RecordBatch> {
        let places: Vec<_> = (0..self.len()).map(|i| self.place(i)).collect();
        with_report(token_frame_at(&places, tokenizer, options)?, &self.counts)
    }
}
