//! Ways to write the same path: absolute or not, by links, with `.`, `..` and slashes that lead nowhere.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use fastrand::Rng;

use super::world::{ALIASES, World};

/// A text that leads from the folder `from` (none: from the root) to the folder `to`; both are real.
pub fn route(random: &mut Rng, world: &World, from: Option<&Path>, to: &Path) -> Vec<u8> {
    let mut route = Route { random, world, text: Vec::new() };
    if from.is_none() {
        route.text.push(b'/');
    }
    route.go(from, to, 2);
    if route.text.is_empty() {
        route.text.push(b'.');
    }
    route.text
}

struct Route<'a> {
    random: &'a mut Rng,
    world: &'a World,
    text: Vec<u8>,
}

impl Route<'_> {
    fn go(&mut self, from: Option<&Path>, to: &Path, aliases: u32) {
        let alias = ALIASES.get(self.random.usize(..ALIASES.len() * 2));
        let alias = alias.filter(|alias| aliases > 0 && to.starts_with(alias.real));
        let mut here = if let Some(alias) = alias {
            let at = Path::new(alias.at);
            self.go(from, at.parent().unwrap(), aliases - 1);
            self.push(at.file_name().unwrap().as_bytes());
            Path::new(alias.real)
        } else {
            let mut here = from.unwrap_or(Path::new("/"));
            while !to.starts_with(here) {
                self.push(b"..");
                here = here.parent().unwrap();
            }
            here
        }
        .to_path_buf();
        for name in to.strip_prefix(&here).unwrap() {
            self.wander(&here);
            self.push(name.as_bytes());
            here.push(name);
        }
        self.wander(&here);
    }

    /// Adds what leads nowhere.
    fn wander(&mut self, here: &Path) {
        match self.random.u8(..16) {
            0 => self.push(b"."),
            1 => self.push(b""),
            2 => {
                let world = self.world;
                let below: Vec<_> = world.folders.iter().filter(|folder| folder.parent() == Some(here)).collect();
                if let Some(folder) = self.random.choice(below) {
                    self.push(folder.file_name().unwrap().as_bytes());
                    self.push(b"..");
                }
            }
            // Above the root there is the root.
            3 if here == Path::new("/") => self.push(b".."),
            _ => {}
        }
    }

    fn push(&mut self, name: &[u8]) {
        if !self.text.is_empty() && self.text.last() != Some(&b'/') || name.is_empty() && !self.text.is_empty() {
            self.text.push(b'/');
        }
        self.text.extend_from_slice(name);
    }
}

/// The text of a name in the folder that `route` leads to.
pub fn join(mut route: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if route.last() != Some(&b'/') {
        route.push(b'/');
    }
    route.extend_from_slice(name);
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_relative_unless_it_begins_at_the_root() {
        let nowhere = World { folders: Vec::new(), sealed: Vec::new(), files: Vec::new() };
        let mut random = Rng::with_seed(1);
        for _ in 0..1000 {
            let from = Path::new("/mnt/etc");
            assert_ne!(route(&mut random, &nowhere, Some(from), Path::new("/mnt/usr/lib"))[0], b'/');
            assert_eq!(route(&mut random, &nowhere, None, Path::new("/mnt/usr/lib"))[0], b'/');
        }
    }
}
