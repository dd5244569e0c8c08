//! The formats in which lines go out. ECS and OCSF are made of the native line, which they carry whole, chain included: so there is
//! one source of what is told, and a record in any of them can be verified (docs/decisions/0031-formats-carry-the-native-line.md).

mod ecs;
mod ocsf;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    chain::{End, LINE_MAX, Link},
    native::Body,
};

/// The longest line in any format, bytes without the line's end.
pub const RENDERED_MAX: usize = 4 * LINE_MAX;

/// A format of events.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// rosentry's own.
    #[default]
    Native,
    /// Elastic Common Schema 8.11; the native line is its `event.original`.
    Ecs,
    /// Open Cybersecurity Schema Framework 1.3; the native line is its `raw_data`.
    Ocsf,
}

impl Format {
    /// A native line, without its end, in this format.
    pub fn render(self, line: &[u8]) -> Cow<'_, [u8]> {
        let rendered = match self {
            Self::Native => None,
            Self::Ecs => rendered(line, ecs::event, ecs::bare),
            Self::Ocsf => rendered(line, ocsf::event, ocsf::bare),
        };
        rendered.map_or(Cow::Borrowed(line), Cow::Owned)
    }

    /// Puts the native line that begins at `start`, and ends with its line's end, into this format.
    pub fn render_end(self, lines: &mut Vec<u8>, start: usize) {
        let native = lines.get(start..).and_then(|line| line.strip_suffix(b"\n"));
        if let Some(Cow::Owned(rendered)) = native.map(|native| self.render(native)) {
            lines.truncate(start);
            lines.extend_from_slice(&rendered);
            lines.push(b'\n');
        }
    }

    /// Bytes that the line of an event takes at most.
    pub fn line_bytes_max(self, body: &Body) -> usize {
        match self {
            Self::Native => body.line_bytes_max(),
            // The line as a string (two bytes for each quote), what is told of it by other names, and what is always told.
            Self::Ecs | Self::Ocsf => (4 * body.line_bytes_max() + 4096).min(RENDERED_MAX + 1),
        }
    }
}

/// None where the line is no event, or what comes of it can't be told: it goes out as it is.
fn rendered(line: &[u8], event: fn(&Native<'_>) -> Value, bare: fn(&Native<'_>) -> Value) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let told: Map<String, Value> = serde_json::from_str(text).ok()?;
    let native = Native { line: text, told };
    let written = serde_json::to_vec(&event(&native)).ok().filter(|written| written.len() <= RENDERED_MAX);
    // Too long in this format: with nothing but the line itself.
    written.or_else(|| serde_json::to_vec(&bare(&native)).ok())
}

/// How a line of each format begins: names of members stand in alphabetical order in those that are not native.
const BEGINNINGS: [&[u8]; 4] =
    [b"{\"schema\":\"rosentry/", b"{\"@timestamp\":\"", b"{\"action_id\":", b"{\"activity_id\":"];

/// Whether half a line can be one of ours.
pub fn is_ours(unfinished: &[u8]) -> bool {
    BEGINNINGS.iter().any(|beginning| {
        let length = unfinished.len().min(beginning.len());
        length > 0 && unfinished[..length] == beginning[..length]
    })
}

/// Whether a line begins as those do that carry a native one.
pub fn may_carry(line: &[u8]) -> bool {
    BEGINNINGS[1..].iter().any(|beginning| line.starts_with(beginning))
}

/// The native line that a line of another format carries; none where it carries none, or is native.
pub fn original(line: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Carrier {
        raw_data: Option<String>,
        event: Option<Event>,
    }
    #[derive(Deserialize)]
    struct Event {
        original: String,
    }
    if !may_carry(line) {
        return None;
    }
    let Carrier { raw_data, event } = serde_json::from_slice(line).ok()?;
    let original = raw_data.or(event.map(|event| event.original))?.into_bytes();
    // What others put there is not taken for a line.
    Link::parse(&original).is_some().then_some(original)
}

/// Where a stream stands after this line of any format; none where it is no line of an event.
pub fn end_of(line: &[u8]) -> Option<End> {
    End::of_line(original(line).as_deref().unwrap_or(line))
}

/// A native line, and what it tells.
struct Native<'a> {
    line: &'a str,
    told: Map<String, Value>,
}

impl Native<'_> {
    /// The value of a member, by its path; null where there is none.
    fn get(&self, path: &[&str]) -> &Value {
        let mut members = path.iter();
        let first = members.next().and_then(|name| self.told.get(*name)).unwrap_or(&Value::Null);
        members.fold(first, |value, name| value.get(name).unwrap_or(&Value::Null))
    }

    fn text(&self, path: &[&str]) -> &str {
        self.get(path).as_str().unwrap_or_default()
    }

    fn kind(&self) -> &str {
        self.text(&["kind"])
    }

    /// Whether the flags of an open ask for a new file.
    fn creates(&self) -> bool {
        let flags = self.get(&["file", "flags"]).as_array();
        flags.is_some_and(|flags| flags.iter().any(|flag| matches!(flag.as_str(), Some("O_CREAT" | "O_TMPFILE"))))
    }

    /// The path of a write, the target of a mount attempt.
    fn path(&self) -> &Value {
        let place = if self.kind() == "mount_attempt" { ["mount", "target"] } else { ["file", "path"] };
        self.get(&place)
    }

    /// A sentence for people.
    fn message(&self) -> String {
        let [operation, outcome, errno] = ["operation", "outcome", "errno"].map(|name| self.text(&[name]));
        let of = match (self.text(&["pod", "namespace"]), self.text(&["pod", "name"])) {
            ("", _) => String::new(),
            (namespace, pod) => format!(" in {namespace}/{pod}"),
        };
        let path = self.path().as_str().unwrap_or("a path that is not known");
        let why = if errno.is_empty() { String::new() } else { format!(" ({errno})") };
        match self.kind() {
            "seal_broken" => format!("the read-only root is writable at {}{of}", self.text(&["mount", "point"])),
            "seal_mended" => format!("the root is read-only again at {}{of}", self.text(&["mount", "point"])),
            "agent" => format!("rosentry: {}", self.text(&["agent", "what"])),
            _ => format!("{operation} of {path} {outcome}{why}{of}"),
        }
    }

    /// What the format has no field for, under names of ours: members as the native line has them.
    fn own(&self) -> Value {
        const OWN: &[&str] = &[
            "kind",
            "operation",
            "outcome",
            "errno",
            "severity",
            "category",
            "hint",
            "expected",
            "mount",
            "abi",
            "hook",
            "cgroup",
            "agent",
            "chain",
        ];
        let mut own: Map<String, Value> =
            OWN.iter().filter_map(|name| Some(((*name).to_owned(), self.told.get(*name)?.clone()))).collect();
        for (object, names) in [
            ("file", &["requested", "flags", "new_path", "resolved", "xattr", "truncated", "unreadable"][..]),
            ("process", &["container_pid", "cap_sys_admin", "user_ns_level", "ancestors", "truncated"]),
            ("container", &["readonly_rootfs", "started_at"]),
            ("pod", &["namespace", "name", "uid", "workload"]),
        ] {
            let Some(members) = self.get(&[object]).as_object() else { continue };
            let members: Map<_, _> =
                names.iter().filter_map(|name| Some(((*name).to_owned(), members.get(*name)?.clone()))).collect();
            own.insert(object.to_owned(), members.into());
        }
        own.insert("count".to_owned(), self.get(&["count"]).clone());
        own.into()
    }
}

/// The last component of a path.
fn name(path: &Value) -> Value {
    let last = path.as_str().and_then(|path| path.rsplit('/').find(|part| !part.is_empty()));
    last.map_or(Value::Null, Value::from)
}

/// The folder that holds a path.
fn folder(path: &Value) -> Value {
    match path.as_str().and_then(|path| path.trim_end_matches('/').rsplit_once('/')) {
        Some(("", _)) => json!("/"),
        Some((folder, _)) => json!(folder),
        None => Value::Null,
    }
}

/// Without members that are null or empty: what is not known is not there.
fn known(value: Value) -> Value {
    let is_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, known(value)));
            // In order, whatever the map keeps.
            let mut members: Vec<_> = members.filter(|(_, value)| !is_nothing(value)).collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(values) => values.into_iter().map(known).filter(|value| !is_nothing(value)).collect(),
        value => value,
    }
}
