//! A census as sections of a page: how often features fire, which never do and which always, how strong they get, and the strongest
//! with their examples.

use super::{ExampleContexts, lens_rows};
use crate::lens::written;
use crate::page::Section;
use crate::plot::{
    FeatureRow, FeatureSummary, Figure, HistogramOptions, LensToken, density, feature_cards, grouped, histogram,
    numbers_table, percent,
};
use crate::{Error, FrameOptions, LensOptions, Result, logit_lens};
use activation_store::{ActivationSource, ActivationStore};
use feature_census::{CensusExample, FeatureCensus, FeatureStats};
use sae_core::SparseCoder;
use std::collections::BTreeSet;

/// A feature that fires on more than this share of the tokens is called dense.
pub const DENSE: f64 = 0.1;
/// How many dense features are listed.
const LISTED: usize = 20;
/// How many silent features are named.
const NAMED: usize = 200;

/// The numbers of every feature of an SAE on a text, as sections of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct CensusPage {
    /// Every feature's, in order.
    pub features: Vec<FeatureRow>,
    /// Those shown with examples, in the order in which they are shown.
    pub cards: Vec<FeatureSummary>,
}

/// How much of a census is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CensusPageOptions {
    /// How many features with examples.
    pub features: usize,
    /// How many examples of each.
    pub examples: usize,
    /// How many tokens that each promotes.
    pub promotes: usize,
    /// How much text around an example.
    pub around: FrameOptions,
}

impl Default for CensusPageOptions {
    fn default() -> Self {
        let around = FrameOptions { len_prefix: 16, len_suffix: 8, ..FrameOptions::default() };
        Self { features: 16, examples: 8, promotes: 8, around }
    }
}

impl CensusPage {
    /// Of a census: all its numbers, and its strongest features with the text around their examples, which is read from `store` (at the start of
    /// the text that was counted, packed in the same way). What features promote is shown where a linear map leads from the SAE's hook point to the residual stream.
    ///
    /// # Errors
    /// [`crate::Error::OtherText`] when the store does not have the token of an example where the census found it: it reads another text, or packs it
    /// in another way. The store's, the model's, the SAE's or the tokenizer's.
    pub fn of(
        census: &FeatureCensus,
        coder: &dyn SparseCoder,
        store: &mut ActivationStore,
        options: &CensusPageOptions,
    ) -> Result<Self> {
        let of = |stats: FeatureStats| FeatureRow::of(&stats, census.tokens());
        let features: Vec<FeatureRow> = census.all_stats()?.into_iter().map(of).collect();
        let shown = strongest(&features, options.features);
        let numbers: Vec<u32> = shown.iter().map(|f| f.feature).collect();
        let mut tops = Vec::with_capacity(shown.len());
        for feature in &numbers {
            let mut top = census.top(*feature)?;
            top.truncate(options.examples);
            tops.push(top);
        }
        let rows: BTreeSet<u64> = tops.iter().flatten().map(|example| example.at.row).collect();
        let contexts = ExampleContexts::read(coder, store, &numbers, &rows)?;
        let promotes = promotes(coder, store, &numbers, options.promotes)?;
        let mut cards = Vec::with_capacity(shown.len());
        for ((numbers, top), promotes) in shown.into_iter().zip(tops).zip(promotes) {
            let mut examples = Vec::with_capacity(top.len());
            for CensusExample { at, token, activation } in top {
                examples.push(contexts.example(numbers.feature, at, token, activation, store, &options.around)?);
            }
            // Bars of half an octave.
            let histogram = census.histogram(numbers.feature)?.grouped(2);
            cards.push(FeatureSummary { numbers, histogram, promotes, examples });
        }
        Ok(Self { features, cards })
    }

    /// The sections: density, densest, silent, strength, examples.
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        let density = Section::new("density", "How often features fire").text(self.words()).figure(self.density());
        let strength = Section::new("strength", "How strong they get").figure(self.maxima());
        let examples = Section::new("examples", "The strongest features")
            .text(format!(
                "The {} features with the largest activations, dense ones left out. Every token is shaded by the feature's own activation on it. The \
                 small histogram counts activations by strength, a bar for each half octave, on a logarithmic scale.",
                self.cards.len()
            ))
            .markup(feature_cards(&self.cards, 4));
        vec![density, strength, examples, self.densest(), self.silent()]
    }

    /// How many are silent, rare and dense, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let n = |wanted: &dyn Fn(&FeatureRow) -> bool| self.features.iter().filter(|f| wanted(f)).count();
        let [silent, once, dense] = [n(&|f| f.count == 0), n(&|f| f.count == 1), n(&|f| f.density() > DENSE)];
        let of_all = |n: usize| percent(n as f64 / self.features.len().max(1) as f64);
        let l0: f64 = self.features.iter().map(FeatureRow::density).sum();
        format!(
            "Of {} features {} ({}) never fired on this text, {} fired once, {} are dense (on more than {:.0}% of the tokens). On average {l0:.1} features \
             are active on a token.",
            grouped(self.features.len() as u64),
            grouped(silent as u64),
            of_all(silent),
            grouped(once as u64),
            grouped(dense as u64),
            100.0 * DENSE,
        )
    }

    fn density(&self) -> Figure {
        let shares: Vec<f32> = self.features.iter().map(|f| f.density() as f32).collect();
        let options = HistogramOptions {
            title: "Feature density".into(),
            x_label: "share of tokens on which a feature fires".into(),
            y_label: "features".into(),
            ..HistogramOptions::default()
        };
        density(&shares, &options)
    }

    fn maxima(&self) -> Figure {
        let maxima: Vec<f32> = self.features.iter().filter(|f| f.count > 0).map(|f| f.max).collect();
        let options = HistogramOptions {
            title: "Largest activation of each feature".into(),
            subtitle: Some(format!("{} features that fired", grouped(maxima.len() as u64))),
            x_label: "largest activation".into(),
            y_label: "features".into(),
            max_bins: 60,
            height: 380,
            ..HistogramOptions::default()
        };
        histogram(&maxima, &options)
    }

    fn densest(&self) -> Section {
        let mut densest: Vec<FeatureRow> = self.features.iter().filter(|f| f.count > 0).copied().collect();
        densest.sort_by(|a, b| b.count.cmp(&a.count).then(a.feature.cmp(&b.feature)));
        densest.truncate(LISTED);
        Section::new("dense", "The densest features").table(&numbers_table(&densest))
    }

    fn silent(&self) -> Section {
        let silent: Vec<String> =
            self.features.iter().filter(|f| f.count == 0).map(|f| f.feature.to_string()).collect();
        let section = Section::new("dead", "Features that never fired");
        let more = silent.len().saturating_sub(NAMED);
        match silent.len() {
            0 => section.text("Every feature fired on this text."),
            _ if more == 0 => section.text(silent.join(", ")),
            _ => section.text(format!("{} and {} more", silent[..NAMED].join(", "), grouped(more as u64))),
        }
    }
}

/// The tokens that each of these features makes likelier; none where no linear map leads from the SAE to the residual stream.
fn promotes(
    coder: &dyn SparseCoder,
    store: &ActivationStore,
    features: &[u32],
    top: usize,
) -> Result<Vec<Vec<LensToken>>> {
    let model = store.model();
    if features.is_empty() {
        return Ok(Vec::new());
    }
    let at = written(model, coder, store.spec().hooks[0].selector())?;
    let options = LensOptions { top, bottom: 0, at: Some(at), ..LensOptions::default() };
    let lens = match logit_lens(model, coder, Some(features), &options) {
        Err(Error::Model(error)) if matches!(*error, model_hooks::Error::NotWritten { .. }) => {
            return Ok(vec![Vec::new(); features.len()]);
        }
        lens => lens?,
    };
    Ok(lens_rows(&lens, model.try_tokenizer()?).into_iter().map(|row| row.top).collect())
}

impl FeatureRow {
    /// Of a census's numbers over so many tokens.
    #[must_use]
    pub fn of(stats: &FeatureStats, tokens: u64) -> Self {
        let FeatureStats { feature, count, mean, documents, .. } = *stats;
        Self { feature, count, tokens, mean, max: stats.strongest(), documents }
    }
}

/// The features with the strongest activations (by magnitude), strongest first, without those that never fired and the dense ones; equal ones by number.
#[must_use]
pub fn strongest(features: &[FeatureRow], n: usize) -> Vec<FeatureRow> {
    let mut found: Vec<FeatureRow> = features.iter().filter(|f| f.count > 0 && f.density() <= DENSE).copied().collect();
    found.sort_by(|a, b| b.max.abs().total_cmp(&a.max.abs()).then(a.feature.cmp(&b.feature)));
    found.truncate(n);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(feature: u32, count: u64, max: f32) -> FeatureRow {
        FeatureRow { feature, count, tokens: 100, mean: 1.0, max, documents: None }
    }

    #[test]
    fn the_strongest_are_neither_silent_nor_dense() {
        let all =
            [numbers(0, 0, 0.0), numbers(1, 50, 9.0), numbers(2, 10, 3.0), numbers(3, 1, 3.0), numbers(4, 2, 5.0)];
        let found: Vec<u32> = strongest(&all, 9).iter().map(|f| f.feature).collect();
        assert_eq!(found, [4, 2, 3]);
        assert_eq!(strongest(&all, 1).len(), 1);
    }

    #[test]
    fn a_page_of_anything_can_be_made() {
        for features in
            [vec![], vec![numbers(0, 0, 0.0)], vec![numbers(0, 100, 1.0), numbers(1, 0, 0.0), numbers(2, 1, 2.0)]]
        {
            let view = CensusPage { features, cards: Vec::new() };
            let mut page = crate::page::Page::new("census", "");
            view.sections().into_iter().for_each(|section| {
                page.section(section);
            });
            assert!(page.to_html().contains("How often"));
        }
    }

    #[test]
    fn silent_dense_and_rare_are_counted() {
        let features = vec![numbers(0, 0, 0.0), numbers(1, 50, 1.0), numbers(2, 1, 1.0), numbers(3, 1, 1.0)];
        let words = CensusPage { features, cards: Vec::new() }.words();
        assert!(words.contains("Of 4 features 1 (25.0%) never fired"), "{words}");
        assert!(words.contains("2 fired once, 1 are dense") && words.contains("0.5 features"), "{words}");
    }
}
