//! Parquet: the types of columns that hold documents, and damaged files.

use super::support::{Folder, options, refused, texts, tokens};
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, UInt32Type};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use std::sync::Arc;

fn table(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let fields: Vec<Field> = columns.iter().map(|(name, a)| Field::new(*name, a.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, a)| a).collect()).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn every_type_of_text() {
    let dir = Folder::new();
    let rows = vec!["one", "", "drei é and a text that is longer than sixteen bytes"];
    let arrays: [ArrayRef; 4] = [
        Arc::new(StringArray::from(rows.clone())),
        Arc::new(LargeStringArray::from(rows.clone())),
        Arc::new(StringViewArray::from(rows.clone())),
        Arc::new(rows.iter().copied().collect::<DictionaryArray<Int32Type>>()),
    ];
    for array in arrays {
        let id: ArrayRef = Arc::new(UInt32Array::from(vec![1, 2, 3]));
        let path = dir.file("x.parquet", table(vec![("id", id), ("text", array)]));
        for max_piece_bytes in [16, 1 << 20] {
            let found = texts(&[&path], options().max_piece_bytes(max_piece_bytes)).unwrap();
            assert_eq!(found, (0..).zip(&rows).map(|(i, t)| (0, i, t.to_string())).collect::<Vec<_>>());
        }
    }
}

#[test]
fn every_type_of_token_list() {
    let dir = Folder::new();
    let rows = vec![vec![1u32, 2, 3], vec![], vec![70_000]];
    fn list<T: arrow::datatypes::ArrowPrimitiveType>(rows: &[Vec<u32>]) -> ArrayRef
    where
        T::Native: TryFrom<u32>,
    {
        let row = |row: &Vec<u32>| Some(row.iter().map(|id| T::Native::try_from(*id).ok()).collect::<Vec<_>>());
        Arc::new(ListArray::from_iter_primitive::<T, _, _>(rows.iter().map(row)))
    }
    for array in [
        list::<Int32Type>(&rows),
        list::<UInt32Type>(&rows),
        list::<arrow::datatypes::Int64Type>(&rows),
        list::<arrow::datatypes::UInt64Type>(&rows),
    ] {
        let path = dir.file("x.parquet", table(vec![("input_ids", array.clone())]));
        assert_eq!(tokens(&[&path], options()).unwrap(), (0..).zip(rows.clone()).collect::<Vec<_>>());
        let item = Arc::new(Field::new("item", array.as_list::<i32>().value_type(), true));
        let large = arrow::compute::cast(&array, &DataType::LargeList(item)).unwrap();
        let path = dir.file("x.parquet", table(vec![("ids", large)]));
        assert_eq!(tokens(&[&path], options().field("ids")).unwrap(), (0..).zip(rows.clone()).collect::<Vec<_>>());
    }
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        [Some(vec![Some(1), Some(2)]), Some(vec![Some(3), Some(4)])],
        2,
    );
    let path = dir.file("x.parquet", table(vec![("tokens", Arc::new(fixed))]));
    assert_eq!(tokens(&[&path], options()).unwrap(), [(0, vec![1, 2]), (1, vec![3, 4])]);
}

#[test]
fn many_rows_keep_their_numbers() {
    let dir = Folder::new();
    let rows: Vec<String> = (0..3000).map(|i| format!("row {i} {}", "x".repeat(i % 97))).collect();
    let path = dir.file("x.parquet", table(vec![("text", Arc::new(StringArray::from(rows.clone())))]));
    assert_eq!(texts(&[&path], options()).unwrap(), (0..).zip(rows).map(|(i, t)| (0, i, t)).collect::<Vec<_>>());
}

#[test]
fn columns_that_do_not_fit() {
    let dir = Folder::new();
    let numbers: ArrayRef = Arc::new(UInt32Array::from(vec![1, 2]));
    let path = dir.file("x.parquet", table(vec![("a", numbers.clone()), ("b", numbers.clone())]));
    let error = refused(&[&path], options());
    assert!(
        error.contains(
            "x.parquet, schema: has no field `tokens`, `input_ids`, `text`, `problem`, `conversation`, `conversations`, \
             `messages`; it holds `a`, `b`"
        ),
        "{error}"
    );
    let error = refused(&[&path], options().field("a"));
    assert!(error.contains("field `a` holds UInt32, expected text"), "{error}");
    let path = dir.file("x.parquet", table(vec![("text", numbers)]));
    assert!(refused(&[&path], options()).contains("field `text` holds UInt32, expected text"));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let error = refused(&[&dir.file("x.parquet", table(vec![("tokens", text)]))], options());
    assert!(error.contains("field `tokens` holds text, expected a list of token ids"), "{error}");
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), Some(vec![Some(2), Some(-3)])]);
    let error = refused(&[&dir.file("x.parquet", table(vec![("tokens", Arc::new(lists))]))], options());
    assert!(error.contains("row 2: element 1 of `tokens` is -3"), "{error}");
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
    let error = refused(&[&dir.file("x.parquet", table(vec![("tokens", Arc::new(lists))]))], options());
    assert!(error.contains("row 1: element 1 of `tokens` is null"), "{error}");
    let none: ArrayRef = Arc::new(StringArray::from(Vec::<&str>::new()));
    let error = refused(&[&dir.file("x.parquet", table(vec![("text", none)]))], options());
    assert!(error.contains("holds no document"), "{error}");
}

#[test]
fn damaged_files() {
    let dir = Folder::new();
    let rows: Vec<String> = (0..500).map(|i| format!("row {i} of many")).collect();
    let good = table(vec![("text", Arc::new(StringArray::from(rows)))]);
    for bytes in [
        &b"no parquet at all"[..],
        b"PAR1",
        b"PAR1PAR1PAR1",
        &good[..good.len() - 1],
        &good[..good.len() / 2],
        &good[4..],
    ] {
        let error = refused(&[&dir.file("x.parquet", bytes)], options());
        assert!(error.contains("x.parquet: cannot be read as Parquet"), "{error}");
    }
    // Bytes flipped anywhere: an error or other words, never a crash of the reader's thread that goes unnoticed.
    for at in (4..good.len()).step_by(37) {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        if let Err(error) = texts(&[&dir.file("x.parquet", bytes)], options()) {
            assert!(error.to_string().contains("x.parquet"), "{error}");
        }
    }
}
