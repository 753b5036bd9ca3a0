//! Activations while the kernels compute: in borrowed memory, or not yet computed.

use super::workspace::{Lent, Packed, Workspace};
use super::{Kernels, to_tensor};
use crate::forward::pass::TapValue;
use crate::ops::with_slice;
use crate::weights::Linear;
use crate::{Error, Result};
use candle_core::Tensor;
use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use tensor_kernels::{Activate, Activation, AddTo, Arithmetic, Engine, Epilogue, Gate, Store, product};

/// The axes of a value: `[batch, pos, width]`, or `[batch, pos, heads, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axes {
    pub batch: usize,
    pub pos: usize,
    pub heads: Option<usize>,
    pub width: usize,
}

impl Axes {
    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.batch * self.pos
    }

    /// Entries of a token.
    pub fn row(&self) -> usize {
        self.heads.unwrap_or(1) * self.width
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.tokens() * self.row()
    }

    /// The same tokens with another width and no heads.
    pub fn with_width(self, width: usize) -> Self {
        Self { heads: None, width, ..self }
    }

    /// The width split into heads.
    pub fn split(self, heads: usize) -> Self {
        Self { heads: Some(heads), width: self.row() / heads, ..self }
    }
}

/// Rows that products read; shared by the products that wait for being computed.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub packed: Rc<Packed>,
    pub axes: Axes,
}

/// `act(x W + b)`, not yet computed: what needs it may have something to add.
struct Pending {
    x: Rows,
    w: Linear<Kernels>,
    act: Activation,
}

/// An activation.
pub(crate) struct Value {
    pub axes: Axes,
    arithmetic: Arithmetic,
    space: Arc<Workspace>,
    pending: Option<Pending>,
    computed: OnceCell<Lent>,
}

impl Value {
    /// Memory to be written.
    pub fn new(kernels: &Kernels, axes: Axes, fill: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Self> {
        let mut floats = kernels.space.floats(axes.len());
        fill(&mut floats)?;
        let (arithmetic, space) = (kernels.arithmetic, kernels.space.clone());
        Ok(Self { axes, arithmetic, space, pending: None, computed: floats.into() })
    }

    /// `x W + b`, computed when it is needed.
    pub fn product(kernels: &Kernels, x: &Rows, w: &Linear<Kernels>) -> Self {
        let axes = x.axes.with_width(w.w.n());
        let pending = Pending { x: x.clone(), w: w.clone(), act: Activation::Identity };
        let (arithmetic, space) = (kernels.arithmetic, kernels.space.clone());
        Self { axes, arithmetic, space, pending: Some(pending), computed: OnceCell::new() }
    }

    /// The values, computed now if they are not yet.
    pub fn data(&self) -> Result<&[f32]> {
        if self.computed.get().is_none() {
            let mut out = self.space.floats(self.axes.len());
            if let Some(Pending { x, w, act }) = &self.pending {
                let (width, bias) = (w.w.n(), w.b.as_deref());
                match act {
                    Activation::Identity => run(x, w, Store::new(&mut out, width, bias)?)?,
                    act => run(x, w, Activate::new(&mut out, width, bias, *act)?)?,
                }
            }
            return Ok(self.computed.get_or_init(|| out));
        }
        Ok(self.computed.get().map_or(&[], |floats| floats))
    }

    /// The values to be changed in place.
    pub fn data_mut(&mut self) -> Result<&mut [f32]> {
        self.data()?;
        self.pending = None;
        Ok(self.computed.get_mut().map_or(&mut [], |floats| floats))
    }

    /// `self + x`, in place. If `x` is an unevaluated product, the addition is fused into its epilogue.
    pub fn add(mut self, x: Self) -> Result<Self> {
        let backend = self.arithmetic.backend();
        match x.waiting() {
            Some(Pending { x, w, act: Activation::Identity }) => {
                run(x, w, AddTo::new(self.data_mut()?, w.w.n(), w.b.as_deref())?)?;
            }
            _ => tensor_kernels::add_to(backend, x.data()?, self.data_mut()?)?,
        }
        Ok(self)
    }

    /// `act(self)`.
    pub fn activate(mut self, act: Activation) -> Result<Self> {
        match &mut self.pending {
            Some(Pending { act: before @ Activation::Identity, .. }) if self.computed.get().is_none() => *before = act,
            _ => {
                let backend = self.arithmetic.backend();
                tensor_kernels::activate(backend, act, self.data_mut()?);
            }
        }
        Ok(self)
    }

    /// `act(self) * x`, fused into the epilogue of `x` if that is an unevaluated product.
    pub fn gate(mut self, act: Activation, mut x: Self) -> Result<Self> {
        if let Some(Pending { x, w, act: Activation::Identity }) = x.waiting() {
            run(x, w, Gate::new(self.data_mut()?, w.w.n(), w.b.as_deref(), act)?)?;
            return Ok(self);
        }
        tensor_kernels::activate_gated(self.arithmetic.backend(), act, self.data()?, x.data_mut()?)?;
        Ok(x)
    }

    /// The product that it is, if it has not been computed.
    fn waiting(&self) -> Option<&Pending> {
        self.pending.as_ref().filter(|_| self.computed.get().is_none())
    }
}

fn run(x: &Rows, w: &Linear<Kernels>, epilogue: impl Epilogue) -> Result<()> {
    Ok(product(&x.packed, w.w.operand(), epilogue)?)
}

impl TapValue for Value {
    /// A copy: the memory is used again.
    fn to_tensor(&self) -> Result<Tensor> {
        let Axes { batch, pos, heads, width } = self.axes;
        let shape = [Some(batch), Some(pos), heads, Some(width)];
        to_tensor(self.data()?.to_vec(), shape.into_iter().flatten().collect())
    }

    fn replaced_by(mut self, edited: Tensor) -> Result<Self> {
        refuse_gradients("the value that an edit returned", &edited, self.arithmetic)?;
        self.pending = None;
        if self.computed.get().is_none() {
            self.computed = self.space.floats(self.axes.len()).into();
        }
        let to = self.data_mut()?;
        with_slice(&edited, |from| {
            to.copy_from_slice(from);
            Ok(())
        })?;
        Ok(self)
    }
}

/// The kernels compute no gradients, and must not cut them off silently.
pub(super) fn refuse_gradients(what: &'static str, x: &Tensor, arithmetic: Arithmetic) -> Result<()> {
    if x.track_op() { Err(Error::NoGradients { what, engine: Engine::Kernels(arithmetic) }) } else { Ok(()) }
}
