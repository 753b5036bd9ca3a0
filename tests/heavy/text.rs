//! The tokenizer.

use crate::support::parse;
use crate::{json, path};
use model_hooks::Tokenizer;

#[test]
#[ignore = "needs SAESCOPE_GPT2_RANDOM and SAESCOPE_GOLDENS"]
fn nasty_strings_have_the_ids_and_pieces_of_python() {
    let tokenizer = Tokenizer::from_folder(path("SAESCOPE_GPT2_RANDOM")).expect("the tokenizer loads");
    let cases = json("tokenizer_cases.json");
    let cases = cases.as_array().expect("a list");
    for case in cases {
        let text = case["text"].as_str().expect("text");
        let ids: Vec<u32> = parse(&case["ids"]);
        let pieces: Vec<String> = parse(&case["pieces"]);
        let ours = tokenizer.encode(text).expect("encodes").ids;
        assert_eq!(ours, ids, "ids of {text:?}");
        assert_eq!(tokenizer.to_str_tokens(&ours).expect("pieces"), pieces, "pieces of {text:?}");
        assert_eq!(tokenizer.decode(&ours).expect("decodes"), case["decoded"].as_str().expect("text"), "{text:?}");
    }
    println!("| {} strings: ids, pieces, decoded text | equal | exact |", cases.len());
}
