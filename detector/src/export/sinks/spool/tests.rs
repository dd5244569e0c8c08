//! Tests of [`super`].

use std::fs::OpenOptions;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn config(folder: &TempDir) -> SpoolConfig {
    SpoolConfig { folder: folder.path().to_owned(), max_bytes: BYTES_MIN, fsync: Fsync::Never }
}

/// A line of a stream, of about so many bytes.
fn line(seq: u64, bytes: usize) -> Vec<u8> {
    let mut line =
        format!("{{\"schema\":\"rosentry/v1\",\"seq\":{seq},\"node\":\"n1\",\"x\":\"{}\"", "x".repeat(bytes))
            .into_bytes();
    crate::export::chain::close(&mut line, 0, crate::export::chain::START);
    line
}

fn seqs(reader: &mut SpoolReader) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(batch) = reader.read(10, usize::MAX).unwrap() {
        all.extend(batch.lines.iter().map(|line| End::of_line(line).unwrap().seq));
    }
    all
}

fn write(writer: &mut SpoolWriter, seqs: std::ops::RangeInclusive<u64>, bytes: usize) {
    for seq in seqs {
        let line = line(seq, bytes);
        let (taken, result) = writer.write(&line);
        result.unwrap();
        assert_eq!(taken, line.len());
    }
}

#[test]
fn what_is_not_confirmed_comes_again_after_a_restart_and_what_is_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, mut reader, end) = open(&config(&folder), "otlp").unwrap();
    assert_eq!(end, None);
    write(&mut writer, 1..=5, 10);
    let batch = reader.read(3, usize::MAX).unwrap().unwrap();
    assert_eq!(reader.confirm(batch.end), 3);
    drop((writer, reader));
    let (mut writer, mut reader, end) = open(&config(&folder), "otlp").unwrap();
    assert_eq!(end.unwrap().seq, 5);
    write(&mut writer, 6..=6, 10);
    assert_eq!(seqs(&mut reader), [4, 5, 6]);
    reader.rewind();
    let again = reader.read(10, usize::MAX).unwrap().unwrap();
    assert_eq!((again.lines.len(), again.repeated), (3, 3));
    assert_eq!((reader.confirm(again.end), reader.waiting_bytes()), (3, 0));
    assert_eq!(reader.confirm(batch.end), 0, "nothing goes back");
}

#[test]
fn a_delivered_spool_still_knows_where_its_stream_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, mut reader, _) = open(&config(&folder), "otlp").unwrap();
    write(&mut writer, 1..=60, 10_000);
    while let Some(batch) = reader.read(7, usize::MAX).unwrap() {
        reader.confirm(batch.end);
    }
    assert!(fs::read_dir(folder.path().join("otlp")).unwrap().count() <= 3, "a segment, the cursor and the lock");
    drop((writer, reader));
    assert_eq!(open(&config(&folder), "otlp").unwrap().2.unwrap().seq, 60);
}

#[test]
fn a_full_spool_takes_nothing_until_some_of_it_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, mut reader, _) = open(&config(&folder), "otlp").unwrap();
    let mut seq = 0;
    let refusal = loop {
        let (taken, result) = writer.write(&line(seq + 1, 50_000));
        match result {
            Ok(()) => seq += 1,
            Err(error) => {
                assert_eq!(taken, 0);
                break error;
            }
        }
    };
    assert_eq!(refusal.to_string(), "the spool is full");
    let on_disk = || {
        let entries = fs::read_dir(folder.path().join("otlp")).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    assert!(on_disk() <= BYTES_MIN + 20 && on_disk() > BYTES_MIN * 9 / 10, "{}", on_disk());
    let batch = reader.read(40, usize::MAX).unwrap().unwrap();
    reader.confirm(batch.end);
    write(&mut writer, seq + 1..=seq + 5, 50_000);
    reader.rewind();
    assert_eq!(seqs(&mut reader), (41..=seq + 5).collect::<Vec<_>>());
}

#[test]
fn two_agents_do_not_share_a_spool() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(&config(&folder), "otlp").unwrap();
    let error = open(&config(&folder), "otlp").err().unwrap().to_string();
    assert!(error.contains("another rosentry uses") && error.contains("--spool-dir"), "{error}");
    assert!(open(&config(&folder), "syslog").is_ok(), "two sinks have two");
}

#[test]
fn a_cursor_that_is_ahead_of_what_a_power_failure_left_is_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, mut reader, _) = open(&config(&folder), "otlp").unwrap();
    write(&mut writer, 1..=5, 10);
    let batch = reader.read(10, usize::MAX).unwrap().unwrap();
    reader.confirm(batch.end);
    drop((writer, reader));
    let segment = segment::path(&folder.path().join("otlp"), 1);
    let size = fs::metadata(&segment).unwrap().len();
    OpenOptions::new().write(true).open(&segment).unwrap().set_len(size - 10).unwrap();
    let (mut writer, mut reader, end) = open(&config(&folder), "otlp").unwrap();
    assert_eq!(end.unwrap().seq, 4);
    write(&mut writer, 5..=6, 10);
    assert_eq!(seqs(&mut reader), [5, 6]);
    drop((writer, reader));
    let (_, mut reader, _) = open(&config(&folder), "otlp").unwrap();
    assert_eq!(seqs(&mut reader), [5, 6], "nor is what came since taken for delivered after one more restart");
}

#[test]
fn a_cursor_of_segments_that_are_all_gone_is_of_none_that_come() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, mut reader, _) = open(&config(&folder), "otlp").unwrap();
    write(&mut writer, 1..=60, 10_000);
    while let Some(batch) = reader.read(7, usize::MAX).unwrap() {
        reader.confirm(batch.end);
    }
    drop((writer, reader));
    for entry in fs::read_dir(folder.path().join("otlp")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "spool") {
            fs::remove_file(path).unwrap();
        }
    }
    for lines in 1..=3 {
        let (mut writer, mut reader, end) = open(&config(&folder), "otlp").unwrap();
        assert_eq!(end.map_or(0, |end| end.seq), lines - 1);
        write(&mut writer, lines..=lines, 10);
        assert_eq!(seqs(&mut reader), (1..=lines).collect::<Vec<_>>());
    }
}

#[test]
fn a_folder_that_can_not_be_written_is_named_with_a_way_on() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("otlp"), "in the way").unwrap();
    let error = open(&config(&folder), "otlp").err().unwrap().to_string();
    assert!(error.contains("otlp") && error.contains("--spool-dir"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_crash_costs_at_most_what_was_being_written(lines in 1_u64..12, bytes in 0_usize..300, cut in any::<u64>()) {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader, _) = open(&config(&folder), "otlp").unwrap();
        write(&mut writer, 1..=lines, bytes);
        drop((writer, reader));
        let segment = segment::path(&folder.path().join("otlp"), 1);
        let size = fs::metadata(&segment).unwrap().len();
        let record = (HEADER + line(1, bytes).len() - 1) as u64;
        let left = cut % (size + 1);
        OpenOptions::new().write(true).open(&segment).unwrap().set_len(left).unwrap();
        let whole = left.saturating_sub(MAGIC.len() as u64) / (record + 1);
        let (mut writer, mut reader, end) = open(&config(&folder), "otlp").unwrap();
        let end = end.map_or(0, |end| end.seq);
        // Numbers of two digits make a line one byte longer.
        prop_assert!(end == whole || end == left.saturating_sub(MAGIC.len() as u64) / record);
        write(&mut writer, end + 1..=end + 2, bytes);
        prop_assert_eq!(seqs(&mut reader), (1..=end + 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_byte_costs_a_segment_and_no_crash(byte in any::<usize>(), to in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader, _) = open(&config(&folder), "otlp").unwrap();
        write(&mut writer, 1..=40, 20_000);
        drop((writer, reader));
        let segment = segment::path(&folder.path().join("otlp"), 2);
        let mut content = fs::read(&segment).unwrap();
        let byte = byte % content.len();
        content[byte] = to;
        fs::write(&segment, content).unwrap();
        let (_, mut reader, end) = open(&config(&folder), "otlp").unwrap();
        prop_assert_eq!(end.unwrap().seq, 40);
        let read = seqs(&mut reader);
        prop_assert!(read.is_sorted() && read.ends_with(&[40]) && read.starts_with(&[1]), "{:?}", read);
        prop_assert!(read.len() >= 27, "{:?}", read);
    }
}
