//! A record of any size, to measure `rosentry view` and `rosentry timeline` with: `record LINES` writes as many lines to
//! standard output as an agent would, of 40 pods that write where they must not, with a break-in now and then.
//!
//! The lines are those of a recorded break-in, with other times, pods and paths, numbered and chained anew.

use std::{
    env,
    error::Error,
    io::{self, BufWriter, Write as _},
};

use detector::export::chain::{START, close};
use jiff::Timestamp;

const RECORDED: &str = include_str!("../tests/data/intrusion.json");

/// Pods that write.
const PODS: u64 = 40;
/// So many lines apart a break-in begins.
const BREAK_INS_APART: u64 = 50_000;
/// From one line to the next: 1 000 a second.
const STEP_NS: i128 = 1_000_000;
/// 2026-01-02T03:04:05Z.
const BEGIN_NS: i128 = 1_767_323_045_000_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let lines: u64 = env::args().nth(1).unwrap_or_default().parse().map_err(|_| "usage: record LINES")?;
    let recorded: Vec<&str> = RECORDED.lines().collect();
    let (start, attempts) = (recorded[0], &recorded[2..]);
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let (mut previous, mut line) = (START.to_owned(), Vec::new());
    for number in 0..lines {
        let pod = format!("web-{:02}", number % PODS);
        let text = match number % BREAK_INS_APART {
            _ if number == 0 => start.to_owned(),
            step @ 100.. if step < 100 + attempts.len() as u64 => attempts[step as usize - 100].to_owned(),
            _ => attempts[0].replace("/tmp/kit", &format!("/tmp/cache-{}.tmp", number * 7919 % 1000)),
        };
        let time = format!("{:.9}", Timestamp::from_nanosecond(BEGIN_NS + i128::from(number) * STEP_NS)?);
        line.clear();
        write!(line, "{{\"schema\":\"rosentry/v1\",\"seq\":{},\"time\":\"{time}\"", number + 1)?;
        let after_time = text.find(",\"node\":").ok_or("a line without a node")?;
        let chain = text.rfind(",\"chain\":").ok_or("a line without a chain")?;
        let body = text[after_time..chain].replace("\"name\":\"web\"", &format!("\"name\":\"{pod}\""));
        let mut body = body.replace("\"workload\":\"web\"", &format!("\"workload\":\"{pod}\""));
        for member in ["\"first_time\":\"", "\"last_time\":\""] {
            let at = body.find(member).ok_or("a line without its times")? + member.len();
            body.replace_range(at..at + time.len(), &time);
        }
        line.write_all(body.as_bytes())?;
        previous = close(&mut line, 0, &previous);
        out.write_all(&line)?;
    }
    Ok(out.flush()?)
}
