//! One event as a line for a person.

use std::fmt::Write as _;

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use crate::{
    cli::terminal::Style,
    finding::event::{Effect, Kind},
    report::{
        event::{AgentNote, Event, Mount, Process, Time},
        printable::{printable, word},
    },
};

/// Narrower than this, lines are left to the terminal to break.
const LEAST_WIDTH: usize = 24;
/// Of the lines after an event's first one.
const INDENT: usize = 4;
/// Digits of a container's id, where it has no name.
const ID_SHOWN: usize = 12;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Columns; none where lines are not broken.
    pub width: Option<usize>,
    /// Whether words have colours.
    pub colours: bool,
    /// Whether each line tells the date; else a line of its own does where it changes.
    pub dates: bool,
    /// Whether each line tells its node.
    pub nodes: bool,
    /// Whether what mends it is told.
    pub hints: bool,
}

/// Appends words, and breaks lines between them.
struct Pen<'a> {
    out: &'a mut String,
    width: usize,
    colours: bool,
    used: usize,
}

impl Pen<'_> {
    fn word(&mut self, style: Style, text: &str) {
        let length = text.width();
        if self.used > 0 {
            if self.used + 1 + length > self.width {
                self.new_line();
            } else {
                self.out.push(' ');
                self.used += 1;
            }
        }
        let code = style.code().filter(|_| self.colours);
        if let Some(code) = code {
            let _ = write!(self.out, "\x1b[{code}m");
        }
        if self.used + length <= self.width {
            self.out.push_str(text);
            self.used += length;
        } else {
            self.cut(text);
        }
        if code.is_some() {
            self.out.push_str("\x1b[0m");
        }
    }

    /// A word that is wider than a line.
    fn cut(&mut self, text: &str) {
        let mut buffer = [0; 4];
        for character in text.chars() {
            let character: &str = character.encode_utf8(&mut buffer);
            if self.used + character.width() > self.width {
                self.new_line();
            }
            self.out.push_str(character);
            self.used += character.width();
        }
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', INDENT));
        self.used = INDENT;
    }
}

/// Appends the event to `out`, with a line's end.
pub fn write(event: &Event<'_>, layout: Layout, out: &mut String) {
    let width = layout.width.map_or(usize::MAX, |width| width.max(LEAST_WIDTH));
    let mut pen = Pen { out, width, colours: layout.colours, used: 0 };
    let time = format!("{:.3}", event.time.0);
    pen.word(Style::Dim, if layout.dates { &time } else { clock_of(&time) });
    if layout.nodes {
        pen.word(Style::Dim, &word(&event.node));
    }
    let severity = event.severity;
    pen.word(Style::of(severity), severity.name());
    place(&mut pen, event);
    what(&mut pen, event);
    if event.count > 1 {
        pen.word(Style::Yellow, &format!("×{}", event.count));
    }
    if let Some(process) = &event.process {
        by(&mut pen, process);
    }
    for technique in &event.attack {
        pen.word(Style::Yellow, &word(technique));
    }
    if let Some(hint) = event.hint.as_ref().filter(|_| layout.hints) {
        pen.word(Style::Green, "→");
        for part in printable(hint).split_whitespace() {
            pen.word(Style::Green, part);
        }
    }
    pen.out.push('\n');
}

/// The line that stands before the first event of a day.
pub fn write_day(time: Time, layout: Layout, out: &mut String) {
    let mut pen = Pen { out, width: usize::MAX, colours: layout.colours, used: 0 };
    let time = format!("{:.3}", time.0);
    pen.word(Style::Bold, &format!("{} UTC", day_of(&time)));
    pen.out.push('\n');
}

/// The date of an RFC 3339 time.
pub fn day_of(time: &str) -> &str {
    time.split_once('T').map_or(time, |(date, _)| date)
}

fn clock_of(time: &str) -> &str {
    time.split_once('T').map_or(time, |(_, clock)| clock.trim_end_matches('Z'))
}

/// Where: the pod and its container, else the container, else the cgroup.
fn place(pen: &mut Pen<'_>, event: &Event<'_>) {
    let name = event.container.as_ref().map(|container| match &container.name {
        Some(name) => printable(name),
        None => printable(container.id.get(..ID_SHOWN).unwrap_or(&container.id)),
    });
    match (&event.pod, name, event.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_ref())) {
        (Some(pod), name, _) => {
            let name = name.unwrap_or_default();
            pen.word(Style::Cyan, &word(&format!("{}/{}/{name}", &*pod.namespace, &*pod.name)));
        }
        (None, Some(name), _) => pen.word(Style::Cyan, &word(&format!("container/{name}"))),
        (None, None, Some(path)) => pen.word(Style::Cyan, &word(&format!("cgroup:{}", &**path))),
        (None, None, None) => {}
    }
}

/// What happened.
fn what(pen: &mut Pen<'_>, event: &Event<'_>) {
    let kind = event.kind();
    let loud = matches!(kind, Some(Kind::SealBroken));
    pen.word(if loud { Style::Alarm } else { Style::Plain }, &word(&event.kind_name));
    if let Some(note) = &event.agent {
        agent(pen, note);
    }
    if let Some(operation) = &event.operation {
        pen.word(Style::Plain, &word(operation));
    }
    if let Some(path) = event.path() {
        pen.word(Style::Bold, &word(path));
    }
    if let Some(new_path) = event.file.as_ref().and_then(|file| file.new_path.as_ref()) {
        pen.word(Style::Plain, "to");
        pen.word(Style::Bold, &word(new_path));
    }
    if let Some(mount) = &event.mount {
        mounted(pen, mount, kind);
    }
    match (event.outcome.as_deref(), event.errno.as_deref()) {
        (Some("succeeded"), _) => {
            let style = if kind == Some(Kind::MountAttempt) { Style::Red } else { Style::Plain };
            pen.word(style, "succeeded");
        }
        (_, Some(errno)) => pen.word(Style::Plain, &word(errno)),
        (Some(outcome), None) => pen.word(Style::Plain, &word(outcome)),
        (None, None) => {}
    }
}

fn mounted(pen: &mut Pen<'_>, mount: &Mount<'_>, kind: Option<Kind>) {
    if kind == Some(Kind::WriteDenied) {
        // Where a write hit is worth a word where it was no part of the image.
        if let Some(volume) = &mount.volume {
            pen.word(Style::Plain, &word(&format!("{}:{}", &*volume.kind, &*volume.name)));
        }
        return;
    }
    if let Some(fstype) = &mount.fstype {
        pen.word(Style::Plain, &word(fstype));
    }
    if let Some(effect) = mount.effect.filter(|effect| *effect != Effect::None) {
        pen.word(Style::Yellow, effect.name());
    }
    if let Some(cause) = &mount.cause {
        pen.word(Style::Plain, "by");
        pen.word(Style::Plain, &word(cause));
    }
}

fn by(pen: &mut Pen<'_>, process: &Process<'_>) {
    pen.word(Style::Dim, "by");
    pen.word(Style::Plain, &format!("{}[{}]", word(&process.comm), process.pid));
    for ancestor in &process.ancestors {
        pen.word(Style::Dim, "<");
        pen.word(Style::Dim, &format!("{}[{}]", word(&ancestor.comm), ancestor.pid));
    }
}

fn agent(pen: &mut Pen<'_>, note: &AgentNote<'_>) {
    pen.word(Style::Bold, &word(&note.what));
    for (name, value) in &note.details {
        let value = short(value);
        pen.word(Style::Dim, &format!("{}={}", word(name), word(&value)));
    }
}

/// Lists and objects without JSON's signs.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(short).collect::<Vec<_>>().join(","),
        Value::Object(all) => {
            all.iter().map(|(name, one)| format!("{name}:{}", short(one))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::{
            native::NativeEncoder,
            testing::{remount, start, touch},
        },
        finding::Event as Finding,
    };

    const PLAIN: Layout = Layout { width: None, colours: false, dates: true, nodes: false, hints: false };

    fn native(event: &Finding) -> String {
        let mut line = Vec::new();
        NativeEncoder::new("n1").encode(event, &mut line).unwrap();
        String::from_utf8(line).unwrap()
    }

    fn shown(line: &str, layout: Layout) -> String {
        let mut out = String::new();
        write(&Event::parse(line.trim_end().as_bytes()).unwrap(), layout, &mut out);
        out
    }

    #[test]
    fn a_refused_write_is_told_with_who_where_and_what() {
        assert_eq!(
            shown(&native(&touch()), PLAIN),
            "2026-01-02T03:04:05.123Z low prod/web-abc12-x/app write_denied open /etc/x EROFS by touch[100] < sh[90]\n"
        );
        let all = Layout { dates: false, nodes: true, hints: true, ..PLAIN };
        assert_eq!(
            shown(&native(&touch()), all),
            "03:04:05.123 n1 low prod/web-abc12-x/app write_denied open /etc/x EROFS by touch[100] < sh[90] → bring the \
             configuration in with a ConfigMap, or render it into an emptyDir\n"
        );
    }

    #[test]
    fn a_mount_attempt_is_told_with_its_effect_and_result() {
        let told = shown(&native(&remount()), PLAIN);
        assert!(told.contains("mount_attempt remount / unseal EPERM by touch[100]"), "{told}");
    }

    #[test]
    fn the_agent_is_told_with_its_details() {
        let told = shown(&native(&start()), PLAIN);
        assert!(told.contains("info agent start version=0.1.0 hooks=tracepoint lost=ring:3 full=true"), "{told}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [24, 40, 80] {
            for colours in [false, true] {
                let layout = Layout { width: Some(width), colours, dates: false, nodes: true, hints: true };
                let long = native(&touch()).replace("/etc/x", &"/漢字".repeat(40));
                for line in shown(&long, layout).lines() {
                    let bare = uncoloured(line);
                    assert!(bare.width() <= width, "{width}: {bare}");
                }
            }
        }
    }

    /// Without the colours; whatever else steers a terminal stays.
    fn uncoloured(line: &str) -> String {
        ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[1;31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"]
            .iter()
            .fold(line.to_owned(), |line, code| line.replace(code, ""))
    }

    #[test]
    fn no_text_of_the_line_steers_the_terminal_whichever_member_it_stands_in() {
        let line = native(&touch());
        let parsed: Value = serde_json::from_str(&line).unwrap();
        let hostile = "\u{1b}[2J\u{9b}31m\u{202e}\r\n\u{7}";
        let layout = Layout { width: Some(60), colours: true, dates: false, nodes: true, hints: true };
        let mut seen = 0;
        for (pointer, told) in texts(&parsed, String::new()) {
            let mut forged = parsed.clone();
            *forged.pointer_mut(&pointer).unwrap() = format!("{told}{hostile}").into();
            let forged = forged.to_string();
            let Some(event) = Event::parse(forged.as_bytes()) else { continue };
            let mut out = String::new();
            write(&event, layout, &mut out);
            let bare = uncoloured(&out);
            assert!(
                !bare.trim_end_matches('\n').contains(|c: char| c.is_control() && c != '\n'),
                "{pointer}: {bare:?}"
            );
            assert!(!bare.contains('\u{202e}'), "{pointer}: {bare:?}");
            seen += usize::from(bare.contains("\\x1b[2J"));
        }
        assert!(seen > 8, "hostile text is shown in {seen} places");
    }

    /// Where in a value texts stand, and which.
    fn texts(value: &Value, at: String) -> Vec<(String, String)> {
        match value {
            Value::String(text) => vec![(at, text.clone())],
            Value::Array(all) => all.iter().enumerate().flat_map(|(i, one)| texts(one, format!("{at}/{i}"))).collect(),
            Value::Object(all) => all.iter().flat_map(|(k, one)| texts(one, format!("{at}/{k}"))).collect(),
            _ => Vec::new(),
        }
    }
}
