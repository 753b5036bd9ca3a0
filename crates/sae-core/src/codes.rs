use crate::{Error, Result, SparseFeatures};
use candle_core::Tensor;

/// Layout of one activation vector of width `d_in` in the last dimensions of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputShape {
    /// `[.., d_in]`.
    Flat,
    /// `[.., head, d_head]` with `head * d_head = d_in`, as `hook_z` gives it (SAELens' `reshape_activations: "hook_z"`).
    /// `[.., d_in]` is taken too: an input whose last dimension is `d_in` is flat already.
    PerHead,
}

/// The shape that an input had around its activation vectors, so that an output can take it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActLayout {
    leading: Vec<usize>,
    heads: Option<usize>,
}

impl ActLayout {
    /// `rows` vectors in a plain `[rows, d]`.
    #[must_use]
    pub fn rows(rows: usize) -> Self {
        Self { leading: vec![rows], heads: None }
    }

    /// Reads the layout of an input of vectors of width `d_in`.
    ///
    /// # Errors
    /// [`Error::InputShape`].
    pub fn of(dims: &[usize], d_in: usize, shape: InputShape) -> Result<Self> {
        match (shape, dims) {
            (_, [leading @ .., width]) if *width == d_in => Ok(Self { leading: leading.to_vec(), heads: None }),
            (InputShape::PerHead, [leading @ .., heads, d_head]) if heads.checked_mul(*d_head) == Some(d_in) => {
                Ok(Self { leading: leading.to_vec(), heads: Some(*heads) })
            }
            _ => {
                let expected = match shape {
                    InputShape::Flat => format!("[.., d_in={d_in}]"),
                    InputShape::PerHead => format!("[.., d_in={d_in}] or [.., head, d_head] with head*d_head={d_in}"),
                };
                Err(Error::InputShape { expected, found: dims.to_vec() })
            }
        }
    }

    /// The dimensions before the activation vector.
    #[must_use]
    pub fn leading(&self) -> &[usize] {
        &self.leading
    }

    /// The number of heads that the vector was split into, if it was.
    #[must_use]
    pub fn heads(&self) -> Option<usize> {
        self.heads
    }

    /// The number of activation vectors.
    #[must_use]
    pub fn count(&self) -> usize {
        self.leading.iter().product()
    }

    /// The shape of one value per activation vector and column: `[leading.., width]`.
    #[must_use]
    pub fn with_width(&self, width: usize) -> Vec<usize> {
        let mut dims = self.leading.clone();
        dims.push(width);
        dims
    }

    /// The shape of an output of vectors of width `d_out`: split into heads again when the input was.
    #[must_use]
    pub fn output(&self, d_out: usize) -> Vec<usize> {
        match self.heads {
            Some(heads) if d_out.is_multiple_of(heads) => {
                let mut dims = self.with_width(heads);
                dims.push(d_out / heads);
                dims
            }
            _ => self.with_width(d_out),
        }
    }
}

/// The inverse of a per-token normalization: `x_hat[i] <- x_hat[i] * multiply[i] + add[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct InputNorm {
    /// One factor per row.
    pub multiply: Vec<f32>,
    /// One summand per row, for normalizations that center.
    pub add: Option<Vec<f32>>,
}

/// The result of encoding: sparse features, and the per-token state that `decode` needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// The feature activations, one row per activation vector of the input.
    pub features: SparseFeatures,
    /// The inverse of the input's per-token normalization; `None` when there was none.
    pub scale: Option<InputNorm>,
    /// The shape of the input around its vectors.
    pub layout: ActLayout,
}

impl Codes {
    /// Codes for plain rows without a per-token normalization.
    #[must_use]
    pub fn from_features(features: SparseFeatures) -> Self {
        let layout = ActLayout::rows(features.rows());
        Self { features, scale: None, layout }
    }

    /// The same tokens with other features: what ablation and steering need (norms and shape stay).
    ///
    /// # Errors
    /// [`Error::CodesMismatch`] when the number of rows differs.
    pub fn with_features(&self, features: SparseFeatures) -> Result<Self> {
        if features.rows() != self.features.rows() {
            return Err(Error::CodesMismatch {
                what: "number of rows",
                expected: self.features.rows().to_string(),
                found: features.rows().to_string(),
            });
        }
        Ok(Self { features, scale: self.scale.clone(), layout: self.layout.clone() })
    }

    /// Dense feature activations with the leading dimensions of the input, `[.., d_sae]`.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn to_dense(&self) -> Result<Tensor> {
        Ok(self.features.to_dense()?.reshape(self.layout.with_width(self.features.d_sae()))?)
    }
}

/// An input seen through an SAE.
#[derive(Clone, Debug)]
pub struct Reconstruction {
    /// The sparse codes.
    pub codes: Codes,
    /// The decoded codes, in the shape of the input (for transcoders: of the output).
    pub x_hat: Tensor,
    /// `x - x_hat`, what the SAE missed; `None` where the output lives in another space than the input (transcoders).
    pub error: Option<Tensor>,
}

/// Whether a feature's activation can be computed without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// Each column is independent of the others (ReLU, JumpReLU, Gated): a few features cost a few columns.
    Independent,
    /// Features compete (TopK ..): any feature needs all columns.
    Coupled,
}
