//! Counters that the kernel side keeps per CPU, so that neither the rings nor a fold can lose them.

/// Index into the per-CPU array of counters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Counter {
    /// Operations of the table that ended with EROFS.
    WriteDenied = 0,
    /// Tries to change mounts, whatever their result.
    MountAttempt = 1,
    /// cgroups that were made in the cgroup2 hierarchy.
    CgroupCreated = 2,
    /// cgroups that were removed from it.
    CgroupRemoved = 3,
    /// Records of refused writes that found their ring full.
    WriteRingFull = 4,
    /// Records of mount attempts that found their ring full.
    UrgentRingFull = 5,
    /// A section of a record (a path, the arguments) could not be read; the record went out without it.
    SectionUnreadable = 6,
    /// A section of a record did not fit; the record went out with the part that did.
    SectionTruncated = 7,
    /// Records of cgroups that found their ring full.
    CgroupRingFull = 8,
    /// A request of an io_uring that hides its result, whether it is refused or not: it was queued with
    /// IOSQE_CQE_SKIP_SUCCESS, and its operation tells of no failures then.
    ResultHidden = 9,
    /// Records for which no place was free on their CPU: its tasks had taken turns in the middle of others.
    ScratchBusy = 10,
}

impl Counter {
    /// Length of the array of counters.
    pub const COUNT: u32 = 11;

    /// Every counter, in the order of the array.
    #[cfg(feature = "user")]
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::WriteDenied,
        Self::MountAttempt,
        Self::CgroupCreated,
        Self::CgroupRemoved,
        Self::WriteRingFull,
        Self::UrgentRingFull,
        Self::SectionUnreadable,
        Self::SectionTruncated,
        Self::CgroupRingFull,
        Self::ResultHidden,
        Self::ScratchBusy,
    ];
}
