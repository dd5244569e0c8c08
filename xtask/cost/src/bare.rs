//! Programs that only look at a result, one for each kind of hook that could tell of a refused open: what the kind itself costs.
//!
//! Loaded by bpf(2) itself, for what a library does to a program would be measured, too.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, bail};

// enum bpf_cmd, enum bpf_prog_type, enum bpf_attach_type (include/uapi/linux/bpf.h, 6.18)
const BPF_PROG_LOAD: u32 = 5;
const BPF_RAW_TRACEPOINT_OPEN: u32 = 17;
const TRACEPOINT: u32 = 5;
const RAW_TRACEPOINT: u32 = 17;
const TRACING: u32 = 26;
const TRACE_RAW_TP: u32 = 23;
const TRACE_FEXIT: u32 = 25;

const BTF: &str = "/sys/kernel/btf/vmlinux";
const EVENTS: &str = "/sys/kernel/tracing/events/syscalls";

/// A kind of hook.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The named tracepoint at the exit of openat.
    Named,
    /// Those at its entry and at its exit.
    NamedPair,
    /// The raw tracepoint at the exit of every syscall.
    Raw,
    /// The same, typed.
    Typed,
    /// The exit of `do_filp_open`.
    Fexit,
}

impl Kind {
    /// Every one, with its name in the table.
    pub const ALL: [(&str, Self); 5] = [
        ("named_sys_exit_openat", Self::Named),
        ("named_sys_enter_and_exit_openat", Self::NamedPair),
        ("raw_tp_sys_exit", Self::Raw),
        ("tp_btf_sys_exit", Self::Typed),
        ("fexit_do_filp_open", Self::Fexit),
    ];

    /// Attaches; what is returned keeps it so.
    ///
    /// # Errors
    /// The kernel's, where it does not allow it.
    pub fn attach(self) -> Result<Vec<OwnedFd>> {
        Ok(match self {
            Self::Named => named("sys_exit_openat")?,
            Self::NamedPair => {
                let mut both = named("sys_enter_openat")?;
                both.append(&mut named("sys_exit_openat")?);
                both
            }
            Self::Raw => {
                let program = load(RAW_TRACEPOINT, 0, 0, 8)?;
                let link = open(&program, c"sys_exit".as_ptr() as u64)?;
                vec![program, link]
            }
            Self::Typed => of_type(TRACE_RAW_TP, btf_id("btf_trace_sys_exit", KIND_TYPEDEF)?, 8)?,
            // Behind its three parameters.
            Self::Fexit => of_type(TRACE_FEXIT, btf_id("do_filp_open", KIND_FUNC)?, 24)?,
        })
    }
}

/// A named tracepoint: a perf event, with the program on it.
fn named(event: &str) -> Result<Vec<OwnedFd>> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    /// The start of `struct perf_event_attr`, as long as its first version.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        size: u32,
        config: u64,
        rest: [u64; 6],
    }
    let path = format!("{EVENTS}/{event}/id");
    let id = fs::read_to_string(&path).with_context(|| format!("{path} could not be read"))?;
    let config = id.trim().parse().with_context(|| format!("{path} holds no number"))?;
    // Behind the number of the syscall; of an entry that is an argument, which is as good.
    let program = load(TRACEPOINT, 0, 0, 16)?;
    let attributes = Attributes { kind: PERF_TYPE_TRACEPOINT, size: 64, config, rest: [0; 6] };
    // SAFETY: attributes of the size that they tell.
    let event = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, -1, 0, -1, 0) };
    let event = descriptor(event).context("the tracepoint could not be opened")?;
    for (request, argument) in [(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()), (PERF_EVENT_IOC_ENABLE, 0)] {
        // SAFETY: an open descriptor, and a number.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } != 0 {
            return Err(io::Error::last_os_error()).context("the program could not be put on the tracepoint");
        }
    }
    Ok(vec![program, event])
}

fn of_type(attach_type: u32, id: u32, result_at: i16) -> Result<Vec<OwnedFd>> {
    let program = load(TRACING, attach_type, id, result_at)?;
    let link = open(&program, 0)?;
    Ok(vec![program, link])
}

/// Loads a program that compares the word at `result_at` of its context with -EROFS.
fn load(kind: u32, attach_type: u32, id: u32, result_at: i16) -> Result<OwnedFd> {
    const EROFS: i32 = 30;
    let instruction = |code: u8, registers: u8, offset: i16, value: i32| -> [u8; 8] {
        let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_ne_bytes(), value.to_ne_bytes());
        [code, registers, o0, o1, v0, v1, v2, v3]
    };
    let program = [
        // r2 = *(u64 *)(r1 + result_at); r0 = 0; if r2 != -EROFS goto exit; r0 = 0; exit
        instruction(0x79, 0x12, result_at, 0),
        instruction(0xb7, 0, 0, 0),
        instruction(0x55, 0x02, 1, -EROFS),
        instruction(0xb7, 0, 0, 0),
        instruction(0x95, 0, 0, 0),
    ];
    /// The start of `union bpf_attr` of BPF_PROG_LOAD.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        program: u64,
        license: u64,
        log: [u64; 2],
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
        btf: [u32; 2],
        func_info: [u32; 4],
        line_info: [u32; 3],
        attach_btf_id: u32,
        attach_to: u32,
    }
    let attributes = Attributes {
        kind,
        count: program.len() as u32,
        program: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        attach_type,
        btf: [0; 2],
        func_info: [0; 4],
        line_info: [0; 3],
        attach_btf_id: id,
        attach_to: 0,
    };
    bpf(BPF_PROG_LOAD, &attributes).context("a bare program could not be loaded")
}

fn open(program: &OwnedFd, name: u64) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        name: u64,
        program: u32,
        padding: u32,
    }
    let attributes = Attributes { name, program: program.as_raw_fd().unsigned_abs(), padding: 0 };
    bpf(BPF_RAW_TRACEPOINT_OPEN, &attributes).context("a bare program could not be attached")
}

fn bpf<T>(command: u32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: attributes of the command, readable for the size that is told.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) })
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: a descriptor that the kernel has just made for us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;

/// The id of a type of the kernel by its name and kind (`Documentation/bpf/btf.rst`).
fn btf_id(wanted: &str, wanted_kind: u32) -> Result<u32> {
    let btf = fs::read(BTF).with_context(|| format!("{BTF} could not be read"))?;
    let word = |at: usize| Some(u32::from_ne_bytes(*btf.get(at..)?.first_chunk()?) as usize);
    let section = |at: usize| Some(word(4)? + word(at)?);
    let (Some(mut at), Some(length), Some(names)) = (section(8), word(12), section(16)) else {
        bail!("{BTF} has no header");
    };
    let end = at + length;
    let mut id = 1;
    while at < end {
        let (Some(name), Some(info)) = (word(at), word(at + 4)) else { bail!("{BTF} ends early") };
        let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
        let text = btf.get(names + name..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
        if kind as u32 == wanted_kind && text == wanted.as_bytes() {
            return Ok(id);
        }
        at += 12
            + match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * count,
                6 | 13 => 8 * count,
                _ => 0,
            };
        id += 1;
    }
    bail!("this kernel has no {wanted}")
}
