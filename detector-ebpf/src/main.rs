//! rosentry's programs in the kernel.
//!
//! [`hooks`] are the front ends, one a family; they ask [`capture`] for what a record holds and hand it to [`ring`]. What
//! kernel structures look like comes from user space as [`offsets`].

#![no_std]
#![no_main]
// For `atomic`: BPF is built with a nightly feature anyway, its own `core`.
#![feature(asm_experimental_arch)]

mod atomic;
mod budget;
mod capture;
mod fold;
mod folders;
mod hooks;
mod kept;
mod latest;
mod memory;
mod offsets;
mod quick;
mod ring;
mod scratch;

/// The kernel gives its tracing helpers to programs under the GPL only; this object is under both licences.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
