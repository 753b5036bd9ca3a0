//! [`Engine`]: a model or an SAE is computed by this crate's kernels, or by the reference.

use crate::{Arithmetic, Precision};
use std::fmt;

/// The engine that computes a model or an SAE; chosen when it is loaded, because weights are held once: packed or plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// This crate's kernels: the default.
    Kernels(Arithmetic),
    /// candle's operations on plain f32 weights: an independent reference, and what gradients need.
    Reference,
}

impl Engine {
    /// The kernels with this precision, on the machine's best back end.
    #[must_use]
    pub fn kernels(precision: Precision) -> Self {
        Self::Kernels(Arithmetic::new(precision))
    }

    /// The kernels' arithmetic, if they are used.
    #[must_use]
    pub fn arithmetic(self) -> Option<Arithmetic> {
        match self {
            Self::Kernels(arithmetic) => Some(arithmetic),
            Self::Reference => None,
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::Kernels(Arithmetic::default())
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernels(arithmetic) => arithmetic.fmt(f),
            Self::Reference => f.write_str("f32, candle"),
        }
    }
}
