//! `--norm-factor`, `--ignore-keys` and `--sae RELEASE:SAE_ID`, held against the numbers of the demo's SAE.

use super::{DEMO, Ended, folder, run_with, text};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A release of the table whose files are in SAELens' format, and the commit that the cache says it has.
const RELEASE: &str = "gpt2-small-res-jb:blocks.2.hook_resid_pre";
const REPO: &str = "models--jbloom--GPT2-Small-SAEs-Reformatted";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The demo's SAE in another folder, with changes to its configuration.
fn sae(folder: PathBuf, changes: &[(&str, serde_json::Value)]) -> String {
    std::fs::create_dir_all(&folder).unwrap();
    let demo = Path::new(DEMO).join("sae");
    for name in ["sae_weights.safetensors", "sparsity.safetensors"] {
        std::fs::copy(demo.join(name), folder.join(name)).unwrap();
    }
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(demo.join("cfg.json")).unwrap()).unwrap();
    for (key, value) in changes {
        config[key] = value.clone();
    }
    std::fs::write(folder.join("cfg.json"), config.to_string()).unwrap();
    folder.to_str().unwrap().to_owned()
}

pub fn flags_of_an_sae() {
    let out = folder("sae_flags");
    let (text, json) = (text(&out), out.join("evaluation.json"));
    // Nobody can be asked, and nothing but the cache here is read.
    let home = out.join("home");
    let env = [("HF_HOME", home.as_path()), ("HF_HUB_OFFLINE", Path::new("1")), ("HF_HUB_CACHE", Path::new(""))];
    let evaluate = |flags: &[&str]| -> Result<serde_json::Value, String> {
        let _ = std::fs::remove_file(&json);
        let json = json.to_str().unwrap();
        let common = ["--text", &text, "--rows", "2", "--ablation", "none", "--resamples", "0", "--json", json];
        let Ended { code, stderr } = run_with("evaluate_sae", &[flags, &common].concat(), Stdio::null(), &env);
        match code {
            Some(0) => {
                let read: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
                Ok(read["metrics"].clone())
            }
            Some(1) => Err(stderr),
            other => panic!("{flags:?}: {other:?}: {stderr}"),
        }
    };
    let demo = evaluate(&[]).unwrap();
    assert!(demo.as_object().is_some_and(|metrics| metrics.len() > 1), "{demo}");

    // A factor that is in none of the files: refused, and given.
    let expected = [("normalize_activations", "expected_average_only_in".into())];
    let unfolded = sae(out.join("unfolded"), &expected);
    let error = evaluate(&["--sae", &unfolded]).unwrap_err();
    assert!(error.contains("error: ") && error.contains("factor"), "{error}");
    assert_eq!(evaluate(&["--sae", &unfolded, "--norm-factor", "1"]).unwrap(), demo);
    assert_ne!(evaluate(&["--sae", &unfolded, "--norm-factor", "2"]).unwrap(), demo);

    // Keys that nobody knows: refused by name, and ignored by name.
    let odd = sae(out.join("odd"), &[("zig", 1.into()), ("zag", "on".into())]);
    let error = evaluate(&["--sae", &odd]).unwrap_err();
    assert!(error.contains("zig") && error.contains("zag") && error.contains("--ignore-keys"), "{error}");
    let error = evaluate(&["--sae", &odd, "--ignore-keys", "zig"]).unwrap_err();
    assert!(error.contains("zag"), "{error}");
    assert_eq!(evaluate(&["--sae", &odd, "--ignore-keys", "zig,zag"]).unwrap(), demo);

    // By name: not in the cache, then in it. The table's override of the model's weights says what the demo's SAE says itself.
    let error = evaluate(&["--sae", RELEASE]).unwrap_err();
    assert!(error.contains("GPT2-Small-SAEs-Reformatted") && error.contains("offline"), "{error}");
    let repo = home.join("hub").join(REPO);
    sae(repo.join("snapshots").join(COMMIT).join("blocks.2.hook_resid_pre"), &[]);
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    assert_eq!(evaluate(&["--sae", RELEASE]).unwrap(), demo);
    let error = evaluate(&["--sae", "gpt2-small-res-jb:blocks.99.hook_resid_pre"]).unwrap_err();
    assert!(error.contains("blocks.99.hook_resid_pre"), "{error}");
}
