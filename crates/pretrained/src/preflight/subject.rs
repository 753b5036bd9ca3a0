use candle_core::{Device, Tensor};
use sae_core::{Activation, Codes, Dictionary, Normalization, Sae, SaeMetadata, SparseCoder, SparseFeatures};

/// The dictionary that is checked. Of an [`Sae`] more can be checked than of a [`SparseCoder`] in general.
#[derive(Clone, Copy)]
pub struct PreflightSae<'a> {
    coder: &'a dyn SparseCoder,
    sae: Option<&'a Sae>,
}

impl<'a> PreflightSae<'a> {
    /// Any dictionary, by what the trait shows of it.
    #[must_use]
    pub fn of(coder: &'a dyn SparseCoder) -> Self {
        Self { coder, sae: None }
    }

    /// The dictionary.
    #[must_use]
    pub fn coder(&self) -> &'a dyn SparseCoder {
        self.coder
    }

    pub(super) fn sae(&self) -> Option<&'a Sae> {
        self.sae
    }

    pub(super) fn metadata(&self) -> SaeMetadata {
        self.coder.metadata().cloned().unwrap_or_default()
    }

    pub(super) fn normalization(&self) -> Normalization {
        self.sae.map_or(Normalization::None, Sae::normalization)
    }

    /// The SAE with its missing norm factor taken for 1, if one is missing.
    pub(super) fn unscaled(&self) -> sae_core::Result<Option<Sae>> {
        let missing = self.sae.filter(|sae| sae.normalization() == Normalization::ExpectedAverageOnlyIn);
        missing.map(|sae| sae.fold_norm_factor(1.0)).transpose()
    }

    /// log10 of the frequencies in training.
    pub(super) fn sparsity(&self) -> Option<&'a [f32]> {
        self.sae.and_then(Sae::sparsity)
    }

    /// Features that fired on a token in training: the sum of their frequencies.
    pub(super) fn trained_l0(&self) -> Option<f64> {
        self.sparsity().map(|logs| logs.iter().map(|log| 10f64.powf(f64::from(*log))).sum())
    }

    /// `b_dec`, in the space of normalized inputs: what no features at all decode to.
    pub(super) fn b_dec(&self) -> Option<Vec<f32>> {
        if let Some(sae) = self.sae {
            return Some(sae.b_dec().to_vec());
        }
        let none = SparseFeatures::new(vec![0, 0], Vec::new(), Vec::new(), self.coder.d_sae() as u32).ok()?;
        self.coder.decode(&Codes::from_features(none)).ok()?.flatten_all().ok()?.to_vec1().ok()
    }

    /// Whether its function depends on thresholds that rounding moves activations across.
    pub(super) fn has_thresholds(&self) -> bool {
        self.sae.is_some_and(|sae| matches!(sae.activation(), Activation::JumpRelu { .. }))
    }

    /// The k of a TopK.
    pub(super) fn k(&self) -> Option<usize> {
        match self.sae?.activation() {
            Activation::TopK { k, .. } => Some(*k),
            _ => None,
        }
    }

    /// What it makes of rows `[n, d_in]`: features, and the reconstruction row by row.
    pub(super) fn run(&self, rows: &[f32]) -> sae_core::Result<(SparseFeatures, Vec<f32>)> {
        let d_in = self.coder.d_in();
        let x = Tensor::from_slice(rows, (rows.len() / d_in, d_in), &Device::Cpu)?;
        let seen = self.coder.forward(&x)?;
        Ok((seen.codes.features, seen.x_hat.flatten_all()?.to_vec1()?))
    }
}

impl<'a> From<&'a Sae> for PreflightSae<'a> {
    fn from(sae: &'a Sae) -> Self {
        Self { coder: sae, sae: Some(sae) }
    }
}

impl<'a> From<&'a Dictionary> for PreflightSae<'a> {
    fn from(dictionary: &'a Dictionary) -> Self {
        Self { coder: dictionary, sae: dictionary.as_sae() }
    }
}
