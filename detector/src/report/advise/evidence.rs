//! What events say of the writes of each workload's containers: which paths, by whom, how often. Memory is bounded, whatever the
//! events say.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher as _},
};

use super::{
    path::{Unfit, is_at_or_below, name, of_event, parent},
    table::{INTERPRETERS, OF_APPLICATIONS, OF_OWNERS, SCRATCH, redirect},
};
use crate::{
    finding::event::{Category, Kind, PlaceKind, Severity},
    report::event::{Event, Text},
};

/// Workloads that are told of.
const WORKLOADS_MAX: usize = 4096;
/// Containers of one.
const CONTAINERS_MAX: usize = 64;
/// Folders of a container that were written to; of the others the number of writes is kept.
const FOLDERS_MAX: usize = 1024;
/// Files of a folder that are looked at one by one.
const FILES_MAX: usize = 64;
/// Observed writes of a container that are known to have named their file.
const NAMED_MAX: usize = 1 << 16;
/// Notes of a container.
const NOTES_MAX: usize = 128;
/// Folders of a container's programs, and folders that they made.
const PROGRAMS_MAX: usize = 256;

/// A workload: its namespace and its name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Name {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub workload: String,
}

impl Name {
    /// Reads `NS/NAME`.
    ///
    /// # Errors
    /// With what it should have been.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, workload)) if !namespace.is_empty() && !workload.is_empty() && !workload.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), workload: workload.to_owned() })
            }
            _ => Err("it should be NAMESPACE/WORKLOAD".to_owned()),
        }
    }
}

/// What events say.
#[derive(Debug, Default)]
pub struct Evidence {
    /// By workload.
    pub workloads: BTreeMap<Name, Workload>,
    /// Writes that nobody need look at, or that a rule expects.
    pub minor: u64,
    /// Writes by processes that no container of a pod is known of.
    pub without_pod: u64,
    /// Writes beyond the workloads and containers that are kept.
    pub beyond: u64,
}

/// What events say of one workload.
#[derive(Debug, Default)]
pub struct Workload {
    /// The kind of object, as its pods' labels tell; none where they don't.
    pub kind: Option<&'static str>,
    /// By the container's name.
    pub containers: BTreeMap<String, Container>,
}

/// What events say of one container.
#[derive(Debug, Default)]
pub struct Container {
    /// Its image.
    pub image: Option<String>,
    /// The folders that were to be written to.
    pub folders: BTreeMap<String, Folder>,
    /// Folders that it made, and that no image has.
    pub made: BTreeSet<String>,
    /// Programs, their scripts and working directories: what lies there is the image's own.
    pub programs: BTreeSet<String>,
    /// Observed writes that have named their file, by hash: what repeats them is of the same folder, and of any name.
    named: HashSet<u64>,
    /// Names that were to be moved from one folder into another.
    pub moves: BTreeSet<(String, String)>,
    /// What no mount mends, with the number of writes and who tried.
    pub notes: BTreeMap<(Why, String), (u64, String)>,
    /// Writes beyond what is kept.
    pub beyond: u64,
}

/// Why a write gets no mount.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Why {
    /// It is none that an application should make.
    Suspicious,
    /// Packages are not installed at run time.
    Package,
    /// A volume that was declared writable refuses.
    VolumeFailed,
    /// A volume that is mounted read-only, or can't be written.
    VolumeReadOnly,
    /// Neither the root nor a volume.
    Elsewhere,
    /// Its path is not known.
    NoPath,
    /// No mount can have its path.
    Unfit(&'static str),
}

/// What was tried in a folder.
#[derive(Debug, Default)]
pub struct Folder {
    /// By name; the empty name is the folder itself.
    pub files: BTreeMap<String, File>,
    /// Writes of further files, and observed ones that don't tell of which.
    pub others: u64,
}

/// What was tried with one name.
#[derive(Clone, Debug)]
pub struct File {
    /// How often.
    pub count: u64,
    /// Of which kind it is.
    pub category: Category,
    /// Who tried first, as events tell it.
    pub exe: String,
    /// The image has it: what was tried needs a file that is there.
    pub exists: bool,
    /// Whether all that was tried can be done with a file that is mounted by itself.
    pub in_place: bool,
    /// Whether it is known to be a file, and no folder: a file that is mounted over a folder keeps a container from starting.
    pub is_file: bool,
    /// Whether nothing was tried but to make a folder of that name.
    pub is_folder: bool,
    /// Whether it was to be made anew, and must not be there.
    pub anew: bool,
    /// Techniques of ATT&CK that the attempts fit.
    pub attack: BTreeSet<String>,
}

impl File {
    /// Whether it is enough to mount it by itself.
    pub const fn is_enough(&self) -> bool {
        self.in_place && self.is_file
    }
}

impl Evidence {
    /// Takes an event; what is no write, or of another workload, is passed over.
    pub fn take(&mut self, event: &Event<'_>, wanted: Option<&Name>) {
        let is_observed = match event.kind() {
            Some(Kind::WriteDenied) => false,
            Some(Kind::WriteObserved) => true,
            _ => return,
        };
        let (Some(pod), Some(container)) = (&event.pod, &event.container) else {
            if wanted.is_none() {
                self.without_pod = self.without_pod.saturating_add(event.count);
            }
            return;
        };
        let workload = Name { namespace: (*pod.namespace).to_owned(), workload: (*pod.workload).to_owned() };
        if wanted.is_some_and(|wanted| *wanted != workload) {
            return;
        }
        let Some(name) = container.name.as_deref() else {
            self.without_pod = self.without_pod.saturating_add(event.count);
            return;
        };
        // A removal that succeeded was of something that is there.
        if event.expected || (!is_observed && event.severity == Severity::Info) {
            self.minor = self.minor.saturating_add(event.count);
            return;
        }
        let room = self.workloads.len() < WORKLOADS_MAX || self.workloads.contains_key(&workload);
        let of_workload = room.then(|| self.workloads.entry(workload).or_default());
        let of_container = of_workload.and_then(|of| {
            of.kind = of.kind.or_else(|| kind(event));
            let room = of.containers.len() < CONTAINERS_MAX || of.containers.contains_key(name);
            room.then(|| of.containers.entry(name.to_owned()).or_default())
        });
        match of_container {
            Some(of) => {
                if of.image.is_none() {
                    of.image = container.image.as_deref().map(str::to_owned);
                }
                of.take(event, is_observed);
            }
            None => self.beyond = self.beyond.saturating_add(event.count),
        }
    }
}

/// The kind of object that makes such pods, as its controller's labels tell.
fn kind(event: &Event<'_>) -> Option<&'static str> {
    let pod = event.pod.as_ref()?;
    let labels = pod.labels.as_ref()?;
    let has = |name: &str| labels.contains_key(&Text::from(name));
    let found = if has("statefulset.kubernetes.io/pod-name") || has("apps.kubernetes.io/pod-index") {
        "StatefulSet"
    } else if has("batch.kubernetes.io/job-name") || has("job-name") {
        "Job"
    } else if has("pod-template-hash") {
        "Deployment"
    } else if has("controller-revision-hash") {
        "DaemonSet"
    } else {
        return None;
    };
    // Where name and labels don't agree, the pod's own name stands for the workload.
    (*pod.workload != *pod.name).then_some(found)
}

impl Container {
    fn take(&mut self, event: &Event<'_>, is_observed: bool) {
        let exe = event.process.as_ref().map_or("", |process| process.exe.as_deref().unwrap_or(&process.comm));
        let told = event.file.as_ref().and_then(|file| file.path.as_deref());
        let mount = event.mount.as_ref();
        let volume = || {
            let point = mount.and_then(|mount| mount.point.as_deref()).unwrap_or("?");
            let volume = mount.and_then(|mount| mount.volume.as_ref());
            volume.map_or_else(|| point.to_owned(), |volume| format!("{point} ({} {})", &*volume.kind, &*volume.name))
        };
        let category = Category::ALL.iter().copied().find(|one| Some(one.name()) == event.category.as_deref());
        let category = category.unwrap_or(Category::Other);
        let place = mount.and_then(|mount| mount.place);
        let why = match place {
            Some(PlaceKind::VolumeFailed) => Some((Why::VolumeFailed, volume())),
            Some(PlaceKind::Volume) => Some((Why::VolumeReadOnly, volume())),
            Some(PlaceKind::Other) => Some((Why::Elsewhere, told.unwrap_or("?").to_owned())),
            Some(PlaceKind::Rootfs) | None if told.is_none() => Some((
                Why::NoPath,
                event.file.as_ref().and_then(|file| file.requested.as_deref()).unwrap_or("?").to_owned(),
            )),
            Some(PlaceKind::Rootfs) | None => (event.severity >= Severity::High
                || event.attack.iter().any(|technique| !OF_APPLICATIONS.contains(&&**technique))
                || matches!(category, Category::Credentials | Category::SystemBinary))
            .then(|| (Why::Suspicious, told.unwrap_or("?").to_owned())),
        };
        if let Some((why, what)) = why {
            self.note(why, &what, event.count, exe);
            return;
        }
        self.learn_programs(event);
        let new = event.file.as_ref().and_then(|file| file.new_path.as_deref());
        let operation = event.operation.as_deref().unwrap_or_default();
        let paths = match operation {
            "link" => [None, new],
            "rename" => [told, new],
            _ => [told, None],
        };
        let mut known = Vec::new();
        for told in paths.into_iter().flatten() {
            match of_event(told) {
                Ok(path) => known.push(path),
                Err(unfit) => self.note(Why::Unfit(Unfit::why(unfit)), told, event.count, exe),
            }
        }
        if let [from, to] = known.as_slice()
            && parent(from) != parent(to)
            && self.moves.len() < FOLDERS_MAX
        {
            self.moves.insert((parent(from).to_owned(), parent(to).to_owned()));
        }
        for path in known {
            if is_observed && operation == "mkdir" && self.made.len() < FOLDERS_MAX {
                self.made.insert(path.clone());
            }
            // The redirection of what is written comes before the objection to packages.
            if category == Category::PackageInstall && redirect(&path).is_none() {
                self.note(Why::Package, &path, event.count, exe);
                continue;
            }
            self.want(&path, operation, category, exe, event);
        }
    }

    fn want(&mut self, path: &str, operation: &str, category: Category, exe: &str, event: &Event<'_>) {
        let flags = event.file.as_ref().map_or(&[][..], |file| &file.flags);
        let has = |flag: &str| flags.iter().any(|one| **one == *flag);
        // A file without a name is made in the folder that is named.
        let (folder, name) =
            if has("O_TMPFILE") || has("__O_TMPFILE") || path == "/" { (path, "") } else { (parent(path), name(path)) };
        let is_observed = event.kind() == Some(Kind::WriteObserved);
        let (named, unnamed) = if is_observed { self.names(path, operation, exe, event) } else { (event.count, 0) };
        let opens = operation == "open";
        let changes =
            matches!(operation, "truncate" | "chmod" | "chown" | "utimes" | "setxattr" | "removexattr" | "setflags");
        let mut new = File {
            count: named,
            category,
            exe: cut(exe),
            exists: changes || (opens && !has("O_CREAT") && !name.is_empty()),
            in_place: changes || (opens && !has("O_EXCL") && !name.is_empty()),
            is_file: (opens && !name.is_empty()) || operation == "truncate",
            is_folder: operation == "mkdir",
            anew: has("O_EXCL"),
            attack: event.attack.iter().take(8).map(|technique| cut(technique)).collect(),
        };
        // What lies there was made by a program, though no event may name it: it is counted with others of its folder.
        if is_observed && SCRATCH.iter().any(|(scratch, _)| is_at_or_below(path, scratch)) {
            new.exists = false;
            new.attack.remove(OF_OWNERS);
        }
        let room = self.folders.len() < FOLDERS_MAX || self.folders.contains_key(folder);
        let Some(of_folder) = room.then(|| self.folders.entry(folder.to_owned()).or_default()) else {
            self.beyond = self.beyond.saturating_add(event.count);
            return;
        };
        of_folder.others = of_folder.others.saturating_add(unnamed);
        let room = of_folder.files.len() < FILES_MAX;
        match of_folder.files.get_mut(name) {
            Some(file) => {
                // What a program has made is its own to change, and none of the image's.
                if is_observed && !file.exists {
                    new.exists = false;
                    new.attack.remove(OF_OWNERS);
                }
                file.count = file.count.saturating_add(new.count);
                file.exists |= new.exists;
                file.in_place &= new.in_place;
                file.is_file |= new.is_file;
                file.is_folder &= new.is_folder;
                file.anew &= new.anew;
                if file.attack.len() < 8 {
                    file.attack.extend(new.attack);
                }
            }
            None if room && named > 0 => {
                of_folder.files.insert(name.to_owned(), new);
            }
            None => of_folder.others = of_folder.others.saturating_add(named),
        }
    }

    /// How many observed writes are of the file that the event names, and how many of any file of its folder.
    fn names(&mut self, path: &str, operation: &str, exe: &str, event: &Event<'_>) -> (u64, u64) {
        let container = event.container.as_ref().map(|container| &*container.id);
        let key = hash(&(container, path, operation, exe));
        let is_first = self.named.len() < NAMED_MAX && self.named.insert(key);
        let named = u64::from(is_first);
        (named, event.count.saturating_sub(named))
    }

    fn learn_programs(&mut self, event: &Event<'_>) {
        let Some(process) = &event.process else { return };
        let exe = process.exe.as_deref();
        let runs_scripts = exe.is_some_and(|exe| INTERPRETERS.iter().any(|one| name(exe).starts_with(one)));
        let script = process.args.get(1).map(|script| &**script).filter(|_| runs_scripts);
        for path in exe.into_iter().chain(script).filter_map(|told| of_event(told).ok()) {
            self.learn_program(path);
        }
        // What a program works in may have its files.
        if let Some(cwd) = process.cwd.as_deref().and_then(|cwd| of_event(cwd).ok())
            && cwd != "/"
        {
            self.learn_program(format!("{cwd}/."));
        }
    }

    fn learn_program(&mut self, path: String) {
        if self.programs.len() < PROGRAMS_MAX && !is_at_or_below(&path, "/proc") {
            self.programs.insert(path);
        }
    }

    fn note(&mut self, why: Why, what: &str, count: u64, exe: &str) {
        let key = (why, cut(what));
        let room = self.notes.len() < NOTES_MAX || self.notes.contains_key(&key);
        if !room {
            self.beyond = self.beyond.saturating_add(count);
            return;
        }
        let (sum, _) = self.notes.entry(key).or_insert_with(|| (0, cut(exe)));
        *sum = sum.saturating_add(count);
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What comments tell of a text.
fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}
