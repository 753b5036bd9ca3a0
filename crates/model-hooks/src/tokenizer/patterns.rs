//! Limits on the regular expressions of a `tokenizer.json`: a class of Unicode takes up to 130 kB once compiled, and `{800}` repeats it.

use serde_json::Value;

/// Cost of all patterns of a file. The longest in use, GPT-4o's, has 330; 1,200 take about 12 MB.
const MOST: u64 = 1_200;
const CLASS: u64 = 16;

/// Refuses steps whose patterns would take much memory once compiled.
pub(super) fn check(steps: &[Value]) -> Result<(), String> {
    let total = steps.iter().fold(0u64, |sum, step| sum.saturating_add(of_step(step)));
    match total <= MOST {
        true => Ok(()),
        false => Err(format!(
            "its patterns repeat classes of characters too often: cost {total}, at most {MOST} (16 for a class, 1 for a character, times its repetitions)"
        )),
    }
}

fn of_step(step: &Value) -> u64 {
    match step {
        Value::Object(map) => map.iter().fold(0, |sum, (key, value)| {
            let more = match value.as_str().filter(|_| key == "Regex") {
                Some(pattern) => cost(pattern),
                None => of_step(value),
            };
            more.saturating_add(sum)
        }),
        Value::Array(items) => items.iter().fold(0, |sum, item| of_step(item).saturating_add(sum)),
        _ => 0,
    }
}

/// Characters and classes, each times the repetitions around it. It need not be exact, and errs on the high side.
fn cost(pattern: &str) -> u64 {
    let mut chars = pattern.chars().peekable();
    // Of each open group what came before its last part, and its last part.
    let mut open = vec![(0u64, 0u64)];
    while let Some(c) = chars.next() {
        let part = match c {
            '(' => {
                open.push((0, 0));
                continue;
            }
            ')' if open.len() > 1 => open.pop().map_or(0, |(before, last)| before.saturating_add(last)),
            '{' => {
                let counts: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let times = counts.split(',').filter_map(|n| n.trim().parse().ok()).max().unwrap_or(1).max(1);
                if let Some((_, last)) = open.last_mut() {
                    *last = last.saturating_mul(times);
                }
                continue;
            }
            '\\' => match chars.next() {
                Some('p' | 'P') => {
                    if chars.next() == Some('{') {
                        chars.by_ref().take_while(|c| *c != '}').for_each(drop);
                    }
                    CLASS
                }
                Some('w' | 'W' | 's' | 'S' | 'd' | 'D' | 'b' | 'B') => CLASS,
                _ => 1,
            },
            '[' => {
                class(&mut chars);
                CLASS
            }
            '.' => CLASS,
            _ => 1,
        };
        if let Some((before, last)) = open.last_mut() {
            (*before, *last) = (before.saturating_add(*last), part);
        }
    }
    open.into_iter().fold(0, |sum, (before, last)| before.saturating_add(last).saturating_add(sum))
}

/// Goes behind the bracket that ends a class.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let mut depth = 1;
    // A bracket in first position is a character.
    chars.next_if_eq(&'^');
    chars.next_if_eq(&']');
    while depth > 0 {
        match chars.next() {
            Some('\\') => drop(chars.next()),
            Some('[') => depth += 1,
            Some(']') => depth -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_patterns_cost() {
        for (pattern, expected) in [
            ("", 0),
            ("abc", 3),
            (r"\p{N}", 16),
            (r"\p{N}{1,3}", 48),
            (r"\p{N}{826}", 13_216),
            ("((a{10}b){10}c){10}", 1110),
            (r"[^\r\n\p{L}\]]{2}", 32),
            ("a{10}b", 11),
            ("a{", 1),
            ("a)b", 3),
        ] {
            assert_eq!(cost(pattern), expected, "{pattern}");
        }
        assert_eq!(cost(&"(a{1000000}){1000000}".repeat(3)) / 1_000_000, 3_000_000);
        assert!(cost("((((a{99999999}){99999999}){99999999}){99999999}){9}") > MOST);
    }

    #[test]
    fn published_patterns_pass() {
        // GPT-4o's, the longest in use.
        let longest = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        assert!((200..400).contains(&cost(longest)), "{}", cost(longest));
    }
}
