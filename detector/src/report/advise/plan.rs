//! From what was written to the mounts and variables of one container: as few as mend it, and none that takes the image's own
//! files away.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    evidence::{Container, File},
    path::{is_at_or_below, parent},
    sealed::Sealed,
    table::{self, Data, INSTEAD, NEVER_OVER, OF_IMAGE, REDIRECTED, Redirect, SCRATCH, TEMPORARY, Value},
};
use crate::finding::event::Category;

/// More folders than this side by side are mounted as the one around them.
const BESIDE_MAX: usize = 4;
/// More files than this in one folder are not mounted one by one.
const FILES_MAX: usize = 3;
/// Mounts of one container; what is beyond is told.
const MOUNTS_MAX: usize = 32;
/// Pieces of evidence that a mount is told with.
const TOLD_MAX: usize = 3;

/// What mends a container.
#[derive(Debug, Default)]
pub struct Plan {
    /// Mounts, by path.
    pub mounts: Vec<Mount>,
    /// Variables, by name.
    pub variables: BTreeMap<&'static str, Variable>,
    /// What no mount mends, and what to know besides: sentences.
    pub notes: Vec<String>,
}

/// A writable mount.
#[derive(Debug)]
pub struct Mount {
    /// Where.
    pub at: String,
    /// What is kept there.
    pub data: &'static Data,
    /// What must be there before the program runs.
    pub fill: Fill,
    /// Sentences: what it is for, by whom and how often it was tried, and what to look at.
    pub why: Vec<String>,
}

/// What must be there before the program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fill {
    /// Nothing.
    Nothing,
    /// What the image has in that folder.
    Folder,
    /// The file itself, a copy of the image's where it has one.
    File,
}

/// A variable of the environment.
#[derive(Debug)]
pub struct Variable {
    /// Its value.
    pub value: String,
    /// Sentences: what it does, and why.
    pub why: Vec<String>,
}

/// Writes that one mount would mend.
#[derive(Debug, Default)]
struct Want {
    files: Vec<(String, File)>,
    others: u64,
    /// Whether the image has no such folder: the program makes it.
    is_new: bool,
    /// Whether the image has something in it.
    has_files: bool,
}

impl Want {
    /// What is in it, and was to be mounted by itself.
    fn absorb(&mut self, other: Self) {
        self.files.extend(other.files);
        self.others = self.others.saturating_add(other.others);
        self.has_files |= !self.is_new && (other.has_files || !other.is_new);
    }

    fn count(&self) -> u64 {
        self.files.iter().fold(self.others, |sum, (_, file)| sum.saturating_add(file.count))
    }

    /// What most of the writes are.
    fn category(&self) -> Category {
        let mut counts = BTreeMap::new();
        for (_, file) in &self.files {
            *counts.entry(file.category).or_insert(0_u64) += 1;
        }
        counts.into_iter().max_by_key(|(category, count)| (*count, *category)).map_or(Category::Other, |(most, _)| most)
    }
}

/// What mends this container.
pub fn plan(container: &Container) -> Plan {
    let mut plan = Plan::default();
    let mut wants: BTreeMap<String, Want> = BTreeMap::new();
    let only_tried = only_tried(container);
    for (folder, of_folder) in &container.folders {
        for (name, file) in &of_folder.files {
            let path = join(folder, name);
            if only_tried.contains(&path) {
                continue;
            }
            if let Some(redirect) = table::redirect(&path) {
                plan.redirect(redirect, &path, file);
                continue;
            }
            let (at, is_new) = place(container, folder, &path, file);
            let want = wants.entry(at).or_insert_with(|| Want { is_new, ..Want::default() });
            want.is_new &= is_new;
            want.has_files |= file.exists && !is_new;
            want.files.push((path, file.clone()));
        }
        // A variable that keeps the program from this folder keeps it from all files in it.
        if of_folder.others > 0 && table::redirect(folder).is_none() {
            let (at, is_new) = place_in(container, folder, None);
            let want = wants.entry(at).or_insert_with(|| Want { is_new, ..Want::default() });
            want.is_new &= is_new;
            want.others = want.others.saturating_add(of_folder.others);
        }
    }
    for (at, want) in &mut wants {
        let of_image = OF_IMAGE.iter().any(|folder| is_at_or_below(at, folder));
        let has_program = container.programs.iter().any(|program| is_at_or_below(program, at));
        want.has_files = !want.is_new && scratch(at).is_none() && (want.has_files || of_image || has_program);
    }
    join_siblings(&mut wants);
    let wants = within(wants);
    for (at, want) in wants {
        plan.mount(at, want);
    }
    if !only_tried.is_empty() {
        let places: BTreeSet<&str> = only_tried.iter().map(|path| parent(path)).collect();
        let places: Vec<&str> = places.into_iter().collect();
        plan.notes
            .push(format!("{} were tried only because /tmp refused: no mount is needed there", places.join(", ")));
    }
    for (from, to) in &container.moves {
        let holder = |path: &String| {
            plan.mounts
                .iter()
                .filter(|mount| is_at_or_below(path, &mount.at))
                .map(|mount| mount.at.as_str())
                .max_by_key(|at| at.len())
        };
        let (first, second) = (holder(from), holder(to));
        if first != second {
            plan.notes.push(format!(
                "names are moved from {from} to {to}, which are then on different mounts: rename and link end with EXDEV there"
            ));
        }
    }
    plan.notes.extend(super::notes::of(container));
    plan
}

/// Where something is to be mounted so that this can be written, and whether the image has no such folder.
fn place(container: &Container, folder: &str, path: &str, file: &File) -> (String, bool) {
    let makes = file.is_folder && !container.folders.contains_key(path) || container.made.contains(path);
    // The folder itself is changed, into which something else is written.
    let is_folder = container.folders.contains_key(path) || SCRATCH.iter().any(|(folder, _)| *folder == path);
    match place_in(container, folder, makes.then_some(path)) {
        (at, false) if !makes && is_folder && at == folder => (path.to_owned(), false),
        place => place,
    }
}

/// Where something is to be mounted so that this folder can be written, and whether the image has no such folder. `made` is what the
/// program makes in it, if it does.
fn place_in<'a>(container: &Container, folder: &'a str, mut made: Option<&'a str>) -> (String, bool) {
    // The topmost folder on the way that the program makes itself.
    let mut at = folder;
    while at != "/" {
        if container.made.contains(at) {
            made = Some(at);
        }
        at = parent(at);
    }
    match made {
        Some(made) if scratch(parent(made)).is_none() => (made.to_owned(), true),
        Some(made) => (parent(made).to_owned(), false),
        None => (folder.to_owned(), false),
    }
}

/// The kind of data of a folder that is at or in one of scratch.
fn scratch(path: &str) -> Option<Category> {
    let found =
        SCRATCH.iter().filter(|(folder, _)| is_at_or_below(path, folder)).max_by_key(|(folder, _)| folder.len());
    found.map(|(_, category)| *category)
}

/// Python looks for a folder that it can write to, with a file of a random name in each; it takes the first.
fn only_tried(container: &Container) -> BTreeSet<String> {
    let is_random = |name: &str| name.len() == 8 && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    let tries =
        |name: &str, file: &File| file.anew && is_random(name) && super::path::name(&file.exe).starts_with("python");
    let Some(first) = TEMPORARY.first().and_then(|first| container.folders.get(*first)) else { return BTreeSet::new() };
    if !first.files.iter().any(|(name, file)| tries(name, file)) {
        return BTreeSet::new();
    }
    let others = container.folders.iter().filter(|(folder, _)| TEMPORARY.first() != Some(&folder.as_str()));
    let tried = others.flat_map(|(folder, of)| {
        of.files.iter().filter(|(name, file)| tries(name, file)).map(move |(name, _)| join(folder, name))
    });
    tried.collect()
}

/// Many folders side by side become the one around them.
fn join_siblings(wants: &mut BTreeMap<String, Want>) {
    let mut beside: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for at in wants.keys() {
        beside.entry(parent(at).to_owned()).or_default().push(at.clone());
    }
    for (around, folders) in beside {
        if folders.len() <= BESIDE_MAX || NEVER_OVER.contains(&around.as_str()) {
            continue;
        }
        let inside: Vec<Want> = folders.iter().filter_map(|folder| wants.remove(folder)).collect();
        let is_scratch = scratch(&around).is_some();
        let joined = wants.entry(around).or_default();
        for want in inside {
            joined.absorb(want);
        }
        joined.has_files &= !is_scratch;
    }
}

/// Leaves out what another mount has in it.
fn within(mut wants: BTreeMap<String, Want>) -> BTreeMap<String, Want> {
    let mut kept: BTreeMap<String, Want> = BTreeMap::new();
    // A folder comes before what is in it.
    while let Some((at, want)) = wants.pop_first() {
        let around =
            kept.iter_mut().filter(|(outer, _)| !NEVER_OVER.contains(&outer.as_str()) && is_at_or_below(&at, outer));
        match around.max_by_key(|(outer, _)| outer.len()) {
            // Copied with the folder around it, or made by the program in it. Else the image has it, and the mount around it
            // would take it away.
            Some((_, outer)) if want.is_new || (outer.has_files && !files_alone(outer)) || outer.is_new => {
                outer.absorb(want)
            }
            _ => {
                kept.insert(at, want);
            }
        }
    }
    kept
}

/// Whether what is wanted are a few files that can be mounted by themselves.
fn files_alone(want: &Want) -> bool {
    want.others == 0 && want.files.len() <= FILES_MAX && want.files.iter().all(|(_, file)| file.is_enough())
}

impl Plan {
    fn redirect(&mut self, redirect: &Redirect, path: &str, file: &File) {
        let value = match redirect.value {
            Value::Is(value) => value.to_owned(),
            Value::Folder(folder, category) => {
                let at = format!("{REDIRECTED}/{folder}");
                if !self.mounts.iter().any(|mount| mount.at == at) {
                    let why = vec![format!("what {} leads here", redirect.name)];
                    self.mounts.push(Mount { at: at.clone(), data: table::data(category), fill: Fill::Nothing, why });
                }
                at
            }
        };
        let variable = self
            .variables
            .entry(redirect.name)
            .or_insert_with(|| Variable { value, why: vec![redirect.note.to_owned()] });
        if variable.why.len() <= TOLD_MAX {
            variable.why.push(evidence(path, file));
        }
    }

    fn mount(&mut self, at: String, want: Want) {
        if let Sealed::Never(why) = Sealed::of(&at) {
            self.files_or_note(&at, want, why);
            return;
        }
        if want.has_files && files_alone(&want) {
            self.files_or_note(&at, want, "");
            return;
        }
        let data = table::data(scratch(&at).unwrap_or_else(|| want.category()));
        let mut why = told(&want, data);
        let fill = if want.has_files { Fill::Folder } else { Fill::Nothing };
        why.push(match (fill, scratch(&at)) {
            (Fill::Folder, _) => {
                "WARNING: the image has files here, or may have, which the mount hides: an init container copies them, and the program can change \
                 the copies"
            }
            (_, None) if want.is_new => "the image has no such folder: nothing is hidden",
            (_, None) => "WARNING: hides what the image has here, if anything: look before you apply it",
            (_, Some(Category::Log)) => "hides what the image has here, such as links to /dev/stdout",
            (_, Some(_)) => "",
        }.to_owned());
        if let Some((_, variable)) = INSTEAD.iter().find(|(one, _)| at.split('/').any(|name| name == *one)) {
            why.push(format!("or set {variable} to a folder that is writable"));
        }
        self.push(Mount { at, data, fill, why });
    }

    /// Each file by itself, where that is enough.
    fn files_or_note(&mut self, folder: &str, want: Want, never: &str) {
        let alone = want.files.iter().filter(|(_, file)| file.is_enough()).count();
        let few = alone <= FILES_MAX;
        for (path, file) in want.files {
            if few && file.is_enough() && Sealed::of(&path) == Sealed::No {
                let why = vec![
                    evidence(&path, &file),
                    format!("the file alone: a mount over {folder} would hide the image's files there"),
                ];
                self.push(Mount { data: table::data(file.category), at: path, fill: Fill::File, why });
            } else if self.notes.len() < MOUNTS_MAX * 2 {
                self.notes.push(format!("not mended: {}. {never}", evidence(&path, &file)));
            }
        }
        if want.others > 0 {
            self.notes.push(format!(
                "not mended: {} more in {folder}, of names that are not told. {never}",
                times(want.others)
            ));
        }
    }

    fn push(&mut self, mut mount: Mount) {
        mount.why.retain(|sentence| !sentence.is_empty());
        // A folder that a variable leads to may have been written to already.
        if self.mounts.iter().any(|there| there.at == mount.at) {
            return;
        }
        if self.mounts.len() < MOUNTS_MAX {
            self.mounts.push(mount);
        } else if self.mounts.len() == MOUNTS_MAX && self.notes.len() < MOUNTS_MAX * 3 {
            self.notes.push(format!("not mended: {}, for there are {MOUNTS_MAX} mounts already", quoted(&mount.at)));
        }
    }
}

/// What the mount is for, and the writes it would mend, the most frequent first.
fn told(want: &Want, data: &Data) -> Vec<String> {
    let mut files: Vec<_> = want.files.iter().collect();
    files.sort_by(|(a, first), (b, second)| second.count.cmp(&first.count).then_with(|| a.cmp(b)));
    let mut told = vec![data.note.to_owned()];
    told.extend(files.iter().take(TOLD_MAX).map(|(path, file)| evidence(path, file)));
    if files.len() > TOLD_MAX || want.others > 0 {
        let shown = files.iter().take(TOLD_MAX).fold(0_u64, |sum, (_, file)| sum.saturating_add(file.count));
        told.push(format!("{} more", times(want.count().saturating_sub(shown))));
    }
    told
}

/// Path, executable and count.
fn evidence(path: &str, file: &File) -> String {
    let mut sentence = format!("{} by {}, {}", quoted(path), super::notes::told(&file.exe), times(file.count));
    if !file.attack.is_empty() {
        let techniques: Vec<&str> = file.attack.iter().map(String::as_str).collect();
        sentence.push_str(&format!(" (LOOK FIRST who did this: it fits {} of MITRE ATT&CK)", techniques.join(", ")));
    }
    sentence
}

fn quoted(path: &str) -> String {
    super::notes::told(path).into_owned()
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        (_, "") => folder.to_owned(),
        ("/", _) => format!("/{name}"),
        _ => format!("{folder}/{name}"),
    }
}
