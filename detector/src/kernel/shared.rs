//! Arrays of the kernel side that are mapped into this process.

use std::{ffi::c_void, io, os::fd::AsFd, ptr::NonNull, sync::atomic::AtomicU64};

use aya::maps::{Map, MapError};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// An array of `T`, whose members are `u64`s that both sides change atomically.
#[derive(Debug)]
pub(super) struct Shared<T> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: what is behind the pointer is shared with the kernel already, and touched by atomic operations alone.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Maps the values of a map with so many.
    ///
    /// Minimum kernel: 5.5 (`BPF_F_MMAPABLE`).
    pub fn of_map(map: &Map, count: usize) -> Result<Self, MapError> {
        let Map::Array(map) = map else { return Err(MapError::InvalidMapType { map_type: 0 }) };
        Self::new(map.fd().as_fd(), count).map_err(MapError::IoError)
    }

    /// Maps a file of so many values.
    pub fn new(file: impl AsFd, count: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping; nothing else in this process knows of it.
        let start = unsafe { mmap(std::ptr::null_mut(), count * size_of::<T>(), protection, flags, file, 0) }?;
        NonNull::new(start.cast()).map(|start| Self { start, count }).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// The number that stands `offset` bytes after the start of the value at `index`; none beyond the end.
    pub fn number(&self, index: usize, offset: usize) -> Option<&AtomicU64> {
        let is_within = index < self.count && offset < size_of::<T>() && offset.is_multiple_of(size_of::<u64>());
        if !is_within {
            return None;
        }
        // SAFETY: within the mapping, as compared.
        let number = unsafe { self.start.as_ptr().add(index).cast::<u8>().add(offset) };
        // SAFETY: aligned, within a mapping that lives as long as `self`; the other side changes it as a whole.
        Some(unsafe { AtomicU64::from_ptr(number.cast()) })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference into it outlives `self`. It can't fail for a mapping that exists.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.count * size_of::<T>()) };
    }
}
