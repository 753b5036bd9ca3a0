//! Edits as data: a list that is saved beside results, and replayed.

mod entry;

pub use entry::{IndexRange, IndexSpec, Intervention, Op, Vector};

use crate::{Edit, Error, HookPoint, Interest, Result, Tap, TapContext};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use tensor_files::{SafetensorsFile, read_bounded, write_atomically};

/// Lists above this are refused; vectors that are longer belong in the file of tensors.
const MAX_BYTES: u64 = 64 << 20;
/// The format that is written; another is refused.
const VERSION: u32 = 1;

/// A list of edits that can be saved as JSON, loaded and replayed. Unknown keys and operations are refused.
///
/// ```json
/// {"version": 1, "tensors": "directions.safetensors", "interventions": [
///   {"point": "blocks.4.attn.hook_z", "op": "zero", "heads": [3, 5]},
///   {"point": "blocks.2.hook_resid_pre", "op": "add", "vector": "love", "factor": 4.0, "positions": {"from": 1}},
///   {"point": "blocks.3.hook_mlp_out", "op": "project_out", "vector": [0.1, -0.2, 0.3]}
/// ]}
/// ```
/// | `op` | reads | does |
/// |---|---|---|
/// | `zero` | | writes zeros |
/// | `scale` | `factor` | multiplies |
/// | `add` | `vector`, `factor` (1) | adds `factor * vector` |
/// | `project_out` | `vector` | takes the component along the vector out |
/// | `patch` | `vector` | replaces by the tensor, broadcast |
/// | `mean` | `vector` | replaces by the mean over the first axis of the tensor, activations of other rows |
///
/// `vector` is a list of numbers, or the name of a tensor in the safetensors file `tensors` in the list's own folder.
/// `rows`, `positions` and `heads` are lists, or ranges `{"from": 2, "to": 5}` (5 excluded; to the end without `to`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interventions {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tensors: Option<PathBuf>,
    /// The edits, in the order in which they are made.
    pub interventions: Vec<Intervention>,
}

impl Interventions {
    /// A list whose named vectors are in `tensors`, the name of a file in the folder where the list will lie.
    #[must_use]
    pub fn new(interventions: Vec<Intervention>, tensors: Option<PathBuf>) -> Self {
        Self { version: VERSION, tensors, interventions }
    }

    /// Reads a list.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Json`] for what is no such list, an unknown key or operation among it; [`Error::BadKey`] for another version.
    pub fn load(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.into(), source };
        let text = read_bounded(path, MAX_BYTES).map_err(io)?;
        let list: Self = serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.into(), source })?;
        if list.version != VERSION {
            let (key, expected, found) = ("version".into(), VERSION.to_string(), list.version.to_string());
            return Err(Error::BadKey { path: path.into(), key, expected, found });
        }
        Ok(list)
    }

    /// Writes the list, whole or not at all. Tensors that it names are the caller's to save beside it.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|source| Error::Json { path: path.into(), source })?;
        write_atomically(path, |file| file.write_all(&text).map_err(|source| Error::Io { path: path.into(), source }))
    }

    /// The edits, as a tap. `folder` is where the list lies; its tensors are read from there and from nowhere else.
    ///
    /// # Errors
    /// [`Error::BadIntervention`] with the place in the list: an unknown point, a vector or factor that is missing, not read by the operation or not
    /// finite, a file of tensors outside the folder; and what the file itself is refused for.
    pub fn tap(&self, folder: &Path) -> Result<InterventionTap> {
        let mut opened: Option<SafetensorsFile> = None;
        let mut edits = Vec::with_capacity(self.interventions.len());
        for (index, intervention) in self.interventions.iter().enumerate() {
            if opened.is_none() && matches!(intervention.vector, Some(Vector::Named(_))) {
                opened = Some(self.open(index, folder)?);
            }
            let tensors = |name: &str| match &opened {
                Some(file) => Ok(file.load(name)?),
                None => Err(Error::BadIntervention { index, reason: "there is no file of tensors".into() }),
            };
            edits.push(intervention.edit(index, &tensors)?);
        }
        Ok(InterventionTap { edits })
    }

    fn open(&self, index: usize, folder: &Path) -> Result<SafetensorsFile> {
        let bad = |reason: String| Error::BadIntervention { index, reason };
        let name =
            self.tensors.as_ref().ok_or_else(|| bad("it names a tensor, but the list has no `tensors`".into()))?;
        let mut parts = name.components();
        let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else {
            return Err(bad(format!(
                "`tensors` is {}, expected the name of a file in the list's folder",
                name.display()
            )));
        };
        // A link may lead out of the folder too.
        let path = folder.join(name);
        let io = |source| Error::Io { path: path.clone(), source };
        let (real, home) = (path.canonicalize().map_err(io)?, folder.canonicalize().map_err(io)?);
        if real.parent() != Some(&home) {
            return Err(bad(format!("`tensors` is {}, which leads out of the list's folder", name.display())));
        }
        Ok(SafetensorsFile::open(&real)?)
    }
}

/// The edits of [`Interventions`], one after the other.
#[derive(Clone, Debug)]
pub struct InterventionTap {
    edits: Vec<Edit>,
}

impl Tap for InterventionTap {
    fn points(&self, reached: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        self.edits.points(reached)
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
        self.edits.watch(cx, x)
    }

    fn edit(&mut self, cx: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        self.edits.edit(cx, x)
    }

    fn interest(&self, cx: &TapContext<'_>) -> Result<Option<Interest>> {
        self.edits.interest(cx)
    }
}
