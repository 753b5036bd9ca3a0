//! From what was measured to what is looked at: kept examples, the lens, PCA and effects of features as figures and tables of [`plot`](crate::plot).

mod census;
mod contexts;
mod effects;

pub use census::{CensusPage, CensusPageOptions, DENSE, strongest};
pub use contexts::ExampleContexts;
pub use effects::attribution_table;

use crate::plot::{
    Figure, HistogramOptions, LensRow, LensToken, ScatterOptions, ScatterPoint, TopExample, pca_scatter,
    positive_histogram,
};
use crate::{Error, FeatureExamples, FrameOptions, LogitLens, Pca, PositiveActivations, Result, top_activations};
use activation_store::{ActivationStore, TokenRow};
use model_hooks::Tokenizer;
use sae_core::SparseCoder;
use std::collections::BTreeMap;

/// The notebook's histogram (cell 22) of one feature, saying below its title what was counted.
#[must_use]
pub fn positive_figure(positive: &PositiveActivations) -> Figure {
    let PositiveActivations { feature, ref values, negative, counts } = *positive;
    let left_out = if negative == 0 { String::new() } else { format!(" above 0, {negative} below 0 left out") };
    let subtitle = format!("feature {feature}, {} activations{left_out}; {counts}", values.len());
    let options = HistogramOptions { subtitle: Some(subtitle), ..HistogramOptions::default() };
    positive_histogram(values, counts.tokens, &options)
}

/// The strongest examples of a feature (cell 23) with wide contexts, each token with the feature's own activation on it: the rows
/// of the examples are run once more for that.
///
/// `around` says how many tokens are shown before and after.
///
/// # Errors
/// A feature that was not collected, or the store's, model's or SAE's own errors.
pub fn top_examples(
    kept: &FeatureExamples,
    feature: u32,
    k: usize,
    coder: &dyn SparseCoder,
    store: &ActivationStore,
    around: &FrameOptions,
) -> Result<Vec<TopExample>> {
    let top = top_activations(kept, feature, k)?;
    let rows: BTreeMap<u64, &TokenRow> = top.iter().map(|t| (t.at.row, kept.place(t.example).row)).collect();
    let contexts = ExampleContexts::of(coder, store, &[feature], rows.into_values().cloned().collect())?;
    let mut examples = Vec::with_capacity(top.len());
    for t in &top {
        examples.push(contexts.example(feature, t.at, t.token, t.activation, store, around)?);
    }
    Ok(examples)
}

/// The logit lens (cell 24) in words. An id that the tokenizer does not know (a padded vocabulary) is shown as `[id]`.
#[must_use]
pub fn lens_rows(lens: &LogitLens, tokenizer: &Tokenizer) -> Vec<LensRow> {
    let words = |tokens: &[(u32, f32)]| {
        let word = |&(id, logit): &(u32, f32)| {
            let text = tokenizer.readable(&[id]).map_or_else(|_| format!("[{id}]"), |text| text.concat());
            LensToken { text, logit }
        };
        tokens.iter().map(word).collect()
    };
    let row = |f: &crate::FeatureTokens| LensRow {
        feature: f.feature,
        top: words(&f.tokens.top),
        bottom: words(&f.tokens.bottom),
    };
    lens.features.iter().map(row).collect()
}

/// What the PCA scatter (cell 27) shows of each kept token.
#[derive(Clone, Debug)]
pub struct PcaPlotData {
    /// The coordinates, `[n, n_components]`.
    pub scores: Vec<Vec<f32>>,
    /// The tokens, readable.
    pub tokens: Vec<String>,
    /// The text around them.
    pub contexts: Vec<String>,
}

impl PcaPlotData {
    /// Projects the reconstructions of the kept tokens.
    ///
    /// # Errors
    /// The tokenizer's, or a width that is not the PCA's.
    pub fn new(kept: &FeatureExamples, pca: &Pca, tokenizer: &Tokenizer) -> Result<Self> {
        let scores = pca.transform(&kept.reconstructions()?)?.to_dtype(candle_core::DType::F32)?.to_vec2()?;
        let (mut tokens, mut contexts) = (Vec::with_capacity(kept.len()), Vec::with_capacity(kept.len()));
        for i in 0..kept.len() {
            let place = kept.place(i);
            let ids = &place.row.tokens;
            let (before, after) = FrameOptions::default().around(place.pos, ids.len());
            let token = tokenizer.readable_text(&ids[place.pos..=place.pos])?;
            let (before, after) = (tokenizer.readable_text(&ids[before])?, tokenizer.readable_text(&ids[after])?);
            contexts.push(format!("{before}|{token}|{after}"));
            tokens.push(token);
        }
        Ok(Self { scores, tokens, contexts })
    }

    /// Only the tokens equal to one of `words`, surrounding spaces aside (they are dropped, so that a word is one token here).
    #[must_use]
    pub fn only(&self, words: &[String]) -> Self {
        let mut part = Self { scores: Vec::new(), tokens: Vec::new(), contexts: Vec::new() };
        let texts = self.tokens.iter().zip(&self.contexts);
        for (score, (token, context)) in self.scores.iter().zip(texts) {
            if words.iter().any(|word| word == token.trim()) {
                part.scores.push(score.clone());
                part.tokens.push(token.trim().to_owned());
                part.contexts.push(context.clone());
            }
        }
        part
    }

    /// Two components against each other (counted from 0: the notebook's PC2 and PC3 are 1 and 2). Without any points the figure is empty.
    ///
    /// # Errors
    /// [`Error::ComponentRange`] for a component that a point does not have.
    pub fn scatter(&self, horizontal: usize, vertical: usize, options: &ScatterOptions) -> Result<Figure> {
        let texts = self.tokens.iter().zip(&self.contexts);
        let mut points = Vec::with_capacity(self.scores.len());
        for (score, (token, context)) in self.scores.iter().zip(texts) {
            let at = |component: usize| {
                let outside = Error::ComponentRange { component, components: score.len() };
                score.get(component).copied().ok_or(outside)
            };
            points.push(ScatterPoint { x: at(horizontal)?, y: at(vertical)?, token, context });
        }
        Ok(pca_scatter(&points, options))
    }

    /// The mean of each component over the tokens equal to `word` (surrounding spaces aside), and how many they are.
    #[must_use]
    pub fn mean_of(&self, word: &str) -> (usize, Vec<f64>) {
        let hits: Vec<_> =
            self.scores.iter().zip(&self.tokens).filter(|(_, t)| t.trim() == word).map(|(s, _)| s).collect();
        let width = self.scores.first().map_or(0, Vec::len);
        // The fields are public: points of different lengths count where they have the component.
        let mean = |i: usize| {
            let values: Vec<f64> = hits.iter().filter_map(|s| s.get(i)).map(|x| f64::from(*x)).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        (hits.len(), (0..width).map(mean).collect())
    }
}
