//! The header of one numpy array: a Python literal, of which only what numpy writes is read. Nothing is evaluated.

use crate::Dtype;

/// The header of an array.
#[derive(Debug, PartialEq)]
pub(crate) struct NpyHeader {
    /// numpy's name of the type, as written in the header.
    pub(crate) descr: String,
    /// The type, where this crate knows it, and whether its bytes are big-endian.
    pub(crate) kind: Option<(Dtype, bool)>,
    pub(crate) by_column: bool,
    pub(crate) shape: Vec<usize>,
}

/// A literal as it may stand in a header.
#[derive(Debug)]
enum Literal {
    Text(String),
    Flag(bool),
    Number(usize),
    Tuple(Vec<Literal>),
    List,
}

type Result<T> = std::result::Result<T, String>;

impl NpyHeader {
    /// Reads the text of a header: a dict of exactly `descr`, `fortran_order` and `shape`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reader = Reader { text, at: 0 };
        let (mut descr, mut by_column, mut shape) = (None, None, None);
        reader.expect('{')?;
        while !reader.accept('}') {
            let key_at = reader.at;
            let key = reader.string()?;
            reader.expect(':')?;
            let from = reader.skip_blanks();
            let value = reader.literal(0)?;
            let as_written = text[from..reader.at].trim().to_owned();
            let twice = match (key.as_str(), value) {
                ("descr", Literal::Text(name)) => descr.replace(name).is_some(),
                // The fields of a record: no type that is read, but one that can be named.
                ("descr", Literal::List) => descr.replace(as_written).is_some(),
                ("fortran_order", Literal::Flag(flag)) => by_column.replace(flag).is_some(),
                ("shape", Literal::Tuple(sizes)) => shape.replace(numbers(sizes)?).is_some(),
                (key @ ("descr" | "fortran_order" | "shape"), _) => {
                    return Err(format!("its header gives {as_written} for `{key}`"));
                }
                (other, _) => return Err(format!("its header has the key `{other}`, which numpy does not write")),
            };
            if twice {
                return Err(format!("its header has `{key}` twice, again at byte {key_at}"));
            }
            if !reader.accept(',') {
                reader.expect('}')?;
                break;
            }
        }
        if reader.skip_blanks() != text.len() {
            return Err(format!("its header goes on after the dict: {:?}", shorten(&text[reader.at..])));
        }
        let missing = |key: &str| format!("its header has no `{key}`");
        let descr = descr.ok_or_else(|| missing("descr"))?;
        Ok(Self {
            kind: kind(&descr),
            descr,
            by_column: by_column.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }
}

/// The types that are read. `<V2` is how numpy names the bfloat16 of ml_dtypes; `|V2`, raw bytes, does not say what it holds.
fn kind(descr: &str) -> Option<(Dtype, bool)> {
    let (big_endian, name) = match descr.split_at_checked(1)? {
        ("<", name) => (false, name),
        (">", name) => (true, name),
        ("|", name) if name != "V2" => (false, name),
        ("|", _) => return None,
        _ => (false, descr),
    };
    let dtype = match name {
        "f8" => Dtype::F64,
        "f4" => Dtype::F32,
        "f2" => Dtype::F16,
        "V2" | "bfloat16" => Dtype::BF16,
        "i8" => Dtype::I64,
        "i4" => Dtype::I32,
        "i2" => Dtype::I16,
        "i1" => Dtype::I8,
        "u8" => Dtype::U64,
        "u4" => Dtype::U32,
        "u2" => Dtype::U16,
        "u1" => Dtype::U8,
        "b1" => Dtype::BOOL,
        _ => return None,
    };
    Some((dtype, big_endian))
}

fn numbers(sizes: Vec<Literal>) -> Result<Vec<usize>> {
    let number = |size| match size {
        Literal::Number(n) => Ok(n),
        _ => Err("its shape holds something that is not a number".into()),
    };
    sizes.into_iter().map(number).collect()
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn skip_blanks(&mut self) -> usize {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\n', '\t']).len();
        self.at
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.text[self.at..].chars().next()
    }

    fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        if self.accept(wanted) { Ok(()) } else { Err(self.unexpected(&format!("`{wanted}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        format!("its header has {:?} at byte {}, where {wanted} is due", shorten(&self.text[self.at..]), self.at)
    }

    fn literal(&mut self, depth: usize) -> Result<Literal> {
        const DEEPEST: usize = 8;
        if depth > DEEPEST {
            return Err(format!("its header is nested deeper than {DEEPEST}"));
        }
        match self.peek() {
            Some('\'' | '"') => self.string().map(Literal::Text),
            Some('(') => self.items('(', ')', depth).map(Literal::Tuple),
            Some('[') => self.items('[', ']', depth).map(|_| Literal::List),
            Some('0'..='9') => self.number().map(Literal::Number),
            _ if self.word("True") => Ok(Literal::Flag(true)),
            _ if self.word("False") => Ok(Literal::Flag(false)),
            _ => Err(self.unexpected("a text, a count, a tuple, True or False")),
        }
    }

    /// The items between two brackets. `(3)` is a number in Python, and not accepted as a tuple.
    fn items(&mut self, open: char, close: char, depth: usize) -> Result<Vec<Literal>> {
        self.expect(open)?;
        let mut items = Vec::new();
        while !self.accept(close) {
            items.push(self.literal(depth + 1)?);
            if !self.accept(',') {
                if open == '(' && items.len() == 1 {
                    return Err(self.unexpected("`,`"));
                }
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// A text without escapes: no name of a type or a key has one.
    fn string(&mut self) -> Result<String> {
        let Some(quote @ ('\'' | '"')) = self.peek() else { return Err(self.unexpected("a text")) };
        let body = &self.text[self.at + 1..];
        match body.find([quote, '\\', '\n']) {
            Some(end) if body[end..].starts_with(quote) => {
                self.at += end + 2;
                Ok(body[..end].into())
            }
            _ => Err(self.unexpected("a text that ends, without escapes")),
        }
    }

    /// A count; Python 2 put an L behind it.
    fn number(&mut self) -> Result<usize> {
        let rest = &self.text[self.at..];
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        let number = digits.parse().map_err(|_| self.unexpected("a count that fits"))?;
        self.at += digits.len();
        self.word("L");
        Ok(number)
    }
}
