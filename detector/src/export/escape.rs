//! Bytes of any kind as text that breaks no line and steers no terminal, and back.
//!
//! A backslash becomes `\\`. Each byte that is no part of valid UTF-8, and each byte of a character that is a control
//! character, changes the direction of text or cannot be seen, becomes `\x` and two lower-case hexadecimal digits. Nothing
//! else changes. This is the text *before* JSON doubles its backslashes.

use std::borrow::Cow;

/// The bytes as safe text.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    // Nearly all are of these, none of which must be: that is soon said.
    let is_plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\');
    match std::str::from_utf8(bytes) {
        Ok(text) if is_plain || !text.contains(must_be_escaped) => Cow::Borrowed(text),
        _ => {
            let mut safe = String::with_capacity(bytes.len() + 16);
            for chunk in bytes.utf8_chunks() {
                for character in chunk.valid().chars() {
                    if character == '\\' {
                        safe.push_str("\\\\");
                    } else if must_be_escaped(character) {
                        push_bytes(&mut safe, character.encode_utf8(&mut [0; 4]).as_bytes());
                    } else {
                        safe.push(character);
                    }
                }
                push_bytes(&mut safe, chunk.invalid());
            }
            Cow::Owned(safe)
        }
    }
}

/// The bytes that the text stands for; none where it is not of [`escape`]'s form.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        match rest {
            [b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [b'x', high, low, after @ ..] => {
                bytes.push(hexadecimal(*high)? << 4 | hexadecimal(*low)?);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Whether a character would break a line, steer a terminal or not be seen; a backslash, too.
pub(crate) fn must_be_escaped(character: char) -> bool {
    character == '\\'
        || character.is_control()
        || matches!(
            character,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero width, and marks of direction.
            | '\u{200b}'..='\u{200f}'
            // Line and paragraph separator, embeddings and overrides of direction.
            | '\u{2028}'..='\u{202e}'
            // Word joiner, invisible operators, isolates of direction.
            | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotation.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags.
            | '\u{e0000}'..='\u{e007f}'
        )
}

/// Appends the bytes, each as `\x` and two digits.
pub(crate) fn push_bytes(safe: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        safe.push_str("\\x");
        safe.push(char::from(DIGITS[usize::from(byte >> 4)]));
        safe.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
}

const fn hexadecimal(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["/etc/x", "/srv/Über/日本語", "a b\"c", ""] {
            assert_eq!(escape(name.as_bytes()), name);
        }
    }

    #[test]
    fn bytes_that_are_no_text_and_characters_that_steer_are_escaped() {
        assert_eq!(escape(b"a\xffb"), "a\\xffb");
        assert_eq!(escape(b"\x1b[2J\n\r\x7f"), "\\x1b[2J\\x0a\\x0d\\x7f");
        assert_eq!(escape("x\u{202e}y".as_bytes()), "x\\xe2\\x80\\xaey");
        assert_eq!(escape("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m", "CSI in one character");
        assert_eq!(escape(b"a\\xff"), "a\\\\xff", "what looks escaped is told apart");
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        for text in ["\\", "\\x", "\\xf", "\\xFF", "\\n", "a\\"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_unchanged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = escape(&bytes).into_owned();
            prop_assert_eq!(unescape(&text), Some(bytes));
        }

        #[test]
        fn any_text_comes_back_unchanged_and_carries_nothing_that_steers(text in "\\PC*|.*|[\\x00-\\x1f\u{80}-\u{9f}\u{2028}-\u{202e}\\\\x]*") {
            let safe = escape(text.as_bytes()).into_owned();
            prop_assert!(!safe.contains(|character: char| character != '\\' && must_be_escaped(character)));
            prop_assert_eq!(unescape(&safe), Some(text.into_bytes()));
        }
    }
}
