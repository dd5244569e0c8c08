//! Text of events, made harmless for a terminal.

use std::borrow::Cow;

use crate::export::escape::{must_be_escaped, push_bytes};

/// The text with what steers a terminal, breaks a line or can't be seen told as `\xHH`.
///
/// The agent has escaped names already, backslashes too; those stay as they are. This is for what somebody else has put into a
/// file since: JSON can carry any character.
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |character: char| character != '\\' && must_be_escaped(character);
    // Looked at as bytes first: nearly all text is plain.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            push_bytes(&mut safe, character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// The same as one word: in quotes where it has blanks or quotes, or is empty, so that no name looks like the words around it.
pub fn word(text: &str) -> Cow<'_, str> {
    let safe = printable(text);
    if !safe.is_empty() && !safe.contains(|character: char| character.is_whitespace() || character == '"') {
        return safe;
    }
    Cow::Owned(format!("\"{}\"", safe.replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_agent_has_escaped_stays_as_it_is() {
        for text in ["/etc/x", "a\\xffb", "a\\\\b", "/srv/Über/日本語"] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn what_somebody_put_in_later_steers_nothing() {
        assert_eq!(printable("\u{1b}]0;x\u{7}"), "\\x1b]0;x\\x07");
        assert_eq!(printable("a\u{202e}b\nc\u{9b}31m"), "a\\xe2\\x80\\xaeb\\x0ac\\xc2\\x9b31m");
    }

    #[test]
    fn a_name_with_blanks_is_told_apart_from_the_words_around_it() {
        assert_eq!(word("/etc/x by init[1]"), "\"/etc/x by init[1]\"");
        assert_eq!(word("a\"b"), "\"a\\\"b\"");
        assert_eq!(word(""), "\"\"");
        assert_eq!(word("/etc/x"), "/etc/x");
    }

    proptest! {
        #[test]
        fn no_text_steers_a_terminal(text in any::<String>()) {
            let steering = |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let steers = printable(&text).contains(steering);
            prop_assert!(!steers);
        }
    }
}
