//! The archive that `ctr images import`, `skopeo` and `docker load` (25 and newer) take: an OCI image layout in a tar file
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>).

use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::{
    Architecture, NAME,
    config::{Source, config},
    rootfs::File,
};

/// An image, whole.
pub struct Image {
    /// The archive's bytes.
    pub archive: Vec<u8>,
    /// Digest of the manifest: what a registry knows the image by.
    pub digest: String,
}

/// Packs files as an image.
///
/// # Errors
/// None that depends on the files, but for a path that a tar file can't hold.
pub fn pack(files: &[File], source: &Source, architecture: Architecture) -> Result<Image> {
    let layer = layer(files, source.created_unix_s)?;
    let compressed = compressed(&layer)?;
    let config = config(source, architecture, &digest(&layer));
    let config_blob = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_blob),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &compressed)],
        "annotations": source.labels(),
    });
    let manifest_blob = manifest.to_string().into_bytes();
    let mut described = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest_blob);
    described["platform"] = json!({"architecture": architecture.oci(), "os": "linux"});
    described["annotations"] = json!({
        "io.containerd.image.name": format!("{NAME}:{}", source.version),
        "org.opencontainers.image.ref.name": source.version,
    });
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [described]}).to_string();

    let mut archive = Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| entry(&mut archive, path, EntryType::Regular, 0o644, 0, content);
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", index.as_bytes())?;
    for blob in [&config_blob, &manifest_blob, &compressed] {
        add(&format!("blobs/{}", digest(blob).replace(':', "/")), blob)?;
    }
    let archive = archive.into_inner().context("the archive ends in memory")?;
    Ok(Image { archive, digest: digest(&manifest_blob) })
}

/// The root filesystem: the files with the folders above them, owned by root, all of one time.
fn layer(files: &[File], time_unix_s: i64) -> Result<Vec<u8>> {
    let time = u64::try_from(time_unix_s).unwrap_or_default();
    let mut folders: Vec<String> = Vec::new();
    let mut layer = Builder::new(Vec::new());
    for file in files {
        let above = file.path.match_indices('/').map(|(at, _)| format!("{}/", &file.path[..at]));
        for folder in above.collect::<Vec<_>>() {
            if !folders.contains(&folder) {
                entry(&mut layer, &folder, EntryType::Directory, 0o755, time, &[])?;
                folders.push(folder);
            }
        }
        entry(&mut layer, file.path, EntryType::Regular, file.mode, time, &file.content)?;
    }
    layer.into_inner().context("the layer ends in memory")
}

fn entry(
    archive: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    time: u64,
    content: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).with_context(|| format!("{path} does not fit into a tar file"))
}

/// Without a time and a name in its head.
fn compressed(layer: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(layer).and_then(|()| encoder.finish()).context("the layer is compressed in memory")
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(blob) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use flate2::read::GzDecoder;
    use tar::Archive;

    use super::{super::rootfs, *};

    fn source() -> Source {
        Source { version: "1.2.3".to_owned(), revision: Some("c0ffee".to_owned()), created_unix_s: 1_767_323_045 }
    }

    fn packed() -> Image {
        pack(&rootfs::files(b"a program".to_vec()), &source(), Architecture::Amd64).expect("the files fit")
    }

    fn members(archive: &[u8]) -> BTreeMap<String, (Vec<u8>, u32, u64)> {
        let mut archive = Archive::new(archive);
        let entries = archive.entries().expect("it is a tar file").map(|entry| entry.expect("an entry is whole"));
        let read = entries.map(|mut entry| {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("an entry can be read");
            let header = entry.header();
            assert_eq!((header.uid().expect("an owner"), header.gid().expect("a group")), (0, 0));
            let (mode, time) = (header.mode().expect("a mode"), header.mtime().expect("a time"));
            (entry.path().expect("a path").display().to_string(), (content, mode, time))
        });
        read.collect()
    }

    #[test]
    fn the_same_files_give_the_same_digest_and_others_another() {
        assert_eq!(packed().archive, packed().archive);
        let other = pack(&rootfs::files(b"another".to_vec()), &source(), Architecture::Amd64).expect("the files fit");
        assert_ne!(other.digest, packed().digest);
    }

    #[test]
    fn every_blob_lies_under_its_digest_and_leads_to_the_next() {
        let image = packed();
        let members = members(&image.archive);
        let blob = |digest: &Value| {
            let digest = digest.as_str().expect("a digest");
            let (content, ..) = &members[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(super::digest(content), digest);
            content.clone()
        };
        let json = |content: &[u8]| serde_json::from_slice::<Value>(content).expect("it is JSON");

        let index = json(&members["index.json"].0);
        assert_eq!(index["manifests"][0]["digest"], image.digest.as_str());
        let manifest = json(&blob(&index["manifests"][0]["digest"]));
        let config = json(&blob(&manifest["config"]["digest"]));
        let mut layer = Vec::new();
        let compressed = blob(&manifest["layers"][0]["digest"]);
        GzDecoder::new(&compressed[..]).read_to_end(&mut layer).expect("the layer is compressed");
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
    }

    #[test]
    fn the_layer_has_the_program_and_the_certificates_and_nothing_else() {
        let layer = layer(&rootfs::files(b"a program".to_vec()), 7).expect("the files fit");
        let members = members(&layer);
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "etc/",
                "etc/ssl/",
                "etc/ssl/certs/",
                "etc/ssl/certs/ca-certificates.crt",
                "usr/",
                "usr/bin/",
                "usr/bin/rosentry"
            ]
        );
        assert_eq!(members["usr/bin/rosentry"], (b"a program".to_vec(), 0o555, 7));
    }

    #[test]
    fn the_manifest_tells_where_it_comes_from() {
        let image = packed();
        let manifest = &members(&image.archive)[&format!("blobs/{}", image.digest.replace(':', "/"))].0;
        let manifest: Value = serde_json::from_slice(manifest).expect("it is JSON");
        assert_eq!(manifest["annotations"]["org.opencontainers.image.revision"], "c0ffee");
        assert_eq!(manifest["annotations"]["org.opencontainers.image.created"], "2026-01-02T03:04:05Z");
    }
}
