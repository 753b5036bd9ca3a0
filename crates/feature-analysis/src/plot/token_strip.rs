//! Tables of tokens: a feature's strongest examples in their context, and what features write to the vocabulary.

use super::palette::shade;
use super::text::{visible_context, visible_token};
use maud::{Markup, html};

/// A token of a context and the feature's activation on it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextToken {
    /// The token's text.
    pub text: String,
    /// The feature's activation there; 0 where it did not fire or is not known.
    pub activation: f32,
}

/// One of a feature's strongest activations, with the text around it.
#[derive(Clone, Debug, PartialEq)]
pub struct TopExample {
    /// The activation.
    pub activation: f32,
    /// The tokens around it, in order.
    pub tokens: Vec<ContextToken>,
    /// Which of `tokens` it is.
    pub focus: usize,
    /// Where it comes from, such as `document 12, row 3, position 49`.
    pub place: String,
}

/// The top activations of a feature, each in its context; every token is shaded by the feature's activation on it, on one
/// scale of magnitudes for the whole table (negative ones of signed codes in another color), and the token itself is outlined.
pub fn top_table(examples: &[TopExample]) -> Markup {
    let shown = examples.iter().flat_map(|e| e.tokens.iter().map(|t| t.activation).chain([e.activation]));
    let most = shown.map(f32::abs).fold(0.0, f32::max);
    html! {
        div class="scroll" {
            table class="top" {
                thead { tr { th class="number" { "#" } th class="number" { "activation" } th { "token" } th { "context" } th { "place" } } }
                tbody {
                    @for (rank, example) in examples.iter().enumerate() {
                        tr {
                            td class="number" { (rank + 1) }
                            td class="number" { (bar(example.activation, most)) }
                            td { (focus_chip(example, most)) }
                            td class="context" { (context(example, most)) }
                            td class="place" { (example.place) }
                        }
                    }
                }
            }
        }
    }
}

fn focus_chip(example: &TopExample, most: f32) -> Markup {
    let token = example.tokens.get(example.focus).map_or("", |t| &t.text);
    html! { span class="chip" style=[shade(example.activation, most)] { (visible_token(token)) } }
}

fn bar(activation: f32, most: f32) -> Markup {
    let percent = if most > 0.0 { (100.0 * activation.abs() / most).clamp(0.0, 100.0) } else { 0.0 };
    html! { (format!("{activation:.3}")) div class="bar" { div style={ "width:" (format!("{percent:.1}")) "%" } {} } }
}

fn context(example: &TopExample, most: f32) -> Markup {
    html! {
        @for (i, token) in example.tokens.iter().enumerate() {
            span class=[(i == example.focus).then_some("focus")] style=[shade(token.activation, most)]
                title={ (visible_token(&token.text)) " " (format!("{:.3}", token.activation)) } { (visible_context(&token.text)) }
        }
    }
}

/// A token of the vocabulary and what a feature's decoder row writes to its logit.
#[derive(Clone, Debug, PartialEq)]
pub struct LensToken {
    /// The token's text.
    pub text: String,
    /// The contribution to its logit, per unit of activation.
    pub logit: f32,
}

/// What one feature promotes and suppresses.
#[derive(Clone, Debug, PartialEq)]
pub struct LensRow {
    /// The feature's number in the SAE.
    pub feature: u32,
    /// The tokens whose logits it raises most, highest first.
    pub top: Vec<LensToken>,
    /// The tokens whose logits it lowers most, lowest first; may be empty.
    pub bottom: Vec<LensToken>,
}

/// The logit lens as a table: a row per feature, the tokens that it promotes and, if any row has them, those that it
/// suppresses, shaded by their logits on one scale for the table.
pub fn lens_table(rows: &[LensRow]) -> Markup {
    let most = rows.iter().flat_map(|r| r.top.iter().chain(&r.bottom)).map(|t| t.logit.abs()).fold(0.0, f32::max);
    let with_bottom = rows.iter().any(|r| !r.bottom.is_empty());
    let token_strip = |tokens: &[LensToken]| {
        html! {
            @for token in tokens {
                span class="chip" style=[shade(token.logit, most)] title=(format!("{:+.3}", token.logit)) { (visible_token(&token.text)) } " "
            }
        }
    };
    html! {
        div class="scroll tall" {
            table class="lens" {
                thead { tr { th class="number" { "feature" } th { "promotes" } @if with_bottom { th { "suppresses" } } } }
                tbody {
                    @for row in rows {
                        tr {
                            td class="number" { (row.feature) }
                            td { (token_strip(&row.top)) }
                            @if with_bottom { td { (token_strip(&row.bottom)) } }
                        }
                    }
                }
            }
        }
    }
}
