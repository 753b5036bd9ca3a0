use crate::{Codes, Coupling, FeatureId, Provenance, Reconstruction, Result, Sae, SparseCoder};
use candle_core::Tensor;

/// What a file of published weights can turn out to be: every architecture of this crate behind one type.
///
/// It is a [`SparseCoder`]; match on it where only one kind will do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Dictionary {
    /// One encoder, one activation function, one decoder: SAEs and transcoders.
    Sae(Sae),
}

/// The same expression for whatever it is.
macro_rules! each {
    ($dictionary:expr, $coder:ident => $body:expr) => {
        match $dictionary {
            Dictionary::Sae($coder) => $body,
        }
    };
}

impl Dictionary {
    /// Where it belongs: model, hook, context size ...
    #[must_use]
    pub fn metadata(&self) -> &Provenance {
        each!(self, coder => coder.metadata())
    }

    /// The same with other metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: Provenance) -> Self {
        match self {
            Self::Sae(sae) => Self::Sae(sae.with_metadata(metadata)),
        }
    }

    /// The [`Sae`] that it is, if it is one.
    #[must_use]
    pub fn as_sae(&self) -> Option<&Sae> {
        match self {
            Self::Sae(sae) => Some(sae),
        }
    }
}

impl From<Sae> for Dictionary {
    fn from(sae: Sae) -> Self {
        Self::Sae(sae)
    }
}

impl SparseCoder for Dictionary {
    fn d_in(&self) -> usize {
        each!(self, coder => coder.d_in())
    }

    fn d_out(&self) -> usize {
        each!(self, coder => coder.d_out())
    }

    fn provenance(&self) -> Option<&Provenance> {
        Some(self.metadata())
    }

    fn d_sae(&self) -> usize {
        each!(self, coder => coder.d_sae())
    }

    fn coupling(&self) -> Coupling {
        each!(self, coder => coder.coupling())
    }

    fn encode(&self, x: &Tensor) -> Result<Codes> {
        each!(self, coder => coder.encode(x))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor> {
        each!(self, coder => coder.decode(codes))
    }

    fn decoder_rows(&self, features: &[FeatureId]) -> Result<Tensor> {
        each!(self, coder => coder.decoder_rows(features))
    }

    fn encode_dense(&self, x: &Tensor) -> Result<Tensor> {
        each!(self, coder => coder.encode_dense(x))
    }

    fn pre_acts(&self, x: &Tensor) -> Result<Tensor> {
        each!(self, coder => coder.pre_acts(x))
    }

    fn encode_only(&self, x: &Tensor, features: &[FeatureId]) -> Result<Tensor> {
        each!(self, coder => coder.encode_only(x, features))
    }

    fn forward(&self, x: &Tensor) -> Result<Reconstruction> {
        each!(self, coder => coder.forward(x))
    }
}
