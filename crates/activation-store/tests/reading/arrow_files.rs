//! Arrow IPC, as the `datasets` library keeps rows on the disk.

use super::support::{Folder, options, refused, texts, tokens};
use activation_store::{DocumentSource, Documents};
use arrow::array::{ArrayRef, DictionaryArray, ListArray, NullArray, StringArray};
use arrow::datatypes::Int32Type;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

fn batches() -> Vec<RecordBatch> {
    let batch = |from: i32| {
        let rows = (from..from + 3).map(|i| (i != 4).then(|| format!("row {i}"))).collect::<Vec<_>>();
        let ids = (from..from + 3).map(|i| Some(vec![Some(i); i as usize]));
        let dictionary: DictionaryArray<Int32Type> = rows.iter().map(|row| row.as_deref()).collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("nothing", Arc::new(NullArray::new(3))),
            ("text", Arc::new(StringArray::from(rows.clone()))),
            ("input_ids", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(ids))),
            ("category", Arc::new(dictionary)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    };
    vec![batch(0), batch(3)]
}

fn stream() -> Vec<u8> {
    let batches = batches();
    let mut out = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| out.write(batch).unwrap());
    out.into_inner().unwrap()
}

#[test]
fn streams_and_files_with_a_footer() {
    let dir = Folder::new();
    // A file with a footer has one dictionary for a column, these batches have one each.
    let batches: Vec<_> = batches().iter().map(|batch| batch.project(&[0, 1, 2, 1]).unwrap()).collect();
    let renamed = ["nothing", "text", "input_ids", "category"];
    let batches = batches.iter().map(|b| {
        RecordBatch::try_from_iter_with_nullable(
            renamed.into_iter().zip(b.columns().to_vec()).map(|(n, c)| (n, c, true)),
        )
        .unwrap()
    });
    let batches: Vec<_> = batches.collect();
    let mut out = FileWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| out.write(batch).unwrap());
    let stream = stream();
    // The library's writer leaves out the end of a stream when it is killed between two batches.
    let open_end = stream[..stream.len() - 8].to_vec();
    for bytes in [stream, out.into_inner().unwrap(), open_end] {
        let path = dir.file("data-00000-of-00001.arrow", bytes);
        for field in ["text", "category"] {
            let mut documents = Documents::open(&[&path], options().field(field)).unwrap();
            documents.by_ref().for_each(|piece| drop(piece.unwrap()));
            assert_eq!(documents.report().null_documents, 1);
            let found = texts(&[&path], options().field(field)).unwrap();
            let expected = [0, 1, 2, 3, 5].map(|i| (0, i, format!("row {i}")));
            assert_eq!(found, expected, "{field}");
        }
        let expected: Vec<_> = (0..6u32).map(|i| (u64::from(i), vec![i; i as usize])).collect();
        assert_eq!(tokens(&[&path], options()).unwrap(), expected);
        let error = refused(&[&path], options().field("nothing"));
        assert!(error.contains("holds no document"), "{error}");
        assert!(
            refused(&[&path], options().field("body"))
                .contains("schema: has no field `body`; it holds `nothing`, `text`")
        );
    }
    // A folder of `save_to_disk`.
    dir.file("state.json", "{\"_data_files\": [{\"filename\": \"data-00000-of-00001.arrow\"}]}");
    dir.file("dataset_info.json", "{}");
    assert_eq!(texts(&[dir.path()], options().field("text")).unwrap().len(), 5);
}

#[test]
fn arrow_files_that_cannot_be_read() {
    let dir = Folder::new();
    let stream = stream();
    let error = refused(&[dir.file("x.arrow", b"no table at all, but text")], options());
    assert!(error.contains("x.arrow: cannot be read as Arrow IPC") && error.contains("ds.to_parquet("), "{error}");
    let error = refused(&[dir.file("x.arrow", &stream[..stream.len() / 2])], options());
    assert!(error.contains("cannot be read as Arrow IPC: a message"), "{error}");
    let empty = StreamWriter::try_new(Vec::new(), &batches()[0].schema()).unwrap().into_inner().unwrap();
    assert!(refused(&[dir.file("x.arrow", empty)], options()).contains("holds no document"));
}

/// Any byte changed, cut anywhere: read or refused, never a reader that stops without a word.
#[test]
fn damaged_arrow_files() {
    let dir = Folder::new();
    let sound = stream();
    let check = |bytes: &[u8], field: &str| {
        let path = dir.file("x.arrow", bytes);
        let Ok(documents) = Documents::open(&[&path], options().field(field)) else { return };
        for piece in documents {
            if let Err(error) = piece {
                assert!(!matches!(error, activation_store::Error::ReaderStopped { .. }), "{error}");
            }
        }
    };
    let fields = ["text", "input_ids", "category"];
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] = [0, 0x7f, 0xff, sound[at] ^ 1][at % 4];
        check(&bytes, fields[at % 3]);
    }
    (0..sound.len()).step_by(31).for_each(|end| check(&sound[..end], "text"));
}
