//! The hash chain over a stream of events: a line that was changed, taken out or put in breaks every link after it.
//!
//! `chain` of a line is the lower-case hexadecimal SHA-256 of the previous line's `chain` (64 ASCII digits; for the first
//! line [`START`]) followed by the bytes of this line without its member `chain`: from `{` to the last member before it, and
//! a closing `}`. That is an object by itself; neither the line's end nor white space is part of it.
//!
//! A line that begins a run of the agent or a file says in its member `previous` what it follows: `{"seq","chain"}` of the
//! line before it, null where it is the first of its stream.

use std::borrow::Cow;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize};

/// What stands for the `chain` of the line before the first.
pub const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The longest line that rosentry writes, bytes without the line's end. What would be longer is given up and counted.
pub const LINE_MAX: usize = 1 << 20;

const BEFORE_CHAIN: &[u8] = b",\"chain\":\"";
const AFTER_CHAIN: &[u8] = b"\"}";

/// Where a stream stands: its last line's number and chain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct End {
    /// `seq` of the line.
    pub seq: u64,
    /// `chain` of the line.
    #[cfg_attr(test, schemars(regex(pattern = r"^[0-9a-f]{64}$")))]
    pub chain: String,
}

impl End {
    /// Where a stream stands after this line, which is taken at its word; none where it is no line of an event.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        let link = Link::parse(line)?;
        Some(Self { seq: link.seq, chain: link.chain.to_owned() })
    }
}

/// Closes an open object (`{` and members, without its `}`) with the member `chain` and a line's end.
///
/// Returns the chain. `line` is the object from its `{` on.
pub fn close(line: &mut Vec<u8>, start: usize, previous: &str) -> String {
    let chain = link(previous, &line[start..]);
    line.extend_from_slice(BEFORE_CHAIN);
    line.extend_from_slice(chain.as_bytes());
    line.extend_from_slice(AFTER_CHAIN);
    line.push(b'\n');
    chain
}

/// `chain` of a line that stands behind a line with the chain `previous`. `open` is the line up to what stands before its
/// `chain`: an object without its closing brace.
fn link(previous: &str, open: &[u8]) -> String {
    // TLS brings this one along; without a processor's own instructions it takes two thirds of what portable code does.
    let mut context = Context::new(&SHA256);
    [previous.as_bytes(), open, b"}"].into_iter().for_each(|part| context.update(part));
    let digest = context.finish();
    let digits = digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or_default()).collect()
}

/// What a line says of its place in the stream.
#[derive(Clone, Debug)]
pub struct Link<'a> {
    open: &'a [u8],
    /// Its number.
    pub seq: u64,
    /// The node whose stream it belongs to.
    pub node: Cow<'a, str>,
    /// Its chain: 64 lower-case hexadecimal digits.
    pub chain: &'a str,
    /// What it says it follows: nothing said, nothing there, or this.
    pub previous: Option<Option<End>>,
    /// What the agent says of itself in it.
    pub agent: Option<Agent<'a>>,
}

/// What the agent says of itself, as far as it is about the stream.
#[derive(Clone, Debug, Deserialize)]
pub struct Agent<'a> {
    /// `start`, `stop`, `lost` and others.
    #[serde(borrow)]
    pub what: Cow<'a, str>,
    /// Of `lost`: how many, by stage.
    #[serde(default)]
    events: serde_json::Value,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    schema: Cow<'a, str>,
    seq: u64,
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(default, deserialize_with = "told")]
    previous: Option<Option<End>>,
    #[serde(borrow, default)]
    agent: Option<Agent<'a>>,
}

/// Tells a member that is null from one that is not there.
///
/// # Errors
/// Where it is neither null nor what it should be.
pub fn told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<End>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl<'a> Link<'a> {
    /// Reads a line without its end; none where it is no event of `rosentry/v1` with a chain.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (open, chain) = Self::split(line)?;
        let Members { schema, seq, node, previous, agent } = serde_json::from_slice(line).ok()?;
        let sound = previous.iter().flatten().all(|end| is_chain(&end.chain));
        (schema == super::native::SCHEMA && sound).then_some(Self { open, seq, node, chain, previous, agent })
    }

    /// A line without its end in two: the object up to what stands before its `chain`, and the chain. None where it does not
    /// end with one.
    pub fn split(line: &'a [u8]) -> Option<(&'a [u8], &'a str)> {
        let before = line.strip_suffix(AFTER_CHAIN)?;
        let (open, chain) = before.split_at_checked(before.len().checked_sub(START.len())?)?;
        let open = open.strip_suffix(BEFORE_CHAIN)?;
        let chain = std::str::from_utf8(chain).ok().filter(|chain| is_chain(chain))?;
        Some((open, chain))
    }

    /// Whether a line, [split](Self::split), is the unchanged one that was written behind one with this chain.
    pub fn is_chained(open: &[u8], chain: &str, previous: &str) -> bool {
        link(previous, open) == chain
    }

    /// Whether it is the unchanged line that was written behind one with this chain.
    pub fn follows(&self, previous: &str) -> bool {
        Self::is_chained(self.open, self.chain, previous)
    }

    /// Where the stream stands after it.
    pub fn end(&self) -> End {
        End { seq: self.seq, chain: self.chain.to_owned() }
    }

    /// Whether the agent says this of itself in it.
    pub fn is_agent(&self, what: &str) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.what == what)
    }
}

impl Agent<'_> {
    /// How many events it says are lost.
    pub fn lost(&self) -> u64 {
        if self.what == "lost" { lost(&self.events) } else { 0 }
    }
}

/// The sum of the events of a `lost` record, which tells them by stage.
pub fn lost(events: &serde_json::Value) -> u64 {
    let stages = events.as_object().into_iter().flatten();
    stages.filter_map(|(_, count)| count.as_u64()).fold(0, u64::saturating_add)
}

fn is_chain(text: &str) -> bool {
    text.len() == START.len() && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(open: &str, previous: &str) -> (String, String) {
        let mut line = open.as_bytes().to_vec();
        let chain = close(&mut line, 0, previous);
        (String::from_utf8(line).unwrap(), chain)
    }

    #[test]
    fn the_first_link_is_what_sha256sum_says_of_the_start_and_the_line() {
        // printf '%064d{"seq":1}' 0 | sha256sum
        let expected = "0a00898550374c41186879d92f30325cd0a550ce8c5da4d9aeef34a95c0b85ea";
        assert_eq!(
            closed("{\"seq\":1", START),
            (format!("{{\"seq\":1,\"chain\":\"{expected}\"}}\n"), expected.to_owned())
        );
    }

    #[test]
    fn a_link_is_what_others_make_of_it_however_long_the_line_is() {
        use sha2::{Digest, Sha256};
        for length in (0..200).chain([1300, LINE_MAX]) {
            let open = "x".repeat(length);
            let digest = Sha256::digest(format!("{START}{open}}}"));
            assert_eq!(link(START, open.as_bytes()), format!("{digest:x}"));
        }
    }

    #[test]
    fn a_link_depends_on_all_links_before() {
        let (_, one) = closed("{\"seq\":1", START);
        let (_, other) = closed("{\"seq\":1,\"x\":0", START);
        assert_ne!(closed("{\"seq\":2", &one).1, closed("{\"seq\":2", &other).1);
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let open = format!(
            r#"{{"schema":"rosentry/v1","seq":8,"node":"n\"1","agent":{{"what":"start"}},"previous":{{"seq":7,"chain":"{START}"}}"#
        );
        let (line, chain) = closed(&open, START);
        let link = Link::parse(line.trim_end().as_bytes()).unwrap();
        assert_eq!((link.seq, link.node.as_ref(), link.chain), (8, "n\"1", chain.as_str()));
        assert_eq!(link.previous, Some(Some(End { seq: 7, chain: START.to_owned() })));
        assert!(link.is_agent("start") && link.follows(START) && !link.follows(&chain));
        assert_eq!(End::of_line(line.trim_end().as_bytes()), Some(End { seq: 8, chain }));
    }

    #[test]
    fn what_is_no_event_with_a_chain_is_not_taken_for_one() {
        let event = r#"{"schema":"rosentry/v1","seq":8,"node":"n1""#;
        for line in [
            String::new(),
            "\"}".to_owned(),
            "{}".to_owned(),
            event.to_owned(),
            format!("{event},\"chain\":\"{}\"}}", &START[1..]),
            format!("{event},\"chain\":\"{}\"}}", START.replace('0', "A")),
            format!("{event},\"chain\":\"{START}\"}}\r"),
            format!("{event},\"seq\":9,\"chain\":\"{START}\"}}"),
            format!("{event},\"previous\":7,\"chain\":\"{START}\"}}"),
            format!("{event},\"previous\":{{\"seq\":7,\"chain\":\"x\"}},\"chain\":\"{START}\"}}"),
            format!("{},\"chain\":\"{START}\"}}", event.replace("v1", "v2")),
            format!("{},\"chain\":\"{START}\"}}", event.replace('8', "-8")),
        ] {
            assert!(Link::parse(line.as_bytes()).is_none(), "{line}");
        }
    }
}
