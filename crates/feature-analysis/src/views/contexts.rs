//! Activations with the text around them, for addresses from anywhere: the rows of tokens are read once more.

use crate::plot::{ContextToken, TopExample};
use crate::{Error, FrameOptions, Result};
use activation_store::{ActivationSource, ActivationStore, TokenPos, TokenRow, TokenRowBatch};
use sae_core::SparseCoder;
use std::collections::{BTreeMap, BTreeSet};

/// Some rows of a text, with the activations of some features on all of their tokens.
///
/// A census keeps addresses, not text. Here the text is tokenized and packed again from its start, the model runs on the wanted rows
/// alone, and the SAE encodes the wanted features alone (where its columns are independent).
///
/// Memory: the wanted rows (about 44 bytes a position) and `4 * features` bytes a position of them.
#[derive(Clone, Debug)]
pub struct ExampleContexts {
    features: Vec<u32>,
    /// Row number -> the row and its activations, `[positions, features]`.
    rows: BTreeMap<u64, (TokenRow, Vec<f32>)>,
}

impl ExampleContexts {
    /// Of rows that are at hand.
    ///
    /// # Errors
    /// A bad feature list, or the model's or SAE's own errors.
    pub fn of(coder: &dyn SparseCoder, store: &ActivationStore, features: &[u32], rows: Vec<TokenRow>) -> Result<Self> {
        sae_core::check_feature_list(features, coder.d_sae())?;
        let mut found = Self { features: features.to_vec(), rows: BTreeMap::new() };
        for rows in rows.chunks(store.spec().store_batch_size_prompts) {
            found.add(coder, store, rows)?;
        }
        Ok(found)
    }

    /// Reads on from where `store` is, which should be the start of its text, until all the `wanted` rows have come by or the text ends.
    ///
    /// # Errors
    /// A bad feature list, or the store's, model's or SAE's own errors.
    pub fn read(
        coder: &dyn SparseCoder,
        store: &mut ActivationStore,
        features: &[u32],
        wanted: &BTreeSet<u64>,
    ) -> Result<Self> {
        let mut rows = Vec::with_capacity(wanted.len());
        while rows.len() < wanted.len() {
            let Some(batch) = store.get_batch_tokens()? else { break };
            rows.extend(batch.rows.into_iter().filter(|row| wanted.contains(&row.row)));
        }
        Self::of(coder, store, features, rows)
    }

    fn add(&mut self, coder: &dyn SparseCoder, store: &ActivationStore, rows: &[TokenRow]) -> Result<()> {
        let batch = TokenRowBatch { rows: rows.to_vec() };
        let acts = coder.encode_only(&store.activations(&batch)?, &self.features)?;
        let acts: Vec<f32> = acts.flatten_all()?.to_vec1()?;
        let (positions, n) = (&store.spec().positions, self.features.len());
        for (i, row) in batch.rows.into_iter().enumerate() {
            // 0 at positions that the store does not deliver (`seqpos_slice`).
            let mut all = vec![0.0; row.tokens.len() * n];
            for (j, &pos) in positions.iter().enumerate() {
                let from = (i * positions.len() + j) * n;
                all[pos as usize * n..][..n].copy_from_slice(&acts[from..from + n]);
            }
            self.rows.insert(row.row, (row, all));
        }
        Ok(())
    }

    /// An activation with the tokens around it, each with the feature's activation on it. Where `activation` was measured somewhere else, it
    /// is what is shown in front; `token` is the token that it was measured on.
    ///
    /// # Errors
    /// [`Error::OtherText`] for an address that is not among those read or has another token; [`Error::NotCollected`]; a token that the
    /// tokenizer does not know.
    pub fn example(
        &self,
        feature: u32,
        at: TokenPos,
        token: u32,
        activation: f32,
        store: &ActivationStore,
        around: &FrameOptions,
    ) -> Result<TopExample> {
        let column = self.features.iter().position(|&f| f == feature);
        let Some(column) = column else {
            return Err(Error::NotCollected { feature, collected: self.features.clone() });
        };
        let focus = at.pos as usize;
        let found = self.rows.get(&at.row).and_then(|(row, acts)| Some((row, acts, *row.tokens.get(focus)?)));
        let (row, acts) = match found {
            Some((row, acts, found)) if found == token => (row, acts),
            found => return Err(Error::OtherText { at, expected: token, found: found.map(|(_, _, token)| token) }),
        };
        let (before, after) = around.around(focus, row.tokens.len());
        let shown = before.start..after.end;
        let texts = store.model().try_tokenizer()?.readable(&row.tokens[shown.clone()])?;
        let token =
            |(text, pos): (String, usize)| ContextToken { text, activation: acts[pos * self.features.len() + column] };
        Ok(TopExample {
            activation,
            tokens: texts.into_iter().zip(shown.clone()).map(token).collect(),
            focus: focus - shown.start,
            place: place(row, at),
        })
    }
}

/// `document 3, row 12, position 7`.
pub(super) fn place(row: &TokenRow, at: TokenPos) -> String {
    let origin = row.origin.get(at.pos as usize).and_then(Option::as_ref);
    let document = origin.map_or(String::new(), |o| format!("document {}, ", o.doc.ordinal));
    format!("{document}row {}, position {}", at.row, at.pos)
}
