//! A tensor inside a run of bytes: type, byte order, shape and strides, checked once, and read in the order of the file.

use crate::finite::first_not_finite;
use crate::{Dtype, Error, Result};
use std::path::Path;

/// Elements that are fetched at a time where they cannot go straight to where they stay.
const PART: usize = 1 << 14;
/// numpy's and torch's own limit.
const MAX_DIMENSIONS: usize = 64;
/// A view may repeat elements (stride 0), but beyond this count it must not hold more than its storage does.
const MAX_REPEATED: usize = 1 << 20;

/// Location of the elements of a tensor in its storage. Made by [`View::new`], which checks the bounds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) dtype: Dtype,
    pub(crate) big_endian: bool,
    pub(crate) shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

impl View {
    /// A view of `shape` into a storage of `held` elements; strides and offset count elements. Says what is wrong otherwise.
    pub(crate) fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
        held: usize,
    ) -> std::result::Result<Self, String> {
        if shape.len() != strides.len() {
            return Err(format!("shape {shape:?} and strides {strides:?} differ in length"));
        }
        let count = count(&shape)?;
        let empty = shape.contains(&0);
        let mut steps = shape.iter().zip(&strides).map(|(&n, &stride)| n.saturating_sub(1).checked_mul(stride));
        let last = steps.try_fold(offset, |at, step| at.checked_add(step?));
        if !empty && last.is_none_or(|last| last >= held) {
            return Err(format!(
                "shape {shape:?} with strides {strides:?} at {offset} leaves its storage of {held} elements"
            ));
        }
        if !empty && count > held.max(MAX_REPEATED) {
            return Err(format!("shape {shape:?} repeats the {held} elements of its storage {} times", count / held));
        }
        Ok(Self { dtype, big_endian: false, shape, strides, offset })
    }

    /// A dense tensor, row after row or column after column.
    pub(crate) fn dense(dtype: Dtype, shape: Vec<usize>, by_column: bool) -> std::result::Result<Self, String> {
        let held = count(&shape)?;
        let mut strides = row_strides(&shape);
        if by_column {
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            strides = row_strides(&reversed);
            strides.reverse();
        }
        Self::new(dtype, shape, strides, 0, held)
    }

    /// The number of elements.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes of one element.
    pub(crate) fn width(&self) -> usize {
        self.dtype.bitsize() / 8
    }

    /// As f32: `fetch(byte, out)` fills `out` from that byte of the storage on. A dense tensor is fetched from its start to its end.
    pub(crate) fn floats(
        &self,
        path: &Path,
        name: &str,
        fetch: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<Vec<f32>> {
        let values = match self.dtype {
            // Of an empty tensor, whose offset may be any number, nothing is fetched: `gather` sees to that.
            Dtype::F32
                if self.count() > 0 && self.is_by_row() && !self.big_endian && cfg!(target_endian = "little") =>
            {
                let mut values = vec![0f32; self.count()];
                fetch(4 * self.offset as u64, bytemuck::cast_slice_mut(&mut values))?;
                values
            }
            Dtype::F32 => self.gather(fetch, f32::from_le_bytes)?,
            Dtype::F64 => self.gather(fetch, |b| f64::from_le_bytes(b) as f32)?,
            Dtype::F16 => self.gather(fetch, |b| half::f16::from_le_bytes(b).to_f32())?,
            Dtype::BF16 => self.gather(fetch, |b| half::bf16::from_le_bytes(b).to_f32())?,
            other => return Err(wrong_type(path, name, "F64, F32, F16 or BF16", format!("{other:?}"))),
        };
        match first_not_finite(&values) {
            None => Ok(values),
            Some((index, value)) => Err(Error::NotFinite { path: path.into(), name: name.into(), value, index }),
        }
    }

    /// As i64, of whole numbers and truth values.
    pub(crate) fn integers(
        &self,
        path: &Path,
        name: &str,
        fetch: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<Vec<i64>> {
        match self.dtype {
            Dtype::BOOL => self.gather(fetch, |[b]| i64::from(b != 0)),
            Dtype::U8 => self.gather(fetch, |[b]| i64::from(b)),
            Dtype::I8 => self.gather(fetch, |b| i64::from(i8::from_le_bytes(b))),
            Dtype::U16 => self.gather(fetch, |b| i64::from(u16::from_le_bytes(b))),
            Dtype::I16 => self.gather(fetch, |b| i64::from(i16::from_le_bytes(b))),
            Dtype::U32 => self.gather(fetch, |b| i64::from(u32::from_le_bytes(b))),
            Dtype::I32 => self.gather(fetch, |b| i64::from(i32::from_le_bytes(b))),
            Dtype::I64 => self.gather(fetch, i64::from_le_bytes),
            Dtype::U64 => {
                let signed = self.gather(fetch, i64::from_le_bytes)?;
                match signed.iter().find(|&&n| n < 0) {
                    None => Ok(signed),
                    Some(&n) => Err(wrong_type(path, name, "whole numbers below 2^63", format!("{}", n as u64))),
                }
            }
            other => Err(wrong_type(path, name, "I64, I32, I16, I8, U64, U32, U16, U8 or BOOL", format!("{other:?}"))),
        }
    }

    fn is_by_row(&self) -> bool {
        let wanted = row_strides(&self.shape);
        self.shape.iter().zip(self.strides.iter().zip(&wanted)).all(|(&n, (stride, wanted))| n == 1 || stride == wanted)
    }

    /// Goes through the storage forwards (longest stride outermost), a part at a time, and puts each element where it belongs.
    fn gather<T: Copy + Default, const N: usize>(
        &self,
        fetch: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
        read: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let mut out = vec![T::default(); self.count()];
        if out.is_empty() {
            return Ok(out);
        }
        let dims = self.walk();
        let last = self.offset + dims.iter().map(|dim| (dim.len - 1) * dim.from).sum::<usize>();
        let mut part = Part { bytes: vec![0; N * PART.min(last - self.offset + 1)], start: 0, held: 0, last };
        let swap = |mut bytes: [u8; N]| {
            bytes.reverse();
            bytes
        };
        let (inner, outer) = dims.split_last().map_or((Dim::ONE, &[][..]), |(inner, outer)| (*inner, outer));
        let mut at = vec![0; outer.len()];
        loop {
            let from = self.offset + at.iter().zip(outer).map(|(i, dim)| i * dim.from).sum::<usize>();
            let to = at.iter().zip(outer).map(|(i, dim)| i * dim.to).sum::<usize>();
            // A stride of 0 belongs to a single element.
            let run = out.get_mut(to..).unwrap_or_default().iter_mut().step_by(inner.to.max(1)).take(inner.len);
            for (i, value) in run.enumerate() {
                let bytes = part.element::<N>(from + i * inner.from, fetch)?;
                *value = read(if self.big_endian { swap(bytes) } else { bytes });
            }
            // The next position: an odometer, its last wheel fastest.
            let turned = at.iter_mut().zip(outer).rev().any(|(i, dim)| {
                let turns = *i + 1 < dim.len;
                *i = if turns { *i + 1 } else { 0 };
                turns
            });
            if !turned {
                return Ok(out);
            }
        }
    }

    /// The dimensions of more than one element, longest stride first, neighbors that are one run joined.
    fn walk(&self) -> Vec<Dim> {
        let to = row_strides(&self.shape);
        let strides = self.strides.iter().zip(to);
        let dims = self.shape.iter().zip(strides).map(|(&len, (&from, to))| Dim { len, from, to });
        let mut dims: Vec<Dim> = dims.filter(|dim| dim.len > 1).collect();
        dims.sort_by_key(|dim| std::cmp::Reverse(dim.from));
        let mut joined: Vec<Dim> = Vec::with_capacity(dims.len());
        for dim in dims {
            match joined.last_mut() {
                Some(outer) if outer.from == dim.len * dim.from && outer.to == dim.len * dim.to => {
                    *outer = Dim { len: outer.len * dim.len, ..dim };
                }
                _ => joined.push(dim),
            }
        }
        joined
    }
}

#[derive(Clone, Copy)]
struct Dim {
    len: usize,
    /// The stride in the storage.
    from: usize,
    /// The stride in the result.
    to: usize,
}

impl Dim {
    const ONE: Self = Self { len: 1, from: 0, to: 0 };
}

/// The part of the storage that is at hand.
struct Part {
    bytes: Vec<u8>,
    start: usize,
    held: usize,
    last: usize,
}

impl Part {
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "`n` elements fit into `bytes`, and `index` is among the `held` ones that were fetched into it"
    )]
    fn element<const N: usize>(
        &mut self,
        index: usize,
        fetch: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<[u8; N]> {
        if index < self.start || index - self.start >= self.held {
            let n = (self.bytes.len() / N).min(self.last - index + 1);
            fetch((index * N) as u64, &mut self.bytes[..n * N])?;
            (self.start, self.held) = (index, n);
        }
        let (each, _) = self.bytes.as_chunks::<N>();
        Ok(each[index - self.start])
    }
}

/// The elements of a shape; an error where bytes could not be counted, however many dimensions are 0.
fn count(shape: &[usize]) -> std::result::Result<usize, String> {
    if shape.len() > MAX_DIMENSIONS {
        return Err(format!("{} dimensions; at most {MAX_DIMENSIONS} are read", shape.len()));
    }
    let widest = shape.iter().try_fold(8usize, |n, &d| n.checked_mul(d.max(1)));
    match widest {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(shape.iter().product()),
        _ => Err(format!("shape {shape:?} is larger than any memory")),
    }
}

fn row_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    let mut next = 1;
    for (stride, n) in strides.iter_mut().zip(shape).rev() {
        *stride = next;
        next *= (*n).max(1);
    }
    strides
}

fn wrong_type(path: &Path, name: &str, expected: &'static str, found: String) -> Error {
    Error::Dtype { path: path.into(), name: name.into(), expected, found }
}
