//! What the agent says of itself: `what`, and more by name.

use std::fmt::{self, Formatter};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess},
};
use serde_json::Value;

use super::Text;
use crate::export::chain;

/// What the agent says of itself.
#[derive(Clone, Debug)]
pub struct AgentNote<'a> {
    /// `start`, `stop`, `coverage`, `lost`, `gap`.
    pub what: Text<'a>,
    /// More about it.
    pub details: Vec<(Text<'a>, Value)>,
}

impl AgentNote<'_> {
    /// A detail that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.detail(name).and_then(Value::as_str)
    }

    /// Of `lost`: how many events.
    pub fn lost(&self) -> u64 {
        self.detail("events").filter(|_| &*self.what == "lost").map_or(0, chain::lost)
    }

    /// A detail that is a yes or no.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.detail(name).and_then(Value::as_bool)
    }

    fn detail(&self, name: &str) -> Option<&Value> {
        self.details.iter().find(|(key, _)| **key == *name).map(|(_, value)| value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for AgentNote<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = AgentNote<'de>;

            fn expecting(&self, out: &mut Formatter<'_>) -> fmt::Result {
                out.write_str("what the agent says of itself")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AgentNote<'de>, A::Error> {
                let (mut what, mut details) = (None, Vec::new());
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    if &*name == "what" {
                        what = Some(map.next_value()?);
                    } else {
                        details.push((name, map.next_value()?));
                    }
                }
                Ok(AgentNote { what: what.ok_or_else(|| de::Error::missing_field("what"))?, details })
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
