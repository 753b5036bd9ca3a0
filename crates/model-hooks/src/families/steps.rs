//! Steps that several families share, with the names of their hook points.

use crate::math::Math;
use crate::ops::Norm;
use crate::run::{Block, Step};
use crate::weights::BlockWeights;
use crate::{Interest, Site};

/// The norm before attention.
pub(super) fn ln1<M: Math>(
    m: &M,
    at: &mut Block<'_, '_>,
    norm: Norm,
    w: &BlockWeights<M>,
    x: &M::Value,
) -> Step<M::Rows> {
    let points = [at.point(Site::Ln1Scale), at.point(Site::Ln1Normalized)];
    m.norm(at.stage(), points, norm, &w.ln1, x)
}

/// The norm before the MLP.
pub(super) fn ln2<M: Math>(
    m: &M,
    at: &mut Block<'_, '_>,
    norm: Norm,
    w: &BlockWeights<M>,
    x: &M::Value,
) -> Step<M::Rows> {
    let points = [at.point(Site::Ln2Scale), at.point(Site::Ln2Normalized)];
    m.norm(at.stage(), points, norm, &w.ln2, x)
}

/// From queries, keys and values to what attention adds to the stream.
pub(super) fn attention<M: Math>(
    m: &M,
    at: &mut Block<'_, '_>,
    w: &BlockWeights<M>,
    qkv: [M::Value; 3],
    divisor: f64,
) -> Step<M::Value> {
    let z = m.attention(at, qkv, divisor)?;
    let z = at.tap(Site::Z, z)?;
    let attn_out = attn_out(m, at, w, z)?;
    at.tap(Site::AttnOut, attn_out)
}

/// `z W_O + b_O`, what attention adds to the stream. The contribution of each head alone is computed only when somebody looks,
/// beside the path; if somebody edits it, the edited contributions are summed instead.
fn attn_out<M: Math>(m: &M, at: &mut Block<'_, '_>, w: &BlockWeights<M>, z: M::Value) -> Step<M::Value> {
    match at.interest(Site::Result) {
        Some(Interest::Edit) => {
            let result = at.tap(Site::Result, m.result(&z, &w.o)?)?;
            return Ok(m.sum_heads(result, &w.o)?);
        }
        Some(Interest::Watch) => drop(at.tap(Site::Result, m.result(&z, &w.o)?)?),
        None => {}
    }
    Ok(m.linear(&m.rows(z)?, &w.o)?)
}
