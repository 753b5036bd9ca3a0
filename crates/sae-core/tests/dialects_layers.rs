//! circuit-tracer's folders and temporal SAEs: views of single layers against the formulas of the whole, and files that must be refused.

mod common;

use candle_core::Tensor;
use common::{engines, error};
use sae_core::formats::{HubPath, OpenOptions, SaeFormat, detect, open};
use sae_core::{Dictionary, Engine, Error, LoadOptions, SparseCoder};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tensor_files::SafetensorsFile;

const SETS: [(&str, SaeFormat, usize); 6] = [
    ("clt_jump_relu_skip", SaeFormat::Clt, 3),
    ("clt_mntss", SaeFormat::Clt, 3),
    ("slt_jump_relu", SaeFormat::Slt, 2),
    ("slt_relu", SaeFormat::Slt, 2),
    ("slt_skip", SaeFormat::Slt, 2),
    ("slt_topk", SaeFormat::Slt, 2),
];

fn fixture(name: &str) -> PathBuf {
    common::golden("dialects").join(name)
}

fn expected(name: &str) -> SafetensorsFile {
    SafetensorsFile::open(fixture(name).join("expected.safetensors")).unwrap()
}

fn on(engine: Engine, layer: Option<usize>) -> OpenOptions {
    OpenOptions { layer, load: LoadOptions { engine, ..LoadOptions::default() }, ..OpenOptions::default() }
}

fn close(found: &Tensor, expected: &Tensor, what: &str) {
    let worst = error(found, expected);
    assert!(worst < 1e-4, "{what}: {worst:e} of the rms");
}

fn exact(engine: Engine) -> bool {
    engine == Engine::Reference || engine == common::exact()
}

#[test]
fn codes_of_every_layer() {
    for (name, format, layers) in SETS {
        let files = fixture(name).join("files");
        assert_eq!(detect(&files).unwrap(), format, "{name}");
        let tensors = expected(name);
        let of = |tensor: &str, layer: usize| tensors.load_f32(tensor).unwrap().get(layer).unwrap();
        for engine in engines().into_iter().filter(|engine| exact(*engine)) {
            for layer in 0..layers {
                let what = format!("{name}, layer {layer}, {engine}");
                let opened = open(&files, &on(engine, Some(layer))).unwrap();
                let x = of("x", layer);
                let codes = opened.encode(&x).unwrap();
                close(&codes.to_dense().unwrap(), &of("acts", layer), &what);
                if format == SaeFormat::Slt {
                    close(&opened.decode(&codes).unwrap(), &of("recons", layer), &what);
                    close(&opened.forward(&x).unwrap().x_hat, &of("forward", layer), &what);
                } else if tensors.contains("layer_0.recons") {
                    let recons = tensors.load_f32(&format!("layer_{layer}.recons")).unwrap();
                    close(&opened.forward(&x).unwrap().x_hat, &recons, &what);
                }
                assert!(opened.is_transcoder());
                let at = opened.hook_name().unwrap().split('.').nth(1).unwrap().to_owned();
                assert_eq!(at, layer.to_string());
            }
        }
    }
}

/// What a layer of a cross-layer transcoder comes to is decoders of all layers up to it, its bias, and its skip connection from the
/// side that circuit-tracer applies it from.
#[test]
fn a_cross_layer_skip_is_what_its_decoders_leave() {
    let (name, files) = ("clt_jump_relu_skip", fixture("clt_jump_relu_skip").join("files"));
    let tensors = expected(name);
    let of = |tensor: &str, layer: usize| tensors.load_f32(tensor).unwrap().get(layer).unwrap();
    for to in 0..3 {
        let opened = open(&files, &on(Engine::Reference, Some(to))).unwrap();
        let Dictionary::Sae(sae) = &opened else { panic!("a transcoder is an Sae") };
        let mut sum = Tensor::new(sae.b_dec(), &candle_core::Device::Cpu).unwrap().unsqueeze(0).unwrap();
        for from in 0..=to {
            let decoder = SafetensorsFile::open(files.join(format!("W_dec_{from}.safetensors"))).unwrap();
            let w = decoder.load_f32(&format!("W_dec_{from}")).unwrap().narrow(1, to - from, 1).unwrap();
            let part = of("acts", from).matmul(&w.squeeze(1).unwrap().contiguous().unwrap()).unwrap();
            sum = part.broadcast_add(&sum).unwrap();
        }
        let left = (of("recons", to) - sum).unwrap();
        close(&opened.skip(&of("x", to)).unwrap().unwrap(), &left, "skip");
        let own = SafetensorsFile::open(files.join(format!("W_dec_{to}.safetensors"))).unwrap();
        close(sae.w_dec(), &own.load_f32(&format!("W_dec_{to}")).unwrap().sum(1).unwrap(), "summed decoder");
    }
}

#[test]
fn one_file_a_layer_and_temporal() {
    for name in
        ["mwhanna_transcoder", "mwhanna_transcoder_without_config", "temporal_relu", "temporal_tied", "temporal_untied"]
    {
        let meta: Value = serde_json::from_slice(&std::fs::read(fixture(name).join("meta.json")).unwrap()).unwrap();
        let path = meta["path"].as_str().unwrap();
        let origin = HubPath { repo: meta["repo_id"].as_str().unwrap().into(), path: path.into() };
        let tensors = expected(name);
        for engine in engines().into_iter().filter(|engine| exact(*engine)) {
            let overrides = meta["overrides"].as_object().cloned().unwrap_or_default();
            let options = OpenOptions { origin: Some(origin.clone()), overrides, ..on(engine, None) };
            let files = fixture(name).join("files").join(path);
            assert_eq!(detect(&files).unwrap().name(), meta["dialect"].as_str().unwrap());
            let opened = open(files, &options).unwrap();
            let x = tensors.load_f32("x").unwrap();
            let codes = opened.encode(&x).unwrap();
            close(&codes.to_dense().unwrap(), &tensors.load_f32("acts").unwrap(), name);
            close(&opened.decode(&codes).unwrap(), &tensors.load_f32("recons").unwrap(), name);
            close(&opened.forward(&x).unwrap().x_hat, &tensors.load_f32("forward").unwrap(), name);
            if let Dictionary::Temporal(temporal) = &opened {
                close(&temporal.predict(&x).unwrap(), &tensors.load_f32("predicted").unwrap(), name);
            }
            let (said, found) = (&meta["saelens"]["config"]["metadata"], opened.metadata());
            assert_eq!(found.model_name.as_deref(), said["model_name"].as_str(), "{name}");
            assert_eq!(found.hook_name.as_deref(), said["hook_name"].as_str(), "{name}");
            assert_eq!(found.hook_name_out.as_deref(), said["hook_name_out"].as_str(), "{name}");
            assert_eq!(found.dataset_path.as_deref(), said["dataset_path"].as_str(), "{name}");
            assert_eq!(found.context_size, said["context_size"].as_u64().map(|size| size as usize), "{name}");
            assert_eq!(found.prepend_bos, said["prepend_bos"].as_bool(), "{name}");
            let kwargs = said["model_from_pretrained_kwargs"].as_object().cloned().unwrap_or_default();
            assert_eq!(found.model_from_pretrained_kwargs, kwargs, "{name}");
        }
    }
}

#[test]
fn layers_are_named_in_three_ways() {
    let reference = on(Engine::Reference, None);
    for (name, file, format) in
        [("slt_skip", "layer_1.safetensors", SaeFormat::Slt), ("clt_mntss", "W_enc_1.safetensors", SaeFormat::Clt)]
    {
        let files = fixture(name).join("files");
        for path in [files.join("1"), files.join(file)] {
            assert_eq!(detect(files.join(file)).unwrap(), format);
            let opened = open(&path, &OpenOptions { format: Some(format), ..reference.clone() }).unwrap();
            assert!(opened.hook_name().unwrap().starts_with("blocks.1."));
        }
        let origin = Some(HubPath { repo: "someone/set".into(), path: "1".into() });
        let opened = open(&files, &OpenOptions { origin: origin.clone(), ..reference.clone() }).unwrap();
        assert!(opened.hook_name().unwrap().starts_with("blocks.1."));
        let error = open(&files, &OpenOptions { origin, layer: Some(0), ..reference.clone() }).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "layer", .. }), "{error}");
        let error = open(&files, &reference).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "layer", .. }), "{error}");
        let error = open(&files, &OpenOptions { layer: Some(7), ..reference.clone() }).unwrap_err();
        assert!(error.to_string().contains("7"), "{error}");
    }
    let of = |format: SaeFormat, path: &str| format.files(path).unwrap().required;
    assert_eq!(of(SaeFormat::Slt, "a/3"), ["a/layer_3.safetensors", "a/config.yaml"]);
    assert_eq!(of(SaeFormat::Clt, "3"), ["W_enc_3.safetensors", "W_dec_3.safetensors", "config.yaml"]);
    assert_eq!(of(SaeFormat::Clt, "W_enc_3.safetensors"), of(SaeFormat::Clt, "3"));
    assert!(of(SaeFormat::Clt, ".").is_empty());
    assert_eq!(of(SaeFormat::Mwhanna, "layer_3.safetensors"), ["layer_3.safetensors"]);
}

/// A copy of a fixture's files that may be spoiled.
fn copy(name: &str, to: &Path) {
    fn all(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                all(&entry.path(), &to)
            } else {
                std::fs::copy(entry.path(), to).map(drop).unwrap()
            }
        }
    }
    all(&fixture(name).join("files"), to);
}

/// Opens layer 0 of a copy in which one file has been changed.
fn spoiled(name: &str, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Error {
    let folder = tempfile::tempdir().unwrap();
    copy(name, folder.path());
    let at = folder.path().join(file);
    std::fs::write(&at, change(std::fs::read(&at).unwrap())).unwrap();
    let layer = if name.starts_with("mwhanna") { 3 } else { 0 };
    let temporal = name.starts_with("temporal");
    let path = if temporal { folder.path().join("layer_3/temporal") } else { folder.path().into() };
    let error = open(path, &on(Engine::Reference, (!temporal).then_some(layer))).unwrap_err();
    assert!(error.to_string().contains(file), "names the file: {error}");
    error
}

fn with(line: &'static str) -> impl Fn(Vec<u8>) -> Vec<u8> {
    move |bytes| [bytes, line.as_bytes().to_vec()].concat()
}

fn replaced(from: &'static str, to: &'static str) -> impl Fn(Vec<u8>) -> Vec<u8> {
    move |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(from));
        text.replace(from, to).into_bytes()
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let weights = [
        ("mwhanna_transcoder", "layer_3.safetensors"),
        ("slt_skip", "layer_0.safetensors"),
        ("clt_mntss", "W_enc_0.safetensors"),
        ("clt_mntss", "W_dec_0.safetensors"),
        ("temporal_tied", "layer_3/temporal/latest_ckpt.safetensors"),
    ];
    for (name, file) in weights {
        assert!(matches!(spoiled(name, file, half), Error::File(_)), "{name}");
    }
    let laughs = |_| {
        let mut text = String::from("a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n");
        for at in 1..10 {
            text += &format!("a{at}: &a{at} [{}]\n", format!("*a{}, ", at - 1).repeat(10));
        }
        text.into_bytes()
    };
    let configs = [
        ("mwhanna_transcoder", "wandb-config.yaml"),
        ("mwhanna_transcoder", "config.yaml"),
        ("slt_skip", "config.yaml"),
        ("clt_mntss", "config.yaml"),
        ("temporal_tied", "layer_3/temporal/conf.yaml"),
    ];
    for (name, file) in configs {
        assert!(matches!(spoiled(name, file, laughs), Error::NotYaml { .. }), "{name}");
        assert!(matches!(spoiled(name, file, |_| b"- 1\n".to_vec()), Error::NotYaml { .. }), "{name}");
        assert!(matches!(spoiled(name, file, |_| b"\xff\xfe{".to_vec()), Error::NotYaml { .. }), "{name}");
    }
}

#[test]
fn configurations_must_agree_with_the_weights() {
    let conf = "layer_3/temporal/conf.yaml";
    let refused = [
        spoiled("slt_skip", "config.yaml", with("activation: gelu\n")),
        spoiled("slt_skip", "config.yaml", with("k: 3\n")),
        spoiled("slt_jump_relu", "config.yaml", with("activation: topk\nk: 3\n")),
        spoiled("slt_relu", "config.yaml", replaced("transcoder_set", "cross_layer_transcoder")),
        spoiled("slt_relu", "config.yaml", replaced("layer_0.safetensors", "layer_1.safetensors")),
        spoiled("clt_mntss", "config.yaml", with("activation: topk\nk: 3\n")),
        spoiled("mwhanna_transcoder", "wandb-config.yaml", with("act_fn:\n  value: gelu\n")),
        spoiled("mwhanna_transcoder", "wandb-config.yaml", replaced("value: 48", "value: 49")),
        spoiled("mwhanna_transcoder", "config.yaml", replaced("transcoder_set", "cross_layer_transcoder")),
        spoiled("temporal_tied", conf, replaced("dimin: 16", "dimin: 17")),
        spoiled("temporal_tied", conf, replaced("exp_factor: 3.0", "exp_factor: 1e300")),
        spoiled("temporal_tied", conf, replaced("n_heads: 4", "n_heads: -1")),
        spoiled("temporal_tied", conf, replaced("sae_diff_type: topk", "sae_diff_type: batchtopk")),
        spoiled("temporal_tied", conf, replaced("sae:\n", "sae:\n  use_pos_encoding: true\n")),
    ];
    for error in refused {
        assert!(matches!(error, Error::BadKey { .. }), "{error}");
    }
    assert!(matches!(spoiled("slt_topk", "config.yaml", replaced("k: 24", "k: ~")), Error::MissingKey { .. }));
    assert!(matches!(spoiled("clt_mntss", "config.yaml", with("gain: 2\n")), Error::UnknownKeys { .. }));
    let weights = "layer_3/temporal/latest_ckpt.safetensors";
    let folder = tempfile::tempdir().unwrap();
    copy("temporal_untied", folder.path());
    let at = folder.path().join(conf);
    let text = std::fs::read_to_string(&at).unwrap();
    std::fs::write(&at, text.replace("tied_weights: false", "tied_weights: true")).unwrap();
    let error = open(folder.path().join("layer_3/temporal"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::UnknownTensors { names, .. } if names == &["E"]), "{error}");
    std::fs::write(&at, text.replace("n_attn_layers: 1", "n_attn_layers: 1000000000000")).unwrap();
    let error = open(folder.path().join("layer_3/temporal"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::File(_)) && error.to_string().contains(weights), "{error}");
}

#[test]
fn what_releases_say_besides() {
    let temporal = fixture("temporal_relu").join("files/layer_3/temporal");
    let listed = |factor| OpenOptions { norm_scaling_factor: Some(factor), ..OpenOptions::default() };
    let (plain, said) = (open(&temporal, &OpenOptions::default()).unwrap(), open(&temporal, &listed(0.37)).unwrap());
    let x = expected("temporal_relu").load_f32("x").unwrap();
    // The factor is the file's own: it is compared, and not applied twice.
    assert_eq!(common::flat(&plain.forward(&x).unwrap().x_hat), common::flat(&said.forward(&x).unwrap().x_hat));
    assert!(matches!(open(&temporal, &listed(0.5)), Err(Error::BadKey { .. })));
    let mut options = on(Engine::Reference, Some(0));
    options.overrides = json!({ "d_sae": 49 }).as_object().unwrap().clone();
    for name in ["slt_relu", "clt_mntss"] {
        assert!(matches!(open(fixture(name).join("files"), &options), Err(Error::BadKey { .. })), "{name}");
    }
}
