//! A line as a syslog message: RFC 5424, in the frames of RFC 6587 (octet counting), which RFC 5425 asks for as well.

use std::borrow::Cow;

use crate::export::{format::Format, sinks::event_line::EventLine};

/// `log audit` (RFC 5424, table 1).
const FACILITY: u8 = 13;

/// A host name has this many characters at most.
const HOST_MAX: usize = 255;

/// `sequenceId` begins anew at 1 after this (RFC 5424, 7.3.1).
const SEQUENCE_MAX: u64 = 0x7fff_ffff;

/// Appends the line as one frame. `process` is the agent's process id.
///
/// The message is the line in this format, without a byte order mark before it, so that a receiver that writes `MSG` as it is keeps
/// the chain whole.
pub fn frame(line: &[u8], format: Format, process: u32, out: &mut Vec<u8>) {
    let event = EventLine::of(line);
    let line = &*format.render(line);
    let priority = FACILITY * 8 + severity(&event.severity);
    let header = format!(
        "<{priority}>1 {} {} rosentry {process} {} [meta sequenceId=\"{}\"] ",
        timestamp(&event.time),
        host(&event.node),
        // The kinds of events are short words.
        if event.kind.is_empty() { "-" } else { &event.kind },
        event.seq.saturating_sub(1) % SEQUENCE_MAX + 1,
    );
    out.extend_from_slice(format!("{} ", header.len() + line.len()).as_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(line);
}

/// The severity's number (RFC 5424, table 2).
fn severity(name: &str) -> u8 {
    match name {
        "critical" => 2,
        "high" => 3,
        "medium" => 4,
        "low" => 5,
        _ => 6,
    }
}

/// RFC 5424 has six digits of a second at most.
fn timestamp(time: &str) -> Cow<'_, str> {
    match time.split_once('.') {
        _ if time.is_empty() => Cow::Borrowed("-"),
        Some((second, fraction)) if fraction.len() > 7 && fraction.is_ascii() => {
            Cow::Owned(format!("{second}.{}Z", &fraction[..6]))
        }
        _ => Cow::Borrowed(time),
    }
}

/// Printable ASCII without spaces.
fn host(node: &str) -> String {
    let printable = |character: char| if character.is_ascii_graphic() { character } else { '_' };
    let host: String = node.chars().take(HOST_MAX).map(printable).collect();
    if host.is_empty() { "-".to_owned() } else { host }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::export::{native::NativeEncoder, testing::touch};

    fn framed(line: &[u8]) -> String {
        let mut out = Vec::new();
        frame(line, Format::Native, 7, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_refused_write_becomes_a_message_with_the_line_in_it() {
        let mut line = Vec::new();
        NativeEncoder::new("n 1\n").encode(&touch(), &mut line).unwrap();
        let line = std::str::from_utf8(line.trim_ascii_end()).unwrap();
        let message = format!(
            "<109>1 2026-01-02T03:04:05.123456Z n_1\\x0a rosentry 7 write_denied [meta sequenceId=\"1\"] {line}"
        );
        assert_eq!(framed(line.as_bytes()), format!("{} {message}", message.len()));
    }

    #[test]
    fn each_severity_has_a_number_and_critical_the_lowest() {
        assert_eq!(["critical", "high", "medium", "low", "info"].map(severity), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_sequence_begins_anew_where_its_numbers_end() {
        for (seq, expected) in [(SEQUENCE_MAX, "2147483647"), (SEQUENCE_MAX + 1, "1"), (u64::MAX, "3")] {
            let line = format!("{{\"seq\":{seq}}}");
            assert!(framed(line.as_bytes()).contains(&format!("sequenceId=\"{expected}\"")), "{seq}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_framed_by_its_bytes(line in "[^\\x00]{0,80}", node in ".{0,300}") {
            let line = serde_json::json!({ "node": node, "x": line }).to_string();
            let framed = framed(line.as_bytes());
            let (count, message) = framed.split_once(' ').unwrap();
            prop_assert_eq!(count.parse::<usize>().unwrap(), message.len());
            prop_assert!(message.ends_with(&line));
            let header = &message[..message.len() - line.len()];
            prop_assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        }
    }
}
