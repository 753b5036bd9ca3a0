//! Does this SAE belong to this model, processed like this, on these tokens? Asked before a day is spent on the answer.
//!
//! [`preflight_static`] reads names, shapes and tokens alone. [`preflight`] does that first, and then, unless something is missing altogether,
//! looks at what the SAE makes of the model's activations on a bounded sample. Each finding is a [`Finding`]: what was checked, what was
//! expected, what was found, and what to change. The limits are [`Thresholds`], with the source of each.
//!
//! ```no_run
//! use pretrained::preflight::{PreflightOptions, preflight};
//! # fn demo(model: &model_hooks::LanguageModel, tokens: &model_hooks::TokenBatch) -> Result<(), Box<dyn std::error::Error>> {
//! let sae = sae_core::Sae::load("path/to/sae")?;
//! let verdict = preflight(model, &sae, tokens, &PreflightOptions::default())?;
//! println!("{verdict}");
//! if verdict.is_fail() {
//!     return Err("that SAE was trained for something else".into());
//! }
//! # Ok(()) }
//! ```
//!
//! # What is left out of the measures
//! The first token of a row, on which many models put a norm a hundred times the others'; special tokens ([`PreflightOptions::filter`]); positions outside the SAE's
//! `seqpos_slice`; padding; and every token whose norm is more than ten times the median. [`Measurements`] says how many of each.

mod error;
mod judge;
mod loss;
mod measure;
mod names;
mod options;
mod reason;
mod remedies;
mod sample;
mod statics;
mod stats;
mod subject;
mod thresholds;
mod verdict;

pub use error::{Error, Result};
pub use measure::Measurements;
pub use options::{Expected, PreflightOptions};
pub use reason::{Check, Finding, Severity};
pub use subject::PreflightSae;
pub use thresholds::{Threshold, Thresholds};
pub use verdict::PreflightReport;

use model_hooks::{LanguageModel, TokenBatch};
use std::time::Instant;

/// Checks what needs no forward pass: model name, hook point, head, widths, processing, precision, BOS, context size, positions,
/// vocabulary, decoder against encoder. Takes milliseconds.
#[must_use]
pub fn preflight_static<'a>(
    model: &LanguageModel,
    coder: impl Into<PreflightSae<'a>>,
    tokens: &TokenBatch,
    options: &PreflightOptions,
) -> PreflightReport {
    let started = Instant::now();
    let (reasons, _) = statics::check(model, &coder.into(), tokens, options);
    PreflightReport::new(reasons, None, started.elapsed())
}

/// Checks an SAE, a model and the tokens that are to be run, on at most [`PreflightOptions::tokens`] of them.
///
/// Where the static checks find that there is nothing to measure (no such hook point, another width), their verdict is the answer.
///
/// # Errors
/// The model's and the SAE's own, where they are not findings of a check themselves.
pub fn preflight<'a>(
    model: &LanguageModel,
    coder: impl Into<PreflightSae<'a>>,
    tokens: &TokenBatch,
    options: &PreflightOptions,
) -> Result<PreflightReport> {
    let started = Instant::now();
    let subject = coder.into();
    let (mut reasons, place) = statics::check(model, &subject, tokens, options);
    let Some(place) = place else { return Ok(PreflightReport::new(reasons, None, started.elapsed())) };
    let widths = (subject.coder().d_in(), subject.coder().d_out());
    let sample = sample::take(model, &place, tokens, widths, options)?;
    // An SAE whose norm factor is missing computes nothing. Measure it with a factor of 1: the other checks still apply.
    let unscaled = subject.unscaled()?;
    let measured_subject = unscaled.as_ref().map_or(subject, PreflightSae::from);
    let measured = match measure::measure(model, &measured_subject, &sample, options)? {
        Ok(measured) => measured,
        Err(reason) => {
            reasons.push(reason);
            return Ok(PreflightReport::new(reasons, None, started.elapsed()));
        }
    };
    judge::judge(&subject, &place, &measured, options, &mut reasons);
    if options.remedies && !place.is_transcoder() {
        reasons.extend(remedies::look(model, &measured_subject, &place, &sample, &measured, options)?);
    }
    judge::downgrade_name_mismatch(&measured, options, &mut reasons);
    Ok(PreflightReport::new(reasons, Some(measured), started.elapsed()))
}
