//! One entry of a list of interventions.

use crate::{Edit, Error, HookPoint, Indices, Result, Site};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// One edit of [`Interventions`](super::Interventions).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Intervention {
    /// TransformerLens' name of the hook point.
    pub point: String,
    /// The operation.
    pub op: Op,
    /// For `scale` and `add`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// For `add`, `project_out`, `patch` and `mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vector>,
    /// The rows of the batch; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<IndexSpec>,
    /// The positions; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<IndexSpec>,
    /// The heads; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<IndexSpec>,
}

/// The operation of an [`Intervention`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// Writes zeros.
    Zero,
    /// Multiplies by `factor`.
    Scale,
    /// Adds `factor * vector`.
    Add,
    /// Takes the component along `vector` out.
    ProjectOut,
    /// Replaces by `vector`.
    Patch,
    /// Replaces by the mean over the first axis of `vector`.
    Mean,
}

/// The tensor of an [`Intervention`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Vector {
    /// The numbers of one vector.
    Inline(Vec<f32>),
    /// A tensor of the file beside the list.
    Named(String),
}

/// Chosen rows, positions or heads of an [`Intervention`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IndexSpec {
    /// These.
    List(Vec<usize>),
    /// The indices of a range.
    Range(IndexRange),
}

/// A range of [`IndexSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRange {
    /// The first.
    pub from: usize,
    /// One behind the last; the end of the axis without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<usize>,
}

impl From<&IndexSpec> for Indices {
    fn from(chosen: &IndexSpec) -> Self {
        match chosen {
            IndexSpec::List(list) => list.clone().into(),
            IndexSpec::Range(IndexRange { from, to: Some(to) }) => (*from..*to).into(),
            IndexSpec::Range(IndexRange { from, to: None }) => (*from..).into(),
        }
    }
}

impl Intervention {
    /// An operation on the whole value at a point; set the fields that it needs.
    #[must_use]
    pub fn new(point: HookPoint, op: Op) -> Self {
        Self { point: point.to_string(), op, factor: None, vector: None, rows: None, positions: None, heads: None }
    }

    pub(super) fn edit(&self, index: usize, tensors: &dyn Fn(&str) -> Result<Tensor>) -> Result<Edit> {
        let bad = |reason: String| Error::BadIntervention { index, reason };
        let point: HookPoint = self.point.parse().map_err(|e: Error| bad(e.to_string()))?;
        let takes_vector = !matches!(self.op, Op::Zero | Op::Scale);
        match (takes_vector, &self.vector, self.factor) {
            (true, None, _) => return Err(bad(format!("`vector` is missing, which {:?} reads", self.op))),
            (false, Some(_), _) => return Err(bad(format!("`vector` is given, which {:?} does not read", self.op))),
            (_, _, Some(factor)) if !(factor as f32).is_finite() => return Err(bad(format!("`factor` is {factor}"))),
            (_, _, Some(_)) if !matches!(self.op, Op::Scale | Op::Add) => {
                return Err(bad(format!("`factor` is given, which {:?} does not read", self.op)));
            }
            (_, _, None) if self.op == Op::Scale => return Err(bad("`factor` is missing, which Scale reads".into())),
            _ => {}
        }
        // Masked scores are -inf, and nothing else may be.
        let is_score = point.site() == Some(Site::AttnScores);
        let sound = |x: Tensor| -> Result<Tensor> {
            let sound = |x: &f32| x.is_finite() || (is_score && *x == f32::NEG_INFINITY);
            match x.flatten_all()?.to_vec1::<f32>()?.iter().find(|x| !sound(x)) {
                Some(x) => Err(bad(format!("the vector holds {x}"))),
                None if x.elem_count() == 0 => Err(bad("the vector is empty".into())),
                None => Ok(x),
            }
        };
        let vector = || -> Result<Tensor> {
            let x = match &self.vector {
                Some(Vector::Inline(x)) => Tensor::new(&x[..], &Device::Cpu)?,
                Some(Vector::Named(name)) => tensors(name)?,
                None => return Err(bad("`vector` is missing".into())),
            };
            sound(x.to_dtype(DType::F32)?)
        };
        let factor = self.factor.unwrap_or(1.0);
        let mut edit = match self.op {
            Op::Zero => Edit::zero(point),
            Op::Scale => Edit::scale(point, factor),
            Op::Add => Edit::add(point, sound((vector()? * factor)?)?),
            Op::ProjectOut => Edit::project_out(point, &vector()?)?,
            Op::Patch => Edit::patch(point, vector()?),
            Op::Mean => Edit::mean_of(point, &vector()?)?,
        };
        if let Some(rows) = &self.rows {
            edit = edit.rows(rows);
        }
        if let Some(positions) = &self.positions {
            edit = edit.positions(positions);
        }
        if let Some(heads) = &self.heads {
            edit = edit.heads(heads);
        }
        Ok(edit)
    }
}
