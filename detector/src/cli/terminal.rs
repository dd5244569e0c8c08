//! What commands for people share: width and colours of the terminal, columns that wrap, a reader who has gone away.

use std::{
    env,
    io::{self, IsTerminal as _, StdoutLock, Write},
};

use rustix::termios::tcgetwinsize;

use crate::finding::event::Severity;

/// The width where nothing tells one.
const USUAL_WIDTH: usize = 100;
/// Narrower than this, columns can't be read; lines are left to the terminal to break.
const LEAST_WIDTH: usize = 60;
/// Wider than this, the eye does not find from one column to the next.
const MOST_WIDTH: usize = 160;
/// Between columns.
const GAP: usize = 2;

/// How a word looks on a terminal with colours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// As it is.
    Plain,
    /// A heading.
    Bold,
    /// Of less interest.
    Dim,
    /// Good.
    Green,
    /// To be looked at.
    Yellow,
    /// Bad.
    Red,
    /// Worse.
    Alarm,
    /// A name of the domain.
    Cyan,
}

impl Style {
    /// That of a severity.
    pub const fn of(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Dim,
            Severity::Low => Self::Plain,
            Severity::Medium => Self::Yellow,
            Severity::High => Self::Red,
            Severity::Critical => Self::Alarm,
        }
    }

    /// Parameters of the escape sequence `SGR` (ECMA-48).
    pub(super) const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Red => Some("31"),
            Self::Alarm => Some("1;31"),
            Self::Green => Some("32"),
            Self::Yellow => Some("33"),
            Self::Cyan => Some("36"),
        }
    }
}

/// Text that is broken at its words.
#[derive(Clone, Debug, Default)]
pub struct Cell(Vec<(Style, String)>);

impl Cell {
    /// The words of `text`, all in one style.
    pub fn new(style: Style, text: &str) -> Self {
        Self::default().and(style, text)
    }

    /// The words of `text` behind those that are there.
    #[must_use]
    pub fn and(mut self, style: Style, text: &str) -> Self {
        self.0.extend(text.split_whitespace().map(|word| (style, word.to_owned())));
        self
    }

    /// `text` behind those that are there, as one word.
    #[must_use]
    pub fn unbroken(mut self, style: Style, text: &str) -> Self {
        self.0.push((style, text.to_owned()));
        self
    }

    /// The words of `other` behind those that are there.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The same with `mark` at the end of its last word.
    #[must_use]
    pub fn ended(mut self, mark: &str) -> Self {
        if let Some((_, word)) = self.0.last_mut() {
            word.push_str(mark);
        }
        self
    }

    /// Lines of at most `width` characters. A word that is longer is cut.
    fn wrap(&self, width: usize) -> Vec<Vec<(Style, String)>> {
        let width = width.max(1);
        let mut lines = Vec::new();
        let (mut line, mut used) = (Vec::new(), 0);
        for (style, word) in self.0.iter().flat_map(|(style, word)| pieces(word, width).map(|piece| (*style, piece))) {
            let length = word.chars().count();
            if !line.is_empty() && used + 1 + length > width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            used += length + usize::from(!line.is_empty());
            line.push((style, word));
        }
        if !line.is_empty() || lines.is_empty() {
            lines.push(line);
        }
        lines
    }
}

/// A word in parts of at most `width` characters.
fn pieces(word: &str, width: usize) -> impl Iterator<Item = String> {
    let characters: Vec<char> = word.chars().collect();
    characters.chunks(width).map(|piece| piece.iter().collect()).collect::<Vec<String>>().into_iter()
}

/// Standard output, for a person to read.
pub type Stdout = Output<StdoutLock<'static>>;

/// Where lines go.
#[derive(Debug)]
pub struct Output<W> {
    inner: W,
    width: usize,
    colours: bool,
    closed: bool,
}

impl Stdout {
    /// As wide as `COLUMNS` says, else the terminal; with colours on a terminal, unless `NO_COLOR` is set.
    pub fn new() -> Self {
        let inner = io::stdout().lock();
        let width = columns(&inner).unwrap_or(USUAL_WIDTH);
        let colours = takes_colours(&inner);
        Self::to(inner, width, colours)
    }
}

/// As wide as `COLUMNS` says, else the terminal; none where there is none.
pub fn columns(out: &StdoutLock<'_>) -> Option<usize> {
    let of_terminal = || out.is_terminal().then(|| tcgetwinsize(out).ok()).flatten().map(|size| size.ws_col.into());
    let said = env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    said.or_else(of_terminal).filter(|width| *width > 0)
}

/// Whether it is a terminal with colours, and `NO_COLOR` is not set.
pub fn takes_colours(out: &StdoutLock<'_>) -> bool {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    out.is_terminal() && !no_color && !is_dumb
}

impl Default for Stdout {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Write> Output<W> {
    /// Lines of a given width, with or without colours.
    pub fn to(inner: W, width: usize, colours: bool) -> Self {
        Self { inner, width: width.clamp(LEAST_WIDTH, MOST_WIDTH), colours, closed: false }
    }

    /// Characters of a line.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// The system's; none where the reader has gone away, since what a command does is not done for its reader alone.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        match self.inner.write_all(bytes).and_then(|()| self.inner.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            done => done,
        }
    }

    /// An empty line.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn blank(&mut self) -> io::Result<()> {
        self.bytes(b"\n")
    }

    /// A paragraph over the whole width.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn paragraph(&mut self, cell: &Cell) -> io::Result<()> {
        self.row(&[(cell, self.width)])
    }

    /// Cells side by side, each with the width of its column; they wrap within it.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn row(&mut self, columns: &[(&Cell, usize)]) -> io::Result<()> {
        let wrapped: Vec<_> = columns.iter().map(|(cell, width)| (cell.wrap(*width), *width)).collect();
        let height = wrapped.iter().map(|(lines, _)| lines.len()).max().unwrap_or(0);
        let mut text = String::new();
        for at in 0..height {
            let mut due = 0;
            for (lines, width) in &wrapped {
                let line = lines.get(at).map(Vec::as_slice).unwrap_or_default();
                if !line.is_empty() {
                    text.extend(std::iter::repeat_n(' ', due));
                    due = 0;
                }
                due += width + GAP - self.push(&mut text, line);
            }
            text.push('\n');
        }
        self.bytes(text.as_bytes())
    }

    /// Appends the words; how many characters they take.
    fn push(&self, text: &mut String, words: &[(Style, String)]) -> usize {
        let mut used = 0;
        for same in words.chunk_by(|(one, _), (next, _)| one == next) {
            if used > 0 {
                text.push(' ');
                used += 1;
            }
            let joined = same.iter().map(|(_, word)| word.as_str()).collect::<Vec<_>>().join(" ");
            let code = same.first().and_then(|(style, _)| style.code()).filter(|_| self.colours);
            match code {
                Some(code) => text.push_str(&format!("\x1b[{code}m{joined}\x1b[0m")),
                None => text.push_str(&joined),
            }
            used += joined.chars().count();
        }
        used
    }
}

/// Says `sentence` on standard error; where nobody reads that, nothing is lost that anybody asked for.
pub fn complain(sentence: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "rosentry: {sentence}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(width: usize, colours: bool, write: impl FnOnce(&mut Output<Vec<u8>>) -> io::Result<()>) -> String {
        let mut output = Output::to(Vec::new(), width, colours);
        write(&mut output).unwrap();
        String::from_utf8(output.inner).unwrap()
    }

    #[test]
    fn cells_wrap_at_their_words_and_stay_in_their_columns() {
        let (left, right) = (Cell::new(Style::Plain, "create the file"), Cell::new(Style::Plain, "seen as it was"));
        let text = written(80, false, |output| output.row(&[(&left, 10), (&right, 8)]));
        assert_eq!(text, "create the  seen as\nfile        it was\n");
    }

    #[test]
    fn a_word_that_is_wider_than_its_column_is_cut() {
        let cell = Cell::new(Style::Plain, "/usr/lib/long x");
        assert_eq!(written(80, false, |output| output.row(&[(&cell, 6)])), "/usr/l\nib/lon\ng x\n");
    }

    #[test]
    fn an_empty_cell_leaves_its_column_empty_and_no_blanks_at_the_end_of_a_line() {
        let (empty, full) = (Cell::default(), Cell::new(Style::Plain, "x"));
        assert_eq!(written(80, false, |output| output.row(&[(&empty, 4), (&full, 4)])), "      x\n");
        assert_eq!(written(80, false, |output| output.row(&[(&full, 4), (&empty, 4)])), "x\n");
    }

    #[test]
    fn colours_take_no_room() {
        let (left, right) = (Cell::new(Style::Red, "a b"), Cell::new(Style::Plain, "c"));
        let text = written(80, true, |output| output.row(&[(&left, 4), (&right, 3)]));
        assert_eq!(text, "\x1b[31ma b\x1b[0m   c\n");
    }

    #[test]
    fn a_width_that_nobody_can_read_is_not_taken() {
        assert_eq!(Output::to(Vec::new(), 3, false).width(), LEAST_WIDTH);
        assert_eq!(Output::to(Vec::new(), 9000, false).width(), MOST_WIDTH);
    }

    /// A pipe whose other end is closed.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_has_gone_away_is_no_error() {
        let mut output = Output::to(Closed, 80, false);
        output.blank().unwrap();
        output.blank().unwrap();
        assert!(output.closed);
    }
}
