//! What a manifest says of a workload: the names, volumes, mounts and variables that a patch must not disturb.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde_json::Value;

use super::evidence::Name;

/// The API server takes no larger one (etcd's limit).
const FILE_MAX: u64 = 4 << 20;

/// Why a manifest was not read.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file can't be read.
    #[error("{path} can't be read: {source}")]
    Read {
        /// Its name.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is neither YAML nor JSON.
    #[error("{path} is no manifest: {what}")]
    Malformed {
        /// Its name.
        path: String,
        /// What is wrong with it.
        what: String,
    },
}

/// The objects of a file.
#[derive(Debug, Default)]
pub struct Manifest {
    objects: Vec<Value>,
}

/// The object of one workload.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    spec: Value,
}

/// The paths from an object to the specification of its pods.
const TEMPLATES: &[(&str, &[&str])] = &[
    ("Pod", &["spec"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template", "spec"]),
    ("", &["spec", "template", "spec"]),
];

/// The way from an object of this kind to its pods' specification.
pub fn way(kind: &str) -> &'static [&'static str] {
    TEMPLATES.iter().find(|(of, _)| *of == kind || of.is_empty()).map_or(&["spec"], |(_, way)| way)
}

impl Manifest {
    /// Reads a file: YAML, of one document or of several, or JSON; lists are taken apart.
    ///
    /// # Errors
    /// Where it can't be read, or is neither.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        let name = || crate::report::lines::Input::File(path.to_owned()).name();
        let read = || -> io::Result<String> {
            let mut text = String::new();
            File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
            if text.len() as u64 > FILE_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
        };
        let text = read().map_err(|source| SpecError::Read { path: name(), source })?;
        Self::parse(&text).map_err(|what| SpecError::Malformed { path: name(), what })
    }

    /// Reads the text of one.
    ///
    /// # Errors
    /// With what is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
        let mut objects = Vec::new();
        for document in documents {
            match document.get("items") {
                Some(Value::Array(items)) => objects.extend(items.iter().cloned()),
                _ => objects.push(document),
            }
        }
        objects.retain(|object| object.get("kind").is_some_and(Value::is_string));
        if objects.is_empty() { Err("it has no object with a kind".to_owned()) } else { Ok(Self { objects }) }
    }

    /// The object of a workload.
    pub fn of(&self, name: &Name) -> Option<PodSpec> {
        let text = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        self.objects.iter().find_map(|object| {
            let of_object = text(object, "/metadata/name")?;
            // The jobs of a CronJob are named <its name>-<the minute>, and are all that events tell.
            let is_job = text(object, "/kind").as_deref() == Some("CronJob")
                && name
                    .workload
                    .strip_prefix(&of_object)
                    .and_then(|rest| rest.strip_prefix('-'))
                    .is_some_and(|minute| !minute.is_empty() && minute.bytes().all(|byte| byte.is_ascii_digit()));
            let is_it = (of_object == name.workload || is_job)
                && text(object, "/metadata/namespace").is_none_or(|namespace| namespace == name.namespace);
            let kind = text(object, "/kind").filter(|_| is_it)?;
            let spec = way(&kind).iter().try_fold(object, |at, member| at.get(member))?;
            spec.get("containers")?;
            Some(PodSpec { api_version: text(object, "/apiVersion")?, kind, name: of_object, spec: spec.clone() })
        })
    }
}

impl PodSpec {
    fn list<'a>(of: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
        of.get(member).and_then(Value::as_array).into_iter().flatten()
    }

    fn name_of(object: &Value) -> Option<&str> {
        object.get("name").and_then(Value::as_str)
    }

    /// The container with this name, and the list it is in.
    pub fn container(&self, name: &str) -> Option<(&'static str, Container<'_>)> {
        ["containers", "initContainers"].into_iter().find_map(|list| {
            let found = Self::list(&self.spec, list).find(|container| Self::name_of(container) == Some(name))?;
            Some((list, Container(found)))
        })
    }

    /// Names that volumes and init containers have.
    pub fn names(&self) -> BTreeSet<&str> {
        ["volumes", "initContainers", "containers"]
            .into_iter()
            .flat_map(|list| Self::list(&self.spec, list).filter_map(Self::name_of))
            .collect()
    }
}

/// A container of a manifest.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a>(&'a Value);

impl<'a> Container<'a> {
    /// Its mounts: where, and whether they are read-only.
    pub fn mounts(self) -> impl Iterator<Item = (&'a str, bool)> {
        PodSpec::list(self.0, "volumeMounts").filter_map(|mount| {
            let at = mount.get("mountPath")?.as_str()?;
            let at = if at == "/" { at } else { at.trim_end_matches('/') };
            Some((at, mount.get("readOnly").and_then(Value::as_bool) == Some(true)))
        })
    }

    /// Whether it sets this variable.
    pub fn sets(self, variable: &str) -> bool {
        PodSpec::list(self.0, "env").any(|one| PodSpec::name_of(one) == Some(variable))
    }

    /// Its image.
    pub fn image(self) -> Option<&'a str> {
        self.0.get("image").and_then(Value::as_str)
    }

    /// Its `securityContext`.
    pub fn security_context(self) -> Option<&'a Value> {
        self.0.get("securityContext").filter(|context| context.is_object())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: prod}\nspec:\n  template:\n    \
         spec:\n      initContainers: [{name: init}]\n      containers:\n      - name: app\n        image: nginx:1\n        env: \
         [{name: HOME, value: /x}]\n        volumeMounts: [{name: tmp, mountPath: /tmp/}]\n      volumes: [{name: tmp, emptyDir: {}}]\n";

    fn web() -> Name {
        Name::parse("prod/web").unwrap()
    }

    #[test]
    fn a_workload_is_found_among_documents_and_in_lists() {
        let list = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n---\n{DEPLOYMENT}");
        let spec = Manifest::parse(&list).unwrap().of(&web()).unwrap();
        assert_eq!((spec.kind.as_str(), spec.api_version.as_str()), ("Deployment", "apps/v1"));
        let (list, app) = spec.container("app").unwrap();
        assert_eq!(
            (list, app.image(), app.mounts().collect::<Vec<_>>()),
            ("containers", Some("nginx:1"), vec![("/tmp", false)])
        );
        assert!(app.sets("HOME") && !app.sets("TMPDIR"));
        assert_eq!(spec.container("init").unwrap().0, "initContainers");
        assert_eq!(spec.names().into_iter().collect::<Vec<_>>(), ["app", "init", "tmp"]);
        let json = r#"{"kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[]}}]}"#;
        assert_eq!(Manifest::parse(json).unwrap().of(&web()).unwrap().kind, "Pod");
    }

    #[test]
    fn a_job_is_found_by_the_cron_job_that_made_it() {
        let text = r#"{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"backup"},
            "spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[]}}}}}}"#;
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.of(&Name::parse("prod/backup-28123456").unwrap()).unwrap().name, "backup");
        for other in ["prod/backup-x", "prod/backup-", "prod/backups-1"] {
            assert!(manifest.of(&Name::parse(other).unwrap()).is_none(), "{other}");
        }
    }

    #[test]
    fn another_workload_is_not_taken_for_it() {
        let manifest = Manifest::parse(DEPLOYMENT).unwrap();
        assert!(manifest.of(&Name::parse("prod/db").unwrap()).is_none());
        assert!(manifest.of(&Name::parse("test/web").unwrap()).is_none());
    }

    #[test]
    fn what_is_no_manifest_is_refused_in_one_line() {
        for text in ["", "a: [", "just text", "x: 1"] {
            let what = Manifest::parse(text).unwrap_err();
            assert!(!what.is_empty() && !what.contains('\n'), "{text}: {what}");
        }
    }
}
