//! Configurations from before SAELens 6, rewritten to the form of 6.

use crate::formats::json_keys::Keys;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Whether a configuration is from before 6.0.0-rc.0, or says no version, which only older ones do.
pub(super) fn is_pre_6(path: &Path, map: &Map<String, Value>) -> Result<bool> {
    let said = |map: &Map<String, Value>| {
        map.get("sae_lens_version").filter(|v| !v.is_null() && v.as_str() != Some("")).cloned()
    };
    let version = said(map).or_else(|| map.get("metadata").and_then(Value::as_object).and_then(said));
    let Some(version) = version else { return Ok(true) };
    let bad = || Error::BadKey {
        path: path.to_path_buf(),
        key: "sae_lens_version".into(),
        expected: "a version such as \"6.54.12\"".into(),
        found: version.to_string(),
    };
    let text = version.as_str().ok_or_else(bad)?;
    let major: u64 = text.split('.').next().and_then(|major| major.parse().ok()).ok_or_else(bad)?;
    // Development and alpha or beta releases of 6.0.0 came before its release candidates.
    let early = text.strip_prefix("6.0.0").is_some_and(|rest| {
        let rest = rest.trim_start_matches(['.', '-']);
        ["dev", "a", "b"].iter().any(|stage| rest.starts_with(stage))
    });
    Ok(major < 6 || early)
}

/// Keys of the old, flat form that have another place or name now.
const RENAMED: &[(&str, &str)] = &[
    ("hook_point", "hook_name"),
    ("hook_point_head_index", "hook_head_index"),
    ("activation_fn_str", "activation_fn"),
];

/// Keys that stay at the top; all others become metadata.
const STRUCTURAL: &[&str] = &[
    "architecture",
    "d_in",
    "d_sae",
    "dtype",
    "device",
    "apply_b_dec_to_input",
    "normalize_activations",
    "reshape_activations",
    "finetuning_scaling_factor",
    "k",
    "rescale_acts_by_decoder_norm",
];

/// SAELens' `handle_pre_6_0_config`, except that keys without a meaning are kept in the metadata instead of dropped, and
/// that an activation function which SAELens would silently run as ReLU is an error.
pub(super) fn migrate(path: &Path, map: Map<String, Value>) -> Result<Map<String, Value>> {
    let mut keys = Keys { path, prefix: "", map: renamed(map) };
    let mut top = Map::new();
    for key in STRUCTURAL {
        if let Some(value) = keys.take(key) {
            top.insert((*key).into(), value);
        }
    }
    let mut default = |key: &str, value: Value| {
        top.entry(key).or_insert(value);
    };
    default("architecture", json!("standard"));
    default("apply_b_dec_to_input", json!(true));
    let hook_name = keys.map.get("hook_name").and_then(Value::as_str).unwrap_or_default();
    default("reshape_activations", json!(if hook_name.contains("hook_z") { "hook_z" } else { "none" }));
    default("normalize_activations", json!("none"));
    if let Some(Value::Bool(on)) = top.get("normalize_activations") {
        let mode = if *on { "expected_average_only_in" } else { "none" };
        top.insert("normalize_activations".into(), json!(mode));
    }
    activation_function(&mut keys, &mut top)?;
    let mut metadata = keys.object("metadata")?.unwrap_or_default();
    metadata.extend(keys.map);
    metadata.entry("prepend_bos").or_insert(json!(true));
    top.insert("metadata".into(), Value::Object(metadata));
    Ok(top)
}

fn renamed(map: Map<String, Value>) -> Map<String, Value> {
    let new_name = |key: String| RENAMED.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| (*new).into());
    map.into_iter().map(|(key, value)| (new_name(key), value)).collect()
}

/// `activation_fn: "topk"` with a `k` made a TopK SAE before there was an architecture of that name.
fn activation_function(keys: &mut Keys<'_>, top: &mut Map<String, Value>) -> Result<()> {
    let expected = "relu, or topk with activation_fn_kwargs.k";
    let function = keys.string("activation_fn")?;
    let k = keys.object("activation_fn_kwargs")?.and_then(|kwargs| kwargs.get("k").cloned()).filter(|k| !k.is_null());
    let is_topk = top.get("architecture").and_then(Value::as_str) == Some("topk");
    match function.as_deref() {
        None | Some("relu") => {}
        Some("topk") => {
            if k.is_none() && !top.contains_key("k") {
                return Err(keys.bad("activation_fn", expected, &json!("topk without k")));
            }
            top.insert("architecture".into(), json!("topk"));
        }
        Some(other) => return Err(keys.bad("activation_fn", expected, &json!(other))),
    }
    if let Some(k) = k
        && (is_topk || function.as_deref() == Some("topk"))
    {
        top.insert("k".into(), k);
    }
    Ok(())
}
