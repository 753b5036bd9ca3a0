//! Inputs of single heads: computed and projected only where a tap captures or edits them.

use super::value::{Axes, Value};
use super::{Kernels, norm_of};
use crate::Result;
use crate::math::Math;
use crate::ops::{Norm, with_slice};
use crate::weights::{Linear, NormWeights};
use rayon::prelude::*;
use tensor_kernels::{MatrixRef, Store, gain_and_bias_row, product};

/// Each row of `x` once for each head.
pub(super) fn repeat(kernels: &Kernels, x: &Value, heads: usize) -> Result<Value> {
    let (axes, data) = (Axes { heads: Some(heads), ..x.axes }, x.data()?);
    Value::new(kernels, axes, |out| {
        let rows = out.par_chunks_exact_mut(axes.row()).zip(data.par_chunks_exact(axes.width));
        rows.for_each(|(out, x)| out.chunks_exact_mut(x.len()).for_each(|head| head.copy_from_slice(x)));
        Ok(())
    })
}

/// As [`Math::project_heads`]. The columns of `W` are read back from its packed form, as the path's product sees them.
pub(super) fn project(
    kernels: &Kernels,
    norm: Option<(Norm, &NormWeights<Kernels>)>,
    x: &Value,
    w: &Linear<Kernels>,
) -> Result<Value> {
    let Axes { heads, width: d_model, .. } = x.axes;
    let heads = heads.unwrap_or(1);
    let d_head = w.w.n() / heads;
    let (backend, data) = (kernels.arithmetic.backend(), x.data()?);
    let norm = norm.map(|(norm, weights)| (norm_of(norm), weights));
    let columns = kernels.columns(&w.w, 0, w.w.n())?.t()?;
    let mut out = kernels.space.floats(x.axes.tokens() * d_head);
    Value::new(kernels, Axes { width: d_head, ..x.axes }, |y| {
        with_slice(&columns, |columns| {
            for (head, columns) in columns.chunks_exact(d_head * d_model).enumerate() {
                let rows = kernels.pack_with(Axes { heads: None, ..x.axes }, |row, out| {
                    let x = &data[(row * heads + head) * d_model..][..d_model];
                    match &norm {
                        None => out.copy_from_slice(x),
                        Some((norm, w)) => {
                            norm.row(backend, x, out);
                            gain_and_bias_row(backend, out, w.w.as_deref(), w.b.as_deref());
                        }
                    }
                })?;
                let bias = w.b.as_deref().map(|b| &b[head * d_head..][..d_head]);
                let w = MatrixRef::transposed(columns, d_model, d_head)?;
                product(&rows.packed, w, Store::new(&mut out, d_head, bias)?)?;
                let to = y.par_chunks_exact_mut(heads * d_head).zip(out.par_chunks_exact(d_head));
                to.for_each(|(to, out)| to[head * d_head..][..d_head].copy_from_slice(out));
            }
            Ok(())
        })
    })
}
