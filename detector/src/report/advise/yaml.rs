//! Documents with comments: written as YAML, or without the comments as JSON. Whatever a text holds, it stays that text, and a
//! comment stays on its line.

use serde_json::{Map, Value};

use crate::report::printable::printable;

/// Characters of a comment's line.
const WIDTH: usize = 110;

/// Characters of a word in a comment; the event has all of it.
const WORD_MAX: usize = 300;

/// A value with comments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Node {
    /// A text.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// Members in their order, each with the comments above it.
    Members(Vec<(Vec<String>, &'static str, Node)>),
    /// Items in their order, each with the comments above it.
    Items(Vec<(Vec<String>, Node)>),
    /// What somebody else has written, in JSON.
    Given(Value),
}

impl Node {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Members without comments.
    pub fn members<const N: usize>(members: [(&'static str, Self); N]) -> Self {
        Self::Members(members.into_iter().map(|(name, node)| (Vec::new(), name, node)).collect())
    }

    /// Texts as items.
    pub fn texts(texts: impl IntoIterator<Item = String>) -> Self {
        Self::Items(texts.into_iter().map(|text| (Vec::new(), Self::Text(text))).collect())
    }

    /// Without the comments.
    pub fn json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Flag(flag) => Value::Bool(*flag),
            Self::Members(members) => Value::Object(
                members.iter().map(|(_, name, node)| ((*name).to_owned(), node.json())).collect::<Map<_, _>>(),
            ),
            Self::Items(items) => Value::Array(items.iter().map(|(_, node)| node.json()).collect()),
            Self::Given(value) => value.clone(),
        }
    }

    /// As YAML, indented by so many blanks, each line with its end.
    pub fn write(&self, indent: usize, out: &mut String) {
        match self {
            Self::Members(members) if !members.is_empty() => {
                for (comments, name, node) in members {
                    comment(comments, indent, out);
                    push_blanks(indent, out);
                    out.push_str(name);
                    out.push(':');
                    node.write_behind(indent, out);
                }
            }
            Self::Items(items) if !items.is_empty() => {
                for (comments, node) in items {
                    comment(comments, indent, out);
                    push_blanks(indent, out);
                    out.push('-');
                    match node {
                        Self::Members(members) if members.first().is_some_and(|(comments, ..)| comments.is_empty()) => {
                            // The first member stands behind the dash.
                            let mut inner = String::new();
                            node.write(indent + 2, &mut inner);
                            out.push(' ');
                            out.push_str(inner.trim_start());
                        }
                        _ => node.write_behind(indent, out),
                    }
                }
            }
            leaf => {
                push_blanks(indent, out);
                out.push_str(&leaf.leaf());
                out.push('\n');
            }
        }
    }

    /// Behind a name or a dash.
    fn write_behind(&self, indent: usize, out: &mut String) {
        let is_nested = match self {
            Self::Members(members) => !members.is_empty(),
            Self::Items(items) => !items.is_empty(),
            Self::Text(_) | Self::Flag(_) | Self::Given(_) => false,
        };
        if is_nested {
            out.push('\n');
            self.write(indent + 2, out);
        } else {
            out.push(' ');
            out.push_str(&self.leaf());
            out.push('\n');
        }
    }

    fn leaf(&self) -> String {
        match self {
            Self::Text(text) => scalar(text),
            Self::Flag(flag) => flag.to_string(),
            Self::Members(_) => "{}".to_owned(),
            Self::Items(_) => "[]".to_owned(),
            // JSON is YAML, once what breaks lines in YAML and not in JSON is escaped.
            Self::Given(value) => ascii(&value.to_string()),
        }
    }
}

/// Comments on lines of their own, broken at blanks.
pub fn comment(comments: &[String], indent: usize, out: &mut String) {
    for text in comments {
        let safe = printable(text);
        let mut used = 0;
        for word in safe.split_whitespace() {
            let cut: String = word.chars().take(WORD_MAX).collect();
            let length = cut.chars().count();
            if used > 0 && used + 1 + length > WIDTH.saturating_sub(indent) {
                out.push('\n');
                used = 0;
            }
            if used == 0 {
                push_blanks(indent, out);
                out.push('#');
            }
            out.push(' ');
            out.push_str(&cut);
            if cut.len() < word.len() {
                out.push('…');
            }
            used += 1 + length;
        }
        if used > 0 {
            out.push('\n');
        }
    }
}

fn push_blanks(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

/// As it is where every reader takes that as this text, else in quotes.
fn scalar(text: &str) -> String {
    let is_word = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:".contains(&byte))
        && !text.ends_with(':');
    // What YAML 1.1 reads as something else; `0x1f` and `1e3` begin with a digit.
    let is_taken = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .iter()
        .any(|taken| taken.eq_ignore_ascii_case(text));
    let is_size = text
        .strip_suffix("Mi")
        .or_else(|| text.strip_suffix("Gi"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    if (is_word && !is_taken) || is_size { text.to_owned() } else { ascii(&Value::from(text).to_string()) }
}

/// JSON with everything that is no ASCII, and DEL, escaped: YAML knows more line breaks than JSON does.
fn ascii(json: &str) -> String {
    use std::fmt::Write as _;
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            safe.push(character);
        } else {
            // Outside of strings JSON has none of these. YAML takes whole code points, not JSON's halves of them. Writing to a
            // String does not fail.
            let code = u32::from(character);
            let _ = if code <= 0xffff { write!(safe, "\\u{code:04x}") } else { write!(safe, "\\U{code:08x}") };
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(node: &Node) -> String {
        let mut text = String::new();
        node.write(0, &mut text);
        text
    }

    #[test]
    fn it_looks_as_people_write_it() {
        let node = Node::Members(vec![
            (vec!["why".to_owned()], "name", Node::text("app")),
            (
                vec![],
                "mounts",
                Node::Items(vec![(
                    vec!["a\nb".to_owned()],
                    Node::members([
                        ("name", Node::text("tmp")),
                        ("emptyDir", Node::members([("sizeLimit", Node::text("16Mi"))])),
                    ]),
                )]),
            ),
            (vec![], "command", Node::texts(["cp".to_owned(), "-RPp".to_owned(), "yes".to_owned()])),
            (vec![], "items", Node::Items(vec![])),
            (vec![], "given", Node::Given(serde_json::json!({"a": [1, "x"]}))),
            (vec![], "flag", Node::Flag(true)),
        ]);
        let expected = "# why\nname: app\nmounts:\n  # a\\x0ab\n  - name: tmp\n    emptyDir:\n      sizeLimit: 16Mi\ncommand:\n  - cp\n  \
            - \"-RPp\"\n  - \"yes\"\nitems: []\ngiven: {\"a\":[1,\"x\"]}\nflag: true\n";
        assert_eq!(written(&node), expected);
    }

    proptest! {
        #[test]
        fn any_text_comes_back_from_yaml_and_no_comment_leaves_its_line(
            text in prop_oneof![any::<String>(), "[:#&*!|>'\"%@`{}\\[\\],? \\-\n\r\t\u{85}\u{2028}a0]{0,12}", "[0-9a-fxoeE.+_-]{1,6}"],
            note in prop_oneof![any::<String>(), "[\n\r\u{85}\u{2028}\u{2029}\u{c} a:-]{0,20}"],
        ) {
            let node = Node::Members(vec![
                (vec![note.clone()], "one", Node::text(text.clone())),
                (vec![note], "more", Node::texts([text.clone(), text.clone()])),
                (vec![], "given", Node::Given(serde_json::json!({"a": text}))),
            ]);
            let read: Value = serde_saphyr::from_str(&written(&node)).unwrap();
            prop_assert_eq!(read, node.json());
        }
    }
}
