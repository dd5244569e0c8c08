//! An io_uring for the tests: submit, wait, get the results in the order of the submission.

use std::os::fd::AsRawFd as _;

use io_uring::{IoUring, squeue};

pub struct Ring {
    ring: IoUring,
}

impl Ring {
    pub fn new() -> Self {
        Self { ring: IoUring::new(1024).expect("this kernel has io_uring") }
    }

    /// Whose submissions are taken by a thread of the kernel's that polls for them.
    pub fn polled() -> Self {
        let ring = IoUring::builder().setup_sqpoll(1000).build(64).expect("this kernel has io_uring");
        Self { ring }
    }

    /// Which tells of completions only when its thread asks for them.
    pub fn deferred() -> Self {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(64);
        Self { ring: ring.expect("this kernel has io_uring") }
    }

    /// With room for so few completions.
    pub fn of_completions(entries: u32) -> Self {
        let ring = IoUring::builder().setup_cqsize(entries).build(entries).expect("this kernel has io_uring");
        Self { ring }
    }

    /// Queues the entries and hands them to the kernel; the results will come.
    pub fn submit(&mut self, entries: Vec<squeue::Entry>) {
        for (number, entry) in (0_u64..).zip(entries) {
            // SAFETY: everything that the tests' entries point to lives until the test ends.
            unsafe { self.ring.submission().push(&entry.user_data(number)) }.expect("the queue has room");
        }
        self.ring.submit().expect("the kernel takes the entries");
    }

    /// How many results found no room in the queue of completions.
    pub fn overflowed(&self) -> usize {
        let path = format!("/proc/self/fdinfo/{}", self.ring.as_raw_fd());
        let about = std::fs::read_to_string(path).expect("the kernel tells of its rings");
        // Not told while someone works at the ring.
        about.split_once("CqOverflowList:\n").map_or(0, |(_, list)| list.matches("user_data=").count())
    }

    /// Waits for so many results, by the order of the submission.
    pub fn results(&mut self, count: usize) -> Vec<i32> {
        let mut results = Vec::new();
        while results.len() < count {
            self.ring.submit_and_wait(1).expect("the kernel completes the entries");
            results.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        }
        results.sort_by_key(|&(number, _)| number);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Submits, and waits for all results.
    pub fn ask(&mut self, entries: Vec<squeue::Entry>) -> Vec<i32> {
        let count = entries.len();
        self.submit(entries);
        self.results(count)
    }

    /// Keeps the calling thread's credentials for later; their number.
    pub fn personality(&self) -> u16 {
        self.ring.submitter().register_personality().expect("the ring takes credentials")
    }

    /// Gives the ring a file, which its entries can name by the number 0.
    pub fn register(&self, file: i32) {
        self.ring.submitter().register_files(&[file]).expect("the ring takes a file");
    }
}
