//! The mounts that a process sees, from `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::finding::{mount_flags::MountFlags, seal::MountInfo};

/// A larger mount table is not read; that of a busy node takes a tenth.
const BYTES_MAX: u64 = 8 << 20;

/// The mounts in the file; lines that are not understood are left out.
///
/// # Errors
/// Where it can't be read, or, of the kind `FileTooLarge`, not as a whole.
pub fn read(path: &Path) -> io::Result<Vec<MountInfo>> {
    read_from(&File::open(path)?)
}

/// The same of a file that is open, from where it stands.
///
/// # Errors
/// See [`read`].
pub fn read_from(file: &File) -> io::Result<Vec<MountInfo>> {
    let mut bytes = Vec::new();
    let length = file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    // What the part that is missing says nobody knows.
    if length as u64 > BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(parse_all(&bytes))
}

/// The mounts in the text of such a file.
pub fn parse_all(text: &[u8]) -> Vec<MountInfo> {
    text.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let device = fields.next()?.to_vec();
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let options = fields.next()?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fstype = unescape(fields.next()?);
    let flags = MountFlags::among_options(options, fields.nth(1)?);
    Some(MountInfo { id, parent, device, root, point, fstype, flags })
}

/// The kernel writes blanks, line ends and backslashes as `\` and three octal digits (`mangle_path`, `fs/seq_file.c`).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_optional_fields_it_has() {
        for optional in ["", "master:1 ", "shared:2 master:1 "] {
            let line = format!("36 35 98:0 /mnt1 /mnt2 rw,noatime {optional}- ext3 /dev/root rw,errors=continue");
            let mount = parse(line.as_bytes()).unwrap();
            let expected = MountInfo {
                id: 36,
                parent: 35,
                device: b"98:0".to_vec(),
                root: b"/mnt1".to_vec(),
                point: b"/mnt2".to_vec(),
                fstype: b"ext3".to_vec(),
                flags: MountFlags { mount: 8, superblock: 0 },
            };
            assert_eq!(mount, expected);
        }
    }

    #[test]
    fn names_with_blanks_come_back() {
        let mount = parse(b"1 0 0:1 / /a\\040b\\134c\\011 rw - tmpfs tmpfs rw").unwrap();
        assert_eq!(mount.point, b"/a b\\c\t");
    }

    #[test]
    fn what_is_no_line_of_the_table_is_left_out() {
        for line in [&b""[..], b"x 0 0:1 / / rw - tmpfs tmpfs rw", b"1 0 0:1 / / rw tmpfs tmpfs rw"] {
            assert_eq!(parse(line), None);
        }
    }

    #[test]
    fn a_table_that_is_too_large_is_not_read_in_part() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = "130 97 0:60 / /usr rw - tmpfs scratch rw\n";
        std::fs::write(file.path(), line.repeat((BYTES_MAX as usize).div_ceil(line.len()))).unwrap();
        assert_eq!(read(file.path()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(file.path(), line.repeat(BYTES_MAX as usize / line.len())).unwrap();
        assert_eq!(read(file.path()).unwrap().len(), BYTES_MAX as usize / line.len());
    }

    #[test]
    fn our_own_table_has_a_root() {
        assert!(read(Path::new("/proc/self/mountinfo")).unwrap().iter().any(|mount| mount.point == b"/"));
    }
}
