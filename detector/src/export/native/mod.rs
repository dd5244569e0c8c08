//! The native format, `rosentry/v1`: one JSON object a line. What each member means stands in docs/events.md.

mod members;
#[cfg(test)]
mod schema;

use detector_common::{operation::Operation, record::Hook};
use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeMap};

use self::members::{CgroupLine, ContainerLine, FileLine, MountLine, PodLine, ProcessLine};
use super::{chain::LINE_MAX, escape::escape, stream::Stream};
use crate::{
    finding::event::{AgentNote, AgentValue, Category, Event, Kind, Named, Severity},
    kernel::kept::Mark,
};

/// Name and version of the format.
pub const SCHEMA: &str = "rosentry/v1";

/// An event in this format, without what its place in a stream adds: number and chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Body {
    /// What it is about.
    pub kind: Kind,
    /// When the last that is folded into it happened, nanoseconds since the Unix epoch.
    pub last_time_unix_ns: i128,
    /// What it counts once it is written.
    pub mark: Option<Mark>,
    json: Vec<u8>,
}

impl Body {
    /// Tells an event of the node of this name.
    ///
    /// # Errors
    /// Where it can't be told in JSON, or not within [`LINE_MAX`].
    pub fn of(event: &Event, node: &str) -> Result<Self, EncodeError> {
        let mut json = Vec::with_capacity(USUAL);
        serde_json::to_writer(&mut json, &line(event, node)).map_err(EncodeError::Json)?;
        if json.len() + AROUND_BODY > LINE_MAX {
            return Err(EncodeError::Long(json.len()));
        }
        json.shrink_to_fit();
        Ok(Self { kind: event.kind, last_time_unix_ns: event.last_time_unix_ns, mark: None, json })
    }

    /// The same, which counts so much once it is written.
    pub fn with(self, mark: Option<Mark>) -> Self {
        Self { mark, ..self }
    }

    /// The members, without the braces around them.
    pub fn members(&self) -> &[u8] {
        self.json.get(1..self.json.len() - 1).unwrap_or_default()
    }

    /// Bytes that its line takes at most.
    pub fn line_bytes_max(&self) -> usize {
        self.json.len() + AROUND_BODY
    }
}

/// Bytes that an event's members seldom exceed.
const USUAL: usize = 4096;

/// What a stream adds to a body at most, bytes: schema, number, what it follows and the chain.
const AROUND_BODY: usize = 288;

/// Makes lines of events: one stream, from its beginning.
#[derive(Debug)]
pub struct NativeEncoder {
    node: String,
    stream: Stream,
}

impl NativeEncoder {
    /// Of a stream that begins on the node of this name.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), stream: Stream::after(None) }
    }

    /// Appends the event as one line, its end included, to `out`.
    ///
    /// # Errors
    /// As [`Body::of`]. `out` is then as it was, and no number is spent.
    pub fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.stream.append(&Body::of(event, &self.node)?, out);
        Ok(())
    }
}

/// An event that can't be told in JSON.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Why JSON has no word for it.
    #[error("the event can't be told in JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// It is too long.
    #[error("the event takes {0} bytes, more than a line may have")]
    Long(usize),
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Line<'a> {
    time: Time,
    node: Text<'a>,
    kind: Word<Kind>,
    operation: Option<Word<Operation>>,
    #[cfg_attr(test, schemars(extend("enum" = ["denied", "failed", "succeeded", null])))]
    outcome: Option<&'static str>,
    errno: Option<String>,
    count: u64,
    first_time: Time,
    last_time: Time,
    severity: Word<Severity>,
    category: Option<Word<Category>>,
    hint: Option<Text<'a>>,
    attack: Vec<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Text<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    expected: bool,
    file: Option<FileLine<'a>>,
    mount: Option<MountLine<'a>>,
    process: Option<ProcessLine<'a>>,
    container: Option<ContainerLine<'a>>,
    pod: Option<PodLine<'a>>,
    #[cfg_attr(test, schemars(extend("enum" = ["x86_64", "ia32", "aarch64", "io_uring", null])))]
    abi: Option<&'static str>,
    #[cfg_attr(test, schemars(extend("enum" = ["tracepoint", "fexit", null])))]
    hook: Option<&'static str>,
    cgroup: Option<CgroupLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentLine<'a>>,
}

/// Any text of the outside world: escaped.
struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(self.0))
    }
}

/// One of the words of its type.
struct Word<T>(T);

impl<T: Named> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.word())
    }
}

/// A time in nanoseconds since the Unix epoch: RFC 3339 in UTC with nine digits.
struct Time(i128);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A clock that is off by millennia is told as the end of time rather than losing the event.
        let limit = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        serializer.collect_str(&format_args!("{:.9}", Timestamp::from_nanosecond(self.0).unwrap_or(limit)))
    }
}

struct AgentLine<'a>(&'a AgentNote);

impl Serialize for AgentLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("what", self.0.what.name())?;
        for (name, value) in &self.0.details {
            map.serialize_entry(name, &AgentValueLine(value))?;
        }
        map.end()
    }
}

struct AgentValueLine<'a>(&'a AgentValue);

impl Serialize for AgentValueLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            AgentValue::Text(value) => text(value).serialize(serializer),
            AgentValue::Number(value) => serializer.serialize_u64(*value),
            AgentValue::Flag(value) => serializer.serialize_bool(*value),
            AgentValue::List(values) => serializer.collect_seq(values.iter().map(|value| text(value))),
            AgentValue::Counts(counts) => {
                serializer.collect_map(counts.iter().map(|(name, count)| (text(name), count)))
            }
        }
    }
}

fn text(text: &str) -> Text<'_> {
    Text(text.as_bytes())
}

fn bytes(bytes: &Option<Vec<u8>>) -> Option<Text<'_>> {
    bytes.as_deref().map(Text)
}

fn string(string: Option<&str>) -> Option<Text<'_>> {
    string.map(text)
}

fn line<'a>(event: &'a Event, node: &'a str) -> Line<'a> {
    let Event {
        kind,
        operation,
        outcome,
        count,
        first_time_unix_ns,
        last_time_unix_ns,
        severity,
        category,
        hint,
        attack,
        rule,
        expected,
        file,
        mount,
        process,
        container,
        cgroup,
        abi,
        hook,
        agent,
    } = event;
    Line {
        time: Time(*last_time_unix_ns),
        node: text(node),
        kind: Word(*kind),
        operation: operation.map(Word),
        outcome: outcome.map(|outcome| outcome.name()),
        errno: outcome.and_then(|outcome| outcome.errno()).map(|errno| errno.name().into_owned()),
        count: *count,
        first_time: Time(*first_time_unix_ns),
        last_time: Time(*last_time_unix_ns),
        severity: Word(*severity),
        category: category.map(Word),
        hint: bytes(hint),
        attack: attack.iter().map(|technique| text(technique)).collect(),
        rule: rule.as_deref().map(text),
        expected: *expected,
        file: file.as_ref().map(FileLine::from),
        mount: mount.as_ref().map(MountLine::from),
        process: process.as_ref().map(ProcessLine::from),
        container: container.as_deref().map(ContainerLine::from),
        pod: container.as_deref().and_then(|container| container.pod.as_deref()).map(PodLine::from),
        abi: abi.map(|abi| abi.name()),
        hook: hook.map(hook_name),
        cgroup: cgroup.as_ref().map(CgroupLine::from),
        agent: agent.as_ref().map(AgentLine),
    }
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

const fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Tracepoint => "tracepoint",
        Hook::Fexit => "fexit",
    }
}

#[cfg(test)]
mod tests;
