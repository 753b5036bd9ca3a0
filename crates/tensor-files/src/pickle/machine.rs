use super::classes::Class;
use super::{Id, Input, Node, Storage, Stored};
use crate::{Error, Result};
use std::collections::HashMap;
use std::io::Read;

/// Result of a pickle: its values, and the storages and tensors that it names.
#[derive(Debug, Default)]
pub(crate) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    pub(crate) storages: Vec<Storage>,
    pub(crate) tensors: Vec<Stored>,
    pub(super) by_key: HashMap<String, usize>,
}

impl Pickle {
    /// The index of the storage of a key.
    pub(crate) fn storage(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    #[expect(clippy::indexing_slicing, reason = "only `Machine::add` makes ids, and no value is ever removed")]
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "as in `node`")]
    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }
}

/// Memory limit of the values of a pickle: `FREE` bytes, and `PER_BYTE` for each byte of the pickle. A call may copy its argument any number of times.
/// A state dict needs 5 bytes for each of its bytes; a list of small numbers 16.
const FREE: u64 = 4 << 20;
const PER_BYTE: u64 = 16;

/// Values that many may share because nothing changes them.
const SHARED: [Node; 4] = [Node::None, Node::Bool(true), Node::Bool(false), Node::Tuple(Vec::new())];
const NONE: Id = 0;
const TRUE: Id = 1;
const FALSE: Id = 2;
const EMPTY: Id = 3;

/// Runs the pickle at the start of `input`.
///
/// # Errors
/// [`Error::ForbiddenPickle`] for a class or an opcode that is not allowed, [`Error::Malformed`] for a pickle that makes no sense.
pub(crate) fn read<R: Read>(input: &mut Input<R>) -> Result<Pickle> {
    let pickle = Pickle { nodes: SHARED.into(), ..Pickle::default() };
    let from = input.at();
    let mut machine =
        Machine { input, from, spent: 0, pickle, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    while machine.step()? {}
    let root = machine.pop()?;
    if !machine.stack.is_empty() {
        return Err(machine.input.malformed("values are left on the stack where the pickle stops"));
    }
    Ok(Pickle { root, ..machine.pickle })
}

pub(super) struct Machine<'a, R> {
    pub(super) input: &'a mut Input<R>,
    /// Offset of the pickle.
    from: u64,
    /// Bytes that its values take.
    spent: u64,
    pub(super) pickle: Pickle,
    stack: Vec<Id>,
    /// Heights of the stack where MARK stood.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<R: Read> Machine<'_, R> {
    /// One opcode; false at STOP.
    fn step(&mut self) -> Result<bool> {
        let at = self.input.at();
        let [opcode] = self.input.take()?;
        match opcode {
            b'.' => return Ok(false),
            0x80 => self.protocol()?,
            0x95 => {
                let len = self.u64()?;
                self.input.room(len)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(opcode)?,
            b'N' => self.stack.push(NONE),
            0x88 => self.stack.push(TRUE),
            0x89 => self.stack.push(FALSE),
            b'K' | b'M' | b'J' | 0x8a | 0x8b => self.integer(opcode)?,
            b'G' => {
                let value = f64::from_be_bytes(self.input.take()?);
                self.push(Node::Float(value))?;
            }
            b'X' | 0x8c | 0x8d => self.text(opcode)?,
            b'T' | b'U' | b'B' | b'C' | 0x8e => self.bytes(opcode)?,
            b']' | b'l' | b'a' | b'e' => self.list(opcode)?,
            b')' | b't' | 0x85..=0x87 => self.tuple(opcode)?,
            b'}' | b'd' | b's' | b'u' => self.dict(opcode)?,
            b'c' | 0x93 => self.class(opcode, at)?,
            b'Q' => {
                let id = self.pop()?;
                let storage = self.persistent(id)?;
                self.push(storage)?;
            }
            b'R' => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let made = self.call(class, arguments)?;
                self.push(made)?;
            }
            b'b' => {
                let (state, target) = (self.pop()?, self.top()?);
                self.build(target, state)?;
            }
            other => return Err(self.input.place().forbidden(at, opcode_name(other))),
        }
        Ok(true)
    }

    fn protocol(&mut self) -> Result<()> {
        match self.input.take()? {
            [2..=5] => Ok(()),
            [other] => Err(self.input.malformed(format_args!("pickle protocol {other}; 2 to 5 are read"))),
        }
    }

    fn u32(&mut self) -> Result<u32> {
        self.input.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.input.take().map(u64::from_le_bytes)
    }

    fn u8(&mut self) -> Result<u8> {
        self.input.take().map(|[byte]| byte)
    }

    /// The index of a new value. There are fewer values than bytes of pickle (and four), so that the index fits.
    fn add(&mut self, node: Node) -> Result<Id> {
        self.pay(node.bytes())?;
        let nodes = &mut self.pickle.nodes;
        // By a quarter: twice as much for a moment, and empty afterwards, is too much for a list of lists.
        if nodes.len() == nodes.capacity() {
            nodes.reserve_exact(nodes.len() / 4 + 64);
        }
        nodes.push(node);
        Ok((nodes.len() - 1) as Id)
    }

    /// Counts what a value takes.
    pub(super) fn pay(&mut self, bytes: usize) -> Result<()> {
        self.spent += bytes as u64;
        let most = FREE + PER_BYTE * (self.input.at() - self.from);
        match self.spent <= most {
            true => Ok(()),
            false => Err(self.input.malformed(format_args!("its values take more than {most} bytes"))),
        }
    }

    fn push(&mut self, node: Node) -> Result<()> {
        let id = self.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        self.pickle.node(id)
    }

    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().copied().filter(|_| self.stack.len() > floor);
        top.ok_or_else(|| self.input.malformed("the pickle takes a value from an empty stack"))
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let Some(mark) = self.marks.pop() else { return Err(self.input.malformed("there is no mark to go back to")) };
        Ok(self.stack.split_off(mark))
    }

    fn memo(&mut self, opcode: u8) -> Result<()> {
        let index = match opcode {
            b'q' | b'h' => u32::from(self.u8()?),
            b'r' | b'j' => self.u32()?,
            // The memo has fewer entries than the pickle bytes.
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let found = self.memo.get(&index).copied();
            let id =
                found.ok_or_else(|| self.input.malformed(format_args!("number {index} of the memo was never set")))?;
            self.stack.push(id);
        } else {
            self.memo.insert(index, self.top()?);
        }
        Ok(())
    }

    fn integer(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            b'K' => self.u8()?.into(),
            b'M' => u16::from_le_bytes(self.input.take()?).into(),
            b'J' => i32::from_le_bytes(self.input.take()?).into(),
            _ => {
                let len = if opcode == 0x8a { self.u8()?.into() } else { self.u32()?.into() };
                self.input.room(len)?;
                if len > 16 {
                    return Err(self.input.malformed(format_args!("an integer of {len} bytes; at most 16 are read")));
                }
                let bytes = self.input.bytes(len)?;
                let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 };
                let mut whole = [sign; 16];
                whole.iter_mut().zip(bytes).for_each(|(whole, byte)| *whole = byte);
                i128::from_le_bytes(whole)
            }
        };
        self.push(Node::int(value))?;
        Ok(())
    }

    fn text(&mut self, opcode: u8) -> Result<()> {
        let len = match opcode {
            b'X' => self.u32()?.into(),
            0x8c => self.u8()?.into(),
            _ => self.u64()?,
        };
        let text = self.input.text(len)?;
        self.push(Node::Str(text))?;
        Ok(())
    }

    /// Bytes; Python 2's texts (T, U) are texts where they are UTF-8.
    fn bytes(&mut self, opcode: u8) -> Result<()> {
        let len = match opcode {
            b'T' | b'B' => self.u32()?.into(),
            b'U' | b'C' => self.u8()?.into(),
            _ => self.u64()?,
        };
        let bytes = self.input.bytes(len)?;
        let node = match opcode {
            b'T' | b'U' => String::from_utf8(bytes).map_or_else(|e| Node::Bytes(e.into_bytes()), Node::Str),
            _ => Node::Bytes(bytes),
        };
        self.push(node)?;
        Ok(())
    }

    fn list(&mut self, opcode: u8) -> Result<()> {
        let items = match opcode {
            b']' => {
                self.push(Node::List(Vec::new()))?;
                return Ok(());
            }
            b'a' => vec![self.pop()?],
            _ => self.pop_to_mark()?,
        };
        if opcode == b'l' {
            self.push(Node::List(items))?;
            return Ok(());
        }
        let target = self.top()?;
        match self.pickle.node_mut(target) {
            Node::List(list) => list.extend(items),
            other => return Err(self.input.malformed(format_args!("items are appended to {}", other.kind()))),
        }
        Ok(())
    }

    fn tuple(&mut self, opcode: u8) -> Result<()> {
        let mut items = match opcode {
            b')' => {
                self.stack.push(EMPTY);
                return Ok(());
            }
            b't' => self.pop_to_mark()?,
            _ => (0..=opcode - 0x85).map(|_| self.pop()).collect::<Result<_>>()?,
        };
        if opcode >= 0x85 {
            items.reverse();
        }
        self.push(Node::Tuple(items))?;
        Ok(())
    }

    fn dict(&mut self, opcode: u8) -> Result<()> {
        let items = match opcode {
            b'}' => Vec::new(),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            _ => self.pop_to_mark()?,
        };
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(self.input.malformed("a key of a dict has no value"));
        }
        let more = pairs.iter().map(|&[key, value]| (key, value));
        if matches!(opcode, b'}' | b'd') {
            let pairs = more.collect();
            self.push(Node::Dict { pairs, ordered: false })?;
            return Ok(());
        }
        let target = self.top()?;
        match self.pickle.node_mut(target) {
            Node::Dict { pairs, .. } => pairs.extend(more),
            other => return Err(self.input.malformed(format_args!("keys are set on {}", other.kind()))),
        }
        Ok(())
    }

    fn class(&mut self, opcode: u8, at: u64) -> Result<()> {
        let (module, name) = if opcode == b'c' {
            (self.input.line()?, self.input.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (self.node(module), self.node(name)) {
                (Node::Str(module), Node::Str(name)) => (module.clone(), name.clone()),
                (module, name) => {
                    let reason = format!("a class is named by {} and {}", module.kind(), name.kind());
                    return Err(self.input.malformed(reason));
                }
            }
        };
        let Some(class) = Class::find(&module, &name) else {
            let shown: String = format!("{module}.{name}").chars().take(200).collect();
            return Err(self.input.place().forbidden(at, format!("the class or function `{shown}`")));
        };
        self.push(Node::Class(class))?;
        Ok(())
    }

    pub(super) fn refuse(&self, what: &str, expected: &str, found: Id) -> Error {
        self.input.malformed(format_args!("{what} is {}, where {expected} is due", self.node(found).kind()))
    }
}

/// Opcodes that are known and refused, by name.
fn opcode_name(opcode: u8) -> String {
    let name = match opcode {
        b'i' => "INST, which calls",
        b'o' => "OBJ, which calls",
        0x81 => "NEWOBJ, which calls",
        0x92 => "NEWOBJ_EX, which calls",
        b'P' => "PERSID",
        0x82..=0x84 => "EXT, a class by a private number",
        0x96..=0x98 => "a buffer of protocol 5",
        0x8f..=0x91 => "a set",
        b'F' | b'I' | b'L' | b'S' | b'V' | b'g' | b'p' => "a text opcode of protocol 0",
        _ => "an unknown one",
    };
    format!("the opcode {opcode:#04x} ({name})")
}
