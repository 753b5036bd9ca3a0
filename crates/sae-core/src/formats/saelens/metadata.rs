use crate::formats::json_keys::{Keys, as_count};
use crate::{ExcludeSpecialTokens, Result, SaeMetadata, SeparatorToken, SeqposSlice};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Keys of a SAELens configuration that stand beside its metadata.
const NOT_METADATA: [&str; 11] = [
    "architecture",
    "d_in",
    "d_out",
    "d_sae",
    "k",
    "dtype",
    "device",
    "apply_b_dec_to_input",
    "normalize_activations",
    "reshape_activations",
    "rescale_acts_by_decoder_norm",
];

impl SaeMetadata {
    /// Reads SAELens' `metadata` object. Known keys of the wrong type are errors, unknown ones are kept.
    pub(crate) fn from_json(path: &Path, metadata: Map<String, Value>) -> Result<Self> {
        let mut keys = Keys { path, prefix: "metadata.", map: metadata };
        let separator = keys.map.get("sequence_separator_token") == Some(&Value::Null);
        Ok(Self {
            model_name: keys.string("model_name")?,
            hook_name: keys.string("hook_name")?,
            hook_name_out: keys.string("hook_name_out")?,
            hook_head_index: keys.count("hook_head_index")?,
            context_size: keys.count("context_size")?,
            prepend_bos: keys.boolean("prepend_bos")?,
            seqpos_slice: keys.read("seqpos_slice", "[stop], [start, stop] or [start, stop, step]", as_slice)?,
            exclude_special_tokens: keys.read("exclude_special_tokens", "true, false or a list of ids", as_excluded)?,
            sequence_separator_token: match separator {
                true => keys.map.remove("sequence_separator_token").map(|_| SeparatorToken::Nothing),
                false => {
                    keys.read("sequence_separator_token", "\"bos\", \"eos\", \"sep\", an id or null", as_separator)?
                }
            },
            disable_concat_sequences: keys.boolean("disable_concat_sequences")?,
            model_from_pretrained_kwargs: keys.object("model_from_pretrained_kwargs")?.unwrap_or_default(),
            dataset_path: keys.string("dataset_path")?,
            neuronpedia_id: keys.string("neuronpedia_id")?,
            other: keys.map,
            notes: Vec::new(),
        })
    }

    /// The same with some keys replaced; keys that are not metadata (sizes, k ..) are left to the readers of formats.
    pub(crate) fn overridden(&self, path: &Path, overrides: &Map<String, Value>) -> Result<Self> {
        let mut metadata = self.to_json();
        metadata.extend(overrides.iter().map(|(key, value)| (key.clone(), value.clone())));
        NOT_METADATA.iter().for_each(|key| drop(metadata.remove(*key)));
        Ok(Self { notes: self.notes.clone(), ..Self::from_json(path, metadata)? })
    }

    /// SAELens' `metadata` object.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut map = self.other.clone();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.into(), value);
            }
        };
        put("model_name", self.model_name.as_deref().map(Value::from));
        put("hook_name", self.hook_name.as_deref().map(Value::from));
        put("hook_name_out", self.hook_name_out.as_deref().map(Value::from));
        put("hook_head_index", self.hook_head_index.map(Value::from));
        put("context_size", self.context_size.map(Value::from));
        put("prepend_bos", self.prepend_bos.map(Value::from));
        put("seqpos_slice", self.seqpos_slice.map(slice_json));
        put(
            "exclude_special_tokens",
            self.exclude_special_tokens.as_ref().map(|exclude| match exclude {
                ExcludeSpecialTokens::All(all) => json!(all),
                ExcludeSpecialTokens::Ids(ids) => json!(ids),
            }),
        );
        put(
            "sequence_separator_token",
            self.sequence_separator_token.as_ref().map(|separator| match separator {
                SeparatorToken::Nothing => Value::Null,
                SeparatorToken::Named(name) => json!(name),
                SeparatorToken::Id(id) => json!(id),
            }),
        );
        put("disable_concat_sequences", self.disable_concat_sequences.map(Value::from));
        if !self.model_from_pretrained_kwargs.is_empty() {
            put("model_from_pretrained_kwargs", Some(Value::Object(self.model_from_pretrained_kwargs.clone())));
        }
        put("dataset_path", self.dataset_path.as_deref().map(Value::from));
        put("neuronpedia_id", self.neuronpedia_id.as_deref().map(Value::from));
        map
    }
}

/// The arguments of Python's `slice`: one is the stop, two are start and stop, three add the step.
fn as_slice(value: &Value) -> Option<SeqposSlice> {
    let number = |value: &Value| if value.is_null() { Some(None) } else { value.as_i64().map(Some) };
    let slice = match value.as_array()?.as_slice() {
        [stop] => SeqposSlice { stop: number(stop)?, ..SeqposSlice::default() },
        [start, stop] => SeqposSlice { start: number(start)?, stop: number(stop)?, step: None },
        [start, stop, step] => SeqposSlice { start: number(start)?, stop: number(stop)?, step: number(step)? },
        _ => return None,
    };
    slice.step.is_none_or(|step| step > 0).then_some(slice)
}

fn slice_json(slice: SeqposSlice) -> Value {
    match slice {
        SeqposSlice { start: None, stop, step: None } => json!([stop]),
        SeqposSlice { start, stop, step: None } => json!([start, stop]),
        SeqposSlice { start, stop, step } => json!([start, stop, step]),
    }
}

fn as_id(value: &Value) -> Option<u32> {
    as_count(value).and_then(|id| u32::try_from(id).ok())
}

fn as_excluded(value: &Value) -> Option<ExcludeSpecialTokens> {
    match value {
        Value::Bool(all) => Some(ExcludeSpecialTokens::All(*all)),
        Value::Array(ids) => ids.iter().map(as_id).collect::<Option<_>>().map(ExcludeSpecialTokens::Ids),
        _ => None,
    }
}

fn as_separator(value: &Value) -> Option<SeparatorToken> {
    match value {
        Value::String(name) if ["bos", "eos", "sep"].contains(&name.as_str()) => {
            Some(SeparatorToken::Named(name.clone()))
        }
        _ => as_id(value).map(SeparatorToken::Id),
    }
}
