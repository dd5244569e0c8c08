//! What attempts take in memory, about: their bounds are in bytes, for the paths and arguments in one can be a
//! hundred times as long as those in another.

use crate::kernel::attempt::{Attempt, PassedPath, PathBase, Walk};

/// What an attempt takes.
pub fn of_attempt(attempt: &Attempt) -> usize {
    let Attempt { process, path, path2, source, fstype, data, mount, .. } = attempt;
    let walks = [&process.exe, &process.cwd].into_iter().flatten().map(of_walk).sum::<usize>();
    let ancestors = process.ancestors.iter().map(|above| size_of_val(above) + above.comm.capacity()).sum::<usize>();
    let passed = [path, path2].into_iter().map(of_passed).sum::<usize>();
    size_of_val(attempt)
        + process.comm.capacity()
        + of_all(&process.args)
        + walks
        + ancestors
        + passed
        + [source, fstype, data].into_iter().map(of_bytes).sum::<usize>()
        + mount.as_ref().and_then(|mount| mount.point.as_ref()).map_or(0, of_walk)
}

fn of_walk(walk: &Walk) -> usize {
    walk.in_namespace.capacity() + of_bytes(&walk.in_root)
}

fn of_passed(passed: &PassedPath) -> usize {
    let base = match &passed.base {
        PathBase::Root(walk) | PathBase::Dirfd(walk) | PathBase::File(walk) => of_walk(walk),
        PathBase::None | PathBase::Cwd => 0,
    };
    of_bytes(&passed.requested) + base
}

fn of_bytes(bytes: &Option<Vec<u8>>) -> usize {
    bytes.as_ref().map_or(0, Vec::capacity)
}

fn of_all(texts: &[Vec<u8>]) -> usize {
    texts.iter().map(|text| size_of_val(text) + text.capacity()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::testing::attempt;

    #[test]
    fn each_path_and_argument_of_an_attempt_counts() {
        let lengthened: [fn(&mut Attempt, Vec<u8>); 8] = [
            |attempt, text| attempt.path.requested = Some(text),
            |attempt, text| attempt.path2.base = PathBase::Dirfd(Walk { in_root: Some(text), ..Walk::default() }),
            |attempt, text| attempt.process.args.push(text),
            |attempt, text| attempt.process.cwd = Some(Walk { in_namespace: text, ..Walk::default() }),
            |attempt, text| attempt.process.exe = Some(Walk { in_namespace: text, ..Walk::default() }),
            |attempt, text| attempt.source = Some(text),
            |attempt, text| attempt.fstype = Some(text),
            |attempt, text| attempt.data = Some(text),
        ];
        let short = attempt("openat");
        for (number, lengthen) in lengthened.iter().enumerate() {
            let mut long = short.clone();
            lengthen(&mut long, vec![b'x'; 4096]);
            assert!(of_attempt(&long) >= of_attempt(&short) + 4000, "{number}");
        }
    }
}
