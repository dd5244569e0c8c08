//! What attempts and events take in memory, about: their bounds are in bytes, for the paths and arguments in one can be a
//! hundred times as long as those in another.

use crate::{
    finding::{
        Event,
        event::{AgentNote, AgentValue, File, Mount, Process},
    },
    kernel::attempt::{Attempt, PassedPath, PathBase, Walk},
};

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

/// What an event takes; its container is shared with others.
pub fn of_event(event: &Event) -> usize {
    let Event { hint, file, mount, process, cgroup, agent, attack, .. } = event;
    size_of_val(event)
        + size_of_val(attack.as_slice())
        + of_bytes(hint)
        + file.as_ref().map_or(0, of_file)
        + mount.as_ref().map_or(0, of_mount)
        + process.as_ref().map_or(0, of_process)
        + cgroup.as_ref().and_then(|cgroup| cgroup.path.as_ref()).map_or(0, String::capacity)
        + agent.as_ref().map_or(0, of_note)
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

fn of_file(file: &File) -> usize {
    let File { path, requested, flags, new_path, link_target, xattr, .. } = file;
    [path, requested, new_path, link_target, xattr].into_iter().map(of_bytes).sum::<usize>() + of_names(flags)
}

fn of_mount(mount: &Mount) -> usize {
    match mount {
        Mount::Place(place) => of_bytes(&place.point) + of_bytes(&place.fstype),
        Mount::Attempt(attempt) => {
            let texts = [&attempt.target, &attempt.requested, &attempt.source, &attempt.fstype, &attempt.options];
            texts.into_iter().map(of_bytes).sum::<usize>() + of_names(&attempt.flags)
        }
        Mount::Seal { breach, .. } => breach.point.capacity() + breach.fstype.capacity(),
    }
}

fn of_process(process: &Process) -> usize {
    let Process { comm, exe, args, cwd, ancestors, .. } = process;
    let above =
        |above: &crate::finding::event::Ancestor| size_of_val(above) + above.comm.capacity() + of_bytes(&above.exe);
    comm.capacity() + of_bytes(exe) + of_all(args) + of_bytes(cwd) + ancestors.iter().map(above).sum::<usize>()
}

fn of_note(note: &AgentNote) -> usize {
    let value = |detail: &(&'static str, AgentValue)| {
        let text = match &detail.1 {
            AgentValue::Text(text) => text.capacity(),
            AgentValue::Number(_) | AgentValue::Flag(_) => 0,
            AgentValue::List(list) => of_names(list),
            AgentValue::Counts(counts) => counts.iter().map(|(of, count)| of.capacity() + size_of_val(count)).sum(),
        };
        size_of_val(detail) + text
    };
    note.details.iter().map(value).sum()
}

fn of_bytes(bytes: &Option<Vec<u8>>) -> usize {
    bytes.as_ref().map_or(0, Vec::capacity)
}

fn of_all(texts: &[Vec<u8>]) -> usize {
    texts.iter().map(|text| size_of_val(text) + text.capacity()).sum()
}

fn of_names(names: &[String]) -> usize {
    names.iter().map(|name| size_of_val(name) + name.capacity()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::testing::{remount, start, touch},
        finding::testing::attempt,
    };

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

    #[test]
    fn each_path_and_argument_of_an_event_counts() {
        let lengthened: [fn(&mut Event, Vec<u8>); 6] = [
            |event, text| event.file.as_mut().unwrap().path = Some(text),
            |event, text| event.file.as_mut().unwrap().new_path = Some(text),
            |event, text| event.process.as_mut().unwrap().args.push(text),
            |event, text| event.process.as_mut().unwrap().cwd = Some(text),
            |event, text| event.process.as_mut().unwrap().ancestors[0].exe = Some(text),
            |event, text| event.mount.clone_from(&options(text)),
        ];
        for (number, lengthen) in lengthened.iter().enumerate() {
            let mut long = touch();
            lengthen(&mut long, vec![b'x'; 4096]);
            assert!(of_event(&long) >= of_event(&touch()) + 4000, "{number}");
        }
        assert!(of_event(&start()) > size_of::<Event>());
    }

    fn options(text: Vec<u8>) -> Option<Mount> {
        let mut mount = remount().mount;
        if let Some(Mount::Attempt(attempt)) = &mut mount {
            attempt.options = Some(text);
        }
        mount
    }
}
