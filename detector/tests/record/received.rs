//! What a receiver has received, judged.

use std::{collections::BTreeMap, io::Write as _};

use detector::{
    export::chain::End,
    report::{
        lines::Input,
        verify::{Demand, Verdict, Whole, verify},
    },
};

/// Lines in the order of their arrival.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// By `seq`.
    pub lines: BTreeMap<u64, String>,
    /// How often the numbers went back: once for each cut.
    pub went_back: usize,
    /// How many came more than once.
    pub repeated: usize,
}

impl Received {
    /// Takes them in. A line that comes twice must be the same.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut received = Self::default();
        let mut last = 0;
        for line in lines {
            let Some(End { seq, .. }) = End::of_line(line.as_bytes()) else { panic!("no event: {line}") };
            received.went_back += usize::from(seq <= last);
            last = seq;
            if let Some(before) = received.lines.insert(seq, line.to_owned()) {
                assert_eq!(before, line, "the same number, another line");
                received.repeated += 1;
            }
        }
        received
    }

    /// The last number.
    pub fn last(&self) -> u64 {
        self.lines.keys().next_back().copied().unwrap_or_default()
    }

    /// What `verify` says of them, duplicates left out. None may be missing.
    pub fn whole(&self) -> Whole {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for line in self.lines.values() {
            writeln!(file, "{line}").unwrap();
        }
        match verify(&[Input::File(file.path().to_owned())], Demand::Usual).unwrap() {
            Verdict::Whole(whole) => whole,
            other => panic!("{other:?}"),
        }
    }
}
