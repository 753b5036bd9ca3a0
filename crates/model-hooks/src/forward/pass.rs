//! The bookkeeping of one forward pass: which points are tapped, where it starts, where it stops.
//!
//! A model's forward is written as equations that call [`ForwardPass::tap`] at each point; everything else is here.

use crate::forward::positions::Positions;
use crate::hook::known_to;
use crate::tap::guarded_edit;
use crate::{Error, HookPoint, Interest, KvCache, Result, Site, Tap, TapContext, TokenBatch};
use candle_core::Tensor;
use std::collections::HashMap;
use tensor_kernels::KeyValuePanels;

/// Why a forward pass ended before its logits. `?` on [`ForwardPass::tap`] carries it out of the equations, so that nothing after the
/// last wanted point is computed.
#[derive(Debug)]
pub enum Halt {
    /// The last wanted point has fired.
    Stop,
    /// Something went wrong.
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

impl From<candle_core::Error> for Halt {
    fn from(e: candle_core::Error) -> Self {
        Self::Failed(e.into())
    }
}

impl From<tensor_kernels::Error> for Halt {
    fn from(e: tensor_kernels::Error) -> Self {
        Self::Failed(e.into())
    }
}

/// Result of the equations of a forward pass.
pub type PassResult<T> = std::result::Result<T, Halt>;

/// A value that taps can see and replace: candle's tensors, and what this crate's models hold while the kernels compute.
pub trait TapValue: Sized {
    /// The value as a tensor for taps to see.
    ///
    /// # Errors
    /// The tensor library's or the kernels'.
    fn to_tensor(&self) -> Result<Tensor>;

    /// The value with which the equations continue after an edit returned `edited`, of the same shape and type.
    ///
    /// # Errors
    /// [`Error::NoGradients`] where gradients are tracked through `edited` but not through the equations.
    fn replaced_by(self, edited: Tensor) -> Result<Self>;
}

impl TapValue for Tensor {
    fn to_tensor(&self) -> Result<Tensor> {
        Ok(self.clone())
    }

    fn replaced_by(self, edited: Tensor) -> Result<Self> {
        Ok(edited)
    }
}

/// A checked plan of one forward pass, seen from the model's equations.
///
/// A user's own model implements [`HookedModel::run`](crate::HookedModel::run) with it:
///
/// ```
/// use candle_core::Tensor;
/// use model_hooks::{HookPoint, Result, ForwardPass, Tap, TokenBatch};
///
/// fn run(points: &[HookPoint], tokens: &TokenBatch, last: Option<HookPoint>, tap: &mut dyn Tap) -> Result<Option<Tensor>> {
///     ForwardPass::plan(points, tokens, None, last, tap)?.through(|at| {
///         let embed = tokens.to_tensor(&candle_core::Device::Cpu)?.unsqueeze(2)?;
///         let embed = at.tap(HookPoint::Embed, embed)?; // watched or edited here; stops here if this is the last point
///         let logits = (embed * 2.0)?;
///         at.tap(HookPoint::Logits, logits)
///     })
/// }
/// ```
pub struct ForwardPass<'a> {
    reached: Vec<HookPoint>,
    tokens: &'a TokenBatch,
    tap: &'a mut dyn Tap,
    interests: HashMap<HookPoint, Interest>,
    last: Option<HookPoint>,
    columns: Positions,
    /// Cache with the keys and values of earlier columns, to which this run appends.
    cache: Option<&'a mut KvCache>,
    /// Whether the logits of the last column are all that is wanted of them.
    last_alone: bool,
}

impl<'a> ForwardPass<'a> {
    /// Checks, before anything runs, that the model has every point that is wanted, and that none lies before `start` or after
    /// `last`. `model` is the model's points in execution order; `start` is the first that will fire (`None`: the first of all).
    ///
    /// # Errors
    /// [`Error::UnknownHookPoint`], [`Error::PointBeforeStart`], [`Error::PointAfterLast`], and the tap's own.
    pub fn plan(
        model: &[HookPoint],
        tokens: &'a TokenBatch,
        start: Option<HookPoint>,
        last: Option<HookPoint>,
        tap: &'a mut dyn Tap,
    ) -> Result<Self> {
        let within = |point: HookPoint| {
            known_to(model, point)?;
            match start {
                Some(start) if point < start => Err(Error::PointBeforeStart { point, start }),
                _ => Ok(()),
            }
        };
        last.map_or(Ok(()), within)?;
        let reached = |point: &&HookPoint| start.is_none_or(|s| **point >= s) && last.is_none_or(|l| **point <= l);
        let reached: Vec<HookPoint> = model.iter().filter(reached).copied().collect();
        let mut interests = HashMap::new();
        for (point, interest) in tap.points(&reached)? {
            within(point)?;
            if let Some(last) = last.filter(|last| point > *last) {
                return Err(Error::PointAfterLast { point, last });
            }
            let most = interests.entry(point).or_insert(interest);
            *most = interest.max(*most);
        }
        Ok(Self {
            reached,
            tokens,
            tap,
            interests,
            last,
            columns: Positions::of(tokens),
            cache: None,
            last_alone: false,
        })
    }

    /// The same with these columns behind those that a cache holds.
    pub(crate) fn caching(self, columns: Positions, cache: &'a mut KvCache, last_alone: bool) -> Self {
        Self { columns, cache: Some(cache), last_alone, ..self }
    }

    /// Whether only the last column's logits are wanted, but for taps.
    pub(crate) fn last_alone(&self) -> bool {
        self.last_alone
    }

    /// Runs the equations. `None` when they stopped at the last wanted point.
    ///
    /// # Errors
    /// Whatever the equations or the taps fail with.
    pub fn through(mut self, equations: impl FnOnce(&mut Self) -> PassResult<Tensor>) -> Result<Option<Tensor>> {
        match equations(&mut self) {
            Ok(logits) => Ok(Some(logits)),
            Err(Halt::Stop) => Ok(None),
            Err(Halt::Failed(e)) => Err(e),
        }
    }

    /// The value `x` has been computed at `point`: taps see it, or change it; the run stops here if this is its last point.
    ///
    /// # Errors
    /// [`Halt::Stop`] after the last point, [`Halt::Failed`] when a tap fails or an edit changes shape or type.
    pub fn tap<V: TapValue>(&mut self, point: HookPoint, x: V) -> PassResult<V> {
        let x = match self.interests.get(&point) {
            None => x,
            Some(interest) => {
                let (columns, offset) = (&self.columns, self.columns.offset);
                let cx = TapContext { at: point, tokens: self.tokens, offset, points: &self.reached, columns };
                match interest {
                    Interest::Watch => {
                        self.tap.watch(&cx, &x.to_tensor()?)?;
                        x
                    }
                    Interest::Edit => {
                        let edited = guarded_edit(self.tap, &cx, x.to_tensor()?)?;
                        x.replaced_by(edited)?
                    }
                }
            }
        };
        if self.last == Some(point) { Err(Halt::Stop) } else { Ok(x) }
    }

    /// Interest in the value at a point: `None` if no tap wants it and the run does not end there. For values that are
    /// computed only on demand.
    #[must_use]
    pub fn interest(&self, point: HookPoint) -> Option<Interest> {
        self.interests.get(&point).copied().or_else(|| (self.last == Some(point)).then_some(Interest::Watch))
    }

    /// Positions of the columns of this run in their sequences.
    pub(crate) fn columns(&self) -> &Positions {
        &self.columns
    }

    /// The tokens of this run.
    #[must_use]
    pub fn tokens(&self) -> &'a TokenBatch {
        self.tokens
    }

    /// The points of one block, so that the equations name a [`Site`] alone.
    pub fn block(&mut self, layer: u16) -> BlockPass<'_, 'a> {
        BlockPass { layer, stage: self }
    }
}

/// Keys and values of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cached<'c> {
    /// `[batch, room, n_kv_heads * d_head]`; the first columns of the room hold something.
    Plain { keys: &'c [f32], values: &'c [f32], room: usize },
    /// As the kernels read them.
    Packed(&'c KeyValuePanels),
}

/// A [`ForwardPass`] inside one block.
pub struct BlockPass<'s, 'a> {
    layer: u16,
    stage: &'s mut ForwardPass<'a>,
}

impl<'a> BlockPass<'_, 'a> {
    /// A site of this block as a point.
    #[must_use]
    pub fn point(&self, site: Site) -> HookPoint {
        HookPoint::Block { layer: self.layer, site }
    }

    /// Puts this block's keys and values into the cache, if there is one, behind those of earlier columns.
    pub(crate) fn append(&mut self, new: [&[f32]; 2]) -> Result<()> {
        let ForwardPass { columns, cache, .. } = &mut *self.stage;
        cache.as_mut().map_or(Ok(()), |cache| cache.append(usize::from(self.layer), columns, new))
    }

    /// Cached keys and values of this block.
    pub(crate) fn cached(&self) -> Option<Cached<'_>> {
        self.stage.cache.as_ref()?.layer(usize::from(self.layer))
    }

    /// The stage that this block is part of.
    pub fn stage(&mut self) -> &mut ForwardPass<'a> {
        self.stage
    }

    /// As [`ForwardPass::tap`], at a site of this block.
    ///
    /// # Errors
    /// As [`ForwardPass::tap`].
    pub fn tap<V: TapValue>(&mut self, site: Site, x: V) -> PassResult<V> {
        self.stage.tap(self.point(site), x)
    }

    /// As [`ForwardPass::interest`], at a site of this block.
    #[must_use]
    pub fn interest(&self, site: Site) -> Option<Interest> {
        self.stage.interest(self.point(site))
    }
}
