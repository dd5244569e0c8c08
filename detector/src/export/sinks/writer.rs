//! Whole lines into something that may take half of one.

use std::io::{self, ErrorKind, Write};

/// Keeps the rest of a line that was taken in part, and writes it first the next time: no line is torn.
#[derive(Debug)]
pub struct LineWriter<W> {
    /// What is written to.
    pub inner: W,
    rest: Vec<u8>,
}

impl<W: Write> LineWriter<W> {
    /// Into this.
    pub const fn new(inner: W) -> Self {
        Self { inner, rest: Vec::new() }
    }

    /// Writes lines, as [`Store::write`](super::recorder::Store::write) does. `take_back` is asked, where only so many bytes of
    /// a line were taken, to take them back; what it can't take back counts as taken, and the line's rest is kept.
    pub fn write(&mut self, lines: &[u8], take_back: impl FnOnce(&mut W, usize) -> bool) -> (usize, io::Result<()>) {
        let (taken, result) = write(&mut self.inner, &self.rest);
        self.rest.drain(..taken);
        if result.is_err() {
            return (0, result);
        }
        let (taken, result) = write(&mut self.inner, lines);
        let whole = lines[..taken].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole == taken || take_back(&mut self.inner, taken - whole) {
            return (whole, result);
        }
        let end = lines[taken..].iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| taken + end + 1);
        self.rest.extend_from_slice(&lines[taken..end]);
        (end, result)
    }

    /// Whether the rest of a line waits.
    pub const fn is_within_line(&self) -> bool {
        !self.rest.is_empty()
    }
}

fn write(writer: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while taken < bytes.len() {
        match writer.write(&bytes[taken..]) {
            Ok(0) => return (taken, Err(ErrorKind::WriteZero.into())),
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes so many bytes at a time and, after each, fails once.
    struct Narrow {
        taken: Vec<u8>,
        at_once: usize,
        fails: bool,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.fails = !self.fails;
            if self.fails {
                return Err(ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.at_once);
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn no_line_is_torn_doubled_or_left_out_whatever_the_other_end_takes(
            lines in proptest::collection::vec("[a-z]{0,9}\n", 1..30),
            at_once in 1_usize..20,
            can_take_back in any::<bool>(),
        ) {
            let mut writer = LineWriter::new(Narrow { taken: Vec::new(), at_once, fails: false });
            let text = lines.concat();
            let mut due = text.as_bytes();
            while !due.is_empty() || writer.is_within_line() {
                let (taken, _) = writer.write(due, |narrow, bytes| {
                    if can_take_back {
                        narrow.taken.truncate(narrow.taken.len() - bytes);
                    }
                    can_take_back
                });
                prop_assert!(taken == 0 || due[taken - 1] == b'\n');
                due = &due[taken..];
                // A line that is longer than what is taken at once never fits, where the part that did is taken back.
                writer.inner.at_once += usize::from(can_take_back);
            }
            prop_assert_eq!(String::from_utf8(writer.inner.taken).unwrap(), text);
        }
    }
}
