//! The image that most containers of the lab are made of: Debian's static busybox with its applets as links, and the
//! programs beside this folder, packed as an OCI archive. Made once a test process, without a registry. And images of other
//! programs, for the tests that ask for them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The name under which containerd knows the image.
pub const IMAGE: &str = "localhost/rosentry-lab:1";

/// Where the image's links to the system's configuration stand: a symlinked folder on the way to a file.
pub const LINK_TO_ETC: &str = "/settings";

const BUSYBOX: &str = "/bin/busybox";
const FOLDERS: [&str; 18] = [
    "bin",
    "data",
    "dev",
    "etc",
    "etc/cron.d",
    "opt",
    "opt/app",
    "proc",
    "root",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/local",
    "usr/local/bin",
    "usr/share",
    "var",
    "var/log",
];
/// Compiled from `programs/<name>.c` to `/bin/<name>`.
const PROGRAMS: [&str; 2] = ["clear-readonly", "open-by-dirfd"];

/// An OCI image archive, ready for `ctr images import`.
pub struct Image {
    /// The archive's bytes (a tar file).
    pub archive: Vec<u8>,
    /// Digest of the manifest, which is what containerd calls the image's target.
    pub digest: String,
}

/// The lab's image; made when it is first asked for.
pub fn image() -> &'static Image {
    static LAB_IMAGE: OnceLock<Image> = OnceLock::new();
    LAB_IMAGE.get_or_init(build)
}

fn build() -> Image {
    let run = json!({ "Env": ["PATH=/bin"], "Cmd": ["sleep", "2147483647"], "WorkingDir": "/" });
    pack(IMAGE, &[&layer()], &run)
}

/// An image of uncompressed layers, run as `run` says
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>).
fn pack(name: &str, layers: &[&[u8]], run: &serde_json::Value) -> Image {
    let digests: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let layers_described = layers.iter().zip(&digests);
    let layers_described: Vec<_> = layers_described
        .map(|(layer, digest)| described("application/vnd.oci.image.layer.v1.tar", layer, digest))
        .collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": digests },
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers_described,
    })
    .to_string()
    .into_bytes();
    let mut named = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    named["annotations"] = json!({ "io.containerd.image.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [named] }).to_string();

    let mut archive = Builder::new(Vec::new());
    file(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    file(&mut archive, "index.json", index.as_bytes(), 0o644);
    let mut blob = |digest: &str, blob: &[u8]| {
        file(&mut archive, &format!("blobs/{}", digest.replace(':', "/")), blob, 0o644);
    };
    layers.iter().zip(&digests).for_each(|(layer, digest)| blob(digest, layer));
    blob(&digest(&config), &config);
    blob(&digest(&manifest), &manifest);
    Image { archive: archive.into_inner().expect("the archive ends in memory"), digest: digest(&manifest) }
}

/// An image of a program that nobody here wrote, as `cargo xtask test` has unpacked it from Debian's packages, with these files
/// besides: their paths, without the first slash, and what is in them; a path with a slash at its end is a folder of this user's.
pub fn debian_image(name: &str, program: &str, files: &[(&str, &str)], user: u32) -> Image {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target folder");
    let root: PathBuf = target.join("programs").join(program);
    assert!(root.exists(), "{} is not there: run `cargo xtask setup`", root.display());
    // The user who unpacked it need not be root.
    let packed = Command::new("tar")
        .args(["-c", "--owner=0", "--group=0", "--numeric-owner", "--sort=name", "-C"])
        .arg(&root)
        .arg(".")
        .output()
        .expect("tar is installed");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let mut of_test = Builder::new(Vec::new());
    for (path, content) in files {
        if path.ends_with('/') {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            header.set_uid(user.into());
            of_test.append_data(&mut header, path, [].as_slice()).expect("the archive grows in memory");
        } else {
            file(&mut of_test, path, content.as_bytes(), 0o644);
        }
    }
    let of_test = of_test.into_inner().expect("the layer ends in memory");
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    pack(name, &[&packed.stdout, &of_test], &json!({ "Env": [format!("PATH={path}")], "WorkingDir": "/" }))
}

/// An image of the agent, with the libraries that a program which cargo built for tests asks for, and laid out as the one that
/// `cargo xtask image` makes, which needs none.
pub fn agent_image(name: &str, program: &Path) -> Image {
    let asked = Command::new("ldd").arg(program).output().expect("ldd is installed").stdout;
    let asked = String::from_utf8(asked).expect("libraries have names in ASCII");
    let libraries = asked.split_whitespace().filter(|word| word.starts_with('/'));
    let mut layer = Builder::new(Vec::new());
    for path in libraries {
        file(&mut layer, path.trim_start_matches('/'), &std::fs::read(path).expect("the library can be read"), 0o755);
    }
    // Its debug information is most of it, and would be hashed, packed and unpacked.
    let stripped = tempfile::NamedTempFile::new().expect("a file for the program");
    let strip = Command::new("strip").arg("-o").arg(stripped.path()).arg(program).status().expect("strip is installed");
    assert!(strip.success(), "strip takes {}", program.display());
    file(&mut layer, "usr/bin/rosentry", &std::fs::read(stripped.path()).expect("the program can be read"), 0o555);
    let layer = layer.into_inner().expect("the layer ends in memory");
    pack(
        name,
        &[&layer],
        &json!({ "Env": ["PATH=/usr/bin"], "Entrypoint": ["rosentry"], "Cmd": ["run"], "WorkingDir": "/" }),
    )
}

/// The root filesystem as an uncompressed layer.
fn layer() -> Vec<u8> {
    let busybox = std::fs::read(BUSYBOX).expect("busybox-static is installed");
    let applets = Command::new(BUSYBOX).arg("--list").output().expect("busybox lists its applets").stdout;
    let applets = String::from_utf8(applets).expect("applets have ASCII names");

    let mut layer = Builder::new(Vec::new());
    for folder in FOLDERS {
        entry(&mut layer, EntryType::Directory, &format!("{folder}/"), None, &[], 0o755);
    }
    file(&mut layer, "bin/busybox", &busybox, 0o755);
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        link(&mut layer, &format!("bin/{applet}"), "/bin/busybox");
    }
    for program in PROGRAMS {
        file(&mut layer, &format!("bin/{program}"), &compile(program), 0o755);
    }
    file(&mut layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644);
    link(&mut layer, LINK_TO_ETC.trim_start_matches('/'), "/etc");
    layer.into_inner().expect("the layer ends in memory")
}

/// A static program from `programs/`, since the image has no libraries.
fn compile(name: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder for the compiler");
    let program = folder.path().join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/e2e/programs/{name}.c"));
    let compiled = Command::new("gcc")
        .args(["-static", "-O2", "-Wall", "-Werror", "-s", "-o"])
        .args([&program, &source])
        .status()
        .expect("gcc is installed");
    assert!(compiled.success(), "gcc compiles {}", source.display());
    std::fs::read(program).expect("the compiler leaves a program")
}

fn descriptor(media_type: &str, blob: &[u8]) -> serde_json::Value {
    described(media_type, blob, &digest(blob))
}

fn described(media_type: &str, blob: &[u8], digest: &str) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest, "size": blob.len() })
}

fn digest(blob: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(blob) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn file(archive: &mut Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32) {
    entry(archive, EntryType::Regular, path, None, content, mode);
}

fn link(archive: &mut Builder<Vec<u8>>, path: &str, target: &str) {
    entry(archive, EntryType::Symlink, path, Some(target), &[], 0o777);
}

/// One member, owned by root and with the time 0, so that the same parts give the same digest.
fn entry(archive: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, link: Option<&str>, content: &[u8], mode: u32) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    match link {
        Some(target) => archive.append_link(&mut header, path, target),
        None => archive.append_data(&mut header, path, content),
    }
    .expect("the archive grows in memory");
}
