//! Programs that outlive the agent: taken over from the one before, or in place of those that it has left.

use std::sync::Arc;

use tracing::warn;

use crate::{clock, error_chain::chain, export::chain::End};

use super::{
    before::Before,
    counters::Counters,
    functions::Functions,
    kept::Kept,
    layout::{self, Layout},
    load::KernelError,
    maps::Maps,
    pins::{Build, Pins},
    plan::{self, Hooks, Observing},
    sensor::{OBJECT, Sensor, check_capabilities, logger, stream},
    stream::Stream,
    switch::switch,
};

/// What an agent that pins its programs gets besides.
pub struct Restart {
    /// What it leaves for the next one.
    pub kept: Arc<Kept>,
    /// What the one before has left.
    pub before: Before,
}

impl Sensor {
    /// The same with programs that outlive this process: those that an agent before has pinned there, if it was of the same build and
    /// asked for the same; else new ones, which take over from what is there. `end` is where the record ends, if that is known.
    ///
    /// # Errors
    /// See [`KernelError`]; what an agent before has left stays then.
    pub fn attach_pinned(
        hooks: Hooks,
        observing: Option<Observing>,
        pins: Pins,
        end: Option<&End>,
    ) -> Result<(Self, Stream, Counters, Restart), KernelError> {
        check_capabilities()?;
        let layout = layout::read()?;
        let name = layout.build_name(OBJECT, hooks, observing);
        let adopted = pins.build(&name).and_then(|build| match Self::adopt(&build, observing.is_some(), &layout) {
            Ok((sensor, maps)) => Some((sensor, maps, None, build)),
            Err(error) => {
                // As those of another build: what they have counted is told.
                warn!("the programs that are pinned are replaced: {error}");
                if let Err(error) = pins.set_aside(&build, &name) {
                    warn!("what they have counted last is not told: {error}");
                    build.remove();
                }
                None
            }
        });
        let (mut sensor, mut maps, mut ebpf, build) = match adopted {
            Some(adopted) => adopted,
            None => {
                let agreement = pins.others(&name)?.into_iter().find_map(|other| other.agreement());
                let (sensor, maps, ebpf) = Self::load(hooks, &[], observing, &layout, agreement)?;
                let build = sensor.pin(&pins, &maps, &name).map_err(KernelError::Pinning)?;
                (sensor, maps, Some(ebpf), build)
            }
        };
        let others = pins.others(&name)?.into_iter().map(|other| {
            let maps = Maps::of_build(&other).ok().filter(|_| other.is_readable());
            (other, maps)
        });
        let mut others: Vec<_> = others.collect();
        let mut pinned = Some((pins, build));
        if ebpf.is_some() && others.is_empty() {
            // Should this fail, nothing is left then. What an agent before has left stays for the next one.
            sensor.pinned = pinned.take();
        }
        let kept = Arc::new(maps.kept()?);
        let kept_end = kept.recover(end);
        let mut reporting: Vec<_> = others.iter_mut().filter_map(|(_, maps)| maps.as_mut()).collect();
        switch(&mut maps, sensor.covered(), &mut reporting)?;
        let mut before = replace(others, &kept, end);
        // Where an agent was before, it stands there when it was last at work, until this one has told that.
        if kept.alive_ns() == 0 {
            kept.is_alive(clock::boot_ns());
        }
        let logger = ebpf.as_mut().map(logger).transpose()?;
        let tables = maps.tables()?;
        let mut stream = stream(&mut maps, Some(Arc::clone(&kept)), logger)?;
        let counters = sensor.counters(&mut maps)?;
        if ebpf.is_none() {
            let same = Before::of_same(&kept, &tables, |records| while stream.drain(records) {});
            before = before.and(Before { end: kept_end, alive_ns: Some(kept.alive_ns()), ..same });
        }
        if pinned.is_some() {
            sensor.pinned = pinned;
        }
        Ok((sensor, stream, counters, Restart { kept, before }))
    }

    /// Takes over the pinned programs of a build.
    fn adopt(build: &Build, observes: bool, layout: &Layout) -> Result<(Self, Maps), KernelError> {
        let maps = Maps::of_build(build).map_err(|error| KernelError::Mismatch(chain(&error)))?;
        let mut links = build.links().map_err(KernelError::Pinning)?;
        let functions = Functions::adopt(&layout.places, &mut links, build);
        let mut sensor = Self::new();
        for group in plan::TRACEPOINT.iter().chain(observes.then_some(&plan::OBSERVE)) {
            let programs = || group.attachments.iter().map(|attachment| attachment.program);
            let is_needed = functions.as_ref().is_none_or(|functions| !functions.stands_for(group));
            let is_there = programs().all(|program| links.contains_key(program));
            if is_needed && !is_there && !group.optional {
                return Err(KernelError::Mismatch(format!("a link of {} is missing", group.surfaces.join(", "))));
            }
            sensor.coverage.extend(group.surfaces.iter().map(|&surface| (surface, is_there || !is_needed)));
            for program in programs() {
                sensor.links.extend(links.remove(program).map(|link| (program, link)));
            }
        }
        sensor.functions = functions;
        sensor.describe(observes);
        Ok((sensor, maps))
    }

    /// Pins what was attached.
    fn pin(&self, pins: &Pins, maps: &Maps, name: &str) -> std::io::Result<Build> {
        let build = pins.begin().map_err(std::io::Error::other)?;
        let pin = || {
            maps.pin(&build)?;
            self.links.iter().try_for_each(|(program, link)| build.pin_link(program, link))?;
            self.functions.as_ref().map_or(Ok(()), |functions| functions.pin(&build))?;
            pins.finish(&build, name)
        };
        pin().inspect_err(|_| build.unpin())
    }
}

/// Reads what programs have left that report no more, and detaches them. What is to be told of it is noted as owed.
fn replace(others: Vec<(Build, Option<Maps>)>, kept: &Kept, end: Option<&End>) -> Before {
    let mut before = Before::default();
    for (other, maps) in others {
        match maps.map(|maps| Before::of_other(maps, end)) {
            Some(Ok(left)) => {
                if kept.alive_ns() == 0 {
                    kept.is_alive(left.alive_ns.unwrap_or_default());
                }
                // Should this agent be killed, too, the next one knows what is to be told.
                left.counts().for_each(|(cgroup_id, operation, count)| kept.owe(cgroup_id, operation, count));
                before = left;
            }
            Some(Err(error)) => warn!("what the programs before have left can't be read: {error}"),
            None => warn!("programs of another version are replaced; what they counted last can't be read"),
        }
        other.remove();
    }
    before
}
