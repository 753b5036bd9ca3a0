/// Values of a pickle other than tensors, as plain data.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Python's None.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number; more than 64 bits occur as seeds.
    Int(i128),
    /// A number.
    Float(f64),
    /// A text; also a `torch.device` or a `torch.dtype` (`torch.float32`).
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A tuple, or a `torch.Size`.
    Tuple(Vec<Value>),
    /// A dict, in its order. Keys are texts or whole numbers, each once.
    Dict(Vec<(Value, Value)>),
    /// A tensor: the name that reads it from the [`TensorFile`](crate::TensorFile).
    Tensor(String),
}

impl Value {
    /// The value under a text key of a dict.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Self::Dict(pairs) = self else { return None };
        pairs.iter().find(|(k, _)| matches!(k, Value::Str(text) if text == key)).map(|(_, value)| value)
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// The whole number, if it is one that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Int(n) = self { i64::try_from(*n).ok() } else { None }
    }

    /// The number, whole or not.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The items of a list or a tuple.
    #[must_use]
    pub fn items(&self) -> Option<&[Value]> {
        if let Self::List(items) | Self::Tuple(items) = self { Some(items) } else { None }
    }
}
