use super::{Id, Node, Pickle, Place, Value};
use crate::Result;
use std::collections::HashSet;

/// A pickle's values as a tree of plain data, and its tensors by name.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) value: Value,
    /// Each tensor's name (the keys to it, joined by dots) and its index in [`Pickle::tensors`].
    pub(crate) tensors: Vec<(String, usize)>,
}

/// Deeper trees are refused: no checkpoint needs more, and recursion must end.
const DEEPEST: usize = 64;
/// A tree may take this many bytes, and `PER_BYTE` more for each byte of pickle: shared values are copied out, within reason.
const FREE: u64 = 2 << 20;
const PER_BYTE: u64 = 32;
/// A pair of a dict: two values, and the key once more where keys are compared.
const PAIR: usize = 2 * size_of::<Value>() + 96;

impl Tree {
    /// Copies a pickle's values out; `len` is the pickle's length.
    pub(crate) fn new(pickle: &Pickle, len: u64, place: &Place) -> Result<Self> {
        let mut grower = Grower {
            pickle,
            place,
            len,
            left: FREE + PER_BYTE * len,
            name: String::new(),
            tensors: Vec::new(),
            names: HashSet::new(),
        };
        let value = grower.grow(pickle.root, 0)?;
        Ok(Self { value, tensors: grower.tensors })
    }
}

struct Grower<'a> {
    pickle: &'a Pickle,
    place: &'a Place,
    len: u64,
    /// Bytes that the tree may still take.
    left: u64,
    /// The keys to where it grows.
    name: String,
    tensors: Vec<(String, usize)>,
    names: HashSet<String>,
}

impl Grower<'_> {
    fn grow(&mut self, id: Id, depth: usize) -> Result<Value> {
        if depth > DEEPEST {
            return Err(self.wrong(format!("values are nested deeper than {DEEPEST}, or hold themselves")));
        }
        let pickle = self.pickle;
        Ok(match pickle.node(id) {
            Node::None => Value::None,
            Node::Bool(flag) => Value::Bool(*flag),
            Node::Int(n) => Value::Int((*n).into()),
            Node::Long(n) => Value::Int(**n),
            Node::Float(x) => Value::Float(*x),
            Node::Str(text) => {
                self.pay(text.len())?;
                Value::Str(text.clone())
            }
            Node::Bytes(bytes) => {
                self.pay(bytes.len())?;
                Value::Bytes(bytes.clone())
            }
            Node::List(items) => Value::List(self.items(items, depth)?),
            Node::Tuple(items) => Value::Tuple(self.items(items, depth)?),
            Node::Dict { pairs, .. } => self.dict(pairs, depth)?,
            Node::Tensor(index) => self.tensor(*index)?,
            Node::Class(super::classes::Class::Type(_, name)) => Value::Str((*name).into()),
            other => return Err(self.wrong(format!("{} is left as a value", other.kind()))),
        })
    }

    fn items(&mut self, items: &[Id], depth: usize) -> Result<Vec<Value>> {
        self.pay(size_of::<Value>() * items.len())?;
        let mut grown = Vec::with_capacity(items.len());
        for (i, &item) in items.iter().enumerate() {
            grown.push(self.under(&i.to_string(), item, depth)?);
        }
        Ok(grown)
    }

    fn dict(&mut self, pairs: &[(Id, Id)], depth: usize) -> Result<Value> {
        self.pay(PAIR * pairs.len())?;
        let mut keys = HashSet::with_capacity(pairs.len());
        let mut grown = Vec::with_capacity(pairs.len());
        for &(key, value) in pairs {
            let key = self.grow(key, depth + 1)?;
            let name = match &key {
                Value::Str(text) => text.clone(),
                Value::Int(n) => n.to_string(),
                _ => return Err(self.wrong("a key of a dict is neither a text nor a whole number".into())),
            };
            self.pay(name.len())?;
            let value = self.under(&name, value, depth)?;
            if !keys.insert((matches!(key, Value::Str(_)), name)) {
                return Err(self.wrong(format!("a dict has the key {key:?} twice")));
            }
            grown.push((key, value));
        }
        Ok(Value::Dict(grown))
    }

    fn under(&mut self, key: &str, id: Id, depth: usize) -> Result<Value> {
        let before = self.name.len();
        if depth > 0 {
            self.name.push('.');
        }
        self.name.push_str(key);
        let value = self.grow(id, depth + 1)?;
        self.name.truncate(before);
        Ok(value)
    }

    fn tensor(&mut self, index: usize) -> Result<Value> {
        // A file of one tensor and nothing else: it has no key.
        let name = if self.name.is_empty() { "tensor".to_owned() } else { self.name.clone() };
        self.pay(5 * name.len() + 160)?;
        if !self.names.insert(name.clone()) {
            return Err(self.wrong(format!("two tensors are named `{name}`")));
        }
        self.tensors.push((name.clone(), index));
        Ok(Value::Tensor(name))
    }

    fn pay(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                Err(self
                    .wrong(format!("its values take more than {} bytes when copied out", FREE + PER_BYTE * self.len)))
            }
        }
    }

    fn wrong(&self, reason: String) -> crate::Error {
        self.place.malformed(self.len, reason)
    }
}
