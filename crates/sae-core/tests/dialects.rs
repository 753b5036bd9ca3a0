//! Every format in which SAEs are published, against what its own tool computes (see `golden/dialects/README.md`).

mod common;
#[path = "dialects/page.rs"]
mod page;
#[path = "../../../tests/support/tolerances.rs"]
mod tolerances;

use candle_core::Tensor;
use common::{error, flat};
use sae_core::formats::{HubPath, OpenOptions, SaeFormat, detect, open};
use sae_core::{Arithmetic, Dictionary, Engine, LoadOptions, Precision, Result, SparseCoder};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tensor_files::SafetensorsFile;
use tolerances::FORMATS;

struct Fixture {
    name: String,
    folder: PathBuf,
    meta: Value,
}

impl Fixture {
    fn all() -> Vec<Self> {
        let root = common::golden("dialects");
        let names = common::files(&root).into_iter().filter(|name| root.join(name).is_dir());
        names.map(|name| Self::at(root.join(&name), name)).collect()
    }

    fn at(folder: PathBuf, name: String) -> Self {
        let meta = serde_json::from_slice(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
        Self { name, folder, meta }
    }

    fn text(&self, key: &str) -> &str {
        self.meta[key].as_str().unwrap_or_default()
    }

    fn format(&self) -> SaeFormat {
        self.text("dialect").parse().unwrap()
    }

    fn path(&self) -> PathBuf {
        self.folder.join("files").join(self.text("path"))
    }

    /// `None` where the files must be refused.
    fn expected(&self) -> Option<SafetensorsFile> {
        let path = self.folder.join("expected.safetensors");
        path.is_file().then(|| SafetensorsFile::open(path).unwrap())
    }

    fn layers(&self) -> Vec<Option<usize>> {
        match self.meta["layers"].as_u64() {
            Some(layers) => (0..layers as usize).map(Some).collect(),
            None => vec![None],
        }
    }

    fn options(&self, engine: Engine, layer: Option<usize>) -> OpenOptions {
        let repo = self.meta["repo_id"].as_str();
        OpenOptions {
            origin: repo.map(|repo| HubPath { repo: repo.into(), path: self.text("path").into() }),
            overrides: self.meta["overrides"].as_object().cloned().unwrap_or_default(),
            norm_scaling_factor: match self.meta["norm_scaling_factor"].as_f64() {
                // SAELens computes without the factor that it was not told of; here that has to be said.
                None if self.name == "saelens_5_bool_normalisation" => Some(1.0),
                factor => factor.map(|factor| factor as f32),
            },
            layer,
            load: LoadOptions { engine, ..LoadOptions::default() },
            ..OpenOptions::default()
        }
    }

    fn open(&self, engine: Engine, layer: Option<usize>) -> Result<Dictionary> {
        open(self.path(), &self.options(engine, layer))
    }

    /// What is expected of one layer, or of the whole: `layer_L.name`, the row of `name` that belongs to the layer, or `name`.
    fn tensor(&self, name: &str, layer: Option<usize>) -> Option<Tensor> {
        let file = self.expected()?;
        if let Some(own) = self.publisher(&file, name) {
            return Some(own);
        }
        let Some(layer) = layer else { return file.contains(name).then(|| file.load_f32(name).unwrap()) };
        let own = format!("layer_{layer}.{name}");
        if file.contains(&own) {
            return Some(file.load_f32(&own).unwrap());
        }
        // All layers together write each output of a cross-layer transcoder: no view of one layer makes it.
        let together = self.format() == SaeFormat::Clt && matches!(name, "recons" | "forward");
        (file.contains(name) && !together).then(|| file.load_f32(name).unwrap().get(layer).unwrap())
    }

    /// Where SAELens leaves something out: what the publisher's own code computes. Its codes lack the factor of the norms and may have
    /// those of decoder rows in them.
    fn publisher(&self, file: &SafetensorsFile, name: &str) -> Option<Tensor> {
        let own = format!("publisher.{}", if name == "forward" { "recons" } else { name });
        let own = file.contains(&own).then(|| file.load_f32(&own).unwrap())?;
        if name != "acts" {
            return Some(own);
        }
        let acts = (own * self.meta["norm_scaling_factor"].as_f64().unwrap()).unwrap();
        let config = std::fs::read_to_string(self.path().join("hyperparams.json")).unwrap();
        if !config.contains("\"sparsity_include_decoder_norm\": true") {
            return Some(acts);
        }
        let weights = SafetensorsFile::open(self.path().join("checkpoints/final.safetensors")).unwrap();
        let norms = weights.load_f32("decoder.weight").unwrap().sqr().unwrap().sum_keepdim(0).unwrap().sqrt().unwrap();
        Some(acts.broadcast_div(&norms).unwrap())
    }

    /// The worst error over layers and results, over the rms of what is expected.
    fn worst(&self, engine: Engine) -> f64 {
        self.layers().into_iter().map(|layer| self.worst_of(engine, layer)).fold(0.0, f64::max)
    }

    fn worst_of(&self, engine: Engine, layer: Option<usize>) -> f64 {
        let sae = self.open(engine, layer).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert_eq!(sae.engine(), engine, "{}", self.name);
        let expected = |name| self.tensor(name, layer);
        let x = expected("x").unwrap();
        let codes = sae.encode(&x).unwrap();
        let (dense, acts) = (codes.to_dense().unwrap(), expected("acts").unwrap());
        if rounds(engine) {
            return error_in_common(&self.name, &flat(&dense), &flat(&acts));
        }
        let mut worst = error(&dense, &acts);
        let mut also = |found: &Tensor, name| worst = worst.max(expected(name).map_or(0.0, |due| error(found, &due)));
        also(&sae.decode(&codes).unwrap(), "recons");
        also(&sae.forward(&x).unwrap().x_hat, "forward");
        if let Dictionary::Temporal(temporal) = &sae {
            also(&temporal.predict(&x).unwrap(), "predicted");
        }
        worst
    }
}

/// Whether inputs and weights lose bits: then a feature at the edge may fire in one and not in the other.
fn rounds(engine: Engine) -> bool {
    engine.arithmetic().map(Arithmetic::precision) == Some(Precision::Bf16)
}

/// The error of features that fire in both; few may fire in one alone.
fn error_in_common(name: &str, found: &[f32], expected: &[f32]) -> f64 {
    let pairs = found.iter().copied().zip(expected.iter().copied());
    let (same, other): (Vec<_>, Vec<_>) = pairs.partition(|(a, b)| (*a != 0.0) == (*b != 0.0));
    let fired = expected.iter().filter(|value| **value != 0.0).count();
    assert!(20 * other.len() <= fired, "{name}: {} of {fired} differ in bf16", other.len());
    let (found, expected): (Vec<f32>, Vec<f32>) = same.into_iter().unzip();
    common::error_of(&found, &expected)
}

#[test]
fn values_are_the_tools_own_on_every_engine() {
    for fixture in Fixture::all().into_iter().filter(|fixture| fixture.expected().is_some()) {
        for engine in common::engines() {
            let worst = fixture.worst(engine);
            assert!(worst <= FORMATS.on(engine), "{}: off by {worst:e} of the rms on {engine}", fixture.name);
        }
    }
}

#[test]
fn every_format_is_told_by_its_files() {
    for fixture in Fixture::all() {
        assert_eq!(detect(fixture.path()).unwrap(), fixture.format(), "{}", fixture.name);
    }
}

#[test]
fn sizes_hooks_and_models_are_what_saelens_says() {
    for fixture in Fixture::all().into_iter().filter(|fixture| fixture.expected().is_some()) {
        let (name, meta) = (&fixture.name, &fixture.meta);
        let sae = fixture.open(Engine::Reference, fixture.layers()[0]).unwrap();
        let sizes = [("d_in", sae.d_in()), ("d_out", sae.d_out()), ("d_sae", sae.d_sae())];
        for (key, size) in sizes {
            assert_eq!(Some(size as u64), meta[key].as_u64(), "{name}: {key}");
        }
        let config = &meta["saelens"]["config"];
        if config.is_null() {
            continue;
        }
        let (ours, said) = (sae.metadata(), &config["metadata"]);
        // SAELens' name of where Gemma Scope 2's transcoders read lies before the norm; they were trained behind it.
        let expected = said["hook_name"].as_str().map(|hook| hook.replace("hook_mlp_in", "mlp.hook_in"));
        assert_eq!(ours.hook_name, expected, "{name}");
        assert_eq!(ours.hook_name_out.as_deref(), said["hook_name_out"].as_str(), "{name}");
        // SAELens names the base model; the release's SAEs read the distilled one.
        let model = match fixture.format() {
            SaeFormat::LlamaScopeR1 => Some("deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
            _ => said["model_name"].as_str(),
        };
        assert_eq!(ours.model_name.as_deref(), model, "{name}");
        assert_eq!(Some(sae.architecture()), config["architecture"].as_str(), "{name}");
    }
}

#[test]
fn the_files_that_are_named_suffice() {
    for fixture in Fixture::all().into_iter().filter(|fixture| fixture.expected().is_some()) {
        // Of folders of layers the path in a repository is the layer's number.
        let layer = fixture.layers()[0].map(|layer| layer.to_string());
        let files = fixture.format().files(layer.as_deref().unwrap_or(fixture.text("path"))).unwrap();
        let (from, to) = (fixture.folder.join("files"), tempfile::tempdir().unwrap());
        for file in files.required.iter().chain(&files.optional) {
            let there = from.join(file).is_file();
            assert!(there || !files.required.contains(file), "{}: {file} is required", fixture.name);
            if there {
                let to = to.path().join(file);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(from.join(file), to).unwrap();
            }
        }
        let options = fixture.options(Engine::Reference, fixture.layers()[0]);
        if let Err(error) = open(to.path().join(fixture.text("path")), &options) {
            panic!("{}: {error}", fixture.name);
        }
    }
}

#[test]
fn what_must_be_refused_is() {
    let mut refused = 0;
    for fixture in Fixture::all().into_iter().filter(|fixture| fixture.expected().is_none()) {
        let error = fixture.open(Engine::Reference, fixture.layers()[0]).unwrap_err().to_string();
        let inside = |name: &Path| error.contains(&*name.to_string_lossy());
        assert!(inside(&fixture.folder.join("files")), "{}: {error}", fixture.name);
        refused += 1;
    }
    assert!(refused > 0);
}

#[test]
fn every_folder_is_read() {
    assert_eq!(Fixture::all().len(), 59);
}
