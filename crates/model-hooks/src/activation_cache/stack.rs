//! Parts of the residual stream with their labels.

use super::Part;
use crate::{Error, Result};
use candle_core::Tensor;

/// Vectors of the residual stream, one for each component: `[component, batch, pos, d_model]`, with a label each.
#[derive(Clone, Debug)]
pub struct ResidualStack {
    labels: Vec<String>,
    components: Tensor,
}

impl ResidualStack {
    /// Components `[component, batch, pos, d_model]` of one's own, for [`ActivationCache`](crate::ActivationCache)'s methods.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are four axes and as many components as labels, at least one.
    pub fn new(labels: Vec<String>, components: Tensor) -> Result<Self> {
        match components.dims() {
            [n, _, _, _] if *n == labels.len() && *n > 0 => Ok(Self { labels, components }),
            found => {
                let expected = format!("[component, batch, pos, d_model] with {} components", labels.len());
                Err(Error::Shape { what: "a stack of components", expected, found: found.to_vec() })
            }
        }
    }

    pub(super) fn of(parts: Vec<Part>) -> Result<Self> {
        let (labels, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        if parts.is_empty() {
            return Err(Error::OutOfRange { what: "components before layer", found: 0, limit: 0 });
        }
        Self::new(labels, Tensor::stack(&parts, 0)?)
    }

    /// Labels of the components.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// `[component, batch, pos, d_model]`
    #[must_use]
    pub fn components(&self) -> &Tensor {
        &self.components
    }

    /// The component of a label `[batch, pos, d_model]`, if there is one.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn get(&self, label: &str) -> Result<Option<Tensor>> {
        let place = self.labels.iter().position(|known| known == label);
        Ok(place.map(|i| self.components.get(i)).transpose()?)
    }

    /// The sum of all components `[batch, pos, d_model]`.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn sum(&self) -> Result<Tensor> {
        Ok(self.components.sum(0)?)
    }

    pub(super) fn with(&self, components: Tensor) -> Self {
        Self { labels: self.labels.clone(), components }
    }
}
