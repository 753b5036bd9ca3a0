//! Conversations: the fields that hold them, and the text that a chat template makes of them.

use super::support::{Folder, options, refused, texts};
use activation_store::{DocumentSource, Documents};
use arrow::array::{Array, ArrayRef, Int32Array, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use model_hooks::ChatTemplate;
use std::sync::Arc;

fn template() -> ChatTemplate {
    let text = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    ChatTemplate::new(text, &[]).unwrap()
}

/// Objects are parsed whole or as they stream by: both must say the same.
const BOTH_PATHS: [usize; 2] = [16, 1 << 20];

const A: &str = r#"[{"role": "user", "content": "Hi é"}, {"role": "assistant", "content": "Hello."}]"#;
const B: &str = r#"[{"from": "human", "value": "and \"more\""}, {"from": "gpt", "value": "words"}]"#;

#[test]
fn lines_and_lists_of_conversations() {
    let dir = Folder::new();
    let expected = ["<user>Hi é<assistant>Hello.", "<user>and \"more\"<assistant>words"];
    for field in ["conversation", "conversations", "messages"] {
        let line = |value: &str| format!("{{\"score\": NaN, \"{field}\": {value}, \"tag\": [1]}}");
        let all = [line("null"), line(A), line("[]"), line(B)];
        for bytes in [all.join("\n"), format!("[{}]", all.join(",\n"))] {
            let path = dir.file("x.json", bytes);
            for max_piece_bytes in BOTH_PATHS {
                let options = options().max_piece_bytes(max_piece_bytes).chat_template(template());
                let mut documents = Documents::open(&[&path], options.clone()).unwrap();
                assert!(!documents.are_tokens());
                documents.by_ref().for_each(drop);
                assert_eq!(documents.report().null_documents, 2);
                let found = texts(&[&path], options).unwrap();
                assert_eq!(found, [(0, 1, expected[0].to_string()), (0, 3, expected[1].to_string())]);
            }
        }
    }
}

#[test]
fn the_order_of_fields_is_that_of_saelens() {
    let dir = Folder::new();
    let all = format!("{{\"messages\": {A}, \"conversations\": {B}, \"text\": \"plain text\", \"chat\": {A}}}");
    let path = dir.file("x.jsonl", &all);
    let of = |options| texts(&[&path], options).unwrap().remove(0).2;
    let options = options().chat_template(template());
    assert_eq!(of(options.clone()), "plain text");
    assert_eq!(of(options.clone().field("chat")), "<user>Hi é<assistant>Hello.");
    assert_eq!(of(options.clone().use_chat_formatting(true)), "<user>and \"more\"<assistant>words");
    for max_piece_bytes in BOTH_PATHS {
        let path = dir.file("y.jsonl", "{\"text\": \"a text of some length\"}\n{\"text\": null}\n");
        let options = options.clone().use_chat_formatting(true).max_piece_bytes(max_piece_bytes);
        assert_eq!(texts(&[&path], options).unwrap(), [(0, 0, "<user>a text of some length".into())]);
    }
    let error = refused(&[dir.file("a.txt", "text")], options.use_chat_formatting(true));
    assert!(error.contains("use_chat_formatting") && error.contains("a.txt"), "{error}");
}

#[test]
fn conversations_that_cannot_be_read() {
    let dir = Folder::new();
    let path = dir.file("x.jsonl", format!("{{\"messages\": {A}}}"));
    let error = refused(&[&path], options());
    for words in ["x.jsonl", "`messages` holds conversations", "no chat template", "tokenizer_config.json"] {
        assert!(error.contains(words), "{error}");
    }
    let tool = r#"[{"role": "tool", "content": "42"}]"#;
    for (lines, expected) in [
        (format!("{{\"messages\": {A}}}\n{{\"messages\": \"no list at all\"}}"), "line 2: field `messages` holds text"),
        (
            "{\"messages\": [{\"body\": \"x\"}]}\n{\"messages\": [17, 18, 19, 20]}".into(),
            "line 1: the conversation in `messages`",
        ),
        ("{\"messages\": [{\"body\": \"x\"}]}\n".into(), "has no `role`"),
        (
            format!("{{\"messages\": {tool}}}\n{{\"messages\": {tool}}}"),
            "line 1: the conversation in `messages` cannot be written as text: chat template: no tools",
        ),
    ] {
        let path = dir.file("y.jsonl", lines);
        for max_piece_bytes in BOTH_PATHS {
            let error = refused(&[&path], options().max_piece_bytes(max_piece_bytes).chat_template(template()));
            assert!(error.contains(expected), "{error}");
        }
    }
    // One that the template refuses among others is left out and counted.
    let path = dir.file("z.jsonl", format!("{{\"messages\": {tool}}}\n{{\"messages\": {A}}}"));
    let mut documents = Documents::open(&[&path], options().chat_template(template())).unwrap();
    assert_eq!(documents.by_ref().map(Result::unwrap).count(), 1);
    assert_eq!(documents.report().refused_conversations, 1);
    // So are records that are no conversations.
    let path = dir.file(
        "odd.jsonl",
        format!("{{\"messages\": {A}}}\n{{\"messages\": [{{\"body\": \"x\"}}]}}\n{{\"messages\": {B}}}"),
    );
    for max_piece_bytes in BOTH_PATHS {
        let options = options().max_piece_bytes(max_piece_bytes).chat_template(template());
        let mut documents = Documents::open(&[&path], options).unwrap();
        assert_eq!(documents.by_ref().map(Result::unwrap).filter(|piece| piece.last).count(), 2);
        assert_eq!(documents.report().refused_conversations, 1);
    }
}

#[test]
fn conversations_in_parquet() {
    let dir = Folder::new();
    let column = |name: &str, array: ArrayRef| (Arc::new(Field::new(name, array.data_type().clone(), true)), array);
    let messages = StructArray::from(vec![
        column("role", Arc::new(StringArray::from(vec!["user", "assistant", "user"]))),
        column("content", Arc::new(StringArray::from(vec![Some("Hi \"é\"\n"), Some("Hello."), None]))),
        column("turn", Arc::new(Int32Array::from(vec![0, 1, 0]))),
    ]);
    let item = Arc::new(Field::new("item", messages.data_type().clone(), true));
    let nulls = vec![true, false, true, true].into();
    let offsets = OffsetBuffer::from_lengths([2, 0, 1, 0]);
    let list: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(messages), Some(nulls)));
    assert!(matches!(list.data_type(), DataType::List(_)));
    let batch = RecordBatch::try_from_iter_with_nullable([("messages", list, true)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let path = dir.file("x.parquet", bytes);
    let text = "{% for m in messages %}<{{ m.role }} {{ m.turn + 1 }}>{{ m.content or '-' }}{% endfor %}";
    let options = options().chat_template(ChatTemplate::new(text, &[]).unwrap());
    let found = texts(&[&path], options).unwrap();
    let expected = [(0, 0, "<user 1>Hi \"é\"\n<assistant 2>Hello.".to_string()), (0, 2, "<user 1>-".to_string())];
    assert_eq!(found, expected);
}

#[test]
fn another_template_is_another_stream() {
    let dir = Folder::new();
    let path = dir.file("x.jsonl", format!("{{\"messages\": {A}}}\n"));
    let digests = |options| Documents::open(&[&path], options).unwrap().digests().unwrap();
    let with = |template: ChatTemplate| digests(options().chat_template(template));
    assert_eq!(with(template()), with(template()));
    let other = ChatTemplate::new("{% for m in messages %}{{ m.content }}{% endfor %}", &[]).unwrap();
    assert_ne!(with(template()), with(other));
    // A template that makes nothing of these documents does not matter.
    let plain = dir.file("y.jsonl", "{\"text\": \"plain\"}\n");
    let of_text = |options| Documents::open(&[&plain], options).unwrap().digests().unwrap();
    assert_eq!(of_text(options()), of_text(options().chat_template(template())));
    // A text without white space is cut where its piece ends.
    assert_ne!(of_text(options()), of_text(options().max_piece_bytes(64)));
}
