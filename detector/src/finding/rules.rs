//! The rules by which a path tells why a program wrote there: data, tried from the first to the last.

use super::{
    event::{Category, Severity},
    paths::{components, is_at_or_below, name, parent},
};

/// One rule. It fits where one of its lists does.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The category that it tells.
    pub category: Category,
    /// How bad such a write is.
    pub severity: Severity,
    /// What mends it. `{folder}` stands for the entry of `below` that fitted, else for the folder that holds the file;
    /// `{parent}` for the folder that holds the file.
    pub hint: &'static str,
    /// Folders and files, absolute: the path is one of them or lies in one.
    pub below: &'static [&'static str],
    /// Components: the path has one of them, at any depth.
    pub within: &'static [&'static str],
    /// Ends of the last component.
    pub ending: &'static [&'static str],
    /// Names of programs: the executable's last component. Not the thread's name, which it can set to anything.
    pub programs: &'static [&'static str],
}

const NONE: Rule = Rule {
    category: Category::Other,
    severity: Severity::Low,
    hint: "mount an emptyDir at {parent}, or write to a folder that has a volume",
    below: &[],
    within: &[],
    ending: &[],
    programs: &[],
};

/// Of what no rule fits.
pub const FALLBACK: Rule = NONE;

/// The rules. Where one path fits several, the first says more: a `.pid` below `/tmp` is a temporary file all the same.
pub const RULES: &[Rule] = &[
    Rule {
        category: Category::Credentials,
        severity: Severity::High,
        hint: "no application should write accounts, keys or secrets at run time: find out what started this process",
        below: &[
            "/etc/passwd",
            "/etc/shadow",
            "/etc/group",
            "/etc/gshadow",
            "/etc/passwd-",
            "/etc/shadow-",
            "/etc/sudoers",
            "/etc/sudoers.d",
            "/etc/pam.d",
            "/etc/security",
            "/etc/ssh",
            "/etc/kubernetes",
            "/run/secrets",
            "/var/run/secrets",
        ],
        within: &[".ssh", ".aws", ".azure", ".gnupg", ".kube"],
        ..NONE
    },
    Rule {
        category: Category::TempFile,
        severity: Severity::Low,
        hint: "mount an emptyDir at {folder}",
        below: &["/tmp", "/var/tmp", "/usr/tmp", "/dev/shm"],
        ..NONE
    },
    Rule {
        category: Category::PackageInstall,
        severity: Severity::Medium,
        hint: "install packages and plug-ins when the image is built",
        below: &[
            "/var/lib/dpkg",
            "/var/lib/apt",
            "/var/cache/apt",
            "/etc/apt",
            "/lib/apk",
            "/etc/apk",
            "/var/cache/apk",
            "/var/lib/rpm",
            "/usr/lib/sysimage/rpm",
            "/var/lib/dnf",
            "/var/cache/dnf",
            "/var/lib/yum",
            "/var/cache/yum",
        ],
        within: &["site-packages", "dist-packages", "node_modules", "gems", "plugins", "extensions"],
        programs: &[
            "apt", "apt-get", "dpkg", "apk", "yum", "dnf", "microdnf", "rpm", "pip", "pip3", "npm", "yarn", "pnpm",
            "gem", "bundle", "composer",
        ],
        ..NONE
    },
    Rule {
        category: Category::ModelCache,
        severity: Severity::Low,
        hint: "mount a volume at {parent}, or point the program's cache (HF_HOME, TORCH_HOME, OLLAMA_MODELS) at one",
        within: &["huggingface", "torch", "transformers", ".ollama", ".keras", "nltk_data", "models", "datasets"],
        ending: &[".safetensors", ".gguf", ".onnx", ".pt", ".pth"],
        ..NONE
    },
    Rule {
        category: Category::Cache,
        severity: Severity::Low,
        hint: "set PYTHONDONTWRITEBYTECODE=1, or compile when the image is built",
        within: &["__pycache__"],
        ending: &[".pyc"],
        ..NONE
    },
    Rule {
        category: Category::Cache,
        severity: Severity::Low,
        hint: "mount an emptyDir at {parent}",
        below: &["/var/cache"],
        within: &[".cache", ".npm", "cache", "caches", "_cacache"],
        ..NONE
    },
    Rule {
        category: Category::Log,
        severity: Severity::Low,
        hint: "log to stdout, or mount an emptyDir at {parent}: these logs are lost",
        below: &["/var/log"],
        within: &["log", "logs"],
        ending: &[".log"],
        ..NONE
    },
    Rule {
        category: Category::PidFile,
        severity: Severity::Low,
        hint: "mount an emptyDir at {folder}",
        below: &["/run", "/var/run", "/run/lock", "/var/lock"],
        ending: &[".pid", ".lock", ".sock", ".socket"],
        ..NONE
    },
    Rule {
        category: Category::SystemBinary,
        severity: Severity::High,
        hint: "no application should change the image's programs at run time: find out what started this process",
        below: &[
            "/bin",
            "/sbin",
            "/lib",
            "/lib32",
            "/lib64",
            "/libx32",
            "/boot",
            "/usr/bin",
            "/usr/sbin",
            "/usr/lib",
            "/usr/lib32",
            "/usr/lib64",
            "/usr/libexec",
            "/usr/local/bin",
            "/usr/local/sbin",
            "/usr/local/lib",
        ],
        ..NONE
    },
    Rule {
        category: Category::Config,
        severity: Severity::Low,
        hint: "bring the configuration in with a ConfigMap, or render it into an emptyDir",
        below: &["/etc", "/proc/sys", "/usr/local/etc"],
        within: &["config", "conf", "conf.d", ".config"],
        ending: &[".conf", ".cfg", ".ini", ".toml", ".yaml", ".yml", ".properties"],
        ..NONE
    },
];

/// A rule that fitted, with what its hint speaks of.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// The entry of `below` that fitted: the longest.
    pub folder: Option<&'a str>,
}

/// The first rule that fits a write of `path` by the program of this name. A name, which can be borrowed, never stands for
/// a rule that is milder than the path's own.
pub fn find<'a>(path: Option<&[u8]>, program: Option<&[u8]>) -> Match<'a> {
    let none = Match { rule: &FALLBACK, folder: None };
    let by_path = || RULES.iter().find_map(|rule| fit(rule, path?)).unwrap_or(none);
    let of_program =
        |rule: &Rule| program.is_some_and(|program| rule.programs.iter().any(|of| of.as_bytes() == program));
    let found = RULES.iter().find_map(|rule| {
        let by_program = || of_program(rule).then_some(Match { rule, folder: None });
        path.and_then(|path| fit(rule, path)).or_else(by_program)
    });
    match found {
        Some(found) if found.rule.severity >= by_path().rule.severity => found,
        _ => by_path(),
    }
}

fn fit<'a>(rule: &'a Rule, path: &[u8]) -> Option<Match<'a>> {
    let folder = rule
        .below
        .iter()
        .copied()
        .filter(|folder| is_at_or_below(path, folder.as_bytes()))
        .max_by_key(|folder| folder.len());
    let within = || components(path).any(|part| rule.within.iter().any(|within| within.as_bytes() == part));
    let ending = || rule.ending.iter().any(|ending| name(path).ends_with(ending.as_bytes()));
    (folder.is_some() || within() || ending()).then_some(Match { rule, folder })
}

impl Match<'_> {
    /// The rule's hint for `path`; none where the folder that it would name is the root, which can have no volume.
    pub fn hint(&self, path: Option<&[u8]>) -> Option<String> {
        let held_by = path.map(parent).filter(|folder| *folder != b"/").map(String::from_utf8_lossy);
        let folder = self.folder.map(Into::into).or_else(|| held_by.clone());
        let mut hint = self.rule.hint.to_owned();
        for (placeholder, value) in [("{folder}", folder), ("{parent}", held_by)] {
            if hint.contains(placeholder) {
                hint = hint.replace(placeholder, &value?);
            }
        }
        Some(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn category(path: &str) -> Category {
        find(Some(path.as_bytes()), Some(b"app")).rule.category
    }

    #[test]
    fn a_path_tells_the_cause() {
        for (path, expected) in [
            ("/tmp/upload", Category::TempFile),
            ("/tmp", Category::TempFile),
            ("/tmpfoo", Category::Other),
            ("/var/log/nginx/error.log", Category::Log),
            ("/app/logs/out", Category::Log),
            ("/var/cache/nginx/client_temp", Category::Cache),
            ("/app/__pycache__/x.cpython-312.pyc", Category::Cache),
            ("/run/nginx.pid", Category::PidFile),
            ("/app/server.pid", Category::PidFile),
            ("/var/lib/dpkg/lock", Category::PackageInstall),
            ("/usr/lib/python3/dist-packages/x.py", Category::PackageInstall),
            ("/usr/share/jenkins/plugins/git.jpi", Category::PackageInstall),
            ("/root/.cache/huggingface/hub/x", Category::ModelCache),
            ("/srv/llama.gguf", Category::ModelCache),
            ("/etc/nginx/conf.d/default.conf", Category::Config),
            ("/usr/bin/curl", Category::SystemBinary),
            ("/etc/shadow", Category::Credentials),
            ("/home/app/.ssh/authorized_keys", Category::Credentials),
            ("/run/secrets/kubernetes.io/x", Category::Credentials),
            ("/srv/x", Category::Other),
        ] {
            assert_eq!(category(path), expected, "{path}");
        }
    }

    #[test]
    fn a_package_manager_installs_wherever_it_writes() {
        assert_eq!(find(Some(b"/etc/x"), Some(b"dpkg")).rule.category, Category::PackageInstall);
        assert_eq!(find(None, Some(b"apk")).rule.category, Category::PackageInstall);
        assert_eq!(find(None, Some(b"app")).rule.category, Category::Other);
    }

    #[test]
    fn a_program_s_name_makes_no_path_less_severe() {
        assert_eq!(find(Some(b"/usr/bin/curl"), Some(b"dpkg")).rule.category, Category::SystemBinary);
        for path in ["/usr/bin/x", "/etc/shadow", "/tmp/x", "/srv/x", "/etc/x", "/var/log/x"] {
            let severity = |program| find(Some(path.as_bytes()), program).rule.severity;
            assert!(severity(Some(b"apt".as_slice())) >= severity(None), "{path}");
        }
    }

    #[test]
    fn a_hint_names_the_folder_to_mount() {
        let hint = |path: &str| find(Some(path.as_bytes()), None).hint(Some(path.as_bytes()));
        assert_eq!(hint("/tmp/a/b").as_deref(), Some("mount an emptyDir at /tmp"));
        assert_eq!(hint("/run/lock/x").as_deref(), Some("mount an emptyDir at /run/lock"));
        assert_eq!(hint("/var/cache/nginx/t").as_deref(), Some("mount an emptyDir at /var/cache/nginx"));
        assert_eq!(hint("/srv/x.pid").as_deref(), Some("mount an emptyDir at /srv"));
    }

    #[test]
    fn no_hint_proposes_a_volume_over_the_whole_root() {
        assert_eq!(find(Some(b"/x"), None).hint(Some(b"/x")), None);
        assert_eq!(find(None, None).hint(None), None);
    }

    #[test]
    fn every_hint_knows_its_placeholders() {
        for rule in RULES {
            let hint = Match { rule, folder: None }.hint(Some(b"/srv/x")).unwrap();
            assert!(!hint.contains(['{', '}']), "{hint}");
        }
    }
}
