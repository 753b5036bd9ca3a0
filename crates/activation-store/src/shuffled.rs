//! A source whose rows leave in another order: [`Shuffled`].

use crate::{
    ActivationBatch, ActivationSource, ActivationSpec, BatchOrder, Error, Result, Ring, RowIndex, Shuffle, StreamId,
    TokenPos,
};
use model_hooks::Tokenizer;

/// How [`Shuffled`] keeps its ring and cuts its batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShuffleOptions {
    /// Rows that the ring holds when it is full.
    pub ring_rows: usize,
    /// Rows in a batch.
    pub batch_rows: usize,
    /// The order.
    pub shuffle: Shuffle,
    /// `None`: the ring is filled up before each batch, which mixes best. `Some(mix)`: SAELens' `activations_mixing_fraction`: filled by
    /// whole chunks until it holds `ring_rows`, then emptied by whole batches down to about `mix * ring_rows`; with `mix` 0 the
    /// order stays that of the documents.
    pub mix_fraction: Option<f64>,
    /// Leaves out the last batch if it is smaller than the others, as SAELens does. Otherwise every row is delivered.
    pub drop_last: bool,
}

impl ShuffleOptions {
    fn check(&self) -> Result<()> {
        let fail = |option, found: String, expected: String| Err(Error::Option { option, found, expected });
        if self.batch_rows == 0 {
            return fail("train_batch_size_tokens", "0".into(), "at least 1".into());
        }
        match self.mix_fraction {
            Some(mix) if !(0.0..=1.0).contains(&mix) => fail("mix_fraction", mix.to_string(), "between 0 and 1".into()),
            _ => Ok(()),
        }
    }

    /// Asked at the first batch, not before: who only wants the source's own batches of tokens needs no ring, and an SAE of a short
    /// context should not force other options on them.
    fn check_ring(&self) -> Result<()> {
        if self.ring_rows >= self.batch_rows {
            return Ok(());
        }
        Err(Error::Option {
            option: "n_batches_in_buffer",
            found: format!("a ring of {} rows", self.ring_rows),
            expected: format!("at least one batch, train_batch_size_tokens = {} rows", self.batch_rows),
        })
    }

    /// Unshuffled rows only pass through: one batch of slots is enough.
    fn filled(&self) -> usize {
        if self.mix_fraction.is_none() && self.shuffle == Shuffle::Unshuffled {
            self.batch_rows
        } else {
            self.ring_rows
        }
    }
}

/// A source of activations, shuffled through a [`Ring`] of fixed size.
///
/// Every row of the source is delivered exactly once; the last batch may be smaller (see [`ShuffleOptions::drop_last`]). Without a mixing
/// fraction the batches depend on the seed and the order of the source's rows only, not on how these were chunked.
pub struct Shuffled<S> {
    source: S,
    options: ShuffleOptions,
    spec: ActivationSpec,
    ring: Ring,
    /// A chunk of the source and how many of its rows are in the ring.
    waiting: Option<(ActivationBatch, usize)>,
    /// Batches still to serve before the ring is filled again (SAELens' schedule).
    to_serve: usize,
    dropped: u64,
    exhausted: bool,
    over: bool,
}

impl<S: ActivationSource> Shuffled<S> {
    /// Puts a ring behind a source.
    ///
    /// # Errors
    /// [`Error::Option`] for an empty batch or a mixing fraction outside 0 to 1; a ring smaller than a batch is one when the first batch
    /// is asked for.
    pub fn new(source: S, options: ShuffleOptions) -> Result<Self> {
        options.check()?;
        let in_order = options.mix_fraction == Some(0.0);
        let shuffle = if in_order { Shuffle::Unshuffled } else { options.shuffle };
        let spec = ActivationSpec {
            batch_rows: options.batch_rows,
            // With SAELens' schedule the chunk that fills the ring may overfill it.
            ring_slots: options.filled() + if options.mix_fraction.is_some() { source.spec().batch_rows } else { 0 },
            shuffle,
            mix_fraction: options.mix_fraction,
            ..source.spec().clone()
        };
        let widths: Vec<usize> = spec.hooks.iter().map(|hook| hook.width()).collect();
        let ring = Ring::new(&widths, spec.ring_slots, shuffle)?;
        Ok(Self { source, options, spec, ring, waiting: None, to_serve: 0, dropped: 0, exhausted: false, over: false })
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The source back; what is in the ring is lost.
    pub fn into_source(self) -> S {
        self.source
    }

    /// The source, to be used directly: what is taken from it does not come through the ring.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// The addresses of all rows that were read and not delivered yet.
    pub fn held(&self) -> impl Iterator<Item = TokenPos> {
        let waiting = self.waiting.iter().flat_map(|(batch, done)| batch.at[*done..].iter().copied());
        self.ring.resident().chain(waiting)
    }

    /// The ring.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Rows left out at the end because they did not fill a batch (`drop_last`).
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Fills the ring until it holds `rows` or the source ends.
    fn fill(&mut self, rows: usize) -> Result<()> {
        while self.ring.len() < rows {
            let (batch, done) = match self.waiting.take() {
                Some(waiting) => waiting,
                None if self.exhausted => return Ok(()),
                None => match self.source.next().transpose()? {
                    Some(batch) => (batch, 0),
                    None => {
                        self.exhausted = true;
                        return Ok(());
                    }
                },
            };
            let done = done + self.ring.push(&batch, done)?;
            if done < batch.len() {
                self.waiting = Some((batch, done));
            }
        }
        Ok(())
    }

    /// SAELens' schedule: how many batches come out of the ring before it is filled again.
    fn serve_from_full_ring(&self, mix: f64) -> usize {
        let kept = (self.options.ring_rows as f64 * mix) as usize; // rounded down, as Python's int() does
        (self.ring.len().saturating_sub(kept) / self.options.batch_rows).max(1)
    }

    fn step(&mut self) -> Result<Option<ActivationBatch>> {
        self.options.check_ring()?;
        match self.options.mix_fraction {
            None => self.fill(self.options.filled())?,
            Some(mix) if self.to_serve == 0 => {
                self.fill(self.options.ring_rows)?;
                self.to_serve = self.serve_from_full_ring(mix);
            }
            Some(_) => {}
        }
        self.to_serve = self.to_serve.saturating_sub(1);
        let left = self.ring.len();
        if left < self.options.batch_rows && self.options.drop_last {
            self.dropped += self.ring.draw(left)?.len() as u64;
            return Ok(None);
        }
        if left == 0 {
            return Ok(None);
        }
        self.ring.draw(self.options.batch_rows).map(Some)
    }
}

impl<S: ActivationSource> Iterator for Shuffled<S> {
    type Item = Result<ActivationBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let batch = self.step().transpose();
        self.over = !matches!(batch, Some(Ok(_)));
        batch
    }
}

impl<S: ActivationSource> ActivationSource for Shuffled<S> {
    fn spec(&self) -> &ActivationSpec {
        &self.spec
    }

    fn stream_id(&self) -> Result<StreamId> {
        let drop_last = self.options.drop_last;
        Ok(StreamId {
            batches: BatchOrder { drop_last, ..BatchOrder::of_spec(&self.spec) },
            ..self.source.stream_id()?
        })
    }

    /// The source's: rows that wait in the ring may be gone from it, unless it keeps all.
    fn token_rows(&self) -> Option<&RowIndex> {
        self.source.token_rows()
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.source.tokenizer()
    }
}
