//! The specification of a pod as a kubelet runs it: a folder of the node for each emptyDir, mounts with their sub-paths, and what a
//! container says of its image, command, variables and seal.

use std::{
    collections::HashMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::pod::{ContainerSpec, sealed, writable};

/// The volumes of a pod.
pub struct Volumes(HashMap<String, PathBuf>);

impl Volumes {
    /// Those of this specification, made in the folder. One in memory is a folder as well: the lab's are all in a tmpfs.
    pub fn of(pod: &Value, folder: &Path) -> Self {
        let volumes = pod["volumes"].as_array().expect("there are volumes").iter();
        Self(
            volumes
                .map(|volume| {
                    let name = text(&volume["name"]);
                    assert!(volume["emptyDir"]["sizeLimit"].is_string(), "{volume}");
                    (name.to_owned(), for_all(folder.join(name)))
                })
                .collect(),
        )
    }

    /// The container with its volumeMounts.
    pub fn mounted(&self, spec: ContainerSpec, container: &Value) -> ContainerSpec {
        container["volumeMounts"].as_array().into_iter().flatten().fold(spec, |spec, mount| {
            let volume = &self.0[text(&mount["name"])];
            let source = match mount["subPath"].as_str().map(|below| volume.join(below)) {
                None => volume.clone(),
                // What an init container made may be a file.
                Some(below) if below.exists() => below,
                Some(below) => for_all(below),
            };
            spec.with_volume(&source, text(&mount["mountPath"]))
        })
    }

    /// The container as it is specified, with its volumeMounts.
    pub fn container(&self, container: &Value) -> ContainerSpec {
        self.mounted(of(container), container)
    }
}

/// The container as it is specified, without its mounts.
pub fn of(container: &Value) -> ContainerSpec {
    let is_sealed = container["securityContext"]["readOnlyRootFilesystem"] == true;
    let command = container["command"].as_array().into_iter().flatten().map(|word| expanded(text(word))).collect();
    let spec = if is_sealed { sealed([]) } else { writable([]) };
    let spec = spec.named(text(&container["name"])).of_image(text(&container["image"])).with_command(command);
    let user = container["securityContext"]["runAsUser"].as_i64();
    let spec = user.into_iter().fold(spec, ContainerSpec::by_user);
    let variables = container["env"].as_array().into_iter().flatten();
    variables.fold(spec, |spec, one| spec.with_variable(text(&one["name"]), &expanded(text(&one["value"]))))
}

/// `$(NAME)` would be a variable's value, which nothing here asks for; `$$` is `$`.
fn expanded(text: &str) -> String {
    text.replace("$$", "$")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// A folder that everybody may write to, as that of an emptyDir is.
fn for_all(folder: PathBuf) -> PathBuf {
    fs::create_dir_all(&folder).expect("the folder is made");
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("its mode is set");
    folder
}
