//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/safetensors.rs"]
mod safetensors;

#[test]
fn safetensors_inputs() {
    harness::replay("safetensors", safetensors::read);
}

fn header(json: &str, data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
}

/// Opens a file made by hand, within the bound on memory, and returns why it is refused.
#[track_caller]
fn refused(bytes: &[u8], says: &str) {
    let mut found = None;
    harness::bounded(bytes, |bytes| {
        let path = harness::folder().join(format!("attack-{}", bytes.len()));
        std::fs::write(&path, bytes).unwrap();
        found = Some(tensor_files::SafetensorsFile::open(&path).expect_err("it opened").to_string());
        std::fs::remove_file(path).unwrap();
    });
    let found = found.unwrap();
    assert!(found.contains(says), "{found}");
}

#[test]
fn one_name_for_two_things() {
    let _alone = harness::alone();
    let twice =
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    refused(&header(twice, 1), "`a` appears twice");
    refused(&header(r#"{"__metadata__":{"x":"1","x":"2"}}"#, 0), "`x` appears twice");
    let key = r#"{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#;
    refused(&header(key, 1), "`dtype` appears twice");
    let escaped = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    refused(&header(escaped, 1), "`a` appears twice");
}

#[test]
fn headers_that_nest_or_go_on() {
    let _alone = harness::alone();
    refused(&header(&"[".repeat(20 << 20), 0), "not a valid safetensors file");
    refused(&header(&format!(r#"{{"a":{}"#, "[".repeat(1 << 20)), 0), "not a valid safetensors file");
    refused(
        &header(&format!(r#"{{"a":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,0]}}}}"#, "1,".repeat(1 << 20)), 0),
        "not a valid",
    );
    let many: Vec<String> = (0..100_000).map(|i| format!(r#""{i}":0"#)).collect();
    refused(&header(&format!("{{{}}}", many.join(",")), 0), "not a valid safetensors file");
}

#[test]
fn sizes_beside_a_zero() {
    let _alone = harness::alone();
    let shape = r#"{"a":{"dtype":"F32","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]}}"#;
    refused(&header(shape, 0), "larger than any memory");
    let shape = r#"{"a":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,4]}}"#;
    refused(&header(shape, 4), "not a valid safetensors file");
}

#[test]
fn what_is_no_file() {
    let _alone = harness::alone();
    let error = tensor_files::SafetensorsFile::open(harness::folder()).unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
}
