//! What is known of folders, of kinds of data and of programs: the data that advice is made of.

use super::path::{name, parent};
use crate::finding::event::Category;

/// A kind of data that gets a volume by itself.
#[derive(Debug, Eq, PartialEq)]
pub struct Data {
    /// The category of the writes.
    pub category: Category,
    /// What the volume is called, behind `rosentry-`.
    pub volume: &'static str,
    /// Whether it is kept in memory, which counts against the container's limit.
    pub memory: bool,
    /// `sizeLimit`, as Kubernetes reads it: beyond it the pod is evicted.
    pub size: &'static str,
    /// What to think of.
    pub note: &'static str,
}

/// Each kind of data; the last one is that of everything else.
pub const DATA: &[Data] = &[
    Data {
        category: Category::TempFile,
        volume: "tmp",
        memory: false,
        size: "256Mi",
        note: "temporary files; on the node's disk, not in the pod's memory",
    },
    Data {
        category: Category::PidFile,
        volume: "run",
        memory: true,
        size: "16Mi",
        note: "pid files, locks and sockets; in memory, which counts against the container's memory limit",
    },
    Data {
        category: Category::Cache,
        volume: "cache",
        memory: false,
        size: "512Mi",
        note: "caches, built anew by each pod",
    },
    Data {
        category: Category::Log,
        volume: "log",
        memory: false,
        size: "256Mi",
        note: "logs that nobody collects and that go with the pod: better, log to stdout",
    },
    Data {
        category: Category::ModelCache,
        volume: "models",
        memory: false,
        size: "10Gi",
        note: "each pod downloads anew: a persistentVolumeClaim would keep it",
    },
    Data {
        category: Category::Config,
        volume: "config",
        memory: false,
        size: "16Mi",
        note: "configuration that is made at the start: what is always the same belongs in a ConfigMap",
    },
    Data {
        category: Category::Other,
        volume: "data",
        memory: false,
        size: "256Mi",
        note: "gone with the pod: what must stay wants a persistentVolumeClaim instead",
    },
];

/// The kind of data of a category.
pub fn data(category: Category) -> &'static Data {
    DATA.iter().find(|data| data.category == category).unwrap_or(&DATA[DATA.len() - 1])
}

/// Folders in which nobody misses what an image has there. A folder that a program makes in one is its own, so the folder around
/// it is mounted.
pub const SCRATCH: &[(&str, Category)] = &[
    ("/tmp", Category::TempFile),
    ("/var/tmp", Category::TempFile),
    ("/usr/tmp", Category::TempFile),
    ("/dev/shm", Category::TempFile),
    ("/run", Category::PidFile),
    ("/var/run", Category::PidFile),
    ("/var/lock", Category::PidFile),
    ("/var/cache", Category::Cache),
    ("/var/log", Category::Log),
];

/// Folders that nothing is ever mounted over: what is in them is of the image or of other packages too.
pub const NEVER_OVER: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/sbin",
    "/srv",
    "/sys",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/etc",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/local/share",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
];

/// Folders that no volume mends: the kernel's own.
pub const KERNEL: &[&str] = &["/proc", "/sys", "/dev"];

/// Folders below which there are files of the image wherever there is a folder.
pub const OF_IMAGE: &[&str] =
    &["/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/usr"];

/// A variable of the environment that is a better mend than a mount.
#[derive(Debug)]
pub struct Redirect {
    /// A name that the path has among its folders, or with a leading `*` how its last name ends.
    pub path: &'static str,
    /// Only where the folder with that name stands in one that nothing is mounted over (`/.npm` of a user without a home).
    pub only_where_never_over: bool,
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// What it does.
    pub note: &'static str,
}

/// The value of a variable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value {
    /// As it stands.
    Is(&'static str),
    /// A folder of this name, in a volume for this category.
    Folder(&'static str, Category),
}

/// The folder that redirected data is mounted in; no image has it.
pub const REDIRECTED: &str = "/rosentry";

/// The variables, the first that fits a path counts.
pub const REDIRECTS: &[Redirect] = &[
    Redirect {
        path: "__pycache__",
        only_where_never_over: false,
        name: "PYTHONDONTWRITEBYTECODE",
        value: Value::Is("1"),
        note: "no bytecode is written; or compile it when the image is built, or set PYTHONPYCACHEPREFIX to a writable folder",
    },
    Redirect {
        path: "*.pyc",
        only_where_never_over: false,
        name: "PYTHONDONTWRITEBYTECODE",
        value: Value::Is("1"),
        note: "no bytecode is written; or compile it when the image is built",
    },
    Redirect {
        path: ".npm",
        only_where_never_over: true,
        name: "NPM_CONFIG_CACHE",
        value: Value::Folder("npm", Category::Cache),
        note: "npm's cache",
    },
    Redirect {
        path: ".cache",
        only_where_never_over: true,
        name: "XDG_CACHE_HOME",
        value: Value::Folder("cache", Category::Cache),
        note: "caches of programs that heed the XDG Base Directory Specification",
    },
    Redirect {
        path: ".config",
        only_where_never_over: true,
        name: "XDG_CONFIG_HOME",
        value: Value::Folder("config", Category::Config),
        note: "settings of programs that heed the XDG Base Directory Specification",
    },
    Redirect {
        path: ".local",
        only_where_never_over: true,
        name: "HOME",
        value: Value::Folder("home", Category::Other),
        note: "a home folder: this user's is one that nothing can be mounted over",
    },
];

/// The variable that keeps a program from writing there, if one does.
pub fn redirect(path: &str) -> Option<&'static Redirect> {
    REDIRECTS.iter().find(|redirect| match redirect.path.strip_prefix('*') {
        Some(ending) => path.ends_with(ending),
        None => {
            let mut at = path;
            loop {
                if name(at) == redirect.path {
                    return !redirect.only_where_never_over || NEVER_OVER.contains(&parent(at));
                }
                if at == "/" {
                    return false;
                }
                at = parent(at);
            }
        }
    })
}

/// A variable that can be set instead of mounting a folder, told in a comment.
pub const INSTEAD: &[(&str, &str)] = &[
    ("huggingface", "HF_HOME"),
    ("torch", "TORCH_HOME"),
    (".ollama", "OLLAMA_MODELS"),
    ("nltk_data", "NLTK_DATA"),
    (".npm", "NPM_CONFIG_CACHE"),
    ("_cacache", "NPM_CONFIG_CACHE"),
    (".cache", "XDG_CACHE_HOME"),
    (".config", "XDG_CONFIG_HOME"),
];

/// Where programs look for a temporary folder, one after the other, until one can be written: with the first of them mounted, the
/// others are not tried (`tempfile.gettempdir` of Python, which tries the working directory last).
pub const TEMPORARY: &[&str] = &["/tmp", "/var/tmp", "/usr/tmp"];

/// Techniques of ATT&CK that applications fit as well: what fits another gets no mount.
pub const OF_APPLICATIONS: &[&str] = &["T1105", OF_OWNERS, "T1070.002"];

/// Changes of owner and mode, which are nothing to look at where a program has made the file itself.
pub const OF_OWNERS: &str = "T1222.002";

/// How the names of programs begin whose first argument is a script.
pub const INTERPRETERS: &[&str] = &["python", "node", "ruby", "perl", "php"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::advise::path::{is_at_or_below, mountable};

    #[test]
    fn every_category_has_a_volume_or_is_never_mounted() {
        for category in Category::ALL {
            let never = matches!(category, Category::PackageInstall | Category::SystemBinary | Category::Credentials);
            assert_eq!(DATA.iter().any(|data| data.category == *category), !never, "{}", category.name());
        }
        assert_eq!(DATA[DATA.len() - 1].category, Category::Other);
    }

    #[test]
    fn folders_can_be_mounted_over_or_not_but_not_both() {
        for (folder, _) in SCRATCH {
            assert_eq!(mountable(folder), Ok(()), "{folder}");
            assert!(!NEVER_OVER.contains(folder), "{folder}");
        }
        for folder in KERNEL.iter().chain(OF_IMAGE) {
            assert!(NEVER_OVER.contains(folder), "{folder}");
        }
        assert!(NEVER_OVER.iter().all(|folder| !is_at_or_below(folder, REDIRECTED)));
    }
}
