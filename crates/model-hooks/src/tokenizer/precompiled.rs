//! Compiled rules of normalization in a `tokenizer.json`: `{"type": "Precompiled", "precompiled_charsmap": "base64"}`, anywhere among its normalizers.
//!
//! The `tokenizers` crate panics on those that are malformed, and takes as much memory as they claim.

use super::sentencepiece::charsmap;
use serde_json::Value;

const KEY: &str = "precompiled_charsmap";

/// Checks every compiled rule inside of a normalizer.
pub(super) fn check(normalizer: &Value) -> Result<(), String> {
    match normalizer {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match (key == KEY, value) {
            (false, value) => check(value),
            (true, Value::String(text)) => match decode(text) {
                Some(bytes) => charsmap::check(&bytes),
                None => Err(format!("its {KEY} is not base64")),
            },
            (true, Value::Null | Value::Bool(_) | Value::Number(_)) => {
                Err(format!("its {KEY} is {value}, expected base64"))
            }
            (true, Value::Array(_) | Value::Object(_)) => {
                Err(format!("its {KEY} is a list or an object, expected base64"))
            }
        }),
        Value::Array(items) => items.iter().try_for_each(check),
        _ => Ok(()),
    }
}

/// The bytes of base64 with `+` and `/`, padded or not. Bits behind the last byte must be zero.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut held, mut bits) = (0u32, 0);
    for digit in digits.bytes() {
        let digit = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (held, bits) = (held << 6 | u32::from(digit), bits + 6);
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn base64() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zg", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("+/+/").unwrap(), [0xFB, 0xFF, 0xBF]);
        for bad in ["Z", "Zm9vY", "Zh==", "Zm9=", "Z===", "Zm 8=", "Zm8=Zm8=", "Zm-_", "é"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn rules_are_found_wherever_they_are() {
        let bad = json!({"type": "Precompiled", KEY: "////f/8="});
        for normalizer in [bad.clone(), json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, bad]})] {
            assert!(check(&normalizer).unwrap_err().contains("has a trie of 2147483647 bytes"));
        }
        assert!(check(&json!({KEY: "?"})).unwrap_err().contains("is not base64"));
        assert!(check(&json!({KEY: null})).unwrap_err().contains("is null"));
        assert!(check(&json!({KEY: ["Zg=="]})).unwrap_err().contains("is a list"));
        assert_eq!(check(&json!({"type": "Sequence", "normalizers": [{"type": "NFC"}]})), Ok(()));
    }
}
