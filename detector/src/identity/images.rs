//! From the image as a container's record names it to the reference that people know and the digest of its manifest.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::runtime::{CallError, Namespace, Runtime};

/// Images remembered; a node has some tens.
const MAX_REMEMBERED: usize = 512;
/// How the store names an image by the digest of its configuration.
const BY_DIGEST: &str = "sha256:";

/// What a container's record says of its image.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ImageHints {
    /// Digest of the image's configuration: says which image it was, also after a tag has moved on. CRI alone has it.
    pub config_digest: Option<String>,
    /// The record's own name for the image.
    pub recorded: Option<String>,
    /// Other names for it, the most trustworthy first.
    pub others: Vec<String>,
}

/// An image as it goes into events.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ImageName {
    /// Its reference.
    pub reference: Option<Arc<str>>,
    /// Digest of its manifest or index.
    pub digest: Option<Arc<str>>,
}

/// Asks containerd of images, and remembers the answers until images change.
#[derive(Debug, Default)]
pub(super) struct Images {
    remembered: Mutex<HashMap<(Arc<str>, String), Found>>,
    /// References of images, each once: that of many containers is the same.
    references: Mutex<HashSet<Arc<str>>>,
}

/// An image of the store.
#[derive(Clone, Debug, Default)]
struct Found {
    digest: Option<Arc<str>>,
    /// A name of it that is not a digest; only where the one asked for is.
    reference: Option<Arc<str>>,
}

impl Images {
    /// Finds out what can be: an answer that does not come leaves a part empty.
    pub(super) async fn resolve(
        &self,
        runtime: &mut Runtime,
        namespace: &Namespace,
        hints: &ImageHints,
    ) -> Result<ImageName, CallError> {
        let mut found = Found::default();
        for name in [&hints.config_digest, &hints.recorded].into_iter().flatten() {
            found = self.find(runtime, namespace, name).await?;
            if found.digest.is_some() {
                break;
            }
        }
        Ok(self.share(name(hints, found)))
    }

    /// The same, with the reference that other containers have, too.
    pub(super) fn share(&self, mut name: ImageName) -> ImageName {
        let mut references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reference) = &mut name.reference {
            if let Some(known) = references.get(reference) {
                *reference = Arc::clone(known);
            } else {
                if references.len() >= MAX_REMEMBERED {
                    references.clear();
                }
                references.insert(Arc::clone(reference));
            }
        }
        name
    }

    /// Forgets what it knows of a namespace's images.
    pub(super) fn forget(&self, namespace: &str) {
        self.lock().retain(|(of, _), _| &**of != namespace);
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        self.lock().clear();
    }

    async fn find(&self, runtime: &mut Runtime, namespace: &Namespace, name: &str) -> Result<Found, CallError> {
        let key = (Arc::clone(namespace.name()), name.to_owned());
        if let Some(found) = self.lock().get(&key) {
            return Ok(found.clone());
        }
        let digest = match runtime.image(namespace, name).await {
            Ok(image) => image.target.map(|target| target.digest).filter(|digest| !digest.is_empty()).map(Arc::from),
            Err(CallError::NotFound) => None,
            Err(error) => return Err(error),
        };
        let mut reference = None;
        if let (true, Some(digest)) = (name.starts_with(BY_DIGEST), &digest) {
            let images = runtime.images_of(namespace, digest).await?;
            reference = best_reference(images.into_iter().map(|image| image.name)).map(Arc::from);
        }
        let found = Found { digest, reference };
        let mut remembered = self.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, found.clone());
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Arc<str>, String), Found>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The best of several names, one that says a tag (`repository:tag`) before one that says a digest (`repository@sha256:…`).
fn best_reference(names: impl Iterator<Item = String>) -> Option<String> {
    names.filter(|name| is_reference(name)).min_by_key(|name| (name.contains('@'), name.len()))
}

fn is_reference(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(BY_DIGEST)
}

/// The image as it goes into events when nothing can be asked.
pub(super) fn name_from_hints(hints: &ImageHints) -> ImageName {
    name(hints, Found::default())
}

fn name(hints: &ImageHints, found: Found) -> ImageName {
    let names = || hints.recorded.iter().chain(&hints.others).map(String::as_str);
    let named = names().find(|name| is_reference(name)).map(Arc::from);
    let any = || names().find(|name| !name.is_empty()).map(Arc::from);
    ImageName { reference: named.or(found.reference).or_else(any), digest: found.digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(recorded: &str, others: &[&str]) -> ImageHints {
        ImageHints {
            config_digest: None,
            recorded: Some(recorded.to_owned()),
            others: others.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_reference_is_preferred_to_a_digest_wherever_it_is_found() {
        let reference = |hints: &ImageHints, found: Option<&str>| {
            name(hints, Found { digest: None, reference: found.map(Arc::from) }).reference.unwrap()
        };
        assert_eq!(
            &*reference(&hints("docker.io/library/nginx:1", &["nginx"]), Some("other")),
            "docker.io/library/nginx:1"
        );
        assert_eq!(&*reference(&hints("sha256:b713", &["nginx:1"]), Some("other")), "nginx:1");
        assert_eq!(&*reference(&hints("sha256:b713", &["sha256:b713"]), Some("nginx:1")), "nginx:1");
        assert_eq!(&*reference(&hints("sha256:b713", &[]), None), "sha256:b713");
        assert_eq!(name_from_hints(&hints("", &[])).reference, None);
    }

    #[test]
    fn containers_of_one_image_share_its_name() {
        let images = Images::default();
        let [one, other] = [(); 2].map(|()| images.share(name_from_hints(&hints("nginx:1", &[]))).reference.unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        for number in 0..10 * MAX_REMEMBERED {
            images.share(name_from_hints(&hints(&number.to_string(), &[])));
            assert!(images.references.lock().unwrap().len() <= MAX_REMEMBERED);
        }
    }

    #[test]
    fn of_several_names_of_an_image_the_one_with_a_tag_is_taken() {
        let best = |names: &[&str]| best_reference(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(
            best(&["sha256:b713", "localhost/app@sha256:8e0f", "localhost/app:1"]).as_deref(),
            Some("localhost/app:1")
        );
        assert_eq!(best(&["localhost/app@sha256:8e0f"]).as_deref(), Some("localhost/app@sha256:8e0f"));
        assert_eq!(best(&["sha256:b713"]), None);
    }
}
