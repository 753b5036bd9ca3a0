use crate::bytes::Bytes;
use crate::npy::NpyHeader;
use crate::view::View;
use crate::zip::{self, Entry, EntryReader};
use crate::{Dtype, Error, Result, TensorFile};
use std::collections::HashMap;
use std::path::Path;

/// numpy itself refuses headers above 10,000 bytes.
const MAX_HEADER: u64 = 16 << 10;

/// An opened `.npz` file: numpy's arrays in a zip, stored (`numpy.savez`) or deflated (`numpy.savez_compressed`).
///
/// Read are f64, f32, f16 and bfloat16 (as [`TensorFile::read_f32`]) and whole numbers and truth values (as [`TensorFile::read_i64`]), of
/// either byte order and either order of rows and columns. Arrays of other types can be named but not read; in particular no
/// pickled object is opened. Checksums are compared.
///
/// Format: numpy's `numpy.lib.format`, versions 1 to 3.
#[derive(Debug)]
pub struct NpzFile {
    file: Bytes,
    arrays: Vec<Array>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Array {
    name: String,
    entry: Entry,
    header: NpyHeader,
    /// Offset of its values in the entry.
    start: u64,
    /// Their layout, if the type is supported.
    view: Option<View>,
}

impl NpzFile {
    /// Opens `path` and checks its directory and the header of every array: names, shapes, and that each entry is as long as its shape says.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Malformed`] when any check fails.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = Bytes::open(path.as_ref(), "npz")?;
        let (mut arrays, mut by_name) = (Vec::new(), HashMap::new());
        for entry in zip::directory(&file)? {
            let array = Array::open(&file, entry)?;
            if by_name.insert(array.name.clone(), arrays.len()).is_some() {
                return Err(file.malformed(format!("two arrays are named `{}`", array.name)));
            }
            arrays.push(array);
        }
        Ok(Self { file, arrays, by_name })
    }

    /// The type of an array as numpy writes it (`<f4`), if the file holds the array.
    #[must_use]
    pub fn descr(&self, name: &str) -> Option<&str> {
        self.array(name).map(|array| array.header.descr.as_str())
    }

    fn array(&self, name: &str) -> Option<&Array> {
        self.by_name.get(name).and_then(|&i| self.arrays.get(i))
    }

    /// The view of an array of the expected shape, and a stream positioned at its first value.
    fn values(&self, name: &str, expected: &[usize], types: &'static str) -> Result<(&View, EntryReader<'_>)> {
        let path = self.file.path();
        let array = self.array(name).ok_or_else(|| Error::missing(path, name, &self.names()))?;
        if array.header.shape != expected {
            return Err(Error::shape(path, name, expected, &array.header.shape));
        }
        let Some(view) = &array.view else {
            let found = array.header.descr.clone();
            return Err(Error::Dtype { path: path.into(), name: name.into(), expected: types, found });
        };
        let mut stream = EntryReader::new(&self.file, &array.entry);
        stream.fill(&mut vec![0; array.start as usize])?;
        Ok((view, stream))
    }
}

impl Array {
    fn open(file: &Bytes, entry: Entry) -> Result<Self> {
        let wrong = |reason: String| file.malformed(format!("array `{}`: {reason}", entry.name));
        let mut stream = EntryReader::new(file, &entry);
        let mut magic = [0; 8];
        if entry.size < 10 {
            return Err(wrong(format!("{} bytes are too few for a header", entry.size)));
        }
        stream.fill(&mut magic)?;
        if !magic.starts_with(b"\x93NUMPY") {
            return Err(wrong("it does not start as a numpy array does".into()));
        }
        let (start, length) = match magic[6] {
            1 => {
                let mut length = [0; 2];
                stream.fill(&mut length)?;
                (10, u64::from(u16::from_le_bytes(length)))
            }
            2 | 3 => {
                let mut length = [0; 4];
                stream.fill(&mut length)?;
                (12, u64::from(u32::from_le_bytes(length)))
            }
            other => return Err(wrong(format!("version {other} of numpy's format; 1 to 3 are read"))),
        };
        // A deflated entry may be longer than it says, so that `start` may lie beyond the stated end.
        let most = MAX_HEADER.min(entry.size.saturating_sub(start));
        if length > most {
            return Err(wrong(format!("its header claims {length} bytes, at most {most} are possible")));
        }
        let mut text = vec![0; length as usize];
        stream.fill(&mut text)?;
        let text = String::from_utf8(text).map_err(|e| wrong(format!("its header is not text: {e}")))?;
        let header = NpyHeader::parse(&text).map_err(wrong)?;
        let start = start + length;
        let view = header.kind.map(|kind| Self::view(&header, kind, entry.size - start)).transpose().map_err(wrong)?;
        let name = entry.name.strip_suffix(".npy").unwrap_or(&entry.name).to_owned();
        Ok(Self { name, entry, header, start, view })
    }

    fn view(header: &NpyHeader, (dtype, big_endian): (Dtype, bool), held: u64) -> std::result::Result<View, String> {
        let mut view = View::dense(dtype, header.shape.clone(), header.by_column)?;
        view.big_endian = big_endian;
        let due = (view.count() * view.width()) as u64;
        if due != held {
            return Err(format!(
                "shape {:?} of `{}` takes {due} bytes, and {held} are there",
                header.shape, header.descr
            ));
        }
        Ok(view)
    }
}

impl TensorFile for NpzFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn names(&self) -> Vec<String> {
        self.arrays.iter().map(|array| array.name.clone()).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.array(name).map(|array| array.header.shape.clone())
    }

    fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let (view, mut stream) = self.values(name, expected, "f8, f4, f2 or bfloat16")?;
        // A dense view is fetched from its start to its end, so that a stream will do.
        let values = view.floats(self.file.path(), name, &mut |_, out| stream.fill(out))?;
        stream.finish()?;
        Ok(values)
    }

    fn read_i64(&self, name: &str, expected: &[usize]) -> Result<Vec<i64>> {
        let (view, mut stream) = self.values(name, expected, "i8, i4, i2, i1, u4, u2, u1 or b1")?;
        let values = view.integers(self.file.path(), name, &mut |_, out| stream.fill(out))?;
        stream.finish()?;
        Ok(values)
    }
}
