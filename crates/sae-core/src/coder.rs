use crate::{Codes, Coupling, FeatureId, Reconstruction, Result, SaeMetadata};
use candle_core::{DType, Tensor};

/// Anything that turns activation vectors into sparse features and back: an SAE, a transcoder, a user's own dictionary.
///
/// Inputs are `[.., d_in]` with any leading dimensions (an SAE on `hook_z` takes `[.., head, d_head]` as well); dense
/// results carry the same leading dimensions. Object-safe; the required methods are few, the rest follow from them.
pub trait SparseCoder: Send + Sync {
    /// Width of the vectors that go in.
    fn d_in(&self) -> usize;

    /// Width of the vectors that come out.
    fn d_out(&self) -> usize {
        self.d_in()
    }

    /// Metadata: the model and hook point it belongs to, and its training, if known.
    fn metadata(&self) -> Option<&SaeMetadata> {
        None
    }

    /// The [`Sae`](crate::Sae) that it is, if it is one: for what only weights tell.
    fn as_sae(&self) -> Option<&crate::Sae> {
        None
    }

    /// Whether what comes out lives in another space than what goes in, as of transcoders; then the input less the output means nothing.
    fn is_transcoder(&self) -> bool {
        self.d_in() != self.d_out()
    }

    /// Number of features.
    fn d_sae(&self) -> usize;

    /// Whether single features can be computed alone.
    fn coupling(&self) -> Coupling;

    /// Sparse features of every activation vector.
    ///
    /// # Errors
    /// When the shape is wrong or the input is not finite.
    fn encode(&self, x: &Tensor) -> Result<Codes>;

    /// Reconstruction from the codes, in the shape of the input; per-token norms are undone. [`skip`](Self::skip) may have to be added.
    ///
    /// # Errors
    /// When the codes are another dictionary's.
    fn decode(&self, codes: &Codes) -> Result<Tensor>;

    /// The part of the output that does not pass through the codes, in the shape of the output: `x W_skip^T` of a skip transcoder, what a
    /// [`TemporalSae`](crate::TemporalSae) predicts. `None`: there is no such part.
    ///
    /// ```text
    /// output = decode(encode(x)) + skip(x)
    /// ```
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn skip(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let _ = x;
        Ok(None)
    }

    /// Contribution of one unit of each feature to [`decode`](Self::decode): rows `[features.len(), d_out]`.
    ///
    /// ```text
    /// reconstruction from these features alone, without b_dec  =  encode_only(x, features) @ decoder_rows(features)
    /// ```
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`](crate::Error::FeatureOutOfRange).
    fn decoder_rows(&self, features: &[FeatureId]) -> Result<Tensor>;

    /// Dense features `[.., d_sae]`. Memory is `rows * d_sae` floats; prefer [`encode`](Self::encode).
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_dense(&self, x: &Tensor) -> Result<Tensor> {
        self.encode(x)?.to_dense()
    }

    /// Dense pre-activations `[.., d_sae]`: what the activation function reads (of a Gated SAE the magnitudes; before TopK's rescaling).
    /// Memory is `rows * d_sae` floats.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); [`Error::NoPreActs`](crate::Error::NoPreActs) of a coder that does not show them, as the provided
    /// body says.
    fn pre_acts(&self, x: &Tensor) -> Result<Tensor> {
        let _ = x;
        Err(crate::Error::NoPreActs)
    }

    /// Dense activations of a few features, `[.., features.len()]`, in the given order (repeats allowed).
    ///
    /// Where columns are [`Coupling::Independent`] only these columns are computed; where they are coupled all are, and
    /// these are picked.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and [`Error::FeatureOutOfRange`](crate::Error::FeatureOutOfRange).
    fn encode_only(&self, x: &Tensor, features: &[FeatureId]) -> Result<Tensor> {
        crate::sparse_features::check_features(features, self.d_sae())?;
        let codes = self.encode(x)?;
        Ok(codes.features.columns(features)?.reshape(codes.layout.with_width(features.len()))?)
    }

    /// Encodes, decodes, adds what passes the codes by, and says what was missed.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn forward(&self, x: &Tensor) -> Result<Reconstruction> {
        let codes = self.encode(x)?;
        let mut x_hat = self.decode(&codes)?;
        if let Some(skip) = self.skip(x)? {
            x_hat = (x_hat + skip)?;
        }
        let error = if self.is_transcoder() { None } else { Some((x.to_dtype(DType::F32)? - &x_hat)?) };
        Ok(Reconstruction { codes, x_hat, error })
    }
}

macro_rules! forward_to_target {
    ($($pointer:ty),*) => {$(
        impl<T: SparseCoder + ?Sized> SparseCoder for $pointer {
            fn d_in(&self) -> usize { (**self).d_in() }
            fn d_out(&self) -> usize { (**self).d_out() }
            fn metadata(&self) -> Option<&SaeMetadata> { (**self).metadata() }
            fn as_sae(&self) -> Option<&crate::Sae> { (**self).as_sae() }
            fn is_transcoder(&self) -> bool { (**self).is_transcoder() }
            fn skip(&self, x: &Tensor) -> Result<Option<Tensor>> { (**self).skip(x) }
            fn d_sae(&self) -> usize { (**self).d_sae() }
            fn coupling(&self) -> Coupling { (**self).coupling() }
            fn encode(&self, x: &Tensor) -> Result<Codes> { (**self).encode(x) }
            fn decode(&self, codes: &Codes) -> Result<Tensor> { (**self).decode(codes) }
            fn decoder_rows(&self, features: &[FeatureId]) -> Result<Tensor> { (**self).decoder_rows(features) }
            fn encode_dense(&self, x: &Tensor) -> Result<Tensor> { (**self).encode_dense(x) }
            fn pre_acts(&self, x: &Tensor) -> Result<Tensor> { (**self).pre_acts(x) }
            fn encode_only(&self, x: &Tensor, features: &[FeatureId]) -> Result<Tensor> { (**self).encode_only(x, features) }
            fn forward(&self, x: &Tensor) -> Result<Reconstruction> { (**self).forward(x) }
        }
    )*};
}

forward_to_target!(&T, Box<T>, std::sync::Arc<T>);
