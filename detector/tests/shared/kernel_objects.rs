//! BPF programs, maps and links by the kernel's ids, which are never used twice: those that one process has open, and which of
//! them the kernel still has. Of that process alone: others on the machine may load what they like.

use std::{collections::BTreeSet, fs};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};

/// See the module.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KernelObjects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl KernelObjects {
    /// Adds what a process has open now; nothing where it has ended.
    pub fn note(&mut self, pid: u32) {
        // Linux v6.1, kernel/bpf/syscall.c: what the descriptor of a program, a map or a link says of itself.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        for about in descriptors.filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok()) {
            for line in about.lines() {
                let Some((name, value)) = line.split_once(":\t") else { continue };
                let ids = match name {
                    "prog_id" => &mut self.programs,
                    "map_id" => &mut self.maps,
                    "link_id" => &mut self.links,
                    _ => continue,
                };
                ids.insert(value.trim().parse().expect("an id is a number"));
            }
        }
    }

    /// Whether there are programs among them that are attached to something.
    pub fn are_attached(&self) -> bool {
        !self.programs.is_empty() && !self.links.is_empty()
    }

    /// Those that the kernel has still. It frees them some time after the last descriptor was closed.
    pub fn left(&self) -> Self {
        // Some may go between the listing and the look at them.
        let programs = loaded_programs().flatten().map(|program| program.id()).collect();
        let maps = loaded_maps().flatten().map(|map| map.id()).collect();
        let links = loaded_links().flatten().map(|link| link.id()).collect();
        Self {
            programs: self.programs.intersection(&programs).copied().collect(),
            maps: self.maps.intersection(&maps).copied().collect(),
            links: self.links.intersection(&links).copied().collect(),
        }
    }

    /// Whether there is none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}
