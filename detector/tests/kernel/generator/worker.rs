//! One thread of the generator: makes random calls, and notes those that ended with EROFS.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use detector::kernel::plan::Hooks;
use detector_common::{abi::Abi, syscalls::SYSCALLS};
use fastrand::Rng;
use io_uring::squeue::Flags;

use super::{
    calls::{Arg, CALLS, Call, Last, PROBES, probe_number},
    note::Note,
    ring_calls,
    route::{join, route},
    world::{NAMES, WORK, World, below},
};
use crate::{
    door::{Arena, ask},
    ring::Ring,
    sensor::hooks_under_test,
};

const EROFS: i64 = -30;
const FDCWD: u64 = -100_i64 as u64;
/// What an address of a unix socket has room for, with its NUL.
const SUN_PATH_MAX: usize = 107;

pub struct Worker<'a> {
    world: &'a World,
    random: Rng,
    arena: Arena,
    ring: Ring,
    /// The working directory.
    cwd: PathBuf,
    /// An open folder.
    folder: (File, PathBuf),
    /// Of the root of the sealed world, by which handles are opened.
    mount: File,
}

/// What becomes of a call's arguments while they are made.
#[derive(Default)]
struct Asked {
    args: Vec<u64>,
    path: Option<PathBuf>,
    new_path: Option<PathBuf>,
    /// As passed, for whoever reads what went wrong.
    text: Vec<u8>,
    /// Open until the call has ended.
    open: Vec<OwnedFd>,
}

impl<'a> Worker<'a> {
    /// On a thread whose working directory is its own.
    pub fn new(world: &'a World, seed: u64) -> Self {
        let folder = (File::open("/mnt").unwrap(), "/mnt".into());
        let mount = File::open("/mnt").unwrap();
        let (random, arena, ring) = (Rng::with_seed(seed), Arena::new(), Ring::new());
        let mut worker = Self { world, random, arena, ring, cwd: "/".into(), folder, mount };
        worker.move_about();
        worker
    }

    /// Does one thing; what was refused, if anything was.
    pub fn act(&mut self) -> Option<Note> {
        match self.random.u8(..32) {
            0 => {
                self.move_about();
                None
            }
            1 | 2 => {
                self.probe();
                None
            }
            _ => self.write(),
        }
    }

    fn move_about(&mut self) {
        self.cwd = self.random.choice(&self.world.folders).unwrap().clone();
        rustix::process::chdir(&self.cwd).unwrap();
        let folder = self.random.choice(&self.world.folders).unwrap().clone();
        self.folder = (File::open(&folder).unwrap(), folder);
    }

    fn probe(&mut self) {
        let call = self.random.choice(PROBES).unwrap();
        let (native, ia32) = probe_number(call.name);
        let (door, number) = if self.random.bool() { (Abi::X86_64, native) } else { (Abi::Ia32, ia32) };
        let asked = self.arguments(call, door);
        // SAFETY: the arguments of this very syscall.
        unsafe { ask(door, number, padded(&asked.args)) };
        self.arena.clear();
    }

    fn write(&mut self) -> Option<Note> {
        let call = self.random.choice(CALLS).unwrap();
        let row = SYSCALLS.iter().find(|row| row.name == call.name).unwrap();
        let doors = [(Abi::X86_64, row.x86_64), (Abi::Ia32, row.ia32), (Abi::IoUring, row.io_uring)];
        let doors: Vec<_> = doors.iter().filter_map(|&(door, number)| Some((door, number?))).collect();
        let &(door, number) = self.random.choice(&doors).unwrap();
        let asked = self.arguments(call, door);
        let result = if door == Abi::IoUring {
            let flags = if self.random.bool() { Flags::ASYNC } else { Flags::empty() };
            self.ring.ask(vec![ring_calls::entry(call.name, &asked.args).flags(flags)])[0].into()
        } else {
            // SAFETY: the arguments of this very syscall.
            unsafe { ask(door, number, padded(&asked.args)) }
        };
        if call.operation == "open" && result >= 0 {
            // SAFETY: just opened, and known to no one else.
            drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(result).unwrap()) });
        }
        let number_of_no_write = call.name == "ioctl" && !writes(asked.args[1]);
        self.arena.clear();
        (result == EROFS && !number_of_no_write).then(|| Note {
            operation: call.operation.to_owned(),
            path: asked.path.as_deref().map(bytes),
            new_path: asked.new_path.as_deref().map(bytes),
            result,
            how: format!("{} by {} of {}", call.name, door.name(), asked.text.escape_ascii()),
        })
    }

    fn arguments(&mut self, call: &Call, door: Abi) -> Asked {
        let mut asked = Asked::default();
        for arg in call.args {
            self.argument(*arg, door, &mut asked);
        }
        asked
    }

    fn argument(&mut self, arg: Arg, door: Abi, asked: &mut Asked) {
        match arg {
            Arg::Path(last) => {
                let (text, real) = self.path(last, false);
                asked.args.push(self.arena.string_of(&text.text));
                asked.text = text.text;
                asked.path = Some(real);
            }
            Arg::At(last) => {
                let (text, real) = self.path(last, true);
                asked.args.extend([text.descriptor, self.arena.string_of(&text.text)]);
                asked.text = text.text;
                asked.path = Some(real);
            }
            Arg::NewPath => {
                let (text, real) = self.path(Last::NotFollowed, false);
                asked.args.push(self.arena.string_of(&text.text));
                asked.new_path = Some(real);
            }
            Arg::NewAt => {
                let (text, real) = self.path(Last::NotFollowed, true);
                asked.args.extend([text.descriptor, self.arena.string_of(&text.text)]);
                asked.new_path = Some(real);
            }
            Arg::FolderAt => {
                let folder = self.random.choice(&self.world.sealed).unwrap().clone();
                let text = self.text(true, |random, world, from| route(random, world, from, &folder));
                asked.args.extend([text.descriptor, self.arena.string_of(&text.text)]);
                asked.path = Some(folder);
            }
            Arg::File => {
                let (file, path) = self.file();
                asked.args.push(file.as_raw_fd() as u64);
                asked.open.push(file.into());
                asked.path = Some(path);
            }
            Arg::FileAndEmpty => {
                self.argument(Arg::File, door, asked);
                asked.args.push(self.arena.string_of(b""));
            }
            Arg::FileAndNull => {
                self.argument(Arg::File, door, asked);
                asked.args.push(0);
            }
            Arg::InRoot => {
                let folder = self.random.choice(&self.world.sealed).unwrap().clone();
                let name = self.random.choice(NAMES).unwrap();
                let within = folder.strip_prefix("/mnt").unwrap();
                let text = join([b"/", within.as_os_str().as_bytes()].concat(), name);
                asked.args.extend([self.mount.as_raw_fd() as u64, self.arena.string_of(&text)]);
                asked.text = text;
                asked.path = Some(below(&folder, name));
            }
            Arg::Handle => {
                let of_mount = |file: &&PathBuf| !file.starts_with("/mnt/data") && !file.starts_with("/mnt/view");
                let files: Vec<_> = self.world.files.iter().filter(of_mount).collect();
                let file = *self.random.choice(&files).unwrap();
                let handle = crate::every_syscall::handle_of(file, &mut self.arena);
                asked.args.extend([self.mount.as_raw_fd() as u64, handle]);
                // A documented limit: the tracepoints can't tell where the file of a handle is.
                asked.path = (hooks_under_test() == Hooks::Fexit).then(|| file.clone());
            }
            Arg::SocketAt | Arg::SocketCall => self.socket(arg, asked),
            Arg::OneOf(numbers) => asked.args.push(*self.random.choice(numbers).unwrap()),
            Arg::How(flags, restrictions) => {
                let flags = *self.random.choice(flags).unwrap();
                // A mode is for new files alone, and where the path alone is opened most flags are refused.
                let mode = if flags & (libc::O_CREAT as u64) == 0 { 0 } else { 0o600 };
                let restrictions = *self.random.choice(restrictions).unwrap();
                asked.args.push(self.arena.words(&[flags, mode, restrictions]));
            }
            Arg::Text(text) => asked.args.push(self.arena.string_of(text)),
            Arg::Zeros(count) => asked.args.push(self.arena.bytes(&vec![0; count])),
            Arg::AttributeValue => {
                let value = self.arena.string_of(b"1");
                let value = self.arena.words(&[value, 1]);
                asked.args.extend([value, 16]);
            }
            Arg::SetFlags => {
                let numbers = if door == Abi::Ia32 { SET_FLAGS_32 } else { SET_FLAGS_64 };
                asked.args.push(*self.random.choice(numbers).unwrap());
            }
        }
    }

    /// A file that is there, opened for reading.
    fn file(&mut self) -> (File, PathBuf) {
        let path = self.random.choice(&self.world.files).unwrap().clone();
        (File::open(&path).unwrap(), path)
    }

    fn socket(&mut self, arg: Arg, asked: &mut Asked) {
        let (text, real) = loop {
            let (text, real) = self.path(Last::NotFollowed, false);
            if text.text.len() <= SUN_PATH_MAX {
                break (text.text, real);
            }
        };
        // SAFETY: no pointers.
        let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)) };
        let address = [&[1, 0], text.as_slice(), &[0]].concat();
        let args = [socket.as_raw_fd() as u64, self.arena.bytes(&address), address.len() as u64];
        if matches!(arg, Arg::SocketCall) {
            const SYS_BIND: u64 = 2;
            let words: Vec<u8> = args.iter().flat_map(|&arg| (arg as u32).to_ne_bytes()).collect();
            asked.args.extend([SYS_BIND, self.arena.bytes(&words)]);
        } else {
            asked.args.extend(args);
        }
        asked.open.push(socket);
        asked.text = text;
        asked.path = Some(real);
    }

    /// A path to operate on, and what it means.
    fn path(&mut self, last: Last, with_descriptor: bool) -> (Text, PathBuf) {
        let writable = self.random.u8(..4) == 0;
        let folder = if writable {
            Path::new(WORK).to_path_buf()
        } else {
            self.random.choice(&self.world.sealed).unwrap().clone()
        };
        let mut names = self.world.names_in(&folder);
        if writable || names.is_empty() || self.random.bool() {
            names = NAMES.iter().map(|name| name.to_vec()).collect();
        }
        if writable && last == Last::Made {
            names = vec![b"link".to_vec()];
        }
        let name = self.random.choice(&names).unwrap().clone();
        let real = below(&folder, &name);
        let real = if last == Last::Followed { self.world.followed(real) } else { real };
        let text = self.text(with_descriptor, |random, world, from| join(route(random, world, from, &folder), &name));
        (text, real)
    }

    fn text(&mut self, with_descriptor: bool, write: impl Fn(&mut Rng, &World, Option<&Path>) -> Vec<u8>) -> Text {
        let (from, descriptor) = match self.random.u8(..if with_descriptor { 4 } else { 2 }) {
            0 => (None, FDCWD),
            1 => (Some(self.cwd.as_path()), FDCWD),
            2 => (Some(self.folder.1.as_path()), self.folder.0.as_raw_fd() as u64),
            // Which an absolute path has no use for.
            _ => (None, self.folder.0.as_raw_fd() as u64),
        };
        Text { text: write(&mut self.random, self.world, from), descriptor }
    }
}

/// A path as it is passed.
struct Text {
    text: Vec<u8>,
    descriptor: u64,
}

const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
const SET_FLAGS_64: &[u64] = &[0x4008_6602, FS_IOC_FSSETXATTR, FS_IOC_GETFLAGS];
const SET_FLAGS_32: &[u64] = &[0x4004_6602, FS_IOC_FSSETXATTR, FS_IOC_GETFLAGS];

const fn writes(ioctl: u64) -> bool {
    ioctl != FS_IOC_GETFLAGS
}

fn padded(args: &[u64]) -> [u64; 6] {
    std::array::from_fn(|index| args.get(index).copied().unwrap_or(0))
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}
