//! Offsets of members of kernel structures, in bytes from the structure's start.
//!
//! rustc emits no CO-RE relocations, so user space reads the offsets from the running kernel's BTF and hands them to the
//! programs as one read-only global; the verifier then sees constants.

macro_rules! offsets {
    (@found $look_up:ident $type_name:literal $member:literal) => { $look_up($type_name, $member)? };
    (@found $look_up:ident $type_name:literal $member:literal optional) => {
        $look_up($type_name, $member).unwrap_or(UNAVAILABLE)
    };
    ($( $(#[$doc:meta])* $field:ident: $type_name:literal . $member:literal $(, $optional:ident)?; )+) => {
        /// Where the members that the programs read stand in this kernel's structures.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(C)]
        pub struct Offsets { $( $(#[$doc])* pub $field: u32, )+ }

        impl Offsets {
            /// Nothing looked up yet: every offset is [`UNAVAILABLE`].
            pub const UNSET: Self = Self { $( $field: UNAVAILABLE, )+ };

            /// Calls `look_up` with structure and member (nested ones joined by dots) of each offset, in turn. An optional one
            /// that is not found is [`UNAVAILABLE`].
            ///
            /// # Errors
            /// The first error of `look_up` for an offset that is not optional.
            #[cfg(feature = "user")]
            pub fn from_lookup<E>(mut look_up: impl FnMut(&'static str, &'static str) -> Result<u32, E>) -> Result<Self, E> {
                Ok(Self { $( $field: offsets!(@found look_up $type_name $member $($optional)?), )+ })
            }

            /// All of them, in the order of the fields.
            #[cfg(feature = "user")]
            pub fn all(&self) -> impl ExactSizeIterator<Item = u32> {
                [$( self.$field ),+].into_iter()
            }
        }
    };
}

/// In the programs some loads have in place of an offset this and the field's number in [`Offsets`]: user space puts the offset there
/// before it loads them. No other load has such an offset: a program's stack has 512 bytes.
pub const PLACEHOLDER: i16 = i16::MIN;

/// The value of an offset that this kernel does not have.
pub const UNAVAILABLE: u32 = u32::MAX;

offsets! {
    /// Status bits of the running thread; TS_COMPAT tells a 32-bit call.
    task_status: "task_struct"."thread_info.status";
    /// PF_ flags.
    task_flags: "task_struct"."flags";
    /// The parent that the thread would report to (never a tracer).
    task_real_parent: "task_struct"."real_parent";
    /// The first thread of the process.
    task_group_leader: "task_struct"."group_leader";
    /// The process id in the initial pid namespace.
    task_tgid: "task_struct"."tgid";
    /// The thread id in the initial pid namespace.
    task_pid: "task_struct"."pid";
    /// Start since boot, nanoseconds.
    task_start_boottime: "task_struct"."start_boottime";
    /// How often the thread has come to execute another program (64 bits since Linux 5.7).
    task_self_exec_id: "task_struct"."self_exec_id";
    /// Name of the thread.
    task_comm: "task_struct"."comm";
    /// Root and working directory.
    task_fs: "task_struct"."fs";
    /// Open files.
    task_files: "task_struct"."files";
    /// Address space.
    task_mm: "task_struct"."mm";
    /// Effective credentials.
    task_cred: "task_struct"."cred";
    /// The thread's struct pid.
    task_thread_pid: "task_struct"."thread_pid";
    /// Namespaces.
    task_nsproxy: "task_struct"."nsproxy";
    /// cgroups.
    task_cgroups: "task_struct"."cgroups";
    /// The cgroup in the cgroup2 hierarchy.
    css_set_cgroup: "css_set"."dfl_cgrp";
    /// Mount namespace.
    nsproxy_mnt_ns: "nsproxy"."mnt_ns";
    /// Inode number of a mount namespace.
    mnt_ns_inum: "mnt_namespace"."ns.inum";
    /// Depth of a pid's namespace.
    pid_level: "pid"."level";
    /// The pid in each namespace.
    pid_numbers: "pid"."numbers";
    /// Effective capabilities.
    cred_cap_effective: "cred"."cap_effective";
    /// User id, in the initial user namespace.
    cred_uid: "cred"."uid";
    /// Group id, in the initial user namespace.
    cred_gid: "cred"."gid";
    /// User namespace of the credentials.
    cred_user_ns: "cred"."user_ns";
    /// Depth of a user namespace; 0 is the initial one.
    user_ns_level: "user_namespace"."level";
    /// Root of a process.
    fs_root: "fs_struct"."root";
    /// Working directory of a process.
    fs_pwd: "fs_struct"."pwd";
    /// Mount of the root.
    fs_root_mnt: "fs_struct"."root.mnt";
    /// Directory entry of the root.
    fs_root_dentry: "fs_struct"."root.dentry";
    /// Mount of the working directory.
    fs_pwd_mnt: "fs_struct"."pwd.mnt";
    /// Directory entry of the working directory.
    fs_pwd_dentry: "fs_struct"."pwd.dentry";
    /// Table of file descriptors.
    files_fdt: "files_struct"."fdt";
    /// Array of open files.
    fdtable_fd: "fdtable"."fd";
    /// Length of that array.
    fdtable_max_fds: "fdtable"."max_fds";
    /// Path of an open file.
    file_path: "file"."f_path";
    /// Directory entry of an open file.
    file_dentry: "file"."f_path.dentry";
    /// Inode of an open file.
    file_inode: "file"."f_inode";
    /// What an open file may be used for, `FMODE_…`.
    file_mode: "file"."f_mode";
    /// Number of an inode in its filesystem.
    inode_number: "inode"."i_ino";
    /// Tells an inode from one that had its number before.
    inode_generation: "inode"."i_generation";
    /// Mount of a path.
    path_mnt: "path"."mnt";
    /// Directory entry of a path.
    path_dentry: "path"."dentry";
    /// The file that a process executes.
    mm_exe_file: "mm_struct"."exe_file";
    /// Start of the arguments in the process's memory.
    mm_arg_start: "mm_struct"."arg_start";
    /// End of the arguments.
    mm_arg_end: "mm_struct"."arg_end";
    /// Parent folder.
    dentry_parent: "dentry"."d_parent";
    /// Inode of a directory entry.
    dentry_inode: "dentry"."d_inode";
    /// Name within the parent.
    dentry_name: "dentry"."d_name.name";
    /// Root of a mount, from its vfsmount.
    vfsmount_root: "vfsmount"."mnt_root";
    /// Flags of a mount, from its vfsmount.
    vfsmount_flags: "vfsmount"."mnt_flags";
    /// Its superblock.
    vfsmount_sb: "vfsmount"."mnt_sb";
    /// Flags of a superblock.
    sb_flags: "super_block"."s_flags";
    /// Its type.
    sb_type: "super_block"."s_type";
    /// Name of a type of filesystems.
    fstype_name: "file_system_type"."name";
    /// The id of a mount.
    mount_id: "mount"."mnt_id";
    /// The mount namespace that a mount is in; an error or 0 for one of the kernel's own.
    mount_ns: "mount"."mnt_ns";
    /// The vfsmount within its mount.
    mount_mnt: "mount"."mnt";
    /// The mount under it.
    mount_parent: "mount"."mnt_parent";
    /// Where it is mounted.
    mount_mountpoint: "mount"."mnt_mountpoint";
    /// What io_uring keeps of a thread that works for it.
    task_worker_private: "task_struct"."worker_private", optional;
    /// The pool of such a worker, before Linux 6.5: by way of its node's.
    io_worker_wqe: "io_worker"."wqe", optional;
    /// The pool of that.
    io_wqe_wq: "io_wqe"."wq", optional;
    /// The pool of such a worker, since Linux 6.5.
    io_worker_wq: "io_worker"."wq", optional;
    /// Whose pool it is: the thread that submits.
    io_wq_task: "io_wq"."task", optional;
    /// The io_uring rings of a thread; 0 where it has none.
    task_io_uring: "task_struct"."io_uring", optional;
    /// The path that a thread is looking up; 0 for none.
    task_nameidata: "task_struct"."nameidata", optional;
    /// Its name.
    nameidata_name: "nameidata"."name", optional;
    /// The flags of an open, as the kernel understood them.
    open_flags_flags: "open_flags"."open_flag", optional;
    /// The mode of an open.
    open_flags_mode: "open_flags"."mode", optional;
    /// How its path is followed: the `resolve` of openat2 as `LOOKUP_` bits.
    open_flags_lookup: "open_flags"."lookup_flags", optional;
    /// The kernfs node of a cgroup.
    cgroup_kn: "cgroup"."kn";
    /// The hierarchy of a cgroup.
    cgroup_root: "cgroup"."root";
    /// Number of a hierarchy; 0 is cgroup2.
    cgroup_root_hierarchy_id: "cgroup_root"."hierarchy_id";
    /// The id of a kernfs node: the cgroup id.
    kernfs_node_id: "kernfs_node"."id";
    /// The kernel's copy of a path.
    filename_name: "filename"."name", optional;
    /// A short path itself: then `filename_name` points to it.
    filename_short: "filename"."iname", optional;
    /// The file that an io_uring request is on.
    kiocb_file: "io_kiocb"."file", optional;
    /// What an io_uring request asks for.
    kiocb_opcode: "io_kiocb"."opcode", optional;
    /// Flags of an io_uring request: those of its entry in the lowest byte.
    kiocb_flags: "io_kiocb"."flags", optional;
    /// The number that the program gave an io_uring request.
    kiocb_user_data: "io_kiocb"."cqe.user_data", optional;
    /// Its result, once it has one.
    kiocb_res: "io_kiocb"."cqe.res", optional;
    /// Until then, the file descriptor that it is on.
    kiocb_fd: "io_kiocb"."cqe.fd", optional;
    /// The ring of an io_uring request.
    kiocb_ctx: "io_kiocb"."ctx", optional;
    /// Who submitted it, before Linux 6.13.
    kiocb_task: "io_kiocb"."task", optional;
    /// Who submitted it, since Linux 6.13: what io_uring keeps of the task.
    kiocb_tctx: "io_kiocb"."tctx", optional;
    /// The task of that.
    uring_task_task: "io_uring_task"."task", optional;
    /// What an io_uring request has in memory of its own.
    kiocb_async_data: "io_kiocb"."async_data", optional;
    /// There, of a bind: the address.
    async_msghdr_addr: "io_async_msghdr"."addr", optional;
}

impl Offsets {
    /// Whether a refused io_uring request can be told with who submitted it, on this kernel.
    #[cfg(feature = "user")]
    pub fn know_io_uring(&self) -> bool {
        let found = |offset: u32| offset != UNAVAILABLE;
        found(self.filename_name)
            && found(self.kiocb_file)
            && found(self.kiocb_opcode)
            && found(self.kiocb_flags)
            && found(self.kiocb_user_data)
            && found(self.kiocb_res)
            && found(self.kiocb_fd)
            && found(self.kiocb_ctx)
            && (found(self.kiocb_task) || found(self.kiocb_tctx) && found(self.uring_task_task))
    }
}

/// One `upid` in `pid.numbers`: the number and a pointer to its namespace.
pub const UPID_SIZE: u32 = 16;

#[cfg(feature = "user")]
// SAFETY: `repr(C)` with only `u32` members, hence no padding and no invalid bit patterns.
unsafe impl aya::Pod for Offsets {}
