//! Fields inside of others, and lists of texts.

use super::support::{Folder, options, refused, texts, tokens};
use activation_store::{DocumentSource, Documents};
use arrow::array::{ArrayRef, DictionaryArray, Int32Array, ListArray, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::record_batch::RecordBatch;
use std::path::PathBuf;
use std::sync::Arc;

/// Objects are parsed whole or as they stream by: both must say the same.
const BOTH_PATHS: [usize; 2] = [16, 1 << 20];

#[test]
fn a_field_inside_of_objects() {
    let dir = Folder::new();
    let lines = "{\"id\": 1, \"data\": {\"text\": \"one\", \"ids\": [1, 2], \"in\": {\"text\": \"deep\"}}}\n\
        {\"data\": null}\n\
        {\"data\": {\"text\": null, \"ids\": null, \"in\": null}, \"text\": \"outside\"}\n\
        {\"data\": {\"text\": \"two\", \"ids\": [], \"in\": {\"text\": \"deeper\"}}}";
    let path = dir.file("x.jsonl", lines);
    let list = dir.file("x.json", format!("[{}]", lines.replace('\n', ",")));
    for max_piece_bytes in BOTH_PATHS {
        let options = options().max_piece_bytes(max_piece_bytes);
        for path in [&path, &list] {
            let found = texts(&[path], options.clone().field("data.text")).unwrap();
            assert_eq!(found, [(0, 0, "one".into()), (0, 3, "two".into())]);
            let found = texts(&[path], options.clone().field("data.in.text")).unwrap();
            assert_eq!(found, [(0, 0, "deep".into()), (0, 3, "deeper".into())]);
            assert_eq!(tokens(&[path], options.clone().field("data.ids")).unwrap(), [(0, vec![1, 2]), (3, vec![])]);
        }
        let mut documents = Documents::open(&[&path], options.clone().field("data.text")).unwrap();
        documents.by_ref().for_each(|piece| drop(piece.unwrap()));
        assert_eq!(documents.report().null_documents, 2);
    }
    // Nothing in the first lines.
    let path = dir.file("y.jsonl", "{\"data\": null}\n{\"data\": {}}\n{\"data\": {\"text\": \"a\"}}");
    assert!(refused(&[&path], options().field("data.text")).contains("has no field `data.text`"));
    let path = dir.file("y.jsonl", "{\"data\": null}\n{\"data\": {\"text\": \"a\"}}");
    assert_eq!(texts(&[&path], options().field("data.text")).unwrap(), [(0, 1, "a".into())]);
}

/// `data.text` as a name of its own comes first, and is another stream.
#[test]
fn a_name_with_a_dot() {
    let dir = Folder::new();
    let both = "{\"data\": {\"text\": \"inside\"}, \"data.text\": \"literal\"}";
    for max_piece_bytes in BOTH_PATHS {
        let options = options().max_piece_bytes(max_piece_bytes).field("data.text");
        assert_eq!(texts(&[dir.file("x.jsonl", both)], options.clone()).unwrap(), [(0, 0, "literal".into())]);
    }
    let digest = |lines: &str| {
        let path = dir.file("y.jsonl", lines);
        Documents::open(&[path], options().field("data.text")).unwrap().digests().unwrap().remove(0).read_as
    };
    assert_ne!(digest(both), digest("{\"data\": {\"text\": \"inside\"}}"));
}

#[test]
fn fields_inside_that_are_not_there() {
    let dir = Folder::new();
    let good = "{\"data\": {\"text\": \"a good line\", \"id\": 3}, \"tags\": [\"a\"]}\n";
    for (lines, field, words) in [
        (good.to_string(), "text", "line 1: has no field `text`; it holds `data.text`, `data.id`, `tags`"),
        (good.to_string(), "data.body", "line 1: has no field `data.body`; it holds `data.text`"),
        (good.to_string(), "data.text.more", "line 1: has no field `data.text.more`"),
        (good.to_string(), "data", "line 1: field `data` holds an object with `data.text`, `data.id`, expected text"),
        (good.to_string(), "data.id", "line 1: field `data.id` holds a number, expected text"),
        (
            good.to_string(),
            "tags",
            "line 1: field `tags` holds a list of texts (join them to one text, or write a row for each)",
        ),
        (format!("{good}{{\"data\": {{\"body\": \"b\"}}}}"), "data.text", "line 2: has no field `data.text`; it holds"),
        (
            format!("{good}{{\"data\": \"a text\"}}"),
            "data.text",
            "line 2: field `data.text` holds nothing: there is text in place of an object",
        ),
        (
            format!("{good}{{\"data\": [{{\"text\": \"a\"}}]}}"),
            "data.text",
            "there is a list in place of an object around it",
        ),
        (
            format!("{good}{{\"data\": {{\"text\": [\"a\", \"b\"]}}}}"),
            "data.text",
            "line 2: field `data.text` holds a list",
        ),
        (
            format!("{good}{{\"data\": {{\"text\": \"a\", \"text\": \"b\"}}}}"),
            "data.text",
            "line 2: the field `data.text` occurs twice",
        ),
        (
            format!("{good}{{\"data\": {{\"text\": \"a\"}}, \"data\": {{}}}}"),
            "data.text",
            "line 2: the field `data.text` occurs twice",
        ),
    ] {
        let path = dir.file("x.jsonl", &lines);
        for max_piece_bytes in BOTH_PATHS {
            let error = refused(&[&path], options().max_piece_bytes(max_piece_bytes).field(field));
            assert!(error.contains(words), "{lines}: {error}");
        }
    }
    let error = refused(&[dir.file("y.jsonl", "{\"tokens\": [\"a\", \"b\"]}")], options());
    assert!(
        error.contains("`tokens` holds a list of texts") && error.contains("expected a list of token ids"),
        "{error}"
    );
}

fn table(dir: &Folder, columns: Vec<(&str, ArrayRef)>) -> [PathBuf; 2] {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut stream = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    [dir.file("x.parquet", bytes), dir.file("x.arrow", stream.into_inner().unwrap())]
}

#[test]
fn columns_inside_of_columns() {
    let dir = Folder::new();
    let field = |name: &str, kind: &DataType| Arc::new(Field::new(name, kind.clone(), true));
    let rows = vec![Some("one"), None, Some("hidden"), Some("two")];
    let text: ArrayRef = Arc::new(StringArray::from(rows.clone()));
    let kinds: ArrayRef = Arc::new(rows.into_iter().collect::<DictionaryArray<Int32Type>>());
    let ids: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
        [vec![1], vec![2], vec![3], vec![]].map(|ids| Some(ids.into_iter().map(Some).collect::<Vec<_>>())),
    ));
    let inner = StructArray::from(vec![
        (field("text", text.data_type()), text.clone()),
        (field("kind", kinds.data_type()), kinds),
    ]);
    let columns: Vec<ArrayRef> = vec![text.clone(), ids.clone(), Arc::new(inner.clone())];
    let fields =
        ["text", "ids", "in"].iter().zip(&columns).map(|(name, c)| field(name, c.data_type())).collect::<Vec<_>>();
    // The third row of the struct is null whatever its columns hold.
    let nulls = NullBuffer::from(vec![true, true, false, true]);
    let data: ArrayRef = Arc::new(StructArray::new(fields.into(), columns, Some(nulls)));
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
    let literal: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d"]));
    for path in table(&dir, vec![("id", numbers.clone()), ("data", data.clone())]) {
        for name in ["data.text", "data.in.text", "data.in.kind"] {
            let mut documents = Documents::open(&[&path], options().field(name)).unwrap();
            documents.by_ref().for_each(|piece| drop(piece.unwrap()));
            assert_eq!(documents.report().null_documents, 2, "{name}");
            let found = texts(&[&path], options().field(name)).unwrap();
            assert_eq!(found, [(0, 0, "one".into()), (0, 3, "two".into())], "{name}");
        }
        let found = tokens(&[&path], options().field("data.ids")).unwrap();
        assert_eq!(found, [(0, vec![1]), (1, vec![2]), (3, vec![])]);
        let error = refused(&[&path], options());
        assert!(error.contains("it holds `id`, `data.text`, `data.ids`, `data.in.text`, `data.in.kind`"), "{error}");
        assert!(refused(&[&path], options().field("data")).contains("field `data` holds an object with `data.text`"));
    }
    for path in table(&dir, vec![("data", data), ("data.text", literal)]) {
        let found = texts(&[path], options().field("data.text")).unwrap();
        assert_eq!(found.into_iter().map(|(_, _, text)| text).collect::<String>(), "abcd");
    }
    let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    builder.append_value([Some("a"), Some("b")]);
    for path in table(&dir, vec![("text", Arc::new(builder.finish()))]) {
        let error = refused(&[path], options());
        assert!(error.contains("field `text` holds a list of texts (join them"), "{error}");
    }
}
