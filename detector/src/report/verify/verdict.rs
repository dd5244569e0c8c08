//! What there is to say of a record.

use std::fmt::{self, Display, Formatter};

/// What is asked of a record, besides that its lines are those that were written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Demand {
    /// Nothing more: it may begin behind files that were rotated away, and need not have ended.
    #[default]
    Usual,
    /// It is a part: it may begin anywhere.
    Part,
    /// It has all: it begins with a stream's first line and ends with a stop record.
    All,
}

/// Whether a record is as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is.
    Whole(Whole),
    /// It is not; the first line that shows it.
    Bad(Bad),
    /// Every line is as it was written, yet the record is not what was demanded.
    Lacking(String),
}

/// What is known of a record that is as it was written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Whole {
    /// Lines.
    pub lines: u64,
    /// Of them, those that lines of ECS or OCSF carry: what stands around them there is not looked at.
    pub carried: u64,
    /// Files with lines.
    pub files: u64,
    /// Streams.
    pub streams: u64,
    /// Runs of the agent that begin in it.
    pub runs: u64,
    /// Runs after which another begins though they have no stop record.
    pub killed: u64,
    /// What stands before the beginning of the record, where that is not there: `(file, number of its last line)`.
    pub before: Vec<(String, u64)>,
    /// Files whose beginning is unknown, as was allowed.
    pub parts: u64,
    /// Streams that end without a stop record.
    pub open: u64,
    /// Events of which the record itself says that they are lost.
    pub lost: u64,
}

impl Display for Whole {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { lines, carried, files, streams, runs, killed, before, parts, open, lost } = self;
        let many = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let every = if *carried > 0 { "every native line" } else { "every line" };
        write!(out, "{every} is as it was written: {} in {}", many(*lines, "line"), many(*files, "file"))?;
        writeln!(out, ", {}, {}", many(*streams, "stream"), many(*runs, "start"))?;
        if *carried > 0 {
            writeln!(
                out,
                "note: {} of ECS or OCSF: only the native line within each is proven; the fields around it are no evidence",
                many(*carried, "line")
            )?;
        }
        for (file, seq) in before {
            writeln!(
                out,
                "note: {file} goes on after line {seq} of its stream; what came before is in none of the files"
            )?;
        }
        if *parts > 0 {
            let those = many(*parts, "file");
            writeln!(
                out,
                "note: {those} without a beginning: lines may be missing before the first, which is itself unproven"
            )?;
        }
        if *killed > 0 {
            let those = many(*killed, "run");
            writeln!(
                out,
                "note: {those} ended without a stop record, as when killed; none of its lines is missing, the start after it shows that"
            )?;
        }
        if *streams > 1 {
            writeln!(
                out,
                "note: nothing ties {streams} streams to each other: whether one more stood between them can't be told"
            )?;
        }
        if *open > 0 {
            let those = many(*open, "stream");
            writeln!(
                out,
                "note: {those} without a stop record at the end: whether lines are missing there can't be told"
            )?;
        }
        if *lost > 0 {
            writeln!(
                out,
                "note: the record itself says that {} were lost before it was written",
                many(*lost, "event")
            )?;
        }
        Ok(())
    }
}

/// The first line that is not as it was written, or not where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bad {
    /// Its file.
    pub input: String,
    /// Its number in the file, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: Problem,
}

impl Display for Bad {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}, line {}: {}", self.input, self.line, self.problem)
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// See the message.
    #[error("it is no event of rosentry with a chain at its end: it was put in or changed")]
    NoEvent,
    /// See the message.
    #[error("it breaks off before its end: the file was cut, or is being written to")]
    Cut,
    /// See the message.
    #[error("it is longer than any line that rosentry writes: it was put in or changed")]
    Long,
    /// See the message.
    #[error("it has seq {found}, the line before it {before}: {} missing between them", Lines(found - before - 1))]
    Missing {
        /// `seq` of the line before.
        before: u64,
        /// `seq` of this one.
        found: u64,
    },
    /// See the message.
    #[error(
        "it has seq {found}, the line before it {before}: it was moved, put in a second time, or is of another record"
    )]
    Order {
        /// `seq` of the line before.
        before: u64,
        /// `seq` of this one.
        found: u64,
    },
    /// See the message.
    #[error("its chain does not fit: it was changed, or the line before it is not the one it was written after")]
    Chain,
    /// See the message.
    #[error("it says that it goes on after another line with seq {before} than the one before it")]
    OtherPrevious {
        /// `seq` of the line before.
        before: u64,
    },
    /// See the message.
    #[error("it says that it goes on after seq {says}, yet has seq {found}: it was changed")]
    OwnPrevious {
        /// What it says.
        says: u64,
        /// `seq` of this one.
        found: u64,
    },
    /// See the message.
    #[error("the record begins with seq {seq}: {} missing before it, or in a file that was not given (--part allows that)", Lines(seq - 1))]
    NoBeginning {
        /// `seq` of the line.
        seq: u64,
    },
    /// See the message.
    #[error("it is the same line as {other}, line {line}: it was put in, or the file given, a second time")]
    Twice {
        /// The other file.
        other: String,
        /// The line there.
        line: u64,
    },
    /// See the message.
    #[error(
        "it begins one more than {most} runs and files, which is more than one record may have: verify it in parts"
    )]
    Beginnings {
        /// How many there may be.
        most: usize,
    },
}

/// So many lines, with the verb that fits.
struct Lines(u64);

impl Display for Lines {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => out.write_str("1 line is"),
            count => write!(out, "{count} lines are"),
        }
    }
}
