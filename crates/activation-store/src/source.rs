//! Streams of activation rows: [`ActivationSource`], [`ActivationBatch`].

use crate::address::TokenPos;
use crate::{ActivationSpec, Result, RowIndex, StreamId};
use candle_core::Tensor;
use model_hooks::Tokenizer;

/// Activation rows with their addresses.
#[derive(Clone, Debug)]
pub struct ActivationBatch {
    /// One `[n, width]` of f32 for each hook, in the order of the spec; row `i` of each belongs to `at[i]`.
    pub rows: Vec<Tensor>,
    /// Where each row comes from.
    pub at: Vec<TokenPos>,
    /// The token at each address.
    pub tokens: Vec<u32>,
}

impl ActivationBatch {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }
}

/// A stream of activation batches that knows what it delivers. A user's own source composes with [`crate::Shuffled`] and the rest.
pub trait ActivationSource: Iterator<Item = Result<ActivationBatch>> + Send {
    /// What it delivers.
    fn spec(&self) -> &ActivationSpec;

    /// What identifies the stream. It may read the text's files and run the model on a few tokens: it is for the beginning of a run, not for each batch.
    ///
    /// # Errors
    /// The source's.
    fn stream_id(&self) -> Result<StreamId> {
        Ok(StreamId::of_spec(self.spec()))
    }

    /// The rows of tokens in which the addresses of the latest batch lie, if the source remembers them: there tokens have their documents.
    fn token_rows(&self) -> Option<&RowIndex> {
        None
    }

    /// The tokenizer of its tokens, where there is one: it says which tokens are special.
    fn tokenizer(&self) -> Option<&Tokenizer> {
        None
    }

    /// Passes over the next `batches` batches and says how many there were. The source is then as if it had delivered them; one that can do so without
    /// running the model does.
    ///
    /// # Errors
    /// The source's.
    fn skip_batches(&mut self, batches: u64) -> Result<u64> {
        for passed in 0..batches {
            match self.next() {
                Some(batch) => drop(batch?),
                None => return Ok(passed),
            }
        }
        Ok(batches)
    }
}

impl<S: ActivationSource + ?Sized> ActivationSource for Box<S> {
    fn spec(&self) -> &ActivationSpec {
        (**self).spec()
    }

    fn stream_id(&self) -> Result<StreamId> {
        (**self).stream_id()
    }

    fn token_rows(&self) -> Option<&RowIndex> {
        (**self).token_rows()
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        (**self).tokenizer()
    }

    fn skip_batches(&mut self, batches: u64) -> Result<u64> {
        (**self).skip_batches(batches)
    }
}
