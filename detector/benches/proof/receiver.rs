//! A receiver of syslog over TCP (RFC 6587, octet counting) that can go away and come back. What it has read it has.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use detector::export::chain::End;

use crate::support::agent::free_address;

/// The longest message that it takes.
const MOST_BYTES: usize = 2 << 20;

/// What came, over all connections.
#[derive(Debug, Default)]
pub struct Received {
    /// By number.
    pub lines: BTreeMap<u64, String>,
    /// Lines that came more than once, the same each time.
    pub repeated: usize,
    /// Numbers that came with two different lines.
    pub contradicted: usize,
    /// Messages without an event.
    pub unknown: usize,
}

impl Received {
    fn take(&mut self, message: &str) {
        // The header has no brace.
        let line = message.find('{').map(|at| &message[at..]);
        let Some((line, End { seq, .. })) = line.and_then(|line| Some((line, End::of_line(line.as_bytes())?))) else {
            self.unknown += 1;
            return;
        };
        match self.lines.get(&seq) {
            Some(before) if before == line => self.repeated += 1,
            Some(_) => self.contradicted += 1,
            None => drop(self.lines.insert(seq, line.to_owned())),
        }
    }

    /// Writes them to a file in the order of their numbers, for `rosentry verify`.
    pub fn write_to(&self, path: &Path) {
        let text: String = self.lines.values().flat_map(|line| [line, "\n"]).collect();
        std::fs::write(path, text).expect("the lab's folder can be written");
    }
}

/// The receiver.
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    listening: Option<Listening>,
}

struct Listening {
    ends: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

impl Receiver {
    /// It listens.
    pub fn start() -> Self {
        let mut receiver = Self { address: free_address(), received: Arc::default(), listening: None };
        receiver.come_back();
        receiver
    }

    /// For `--syslog`.
    pub fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// What it has.
    pub fn received(&self) -> Received {
        std::mem::take(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Neither port nor connections any more.
    pub fn go_away(&mut self) {
        let Some(Listening { ends, connections, thread }) = self.listening.take() else { return };
        ends.store(true, Ordering::Relaxed);
        // Wakes the thread, which then gives up the port.
        let _ = TcpStream::connect(self.address);
        thread.join().expect("the thread holds nothing that can fail");
        for connection in connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Listens again.
    pub fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).expect("the port is its own");
        let ends = Arc::new(AtomicBool::new(false));
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (told, taken, received) = (Arc::clone(&ends), Arc::clone(&connections), Arc::clone(&self.received));
        let thread = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(clone) = connection.try_clone() {
                    taken.lock().unwrap_or_else(PoisonError::into_inner).push(clone);
                }
                let received = Arc::clone(&received);
                thread::spawn(move || read(connection, &received));
            }
        });
        self.listening = Some(Listening { ends, connections, thread });
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.go_away();
    }
}

/// Until the connection ends; the half of a message that may be left then is nothing.
fn read(connection: TcpStream, received: &Mutex<Received>) {
    let mut connection = BufReader::new(connection);
    loop {
        let mut length = Vec::new();
        if !matches!(connection.read_until(b' ', &mut length), Ok(1..)) {
            return;
        }
        let length = std::str::from_utf8(&length).ok().and_then(|text| text.trim().parse::<usize>().ok());
        let Some(length) = length.filter(|length| *length <= MOST_BYTES) else { return };
        let mut message = vec![0; length];
        if connection.read_exact(&mut message).is_err() {
            return;
        }
        received.lock().unwrap_or_else(PoisonError::into_inner).take(&String::from_utf8_lossy(&message));
    }
}
