//! A value of an Arrow array as JSON: the messages of a conversation in a Parquet file.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

/// Writes value `i`. What JSON has no type for (times, decimals, bytes) becomes a string.
pub(super) fn write(array: &dyn Array, i: usize, out: &mut String) -> Result<(), ArrowError> {
    if array.is_null(i) || array.data_type() == &DataType::Null {
        out.push_str("null");
        return Ok(());
    }
    match array.data_type() {
        DataType::Boolean => out.push_str(if array.as_boolean().value(i) { "true" } else { "false" }),
        DataType::Utf8 => string(array.as_string::<i32>().value(i), out),
        DataType::LargeUtf8 => string(array.as_string::<i64>().value(i), out),
        DataType::Utf8View => string(array.as_string_view().value(i), out),
        DataType::List(_) => list(&array.as_list::<i32>().value(i), out)?,
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(i), out)?,
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(i), out)?,
        DataType::Struct(fields) => {
            out.push('{');
            for (n, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                if n > 0 {
                    out.push(',');
                }
                string(field.name(), out);
                out.push(':');
                write(column.as_ref(), i, out)?;
            }
            out.push('}');
        }
        DataType::Dictionary(..) => write(cast(&array.slice(i, 1), &DataType::Utf8)?.as_ref(), 0, out)?,
        kind if kind.is_integer() && *kind != DataType::UInt64 => {
            out.push_str(&cast(&array.slice(i, 1), &DataType::Int64)?.as_primitive::<Int64Type>().value(0).to_string());
        }
        kind if kind.is_floating() => {
            let number = cast(&array.slice(i, 1), &DataType::Float64)?.as_primitive::<Float64Type>().value(0);
            if number.is_finite() { out.push_str(&format!("{number:?}")) } else { out.push_str("null") }
        }
        DataType::UInt64 => out.push_str(&array_value_to_string(array, i)?),
        _ => string(&array_value_to_string(array, i)?, out),
    }
    Ok(())
}

fn list(values: &ArrayRef, out: &mut String) -> Result<(), ArrowError> {
    out.push('[');
    for i in 0..values.len() {
        if i > 0 {
            out.push(',');
        }
        write(values.as_ref(), i, out)?;
    }
    out.push(']');
    Ok(())
}

fn string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
