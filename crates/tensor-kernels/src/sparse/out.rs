//! Sparse rows, compressed.

use crate::{Error, Result};

/// Sparse rows compressed one after another (CSR); encoding appends to it, [`clear`](Self::clear) keeps the memory.
///
/// ```text
/// row i:  columns index[indptr[i] .. indptr[i+1]], rising, with  value[ same range ]
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CsrBuffer {
    /// Row offsets: one entry more than there are rows, starting with 0.
    pub indptr: Vec<u64>,
    /// Columns.
    pub index: Vec<u32>,
    /// Values beside the columns.
    pub value: Vec<f32>,
}

impl Default for CsrBuffer {
    fn default() -> Self {
        Self { indptr: vec![0], index: Vec::new(), value: Vec::new() }
    }
}

impl CsrBuffer {
    /// No rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.indptr.clear();
        self.indptr.push(0);
        self.index.clear();
        self.value.clear();
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    /// Columns and values of a row.
    ///
    /// # Panics
    /// When there is no such row, or the vectors were changed into something that is no sparse matrix.
    #[must_use]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.indptr[row] as usize..self.indptr[row + 1] as usize;
        (&self.index[range.clone()], &self.value[range])
    }

    /// A view of it.
    #[must_use]
    pub fn as_ref(&self) -> CsrRef<'_> {
        CsrRef { indptr: &self.indptr, index: &self.index, value: &self.value }
    }

    /// Checks that rows can be appended.
    pub(crate) fn check(&self) -> Result<()> {
        let ends = self.index.len();
        if self.value.len() != ends {
            return Err(Error::Length { what: "values beside columns", expected: ends, found: self.value.len() });
        }
        match self.indptr.last() {
            Some(&last) if last == ends as u64 => Ok(()),
            last => {
                let (expected, found) = (ends.to_string(), format!("{last:?}"));
                Err(Error::Mismatch { what: "the end of the last sparse row", expected, found })
            }
        }
    }
}

/// A view of sparse rows; see [`CsrBuffer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CsrRef<'a> {
    /// Row offsets.
    pub indptr: &'a [u64],
    /// Columns.
    pub index: &'a [u32],
    /// Values beside the columns.
    pub value: &'a [f32],
}

impl<'a> CsrRef<'a> {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    /// Checks that every row lies within the vectors and every column below `cols`.
    pub(crate) fn check(&self, cols: usize) -> Result<()> {
        let ends = self.index.len();
        if self.value.len() != ends {
            return Err(Error::Length { what: "values beside columns", expected: ends, found: self.value.len() });
        }
        if let Some(pair) = self.indptr.windows(2).find(|pair| pair[0] > pair[1] || pair[1] > ends as u64) {
            let found = format!("{} to {}", pair[0], pair[1]);
            return Err(Error::Mismatch {
                what: "a sparse row",
                expected: format!("a range within 0 to {ends}"),
                found,
            });
        }
        match self.index.iter().find(|&&column| column as usize >= cols) {
            None => Ok(()),
            Some(column) => {
                let (expected, found) = (format!("less than {cols}"), column.to_string());
                Err(Error::Mismatch { what: "a column of a sparse row", expected, found })
            }
        }
    }

    /// Columns and values of a row, after a [`check`](Self::check).
    pub(crate) fn row(&self, row: usize) -> (&'a [u32], &'a [f32]) {
        let range = self.indptr[row] as usize..self.indptr[row + 1] as usize;
        (&self.index[range.clone()], &self.value[range])
    }
}
