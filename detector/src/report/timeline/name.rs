//! Texts of a timeline: harmless, bounded, and each kept once.

use std::{collections::HashSet, rc::Rc};

use serde::{Serialize, Serializer};

use crate::report::printable::printable;

/// Characters of a text that are kept. The longest path has 4 095 bytes, of which a hostile one is told in four each.
const TEXT_MAX: usize = 4096;

/// Texts that are kept to be shared; beyond, all are forgotten, which costs memory for those that come again.
const SHARED_MAX: usize = 1 << 12;

/// A text that steers no terminal and breaks no line.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Rc<str>);

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Makes names.
#[derive(Debug, Default)]
pub struct Names(HashSet<Name>);

impl Names {
    /// The name of a text.
    pub fn of(&mut self, text: &str) -> Name {
        // What was made harmless is as it was, nearly always.
        let safe = printable(text);
        let cut = safe.char_indices().nth(TEXT_MAX).map(|(at, _)| at);
        if let (None, Some(name)) = (cut, self.0.get(&*safe)) {
            return name.clone();
        }
        let name = Name(match cut {
            Some(at) => Rc::from(format!("{}…", &safe[..at])),
            None => Rc::from(&*safe),
        });
        if self.0.len() >= SHARED_MAX {
            self.0.clear();
        }
        self.0.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_comes_again_is_kept_once() {
        let mut names = Names::default();
        let (one, other) = (names.of("/etc/x"), names.of("/etc/x"));
        assert!(Rc::ptr_eq(&one.0, &other.0));
    }

    #[test]
    fn a_text_is_harmless_and_bounded() {
        let mut names = Names::default();
        assert_eq!(&*names.of("a\u{1b}[2J"), "a\\x1b[2J");
        let long = names.of(&"ä".repeat(TEXT_MAX + 1));
        assert_eq!((long.chars().count(), long.ends_with('…')), (TEXT_MAX + 1, true));
        assert_eq!(names.of(&"ä".repeat(TEXT_MAX)).chars().count(), TEXT_MAX);
    }

    #[test]
    fn no_more_texts_are_kept_than_there_is_room_for() {
        let mut names = Names::default();
        for number in 0..SHARED_MAX * 2 {
            names.of(&number.to_string());
        }
        assert!(names.0.len() <= SHARED_MAX);
    }
}
