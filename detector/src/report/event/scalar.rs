//! Texts and times of an event, and the words that it chooses from.

use std::{
    borrow::Cow,
    fmt::{self, Display, Formatter},
    ops::Deref,
};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};

use crate::finding::event::{Effect, PlaceKind, Severity};

/// A text; borrowed from the line unless JSON escapes something in it.
// A `Cow` behind an `Option` or in a list is never borrowed by serde; this is.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// A time, to the nanosecond.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(pub Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Time;

            fn expecting(&self, out: &mut Formatter<'_>) -> fmt::Result {
                out.write_str("a time as RFC 3339 has it")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map(Time).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// RFC 3339 in UTC with nine digits, as events tell it.
impl Display for Time {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{:.9}", self.0)
    }
}

pub(super) fn severity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Severity, D::Error> {
    let name = Text::deserialize(deserializer)?;
    let found = Severity::ALL.iter().copied().find(|severity| severity.name() == &*name);
    found.ok_or_else(|| de::Error::custom("a severity that does not exist"))
}

/// None of what a later version may add.
pub(super) fn effect<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Effect>, D::Error> {
    let name = Option::<Text<'_>>::deserialize(deserializer)?;
    Ok(name.and_then(|name| Effect::ALL.iter().copied().find(|effect| effect.name() == &*name)))
}

/// None of what a later version may add.
pub(super) fn place<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PlaceKind>, D::Error> {
    let name = Option::<Text<'_>>::deserialize(deserializer)?;
    Ok(name.and_then(|name| PlaceKind::ALL.iter().copied().find(|place| place.name() == &*name)))
}
