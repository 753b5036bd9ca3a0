use crate::formats::{self, OpenOptions, SaeFormat};
use crate::{
    Codes, Coupling, Error, FeatureId, LoadOptions, MatchingPursuit, Reconstruction, Result, Sae, SaeMetadata,
    SparseCoder, TemporalSae,
};
use candle_core::Tensor;
use std::path::Path;
use tensor_kernels::Engine;

/// Any published SAE: every architecture of this crate behind one type.
///
/// It is a [`SparseCoder`]; match on it where only one kind will do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Dictionary {
    /// One encoder, one activation function, one decoder: SAEs and transcoders.
    Sae(Sae),
    /// Features chosen one after another.
    MatchingPursuit(MatchingPursuit),
    /// Codes predicted from the positions before, and novel ones.
    Temporal(TemporalSae),
}

/// Evaluates the same expression for each variant.
macro_rules! each {
    ($dictionary:expr, $coder:ident => $body:expr) => {
        match $dictionary {
            Dictionary::Sae($coder) => $body,
            Dictionary::MatchingPursuit($coder) => $body,
            Dictionary::Temporal($coder) => $body,
        }
    };
}

impl Dictionary {
    /// Opens a SAELens folder of any architecture and version; otherwise as [`Sae::load`]. [`formats::open`] opens every other format as well.
    ///
    /// # Errors
    /// As [`Sae::load`].
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(folder, &LoadOptions::default())
    }

    /// As [`load`](Self::load), with options.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(folder: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let options = OpenOptions { format: Some(SaeFormat::SaeLens), load: options.clone(), ..OpenOptions::default() };
        formats::open(folder, &options)
    }

    /// Saves it as a folder that SAELens opens; see [`Sae::save`].
    ///
    /// # Errors
    /// As [`Sae::save`]; [`Error::CannotSave`](crate::Error::CannotSave) for the other kinds, which are read but not written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        match self {
            Self::Sae(sae) => sae.save(folder),
            _ => Err(Error::CannotSave { what: "an architecture that is read but not written" }),
        }
    }

    /// Metadata: model, hook, context size ...
    #[must_use]
    pub fn metadata(&self) -> &SaeMetadata {
        each!(self, coder => coder.metadata())
    }

    /// The same with other metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: SaeMetadata) -> Self {
        each!(self, coder => coder.with_metadata(metadata).into())
    }

    /// The name that SAELens gives to its architecture (see [`Sae::architecture`]).
    #[must_use]
    pub fn architecture(&self) -> &'static str {
        each!(self, coder => coder.architecture())
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        each!(self, coder => coder.engine())
    }

    /// The hook point whose activations it was trained on, as the metadata names it.
    ///
    /// # Errors
    /// [`Error::MissingMetadata`](crate::Error::MissingMetadata) when they do not.
    pub fn hook_name(&self) -> Result<&str> {
        each!(self, coder => coder.hook_name())
    }

    /// The same function with decoder rows of norm 1; see [`Sae::fold_w_dec_norm`].
    ///
    /// # Errors
    /// As [`Sae::fold_w_dec_norm`]; [`Error::CannotFold`](crate::Error::CannotFold) of the other kinds.
    pub fn fold_w_dec_norm(&self) -> Result<Self> {
        each!(self, coder => coder.fold_w_dec_norm().map(Into::into))
    }

    /// Takes a whitening of the input into the weights; see [`Sae::fold_whitening`].
    ///
    /// # Errors
    /// As [`Sae::fold_whitening`]; [`Error::CannotFold`](crate::Error::CannotFold) of the other kinds.
    pub fn fold_whitening(&self, mean: &[f32], whiten: &Tensor, unwhiten: &Tensor) -> Result<Self> {
        each!(self, coder => coder.fold_whitening(mean, whiten, unwhiten).map(Into::into))
    }

    /// Takes the factor that activations were multiplied by in training into the weights; see [`Sae::fold_norm_factor`].
    ///
    /// # Errors
    /// As [`Sae::fold_norm_factor`], and [`MatchingPursuit::fold_norm_factor`]; a temporal SAE refuses.
    pub fn fold_norm_factor(&self, s: f32) -> Result<Self> {
        each!(self, coder => coder.fold_norm_factor(s).map(Into::into))
    }
}

impl From<Sae> for Dictionary {
    fn from(sae: Sae) -> Self {
        Self::Sae(sae)
    }
}

impl From<MatchingPursuit> for Dictionary {
    fn from(pursuit: MatchingPursuit) -> Self {
        Self::MatchingPursuit(pursuit)
    }
}

impl From<TemporalSae> for Dictionary {
    fn from(sae: TemporalSae) -> Self {
        Self::Temporal(sae)
    }
}

impl SparseCoder for Dictionary {
    fn d_in(&self) -> usize {
        each!(self, coder => coder.d_in())
    }

    fn d_out(&self) -> usize {
        each!(self, coder => coder.d_out())
    }

    fn metadata(&self) -> Option<&SaeMetadata> {
        Some(self.metadata())
    }

    fn as_sae(&self) -> Option<&Sae> {
        each!(self, coder => coder.as_sae())
    }

    fn is_transcoder(&self) -> bool {
        each!(self, coder => coder.is_transcoder())
    }

    fn skip(&self, x: &Tensor) -> Result<Option<Tensor>> {
        each!(self, coder => coder.skip(x))
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
