//! One SAE in a forward pass: what it is handed, what it changes, what it hands back.

use crate::capture::SpliceCapture;
use crate::error::{Error, Result};
use crate::feature_edit::FeatureEdit;
use crate::hooked_sae::HookedSae;
use crate::sae_hook_point::{SaeHookPoint, SaeSite};
use candle_core::{DType, Device, Tensor};
use model_hooks::{HookPoint, HookRows, HookSelector, ModelShape, TapContext};
use sae_core::Codes;
use std::collections::BTreeSet;

/// What a closure makes of a value.
type Change<'a, T> = dyn FnMut(&TapContext<'_>, T) -> Result<T> + 'a;

/// A change inside the SAE.
pub(crate) enum Edit<'a> {
    Features(FeatureEdit),
    Codes(Box<Change<'a, Codes>>),
    Tensor(SaeSite, Box<Change<'a, Tensor>>),
}

/// A checked [`HookedSae`] with its edits, and its input while a run is between its two hooks.
pub(crate) struct ActiveSae<'a> {
    pub(crate) sae: HookedSae<'a>,
    from: HookRows,
    to: HookRows,
    /// A transcoder's input, from its input hook to its output hook of one run.
    pending: Option<Tensor>,
    pub(crate) edits: Vec<Edit<'a>>,
    pub(crate) captured: BTreeSet<SaeSite>,
}

impl<'a> ActiveSae<'a> {
    pub(crate) fn check(sae: HookedSae<'a>, shape: &ModelShape) -> Result<Self> {
        let HookedSae { input, output, .. } = sae;
        if output < input {
            return Err(Error::OutputBeforeInput { input, output });
        }
        let from = rows(sae.input(), shape, "d_in", sae.coder.d_in())?;
        let to = rows(sae.output(), shape, "d_out", sae.coder.d_out())?;
        Ok(Self { sae, from, to, pending: None, edits: Vec::new(), captured: BTreeSet::new() })
    }

    pub(crate) fn is_transcoder(&self) -> bool {
        self.sae.input != self.sae.output
    }

    /// Forgets what an earlier run left, if it was broken off.
    pub(crate) fn start_run(&mut self) {
        self.pending = None;
    }

    /// A transcoder's input.
    pub(crate) fn see_input(&mut self, x: &Tensor) -> Result<()> {
        self.pending = Some(self.from.gather(x)?);
        Ok(())
    }

    /// What takes the place of `original` at the output hook.
    ///
    /// ```text
    /// f      = edit(encode(edit(x)))
    /// x_hat  = edit(decode(f))                                       hook_sae_recons; without the skip connection, as in SAELens
    /// error  = edit(original - decode(encode(x)) - skip(x))          with the error term; 0 at excluded tokens
    /// output = edit(x_hat + skip(edit(x)) + error)                   the original at excluded tokens
    /// ```
    pub(crate) fn output(&mut self, cx: &TapContext<'_>, original: Tensor, kept: &mut SpliceCapture) -> Result<Tensor> {
        let hook = self.sae.output;
        if original.track_op() {
            return Err(Error::Gradients { hook });
        }
        let x = match self.is_transcoder() {
            false => self.from.gather(&original)?,
            true => self.pending.take().ok_or(Error::NoInput { input: self.sae.input, output: hook })?,
        };
        let excluded = self.excluded(cx, &original, &x)?;
        let input = self.edit_tensor(SaeSite::Input, cx, x.clone())?;
        self.keep(kept, SaeSite::Input, &input);
        if self.captured.contains(&SaeSite::ActsPre) {
            self.keep(kept, SaeSite::ActsPre, &self.sae.coder.pre_acts(&input)?);
        }
        let codes = self.sae.coder.encode(&input)?;
        let skip = self.skip(&input, &original)?;
        // Reconstruction of the unedited input, for the error term.
        let untouched = match self.sae.error_term {
            true if self.edits(SaeSite::Input) => {
                let decoded = self.decode(&self.sae.coder.encode(&x)?, &original)?;
                Some(plus(decoded, self.skip(&x, &original)?.as_ref())?)
            }
            true if self.edits(SaeSite::ActsPost) || self.edits(SaeSite::Recons) => {
                Some(plus(self.decode(&codes, &original)?, skip.as_ref())?)
            }
            _ => None,
        };
        let codes = self.edit_codes(cx, x.dim(1)?, codes)?;
        if self.captured.contains(&SaeSite::ActsPost) {
            kept.keep_codes(hook, &codes);
        }
        let recons = self.decode(&codes, &original)?;
        let recons = self.edit_tensor(SaeSite::Recons, cx, recons)?;
        self.keep(kept, SaeSite::Recons, &recons);
        let mut output = plus(recons, skip.as_ref())?;
        if self.sae.error_term {
            let untouched = untouched.unwrap_or_else(|| output.clone());
            let error = self.error(cx, &original, &untouched, excluded.as_ref())?;
            self.keep(kept, SaeSite::Error, &error);
            output = (output + self.to.gather(&error)?.to_dtype(DType::F32)?)?;
        }
        let mut output = self.to.scatter(&original, &output)?;
        if let Some(excluded) = excluded {
            output = excluded.broadcast_as(output.shape())?.where_cond(&original, &output)?;
        }
        let output = self.edit_tensor(SaeSite::Output, cx, output)?;
        self.keep(kept, SaeSite::Output, &output);
        Ok(output)
    }

    /// What the SAE misses of the original value, in its shape; zero where it is passed by.
    fn error(
        &mut self,
        cx: &TapContext<'_>,
        original: &Tensor,
        recons: &Tensor,
        excluded: Option<&Tensor>,
    ) -> Result<Tensor> {
        let vectors = self.to.gather(original)?.to_dtype(DType::F32)?;
        let error = self.to.scatter(&original.zeros_like()?, &(vectors - recons)?)?;
        let error = match excluded {
            Some(excluded) => excluded.broadcast_as(error.shape())?.where_cond(&error.zeros_like()?, &error)?,
            None => error,
        };
        self.edit_tensor(SaeSite::Error, cx, error)
    }

    /// Reconstructions as `[batch, pos, d_out]`, whatever the coder makes of the leading axes.
    fn decode(&self, codes: &Codes, original: &Tensor) -> Result<Tensor> {
        let (batch, pos) = (original.dim(0)?, original.dim(1)?);
        Ok(self.sae.coder.decode(codes)?.reshape((batch, pos, self.sae.coder.d_out()))?)
    }

    /// What passes the codes by, as `[batch, pos, d_out]`.
    fn skip(&self, x: &Tensor, original: &Tensor) -> Result<Option<Tensor>> {
        let shape = (original.dim(0)?, original.dim(1)?, self.sae.coder.d_out());
        Ok(self.sae.coder.skip(x)?.map(|skip| skip.reshape(shape)).transpose()?)
    }

    fn edits(&self, site: SaeSite) -> bool {
        self.edits.iter().any(|edit| match edit {
            Edit::Features(_) | Edit::Codes(_) => site == SaeSite::ActsPost,
            Edit::Tensor(at, _) => site == *at,
        })
    }

    fn edit_codes(&mut self, cx: &TapContext<'_>, pos: usize, mut codes: Codes) -> Result<Codes> {
        let hook = self.sae.output;
        for edit in &mut self.edits {
            match edit {
                Edit::Features(edit) => codes.features = edit.apply(hook, cx, pos, &codes.features)?,
                Edit::Codes(f) => {
                    let form = |c: &Codes| format!("[{:?}, {}]", c.layout.leading(), c.features.d_sae());
                    let (expected, rows) = (form(&codes), codes.features.rows());
                    codes = f(cx, codes)?;
                    if form(&codes) != expected || codes.features.rows() != rows {
                        let point = SaeHookPoint::new(hook, SaeSite::ActsPost);
                        return Err(Error::EditChangedShape { point, expected, found: form(&codes) });
                    }
                }
                Edit::Tensor(..) => {}
            }
        }
        Ok(codes)
    }

    fn edit_tensor(&mut self, site: SaeSite, cx: &TapContext<'_>, mut x: Tensor) -> Result<Tensor> {
        for edit in &mut self.edits {
            let Edit::Tensor(at, f) = edit else { continue };
            if *at == site {
                let (shape, dtype) = (x.shape().clone(), x.dtype());
                x = f(cx, x)?;
                if *x.shape() != shape || x.dtype() != dtype {
                    let (expected, found) =
                        (format!("{shape:?} of {dtype:?}"), format!("{:?} of {:?}", x.shape(), x.dtype()));
                    let point = SaeHookPoint::new(self.sae.output, site);
                    return Err(Error::EditChangedShape { point, expected, found });
                }
            }
        }
        Ok(x)
    }

    fn keep(&self, kept: &mut SpliceCapture, site: SaeSite, x: &Tensor) {
        if self.captured.contains(&site) {
            kept.keep(SaeHookPoint::new(self.sae.output, site), x.clone());
        }
    }

    /// `[batch, pos, 1 ..]`, 1 where the token is one of the excluded.
    fn excluded(&self, cx: &TapContext<'_>, original: &Tensor, x: &Tensor) -> Result<Option<Tensor>> {
        let tokens = cx.tokens;
        let (&[batch, pos, ref rest @ ..], hook) = (original.dims(), self.sae.output) else {
            return Err(shape_error(self.sae.output, cx, original));
        };
        if (batch, pos) != (tokens.batch(), tokens.pos()) {
            return Err(shape_error(hook, cx, original));
        }
        let filter = &self.sae.filter;
        if filter.is_everything() {
            return Ok(None);
        }
        // Only where a norm decides are the vectors read.
        let x =
            if filter.reads_norms() { x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()? } else { Vec::new() };
        let width = x.len() / (batch * pos).max(1);
        let mut mask = vec![0u8; batch * pos];
        for row in 0..batch {
            for column in tokens.token_range(row) {
                let i = row * pos + column;
                let position = cx.position(row, column);
                let excluded = self.sae.excludes(position, tokens.ids()[i], &x[i * width..(i + 1) * width]);
                mask[i] = u8::from(excluded);
            }
        }
        let mut shape = vec![batch, pos];
        shape.resize(2 + rest.len(), 1);
        Ok(Some(Tensor::from_vec(mask, shape, &Device::Cpu)?.to_device(original.device())?))
    }
}

/// The rows at a hook point that a coder of this width fits.
fn rows(at: HookSelector, shape: &ModelShape, side: &'static str, found: usize) -> Result<HookRows> {
    let hook = at.point;
    // `hook_scale` is one number per position, not a vector.
    if hook.axes().last() == Some(&"1") {
        return Err(Error::NotVectors { hook });
    }
    let rows = HookRows::resolve(at, shape).map_err(|error| match error {
        model_hooks::Error::NotRows { point } => Error::NotVectors { hook: point },
        model_hooks::Error::NoSuchHead { point, head, heads } => Error::NoSuchHead { hook: point, head, heads },
        error => Error::from(error),
    })?;
    let expected = rows.width();
    if found == expected {
        return Ok(rows);
    }
    let all = HookRows::resolve(hook, shape)?;
    let hint = match at.head {
        None if Some(found) == rows.head_width() => " over all heads; name one with `HookedSae::head`",
        Some(_) if found == all.width() => " in one head; this SAE takes all of them",
        _ => "",
    };
    Err(Error::Width { hook, side, expected, found, hint })
}

fn plus(x: Tensor, skip: Option<&Tensor>) -> Result<Tensor> {
    skip.map_or(Ok(x.clone()), |skip| Ok((x + skip)?))
}

fn shape_error(hook: HookPoint, cx: &TapContext<'_>, found: &Tensor) -> Error {
    let expected = format!("[{}, {}, ..] as the tokens", cx.tokens.batch(), cx.tokens.pos());
    Error::Shape { hook, expected, found: found.dims().to_vec() }
}
