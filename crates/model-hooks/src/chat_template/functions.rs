//! Functions that transformers adds to Jinja, and JSON and dates in Python's format.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use std::fmt::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// Values nest no deeper in JSON that is written.
const MAX_DEPTH: usize = 100;

pub(super) fn add(environment: &mut Environment<'static>, date: Option<[u16; 3]>) {
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter("tojson", tojson);
    if let Some(date) = date {
        environment.add_function("strftime_now", move |format: &str| strftime(format, date));
    }
}

/// `YYYY-MM-DD` as year, month, day.
pub(super) fn parse_date(text: &str) -> Option<[u16; 3]> {
    let parts: Vec<u16> = text.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [year, month, day] = parts[..] else { return None };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *days.get(usize::from(month).checked_sub(1)?)?;
    ((1..=9999).contains(&year) && (1..=length).contains(&day)).then_some([year, month, day])
}

/// Python's `strftime` for a date at midnight.
fn strftime(format: &str, [year, month, day]: [u16; 3]) -> Result<String, Error> {
    let named = |names: &[&'static str], i: usize| names.get(i).copied().unwrap_or_default();
    // Sakamoto's rule for the day of the week.
    let shift = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4].get(usize::from(month) - 1).copied().unwrap_or(0);
    let y = u32::from(year) - u32::from(month < 3);
    let weekday = ((y + y / 4 - y / 100 + y / 400 + shift + u32::from(day)) % 7) as usize;
    let (month_name, day_name) = (named(&MONTHS, usize::from(month) - 1), named(&DAYS, weekday));
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let code = letters.next();
        let written = match code {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('B') => write!(out, "{month_name}"),
            Some('b' | 'h') => write!(out, "{}", month_name.get(..3).unwrap_or_default()),
            Some('A') => write!(out, "{day_name}"),
            Some('a') => write!(out, "{}", day_name.get(..3).unwrap_or_default()),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('H' | 'M' | 'S') => write!(out, "00"),
            Some('%') => write!(out, "%"),
            _ => {
                let reason =
                    format!("strftime_now: `%{}` is not supported", code.map(String::from).unwrap_or_default());
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
        };
        written.map_err(|_| Error::new(ErrorKind::InvalidOperation, "strftime_now: out of memory"))?;
    }
    Ok(out)
}

/// Python's `json.dumps`, whose separators have a space after them, without escapes for HTML or beyond ASCII.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts")),
    };
    let style = Style {
        indent: indent.map(|n| n.min(64)),
        ascii: ascii.unwrap_or(false),
        sort_keys: sort_keys.unwrap_or(false),
        item,
        key,
    };
    let mut out = String::new();
    style.write(&mut out, value, 0)?;
    Ok(out)
}

struct Style {
    indent: Option<usize>,
    ascii: bool,
    sort_keys: bool,
    item: String,
    key: String,
}

impl Style {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::new(ErrorKind::InvalidOperation, reason));
        if depth > MAX_DEPTH {
            return refuse(format!("tojson: nested more than {MAX_DEPTH} deep"));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(number) if !value.is_integer() => out.push_str(&python_float(number)),
                _ => out.push_str(&value.to_string()),
            },
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(out, ['[', ']'], &items, depth, |out, item| self.write(out, item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    let item = value.get_item(&key)?;
                    pairs.push((key.as_str().map_or_else(|| key.to_string(), str::to_string), item));
                }
                if self.sort_keys {
                    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.list(out, ['{', '}'], &pairs, depth, |out, (name, item)| {
                    self.string(out, name);
                    out.push_str(&self.key);
                    self.write(out, item, depth + 1)
                })?;
            }
            other => return refuse(format!("tojson: {other} has no JSON")),
        }
        Ok(())
    }

    fn list<T>(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        items: &[T],
        depth: usize,
        mut write: impl FnMut(&mut String, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.item);
            }
            line(out, depth + 1);
            write(out, item)?;
        }
        if !items.is_empty() {
            line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Python's `repr` of a float.
fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    // Shortest digits, as Python's; it writes an exponent of two digits from 1e16 on and below 1e-4.
    let scientific = format!("{number:e}");
    match scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?))) {
        Some((digits, exponent)) if number != 0.0 && !(-4..16).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => format!("{number:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_python_writes_them() {
        for (number, expected) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (0.0001, "0.0001"),
            (-0.0, "-0.0"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(python_float(number), expected);
        }
    }

    #[test]
    fn dates() {
        assert_eq!(
            strftime("%d %b %Y, %A %a %B %y-%m-%d %e %H:%M:%S %%", [2024, 7, 26]).unwrap(),
            "26 Jul 2024, Friday Fri July 24-07-26 26 00:00:00 %"
        );
        assert_eq!(strftime("%A", [2000, 2, 29]).unwrap(), "Tuesday");
        assert_eq!(strftime("%A", [2023, 1, 1]).unwrap(), "Sunday");
        assert!(strftime("%Z", [2023, 1, 1]).is_err());
        assert_eq!(parse_date("2024-02-29"), Some([2024, 2, 29]));
        for no in ["2023-02-29", "2023-13-01", "2023-00-01", "2023-1", "x", "0-1-1", "2023-01-01-01"] {
            assert_eq!(parse_date(no), None, "{no}");
        }
    }
}
