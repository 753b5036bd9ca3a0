//! Where a text may be cut without changing its tokens.

/// The last place in `text[1..=limit]` where a cut does not change the tokens, if there is one.
///
/// GPT-2's and Llama 3's splitting rules never let one pre-token run from a letter or digit into whitespace, nor from any
/// non-whitespace character into a space (Llama 3's rule does join punctuation and the line break after it: hence the difference).
/// The first kind is preferred: an added token that swallows the space after it ends in punctuation.
pub(crate) fn safe_cut(text: &str, limit: usize) -> Option<usize> {
    let limit = text.floor_char_boundary(limit);
    let mut second = None;
    // The character that would come after the cut must be in the text: a cut at its end would guess what follows.
    let mut after = text[limit..].chars().next()?;
    for (at, before) in text[..limit].char_indices().rev() {
        let cut = at + before.len_utf8();
        if after.is_whitespace() && is_letter_or_digit(before) {
            return Some(cut);
        }
        if after == ' ' && !before.is_whitespace() && second.is_none() {
            second = Some(cut);
        }
        after = before;
    }
    second
}

/// The last character boundary at or before `limit`, but after at least one character: the cut of last resort.
pub(crate) fn forced_cut(text: &str, limit: usize) -> usize {
    match text.floor_char_boundary(limit) {
        0 => text.chars().next().map_or(0, char::len_utf8),
        at => at,
    }
}

/// Whether a character is certainly one of `\p{L}` or `\p{N}`, in the scripts where that is easily told.
///
/// `char::is_alphanumeric` is not enough: it holds for vowel signs (`\p{M}`), which Llama 3's rule takes for punctuation and joins
/// with a line break after them; its vocabulary has such tokens, for Hindi and Thai.
fn is_letter_or_digit(c: char) -> bool {
    // Marks and symbols that count as cased: a combining iota, letters in circles and squares.
    let no_letter = matches!(c, '\u{345}' | '\u{24B6}'..='\u{24E9}' | '\u{1F130}'..='\u{1F189}');
    let kana_han_or_hangul = matches!(c,
        '\u{3041}'..='\u{3096}' | '\u{30A1}'..='\u{30FA}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}');
    c.is_numeric() || kana_han_or_hangul || ((c.is_lowercase() || c.is_uppercase()) && !no_letter)
}

/// Whether a cut between these two characters is one that [`safe_cut`] could have made.
pub(crate) fn is_safe(before: char, after: char) -> bool {
    (after.is_whitespace() && is_letter_or_digit(before)) || (after == ' ' && !before.is_whitespace())
}

/// Cuts `text` into stretches of about `size` bytes, only at safe places: a stretch without one grows until there is one.
pub(crate) fn stretches(text: &str, size: usize) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let rest = &text[start..];
        let mut limit = size.max(1);
        let cut = loop {
            if limit >= rest.len() {
                break rest.len();
            }
            if let Some(cut) = safe_cut(rest, limit) {
                break cut;
            }
            limit = limit.saturating_mul(2);
        };
        out.push(start..start + cut);
        start += cut;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_safe_place_within_the_limit() {
        assert_eq!(safe_cut("one two three", 8), Some(7));
        assert_eq!(safe_cut("one two three", 7), Some(7));
        assert_eq!(safe_cut("one two three", 6), Some(3));
        assert_eq!(safe_cut("one two three", 2), None);
        assert_eq!(safe_cut("one", 3), None, "nothing is known about what follows");
        assert_eq!(safe_cut("x.\ny", 3), None, "Llama 3 joins punctuation and line breaks");
        assert_eq!(safe_cut("x\ny", 2), Some(1));
        assert_eq!(safe_cut("x.  y", 4), Some(2), "before the whitespace, not inside it");
        assert_eq!(safe_cut("ab. cd.. e", 9), Some(8));
        assert_eq!(safe_cut("ab cd.. e", 8), Some(2), "after a letter where there is one");
        assert_eq!(safe_cut("é é é", 4), Some(2), "a limit inside a character");
        assert_eq!(safe_cut("", 4), None);
    }

    #[test]
    fn a_vowel_sign_is_no_letter() {
        for letter in ['a', 'Z', '7', 'é', 'я', 'Ω', '５', '日', 'あ', 'カ', '한', 'Ⅳ'] {
            assert!(is_letter_or_digit(letter), "{letter}");
        }
        for other in ['ा', 'ी', 'ี', '\u{301}', '\u{345}', 'Ⓐ', '🄰', '.', '♪', ' '] {
            assert!(!is_letter_or_digit(other), "{other}");
        }
        assert_eq!(safe_cut("था था\nx", "था था\n".len()), Some("था".len()), "not before the line break");
    }

    #[test]
    fn stretches_tile_the_text_and_cut_safely() {
        for size in 1..30 {
            for text in ["", "one two, three.\n\nfour  five six!", "nowhitespaceatall", "日本 日本語\nテキスト。 です"]
            {
                let parts = stretches(text, size);
                assert_eq!(parts.iter().map(|r| &text[r.clone()]).collect::<String>(), text);
                for pair in parts.windows(2) {
                    let before = text[pair[0].clone()].chars().next_back().unwrap();
                    let after = text[pair[1].clone()].chars().next().unwrap();
                    assert!(is_safe(before, after), "{text:?} at {size}");
                }
            }
        }
    }

    #[test]
    fn the_last_resort_always_moves_on() {
        assert_eq!(forced_cut("日本", 1), 3);
        assert_eq!(forced_cut("日本", 5), 3);
        assert_eq!(forced_cut("ab", 1), 1);
    }
}
