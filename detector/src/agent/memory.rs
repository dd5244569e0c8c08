//! Memory that was needed once.

/// Gives free memory back to the kernel. To read the kernel's types and load the programs takes several times what the agent
/// needs after that, and the C library would keep it for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and may be called by any thread at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
