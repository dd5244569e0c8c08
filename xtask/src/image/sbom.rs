//! What the program is made of, as CycloneDX tells it (<https://cyclonedx.org/docs/1.5/json/>): the crates of the agent and of the
//! kernel programs, with the digests of the lock file, and the C library.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::config::Source;

/// The crates that are in the program; what only builds or tests it is not.
const ROOTS: [&str; 2] = ["detector", "detector-ebpf"];

/// The document; `metadata` is what `cargo metadata` prints for the program's target, `lock` the lock file.
///
/// # Errors
/// Where either is not as cargo writes it.
pub fn document(metadata: &Value, lock: &str, c_library: Option<&str>, source: &Source, digest: &str) -> Result<Value> {
    let checksums = checksums(lock)?;
    let packages: BTreeMap<&str, &Value> =
        list(metadata, "packages")?.iter().filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"], "nodes")?.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();

    let mut wanted: Vec<&str> = packages
        .iter()
        .filter(|(_, package)| package["name"].as_str().is_some_and(|name| ROOTS.contains(&name)))
        .map(|(id, _)| *id)
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = wanted.pop() {
        if reached.insert(id) {
            wanted.extend(linked(nodes.get(id).copied().unwrap_or(&Value::Null)));
        }
    }
    let mut components: Vec<Value> =
        reached.iter().filter_map(|id| packages.get(id)).map(|package| component(package, &checksums)).collect();
    components.sort_by_key(|component| component["bom-ref"].to_string());
    if let Some(version) = c_library {
        components.push(json!({
            "type": "library", "bom-ref": "glibc", "name": "glibc", "version": version, "scope": "required",
            "licenses": [{"expression": "LGPL-2.1-or-later"}],
        }));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": source.created(),
            "component": {
                "type": "container", "name": super::NAME, "version": source.version, "bom-ref": digest,
                "purl": format!("pkg:oci/rosentry@{}?repository_url={}", digest.replace(':', "%3A"), super::NAME),
            },
        },
        "components": components,
    }))
}

/// The packages that a node's program is linked with, besides itself.
fn linked(node: &Value) -> impl Iterator<Item = &str> {
    let dependencies = node["deps"].as_array().into_iter().flatten();
    let is_linked = |dependency: &&Value| {
        let mut kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
        kinds.any(|kind| kind["kind"].is_null())
    };
    dependencies.filter(is_linked).filter_map(|dependency| dependency["pkg"].as_str())
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let text = |member: &str| package[member].as_str().unwrap_or_default().to_owned();
    let (name, version) = (text("name"), text("version"));
    let purl = format!("pkg:cargo/{name}@{version}");
    let mut component = json!({
        "type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": version, "scope": "required",
        "licenses": [{"expression": text("license").replace('/', " OR ")}],
    });
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock is no TOML")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    let checksum = |package| Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?));
    Ok(packages.iter().filter_map(checksum).collect())
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("`cargo metadata` tells no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_is_linked_with_its_digest_and_not_what_builds_or_tests() {
        let package = |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let needs = |pkg: &str, kind: Value| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]});
        let packages = ["detector", "a", "b", "builds", "tests", "xtask"].map(package);
        let metadata = json!({
            "packages": packages,
            "resolve": {"nodes": [
                {"id": "detector", "deps": [needs("a", Value::Null), needs("builds", "build".into()), needs("tests", "dev".into())]},
                {"id": "a", "deps": [needs("b", Value::Null)]},
                {"id": "xtask", "deps": [needs("detector", Value::Null)]},
            ]},
        });
        let lock = "[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n";
        let source = Source { version: "1.0.0".to_owned(), revision: None, created_unix_s: 0 };

        let document =
            document(&metadata, lock, Some("2.36"), &source, "sha256:0").expect("both are as cargo writes them");

        let components = document["components"].as_array().expect("it has components");
        let names: Vec<&Value> = components.iter().map(|component| &component["name"]).collect();
        assert_eq!(names, ["a", "b", "detector", "glibc"]);
        assert_eq!(components[1]["hashes"][0]["content"], "abc");
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }
}
