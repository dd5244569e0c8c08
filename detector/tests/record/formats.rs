//! Records in other formats: they go on, are verified, and a change of one is found, as in the native one.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use detector::export::{format::Format, sinks::SinksConfig};

use super::feeder::{Feeder, config};

fn verify(file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rosentry")).arg("verify").arg(file).output().unwrap()
}

fn feed(folder: &Path, format: Format, events: u64) {
    let mut feeder = Feeder::start(SinksConfig { format, ..config(folder) });
    feeder.put_all(events);
    feeder.close();
}

#[test]
fn a_record_goes_on_in_another_format_and_its_chain_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    for format in [Format::Ecs, Format::Ecs, Format::Ocsf, Format::Native, Format::Ecs] {
        feed(folder.path(), format, 3);
    }
    let text = fs::read_to_string(&file).unwrap();
    let begins =
        |line: &str| [r#"{"@timestamp""#, r#"{"activity_id""#, r#"{"schema""#].map(|with| line.starts_with(with));
    let count = |which: usize| text.lines().filter(|line| begins(line)[which]).count();
    assert_eq!([count(0), count(1), count(2)], [9, 3, 3]);
    let output = verify(&file);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("15 lines in 1 file"), "{said}");
}

#[test]
fn what_stands_around_a_native_line_is_said_to_be_no_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    feed(folder.path(), Format::Ecs, 3);
    let text = fs::read_to_string(&file).unwrap();
    let changed = text.replacen(r#""outcome":"unknown""#, r#""outcome":"success""#, 1);
    assert!(changed != text);
    fs::write(&file, changed).unwrap();
    let output = verify(&file);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.starts_with("every native line is as it was written: 3 lines"), "{said}");
    assert!(said.contains("3 lines of ECS or OCSF") && said.contains("are no evidence"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    feed(folder.path(), Format::Native, 3);
    let said = String::from_utf8(verify(&folder.path().join("events.json")).stdout).unwrap();
    assert!(said.starts_with("every line is as it was written: 3 lines") && !said.contains("evidence"), "{said}");
}

#[test]
fn a_change_of_what_a_line_carries_is_found() {
    for format in [Format::Ecs, Format::Ocsf] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events.json");
        feed(folder.path(), format, 5);
        let text = fs::read_to_string(&file).unwrap();
        let third = text.lines().nth(2).unwrap();
        let changed = third.replace(r#"\"number\":3"#, r#"\"number\":4"#);
        assert_ne!(changed, third);
        fs::write(&file, text.replace(third, &changed)).unwrap();
        let output = verify(&file);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("events.json") && said.contains('3'), "{said}");
    }
}

#[test]
fn half_a_line_of_a_killed_agent_is_taken_away_in_every_format() {
    for format in [Format::Ecs, Format::Ocsf] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events.json");
        feed(folder.path(), format, 2);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 40]).unwrap();
        feed(folder.path(), format, 2);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 3, "{format:?}");
        assert!(verify(&file).status.success(), "{text}");
    }
}
