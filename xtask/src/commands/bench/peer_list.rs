//! The tools that are measured beside rosentry, as data: Debian's packages of them, how each is set up and run, and what it sees.

/// One tool, or rosentry in one of its modes.
#[derive(Debug)]
pub struct Peer {
    /// In the tables; without blanks.
    pub name: &'static str,
    /// Debian's packages: the tool's and those of its libraries. None for rosentry.
    pub packages: &'static [&'static str],
    /// What of them is needed inside, besides the programs' libraries.
    pub programs: &'static [&'static str],
    /// Other files of theirs.
    pub files: &'static [&'static str],
    /// Shell script that is run before.
    pub setup: &'static str,
    /// What is in each line that tells of a refused write by the program that measures.
    pub mark: &'static str,
    /// The file in which it tells.
    pub told: &'static str,
    /// A line of shell script that becomes the tool.
    pub command: &'static str,
    /// Which of the attempts it tells, in the words of the report.
    pub sees: &'static str,
    /// Whether its setup costs already: what nothing costs is then known from the machine without a tool.
    pub costs_before: bool,
    /// Whether it tells of refused writes: else it is no peer in a flood of them.
    pub tells_refused: bool,
}

/// The machine without a tool.
pub const BASE: &str = "nothing";

/// Where a tool tells that has no file of its own.
const OUTPUT: &str = "/tmp/told";

/// debugfs is where tools look for tracepoints that don't know tracefs.
const TRACING: &str = "mount -t debugfs debugfs /sys/kernel/debug\nulimit -l unlimited\n";

/// What most of them have in common: a tool of no package that tells of refused writes where it stands, and costs nothing before.
const COMMON: Peer = Peer {
    name: "",
    packages: &[],
    programs: &[],
    files: &[],
    setup: "",
    mark: "",
    told: OUTPUT,
    command: "",
    sees: "",
    costs_before: false,
    tells_refused: true,
};

/// rosentry first, each of its modes; the agent as it is shipped.
pub const PEERS: &[Peer] = &[
    Peer {
        name: BASE,
        command: "exec sleep 1000000",
        sees: "nothing",
        ..COMMON
    },
    rosentry("rosentry-fexit", "exec /rosentry run --hooks fexit --scope all --spool-dir /tmp/spool"),
    rosentry("rosentry-tracepoint", "exec /rosentry run --hooks tracepoint --scope all --spool-dir /tmp/spool"),
    Peer {
        name: "auditd",
        packages: &["auditd", "libaudit1", "libauparse0", "libwrap0"],
        programs: &["sbin/auditd", "sbin/auditctl"],
        files: &["etc/audit/auditd.conf"],
        // Debian's rules for the queue, and one file of records, so that all can be counted. Calls by their names: a rule for all of
        // them costs more. Enabled before the program starts that measures: of a process that is older nothing is told.
        setup: "mkdir -p /var/log/audit /var/run /etc
echo root:x:0:0::/:/bin/sh > /etc/passwd
echo root:x:0: > /etc/group
sed -i 's/^log_group.*/log_group = root/; s/ROTATE/IGNORE/; s/^local_events.*/local_events = yes/' /etc/audit/auditd.conf
chmod 640 /etc/audit/auditd.conf
/sbin/auditctl -e 1
/sbin/auditctl -D
/sbin/auditctl -b 8192
/sbin/auditctl --backlog_wait_time 60000
/sbin/auditctl -a always,exit -F arch=b64 -F exit=-EROFS -S open,creat,openat,mkdir,mkdirat,unlink,unlinkat,rmdir,\
rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod,mknodat,truncate,chmod,fchmodat,chown,lchown,fchownat,utimensat,\
setxattr,lsetxattr,removexattr,lremovexattr
/sbin/auditctl -a always,exit -F arch=b64 -S mount
",
        mark: "exit=-30",
        told: "/var/log/audit/audit.log",
        command: "exec /sbin/auditd -n",
        sees: "refused writes with paths, by call; mounts",
        costs_before: true,
        ..COMMON
    },
    Peer {
        name: "bpftrace",
        packages: BPFTRACE,
        programs: &["usr/bin/bpftrace"],
        setup: TRACING,
        mark: "refused program",
        command: "exec /usr/bin/bpftrace -e 'tracepoint:raw_syscalls:sys_exit /args->ret == -30/ \
{ printf(\"refused %s %d %d\\n\", comm, pid, args->id); }'",
        sees: "refused writes without paths, by every call",
        ..COMMON
    },
    Peer {
        name: "bpftrace-paths",
        packages: BPFTRACE,
        programs: &["usr/bin/bpftrace"],
        setup: TRACING,
        mark: "refused program",
        command: "exec /usr/bin/bpftrace -e 'tracepoint:syscalls:sys_enter_openat { @path[tid] = args->filename; } \
tracepoint:syscalls:sys_exit_openat { if (args->ret == -30) { printf(\"refused %s %d %s\\n\", comm, pid, str(@path[tid])); } \
delete(@path[tid]); }'",
        sees: "refused opens by openat, with the path as passed",
        ..COMMON
    },
    Peer {
        name: "opensnoop",
        packages: LIBBPF_TOOLS,
        programs: &["usr/sbin/opensnoop"],
        setup: TRACING,
        mark: "/var/cache/app/",
        command: "exec /usr/sbin/opensnoop -x",
        sees: "failed opens of any kind, with the path as passed",
        ..COMMON
    },
    Peer {
        name: "mountsnoop",
        packages: LIBBPF_TOOLS,
        programs: &["usr/sbin/mountsnoop"],
        setup: TRACING,
        mark: "program",
        command: "exec /usr/sbin/mountsnoop",
        sees: "mounts",
        tells_refused: false,
        ..COMMON
    },
    Peer {
        name: "ftrace",
        setup: "mkdir /sys/kernel/tracing/instances/refused
echo 'ret == -30' > /sys/kernel/tracing/instances/refused/events/raw_syscalls/sys_exit/filter
",
        mark: " = -30",
        command: "echo 1 > /sys/kernel/tracing/instances/refused/events/raw_syscalls/sys_exit/enable; \
exec dd bs=65536 if=/sys/kernel/tracing/instances/refused/trace_pipe",
        sees: "refused writes without paths, by every call",
        ..COMMON
    },
];

const BPFTRACE: &[&str] = &[
    "bpftrace",
    "libbpfcc",
    "libbpf1",
    "libclang1-14",
    "libclang-cpp14",
    "libllvm14",
    "libdw1",
    "libedit2",
    "libelf1",
    "libxml2",
    "libz3-4",
    "libicu72",
    "libbsd0",
];
const LIBBPF_TOOLS: &[&str] = &["libbpf-tools", "libelf1"];

const fn rosentry(name: &'static str, command: &'static str) -> Peer {
    Peer {
        name,
        mark: "\"kind\":\"write_denied\"",
        command,
        sees: "refused writes with resolved paths, by every call; mounts; whose container",
        ..COMMON
    }
}
