//! Features side by side: a card for each, with its numbers, how strongly it fires, and where most.

use super::palette::shade;
use super::table::{Align, Table};
use super::text::{grouped, visible_token};
use super::token_strip::{LensToken, TopExample, top_table};
use maud::{Markup, html};

/// What was counted of one feature on a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureRow {
    /// The feature.
    pub feature: u32,
    /// Tokens on which it fired.
    pub count: u64,
    /// Tokens looked at.
    pub tokens: u64,
    /// Mean of its activations where it fired; 0 for one that never did.
    pub mean: f64,
    /// Its strongest activation (of the largest magnitude, with its sign); 0 for one that never fired.
    pub max: f32,
    /// Documents in which it fired, where that was counted.
    pub documents: Option<u64>,
}

impl FeatureRow {
    /// Share of the tokens on which it fired; 0 where there were none.
    #[must_use]
    pub fn density(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.count as f64 / self.tokens as f64 }
    }
}

/// A share in percent, with as many places as small ones need: `12.3%`, `0.046%`.
pub(crate) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        _ if percent == 0.0 => "0%".to_owned(),
        _ if percent >= 10.0 => format!("{percent:.1}%"),
        _ if percent >= 0.01 => format!("{percent:.3}%"),
        _ => format!("{percent:.1e}%"),
    }
}

/// Features with their numbers, a line each.
pub fn numbers_table(features: &[FeatureRow]) -> Table {
    let with_documents = features.iter().any(|f| f.documents.is_some());
    let columns =
        ["feature", "density", "tokens", "mean", "max"].into_iter().chain(with_documents.then_some("documents"));
    let mut table = Table::new(columns.map(|name| (name, Align::Right)));
    for f in features {
        let numbers = [f.feature.to_string(), percent(f.density()), grouped(f.count)];
        let strength = [format!("{:.3}", f.mean), format!("{:.3}", f.max)];
        let documents = with_documents.then(|| f.documents.map_or("–".into(), grouped));
        table.row(numbers.into_iter().chain(strength).chain(documents));
    }
    table
}

/// A feature and what shows what it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSummary {
    /// Its numbers.
    pub numbers: FeatureRow,
    /// How often it fired how strongly: neighboring ranges of activations with their counts.
    pub histogram: Vec<(f32, f32, u64)>,
    /// The tokens whose logits it raises most; may be empty.
    pub promotes: Vec<LensToken>,
    /// Where it fired most strongly.
    pub examples: Vec<TopExample>,
}

/// The cards, one under the other. Each opens and closes; the first `open` are open.
pub fn feature_cards(cards: &[FeatureSummary], open: usize) -> Markup {
    html! { @for (i, card) in cards.iter().enumerate() { (feature_card(card, i < open)) } }
}

fn feature_card(card: &FeatureSummary, open: bool) -> Markup {
    let n = &card.numbers;
    let most = card.promotes.iter().map(|t| t.logit.abs()).fold(0.0, f32::max);
    let documents = n.documents.map(|d| format!(" in {} documents", grouped(d)));
    html! {
        details class="card" id={ "feature-" (n.feature) } open[open] {
            summary {
                span class="name" { "feature " (n.feature) }
                (spark(&card.histogram))
                span class="facts" {
                    "max " b { (format!("{:.3}", n.max)) } ", mean " (format!("{:.3}", n.mean)) " · fires on " b { (percent(n.density())) } " of tokens ("
                    (grouped(n.count)) @if let Some(documents) = documents { (documents) } ")"
                }
            }
            @if !card.promotes.is_empty() {
                p class="promotes" {
                    "promotes "
                    @for token in &card.promotes {
                        span class="chip" style=[shade(token.logit, most)] title=(format!("{:+.3}", token.logit)) { (visible_token(&token.text)) } " "
                    }
                }
            }
            (top_table(&card.examples))
        }
    }
}

/// Height and width of a bar of [`spark`], in pixels.
const SPARK_HEIGHT: f64 = 26.0;
const SPARK_BAR: f64 = 7.0;

/// A histogram as small as a word: a bar for each range, as high as the logarithm of its count (a bar of one is still seen).
pub(crate) fn spark(bins: &[(f32, f32, u64)]) -> Markup {
    let height = |count: u64| (count as f64).ln_1p();
    let most = bins.iter().map(|bin| height(bin.2)).fold(0.0, f64::max);
    let width = SPARK_BAR * bins.len() as f64;
    html! {
        svg class="spark" width=(width) height=(SPARK_HEIGHT) viewBox={ "0 0 " (width) " " (SPARK_HEIGHT) } role="img" aria-label="histogram of its activations" {
            @for (i, &(from, to, count)) in bins.iter().enumerate() {
                @let tall = if most > 0.0 { SPARK_HEIGHT * height(count) / most } else { 0.0 };
                rect x=(SPARK_BAR * i as f64) y=(format!("{:.1}", SPARK_HEIGHT - tall)) width=(SPARK_BAR - 1.0) height=(format!("{tall:.1}")) {
                    title { (format!("{from:.3} to {to:.3}: ")) (grouped(count)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::ContextToken;

    fn numbers(feature: u32, count: u64) -> FeatureRow {
        FeatureRow { feature, count, tokens: 1000, mean: 0.5, max: 2.0, documents: None }
    }

    #[test]
    fn shares_are_readable_at_every_size() {
        let shown = [0.0, 0.25, 0.0123, 0.000_46, 0.000_000_12].map(percent);
        assert_eq!(shown, ["0%", "25.0%", "1.230%", "0.046%", "1.2e-5%"]);
        assert_eq!(numbers(0, 250).density(), 0.25);
        assert_eq!(FeatureRow { tokens: 0, ..numbers(0, 0) }.density(), 0.0);
    }

    #[test]
    fn documents_are_a_column_where_they_were_counted() {
        assert!(!numbers_table(&[numbers(1, 2)]).to_string().contains("documents"));
        let counted = FeatureRow { documents: Some(1234), ..numbers(2, 1) };
        let table = numbers_table(&[numbers(1, 2), counted]).to_string();
        assert!(table.contains("1,234") && table.contains('–'), "{table}");
    }

    #[test]
    fn a_card_escapes_what_the_text_says() {
        let token = ContextToken { text: "</td><script>".into(), activation: 1.0 };
        let example = TopExample { activation: 1.0, tokens: vec![token], focus: 0, place: "<b>".into() };
        let promotes = vec![LensToken { text: "<i>".into(), logit: 1.0 }];
        let card = FeatureSummary {
            numbers: numbers(7, 3),
            histogram: vec![(0.0, 1.0, 3)],
            promotes,
            examples: vec![example],
        };
        let html = feature_cards(&[card.clone(), card], 1).into_string();
        assert!(!html.contains("<script") && !html.contains("<i>") && !html.contains("<b><"), "{html}");
        assert_eq!(html.matches(" open").count(), 1, "only the first is open");
    }

    #[test]
    fn empty_histograms_draw_nothing() {
        assert!(!spark(&[]).into_string().contains("rect"));
        assert!(spark(&[(0.0, 1.0, 0)]).into_string().contains("height=\"0.0\""));
    }
}
