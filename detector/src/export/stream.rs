//! A stream: events numbered without holes and chained, as one sink gets them.
//!
//! Each sink has a stream of its own, which goes on where the sink's own record ends. So what one sink has to give up leaves no
//! hole in its record, and none in another's (docs/decisions/0020-a-stream-by-sink.md).

use super::{
    chain::{self, End, START},
    native::{Body, SCHEMA},
};

/// Where a stream stands, and how its next line is told.
#[derive(Clone, Debug)]
pub struct Stream {
    end: Option<End>,
    tells_previous: bool,
}

impl Stream {
    /// The stream that goes on after this line; without one it begins. Its next line says what it follows.
    pub const fn after(end: Option<End>) -> Self {
        Self { end, tells_previous: true }
    }

    /// Lets the next line say what it follows: for the first one in a file.
    pub const fn tell_previous(&mut self) {
        self.tells_previous = true;
    }

    /// Where it stands; none where it has no line yet.
    pub const fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Appends the event to `out` as the stream's next line, its end included.
    pub fn append(&mut self, body: &Body, out: &mut Vec<u8>) {
        let start = out.len();
        let seq = self.end.as_ref().map_or(1, |end| end.seq.saturating_add(1));
        out.extend_from_slice(format!("{{\"schema\":\"{SCHEMA}\",\"seq\":{seq},").as_bytes());
        out.extend_from_slice(body.members());
        if std::mem::take(&mut self.tells_previous) {
            let previous = match &self.end {
                Some(End { seq, chain }) => format!(",\"previous\":{{\"seq\":{seq},\"chain\":\"{chain}\"}}"),
                None => ",\"previous\":null".to_owned(),
            };
            out.extend_from_slice(previous.as_bytes());
        }
        let previous = self.end.as_ref().map_or(START, |end| &end.chain);
        let chain = chain::close(out, start, previous);
        self.end = Some(End { seq, chain });
    }
}
