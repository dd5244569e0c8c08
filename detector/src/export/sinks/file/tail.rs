//! The end of a file that is gone on with: where its stream stands, and what a killed agent left of a line.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

use crate::export::{
    chain::End,
    format::{self, RENDERED_MAX},
};

/// Bytes that are read at once.
const STEP: usize = 64 << 10;

/// What there is at the end of a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tail {
    /// Where the stream stands; none where the file has no line of ours at its end.
    pub end: Option<End>,
    /// Bytes of an unfinished line that were taken away.
    pub cut: u64,
}

/// Makes the file end with a line's end, and says where its stream ends. Half a line of ours, as `kill -9` or a power failure
/// leave it, is taken away; half a line of somebody else's is kept, and ended.
///
/// # Errors
/// The system's.
pub fn mend(file: &File) -> io::Result<Tail> {
    let size = file.metadata()?.len();
    let (start, bytes) = last_bytes(file, size)?;
    let Some(newline) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        if bytes.is_empty() {
            return Ok(Tail::default());
        }
        // All of the file is one unfinished line, or what is read of it is longer than any of ours.
        let can_go = start == 0 && is_ours(&bytes);
        return Ok(Tail { end: None, cut: if can_go { take_away(file, size, size)? } else { end_line(file)? } });
    };
    let unfinished = &bytes[newline + 1..];
    let cut = match unfinished {
        [] => 0,
        _ if is_ours(unfinished) => take_away(file, size, unfinished.len() as u64)?,
        _ => return Ok(Tail { end: None, cut: end_line(file)? }),
    };
    let line = &bytes[..newline];
    let line = line.iter().rposition(|byte| *byte == b'\n').map_or(line, |end| &line[end + 1..]);
    Ok(Tail { end: format::end_of(line), cut })
}

/// Takes away the last bytes; of a file that can only grow, ends the line that they are. How many are gone.
fn take_away(file: &File, size: u64, bytes: u64) -> io::Result<u64> {
    if file.set_len(size - bytes).is_ok() { Ok(bytes) } else { end_line(file) }
}

/// Ends a line that stays. No bytes are gone.
fn end_line(mut file: &File) -> io::Result<u64> {
    file.write_all(b"\n")?;
    Ok(0)
}

/// Whether half a line can be one of ours; also the zeros that some filesystems leave where a power failure came before the
/// bytes.
fn is_ours(unfinished: &[u8]) -> bool {
    format::is_ours(unfinished) || (!unfinished.is_empty() && unfinished.iter().all(|byte| *byte == 0))
}

/// The last bytes of the file, as far back as two lines' ends, or two of the longest lines; and where they begin.
fn last_bytes(file: &File, size: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut start = size;
    while start > 0 && bytes.len() <= 2 * RENDERED_MAX {
        let step = start.min(STEP as u64);
        start -= step;
        let mut more = vec![0; usize::try_from(step).unwrap_or(STEP)];
        file.read_exact_at(&mut more, start)?;
        more.append(&mut bytes);
        bytes = more;
        // The end of the line before the last whole one is enough; an unfinished one may stand behind that.
        if bytes.iter().filter(|byte| **byte == b'\n').nth(1).is_some() {
            break;
        }
    }
    Ok((start, bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, path::Path};

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;
    use crate::export::{chain::LINE_MAX, native::NativeEncoder, testing::touch};

    fn lines(count: usize) -> Vec<u8> {
        let mut encoder = NativeEncoder::new("n1");
        let mut out = Vec::new();
        for _ in 0..count {
            encoder.encode(&touch(), &mut out).unwrap();
        }
        out
    }

    fn mended(path: &Path, bytes: &[u8]) -> (Tail, Vec<u8>) {
        std::fs::write(path, bytes).unwrap();
        let file = OpenOptions::new().append(true).read(true).open(path).unwrap();
        let tail = mend(&file).unwrap();
        (tail, std::fs::read(path).unwrap())
    }

    #[test]
    fn a_file_that_was_cut_anywhere_ends_with_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.json");
        let all = lines(3);
        let ends: Vec<_> = (1..=all.len()).filter(|&end| all[end - 1] == b'\n').collect();
        for length in 0..=all.len() {
            let (tail, left) = mended(&path, &all[..length]);
            let whole = ends.iter().take_while(|end| **end <= length).count();
            let expected = whole.checked_sub(1).map_or(0, |last| ends[last]);
            assert_eq!(left, all[..expected], "{length}");
            assert_eq!(tail.end.map_or(0, |end| end.seq), whole as u64, "{length}");
            assert_eq!(tail.cut, (length - expected) as u64, "{length}");
        }
    }

    #[test]
    fn zeros_of_a_power_failure_are_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let whole = lines(2);
        let (tail, left) = mended(&folder.path().join("x"), &[whole.as_slice(), &[0; 5000]].concat());
        assert_eq!((tail.end.unwrap().seq, left), (2, whole));
    }

    #[test]
    fn what_somebody_else_wrote_is_kept_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for (bytes, expected) in [
            (b"notes".to_vec(), b"notes\n".to_vec()),
            (b"a\nb".to_vec(), b"a\nb\n".to_vec()),
            (b"a\n".to_vec(), b"a\n".to_vec()),
            (vec![b'x'; 3 * LINE_MAX], [vec![b'x'; 3 * LINE_MAX], b"\n".to_vec()].concat()),
        ] {
            let (tail, left) = mended(&path, &bytes);
            assert_eq!(tail, Tail::default());
            assert!(left == expected, "{} bytes", left.len());
        }
    }

    #[test]
    fn in_a_file_that_can_only_grow_half_a_line_is_ended() {
        let whole = lines(2);
        let memory = memfd_create("events", MemfdFlags::ALLOW_SEALING).unwrap();
        let mut file = File::from(memory);
        file.write_all(&whole[..whole.len() - 5]).unwrap();
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        let tail = mend(&file).unwrap();
        assert_eq!((tail.end.unwrap().seq, tail.cut), (1, 0));
        assert_eq!(file.metadata().unwrap().len(), whole.len() as u64 - 4);
    }

    #[test]
    fn a_line_of_ours_is_found_however_long_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut encoder = NativeEncoder::new("n1");
        let mut event = touch();
        event.process.as_mut().unwrap().args = vec![vec![b'a'; LINE_MAX - 4096]];
        let mut bytes = Vec::new();
        encoder.encode(&event, &mut bytes).unwrap();
        encoder.encode(&event, &mut bytes).unwrap();
        let torn = bytes.len() - 100;
        let (tail, _) = mended(&folder.path().join("x"), &bytes[..torn]);
        assert_eq!(tail.end.unwrap().seq, 1);
    }
}
