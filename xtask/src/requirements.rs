//! What the commands need of this machine, as data: how to see that it is there, and which Debian package has it.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{process::probe, vm::machine::QEMU};

/// Which commands a requirement is for. Each needs what those before it need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// `build` and `demo`.
    Build,
    /// `lint`.
    Lint,
    /// `test`.
    Test,
    /// `test-vm`, `bench` and `setup`.
    VirtualMachine,
}

/// How to see that something is there.
#[derive(Clone, Copy, Debug)]
pub enum Probe {
    /// A program of this name on the PATH, or where root's programs are.
    Program(&'static str),
    /// A program at this path, which must run in a root filesystem that holds no libraries.
    StaticProgram(&'static str),
    /// A library that a program loads, below one of the folders that `/usr/lib` has for the machine's kind.
    Module(&'static str),
    /// A module of the Python that is on the PATH.
    PythonModule(&'static str),
}

/// One thing that the commands need.
pub struct Requirement {
    /// From which command on.
    pub need: Need,
    /// How to see it.
    pub probe: Probe,
    /// The Debian package that has it.
    pub package: &'static str,
    /// Why it is needed, to be read after "for".
    pub purpose: &'static str,
}

/// What is needed besides the kernel side's compiler and linker, which `toolchain` and `linker` know, and cargo-nextest.
pub const REQUIREMENTS: [Requirement; 15] = [
    Requirement {
        need: Need::Build,
        probe: Probe::Program("protoc"),
        package: "protobuf-compiler",
        purpose: "containerd's and the CRI's interfaces",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("containerd"),
        package: "containerd",
        purpose: "the tests with real pods",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("runc"),
        package: "runc",
        purpose: "the tests with real pods",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::StaticProgram("/bin/busybox"),
        package: "busybox-static",
        purpose: "the images of the tests",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("gcc"),
        package: "gcc",
        purpose: "the small static programs in those images",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("rsyslogd"),
        package: "rsyslog",
        purpose: "the tests of the syslog sink and of the feed to syslog",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Module("rsyslog/lmnsd_gtls.so"),
        package: "rsyslog-gnutls",
        purpose: "the tests of the syslog sink over TLS",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("chromium"),
        package: "chromium",
        purpose: "the tests of the timeline's page",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("promtool"),
        package: "prometheus",
        purpose: "the tests of rules and dashboards",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("amtool"),
        package: "prometheus-alertmanager",
        purpose: "the test of Alertmanager's example",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("kubectl"),
        package: "kubernetes-client",
        purpose: "the tests of the plain manifests",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("jq"),
        package: "jq",
        purpose: "the tests of the runbooks' commands",
    },
    Requirement {
        need: Need::Test,
        // Debian's python3 alone can make environments, and put nothing into them.
        probe: Probe::PythonModule("ensurepip"),
        package: "python3-venv",
        purpose: "Helm, which comes as a Python package",
    },
    Requirement {
        need: Need::VirtualMachine,
        probe: Probe::Program(QEMU),
        package: "qemu-system-x86",
        purpose: "the tests inside other kernels",
    },
    Requirement {
        need: Need::Test,
        probe: Probe::Program("strip"),
        package: "binutils",
        purpose: "the images of the tests, and the tests inside other kernels",
    },
];

impl Requirement {
    /// Whether it is there.
    pub fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => !find_program(name).is_empty(),
            Probe::StaticProgram(path) => fs::read(path).is_ok_and(|elf| is_static(&elf)),
            Probe::Module(path) => {
                let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
                folders.map(|folder| folder.path().join(path)).any(|module| module.is_file())
            }
            Probe::PythonModule(name) => {
                probe(Command::new("python3").args(["-c", &format!("import {name}")])).is_some()
            }
        }
    }

    /// The name of the program, library or module.
    pub fn program(&self) -> &'static str {
        match self.probe {
            Probe::Program(name) | Probe::StaticProgram(name) | Probe::Module(name) | Probe::PythonModule(name) => name,
        }
    }
}

/// The requirements of a command that this machine does not meet.
pub fn unmet(need: Need) -> Vec<&'static Requirement> {
    REQUIREMENTS.iter().filter(|requirement| requirement.need <= need && !requirement.is_met()).collect()
}

/// The programs of this name on the PATH and, as a user's PATH may lack them, in the folders of root's programs.
pub fn find_program(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .filter(|path| is_executable(path))
        .collect()
}

/// A program of this name that loads no library.
pub fn static_program(name: &str) -> Option<PathBuf> {
    find_program(name).into_iter().find(|path| fs::read(path).is_ok_and(|elf| is_static(&elf)))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Where `cargo install` puts programs; it need not be on the PATH.
pub fn installed_programs() -> PathBuf {
    let root = ["CARGO_INSTALL_ROOT", "CARGO_HOME"]
        .into_iter()
        .find_map(env::var_os)
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .unwrap_or_default();
    root.join("bin")
}

/// Whether this is a 64-bit little-endian ELF program that asks for no interpreter, and so for no shared library.
pub fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |offset: usize, size: usize| -> Option<u64> {
        let bytes = elf.get(offset..offset.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let segments = || -> Option<Vec<u64>> {
        // e_phoff, e_phentsize and e_phnum of the ELF header.
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        (0..count).map(|index| number(usize::try_from(start + index * size).ok()?, 4)).collect()
    };
    elf.starts_with(b"\x7fELF\x02\x01") && segments().is_some_and(|kinds| !kinds.contains(&PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header and one program header of the given kind.
    fn program_with_segment(kind: u8) -> Vec<u8> {
        let mut elf = vec![0; 0x40 + 0x38];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x36] = 0x38;
        elf[0x38] = 1;
        elf[0x40] = kind;
        elf
    }

    #[test]
    fn a_program_without_an_interpreter_is_static() {
        assert!(is_static(&program_with_segment(1)));
        assert!(!is_static(&program_with_segment(3)));
    }

    #[test]
    fn what_is_cut_short_or_no_program_is_not_taken_for_a_static_one() {
        assert!(!is_static(&program_with_segment(1)[..0x40]));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(b""));
    }

    #[test]
    fn this_test_itself_needs_an_interpreter() {
        let own = fs::read("/proc/self/exe").expect("a process can read its own program");
        assert!(!is_static(&own));
    }

    #[test]
    fn a_program_is_found_on_the_path_and_a_folder_is_none() {
        assert!(!find_program("sh").is_empty());
        assert!(find_program(".").is_empty());
        assert!(find_program("no-such-program-anywhere").is_empty());
    }

    #[test]
    fn a_build_asks_for_nothing_that_only_tests_need() {
        assert!(unmet(Need::Build).iter().all(|requirement| requirement.need == Need::Build));
        assert!(Need::Build < Need::Lint && Need::Lint < Need::Test);
    }
}
