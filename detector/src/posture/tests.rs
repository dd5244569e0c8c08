//! Tests of [`super`], over a mount table as a container of CRI has it.

use std::sync::Arc;

use super::*;
use crate::{
    agent::mountinfo::parse_all,
    finding::{
        event::Effect,
        testing::{sealed, unsealed},
    },
    identity::model::SpecMount,
};

/// A sealed container with a memory emptyDir at /cache, a folder of the node at /run/node and one of the node's own tmpfs at
/// /node-run, as Linux 6.18 tells it.
const TABLE: &str = "\
97 61 0:50 / / ro,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
98 97 0:52 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
99 97 0:53 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
100 99 0:54 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5
102 97 0:22 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs rw
113 97 0:60 / /cache rw,relatime - tmpfs tmpfs rw,size=1024k
114 97 8:1 /srv /run/node rw,relatime - ext4 /dev/sda1 rw
115 97 0:24 /app /node-run rw,relatime - tmpfs tmpfs rw
116 97 0:61 / /etc/app ro,relatime - tmpfs tmpfs rw
";

fn container(readonly: bool) -> Container {
    let bind = |destination: &str, kind: &str, name: &str| {
        Arc::new(SpecMount {
            destination: destination.to_owned(),
            fstype: Some("bind".to_owned()),
            source: Some(format!("/{name}").as_str().into()),
            readonly: false,
            volume: Some(Volume { kind: kind.to_owned(), name: name.to_owned() }),
        })
    };
    let mut container = if readonly { (*sealed()).clone() } else { unsealed() };
    container.mounts.truncate(3);
    container.mounts.extend([
        bind("/cache", "emptydir", "cache"),
        bind("/var/run/node", "host_path", "/srv"),
        bind("/node-run", "host_path", "/run/app"),
    ]);
    container
}

fn seen_in(table: &str, readonly: bool) -> Seen {
    let (container, mounts) = (container(readonly), parse_all(table.as_bytes()));
    let mut seen = Seen::of(&container, &mounts, Some(false)).unwrap();
    seen.judge(&container, &mounts);
    seen
}

fn points(seen: &Seen) -> Vec<(String, Option<&str>)> {
    let point = |mount: &Writable| String::from_utf8(mount.point.clone()).unwrap();
    seen.writable.iter().map(|mount| (point(mount), mount.declared.as_deref())).collect()
}

#[test]
fn writable_mounts_are_told_with_what_they_were_declared_as_and_the_kernel_s_own_are_not() {
    let seen = seen_in(TABLE, true);
    assert!(seen.is_sealed());
    let pair = |point: &str, declared| (point.to_owned(), Some(declared));
    assert_eq!(
        points(&seen),
        [
            pair("/cache", "/cache"),
            pair("/dev", "/dev"),
            pair("/node-run", "/node-run"),
            pair("/run/node", "/var/run/node")
        ]
    );
    assert_eq!((seen.beyond, seen.root_fstype.as_slice()), (0, b"overlay".as_slice()));
}

#[test]
fn a_root_is_told_as_it_is_and_not_as_it_was_declared() {
    let writable = TABLE.replacen("/ / ro,", "/ / rw,", 1);
    let broken = seen_in(&writable, true);
    assert!(!broken.root_readonly && !broken.is_sealed());
    assert_eq!(broken.breaches[0].effect, Effect::Unseal);
    let undeclared = seen_in(TABLE, false);
    assert!(undeclared.is_sealed(), "it is read-only all the same");
    assert!(seen_in(&writable, false).breaches.is_empty(), "nothing was promised");
}

#[test]
fn a_mount_over_a_part_of_the_root_is_a_breach_and_is_told_as_undeclared() {
    let seen = seen_in(&format!("{TABLE}130 97 0:70 / /usr rw,relatime - tmpfs scratch rw\n"), true);
    assert!(seen.root_readonly && !seen.is_sealed());
    assert_eq!(seen.breaches[0].effect, Effect::Shadow);
    assert!(points(&seen).contains(&("/usr".to_owned(), None)));
}

#[test]
fn a_mount_under_another_at_the_same_point_is_not_told() {
    let seen = seen_in(&format!("{TABLE}131 113 0:71 / /cache ro,relatime - tmpfs tmpfs ro\n"), true);
    assert!(!points(&seen).iter().any(|(point, _)| point == "/cache"), "what can be reached there is read-only");
}

#[test]
fn however_many_mounts_a_container_makes_a_bounded_number_is_told() {
    let many = (0..1000).map(|number| format!("{} 97 0:{number} / /a/{number} rw - tmpfs tmpfs rw\n", number + 200));
    let seen = seen_in(&many.fold(TABLE.to_owned(), |table, line| table + &line), false);
    assert_eq!((seen.writable.len(), seen.beyond), (WRITABLE_MAX, 1000 + 4 - WRITABLE_MAX));
    assert!(seen.writable.iter().any(|mount| mount.point == b"/cache"), "what it was given is not crowded out");
    assert!(seen.writable.is_sorted_by_key(|mount| &mount.point));
}

#[test]
fn memory_counts_as_the_containers_where_the_specification_gave_it_and_not_where_it_is_the_nodes() {
    let mut seen = seen_in(TABLE, true);
    let memory = Memory { size_bytes: 1 << 20, used_bytes: Some(4096) };
    seen.writable.iter_mut().filter(|mount| mount.is_tmpfs()).for_each(|mount| mount.memory = Some(memory));
    let told: Vec<_> = seen.writable.iter().filter_map(Writable::declared_memory).collect();
    assert_eq!(told, [("/cache", memory), ("/dev", memory)]);
}

#[test]
fn who_keeps_what_was_seen_keeps_the_memory_and_the_number_of_the_others() {
    let mut seen = seen_in(TABLE, true);
    let memory = Memory { size_bytes: 1 << 20, used_bytes: Some(4096) };
    seen.writable.iter_mut().filter(|mount| mount.is_tmpfs()).for_each(|mount| mount.memory = Some(memory));
    let counted = seen.clone().counted();
    assert!(counted.writable.len() < seen.writable.len());
    assert_eq!(counted.writable.len() + counted.beyond, seen.writable.len() + seen.beyond);
    let told = |seen: &Seen| {
        let told = seen.writable.iter().filter_map(Writable::declared_memory);
        told.map(|(point, memory)| (point.to_owned(), memory)).collect::<Vec<_>>()
    };
    assert_eq!(told(&counted), told(&seen));
}

#[test]
fn a_tmpfs_behind_a_filesystem_that_may_not_answer_is_told_and_not_asked() {
    let table = format!(
        "{TABLE}140 97 0:80 / /mnt rw - fuse.sshfs x rw\n141 140 0:81 / /mnt/cache rw - tmpfs tmpfs rw\n142 143 0:82 / /a rw - tmpfs \
         x rw\n143 142 0:83 / /b rw - tmpfs x rw\n"
    );
    let seen = seen_in(&table, false);
    let near = |point: &[u8]| seen.writable.iter().find(|mount| mount.point == point).unwrap().near;
    assert!(near(b"/cache") && near(b"/dev"));
    assert!(!near(b"/mnt/cache") && !near(b"/a"), "a table that leads nowhere is no way");
}

#[test]
fn a_table_without_a_root_tells_nothing() {
    assert_eq!(Seen::of(&container(true), &parse_all(b"1 0 0:1 / /x rw - tmpfs tmpfs rw\n"), None), None);
}

impl Writable {
    /// For the tests of other rooms: as if somebody had asked how full it is.
    pub(crate) fn fill(&mut self, memory: Memory) {
        self.memory = Some(memory);
    }
}

/// For the tests of other rooms: the container as it is told above, with its memory in use.
pub(crate) fn seen() -> Seen {
    let mut seen = seen_in(TABLE, true);
    seen.cap_sys_admin = Some(true);
    for mount in seen.writable.iter_mut().filter(|mount| mount.is_tmpfs()) {
        mount.memory = Some(Memory { size_bytes: 1 << 20, used_bytes: Some(4096) });
    }
    seen
}
