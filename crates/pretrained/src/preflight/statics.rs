//! What needs no forward pass.

use super::reason::{Check, Finding, Severity};
use super::{PreflightOptions, PreflightSae, names, stats};
use model_hooks::{HookPoint, HookRows, HookSelector, LanguageModel, Precision, ProcessingSteps, Site, TokenBatch};
use sae_core::{SaeMetadata, SeqposSlice, SparseCoder};

/// What to read, where everything needed for it is there.
pub(super) struct Place {
    pub read: HookRows,
    /// What the reconstruction is held against: of a transcoder another point.
    pub target: HookRows,
    pub positions: Option<SeqposSlice>,
    /// Whether the value is made of what blocks write, of a model whose norms remove the mean: where centering shows.
    pub centrable: bool,
    /// What the metadata say of `center_writing_weights`.
    pub centered: Option<bool>,
}

impl Place {
    pub(super) fn is_transcoder(&self) -> bool {
        self.read.point() != self.target.point()
    }
}

/// All static checks; no place when there is nothing to measure.
pub(super) fn check(
    model: &LanguageModel,
    subject: &PreflightSae<'_>,
    tokens: &TokenBatch,
    options: &PreflightOptions,
) -> (Vec<Finding>, Option<Place>) {
    let metadata = subject.metadata();
    let mut out = Vec::new();
    out.extend(model_name(model, &metadata, options));
    out.extend(vocabulary(model, tokens));
    out.extend(bos(model, &metadata, tokens, options));
    out.extend(context(model, &metadata, tokens));
    out.extend(positions(&metadata, tokens));
    out.extend(precision(model, subject));
    out.extend(alignment(subject, options));
    let place = match place(model, subject, &metadata, options) {
        Ok(place) => place,
        Err(reason) => {
            out.push(reason);
            return (out, None);
        }
    };
    out.extend(processing(model, &place, &metadata));
    let blocked = [Check::Vocabulary, Check::Positions];
    let runs = !out.iter().any(|r| r.level == Severity::Fail && blocked.contains(&r.check))
        && tokens.pos() <= model.shape().n_ctx;
    (out, runs.then_some(place))
}

fn model_name(model: &LanguageModel, metadata: &SaeMetadata, options: &PreflightOptions) -> Option<Finding> {
    let named = metadata.model_name.as_deref()?;
    let known = options.aliases.iter().any(|alias| names::same(alias, named));
    (!known && !names::same(named, model.name())).then(|| {
        Finding::new(
            Severity::Warn,
            Check::ModelName,
            format!("`{named}`"),
            format!("the model is called `{}`", model.name()),
            format!("Load `{named}`, or, if this is that model under another name, say so (`aliases`)."),
        )
    })
}

fn place(
    model: &LanguageModel,
    subject: &PreflightSae<'_>,
    metadata: &SaeMetadata,
    options: &PreflightOptions,
) -> Result<Place, Finding> {
    let Some(name) = options.hook.as_deref().or(metadata.hook_name.as_deref()) else {
        let change = "Say which hook point the SAE was trained on (`PreflightOptions::hook`).";
        return Err(Finding::new(Severity::Fail, Check::Hook, "a hook point", "the metadata name none", change));
    };
    let read = find(model, name, Check::Hook)?;
    if subject.coder().is_transcoder() && metadata.hook_name_out.is_none() {
        let change = "Say which hook point the transcoder writes (`hook_name_out` of its metadata).";
        return Err(Finding::new(
            Severity::Fail,
            Check::OutputHook,
            "an output hook point",
            "the metadata name none",
            change,
        ));
    }
    let target = match metadata.hook_name_out.as_deref() {
        Some(out) => find(model, out, Check::OutputHook)?,
        None => read,
    };
    let at = HookSelector { point: read, head: metadata.hook_head_index };
    let read_rows = width(model, at, subject.coder().d_in(), "d_in")?;
    let at = if target == read { at } else { target.into() };
    let target = width(model, at, subject.coder().d_out(), "d_out")?;
    let centers = model.hooked().final_norm().ok().flatten().is_none_or(|norm| norm.centers);
    let kwargs = &metadata.model_from_pretrained_kwargs;
    Ok(Place {
        read: read_rows,
        target,
        positions: metadata.seqpos_slice,
        centrable: centers && is_written(read),
        centered: kwargs.get("center_writing_weights").and_then(serde_json::Value::as_bool),
    })
}

/// Whether the value is a sum of what is written to the residual stream.
pub(super) fn is_written(point: HookPoint) -> bool {
    use Site::{AttnIn, AttnOut, MlpIn, MlpOut, ResidMid, ResidPost, ResidPre};
    match point {
        HookPoint::Embed | HookPoint::PosEmbed => true,
        _ => point.site().is_some_and(|s| [ResidPre, ResidMid, ResidPost, AttnOut, MlpOut, AttnIn, MlpIn].contains(&s)),
    }
}

fn find(model: &LanguageModel, name: &str, check: Check) -> Result<HookPoint, Finding> {
    let points = model.hooked().hook_points();
    let (found, nearest) = match model.hooked().hook_point(name) {
        Ok(point) => return Ok(point),
        Err(model_hooks::Error::UnknownHookPoint { point, .. }) => {
            let layers = model.shape().n_layers;
            let same = points.iter().rev().find(|p| p.site().is_some() && p.site() == point.site());
            let other = same.map(|p| format!("`{p}` is the last of its kind"));
            (format!("`{name}` is none of this model of {layers} layers"), other.into_iter().collect())
        }
        Err(model_hooks::Error::UnknownHookName { nearest, .. }) => {
            (format!("`{name}` is no hook point"), nearest.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>())
        }
        Err(error) => (error.to_string(), Vec::new()),
    };
    let near = if nearest.is_empty() { String::new() } else { format!(" (near: {})", nearest.join(", ")) };
    let change = format!("Load the model that the SAE was trained on, or name one of the model's hook points{near}.");
    Err(Finding::new(Severity::Fail, check, "one of the model's hook points", found, change))
}

/// The rows at a hook point, where a side of the SAE is as wide as they are.
fn width(model: &LanguageModel, at: HookSelector, expected: usize, side: &str) -> Result<HookRows, Finding> {
    let HookSelector { point, head } = at;
    let rows = match HookRows::resolve(at, model.shape()) {
        Ok(rows) => rows,
        Err(model_hooks::Error::NoSuchHead { head, heads, .. }) => {
            let expected = if heads > 0 { format!("a head below {heads}") } else { "no single head".into() };
            let found = format!("head {head} of `{point}`");
            let change = "Load the model that the SAE was trained on: `hook_head_index` is none of this one's heads.";
            return Err(Finding::new(Severity::Fail, Check::Head, expected, found, change));
        }
        Err(_) => {
            let change = "Use a hook point that has one vector for each position.";
            let found = format!("`{point}` has axes {:?}", point.axes());
            return Err(Finding::new(Severity::Fail, Check::Hook, "a vector for each position", found, change));
        }
    };
    let found = rows.width();
    if found == expected {
        return Ok(rows);
    }
    let change = match (head, rows.head_width() == Some(expected)) {
        (None, true) => "The SAE is of one head: set `hook_head_index` in its metadata.".to_owned(),
        _ => format!("Load a model in which `{point}` is {expected} wide, or the SAE of this model."),
    };
    let found = format!("`{point}` of `{}` is {found} wide", model.name());
    Err(Finding::new(Severity::Fail, Check::Width, format!("{side} = {expected}"), found, change))
}

/// Steps that change the value at the point, where the metadata say them and the model was loaded otherwise.
fn processing(model: &LanguageModel, place: &Place, metadata: &SaeMetadata) -> Option<Finding> {
    let ProcessingSteps { center_writing_weights, fold_value_biases, .. } = model.processing();
    let said = |key: &str| metadata.model_from_pretrained_kwargs.get(key).and_then(serde_json::Value::as_bool);
    let value = matches!(place.read.point().site(), Some(Site::Z | Site::V | Site::Result));
    let (key, wanted, is) = match (place.centrable, value) {
        (true, _) => ("center_writing_weights", place.centered?, center_writing_weights),
        (_, true) => ("fold_value_biases", said("fold_value_biases")?, fold_value_biases),
        _ => return None,
    };
    (wanted != is).then(|| {
        Finding::new(
            Severity::Warn,
            Check::Processing,
            format!("{key} = {wanted}"),
            format!("the model was loaded with {key} = {is}"),
            format!("Load the model with `ProcessingSteps::{key} = {wanted}`."),
        )
    })
}

fn precision(model: &LanguageModel, subject: &PreflightSae<'_>) -> Option<Finding> {
    let precision = model.engine().arithmetic()?.precision();
    (precision == Precision::Bf16 && subject.has_thresholds()).then(|| {
        let change = "Run the model in f32 or f32fast: near a threshold bf16 decides whether a feature fires.";
        Finding::new(Severity::Warn, Check::Precision, "f32 for a JumpReLU", "the model runs in bf16", change)
    })
}

fn vocabulary(model: &LanguageModel, tokens: &TokenBatch) -> Option<Finding> {
    let d_vocab = model.shape().d_vocab;
    let real =
        (0..tokens.batch()).flat_map(|row| tokens.token_range(row).map(move |column| row * tokens.pos() + column));
    let outside = real.map(|i| tokens.ids()[i]).find(|&id| id as usize >= d_vocab)?;
    let change = "Tokenize the text with this model's tokenizer.";
    let expected = format!("ids below d_vocab = {d_vocab}");
    Some(Finding::new(Severity::Fail, Check::Vocabulary, expected, format!("id {outside}"), change))
}

fn bos(
    model: &LanguageModel,
    metadata: &SaeMetadata,
    tokens: &TokenBatch,
    options: &PreflightOptions,
) -> Option<Finding> {
    let wanted = metadata.prepend_bos?;
    let bos = options.bos.or_else(|| model.tokenizer().and_then(model_hooks::Tokenizer::bos))?;
    let rows: Vec<&[u32]> = tokens.rows().enumerate().map(|(row, ids)| &ids[tokens.token_range(row)]).collect();
    let first = rows.iter().filter(|row| row.first() == Some(&bos)).count();
    let twice = rows.iter().filter(|row| row.starts_with(&[bos, bos])).count();
    let say = |level, expected: &str, change: &str| {
        let found = format!("{first} of {} rows begin with BOS (id {bos})", rows.len());
        Some(Finding::new(level, Check::Bos, expected, found, change))
    };
    match (wanted, first, twice) {
        (true, 0, _) => {
            say(Severity::Fail, "BOS in front of every row", "Prepend BOS: it was there in training (`prepend_bos`).")
        }
        (true, some, _) if some < rows.len() => {
            say(Severity::Warn, "BOS in front of every row", "Prepend BOS to every row (`prepend_bos`).")
        }
        // One row may begin with the separator of two documents.
        (false, some, _) if some * 2 > rows.len() => {
            say(Severity::Warn, "rows without BOS", "Leave BOS out: the SAE was trained without it (`prepend_bos`).")
        }
        (_, _, twice) if twice * 2 > rows.len() => {
            let found = format!("{twice} of {} rows begin with two BOS", rows.len());
            let change = "Prepend BOS once: the tokenizer and the caller both did.";
            Some(Finding::new(Severity::Warn, Check::Bos, "one BOS in front of a row", found, change))
        }
        _ => None,
    }
}

fn context(model: &LanguageModel, metadata: &SaeMetadata, tokens: &TokenBatch) -> Option<Finding> {
    let (n_ctx, pos) = (model.shape().n_ctx, tokens.pos());
    if pos > n_ctx {
        let change = format!("Cut rows to {n_ctx} tokens.");
        let expected = format!("at most n_ctx = {n_ctx} tokens in a row");
        return Some(Finding::new(Severity::Fail, Check::Context, expected, format!("{pos}"), change));
    }
    let trained = metadata.context_size?;
    let (level, change) = if pos > trained {
        let change = format!("Cut rows to {trained} tokens: later positions were never trained on.");
        (Severity::Warn, change)
    } else if 2 * pos < trained {
        (
            Severity::Warn,
            format!("Use rows of {trained} tokens: early positions are a small part of what was trained on."),
        )
    } else if pos < trained {
        (Severity::Note, "Rows of the trained length show what the release measured.".to_owned())
    } else {
        return None;
    };
    Some(Finding::new(level, Check::Context, format!("rows of {trained} tokens"), format!("rows of {pos}"), change))
}

fn positions(metadata: &SaeMetadata, tokens: &TokenBatch) -> Option<Finding> {
    let slice = metadata.seqpos_slice.filter(|slice| *slice != SeqposSlice::default())?;
    let kept = kept_positions(slice, tokens.pos()).into_iter().filter(|kept| *kept).count();
    let found = format!("{kept} of {} positions are left", tokens.pos());
    let expected = format!("positions {}", words(slice));
    Some(if kept == 0 {
        let change = "Use longer rows: the SAE was trained on later positions (`seqpos_slice`).";
        Finding::new(Severity::Fail, Check::Positions, expected, found, change)
    } else {
        let change = "Read the SAE at these positions only; the measures here do.";
        Finding::new(Severity::Note, Check::Positions, expected, found, change)
    })
}

fn words(slice: SeqposSlice) -> String {
    let end = |end: Option<i64>| end.map_or(String::new(), |end| end.to_string());
    let step = slice.step.map_or(String::new(), |step| format!(":{step}"));
    format!("{}:{}{step}", end(slice.start), end(slice.stop))
}

/// Python's `[start:stop:step]` over columns; a step that is no step keeps nothing.
pub(super) fn kept_positions(slice: SeqposSlice, len: usize) -> Vec<bool> {
    let end = len as i64;
    let index = |i: i64| if i < 0 { i.saturating_add(end).max(0) } else { i.min(end) };
    let (start, stop) = (index(slice.start.unwrap_or(0)), index(slice.stop.unwrap_or(end)));
    let step = slice.step.unwrap_or(1);
    (0..end).map(|i| step > 0 && i >= start && i < stop && (i - start) % step == 0).collect()
}

/// Encoders larger than this are not unpacked for a check.
const ALIGNED_AT_MOST: usize = 1 << 26;
/// Features that are looked at.
const ALIGNED: usize = 1024;

/// The mean cosine of encoder columns and decoder rows. Of transcoders, which write elsewhere, there is none.
fn alignment(subject: &PreflightSae<'_>, options: &PreflightOptions) -> Option<Finding> {
    let sae = subject.sae()?;
    let metadata = sae.metadata();
    let elsewhere =
        sae.is_transcoder() || metadata.hook_name_out.is_some() && metadata.hook_name_out != metadata.hook_name;
    let (d_in, d_sae) = (sae.d_in(), sae.d_sae());
    if elsewhere || sae.d_out() != d_in || d_in * d_sae > ALIGNED_AT_MOST {
        return None;
    }
    let encoder: Vec<f32> = sae.w_enc_t().ok()?.flatten_all().ok()?.to_vec1().ok()?;
    let decoder: Vec<f32> = sae.w_dec().flatten_all().ok()?.to_vec1().ok()?;
    let pairs = encoder.chunks_exact(d_in).zip(decoder.chunks_exact(d_in)).step_by(d_sae.div_ceil(ALIGNED));
    let cosines: Vec<f64> = pairs.map(|(e, d)| stats::cosine(e, d)).collect();
    let mean = cosines.iter().sum::<f64>() / cosines.len().max(1) as f64;
    let limit = options.thresholds.alignment;
    (mean < limit).then(|| {
        let change = "Load the weights again: decoder rows do not belong to encoder columns (permuted, transposed, of \
                      another file, or a transcoder taken for an SAE).";
        let found = format!("mean cosine {mean:.3}");
        Finding::new(
            Severity::Fail,
            Check::DecoderAlignment,
            format!("a mean cosine of at least {limit}"),
            found,
            change,
        )
    })
}
