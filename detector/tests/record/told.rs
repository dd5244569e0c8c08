//! What the commands that read records are given, and what they told.

use std::process::Output;

/// A break-in, as an agent recorded it.
pub const RECORD: &str = include_str!("../data/intrusion.json");

/// Exit code, stdout and stderr.
pub fn told(output: Output) -> (i32, String, String) {
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), said, complained)
}
