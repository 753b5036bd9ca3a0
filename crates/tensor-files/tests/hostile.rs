//! One test per way in which a safetensors file can lie.

use candle_core::{Device, Tensor};
use std::path::PathBuf;
use tensor_files::{Error, SafetensorsFile, save_safetensors};

fn file(header: &str, data: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    raw(&bytes)
}

fn raw(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn refused(path: &PathBuf, word: &str) {
    let error = SafetensorsFile::open(path).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(word), "`{text}` does not say `{word}`");
}

#[test]
fn shorter_than_its_own_length_field() {
    let (_d, p) = raw(b"abc");
    refused(&p, "3 bytes long, shorter");
}

#[test]
fn header_longer_than_the_file() {
    let (_d, p) = raw(&[255, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']);
    refused(&p, "header claims 255 bytes");
}

#[test]
fn header_of_absurd_length() {
    let (_d, p) = raw(&[255; 32]);
    refused(&p, "18446744073709551615");
}

#[test]
fn header_that_is_not_json() {
    let (_d, p) = file("{nonsense", b"");
    refused(&p, "not a valid safetensors file");
}

#[test]
fn truncated_data() {
    let (_d, p) = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 5]);
    refused(&p, "describes 8 tensor bytes, the file holds 5");
}

#[test]
fn trailing_data() {
    let (_d, p) = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 9]);
    refused(&p, "holds 9");
}

#[test]
fn overlapping_offsets() {
    let (_d, p) = file(
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
        &[0; 12],
    );
    refused(&p, "offset");
}

#[test]
fn a_gap_between_tensors() {
    let (_d, p) = file(
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
        &[0; 12],
    );
    refused(&p, "offset");
}

#[test]
fn shape_and_bytes_disagree() {
    let (_d, p) = file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, &[0; 8]);
    refused(&p, "not a valid");
}

#[test]
fn shape_that_overflows() {
    let (_d, p) = file(
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,8]}}"#,
        &[0; 8],
    );
    refused(&p, "not a valid");
}

#[test]
fn nan_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let w = Tensor::new(&[1f32, 2., f32::NAN, 4.], &Device::Cpu).unwrap();
    save_safetensors(&path, &[("W_enc", w)], None).unwrap();
    let error = SafetensorsFile::open(&path).unwrap().load_f32("W_enc").unwrap_err();
    assert!(error.to_string().contains("`W_enc` holds NaN at element 2"), "{error}");
}

#[test]
fn a_missing_tensor_lists_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let w = Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap();
    save_safetensors(&path, &[("W_enc", w)], None).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    let error = file.load_f32("W_dec").unwrap_err();
    assert!(error.is_missing_tensor());
    assert!(error.to_string().contains("holds W_enc"), "{error}");
    let error = file.load_f32_shaped("W_enc", &[3]).unwrap_err();
    assert!(error.to_string().contains("[2], expected [3]"), "{error}");
}

#[test]
fn integers_are_not_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    save_safetensors(&path, &[("ids", Tensor::new(&[1i64, 2], &Device::Cpu).unwrap())], None).unwrap();
    let error = SafetensorsFile::open(&path).unwrap().load_f32("ids").unwrap_err();
    assert!(error.to_string().contains("holds I64"), "{error}");
}

#[test]
fn two_tensors_of_one_name_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let x = Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap();
    let error = save_safetensors(&path, &[("x", x.clone()), ("x", x)], None).unwrap_err();
    assert!(error.to_string().contains("two tensors named `x`"), "{error}");
    assert!(!path.exists());
}
