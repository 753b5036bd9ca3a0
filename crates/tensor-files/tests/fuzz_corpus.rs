//! What fuzzing reached and what it found, once more: no panic, and memory within `16 MiB + 64 n` (CONTRIBUTING.md says how to fuzz).

#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "fuzz/npz.rs"]
mod npz;
#[path = "fuzz/safetensors.rs"]
mod safetensors;
#[path = "fuzz/torch.rs"]
mod torch;

#[test]
fn npz_inputs() {
    harness::replay("npz", npz::read);
}

#[test]
fn torch_inputs() {
    harness::replay("torch", torch::read);
}

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

/// Folders, and devices that never end: none is opened.
#[test]
fn what_is_no_file() {
    let _alone = harness::alone();
    let mut others = vec![harness::folder().to_path_buf()];
    others.extend(cfg!(unix).then(|| "/dev/zero".into()));
    for path in others {
        for error in [
            tensor_files::SafetensorsFile::open(&path).unwrap_err(),
            tensor_files::NpzFile::open(&path).unwrap_err(),
            tensor_files::TorchFile::open(&path).unwrap_err(),
            tensor_files::open_tensors(&path).map(drop).unwrap_err(),
        ] {
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
    }
}

/// Lengths that lie, up to those that the limit on headers would let pass.
#[test]
fn headers_that_claim_much() {
    let _alone = harness::alone();
    for claimed in [9, 1_000, 99_999_999, 100_000_000, 100_000_001, u64::MAX] {
        let bytes = [&claimed.to_le_bytes()[..], b"{}      "].concat();
        refused(&bytes, "header claims");
    }
}

/// A file of torch before 1.6 around a pickle: no zip in the way.
fn legacy(body: &[u8]) -> Vec<u8> {
    let head: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    let system: &[u8] = b"\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    [head, system, b"\x80\x02", body, b".\x80\x02]."].concat()
}

fn pickled(body: &[u8]) -> tensor_files::Result<tensor_files::Value> {
    let (mut found, bytes) = (None, legacy(body));
    harness::bounded(&bytes, |bytes| {
        let path = harness::file("pickle.pt", bytes);
        found = Some(tensor_files::TorchFile::open(path).map(|file| file.values().clone()));
    });
    found.unwrap()
}

/// One opcode a million times and more; and calls that copy what they are given, as often as it is named.
#[test]
fn pickles_that_grow() {
    let _alone = harness::alone();
    let text = |len: usize| [b"X", &(len as u32).to_le_bytes()[..], &vec![b'x'; len]].concat();
    let in_list = |item: &[u8], n: usize| [b"(", &item.repeat(n)[..], b"l"].concat();
    for n in [1 << 10, 1 << 18, 1 << 21] {
        for opcode in
            [&b"]"[..], b"}", b")", b"N", b"K\x07", b"M\x07\x07", b"]\x94", b"\x8c\0", b"U\0", b"G\0\0\0\0\0\0\0\0"]
        {
            let _ = pickled(&in_list(opcode, n));
        }
        for opcode in [b"(", b"2", b"\x94", b"\x85"] {
            let _ = pickled(&[b"N", &opcode.repeat(n)[..]].concat());
        }
        let memo_many: Vec<u8> = (0..n as u32).flat_map(|i| [&b"r"[..], &i.to_le_bytes()].concat()).collect();
        let _ = pickled(&[b"N", &memo_many[..]].concat());
        // A text, a list and a shape, copied by each call.
        let calls = |class: &[u8], argument: &[u8]| {
            let before = [b"c", class, b"q\x010", argument, b"q\x020"].concat();
            [&before[..], &in_list(b"h\x01h\x02R", n / 8)].concat()
        };
        let encoded = [&text(n)[..], b"X\x06\0\0\0latin1\x86"].concat();
        let pairs = [&in_list(b"K\x01K\x01\x86", n)[..], b"\x85"].concat();
        let sizes = [&in_list(b"K\x01", n)[..], b"\x85"].concat();
        for (class, argument) in
            [(&b"_codecs\nencode\n"[..], encoded), (b"collections\nOrderedDict\n", pairs), (b"torch\nSize\n", sizes)]
        {
            let found = pickled(&calls(class, &argument)).map(drop).map_err(|error| error.to_string());
            let grows = found.as_ref().is_err_and(|error| error.contains("its values take more than"));
            assert!(n == 1 << 10 || grows, "{}: {found:?}", String::from_utf8_lossy(class));
        }
        // One text by many names, and one key in many dicts.
        let _ = pickled(&[&text(n)[..], b"q\x010", &in_list(b"h\x01", n)].concat());
        let _ = pickled(&[&text(16)[..], b"q\x010", &in_list(b"}h\x01Ns", n)].concat());
    }
    // What programs write: a million small numbers, truth values, texts.
    for item in [&b"K\x07"[..], b"\x88", b"N", b"J\0\0\0\x01", b"G\0\0\0\0\0\0\0\0", b"X\x01\0\0\0aq\x01"] {
        let found = pickled(&in_list(item, 1 << 20)).unwrap();
        assert_eq!(found.items().unwrap().len(), 1 << 20);
    }
}
