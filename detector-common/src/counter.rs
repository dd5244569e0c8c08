//! Counters that the kernel side keeps per CPU, so that neither the rings nor a fold can lose them.

/// Index into the per-CPU array of counters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Counter {
    /// Tries to change mounts, whatever their result.
    MountAttempt = 0,
    /// cgroups that were made in the cgroup2 hierarchy.
    CgroupCreated = 1,
    /// cgroups that were removed from it.
    CgroupRemoved = 2,
    /// Records of refused writes that found their ring full.
    WriteRingFull = 3,
    /// Records of mount attempts that found their ring full.
    UrgentRingFull = 4,
    /// A section of a record (a path, the arguments) could not be read; the record went out without it.
    SectionUnreadable = 5,
    /// A section of a record did not fit; the record went out with the part that did.
    SectionTruncated = 6,
    /// Records of cgroups that found their ring full.
    CgroupRingFull = 7,
    /// A request of an io_uring that hides its result, whether it is refused or not: it was queued with
    /// IOSQE_CQE_SKIP_SUCCESS, and its operation tells of no failures then.
    ResultHidden = 8,
    /// Records for which no place was free on their CPU: its tasks had taken turns in the middle of others.
    ScratchBusy = 9,
    /// Writes that succeeded, in learning mode: each that was looked at, whatever became of its record.
    WriteObserved = 10,
    /// Those among them whose record was not made, because their cgroup had used up what it may say.
    ObservedCut = 11,
}

impl Counter {
    /// Length of the array of counters.
    pub const COUNT: u32 = 12;

    /// Every counter, in the order of the array.
    #[cfg(feature = "user")]
    pub const ALL: [Self; Self::COUNT as usize] = [
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
        Self::WriteObserved,
        Self::ObservedCut,
    ];
}
