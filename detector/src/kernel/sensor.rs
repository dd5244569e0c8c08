//! The attached programs.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};

use aya::{Btf, Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use detector_common::{fold::SLOTS, kept::ON_THE_WAY, uring::MembersTable};
use log::Log;
use tracing::{debug, info, warn};

use crate::error_chain::chain;

use super::{
    counters::Counters,
    folds,
    functions::Functions,
    kept::Kept,
    layout::{self, Layout, LayoutError},
    load::{KernelError, Verified, attach},
    maps::{self, Maps},
    members,
    pins::{Build, Pins},
    plan::{self, Group, Hooks, Observing},
    preflight,
    serving::{Attached, Serving, serving},
    stream::Stream,
};

/// The attached programs. Dropping it detaches them, pinned or not.
pub struct Sensor {
    /// Dropped first, and all at once.
    pub(super) functions: Option<Functions>,
    /// Those on tracepoints, by their programs.
    pub(super) links: Vec<(&'static str, OwnedFd)>,
    pub(super) pinned: Option<(Pins, Build)>,
    verified: Vec<Verified>,
    pub(super) coverage: Vec<(&'static str, bool)>,
    serving: Vec<Serving>,
}

/// The object for the kernel, built by `cargo xtask build`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rosentry-bpf"));

impl Sensor {
    /// Loads and attaches. Must be called within a tokio runtime.
    ///
    /// Minimum kernel: 5.17 (`bpf_loop`) with BTF; proven on 6.1, 6.12 and 6.18.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached then.
    pub fn attach(hooks: Hooks) -> Result<(Self, Stream, Counters), KernelError> {
        Self::attach_as(hooks, &[], None)
    }

    /// The same, in learning mode where `observing` is there.
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached then.
    pub fn attach_observing(
        hooks: Hooks,
        observing: Option<Observing>,
    ) -> Result<(Self, Stream, Counters), KernelError> {
        Self::attach_as(hooks, &[], observing)
    }

    /// The same, as if the kernel lacked the functions of the points whose programs at the exit are `left_out`
    /// ([`Point::exit`](super::points::Point::exit)).
    ///
    /// # Errors
    /// See [`KernelError`]; nothing stays attached then.
    pub fn attach_without(hooks: Hooks, left_out: &[&str]) -> Result<(Self, Stream, Counters), KernelError> {
        Self::attach_as(hooks, left_out, None)
    }

    fn attach_as(
        hooks: Hooks,
        left_out: &[&str],
        observing: Option<Observing>,
    ) -> Result<(Self, Stream, Counters), KernelError> {
        check_capabilities()?;
        let layout = layout::read()?;
        let (mut sensor, mut maps, mut ebpf) = Self::load(hooks, left_out, observing, &layout, None)?;
        maps.arm(sensor.covered())?;
        let logger = Some(logger(&mut ebpf)?);
        let stream = stream(&mut maps, None, logger)?;
        let counters = sensor.counters(&mut maps)?;
        Ok((sensor, stream, counters))
    }

    /// Leaves the programs attached for the next agent, where they are pinned.
    pub fn leave(mut self) {
        if self.pinned.take().is_none() {
            return;
        }
        if let Some(functions) = self.functions.take() {
            functions.close();
        }
    }

    pub(super) const fn new() -> Self {
        Self {
            functions: None,
            links: Vec::new(),
            pinned: None,
            verified: Vec::new(),
            coverage: Vec::new(),
            serving: Vec::new(),
        }
    }

    /// Loads and attaches programs that do not report yet. `agreement` is where the map is pinned in which they agree with those that
    /// they are to replace, if there is one.
    pub(super) fn load(
        hooks: Hooks,
        left_out: &[&str],
        observing: Option<Observing>,
        layout: &Layout,
        agreement: Option<PathBuf>,
    ) -> Result<(Self, Maps, Ebpf), KernelError> {
        let log_level =
            if tracing::enabled!(tracing::Level::DEBUG) { log::Level::Debug } else { log::Level::Warn } as u8;
        // Whoever can guess it can call helpers, and needs no key.
        let gate_key = u64::from(std::process::id()) << 32
            | u64::from(std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.subsec_nanos()));
        let secret = folds::secret()?;
        let node_mount_namespace = observing.and_then(|observing| observing.node_mount_namespace).unwrap_or_default();
        let members = layout.io_uring.unwrap_or(MembersTable::UNSET);
        let mut loader = EbpfLoader::new();
        if observing.is_none() {
            // No program is loaded that would use it, and no record of it is kept.
            loader.map_max_entries(maps::OBSERVED, 1).map_max_entries(maps::ORIGINS, (SLOTS + ON_THE_WAY) as u32);
        }
        if let Some(agreement) = agreement {
            loader.map_pin_path(maps::AGREEMENT, agreement);
        }
        let mut ebpf = loader
            .override_global("NODE_MOUNT_NAMESPACE", &node_mount_namespace, true)
            .override_global("OFFSETS", &layout.offsets, true)
            .override_global("URING_MEMBERS", &members, true)
            .override_global("GATE_KEY", &gate_key, true)
            .override_global("FOLD_SECRET", &*secret, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .load(&members::put_offsets(OBJECT, &layout.offsets)?)?;
        // It has a copy of the kernel's types, some 25 MiB, and the programs need another.
        drop(loader);
        let mut maps = Maps::of_object(&mut ebpf)?;
        maps.disarm()?;
        let btf = Btf::from_sys_fs()
            .map_err(|error| LayoutError::Malformed { path: layout::BTF_PATH.into(), reason: chain(&error) })?;
        let mut sensor = Self::new();
        // First, so that no event comes before its cgroup could be known.
        sensor.attach_groups(&mut ebpf, &btf, &[plan::CGROUPS], layout)?;
        if hooks != Hooks::Tracepoint {
            match Functions::attach(&mut ebpf, &btf, &layout.places, left_out) {
                Ok(functions) => sensor.functions = Some(functions),
                Err(KernelError::Function { reason, .. }) if hooks == Hooks::Fexit => {
                    return Err(KernelError::NoFunctions(reason));
                }
                Err(error @ KernelError::Function { .. }) => info!("the tracepoints are used: {error}"),
                Err(error) => return Err(error),
            }
        }
        match &mut sensor.functions {
            None => sensor.attach_groups(&mut ebpf, &btf, &[plan::IO_URING, plan::SYSCALLS], layout)?,
            Some(functions) => {
                sensor.verified.append(&mut functions.verified);
                for group in [plan::SYSCALLS, plan::IO_URING] {
                    if sensor.functions.as_ref().is_some_and(|functions| functions.stands_for(&group)) {
                        sensor.coverage.extend(group.surfaces.iter().map(|&surface| (surface, true)));
                    } else {
                        sensor.attach_groups(&mut ebpf, &btf, &[group], layout)?;
                    }
                }
            }
        }
        if observing.is_some() {
            sensor.attach_groups(&mut ebpf, &btf, &[plan::OBSERVE], layout)?;
        }
        sensor.describe(observing.is_some());
        Ok((sensor, maps, ebpf))
    }

    /// Notes what is seen by what.
    pub(super) fn describe(&mut self, observes: bool) {
        if observes {
            self.coverage.extend(plan::NOT_OBSERVED.map(|surface| (surface, false)));
        }
        let functions = self.functions.as_ref();
        // What falls back has the limits of the tracepoints.
        let at_functions = functions.is_some_and(|functions| functions.stands_for(&plan::SYSCALLS));
        self.coverage.extend(plan::limits(at_functions));
        self.coverage.push((plan::KERNEL_MOUNTS, functions.is_some_and(Functions::tell_mounts)));
        self.serving = serving(&Attached {
            functions: functions.map_or(&[], |functions| &functions.attached),
            covered: self.covered(),
            io_uring: self.coverage.contains(&("writes_io_uring", true)),
        });
    }

    /// The bit sets of operations that need no tracepoint: of syscalls, of io_uring.
    pub(super) fn covered(&self) -> [u64; 2] {
        self.functions.as_ref().map_or([0; 2], Functions::covered)
    }

    pub(super) fn counters(&mut self, maps: &mut Maps) -> Result<Counters, KernelError> {
        let reporting =
            self.functions.as_mut().map_or_else(Vec::new, |functions| std::mem::take(&mut functions.reporting));
        let reporting = reporting.into_iter().map(|(_, program)| program).collect();
        Ok(Counters::new(maps.counters()?, maps.tallies()?, reporting))
    }

    fn attach_groups(
        &mut self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        groups: &[Group],
        layout: &Layout,
    ) -> Result<(), KernelError> {
        for group in groups {
            let known = group.surfaces != plan::IO_URING.surfaces || layout.io_uring.is_some();
            let seen = known && self.attach_group(ebpf, btf, group)?;
            self.coverage.extend(group.surfaces.iter().map(|&surface| (surface, seen)));
        }
        Ok(())
    }

    /// The name of the mode.
    pub const fn mode(&self) -> &'static str {
        if self.functions.is_some() { "fexit" } else { "tracepoint" }
    }

    /// Whether the group is attached; an optional one need not be.
    fn attach_group(&mut self, ebpf: &mut Ebpf, btf: &Btf, group: &Group) -> Result<bool, KernelError> {
        let (mut attached, mut links) = (Vec::new(), Vec::new());
        for attachment in group.attachments {
            match attach(ebpf, btf, attachment) {
                Ok((link, instructions)) => {
                    debug!(program = attachment.program, ?instructions, "attached");
                    attached.push(Verified { program: attachment.program, instructions });
                    links.push((attachment.program, link));
                }
                Err(error) if group.optional => {
                    warn!("{} is not seen: {error}", group.surfaces.join(", "));
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.verified.append(&mut attached);
        self.links.append(&mut links);
        Ok(true)
    }

    /// Every surface that rosentry knows of, and whether it is seen on this kernel.
    pub fn coverage(&self) -> &[(&'static str, bool)] {
        &self.coverage
    }

    /// What serves each operation.
    pub fn serving(&self) -> &[Serving] {
        &self.serving
    }

    /// Detaches one program, for tests, which show by it that nothing else sees what it sees. Whether it was attached. At a kernel
    /// function it takes its entry along, and waits until it is gone.
    #[doc(hidden)]
    pub fn detach(&mut self, program: &str) -> bool {
        if self.functions.as_mut().is_some_and(|functions| functions.detach(program)) {
            return true;
        }
        let attached = self.links.len();
        self.links.retain(|(name, _)| *name != program);
        self.links.len() < attached
    }

    /// What the verifier did with each program; nothing of those that were there before.
    pub fn verified(&self) -> &[Verified] {
        &self.verified
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        if let Some((pins, build)) = self.pinned.take() {
            build.unpin();
            pins.remove_if_empty();
        }
    }
}

/// Whether this process may load programs.
///
/// # Errors
/// [`KernelError::Capabilities`], with what is missing.
pub fn check_capabilities() -> Result<(), KernelError> {
    let missing = preflight::effective_capabilities()
        .map(|effective| preflight::missing_capabilities(effective, preflight::REQUIRED));
    match missing {
        Some(missing) if !missing.is_empty() => Err(KernelError::Capabilities(missing)),
        _ => Ok(()),
    }
}

pub(super) fn logger(ebpf: &mut Ebpf) -> Result<EbpfLogger<&'static dyn Log>, KernelError> {
    EbpfLogger::init(ebpf).map_err(|error| KernelError::Mismatch(chain(&error)))
}

pub(super) fn stream(
    maps: &mut Maps,
    kept: Option<Arc<Kept>>,
    logger: Option<EbpfLogger<&'static dyn Log>>,
) -> Result<Stream, KernelError> {
    Ok(Stream::new(maps.rings()?, maps.tables()?, kept, logger)?)
}
