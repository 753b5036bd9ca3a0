//! Tensors as most families name them.

use crate::Result;
use crate::weights::{Linear, NormWeights, Raw, TensorSource};

/// `NAME.weight` and `NAME.bias` of a layer norm over `len` values.
pub(super) fn layer_norm(files: &dyn TensorSource, name: &str, len: usize) -> Result<NormWeights<Raw>> {
    let take = |part| files.vector(&format!("{name}.{part}"), len).map(Some);
    Ok(NormWeights { w: take("weight")?, b: take("bias")? })
}

/// `NAME.weight`, `[n, k]` in the file, and, where there is one, `NAME.bias`.
pub(super) fn linear(files: &dyn TensorSource, name: &str, [k, n]: [usize; 2], bias: bool) -> Result<Linear<Raw>> {
    let w = files.transposed(&format!("{name}.weight"), k, n)?;
    Ok(Linear { w, b: files.vector_if(bias, &format!("{name}.bias"), n)? })
}
