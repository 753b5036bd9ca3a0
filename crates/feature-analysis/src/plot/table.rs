//! A table for reading, in HTML and in a terminal.

use super::text::visible_context;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type};
use arrow::util::display::array_value_to_string;
use maud::{Markup, html};
use std::fmt;
use unicode_width::UnicodeWidthStr;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text under headings. `Display` writes aligned columns, by the width of the characters in a terminal;
/// [`Table::to_html`] writes an escaped `<table>`.
///
/// ```
/// use feature_analysis::plot::{Align, Table};
/// let mut table = Table::new([("token", Align::Left), ("n", Align::Right)]);
/// table.row(["␣Monday", "12"]);
/// assert_eq!(table.to_string(), "token     n\n───────  ──\n␣Monday  12\n");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = (S, Align)>) -> Self {
        Self { columns: columns.into_iter().map(|(name, align)| (name.into(), align)).collect(), rows: Vec::new() }
    }

    /// Adds a row. Cells that are missing are empty; cells beyond the last column are left out.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).take(self.columns.len()).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }

    /// The first `rows` lines of a frame, of these columns (those that it lacks are left out). Numbers stand right; control
    /// characters and spaces at the ends of text are shown by signs.
    pub fn from_frame(frame: &RecordBatch, columns: &[&str], rows: usize) -> Self {
        let found: Vec<_> = columns.iter().filter_map(|name| Some((*name, frame.column_by_name(name)?))).collect();
        let align = |array: &ArrayRef| if array.data_type().is_numeric() { Align::Right } else { Align::Left };
        let mut table = Self::new(found.iter().map(|(name, array)| (*name, align(array))));
        for i in 0..rows.min(frame.num_rows()) {
            table.row(found.iter().map(|(_, array)| cell(array, i)));
        }
        table
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as HTML. All text is escaped.
    pub fn to_html(&self) -> Markup {
        let class = |align: Align| (align == Align::Right).then_some("number");
        html! {
            div class="scroll" {
                table {
                    thead { tr { @for (name, align) in &self.columns { th class=[class(*align)] { (name) } } } }
                    tbody {
                        @for row in &self.rows {
                            tr { @for (cell, (_, align)) in row.iter().zip(&self.columns) { td class=[class(*align)] { (cell) } } }
                        }
                    }
                }
            }
        }
    }

    fn widths(&self) -> Vec<usize> {
        let of_column = |i: usize| self.rows.iter().map(|row| row[i].width()).max().unwrap_or(0);
        self.columns.iter().enumerate().map(|(i, (name, _))| name.width().max(of_column(i))).collect()
    }
}

/// A cell of a frame in words.
fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "–".to_owned();
    }
    match array.data_type() {
        DataType::Utf8 => with_ends_shown(array.as_string::<i32>().value(row)),
        DataType::Float32 => format!("{:.3}", array.as_primitive::<Float32Type>().value(row)),
        _ => array_value_to_string(array, row).unwrap_or_default(),
    }
}

/// Spaces inside a text can be seen, those at its ends cannot.
fn with_ends_shown(text: &str) -> String {
    let inner = text.trim_matches(' ');
    let before = text.len() - text.trim_start_matches(' ').len();
    let after = if inner.is_empty() { 0 } else { text.len() - text.trim_end_matches(' ').len() };
    format!("{}{}{}", "␣".repeat(before), visible_context(inner), "␣".repeat(after))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for ((cell, width), (_, align)) in cells.zip(&widths).zip(&self.columns) {
                let gap = " ".repeat(width - cell.width());
                match align {
                    Align::Left => text.extend([cell, &gap, "  "]),
                    Align::Right => text.extend([&gap, cell, "  "]),
                }
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(&mut self.columns.iter().map(|(name, _)| name.as_str()))?;
        let rules: Vec<String> = widths.iter().map(|w| "─".repeat(*w)).collect();
        line(&mut rules.iter().map(String::as_str))?;
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_aligned_under_wide_characters() {
        let mut table = Table::new([("t", Align::Left), ("n", Align::Right)]);
        table.row(["漢字", "1"]).row(["ab", "123"]).row(["only one cell"]);
        assert_eq!(table.len(), 3);
        let text = table.to_string();
        let starts: Vec<usize> = text
            .lines()
            .skip(2)
            .take(2)
            .map(|l| l.find(|c: char| c.is_ascii_digit()).map(|at| l[..at].width()).unwrap())
            .collect();
        assert_eq!(starts, [17, 15], "right-aligned in:\n{text}");
    }

    #[test]
    fn frames_become_tables() {
        use arrow::array::{Float32Array, StringArray, UInt64Array};
        use std::sync::Arc;
        let texts: ArrayRef = Arc::new(StringArray::from(vec![" a\n", "  "]));
        let numbers: ArrayRef = Arc::new(Float32Array::from(vec![1.5, 2.0]));
        let gaps: ArrayRef = Arc::new(UInt64Array::from(vec![None, Some(7)]));
        let frame =
            RecordBatch::try_from_iter_with_nullable([("t", texts, false), ("x", numbers, false), ("g", gaps, true)])
                .unwrap();
        let table = Table::from_frame(&frame, &["x", "t", "missing", "g"], 9);
        assert_eq!(table.to_string(), "    x  t    g\n─────  ───  ─\n1.500  ␣a↵  –\n2.000  ␣␣   7\n");
    }

    #[test]
    fn html_is_escaped() {
        let mut table = Table::new([("<h>", Align::Left)]);
        table.row(["</td><script>alert(1)</script>"]);
        let html = table.to_html().into_string();
        assert!(!html.contains("<script") && !html.contains("<h>"), "{html}");
    }
}
