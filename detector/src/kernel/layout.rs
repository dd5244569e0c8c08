//! The layout of the running kernel's structures, from its BTF.

use std::{fs, io, path::PathBuf};

use detector_common::{offsets::Offsets, uring::MembersTable};

use super::{
    btf::Types,
    pins,
    plan::{Hooks, Observing},
    points::{self, Place, Point},
};

/// Where the kernel offers its BTF (CONFIG_DEBUG_INFO_BTF, kernel 5.4).
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Why the layout of the kernel's structures is not known.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The kernel offers no BTF.
    #[error(
        "this kernel offers no type information at {}: boot one that is built with CONFIG_DEBUG_INFO_BTF=y",
        .path.display()
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The BTF could not be read.
    #[error("cannot read the kernel's type information at {}: {source}", .path.display())]
    Read {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The BTF is not what its format says.
    #[error("cannot make sense of the kernel's type information at {}: {reason}", .path.display())]
    Malformed {
        /// Where it was read.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A structure or member is missing or not on a byte boundary.
    #[error(
        "this kernel's structures are not known to rosentry: {type_name}.{member} is missing; please report the kernel version"
    )]
    Unknown {
        /// The structure.
        type_name: &'static str,
        /// The member.
        member: &'static str,
    },
}

/// What the programs know of the running kernel's structures.
pub(super) struct Layout {
    pub(super) offsets: Offsets,
    /// Where the arguments of io_uring's operations stand; none where this kernel's io_uring is not known.
    pub(super) io_uring: Option<MembersTable>,
    /// Where the programs of each point go.
    pub(super) places: Vec<(&'static Point, Place)>,
}

impl Layout {
    /// The name of what this binary would load into this kernel for those who ask for `hooks`, and for learning mode.
    pub(super) fn build_name(&self, object: &[u8], hooks: Hooks, observing: Option<Observing>) -> String {
        let Self { offsets, io_uring, places } = self;
        let places: Vec<_> = places.iter().map(|(point, place)| (point.exit, place)).collect();
        let debugs = tracing::enabled!(tracing::Level::DEBUG);
        let rest = format!("{offsets:?} {io_uring:?} {places:?} {hooks:?} {observing:?} {debugs}");
        pins::build_name(&[object, rest.as_bytes()])
    }
}

/// Looks up every offset that the programs read.
///
/// # Errors
/// See [`LayoutError`].
pub(super) fn read() -> Result<Layout, LayoutError> {
    let path = || PathBuf::from(BTF_PATH);
    let bytes = fs::read(BTF_PATH).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LayoutError::NoBtf { path: path() },
        _ => LayoutError::Read { path: path(), source },
    })?;
    let types =
        Types::parse(&bytes).map_err(|error| LayoutError::Malformed { path: path(), reason: error.to_string() })?;
    let offsets = Offsets::from_lookup(|type_name, member| {
        types.offset_of(type_name, member).ok_or(LayoutError::Unknown { type_name, member })
    })?;
    let members = MembersTable::from_lookup(|type_name, member| types.offset_of(type_name, member));
    let has = |function: &points::Function| types.has_function(function.name, function.parameters);
    let places = points::POINTS.iter().map(|point| (point, points::place(point, has))).collect();
    Ok(Layout { offsets, io_uring: members.filter(|_| offsets.know_io_uring()), places })
}

#[cfg(test)]
mod tests {
    use detector_common::offsets::UNAVAILABLE;

    use super::*;

    #[test]
    fn every_offset_is_found_in_the_running_kernel() {
        let Layout { offsets, io_uring, places: _ } = read().expect("this kernel offers BTF");
        assert_eq!(offsets.vfsmount_root, 0, "mnt_root has been the first member of vfsmount for ever");
        assert_ne!(offsets.task_real_parent, UNAVAILABLE);
        assert!(offsets.dentry_name > offsets.dentry_parent, "d_name follows d_parent");
        assert!(io_uring.is_some(), "this kernel's io_uring is known");
    }
}
