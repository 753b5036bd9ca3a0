//! Evaluates the allowed classes to storages, tensors, and plain values.

use super::classes::Class;
use super::machine::Machine;
use super::{Id, Node, Storage, Stored};
use crate::view::View;
use crate::{Dtype, Result};
use std::io::Read;

impl<R: Read> Machine<'_, R> {
    /// A persistent id: `("storage", class, key, location, elements)`, and before torch 1.6 a view, which must be none.
    pub(super) fn persistent(&mut self, id: Id) -> Result<Node> {
        let items = self.tuple_of("a persistent id", id)?.to_vec();
        let (&[tag, class, key, _location, held], rest) = match items.split_first_chunk::<5>() {
            Some(parts) => parts,
            None => return Err(self.input.malformed(format_args!("a storage is named by {} items of 5", items.len()))),
        };
        if !matches!(self.node(tag), Node::Str(tag) if tag == "storage") {
            return Err(self.input.malformed("a persistent id is not that of a storage"));
        }
        if rest.len() > 1 || rest.iter().any(|&view| !matches!(self.node(view), Node::None)) {
            return Err(self.input.malformed("a storage is a view of another storage, which is not read"));
        }
        let dtype = match self.node(class) {
            Node::Class(Class::Storage(dtype)) => *dtype,
            Node::Class(Class::UntypedStorage) => Dtype::U8,
            _ => return Err(self.refuse("the type of a storage", "a storage class", class)),
        };
        let Node::Str(key) = self.node(key) else { return Err(self.refuse("the key of a storage", "a text", key)) };
        let storage = Storage { key: key.clone(), dtype, held: self.count("the length of a storage", held)? };
        if let Some(&known) = self.pickle.by_key.get(&storage.key) {
            if self.pickle.storages.get(known) != Some(&storage) {
                return Err(self.input.malformed(format_args!("storage `{}` has two types or lengths", storage.key)));
            }
            return Ok(Node::Storage(known));
        }
        let index = self.pickle.storages.len();
        self.pickle.by_key.insert(storage.key.clone(), index);
        self.pickle.storages.push(storage);
        Ok(Node::Storage(index))
    }

    /// REDUCE: what a class makes of its arguments.
    pub(super) fn call(&mut self, callee: Id, arguments: Id) -> Result<Node> {
        let Node::Class(class) = *self.node(callee) else {
            return Err(self.refuse("what is called", "a class", callee));
        };
        let arguments = self.tuple_of("the arguments of a call", arguments)?.to_vec();
        match (class, arguments.as_slice()) {
            (Class::OrderedDict, []) => Ok(Node::Dict { pairs: Vec::new(), ordered: true }),
            (Class::OrderedDict, &[items]) => self.ordered(items),
            (Class::RebuildTensor, &[storage, offset, size, stride, ref rest @ ..]) if rest.len() <= 3 => {
                self.plain_bits(rest.get(2).copied())?;
                self.tensor(storage, None, [offset, size, stride])
            }
            (Class::RebuildTensorV3, &[storage, offset, size, stride, _grad, _hooks, dtype, ref rest @ ..])
                if rest.len() <= 1 =>
            {
                self.plain_bits(rest.first().copied())?;
                let Node::Class(Class::Type(dtype, _)) = *self.node(dtype) else {
                    return Err(self.refuse("the type of a tensor", "a torch.dtype", dtype));
                };
                self.tensor(storage, Some(dtype), [offset, size, stride])
            }
            (Class::RebuildParameter, &[tensor, ref rest @ ..]) if (2..=3).contains(&rest.len()) => {
                match *self.node(tensor) {
                    Node::Tensor(index) => Ok(Node::Tensor(index)),
                    _ => Err(self.refuse("a parameter", "a tensor", tensor)),
                }
            }
            (Class::Size, &[items]) => Ok(Node::Tuple(self.items_of("a size", items)?.to_vec())),
            (Class::Device, &[kind, ref index @ ..]) if index.len() <= 1 => self.device(kind, index.first().copied()),
            (Class::Encode, &[text, _encoding]) => self.latin1(text),
            (Class::NumpyType, &[name, ..]) => match self.node(name) {
                Node::Str(name) => Ok(Node::NumpyType { name: name.clone(), big_endian: false }),
                _ => Err(self.refuse("the name of a numpy type", "a text", name)),
            },
            (Class::NumpyScalar, &[kind, bytes]) => self.scalar(kind, bytes),
            (class, arguments) => {
                Err(self.input.malformed(format_args!("{class:?} is called with {} arguments", arguments.len())))
            }
        }
    }

    /// BUILD: the attributes of an OrderedDict (a state dict's versions) are passed over; a numpy type learns its byte order.
    pub(super) fn build(&mut self, target: Id, state: Id) -> Result<()> {
        match self.node(target) {
            Node::Dict { ordered: true, .. } => match self.node(state) {
                Node::Dict { .. } => Ok(()),
                _ => Err(self.refuse("the state of an OrderedDict", "a dict", state)),
            },
            Node::NumpyType { .. } => {
                let order = self.tuple_of("the state of a numpy type", state)?.get(1).copied();
                let big = match order.map(|id| self.node(id)) {
                    Some(Node::Str(order)) if matches!(order.as_str(), "<" | "|" | "=" | ">") => order == ">",
                    _ => return Err(self.input.malformed("a numpy type without a byte order")),
                };
                if let Node::NumpyType { big_endian, .. } = self.pickle.node_mut(target) {
                    *big_endian = big;
                }
                Ok(())
            }
            other => {
                Err(self.input.malformed(format_args!("attributes are set on {}, not on an OrderedDict", other.kind())))
            }
        }
    }

    fn tensor(&mut self, storage: Id, dtype: Option<Dtype>, layout: [Id; 3]) -> Result<Node> {
        let Node::Storage(storage) = *self.node(storage) else {
            return Err(self.refuse("what a tensor views", "a storage", storage));
        };
        let [offset, size, stride] = layout;
        let offset = self.count("the offset of a tensor", offset)?;
        let (shape, strides) =
            (self.counts("the size of a tensor", size)?, self.counts("the stride of a tensor", stride)?);
        let stored = self.pickle.storages.get(storage);
        let stored = stored.ok_or_else(|| self.input.malformed("a tensor views a storage that is not there"))?;
        let dtype = dtype.unwrap_or(stored.dtype);
        let bytes = stored.bytes().ok_or_else(|| self.input.malformed("a storage is larger than any file"))?;
        let held = (bytes / (dtype.bitsize() as u64 / 8)) as usize;
        let view = View::new(dtype, shape, strides, offset, held).map_err(|why| self.input.malformed(why))?;
        self.pay(size_of::<Stored>() + 2 * size_of_val(view.shape.as_slice()))?;
        self.pickle.tensors.push(Stored { storage, view });
        Ok(Node::Tensor(self.pickle.tensors.len() - 1))
    }

    /// A tensor may be marked as negated or conjugated, its stored values being the other ones.
    fn plain_bits(&self, metadata: Option<Id>) -> Result<()> {
        match metadata.map(|id| self.node(id)) {
            None | Some(Node::None) => Ok(()),
            Some(Node::Dict { pairs, .. }) if pairs.is_empty() => Ok(()),
            Some(_) => Err(self.input.malformed("a tensor is stored negated or conjugated, which is not read")),
        }
    }

    /// An OrderedDict from a list of pairs, as Python 2 wrote it.
    fn ordered(&self, items: Id) -> Result<Node> {
        let items = self.items_of("the content of an OrderedDict", items)?;
        let pair = |&id: &Id| match self.items_of("an item of an OrderedDict", id)? {
            &[key, value] => Ok((key, value)),
            other => Err(self.input.malformed(format_args!("an item of an OrderedDict has {} parts", other.len()))),
        };
        Ok(Node::Dict { pairs: items.iter().map(pair).collect::<Result<_>>()?, ordered: true })
    }

    fn device(&self, kind: Id, index: Option<Id>) -> Result<Node> {
        match (self.node(kind), index.map(|id| self.node(id))) {
            (Node::Str(kind), None) => Ok(Node::Str(kind.clone())),
            (Node::Str(kind), Some(Node::Int(index))) => Ok(Node::Str(format!("{kind}:{index}"))),
            _ => Err(self.refuse("a device", "a name", kind)),
        }
    }

    fn latin1(&self, text: Id) -> Result<Node> {
        let Node::Str(text) = self.node(text) else { return Err(self.refuse("what is encoded", "a text", text)) };
        let byte = |c: char| u8::try_from(u32::from(c));
        let bytes = text.chars().map(byte).collect::<std::result::Result<_, _>>();
        bytes.map(Node::Bytes).map_err(|_| self.input.malformed("bytes are written as text that is not Latin-1"))
    }

    fn scalar(&self, kind: Id, bytes: Id) -> Result<Node> {
        let (Node::NumpyType { name, big_endian }, Node::Bytes(bytes)) = (self.node(kind), self.node(bytes)) else {
            return Err(self.input.malformed("a numpy scalar is not made of a type and bytes"));
        };
        let mut bytes = bytes.clone();
        if *big_endian {
            bytes.reverse();
        }
        let value = match (name.as_str(), bytes.as_slice()) {
            ("f8", &[a, b, c, d, e, f, g, h]) => Node::Float(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
            ("f4", &[a, b, c, d]) => Node::Float(f32::from_le_bytes([a, b, c, d]).into()),
            ("f2", &[a, b]) => Node::Float(half::f16::from_le_bytes([a, b]).into()),
            ("i8", &[a, b, c, d, e, f, g, h]) => Node::Int(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
            ("u8", &[a, b, c, d, e, f, g, h]) => Node::int(u64::from_le_bytes([a, b, c, d, e, f, g, h]).into()),
            ("i4", &[a, b, c, d]) => Node::Int(i32::from_le_bytes([a, b, c, d]).into()),
            ("u4", &[a, b, c, d]) => Node::Int(u32::from_le_bytes([a, b, c, d]).into()),
            ("i2", &[a, b]) => Node::Int(i16::from_le_bytes([a, b]).into()),
            ("u2", &[a, b]) => Node::Int(u16::from_le_bytes([a, b]).into()),
            ("i1", &[a]) => Node::Int(i8::from_le_bytes([a]).into()),
            ("u1", &[a]) => Node::Int(a.into()),
            ("b1", &[a]) => Node::Bool(a != 0),
            _ => {
                return Err(self
                    .input
                    .malformed(format_args!("a numpy scalar of type `{name}` in {} bytes", bytes.len())));
            }
        };
        Ok(value)
    }

    fn tuple_of(&self, what: &str, id: Id) -> Result<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) => Ok(items),
            _ => Err(self.refuse(what, "a tuple", id)),
        }
    }

    fn items_of(&self, what: &str, id: Id) -> Result<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => Ok(items),
            _ => Err(self.refuse(what, "a tuple", id)),
        }
    }

    fn count(&self, what: &str, id: Id) -> Result<usize> {
        let Node::Int(n) = *self.node(id) else { return Err(self.refuse(what, "a count", id)) };
        usize::try_from(n).map_err(|_| self.input.malformed(format_args!("{what} is {n}")))
    }

    fn counts(&self, what: &str, id: Id) -> Result<Vec<usize>> {
        self.items_of(what, id)?.iter().map(|&n| self.count(what, n)).collect()
    }
}
