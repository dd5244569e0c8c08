//! What a network sink needs to know of a line in its spool, read from the line itself.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

/// Some members of an event. What is missing is told as unknown, for the line is delivered all the same.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventLine<'a> {
    /// Its number.
    pub seq: u64,
    /// When it happened, RFC 3339.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// Name of the node.
    #[serde(borrow)]
    pub node: Cow<'a, str>,
    /// What it is about.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// How bad.
    #[serde(borrow)]
    pub severity: Cow<'a, str>,
    /// What was tried.
    pub operation: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// How many are folded into it.
    pub count: u64,
    /// The file of a write.
    pub file: Option<Map<String, Value>>,
    /// Where a write hit, or what a mount attempt was about.
    pub mount: Option<Map<String, Value>>,
    /// Who did it.
    pub process: Option<Map<String, Value>>,
    /// The container.
    pub container: Option<Map<String, Value>>,
    /// The pod.
    pub pod: Option<Map<String, Value>>,
}

impl<'a> EventLine<'a> {
    /// Reads a line; one that can't be read has nothing that is known.
    pub fn of(line: &'a [u8]) -> Self {
        serde_json::from_slice(line).unwrap_or_default()
    }
}
