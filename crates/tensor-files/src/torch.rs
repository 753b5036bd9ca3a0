use crate::bytes::Bytes;
use crate::pickle::{self, Input, Pickle, Place, Tree, Value};
use crate::view::View;
use crate::zip::{self, Entry};
use crate::{Error, Result, TensorFile};
use std::collections::HashMap;
use std::path::Path;

/// Start of files of torch before 1.6: a pickle of one long number.
pub(crate) const LEGACY_MAGIC: [u8; 15] = *b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// An opened file of `torch.save` (`.pt`, `.pth`, `.bin`): its values as plain data, its tensors on demand.
///
/// The pickle inside is read by a machine that knows no code: it builds None, truth values, numbers, texts, bytes, lists, tuples and dicts,
/// and of all classes and functions only these, none of which it calls:
///
/// * `torch._utils._rebuild_tensor`, `_rebuild_tensor_v2`, `_rebuild_tensor_v3`, `_rebuild_parameter`, `_rebuild_parameter_with_state`
/// * `torch.FloatStorage` and the storages of f64, f16, bf16, i64, i32, i16, i8, u8 and bool (also under `torch.cuda`), `torch.storage.UntypedStorage`
/// * `collections.OrderedDict`, `torch.Size`, `torch.device`, `torch.float32` and the other types
/// * `_codecs.encode` (bytes), `numpy.dtype` and `numpy.core.multiarray.scalar` (a number)
///
/// Anything else is [`Error::ForbiddenPickle`], which names it. A whole pickled module is refused: its state dict is what can be read.
///
/// A tensor's name is the keys to it, joined by dots; a file of one tensor alone calls it `tensor`.
/// Views (transposed, sliced, shared storages) are read as they look. Storages are read from the file when asked for: peak memory is the
/// tensor asked for. Checksums are not compared, because torch may be told not to write them.
///
/// Formats: the zip of torch 1.6 and later, stored, and the plain pickles before it.
#[derive(Debug)]
pub struct TorchFile {
    file: Bytes,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    values: Value,
}

#[derive(Debug)]
struct Tensor {
    name: String,
    view: View,
    /// Offset of its storage in the file.
    at: u64,
}

impl TorchFile {
    /// Opens `path`, reads its pickle and checks that every tensor lies inside its storage and every storage inside the file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Malformed`] when a check fails, [`Error::ForbiddenPickle`] for what is not allowed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = Bytes::open(path.as_ref(), "PyTorch")?;
        let mut start = [0; LEGACY_MAGIC.len()];
        if file.len() >= start.len() as u64 {
            file.read_at(0, &mut start)?;
        }
        if start == LEGACY_MAGIC { Self::open_legacy(file) } else { Self::open_zip(file) }
    }

    /// All values of the file as a tree, tensors by their names.
    #[must_use]
    pub fn values(&self) -> &Value {
        &self.values
    }

    fn open_zip(file: Bytes) -> Result<Self> {
        let entries = zip::directory(&file)?;
        let mut pickles = entries.iter().filter(|entry| is_pickle(&entry.name));
        let (Some(entry), None) = (pickles.next(), pickles.next()) else {
            let count = entries.iter().filter(|entry| is_pickle(&entry.name)).count();
            return Err(file.malformed(format!("{count} entries are named data.pkl in a folder, one is due")));
        };
        let entry_of: HashMap<&str, &Entry> = entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let folder = entry.name.strip_suffix("data.pkl").unwrap_or_default();
        let big_endian = match entry_of.get(format!("{folder}byteorder").as_str()) {
            None => false,
            Some(entry) => is_big_endian(&file, entry)?,
        };
        stored(&file, entry)?;
        let place = Place::new(file.path(), &entry.name);
        let mut input = Input::new(file.section(entry.at, entry.size), entry.size, place.clone());
        let pickle = pickle::read(&mut input)?;
        let mut starts = Vec::with_capacity(pickle.storages.len());
        for storage in &pickle.storages {
            let name = format!("{folder}data/{}", storage.key);
            let Some(entry) = entry_of.get(name.as_str()) else {
                return Err(file.malformed(format!("the storage `{name}` is missing")));
            };
            stored(&file, entry)?;
            if storage.bytes() != Some(entry.size) {
                let due = format!("{} values of {:?}", storage.held, storage.dtype);
                return Err(
                    file.malformed(format!("the storage `{name}` should hold {due} and has {} bytes", entry.size))
                );
            }
            starts.push(entry.at);
        }
        let len = input.at();
        drop(input);
        Self::new(file, pickle, len, &place, &starts, big_endian)
    }

    /// Five pickles (magic, version, system, values, the storages' keys), then each storage: its length and its bytes.
    fn open_legacy(file: Bytes) -> Result<Self> {
        let place = Place::new(file.path(), "the pickle");
        let mut input =
            Input::new(file.section(0, file.len()), file.len(), Place::new(file.path(), "the file's start"));
        input.take::<{ LEGACY_MAGIC.len() }>()?;
        let mut plain = |part: &str| -> Result<(Pickle, u64)> {
            input.enter(part);
            let from = input.at();
            let pickle = pickle::read(&mut input)?;
            let len = input.at() - from;
            Ok((pickle, len))
        };
        let tree = |(pickle, len): (Pickle, u64)| Tree::new(&pickle, len, &place).map(|tree| tree.value);
        let version: Value = plain("the version").and_then(tree)?;
        if version.as_i64() != Some(1001) {
            return Err(file.malformed(format!("version {version:?} of the format before torch 1.6; 1001 is read")));
        }
        let system: Value = plain("the system").and_then(tree)?;
        let Some(little_endian) = system.get("little_endian").and_then(Value::as_bool) else {
            return Err(file.malformed("the byte order is missing"));
        };
        let (pickle, len) = plain("the pickle")?;
        let keys: Value = plain("the storages' keys").and_then(tree)?;
        let mut at = input.at();
        drop(input);
        let mut starts = vec![None; pickle.storages.len()];
        for key in keys.items().unwrap_or_default() {
            let index = key.as_str().and_then(|key| pickle.storage(key));
            let found = index.and_then(|index| Some((pickle.storages.get(index)?, starts.get_mut(index)?)));
            let Some((storage, start)) = found.filter(|(_, start)| start.is_none()) else {
                return Err(file.malformed(format!("the storage {key:?} is used by nothing, or twice there")));
            };
            let mut held = [0; 8];
            let fits =
                storage.bytes().and_then(|bytes| at.checked_add(8)?.checked_add(bytes)).filter(|&to| to <= file.len());
            let Some(to) = fits else {
                return Err(file.malformed(format!("the storage `{}` goes beyond the file", storage.key)));
            };
            file.read_at(at, &mut held)?;
            let held = if little_endian { u64::from_le_bytes(held) } else { u64::from_be_bytes(held) };
            if held != storage.held as u64 {
                return Err(file.malformed(format!(
                    "the storage `{}` holds {held} values, {} are due",
                    storage.key, storage.held
                )));
            }
            *start = Some(at + 8);
            at = to;
        }
        let starts: Option<Vec<u64>> = starts.into_iter().collect();
        let starts = starts.ok_or_else(|| file.malformed("a storage is missing"))?;
        Self::new(file, pickle, len, &place, &starts, !little_endian)
    }

    fn new(file: Bytes, mut pickle: Pickle, len: u64, place: &Place, starts: &[u64], big_endian: bool) -> Result<Self> {
        let tree = Tree::new(&pickle, len, place)?;
        pickle.tensors.iter_mut().for_each(|tensor| tensor.view.big_endian = big_endian);
        let tensor = |(name, i): (String, usize)| {
            let stored = pickle.tensors.get(i)?;
            Some(Tensor { name, view: stored.view.clone(), at: *starts.get(stored.storage)? })
        };
        let tensors: Option<Vec<Tensor>> = tree.tensors.into_iter().map(tensor).collect();
        let tensors = tensors.ok_or_else(|| file.malformed("the storage of a tensor is missing"))?;
        let by_name = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Ok(Self { file, tensors, by_name, values: tree.value })
    }

    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).and_then(|&i| self.tensors.get(i))
    }

    fn require(&self, name: &str, expected: &[usize]) -> Result<&Tensor> {
        let tensor = self.tensor(name).ok_or_else(|| Error::missing(self.file.path(), name, &self.names()))?;
        if tensor.view.shape != expected {
            return Err(Error::shape(self.file.path(), name, expected, &tensor.view.shape));
        }
        Ok(tensor)
    }
}

/// Whether an entry of an archive is torch's pickle: `data.pkl` in one folder, named after the file.
pub(crate) fn is_pickle(name: &str) -> bool {
    name.strip_suffix("/data.pkl").is_some_and(|folder| !folder.contains('/'))
}

fn stored(file: &Bytes, entry: &Entry) -> Result<()> {
    if entry.deflated {
        return Err(file.malformed(format!(
            "`{}` is compressed; torch stores, so that tensors can be read where they lie",
            entry.name
        )));
    }
    Ok(())
}

fn is_big_endian(file: &Bytes, entry: &Entry) -> Result<bool> {
    stored(file, entry)?;
    let mut word = vec![0; entry.size.min(8) as usize];
    file.read_at(entry.at, &mut word)?;
    match word.as_slice() {
        b"little" => Ok(false),
        b"big" => Ok(true),
        other => Err(file.malformed(format!("the byte order is {:?}", String::from_utf8_lossy(other)))),
    }
}

impl TensorFile for TorchFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|tensor| tensor.name.clone()).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensor(name).map(|tensor| tensor.view.shape.clone())
    }

    fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.require(name, expected)?;
        tensor.view.floats(self.file.path(), name, &mut |byte, out| self.file.read_at(tensor.at + byte, out))
    }

    fn read_i64(&self, name: &str, expected: &[usize]) -> Result<Vec<i64>> {
        let tensor = self.require(name, expected)?;
        tensor.view.integers(self.file.path(), name, &mut |byte, out| self.file.read_at(tensor.at + byte, out))
    }
}
