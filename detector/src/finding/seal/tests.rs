//! Tests of [`super`], over mount tables as containers of CRI have them.

use std::sync::Arc;

use super::*;
use crate::{
    agent::mountinfo::parse_all,
    finding::{
        event::Severity,
        testing::{attempt, judged, sealed},
    },
    identity::model::Volume,
};

/// Of a privileged CRI container on Linux 6.18 (containerd 1.6.20, runc 1.1.5) with a volume at /data and one at /settings,
/// which is a link to /etc in its image. Options of the overlay and most cgroups are left out.
const TABLE: &str = "\
97 61 0:50 / / ro,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w,uuid=on
98 97 0:52 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
99 97 0:53 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
100 99 0:54 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
101 99 0:43 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw
102 97 0:22 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs rw
103 102 0:55 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
104 103 0:29 /kubepods /sys/fs/cgroup/cpu ro,nosuid,nodev,noexec,relatime master:10 - cgroup cgroup rw,cpu
113 97 0:39 /volume /data rw,relatime - tmpfs tmpfs rw
114 97 0:39 /volume /etc rw,relatime - tmpfs tmpfs rw
115 114 0:39 /sandboxes/f550/hostname /etc/hostname ro,relatime - tmpfs tmpfs rw
116 114 0:39 /sandboxes/f550/hosts /etc/hosts ro,relatime - tmpfs tmpfs rw
118 99 0:40 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
";

const SCRATCH: &str = "130 97 0:60 / /usr rw,relatime - tmpfs scratch rw\n";

fn container() -> Container {
    let bind = |destination: &str, source: &str| {
        Arc::new(SpecMount {
            destination: destination.to_owned(),
            fstype: Some("bind".to_owned()),
            source: Some(source.into()),
            readonly: false,
            volume: Some(Volume { kind: "host_path".to_owned(), name: source.to_owned() }),
        })
    };
    let mut container = (*sealed()).clone();
    container.mounts.truncate(3);
    container.mounts.extend([bind("/data", "/srv/volume"), bind("/settings", "/srv/volume")]);
    container
}

fn table(text: &str) -> Vec<MountInfo> {
    parse_all(text.as_bytes())
}

/// The seal after looks at these tables, and what the last one showed.
fn after(looks: &[(&str, Stage)]) -> Looked {
    let mut seal = Seal::default();
    let mut last = Looked::default();
    for (time, (text, stage)) in (1..).zip(looks) {
        last = seal.look(&container(), &table(text), *stage, time);
    }
    last
}

fn unsealed() -> String {
    TABLE.replacen("/ / ro,", "/ / rw,", 1)
}

fn with(line: &str) -> String {
    format!("{TABLE}{line}")
}

/// The breaches that the last look found, as text.
fn told(looked: &Looked) -> Vec<String> {
    let tell = |change: &Change| {
        let Change { breach: Breach { point, fstype, effect, cause }, since_unix_ns, mended_unix_ns } = change;
        let (point, fstype) = (String::from_utf8_lossy(point), String::from_utf8_lossy(fstype));
        let cause = cause.map_or("-", Cause::name);
        let until = mended_unix_ns.map_or_else(String::new, |at| format!(" until {at}"));
        format!("{} {point} {fstype} {cause} since {since_unix_ns}{until}", effect.name())
    };
    looked.changes.iter().map(tell).collect()
}

#[test]
fn a_seal_that_holds_is_no_news() {
    for stages in [[Stage::SetUp, Stage::Program], [Stage::Program, Stage::Program]] {
        let looked = after(&stages.map(|stage| (TABLE, stage)));
        assert_eq!(looked, Looked { broken: Some(false), changes: Vec::new() });
    }
}

#[test]
fn a_remount_is_told_once_and_so_is_its_mend() {
    let unsealed = unsealed();
    let (sealed, broken) = ((TABLE, Stage::Program), (unsealed.as_str(), Stage::Program));
    let looked = after(&[sealed, broken]);
    assert_eq!((looked.broken, told(&looked)), (Some(true), vec!["unseal / overlay remount since 2".to_owned()]));
    let looked = after(&[sealed, broken, broken]);
    assert_eq!((looked.broken, told(&looked)), (Some(true), vec![]));
    let looked = after(&[sealed, broken, broken, sealed]);
    assert_eq!(
        (looked.broken, told(&looked)),
        (Some(false), vec!["unseal / overlay remount since 2 until 4".to_owned()])
    );
}

#[test]
fn a_read_only_superblock_seals_whatever_the_mount_says() {
    let sealed = unsealed().replacen("overlay overlay rw,", "overlay overlay ro,", 1);
    assert_eq!(after(&[(&sealed, Stage::Program)]).broken, Some(false));
    let looked = after(&[(&sealed, Stage::Program), (&unsealed(), Stage::Program)]);
    assert_eq!(told(&looked), ["unseal / overlay remount since 2"]);
}

#[test]
fn a_runtime_that_left_the_root_writable_is_told_when_the_program_runs() {
    let unsealed = unsealed();
    let set_up = after(&[(&unsealed, Stage::SetUp)]);
    assert_eq!(set_up, Looked::default(), "a runtime may seal the root last");
    let looked = after(&[(&unsealed, Stage::SetUp), (&unsealed, Stage::Program)]);
    assert_eq!(told(&looked), ["unseal / overlay runtime since 2"]);
    let in_time = after(&[(&unsealed, Stage::SetUp), (TABLE, Stage::SetUp), (TABLE, Stage::Program)]);
    assert_eq!(in_time, Looked { broken: Some(false), changes: Vec::new() });
}

#[test]
fn what_was_so_at_the_first_look_has_no_cause() {
    let looked = after(&[(&format!("{}{SCRATCH}", unsealed()), Stage::Program)]);
    assert_eq!(told(&looked), ["unseal / overlay - since 1", "shadow /usr tmpfs - since 1"]);
}

#[test]
fn a_writable_mount_over_the_root_is_a_breach_until_it_is_gone() {
    let scratch = with(SCRATCH);
    for stage in [Stage::SetUp, Stage::Program] {
        let looked = after(&[(TABLE, stage), (&scratch, Stage::Program)]);
        assert_eq!((looked.broken, told(&looked)), (Some(true), vec!["shadow /usr tmpfs mount since 2".to_owned()]));
    }
    let looked = after(&[(TABLE, Stage::Program), (&scratch, Stage::Program), (TABLE, Stage::Program)]);
    assert_eq!(
        (looked.broken, told(&looked)),
        (Some(false), vec!["shadow /usr tmpfs mount since 2 until 3".to_owned()])
    );
}

#[test]
fn a_mount_on_top_of_the_root_is_told_from_the_root_below() {
    let on_top = with("131 97 0:61 / / rw,relatime - tmpfs top rw\n");
    let looked = after(&[(TABLE, Stage::Program), (&on_top, Stage::Program)]);
    assert_eq!(told(&looked), ["shadow / tmpfs mount since 2"]);
    // Of another order, as old kernels keep it.
    let reversed = format!("131 97 0:61 / / rw,relatime - tmpfs top rw\n{TABLE}");
    assert_eq!(root_mount(&table(&reversed)).map(|mount| mount.id), Some(97));
}

#[test]
fn mounts_that_are_read_only_or_over_what_was_writable_are_no_breach() {
    for line in [
        "130 97 0:60 / /usr ro,relatime - tmpfs scratch rw\n",
        "130 97 0:60 / /usr rw,relatime - tmpfs scratch ro\n",
        "130 113 0:60 / /data/sub rw,relatime - tmpfs scratch rw\n",
        "130 98 0:53 /null /proc/keys rw,nosuid - tmpfs tmpfs rw\n",
        "130 99 0:60 / /dev/console rw,relatime - devpts devpts rw\n",
    ] {
        assert_eq!(after(&[(TABLE, Stage::Program), (&with(line), Stage::Program)]).broken, Some(false), "{line}");
    }
}

#[test]
fn another_writable_mount_of_the_root_s_filesystem_breaks_the_seal_wherever_it_stands() {
    for (line, told_at) in [
        ("130 99 0:50 / /dev/root rw,relatime - overlay overlay rw\n", "unseal /dev/root overlay mount since 2"),
        ("130 98 0:50 /etc /proc/fs rw,relatime - overlay overlay rw\n", "unseal /proc/fs overlay mount since 2"),
        ("130 113 0:50 / /data rw,relatime - overlay overlay rw\n", "unseal /data overlay mount since 2"),
        ("130 113 0:50 / /data/x rw,relatime - overlay overlay rw\n", "unseal /data/x overlay mount since 2"),
        ("130 97 0:50 / / rw,relatime - overlay overlay rw\n", "unseal / overlay mount since 2"),
        ("130 97 0:50 /opt /usr rw,relatime - overlay overlay rw\n", "unseal /usr overlay mount since 2"),
    ] {
        let copied = with(line);
        let looked = after(&[(TABLE, Stage::Program), (&copied, Stage::Program)]);
        assert_eq!((looked.broken, told(&looked)), (Some(true), vec![told_at.to_owned()]), "{line}");
        let mended = after(&[(TABLE, Stage::Program), (&copied, Stage::Program), (TABLE, Stage::Program)]);
        assert_eq!((mended.broken, mended.changes.len()), (Some(false), 1), "{line}");
    }
}

#[test]
fn a_read_only_copy_of_the_root_that_is_remounted_writable_breaks_the_seal() {
    let copy = |access| with(&format!("130 99 0:50 / /dev/root {access},relatime - overlay overlay rw\n"));
    let looked = after(&[(&copy("ro"), Stage::Program), (&copy("rw"), Stage::Program)]);
    assert_eq!(told(&looked), ["unseal /dev/root overlay remount since 2"]);
}

#[test]
fn a_root_that_shares_its_filesystem_with_the_node_is_told_by_its_folder() {
    // The snapshotter "native": the root is a folder of the node's filesystem, and so are the volumes.
    let native = TABLE.replacen("0:50 / /", "8:1 /var/lib/snapshots/7 /", 1);
    let table = |line: &str| format!("{native}{line}");
    for line in [
        "130 99 8:1 /var/lib/kubelet/hosts /dev/hosts rw - ext4 /dev/sda1 rw\n",
        "130 99 8:1 /var/lib/snapshots/77 /dev/other rw - ext4 /dev/sda1 rw\n",
        // A volume that was declared, and holds all of that.
        "130 113 8:1 / /data rw - ext4 /dev/sda1 rw\n",
    ] {
        assert_eq!(after(&[(&native, Stage::Program), (&table(line), Stage::Program)]).broken, Some(false), "{line}");
    }
    for line in [
        "130 99 8:1 /var/lib/snapshots/7/etc /dev/etc rw - ext4 /dev/sda1 rw\n",
        "130 99 8:1 /var/lib /dev/node rw - ext4 /dev/sda1 rw\n",
    ] {
        assert_eq!(after(&[(&native, Stage::Program), (&table(line), Stage::Program)]).broken, Some(true), "{line}");
    }
}

#[test]
fn what_a_hostpath_brings_of_the_runtime_s_own_mounts_is_no_breach() {
    let id = "c".repeat(64);
    let brought = with(&format!("130 113 0:50 / /data/run/containerd/{id}/rootfs rw - overlay overlay rw\n"));
    for stages in [[Stage::SetUp, Stage::Program], [Stage::Program, Stage::Program]] {
        assert_eq!(after(&stages.map(|stage| (brought.as_str(), stage))).broken, Some(false));
    }
    let made_later = after(&[(TABLE, Stage::Program), (&brought, Stage::Program)]);
    assert_eq!(made_later.broken, Some(true));
}

#[test]
fn a_mount_that_has_the_id_of_a_hook_s_is_not_taken_for_it() {
    let at = "/run/persistenced/socket";
    let hook = with(&format!("130 97 0:60 /socket {at} rw,nosuid - tmpfs tmpfs rw\n"));
    let other = with(&format!("130 97 0:61 / {at} rw - tmpfs tmpfs rw\n"));
    let looked = after(&[(&hook, Stage::SetUp), (&hook, Stage::Program), (&other, Stage::Program)]);
    assert_eq!(told(&looked), [format!("shadow {at} tmpfs mount since 3")]);
    // The same of the root: it is no remount where another filesystem has the id of the former.
    let pivoted = TABLE.replacen("0:50 / / ro,", "0:70 / / rw,", 1);
    assert_eq!(
        told(&after(&[(TABLE, Stage::Program), (&pivoted, Stage::Program)])),
        ["unseal / overlay mount since 2"]
    );
}

#[test]
fn a_writable_mount_over_a_read_only_volume_is_no_breach_of_the_root() {
    let mut container = container();
    container.mounts.extend(sealed().mounts.iter().filter(|spec| spec.destination == "/etc/app").cloned());
    let scratch = with("130 97 0:60 / /etc/app rw - tmpfs scratch rw\n");
    let mut seal = Seal::default();
    seal.look(&container, &table(TABLE), Stage::Program, 1);
    let looked = seal.look(&container, &table(&scratch), Stage::Program, 2);
    assert_eq!(looked, Looked { broken: Some(false), changes: Vec::new() });
}

#[test]
fn a_read_only_path_that_does_not_exist_hides_no_mount_of_the_same_name() {
    let mut container = container();
    container.mounts.push(Arc::new(SpecMount {
        destination: "/proc/fs".to_owned(),
        fstype: Some("bind".to_owned()),
        source: None,
        readonly: true,
        volume: None,
    }));
    let scratch = with("130 97 0:60 / /usr/fs rw - tmpfs scratch rw\n");
    let looked = Seal::default().look(&container, &table(&scratch), Stage::Program, 1);
    assert_eq!(told(&looked), ["shadow /usr/fs tmpfs - since 1"]);
}

#[test]
fn a_mount_of_a_hook_is_the_runtime_s_where_it_was_seen_to_be() {
    let hook = with("130 97 0:60 /socket /run/persistenced/socket rw,nosuid - tmpfs tmpfs rw\n");
    let looked = after(&[(&hook, Stage::SetUp), (&hook, Stage::Program)]);
    assert_eq!(looked, Looked { broken: Some(false), changes: Vec::new() });
    let late = after(&[(&hook, Stage::Program)]);
    assert_eq!(told(&late), ["shadow /run/persistenced/socket tmpfs - since 1"]);
}

#[test]
fn a_declared_mount_can_t_be_moved_over_the_root_unseen() {
    // The volume of /data, taken away there and put over /usr.
    let moved = TABLE.replacen("/volume /data", "/volume /usr", 1);
    let looked = after(&[(TABLE, Stage::Program), (&moved, Stage::Program)]);
    assert_eq!(told(&looked), ["shadow /usr tmpfs mount since 2"]);
}

#[test]
fn another_root_by_pivot_root_is_told_as_another_mount() {
    let pivoted = TABLE.replacen("97 61 0:50 / / ro,", "140 61 0:70 / / rw,", 1);
    let looked = after(&[(TABLE, Stage::Program), (&pivoted, Stage::Program)]);
    assert_eq!(told(&looked), ["unseal / overlay mount since 2"]);
}

#[test]
fn of_a_root_that_is_no_mount_nothing_is_said() {
    let chrooted = TABLE.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(after(&[(&chrooted, Stage::Program)]), Looked::default());
    assert_eq!(after(&[("", Stage::Program)]), Looked::default());
    assert_eq!(after(&[(TABLE, Stage::Program), ("", Stage::Program)]), Looked::default());
}

#[test]
fn thousands_of_mounts_make_no_more_than_a_handful_of_breaches() {
    let many: String = (0..5000).map(|at| format!("{} 97 0:60 / /m/{at} rw - tmpfs x rw\n", 200 + at)).collect();
    let looked = after(&[(TABLE, Stage::Program), (&format!("{}{many}", unsealed()), Stage::Program)]);
    assert_eq!(looked.changes.len(), BREACHES_MAX);
    assert_eq!(looked.changes[0].breach.effect, Effect::Unseal);
}

#[test]
fn breaches_that_others_crowd_out_are_not_told_as_mended() {
    let mounts = |from: u64, to: u64| -> String {
        (from..to).map(|at| format!("{at} 97 0:60 / /m/{at} rw - tmpfs x rw\n")).collect()
    };
    let full = format!("{TABLE}{}", mounts(300, 316));
    // Those before them in order, and the root, come while there is room for no more.
    let crowded = format!("{}{}", unsealed(), mounts(200, 316));
    let looked = after(&[(TABLE, Stage::Program), (&full, Stage::Program), (&crowded, Stage::Program)]);
    assert_eq!(told(&looked), ["unseal / overlay remount since 3"], "the root is told in any case");
    let emptied = format!("{TABLE}{}", mounts(200, 201));
    let looked = after(&[
        (TABLE, Stage::Program),
        (&full, Stage::Program),
        (&crowded, Stage::Program),
        (&emptied, Stage::Program),
    ]);
    let mended = looked.changes.iter().filter(|change| change.mended_unix_ns.is_some()).count();
    assert_eq!((looked.broken, mended, looked.changes.len()), (Some(true), 17, 18), "what found no room is told then");
}

#[test]
fn the_event_says_how_bad_it_is_and_since_when() {
    let breach = |effect, cause| Breach { point: b"/".to_vec(), fstype: b"tmpfs".to_vec(), effect, cause };
    let told = |effect, cause, mended_unix_ns| {
        judged(event(&sealed(), Change { breach: breach(effect, cause), since_unix_ns: 1, mended_unix_ns }))
    };
    let remounted = told(Effect::Unseal, Some(Cause::Remount), None);
    assert_eq!((remounted.severity, remounted.attack.as_slice()), (Severity::Critical, ["T1562".into()].as_slice()));
    assert!(remounted.hint.is_some());
    assert_eq!(told(Effect::Unseal, Some(Cause::Runtime), None).attack, [], "nobody took the seal off");
    assert_eq!(told(Effect::Unseal, None, None).severity, Severity::Critical);
    let covered = told(Effect::Shadow, Some(Cause::Mount), None);
    assert_eq!((covered.severity, covered.attack.as_slice()), (Severity::Critical, ["T1562".into()].as_slice()));
    assert_eq!(told(Effect::Shadow, None, None).severity, Severity::High, "it may be a hook's");
    let copy = Breach { point: b"/dev/root".to_vec(), ..breach(Effect::Unseal, None) };
    let copy = judged(event(&sealed(), Change { breach: copy, since_unix_ns: 1, mended_unix_ns: None }));
    assert_eq!(copy.severity, Severity::High, "so may this");
    let mended = told(Effect::Unseal, Some(Cause::Remount), Some(9));
    assert_eq!((mended.severity, mended.first_time_unix_ns, mended.last_time_unix_ns), (Severity::Info, 1, 9));
    assert!(mended.attack.is_empty() && mended.hint.is_none());
}

#[test]
fn changes_of_a_superblock_are_told_from_changes_of_a_mount() {
    let remount = |flags| attempt("mount").arg(3, flags).path("/");
    assert!(may_change_superblock(&remount(flags::MS_REMOUNT)));
    assert!(!may_change_superblock(&remount(flags::MS_REMOUNT | flags::MS_BIND)));
    assert!(!may_change_superblock(&remount(flags::MS_REMOUNT).result(-1)));
    assert!(may_change_superblock(&attempt("fsconfig").arg(1, flags::FSCONFIG_CMD_RECONFIGURE)));
    assert!(!may_change_superblock(&attempt("fsconfig").arg(1, flags::FSCONFIG_SET_FLAG)));
    assert!(!may_change_superblock(&attempt("mkdir")));
}
