//! Pickles, read without executing anything: a small stack machine over plain values, with an allow-list of classes.

mod classes;
mod input;
mod machine;
mod rebuild;
mod tree;
mod value;

pub(crate) use input::Input;
pub(crate) use machine::{Pickle, read};
pub(crate) use tree::Tree;
pub use value::Value;

use crate::view::View;
use crate::{Dtype, Error};
use std::path::{Path, PathBuf};

/// A storage that a pickle names: a run of elements somewhere else in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Storage {
    /// Its name in the file.
    pub(crate) key: String,
    /// Its type; `U8` where it is of bytes only.
    pub(crate) dtype: Dtype,
    /// Number of elements that it claims to hold.
    pub(crate) held: usize,
}

impl Storage {
    /// Number of bytes that it claims to hold, unless that overflows.
    pub(crate) fn bytes(&self) -> Option<u64> {
        (self.held as u64).checked_mul(self.dtype.bitsize() as u64 / 8)
    }
}

/// A tensor that a pickle describes: a view into a storage.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) storage: usize,
    pub(crate) view: View,
}

/// Index of a value in a [`Pickle`].
type Id = u32;

/// A value while the pickle runs. Lists and dicts hold indices, so that a value may be shared, and dropping one is never deep.
#[derive(Debug)]
enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits.
    Long(Box<i128>),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict {
        pairs: Vec<(Id, Id)>,
        ordered: bool,
    },
    Class(classes::Class),
    /// An element type of numpy, whose name comes first and byte order afterwards (BUILD).
    NumpyType {
        name: String,
        big_endian: bool,
    },
    Storage(usize),
    Tensor(usize),
}

impl Node {
    fn int(value: i128) -> Self {
        i64::try_from(value).map_or_else(|_| Self::Long(Box::new(value)), Self::Int)
    }

    /// The bytes that it takes, and those that hang on it.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Long(_) => size_of::<i128>(),
                Self::Str(text) => text.len(),
                Self::NumpyType { name, .. } => name.len(),
                Self::Bytes(bytes) => bytes.len(),
                Self::List(items) | Self::Tuple(items) => size_of_val(items.as_slice()),
                Self::Dict { pairs, .. } => size_of_val(pairs.as_slice()),
                _ => 0,
            }
    }

    /// Its name in errors.
    fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Long(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Str(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict { .. } => "a dict",
            Self::Class(_) => "a class",
            Self::NumpyType { .. } => "a numpy type",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// Location in a pickle, for errors.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// The pickle's name inside the file.
    pub(crate) part: String,
}

impl Place {
    pub(crate) fn new(path: &Path, part: impl Into<String>) -> Self {
        Self { path: path.into(), part: part.into() }
    }

    fn malformed(&self, at: u64, reason: impl std::fmt::Display) -> Error {
        let reason = format!("{reason}, at byte {at} of {}", self.part);
        Error::Malformed { path: self.path.clone(), format: "PyTorch", reason }
    }

    fn forbidden(&self, at: u64, what: String) -> Error {
        Error::ForbiddenPickle { path: self.path.clone(), part: self.part.clone(), at, what }
    }
}
