//! Gradients of a scalar of the logits with respect to the values at hook points.

use crate::{Error, HookPoint, HookedModel, Interest, NoTap, Result, Start, Tap, TapContext, TokenBatch};
use candle_core::{D, Tensor, Var};
use std::collections::BTreeMap;
use tensor_kernels::Engine;

/// Result of [`gradients`]: at each point the value, and the gradient of the scalar with respect to it.
#[derive(Clone, Debug)]
pub struct Gradients {
    scalar: f64,
    found: BTreeMap<HookPoint, (Tensor, Tensor)>,
}

impl Gradients {
    /// The scalar.
    #[must_use]
    pub fn scalar(&self) -> f64 {
        self.scalar
    }

    /// The value at a point, of the point's shape.
    ///
    /// # Errors
    /// [`Error::NotCaptured`] when the point was not asked for.
    pub fn value(&self, point: HookPoint) -> Result<&Tensor> {
        self.at(point).map(|(value, _)| value)
    }

    /// `d scalar / d value`, of the point's shape.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn gradient(&self, point: HookPoint) -> Result<&Tensor> {
        self.at(point).map(|(_, gradient)| gradient)
    }

    /// Activation times gradient, summed over the last axis: the first-order estimate of what the scalar loses when the vector there
    /// is set to zero. `[batch, pos]` for values of the stream, `[batch, pos, head]` for `hook_z`, `hook_result` ...; entries that are not
    /// finite (masked scores) count as 0.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn attribution(&self, point: HookPoint) -> Result<Tensor> {
        let (value, gradient) = self.at(point)?;
        products(value, gradient)
    }

    /// Attribution patching: `(other - value) gradient`, summed over the last axis: the first-order estimate of what the scalar gains when
    /// the value at the point is replaced by `other`, the same point in another run.
    ///
    /// # Errors
    /// As [`value`](Self::value); [`Error::Shape`] where `other` has another shape.
    pub fn attribution_toward(&self, point: HookPoint, other: &Tensor) -> Result<Tensor> {
        let (value, gradient) = self.at(point)?;
        if other.shape() != value.shape() {
            let expected = format!("{:?}, that of the value at `{point}`", value.dims());
            return Err(Error::Shape { what: "the other run's value", expected, found: other.dims().to_vec() });
        }
        products(&(other - value)?, gradient)
    }

    /// All points with value and gradient, in execution order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (HookPoint, &Tensor, &Tensor)> {
        self.found.iter().map(|(point, (value, gradient))| (*point, value, gradient))
    }

    fn at(&self, point: HookPoint) -> Result<&(Tensor, Tensor)> {
        self.found.get(&point).ok_or_else(|| {
            let held: Vec<String> = self.found.keys().take(8).map(ToString::to_string).collect();
            Error::NotCaptured { point, held: held.join(", ") }
        })
    }
}

/// `sum x g` over the last axis; `x` that is not finite counts as 0.
fn products(x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    // Zero times NaN or an infinity is NaN.
    let finite = (x * 0.0)?.eq(0f32)?;
    let x = finite.where_cond(x, &x.zeros_like()?)?;
    Ok((x * gradient)?.sum(D::Minus1)?)
}

/// The gradient of `scalar(logits)` with respect to the value at each of `points`, in one forward and one backward pass.
///
/// Points may lie before and behind each other: each gradient is that of the value with all that follows from it. The model must be
/// computed by the reference ([`Engine::Reference`]); the kernels have no gradients. Values that exist only when tapped
/// (`hook_result`, the inputs of single heads) are made as if they were edited; a point inside `ln1` cannot stand beside an input of
/// single heads of the same layer ([`Error::SplitNorm`]).
///
/// Memory: every activation from the first of the points to the logits is kept until the backward pass is through, several times
/// over in attention (`[batch, head, pos, pos]`) and in the MLP; gradients of weights are not computed. To shorten it, start later
/// ([`gradients_from`]).
///
/// ```no_run
/// # fn demo(model: &dyn model_hooks::HookedModel, tokens: &model_hooks::TokenBatch) -> model_hooks::Result<()> {
/// use candle_core::IndexOp;
/// use model_hooks::gradients;
/// let z = "blocks.4.attn.hook_z".parse()?;
/// let last = tokens.pos() - 1;
/// // The logit of token 11 over that of token 7, at the last position of row 0.
/// let found = gradients(model, tokens, &[z], |logits| Ok((logits.i((0, last, 11))? - logits.i((0, last, 7))?)?))?;
/// let by_head = found.attribution(z)?; // [batch, pos, head]
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::NoGradients`] from a model that the kernels compute, [`Error::Shape`] where `scalar` returns more than one number,
/// [`Error::UntrackedScalar`] where it does not depend on the logits, and the errors of the run.
pub fn gradients(
    model: &dyn HookedModel,
    tokens: &TokenBatch,
    points: &[HookPoint],
    scalar: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Gradients> {
    gradients_from(model, tokens, Start::Tokens, points, &mut NoTap, scalar)
}

/// As [`gradients`], of a run that starts at `start` and has `tap` attached. At a point that `tap` edits, value and gradient are those of
/// what the edit returned; where an edit replaces all that comes of a point, that point's gradient is zero.
///
/// # Errors
/// As [`gradients`].
pub fn gradients_from(
    model: &dyn HookedModel,
    tokens: &TokenBatch,
    start: Start<'_>,
    points: &[HookPoint],
    tap: &mut dyn Tap,
    scalar: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Gradients> {
    if let engine @ Engine::Kernels(_) = model.engine() {
        return Err(Error::NoGradients { what: "a gradient at hook points", engine });
    }
    let mut taps = (tap, Leaves { points: points.to_vec(), made: BTreeMap::new() });
    let logits = model.run(tokens, start, None, &mut taps)?.ok_or(Error::NoLogits)?;
    let y = scalar(&logits)?;
    if y.elem_count() != 1 {
        let expected = "one number".into();
        return Err(Error::Shape { what: "the scalar of the logits", expected, found: y.dims().to_vec() });
    }
    // Logits that track nothing are those of a run whose edits have replaced all that came of the points.
    if logits.track_op() && !y.track_op() {
        return Err(Error::UntrackedScalar);
    }
    drop(logits);
    let mut store = y.backward()?;
    let mut found = BTreeMap::new();
    for (point, (value, leaf)) in taps.1.made {
        let gradient = match store.remove(leaf.as_tensor()) {
            Some(gradient) => gradient,
            None => value.zeros_like()?,
        };
        found.insert(point, (value, gradient));
    }
    let scalar = y.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>()?[0];
    Ok(Gradients { scalar, found })
}

/// Adds a zero to the value at each point, whose gradient is that of the value.
struct Leaves {
    points: Vec<HookPoint>,
    made: BTreeMap<HookPoint, (Tensor, Var)>,
}

impl Tap for Leaves {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(self.points.iter().map(|&point| (point, Interest::Edit)).collect())
    }

    fn watch(&mut self, _: &TapContext<'_>, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        let leaf = Var::zeros(x.shape(), x.dtype(), x.device())?;
        let y = (&x + leaf.as_tensor())?;
        self.made.insert(cx.at, (x.detach(), leaf));
        Ok(y)
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        Ok(self.points.contains(&cx.at).then_some(Interest::Edit))
    }
}
