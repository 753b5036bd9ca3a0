//! Text that can be seen: tokens and contexts as they are shown in figures and tables.

/// The longest token that is shown whole; a longer one is cut and ends in `…`.
const LONGEST_TOKEN: usize = 32;

/// A token as a label: spaces are `␣`, line ends `↵`, tabs `⇥`, other control characters their codes (`\x07`, `\r`),
/// invisible format characters theirs (`<U+202E>`), the empty token `∅`.
///
/// ```
/// use feature_analysis::plot::visible_token;
/// assert_eq!(visible_token(" Monday"), "␣Monday");
/// assert_eq!(visible_token("\n\n"), "↵↵");
/// assert_eq!(visible_token("\u{7}"), "\\x07");
/// ```
pub fn visible_token(token: &str) -> String {
    if token.is_empty() {
        return "∅".to_owned();
    }
    let mut shown = String::with_capacity(token.len() + 2);
    for (n, c) in token.chars().enumerate() {
        if n == LONGEST_TOKEN {
            shown.push('…');
            break;
        }
        push_visible(&mut shown, c, true);
    }
    shown
}

/// Running text on one line: as [`visible_token`], but plain spaces stay and nothing is cut.
pub fn visible_context(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        push_visible(&mut shown, c, false);
    }
    shown
}

fn push_visible(out: &mut String, c: char, mark_spaces: bool) {
    match c {
        ' ' if mark_spaces => out.push('␣'),
        '\n' => out.push('↵'),
        '\t' => out.push('⇥'),
        '\r' => out.push_str("\\r"),
        '\u{0}'..='\u{1f}' | '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
        _ if is_invisible(c) => out.push_str(&format!("<U+{:04X}>", c as u32)),
        _ => out.push(c),
    }
}

/// Characters that take no room or reorder their neighbors: they could make two tokens look alike or turn a line round.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{9f}' | '\u{a0}' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Text for a place where plotly reads its own small HTML (names, hover text, titles): the three characters that could
/// open a tag or an entity become entities, which plotly turns back into the characters.
pub(crate) fn for_plotly(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// JSON for a place inside a `<script>` element: no `<`, `>` or `&` is left, so no text in it can end the script, open a
/// comment or be read as an entity. The escapes are JSON's own, so the data is the same.
pub(crate) fn json_for_script(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", c as u32)),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Digits in groups of three: `102,400`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_invisible_is_left() {
        for c in ('\0'..='\u{ffff}').filter(|c| c.is_control() || is_invisible(*c) || *c == ' ') {
            let shown = visible_token(&c.to_string());
            assert!(shown.chars().all(|s| !s.is_control() && !s.is_whitespace()), "{:?} shown as {shown:?}", c);
        }
        assert_eq!(visible_token(""), "∅");
        assert_eq!(visible_token(&"x".repeat(99)).chars().count(), LONGEST_TOKEN + 1);
        assert_eq!(visible_context("a b\r\nc"), "a b\\r↵c");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
