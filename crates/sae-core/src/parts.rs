use crate::normalization::check_finite;
use crate::{Activation, Error, InputShape, Normalization, Result, SaeMetadata};
use candle_core::Tensor;

/// The parts of an [`Sae`](crate::Sae), unchecked. Fill it, then [`Sae::new`](crate::Sae::new) checks it.
#[derive(Clone, Debug)]
pub struct SaeParts {
    /// `W_enc [d_in, d_sae]`.
    pub w_enc: Tensor,
    /// `b_enc [d_sae]`; for Gated the gate's bias.
    pub b_enc: Vec<f32>,
    /// `W_dec [d_sae, d_out]`; `d_out` is `d_in` but for transcoders.
    pub w_dec: Tensor,
    /// `b_dec [d_out]`, added to the reconstruction.
    pub b_dec: Vec<f32>,
    /// `W_skip [d_out, d_in]`: `x W_skip^T` of the input as it comes is added to the output.
    pub w_skip: Option<Tensor>,
    /// Whether the output is another hook point's value than the input: it may have another width, no normalization of the input is undone
    /// in it, and there is no error term.
    pub transcoder: bool,
    /// `[d_in]`, subtracted from the normalized input: `b_dec` again in SAEs with `apply_b_dec_to_input`.
    pub input_shift: Option<Vec<f32>>,
    /// The activation function.
    pub activation: Activation,
    /// Normalization of each token before encoding, undone after decoding.
    pub normalization: Normalization,
    /// Whether inputs may come split into heads.
    pub act_shape: InputShape,
    /// Metadata: model, hook, context size ...
    pub metadata: SaeMetadata,
    /// `[d_sae]`: log10 of each feature's firing frequency on the training data, if known; -inf: never fired.
    pub sparsity: Option<Vec<f32>>,
}

impl SaeParts {
    /// The four weights of a standard ReLU SAE without input shift, normalization or metadata; change fields from there.
    #[must_use]
    pub fn new(w_enc: Tensor, b_enc: Vec<f32>, w_dec: Tensor, b_dec: Vec<f32>) -> Self {
        Self {
            w_enc,
            b_enc,
            w_dec,
            b_dec,
            w_skip: None,
            transcoder: false,
            input_shift: None,
            activation: Activation::Relu,
            normalization: Normalization::None,
            act_shape: InputShape::Flat,
            metadata: SaeMetadata::default(),
            sparsity: None,
        }
    }

    /// Checks everything but the finiteness of the matrices; returns `d_in`.
    pub(crate) fn check(&self) -> Result<usize> {
        let (d_in, d_sae) = check_matrices(self)?;
        check_vectors(self, d_in, d_sae)?;
        check_parameters(&self.activation, d_sae)?;
        if self.normalization == Normalization::LayerNorm && d_in < 2 {
            let expected = "at least 2 for layer_norm".into();
            return Err(Error::Parameter { name: "d_in", expected, found: d_in.to_string() });
        }
        Ok(d_in)
    }
}

fn check_matrices(parts: &SaeParts) -> Result<(usize, usize)> {
    let shape = |name, found: &Tensor, expected: Vec<usize>| {
        if found.dims() == expected {
            Ok(())
        } else {
            Err(Error::Shape { name, expected, found: found.dims().to_vec() })
        }
    };
    let &[d_in, d_sae] = parts.w_enc.dims() else {
        let expected = vec![parts.b_dec.len(), parts.b_enc.len()];
        return Err(Error::Shape { name: "W_enc", expected, found: parts.w_enc.dims().to_vec() });
    };
    let d_out = if parts.transcoder { parts.b_dec.len() } else { d_in };
    shape("W_dec", &parts.w_dec, vec![d_sae, d_out])?;
    if let Some(w_skip) = &parts.w_skip {
        shape("W_skip", w_skip, vec![d_out, d_in])?;
    }
    let range = |name, value: usize| {
        if value == 0 || u32::try_from(value).is_err() {
            let expected = format!("1 to {}", u32::MAX);
            return Err(Error::Parameter { name, expected, found: value.to_string() });
        }
        Ok(())
    };
    range("d_in", d_in)?;
    range("d_sae", d_sae)?;
    range("d_out", d_out)?;
    Ok((d_in, d_sae))
}

fn check_vectors(parts: &SaeParts, d_in: usize, d_sae: usize) -> Result<()> {
    let vector = |name, vector: &[f32], expected: usize| {
        if vector.len() != expected {
            return Err(Error::Shape { name, expected: vec![expected], found: vec![vector.len()] });
        }
        check_finite(name, vector, expected)
    };
    vector("b_enc", &parts.b_enc, d_sae)?;
    vector("b_dec", &parts.b_dec, parts.w_dec.dims()[1])?;
    if let Some(shift) = &parts.input_shift {
        vector("input_shift", shift, d_in)?;
    }
    if let Some(sparsity) = &parts.sparsity {
        if sparsity.len() != d_sae {
            return Err(Error::Shape { name: "sparsity", expected: vec![d_sae], found: vec![sparsity.len()] });
        }
        if let Some(column) = sparsity.iter().position(|log| log.is_nan() || *log == f32::INFINITY) {
            return Err(Error::NotFinite { name: "sparsity", value: sparsity[column], row: 0, column });
        }
    }
    match &parts.activation {
        Activation::JumpRelu { threshold } => vector("threshold", threshold, d_sae),
        Activation::Gated { r_mag, b_mag } => {
            vector("r_mag", r_mag, d_sae)?;
            vector("b_mag", b_mag, d_sae)
        }
        _ => Ok(()),
    }
}

fn check_parameters(activation: &Activation, d_sae: usize) -> Result<()> {
    let refuse = |expected: String, found: String| Err(Error::Parameter { name: "k", expected, found });
    match *activation {
        Activation::TopK { k, .. } | Activation::AbsTopK { k, .. } | Activation::SignedTopK { k }
            if !(1..=d_sae).contains(&k) =>
        {
            refuse(format!("1 to d_sae={d_sae}"), k.to_string())
        }
        Activation::GroupMax { k } if !(1..=d_sae).contains(&k) || !d_sae.is_multiple_of(k) => {
            refuse(format!("a number of groups that divides d_sae={d_sae}"), k.to_string())
        }
        Activation::BatchTopK { k, .. } if !(k > 0.0 && k <= d_sae as f64) => {
            refuse(format!("more than 0, at most d_sae={d_sae}"), k.to_string())
        }
        _ => Ok(()),
    }
}
