//! The equations on `tensor-kernels`: weights packed once, activations in memory that is used again.

mod attention;
mod inputs;
mod value;
mod workspace;

pub(crate) use value::{Rows, Value};

use super::{AttentionSpec, Math, NormAxis};
use crate::families::angles::RopeTable;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult};
use crate::forward::positions::Positions;
use crate::ops::{Activation, Norm, NormKind, with_slice};
use crate::weights::{Form, Hold, Linear, NormWeights, Plain};
use crate::{HookPoint, Result, TokenBatch};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::rc::Rc;
use std::sync::Arc;
use tensor_kernels::{
    Arithmetic, Operand, PackedMatrix, PackedRows, RopeShape, Store, gain_and_bias_row, gather_rows, product, rope,
    softcap,
};
use value::{Axes, refuse_gradients};
use workspace::{Packed, Workspace};

/// Values that one thread scales at a time; fewer cost more to hand over than to compute.
const SCALED_AT_ONCE: usize = 16_384;

#[cfg(test)]
thread_local! {
    /// Tokens whose logits this thread computed, for tests that state how many a run takes.
    pub(crate) static LOGITS_OF: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The project's own kernels in one arithmetic, and the memory that forward passes borrow.
#[derive(Clone, Debug)]
pub(crate) struct Kernels {
    arithmetic: Arithmetic,
    space: Arc<Workspace>,
}

impl Kernels {
    /// With no memory yet; it is taken by the first forward passes.
    pub fn new(arithmetic: Arithmetic) -> Self {
        Self { arithmetic, space: Arc::default() }
    }

    /// Arithmetic of the products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Number of allocations from the system so far.
    #[cfg(test)]
    pub fn memory_taken(&self) -> usize {
        self.space.taken()
    }

    fn borrow_rows(&self, axes: Axes) -> Packed {
        self.space.rows(PackedRows::bytes_for(self.arithmetic, axes.tokens(), axes.row()))
    }

    /// Packs rows of width `k` that `write(row, out)` computes.
    fn pack_with(&self, axes: Axes, write: impl Fn(usize, &mut [f32]) + Sync) -> Result<Rows> {
        let mut packed = self.borrow_rows(axes);
        packed.pack_with(self.arithmetic, axes.tokens(), axes.row(), write)?;
        Ok(Rows { packed: Rc::new(packed), axes })
    }

    /// The norm of each row of `x`, straight into packed rows.
    fn pack_norm(&self, norm: Norm, w: &NormWeights<Self>, x: &[f32], axes: Axes) -> Result<Rows> {
        let (backend, norm, width) = (self.arithmetic.backend(), norm_of(norm), axes.width);
        self.pack_with(axes, |row, out| {
            norm.row(backend, &x[row * width..(row + 1) * width], out);
            gain_and_bias_row(backend, out, w.w.as_deref(), w.b.as_deref());
        })
    }
}

/// A weight matrix that products read: packed once, when it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<PackedMatrix>);

impl Held {
    /// As the right-hand side of a product.
    pub fn operand(&self) -> Operand<'_> {
        Operand::Packed(&self.0)
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        self.0.n()
    }
}

/// Rows that are looked up.
#[derive(Clone, Debug)]
pub(crate) enum Table {
    /// Rows as in the file.
    Plain(Arc<Plain>),
    /// The columns of an unembedding that is tied to it, and that packing did not round.
    Tied(Arc<PackedMatrix>),
}

impl Table {
    /// Width of a row.
    fn width(&self) -> usize {
        match self {
            Self::Plain(table) => table.n(),
            Self::Tied(matrix) => matrix.k(),
        }
    }

    /// Copies rows.
    fn gather(&self, rows: &[u32], out: &mut [f32]) -> Result<()> {
        match self {
            Self::Plain(table) => gather_rows(table.data(), table.n(), rows, out)?,
            Self::Tied(matrix) => matrix.read_columns(rows, out)?,
        }
        Ok(())
    }
}

impl Form for Kernels {
    type Matrix = Held;
    type Vector = Arc<[f32]>;
    type Table = Table;
}

impl Hold for Kernels {
    fn hold_matrix(&self, raw: Plain) -> Result<Held> {
        Ok(Held(Arc::new(PackedMatrix::pack(self.arithmetic, raw.view()?)?)))
    }

    fn hold_vector(&self, raw: Vec<f32>) -> Result<Arc<[f32]>> {
        Ok(raw.into())
    }

    fn hold_table(&self, raw: Plain) -> Result<Table> {
        Ok(Table::Plain(Arc::new(raw)))
    }

    /// Packed alone where packing rounds nothing (always in f32; in bf16 where the file is in bf16), else in both forms.
    fn hold_tied(&self, raw: Plain) -> Result<(Table, Held)> {
        let packed = Arc::new(PackedMatrix::pack(self.arithmetic, raw.transposed_view()?)?);
        let exact = packed.is_exact(raw.transposed_view()?);
        let table = if exact { Table::Tied(packed.clone()) } else { Table::Plain(Arc::new(raw)) };
        Ok((table, Held(packed)))
    }
}

impl Math for Kernels {
    type Value = Value;
    type Rows = Rows;

    fn embed(&self, table: &Table, tokens: &TokenBatch) -> Result<Value> {
        let axes = Axes { batch: tokens.batch(), pos: tokens.pos(), heads: None, width: table.width() };
        Value::new(self, axes, |out| table.gather(tokens.ids(), out))
    }

    fn positions(&self, table: &Table, batch: usize, columns: &Positions) -> Result<Value> {
        let axes = Axes { batch, pos: columns.pos, heads: None, width: table.width() };
        let places =
            (0..batch).flat_map(|row| (0..columns.pos).map(move |column| columns.position(row, column) as u32));
        let places: Vec<u32> = places.collect();
        Value::new(self, axes, |out| table.gather(&places, out))
    }

    fn residual(&self, resid: &Tensor) -> Result<Value> {
        refuse_gradients("the residual to start from", resid, self.arithmetic)?;
        let (batch, pos, width) = resid.dims3()?;
        let axes = Axes { batch, pos, heads: None, width };
        with_slice(resid, |x| {
            Value::new(self, axes, |out| {
                out.copy_from_slice(x);
                Ok(())
            })
        })
    }

    fn last_column(&self, x: Value) -> Result<Value> {
        let (axes, width) = (x.axes, x.axes.row());
        if axes.pos <= 1 {
            return Ok(x);
        }
        let data = x.data()?;
        Value::new(self, Axes { pos: 1, ..axes }, |out| {
            let rows = data.chunks_exact(axes.pos * width);
            out.chunks_exact_mut(width).zip(rows).for_each(|(out, row)| out.copy_from_slice(&row[row.len() - width..]));
            Ok(())
        })
    }

    fn norm(
        &self,
        at: &mut ForwardPass<'_>,
        points: [HookPoint; 2],
        norm: Norm,
        w: &NormWeights<Self>,
        x: &Value,
    ) -> PassResult<Rows> {
        let (axes, x) = (x.axes, x.data()?);
        if points.iter().all(|point| at.interest(*point).is_none()) {
            return Ok(self.pack_norm(norm, w, x, axes)?);
        }
        let (backend, norm, width) = (self.arithmetic.backend(), norm_of(norm), axes.width);
        let scale = Value::new(self, axes.with_width(1), |out| Ok(norm.scale(backend, x, width, out)?))?;
        let scale = at.tap(points[0], scale)?;
        let scale = scale.data()?;
        let normalized = Value::new(self, axes, |out| Ok(norm.normalize(backend, x, width, scale, out)?))?;
        let normalized = at.tap(points[1], normalized)?;
        let x = normalized.data()?;
        Ok(self.pack_with(axes, |row, out| {
            out.copy_from_slice(&x[row * width..(row + 1) * width]);
            gain_and_bias_row(backend, out, w.w.as_deref(), w.b.as_deref());
        })?)
    }

    fn norm_value(
        &self,
        at: &mut ForwardPass<'_>,
        points: [HookPoint; 2],
        norm: Norm,
        w: &NormWeights<Self>,
        x: Value,
        over: NormAxis,
    ) -> PassResult<Value> {
        let (backend, norm) = (self.arithmetic.backend(), norm_of(norm));
        let scales = match over {
            NormAxis::Width => Axes { width: 1, ..x.axes },
            NormAxis::Row => x.axes.with_width(1),
        };
        let width = x.axes.len() / scales.len().max(1);
        let data = x.data()?;
        let scale = Value::new(self, scales, |out| Ok(norm.scale(backend, data, width, out)?))?;
        let scale = at.tap(points[0], scale)?;
        let scale = scale.data()?;
        let normalized = Value::new(self, x.axes, |out| Ok(norm.normalize(backend, data, width, scale, out)?))?;
        let mut normalized = at.tap(points[1], normalized)?;
        let rows = normalized.data_mut()?.par_chunks_exact_mut(width);
        rows.for_each(|row| gain_and_bias_row(backend, row, w.w.as_deref(), w.b.as_deref()));
        Ok(normalized)
    }

    fn norm_alone(&self, norm: Norm, w: &NormWeights<Self>, resid: &Tensor) -> Result<Rows> {
        refuse_gradients("the residual to unembed", resid, self.arithmetic)?;
        let width = resid.dims().last().copied().unwrap_or(1);
        let axes = Axes { batch: 1, pos: resid.elem_count() / width.max(1), heads: None, width };
        with_slice(resid, |x| self.pack_norm(norm, w, x, axes))
    }

    fn rows(&self, x: Value) -> Result<Rows> {
        let axes = x.axes.with_width(x.axes.row());
        let mut packed = self.borrow_rows(axes);
        packed.pack(self.arithmetic, x.data()?, axes.width)?;
        Ok(Rows { packed: Rc::new(packed), axes })
    }

    fn linear(&self, x: &Rows, w: &Linear<Self>) -> Result<Value> {
        Ok(Value::product(self, x, w))
    }

    fn heads(&self, x: &Rows, w: &Linear<Self>, heads: usize) -> Result<Value> {
        let mut value = Value::product(self, x, w);
        value.axes = value.axes.split(heads);
        Ok(value)
    }

    fn repeat_heads(&self, x: &Value, heads: usize) -> Result<Value> {
        inputs::repeat(self, x, heads)
    }

    fn project_heads(&self, norm: Option<(Norm, &NormWeights<Self>)>, x: &Value, w: &Linear<Self>) -> Result<Value> {
        inputs::project(self, norm, x, w)
    }

    fn rotate(&self, mut x: Value, angles: &RopeTable, columns: &Positions) -> Result<Value> {
        let Axes { pos, heads, width: d_head, .. } = x.axes;
        let &RopeTable { d_rotary, pairs, ref cos, ref sin, .. } = angles;
        let shape = RopeShape { pos, heads: heads.unwrap_or(1), d_head, d_rotary, pairs };
        let (backend, half, row_len) = (self.arithmetic.backend(), d_rotary / 2, pos * x.axes.row());
        let data = x.data_mut()?;
        if let Some(first) = columns.common() {
            let these = first * half..(first + pos) * half;
            rope(backend, data, shape, &cos[these.clone()], &sin[these])?;
            return Ok(x);
        }
        // Rows of different positions: each with its own stretch of the angles.
        for (row, data) in data.chunks_exact_mut(row_len.max(1)).enumerate() {
            if let Some(first) = columns.steady(row) {
                let these = first * half..(first + pos) * half;
                rope(backend, data, shape, &cos[these.clone()], &sin[these])?;
                continue;
            }
            let places = || (0..pos).map(|column| angles.at(columns.position(row, column)));
            let cos: Vec<f32> = places().flat_map(|(cos, _)| cos).copied().collect();
            let sin: Vec<f32> = places().flat_map(|(_, sin)| sin).copied().collect();
            rope(backend, data, shape, &cos, &sin)?;
        }
        Ok(x)
    }

    fn attention(&self, at: &mut BlockPass<'_, '_>, qkv: [Value; 3], rule: AttentionSpec) -> PassResult<Value> {
        attention::attention(self, at, qkv, rule)
    }

    fn result(&self, z: &Value, w_o: &Linear<Self>) -> Result<Value> {
        attention::result(self, z, w_o)
    }

    fn sum_heads(&self, result: Value, w_o: &Linear<Self>) -> Result<Value> {
        attention::sum_heads(self, &result, w_o)
    }

    fn copy(&self, x: &Value) -> Result<Value> {
        let data = x.data()?;
        Value::new(self, x.axes, |out| {
            out.copy_from_slice(data);
            Ok(())
        })
    }

    fn scale(&self, mut x: Value, factor: f64) -> Result<Value> {
        let factor = factor as f32;
        x.data_mut()?.par_iter_mut().with_min_len(SCALED_AT_ONCE).for_each(|x| *x *= factor);
        Ok(x)
    }

    fn add(&self, a: Value, b: Value) -> Result<Value> {
        a.add(b)
    }

    fn activate(&self, act: Activation, x: Value) -> Result<Value> {
        x.activate(activation_of(act))
    }

    fn gate(&self, act: Activation, gate: Value, x: Value) -> Result<Value> {
        gate.gate(activation_of(act), x)
    }

    fn logits(&self, x: &Rows, w_u: &Linear<Self>, cap: Option<f64>) -> Result<Tensor> {
        #[cfg(test)]
        LOGITS_OF.set(LOGITS_OF.get() + x.axes.tokens());
        let mut out = vec![0.0; x.axes.tokens() * w_u.w.n()];
        product(&x.packed, w_u.w.operand(), Store::new(&mut out, w_u.w.n(), w_u.b.as_deref())?)?;
        if let Some(cap) = cap {
            softcap(self.arithmetic.backend(), &mut out, cap as f32);
        }
        to_tensor(out, vec![x.axes.batch, x.axes.pos, w_u.w.n()])
    }

    fn columns(&self, w: &Held, start: usize, len: usize) -> Result<Tensor> {
        let k = w.0.k();
        let mut transposed = vec![0.0; k * len];
        let mut columns = transposed.chunks_exact_mut(k.max(1)).enumerate();
        columns.try_for_each(|(j, out)| w.0.column(start + j, out))?;
        Ok(to_tensor(transposed, vec![len, k])?.t()?)
    }

    fn vector(&self, v: &Arc<[f32]>) -> Result<Tensor> {
        to_tensor(v.to_vec(), vec![v.len()])
    }
}

fn to_tensor(values: Vec<f32>, shape: Vec<usize>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn norm_of(norm: Norm) -> tensor_kernels::Norm {
    match norm.kind {
        NormKind::Layer => tensor_kernels::Norm::layer(norm.eps),
        NormKind::Rms => tensor_kernels::Norm::rms(norm.eps),
    }
}

fn activation_of(act: Activation) -> tensor_kernels::Activation {
    match act {
        Activation::GeluTanh => tensor_kernels::Activation::GeluTanh,
        Activation::GeluErf => tensor_kernels::Activation::GeluErf,
        Activation::Relu => tensor_kernels::Activation::Relu,
        Activation::Silu => tensor_kernels::Activation::Silu,
    }
}
