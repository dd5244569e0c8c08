//! `rosentry doctor`.

use std::{
    collections::BTreeMap,
    os::unix::net::UnixListener,
    process::{Command, Output},
};

use serde_json::Value;

use super::{
    containerd::Containerd,
    leftovers::Machine,
    run::{by_nobody, complained, plain, rosentry, said, with_closed_pipe},
};

const CHECKS: [&str; 11] = [
    "kernel",
    "btf",
    "lockdown",
    "capabilities",
    "tracefs",
    "cgroup2",
    "host_pids",
    "containerd",
    "hooks",
    "ia32",
    "io_uring",
];
const NO_SOCKET: &str = "/nonexistent/containerd.sock";

/// A report in its JSON form.
struct Report {
    json: Value,
    exit: Option<i32>,
}

impl Report {
    fn of(output: &Output) -> Self {
        assert_eq!(complained(output), "", "a report is no complaint");
        Self { json: serde_json::from_str(&said(output)).unwrap(), exit: output.status.code() }
    }

    fn with_socket(socket: &str) -> Self {
        Self::of(&rosentry(&["doctor", "--format", "json", "--containerd-socket", socket]).output().unwrap())
    }

    fn checks(&self) -> BTreeMap<&str, &Value> {
        let checks = self.json["checks"].as_array().unwrap();
        checks.iter().map(|check| (check["name"].as_str().unwrap(), check)).collect()
    }

    fn status_of(&self, name: &str) -> &str {
        self.checks()[name]["status"].as_str().unwrap()
    }
}

/// What the checks other than that of containerd come to.
fn worst_but_containerd(report: &Report) -> &'static str {
    let statuses: Vec<_> =
        CHECKS.iter().filter(|name| **name != "containerd").map(|name| report.status_of(name)).collect();
    ["missing", "degraded", "ok"].into_iter().find(|status| statuses.contains(status)).unwrap()
}

#[test]
fn every_check_says_what_was_found_and_what_mends_it() {
    let report = Report::with_socket(NO_SOCKET);
    let checks = report.checks();
    assert_eq!(checks.len(), CHECKS.len());
    for name in CHECKS {
        let check = checks[name];
        assert!(!check["found"].as_str().unwrap().is_empty(), "{name}");
        let is_ok = report.status_of(name) == "ok";
        assert_eq!(check["mend"].is_null(), is_ok, "what is not ok can be mended: {check}");
    }
}

#[test]
fn this_kernel_takes_the_programs_and_every_surface_is_told() {
    let report = Report::with_socket(NO_SOCKET);
    assert_eq!(report.status_of("hooks"), "ok");
    let found = report.checks()["hooks"]["found"].as_str().unwrap();
    assert!(found.contains("tracepoint") && found.contains("instructions verified"), "{found}");
    let coverage = report.json["coverage"].as_object().unwrap();
    for surface in ["cgroups", "writes_x86_64", "writes_ia32", "mounts_x86_64", "mounts_ia32"] {
        assert_eq!(coverage[surface], true, "{surface}");
    }
    assert!(coverage.contains_key("writes_io_uring"));
    let limits = ["kernel_paths", "kernel_paths_of_attributes", "paths_of_handles", "writes_io_uring_hidden"];
    for limit in limits {
        assert!(coverage.contains_key(limit), "{limit}");
    }
    // In no mode.
    assert_eq!(
        (&coverage["kernel_paths_of_attributes"], &coverage["writes_io_uring_hidden"]),
        (&false.into(), &false.into())
    );
}

#[test]
fn each_operation_is_told_with_what_serves_it() {
    let report = Report::with_socket(NO_SOCKET);
    let hooks = report.json["hooks"].as_array().unwrap();
    let serves = |surface: &str, operation: &str| {
        hooks.iter().any(|row| row["surface"] == surface && row["operation"] == operation && row["point"].is_string())
    };
    for operation in ["open", "mkdir", "rename", "setxattr", "setflags"] {
        assert!(serves("writes_x86_64", operation) && serves("writes_ia32", operation), "{operation}: {hooks:?}");
    }
    for operation in ["mount", "move_mount", "pivot_root"] {
        assert!(serves("mounts_x86_64", operation) && serves("mounts_ia32", operation), "{operation}: {hooks:?}");
    }
    let text = said(&rosentry(&["doctor", "--containerd-socket", NO_SOCKET]).output().unwrap());
    let line = text.lines().find(|line| line.starts_with("mkdir ")).unwrap();
    assert!(line.contains(hooks.iter().find(|row| row["operation"] == "mkdir").unwrap()["point"].as_str().unwrap()));
}

#[test]
fn a_node_with_containerd_is_told_its_version() {
    let containerd = Containerd::start();
    let report = Report::with_socket(containerd.socket().to_str().unwrap());
    assert_eq!(report.status_of("containerd"), "ok");
    let found = report.checks()["containerd"]["found"].as_str().unwrap();
    assert!(found.contains("version ") && found.contains(containerd.socket().to_str().unwrap()), "{found}");
    // The machine of the test need not allow everything.
    let (status, exit) = match worst_but_containerd(&report) {
        "ok" => ("ok", 0),
        "degraded" => ("degraded", 1),
        _ => ("cannot_run", 2),
    };
    assert_eq!((report.json["status"].as_str(), report.exit), (Some(status), Some(exit)));
}

#[test]
fn a_node_without_containerd_is_degraded() {
    let report = Report::with_socket(NO_SOCKET);
    assert_eq!(report.status_of("containerd"), "degraded");
    assert_eq!((report.json["status"].as_str(), report.exit), (Some("degraded"), Some(1)));
    assert!(report.checks()["containerd"]["mend"].as_str().unwrap().contains("--containerd-socket"));
}

#[test]
fn a_socket_of_something_else_than_containerd_keeps_rosentry_from_running() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("other.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // Ends with the test.
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = std::io::Write::write_all(&mut client, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let report = Report::with_socket(socket.to_str().unwrap());
    assert_eq!(report.status_of("containerd"), "missing");
    assert_eq!((report.json["status"].as_str(), report.exit), (Some("cannot_run"), Some(2)));
}

#[test]
fn who_is_not_root_gets_the_report_with_the_capabilities_that_are_missing() {
    let (mut doctor, _folder) = by_nobody(&["doctor", "--format", "json"]);
    let report = Report::of(&doctor.output().unwrap());
    assert_eq!((report.json["status"].as_str(), report.exit), (Some("cannot_run"), Some(2)));
    let found = report.checks()["capabilities"]["found"].as_str().unwrap();
    assert!(found.contains("CAP_BPF") && found.contains("CAP_PERFMON"), "{found}");
    assert_eq!(report.status_of("hooks"), "missing");
    let coverage = report.json["coverage"].as_object().unwrap();
    assert!(!coverage.is_empty() && coverage.values().all(|seen| seen == false), "{coverage:?}");
}

#[test]
fn a_kernel_without_btf_is_told_so() {
    let mut doctor = Command::new("unshare");
    let script = "mount -t tmpfs hidden /sys/kernel/btf && exec \"$0\" doctor --format json";
    doctor.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_rosentry")]);
    plain(&mut doctor);
    let report = Report::of(&doctor.output().unwrap());
    assert_eq!((report.status_of("btf"), report.exit), ("missing", Some(2)));
    assert!(report.checks()["btf"]["mend"].as_str().unwrap().contains("CONFIG_DEBUG_INFO_BTF"));
}

#[test]
fn a_proc_without_the_nodes_processes_is_told() {
    let empty = tempfile::tempdir().unwrap();
    let arguments = ["doctor", "--format", "json", "--host-proc", empty.path().to_str().unwrap()];
    let report = Report::of(&rosentry(&arguments).output().unwrap());
    assert_eq!(report.status_of("host_pids"), "degraded");
}

#[test]
fn the_table_names_every_check_and_fits_a_narrow_terminal() {
    for width in [60, 80, 160] {
        let output = rosentry(&["doctor"]).env("COLUMNS", width.to_string()).output().unwrap();
        let text = said(&output);
        for name in CHECKS {
            assert!(text.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} in\n{text}");
        }
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert!(!text.contains('\x1b'), "no colours in a pipe");
    }
}

#[test]
fn nothing_is_left_behind_be_it_read_or_not() {
    let doctor = || rosentry(&["doctor", "--containerd-socket", NO_SOCKET]);
    // Again where the programs were not seen, which came and went between two looks.
    let seen = (0..20).any(|_| {
        let machine = Machine::watched();
        assert_eq!(doctor().output().unwrap().status.code(), Some(1));
        machine.has_nothing_more()
    });
    assert!(seen, "doctor tries whether the kernel takes the programs");
    let machine = Machine::watched();
    let (status, complained) = with_closed_pipe(doctor());
    assert_eq!((status.code(), complained.as_str()), (Some(1), ""));
    machine.has_nothing_more();
}
