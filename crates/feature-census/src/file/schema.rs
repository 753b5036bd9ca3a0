//! The columns.

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use std::sync::Arc;

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

pub(super) fn bin_fields() -> Fields {
    vec![field("bin", DataType::UInt8), field("count", DataType::UInt64)].into()
}

pub(super) fn example_fields() -> Fields {
    vec![
        field("row", DataType::UInt64),
        field("pos", DataType::UInt32),
        field("token", DataType::UInt32),
        field("activation", DataType::Float32),
    ]
    .into()
}

pub(super) fn sample_fields() -> Fields {
    let bin = Arc::new(field("bin", DataType::UInt8));
    std::iter::once(&bin).chain(&example_fields()).cloned().collect()
}

/// The element of a list.
pub(super) fn item(data_type: DataType) -> FieldRef {
    Arc::new(field("item", data_type))
}

pub(super) fn schema() -> Schema {
    let list = |name, data_type| field(name, DataType::List(item(data_type)));
    Schema::new(vec![
        field("feature", DataType::UInt32),
        field("count", DataType::UInt64),
        field("density", DataType::Float64),
        field("mean", DataType::Float64),
        field("std", DataType::Float64),
        Field::new("min", DataType::Float32, true),
        Field::new("max", DataType::Float32, true),
        field("sum_high", DataType::Int64),
        field("sum_low", DataType::UInt64),
        field("squares_high", DataType::UInt64),
        field("squares_low", DataType::UInt64),
        Field::new("documents", DataType::UInt64, true),
        list("histogram", DataType::Struct(bin_fields())),
        list("top", DataType::Struct(example_fields())),
        list("samples", DataType::Struct(sample_fields())),
        list("together", DataType::UInt64),
        list("edges", DataType::UInt32),
    ])
}
