//! An SAE is the same by every way to open it: by path, by a release's name, by its repository, by the path of its snapshot in a cache.

use candle_core::Tensor;
use pretrained::preflight::{Expected, PreflightOptions};
use pretrained::{Cache, Hub, Registry};
use sae_core::formats::{HubPath, OpenOptions, open};
use sae_core::{Dictionary, SparseCoder};
use serde_json::Value;
use std::path::{Path, PathBuf};

const COMMIT: &str = "0123456789012345678901234567890123456789";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-core/tests/golden")
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let to = to.join(entry.file_name().unwrap());
        if entry.is_dir() { copy(&entry, &to) } else { assert!(std::fs::copy(entry, to).is_ok()) }
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Codes and reconstruction of numbers that are the same each time; a missing norm factor is missing by every way.
fn results(sae: &Dictionary) -> Option<(Vec<f32>, Vec<f32>)> {
    let d_in = sae.d_in();
    let values: Vec<f32> = (0..6 * d_in).map(|i| ((i * 7919 + 13) % 1009) as f32 / 250.0 - 2.0).collect();
    let x = Tensor::from_vec(values, (2, 3, d_in), &candle_core::Device::Cpu).unwrap();
    let forward = match sae.forward(&x) {
        Err(sae_core::Error::NormFactorMissing) => return None,
        forward => forward.unwrap(),
    };
    Some((flat(&forward.codes.to_dense().unwrap()), flat(&forward.x_hat)))
}

#[test]
fn a_local_folder_is_what_its_path_opens() {
    let mut opened = 0;
    for folder in folders(&golden()).into_iter().filter(|folder| folder.join("cfg.json").is_file()) {
        let by_path = open(&folder, &OpenOptions::default()).unwrap();
        let named = Hub::new().sae(folder.to_str().unwrap(), "").unwrap();
        assert!(named.entry.is_none());
        assert_eq!(results(&by_path), results(&named.dictionary), "{}", folder.display());
        opened += 1;
    }
    assert_eq!(opened, 39);
}

/// Every format: a table that lists the fixture, and a cache that holds its files.
#[test]
fn names_repositories_and_snapshots_open_what_the_path_with_the_tables_numbers_opens() {
    let (mut opened, mut with_factor) = (0, 0);
    for folder in folders(&golden().join("dialects")) {
        if !folder.join("expected.safetensors").is_file() {
            continue;
        }
        let meta: Value = serde_json::from_slice(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
        let layered = meta["layers"].is_u64();
        let (path, repo) = (meta["path"].as_str().unwrap(), meta["repo_id"].as_str().unwrap_or("me/saes"));
        let factor = meta["norm_scaling_factor"].as_f64();
        let overrides = meta["overrides"].as_object().cloned().unwrap_or_default();
        let format = meta["dialect"].as_str().unwrap();
        // Of folders of layers the table's path is the number of the layer.
        let listed = if layered { "0" } else { path };
        let line = [
            "an-sae".to_owned(),
            listed.into(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            "24.5".into(),
            "0.75".into(),
            factor.map_or_else(String::new, |factor| factor.to_string()),
        ];
        let overrides_text =
            if overrides.is_empty() { String::new() } else { Value::from(overrides.clone()).to_string() };
        let table = format!(
            "#saescope-registry\t1\tmine\n>\tmine\t{repo}\t{format}\tgpt2\t1\t{overrides_text}\n{}\n",
            line.join("\t")
        );
        let cache = tempfile::tempdir().unwrap();
        let held = cache.path().join(format!("models--{}", repo.replace('/', "--")));
        let snapshot = held.join("snapshots").join(COMMIT);
        copy(&folder.join("files"), &snapshot);
        std::fs::create_dir_all(held.join("refs")).unwrap();
        std::fs::write(held.join("refs/main"), COMMIT).unwrap();

        let options = OpenOptions {
            format: Some(format.parse().unwrap()),
            origin: Some(HubPath { repo: repo.into(), path: listed.into() }),
            overrides,
            norm_scaling_factor: factor.map(|factor| factor as f32),
            layer: layered.then_some(0),
            ..OpenOptions::default()
        };
        let name = folder.file_name().unwrap().to_string_lossy();
        let by_path = open(snapshot.join(if layered { "" } else { path }), &options).unwrap();
        let table = Registry::read(table.as_bytes()).unwrap();
        let from = Hub::new().cache(Cache::new(cache.path())).offline(true).table(table);
        let by_name = from.sae("mine", "an-sae").unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(results(&by_path), results(&by_name.dictionary), "{name}");
        assert_eq!(by_path.metadata(), by_name.dictionary.metadata(), "{name}");
        if !layered && !path.is_empty() && path != "." {
            let by_repository = from.sae(repo, path).unwrap();
            let by_snapshot = from.sae(snapshot.join(path).to_str().unwrap(), "").unwrap();
            for other in [by_repository, by_snapshot] {
                assert_eq!(other.entry.unwrap().sae_id, "an-sae", "{name}");
                assert_eq!(results(&by_path), results(&other.dictionary), "{name}");
            }
        }
        let entry = by_name.entry.unwrap();
        let expected = Expected { l0: Some(24.5), variance_explained: Some(0.75) };
        assert_eq!(PreflightOptions::default().expecting(&entry).expected, Some(expected));
        (opened, with_factor) = (opened + 1, with_factor + usize::from(factor.is_some()));
    }
    assert!(opened > 50 && with_factor >= 3, "{opened}, {with_factor}");
}

#[test]
fn numbers_that_the_table_does_not_have_stay_unknown() {
    let registry = Registry::built_in();
    let entry = registry.find("gpt2-small-res-jb", "blocks.7.hook_resid_pre").unwrap();
    assert_eq!(Expected::from(&entry), Expected { l0: Some(54.0), variance_explained: Some(0.9) });
    let entry = registry.find("llama_scope_r1_distill", "l0r_800m_slimpajama").unwrap();
    assert_eq!(Expected::from(&entry), Expected::default());
    assert!(entry.norm_scaling_factor.is_some());
    let again = registry.find_path("fnlp/Llama-Scope-R1-Distill", &entry.path).unwrap();
    assert_eq!(again, entry);
    assert!(registry.find_path("fnlp/Llama-Scope-R1-Distill", "elsewhere").is_none());
}
