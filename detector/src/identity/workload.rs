//! The workload that a pod belongs to, from its name and the labels that controllers set. Where these don't agree, the
//! pod's own name stands: nothing is guessed.

use std::collections::BTreeMap;

/// Name of the workload (`web` of the pod `web-7d4b9c6f5-x2x7p`); the pod's name where nothing tells.
pub(super) fn workload(pod_name: &str, labels: &BTreeMap<String, String>) -> String {
    let label = |name: &str| labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let is_stateful_set = label("statefulset.kubernetes.io/pod-name") == Some(pod_name)
        || label("apps.kubernetes.io/pod-index").is_some();
    let found = if is_stateful_set {
        without_ordinal(pod_name)
    } else if let Some(job) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
        // The job's controller names the pods after it.
        pod_name.starts_with(job).then_some(job)
    } else if let Some(hash) = label("pod-template-hash").or_else(|| label("rollouts-pod-template-hash")) {
        // A deployment's pod is named <deployment>-<hash>-<random>, by way of its replica set.
        without_random(pod_name).and_then(|name| name.strip_suffix(hash)).and_then(|name| name.strip_suffix('-'))
    } else if label("controller-revision-hash").is_some() {
        // A daemon set's pod is named <daemon set>-<random>.
        without_random(pod_name)
    } else {
        None
    };
    found.filter(|name| !name.is_empty()).unwrap_or(pod_name).to_owned()
}

fn without_ordinal(name: &str) -> Option<&str> {
    let (set, ordinal) = name.rsplit_once('-')?;
    (!ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit())).then_some(set)
}

/// Five of the letters that the API server makes names of (`k8s.io/apimachinery/pkg/util/rand`: no vowels, no 0, 1, 3).
fn without_random(name: &str) -> Option<&str> {
    let (base, random) = name.rsplit_once('-')?;
    let is_random = random.len() == 5 && random.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte));
    is_random.then_some(base)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pod_name: &str, labels: &[(&str, &str)]) -> String {
        workload(pod_name, &labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn each_controller_s_pods_tell_their_workload() {
        assert_eq!(of("web-7d4b9c6f5-x2x7p", &[("pod-template-hash", "7d4b9c6f5")]), "web");
        assert_eq!(of("my-web-7d4b9c6f5-x2x7p", &[("rollouts-pod-template-hash", "7d4b9c6f5")]), "my-web");
        assert_eq!(of("logs-x2x7p", &[("controller-revision-hash", "5f4d")]), "logs");
        assert_eq!(
            of("db-10", &[("statefulset.kubernetes.io/pod-name", "db-10"), ("controller-revision-hash", "db-5f4d")]),
            "db"
        );
        assert_eq!(of("backup-28123456-x2x7p", &[("job-name", "backup-28123456")]), "backup-28123456");
        assert_eq!(of("import-0-x2x7p", &[("batch.kubernetes.io/job-name", "import")]), "import");
    }

    #[test]
    fn where_name_and_labels_disagree_the_pod_s_name_stands() {
        assert_eq!(of("web-x2x7p", &[]), "web-x2x7p");
        assert_eq!(of("web-7d4b9c6f5-x2x7p", &[]), "web-7d4b9c6f5-x2x7p");
        assert_eq!(of("web-other-x2x7p", &[("pod-template-hash", "7d4b9c6f5")]), "web-other-x2x7p");
        assert_eq!(of("web-7d4b9c6f5-aeiou", &[("pod-template-hash", "7d4b9c6f5")]), "web-7d4b9c6f5-aeiou");
        assert_eq!(of("-7d4b9c6f5-x2x7p", &[("pod-template-hash", "7d4b9c6f5")]), "-7d4b9c6f5-x2x7p");
        assert_eq!(of("db-0", &[("statefulset.kubernetes.io/pod-name", "other-0")]), "db-0");
        assert_eq!(of("x", &[("job-name", "unrelated")]), "x");
        assert_eq!(of("web-7d4b9c6f5-x2x7p", &[("pod-template-hash", "")]), "web-7d4b9c6f5-x2x7p");
    }

    proptest! {
        #[test]
        fn any_name_and_hash_give_a_name(name in "\\PC{0,40}", hash in "\\PC{0,10}") {
            let found = of(&name, &[("pod-template-hash", &hash)]);
            prop_assert!(name.starts_with(&found));
        }
    }
}
