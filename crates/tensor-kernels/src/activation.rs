//! The non-linearities of MLPs.

use crate::parallel::{check_len, for_row_pairs, for_rows};
use crate::simd::{Simd, Vector, entry, exp, map, phi, zip_map};
use crate::{Backend, Result};

/// A non-linearity.
///
/// Errors against real numbers are below `1e-7 + 2.4e-7 |act(x)|`. Relative to the value: 5e-7 for positive `x`; for negative ones,
/// where values go to 0 as `e^u`, `5e-7 + 2.5e-7 |u|`, down to values of 1e-36, which may become 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt 2))`
    GeluErf,
    /// `x / (1 + e^-x)`
    Silu,
}

/// `x = act(x)`.
pub fn activate(backend: Backend, act: Activation, x: &mut [f32]) {
    if act != Activation::Identity {
        for_rows(x, 1, |_, x| activate_row(backend, act, x));
    }
}

/// `x = act(gate) * x`: the inside of a gated MLP.
///
/// # Errors
/// [`Error::Length`](crate::Error::Length).
pub fn activate_gated(backend: Backend, act: Activation, gate: &[f32], x: &mut [f32]) -> Result<()> {
    check_len("what a gate opens", gate.len(), x.len())?;
    for_row_pairs(gate, 1, x, 1, |_, gate, x| gate_row(backend, act, gate, x));
    Ok(())
}

entry! {
    /// `x = act(x)`, serial.
    pub(crate) fn activate_row(act: Activation, x: &mut [f32]) = activate_row_on;
}

#[inline(always)]
pub(crate) fn activate_row_on<S: Simd>(s: S, act: Activation, x: &mut [f32]) {
    match act {
        Activation::Identity => {}
        Activation::Relu => map!(s, x, |x| relu(s, x)),
        Activation::GeluTanh => map!(s, x, |x| gelu_tanh(s, x)),
        Activation::GeluErf => map!(s, x, |x| gelu_erf(s, x)),
        Activation::Silu => map!(s, x, |x| silu(s, x)),
    }
}

entry! {
    /// `x = act(gate) * x`, serial.
    pub(crate) fn gate_row(act: Activation, gate: &[f32], x: &mut [f32]) = gate_row_on;
}

#[inline(always)]
pub(crate) fn gate_row_on<S: Simd>(s: S, act: Activation, gate: &[f32], x: &mut [f32]) {
    match act {
        Activation::Identity => zip_map!(s, gate, x, |gate, x| gate * x),
        Activation::Relu => zip_map!(s, gate, x, |gate, x| relu(s, gate) * x),
        Activation::GeluTanh => zip_map!(s, gate, x, |gate, x| gelu_tanh(s, gate) * x),
        Activation::GeluErf => zip_map!(s, gate, x, |gate, x| gelu_erf(s, gate) * x),
        Activation::Silu => zip_map!(s, gate, x, |gate, x| silu(s, gate) * x),
    }
}

/// NaN stays NaN: of a NaN and a limit, max keeps the second.
#[inline(always)]
fn relu<S: Simd>(s: S, x: S::V) -> S::V {
    s.splat(0.0).max(x)
}

/// Written with the logistic function, which has no cancellation: `0.5 (1 + tanh u) = 1 / (1 + e^-2u)`.
#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // -2 sqrt(2/pi), and that times 0.044715.
    let inner = (x * x).mul_add(s.splat(-0.071_354_81), s.splat(-1.595_769));
    x / (s.splat(1.0) + exp(s, x * inner))
}

#[inline(always)]
fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    x * phi(s, x)
}

#[inline(always)]
fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    x / (s.splat(1.0) + exp(s, s.splat(0.0) - x))
}
