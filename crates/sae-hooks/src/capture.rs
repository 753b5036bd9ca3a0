//! What a splice keeps of a run.

use crate::error::{Error, Result, listed};
use crate::sae_hook_point::{SaeHookPoint, SaeSite};
use candle_core::Tensor;
use model_hooks::HookPoint;
use sae_core::Codes;
use std::collections::BTreeMap;

/// The values that a [`Splice`](crate::Splice) kept: sparse codes of features, tensors of everything else. A second run replaces what it
/// reaches.
#[derive(Clone, Debug, Default)]
pub struct SpliceCapture {
    values: BTreeMap<SaeHookPoint, Kept>,
}

#[derive(Clone, Debug)]
enum Kept {
    Codes(Codes),
    Tensor(Tensor),
}

impl SpliceCapture {
    /// The features of the SAE that writes `hook`, after every edit; one row per position, `[batch, pos]`
    /// (columns of padding too, where they mean nothing).
    ///
    /// # Errors
    /// [`Error::NotCaptured`].
    pub fn codes(&self, hook: HookPoint) -> Result<&Codes> {
        let point = SaeHookPoint::new(hook, SaeSite::ActsPost);
        match self.values.get(&point) {
            Some(Kept::Codes(codes)) => Ok(codes),
            _ => Err(self.missing(point)),
        }
    }

    /// The value at a place as a tensor. Features become dense, `[batch, pos, d_sae]`; prefer [`codes`](Self::codes).
    ///
    /// # Errors
    /// [`Error::NotCaptured`].
    pub fn tensor(&self, point: SaeHookPoint) -> Result<Tensor> {
        match self.values.get(&point) {
            Some(Kept::Codes(codes)) => Ok(codes.to_dense()?),
            Some(Kept::Tensor(tensor)) => Ok(tensor.clone()),
            None => Err(self.missing(point)),
        }
    }

    /// The places that are held, in execution order.
    pub fn points(&self) -> impl ExactSizeIterator<Item = SaeHookPoint> {
        self.values.keys().copied()
    }

    pub(crate) fn keep_codes(&mut self, hook: HookPoint, codes: &Codes) {
        self.values.insert(SaeHookPoint::new(hook, SaeSite::ActsPost), Kept::Codes(codes.clone()));
    }

    pub(crate) fn keep(&mut self, point: SaeHookPoint, tensor: Tensor) {
        self.values.insert(point, Kept::Tensor(tensor));
    }

    fn missing(&self, point: SaeHookPoint) -> Error {
        Error::NotCaptured { point, held: listed(self.points()) }
    }
}
