//! Techniques of MITRE ATT&CK for Enterprise, by what was tried. Only where what was tried *is* the technique, not where it
//! could be part of one: an application that writes to `/tmp` carries none.

use detector_common::operation::Operation;

use super::paths::{components, is_at_or_below};

/// One rule. It fits where the operation is among its own, and one of its lists fits or all of them are empty.
struct Rule {
    technique: &'static str,
    operations: &'static [Operation],
    /// Folders and files, absolute.
    below: &'static [&'static str],
    /// Ends of the path, whole components.
    ending: &'static [&'static str],
    /// Names of programs.
    programs: &'static [&'static str],
}

const NEW_CONTENT: &[Operation] =
    &[Operation::Open, Operation::Rename, Operation::Link, Operation::Symlink, Operation::Truncate];

const NONE: Rule = Rule { technique: "", operations: NEW_CONTENT, below: &[], ending: &[], programs: &[] };

const RULES: &[Rule] = &[
    // Ingress Tool Transfer: a program whose one purpose is to fetch writes a file.
    Rule {
        technique: "T1105",
        operations: &[Operation::Open],
        programs: &["curl", "wget", "scp", "sftp", "ftp", "tftp", "aria2c"],
        ..NONE
    },
    // Linux File and Directory Permissions Modification.
    Rule { technique: "T1222.002", operations: &[Operation::Chmod, Operation::Chown, Operation::Setflags], ..NONE },
    // SSH Authorized Keys.
    Rule { technique: "T1098.004", ending: &["/.ssh/authorized_keys", "/.ssh/authorized_keys2"], ..NONE },
    // Create Local Account.
    Rule { technique: "T1136.001", below: &["/etc/passwd", "/etc/shadow"], ..NONE },
    // Sudo and Sudo Caching.
    Rule { technique: "T1548.003", below: &["/etc/sudoers", "/etc/sudoers.d"], ..NONE },
    // Pluggable Authentication Modules.
    Rule { technique: "T1556.003", below: &["/etc/pam.d"], ..NONE },
    // Cron.
    Rule {
        technique: "T1053.003",
        below: &["/etc/crontab", "/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/var/spool/cron"],
        ..NONE
    },
    // Dynamic Linker Hijacking.
    Rule { technique: "T1574.006", below: &["/etc/ld.so.preload"], ..NONE },
    // Unix Shell Configuration Modification.
    Rule {
        technique: "T1546.004",
        below: &["/etc/profile", "/etc/profile.d", "/etc/bash.bashrc"],
        ending: &["/.bashrc", "/.bash_profile", "/.profile", "/.zshrc"],
        ..NONE
    },
    // Systemd Service.
    Rule { technique: "T1543.002", below: &["/etc/systemd/system"], ..NONE },
    // Clear Linux or Mac System Logs.
    Rule {
        technique: "T1070.002",
        operations: &[Operation::Unlink, Operation::Truncate],
        below: &["/var/log"],
        ..NONE
    },
    // Clear Command History.
    Rule {
        technique: "T1070.003",
        operations: &[Operation::Unlink, Operation::Truncate],
        ending: &["/.bash_history", "/.ash_history", "/.zsh_history"],
        ..NONE
    },
    // Escape to Host.
    Rule {
        technique: "T1611",
        operations: &[Operation::Open],
        below: &["/proc/sys/kernel/core_pattern"],
        ending: &["/release_agent"],
        ..NONE
    },
];

/// The techniques that a write fits; `setuid`: it would set the set-user-id or set-group-id bit.
pub fn of_write(operation: Operation, path: Option<&[u8]>, programs: &[&[u8]], setuid: bool) -> Vec<&'static str> {
    let fits = |rule: &&Rule| {
        let everywhere = rule.below.is_empty() && rule.ending.is_empty() && rule.programs.is_empty();
        let by_program = rule.programs.iter().any(|program| programs.contains(&program.as_bytes()));
        let by_path = path.is_some_and(|path| {
            rule.below.iter().any(|folder| is_at_or_below(path, folder.as_bytes()))
                || rule.ending.iter().any(|ending| path.ends_with(ending.as_bytes()))
        });
        rule.operations.contains(&operation) && (everywhere || by_program || by_path)
    };
    let mut techniques: Vec<_> = RULES.iter().filter(fits).map(|rule| rule.technique).collect();
    if setuid && operation == Operation::Chmod {
        // Setuid and Setgid.
        techniques.push("T1548.001");
    }
    techniques
}

/// The techniques that a mount attempt in a container fits.
pub fn of_mount(
    operation: Operation,
    target: Option<&[u8]>,
    source: Option<&[u8]>,
    fstype: Option<&[u8]>,
    unseals: bool,
) -> Vec<&'static str> {
    let mut techniques = Vec::new();
    if unseals {
        // Impair Defenses.
        techniques.push("T1562");
    }
    // Escape to Host: a disk of the node, or the first cgroup hierarchy, whose release_agent the node executes.
    let disk = source.is_some_and(|source| is_at_or_below(source, b"/dev") && source != b"/dev");
    if operation == Operation::Mount && (disk || fstype == Some(b"cgroup")) {
        techniques.push("T1611");
    }
    // Bind Mounts: the process behind /proc/<pid> is hidden.
    if operation == Operation::BindMount && target.is_some_and(is_process_folder) {
        techniques.push("T1564.013");
    }
    techniques
}

fn is_process_folder(path: &[u8]) -> bool {
    let mut parts = components(path);
    parts.next() == Some(b"proc") && parts.next().is_some_and(|pid| pid.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(operation: Operation, path: &str, program: &str) -> Vec<&'static str> {
        of_write(operation, Some(path.as_bytes()), &[program.as_bytes()], false)
    }

    #[test]
    fn an_ordinary_write_carries_no_technique() {
        assert!(write(Operation::Open, "/tmp/x", "touch").is_empty());
        assert!(write(Operation::Mkdir, "/var/cache/nginx", "nginx").is_empty());
        assert!(write(Operation::Unlink, "/etc/passwd.bak", "rm").is_empty());
    }

    #[test]
    fn a_download_is_an_ingress_tool_transfer() {
        assert_eq!(write(Operation::Open, "/tmp/x", "wget"), ["T1105"]);
    }

    #[test]
    fn accounts_keys_and_preloads_are_told_by_their_paths() {
        assert_eq!(write(Operation::Open, "/etc/passwd", "sh"), ["T1136.001"]);
        assert_eq!(write(Operation::Open, "/root/.ssh/authorized_keys", "sh"), ["T1098.004"]);
        assert_eq!(write(Operation::Open, "/etc/ld.so.preload", "sh"), ["T1574.006"]);
        assert_eq!(write(Operation::Unlink, "/var/log/wtmp", "sh"), ["T1070.002"]);
    }

    #[test]
    fn a_set_user_id_bit_is_told_beside_the_change_of_mode() {
        assert_eq!(of_write(Operation::Chmod, None, &[], true), ["T1222.002", "T1548.001"]);
        assert_eq!(of_write(Operation::Mkdir, None, &[], true), [""; 0]);
    }

    #[test]
    fn a_mount_of_a_disk_of_the_node_is_an_escape() {
        let mount = |source: &str, fstype: &str| {
            of_mount(Operation::Mount, Some(b"/mnt"), Some(source.as_bytes()), Some(fstype.as_bytes()), false)
        };
        assert_eq!(mount("/dev/sda1", "ext4"), ["T1611"]);
        assert_eq!(mount("cgroup", "cgroup"), ["T1611"]);
        assert!(mount("tmpfs", "tmpfs").is_empty());
        assert_eq!(of_mount(Operation::Remount, Some(b"/"), None, None, true), ["T1562"]);
    }

    #[test]
    fn a_bind_mount_over_a_process_hides_it() {
        let bind = |target: &[u8]| of_mount(Operation::BindMount, Some(target), Some(b"/data"), None, false);
        assert_eq!(bind(b"/proc/4711"), ["T1564.013"]);
        assert!(bind(b"/proc/sys").is_empty());
    }
}
