//! Front ends by family: what is hooked, and which record it makes. No reading of kernel structures here.

mod cgroup;
pub mod covers;
mod fexit;
mod gate;
mod io_uring;
mod observe;
pub mod sys_exit;
