//! When programs begin and end, as the kernel tells it (the process connector, `include/uapi/linux/cn_proc.h`, 6.18): the life of a
//! container's program itself, whatever its runtime takes to note it.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::{self, SocketAddrNetlink},
    recv, send, socket_with,
};

/// `CN_IDX_PROC` and `CN_VAL_PROC`.
const CONNECTOR: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `NLMSG_DONE`.
const MESSAGE: u16 = 3;
/// `PROC_EVENT_EXEC` and `PROC_EVENT_EXIT`.
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;
/// Of `struct nlmsghdr` and `struct cn_msg`.
const HEADERS: usize = 16 + 20;
/// Room for what comes while this program waits for a processor.
const RECEIVE_BYTES: usize = 8 << 20;

/// A life: from the last execve to the exit, nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    began_ns: u64,
    ended_ns: u64,
}

impl Life {
    /// How long it was.
    pub const fn length(self) -> Duration {
        Duration::from_nanos(self.ended_ns.saturating_sub(self.began_ns))
    }

    /// Whether this time, nanoseconds of CLOCK_MONOTONIC, was in it, give or take what two looks at clocks differ by.
    pub const fn has(self, time_ns: u64) -> bool {
        const JITTER_NS: u64 = 1_000_000;
        self.began_ns <= time_ns + JITTER_NS && time_ns <= self.ended_ns + JITTER_NS
    }
}

#[derive(Debug, Default)]
struct Seen {
    running: HashMap<u32, u64>,
    ended: HashMap<u32, Vec<Life>>,
}

impl Seen {
    /// Takes a message of the connector; others are nothing.
    fn take(&mut self, message: &[u8]) {
        let number = |at: usize| Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
        let time = |at: usize| Some(u64::from_ne_bytes(message.get(at..at + 8)?.try_into().ok()?));
        // what, cpu, time, then the thread and its process.
        let [what, thread, process] = [HEADERS, HEADERS + 16, HEADERS + 20].map(number);
        let (Some(what), Some(time), Some(thread), Some(process)) = (what, time(HEADERS + 8), thread, process) else {
            return;
        };
        match what {
            EXEC => drop(self.running.insert(process, time)),
            EXIT if thread == process => {
                if let Some(began_ns) = self.running.remove(&process) {
                    self.ended.entry(process).or_default().push(Life { began_ns, ended_ns: time });
                }
            }
            _ => {}
        }
    }
}

/// All that ended since it began to look.
pub struct Lives {
    seen: Arc<Mutex<Seen>>,
}

impl Lives {
    /// Looks from now on. Only root may.
    pub fn watch() -> Self {
        let socket = listen().expect("the kernel tells of processes (CONFIG_PROC_EVENTS)");
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let taken = Arc::clone(&seen);
        // It ends with the program.
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            loop {
                // Where there was no room for some, they are missing in what is told.
                if let Ok((length, _)) = recv(&socket, &mut buffer, RecvFlags::empty()) {
                    taken.lock().unwrap_or_else(PoisonError::into_inner).take(&buffer[..length]);
                }
            }
        });
        Self { seen }
    }

    /// The life of this process that this time was in, nanoseconds of CLOCK_MONOTONIC; none of one that was not seen or has
    /// not ended.
    pub fn of(&self, process: u32, time_ns: u64) -> Option<Life> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.ended.get(&process)?.iter().copied().find(|life| life.has(time_ns))
    }
}

fn listen() -> rustix::io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::CONNECTOR))?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES)?;
    bind(&socket, &SocketAddrNetlink::new(0, CONNECTOR))?;
    let mut request = Vec::new();
    let operation = LISTEN.to_ne_bytes();
    let length = u32::try_from(HEADERS + operation.len()).unwrap_or_default();
    request.extend(length.to_ne_bytes());
    request.extend(MESSAGE.to_ne_bytes());
    // Flags, sequence, and port.
    request.extend([0; 2 + 4 + 4]);
    request.extend(CONNECTOR.to_ne_bytes());
    request.extend(CONNECTOR.to_ne_bytes());
    // Sequence and acknowledgement.
    request.extend([0; 4 + 4]);
    request.extend((operation.len() as u16).to_ne_bytes());
    request.extend([0; 2]);
    request.extend(operation);
    send(&socket, &request, SendFlags::empty())?;
    Ok(socket)
}
