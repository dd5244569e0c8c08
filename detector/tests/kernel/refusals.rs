//! Only operations that ended with EROFS are refused writes.

use detector::kernel::attempt::Attempt;
use detector_common::record::RecordKind;

use super::{
    sealed::Sealed,
    sensor::{Attached, begin},
};

fn refused(attempts: &[Attempt]) -> usize {
    attempts.iter().filter(|attempt| attempt.kind == RecordKind::WriteDenied).count()
}

#[tokio::test]
async fn what_fails_for_another_reason_is_no_refused_write() {
    let mut attached = Attached::new();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        begin();
        let exists = std::fs::create_dir(sealed.root.join("etc")).unwrap_err();
        assert_eq!(exists.raw_os_error(), Some(libc::EEXIST));
        let absent = std::fs::File::open(sealed.root.join("nothing")).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::ENOENT));
        std::fs::read(sealed.root.join("etc/passwd")).unwrap();
        // SAFETY: a NUL-terminated path. A probe, not a write.
        let probe = unsafe { libc::access(sealed.path("etc/passwd").as_ptr(), libc::W_OK) };
        assert_eq!((probe, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EROFS)));
    });
    assert_eq!(refused(&seen.attempts), 0, "{:?}", seen.attempts);
}

#[tokio::test]
async fn the_kernels_counter_counts_each_refused_write() {
    const TIMES: usize = 1000;
    let mut attached = Attached::new();
    let before = attached.counters.tallies().write_denied();
    let seen = attached.watch(|| {
        let sealed = Sealed::new();
        begin();
        for _ in 0..TIMES {
            std::fs::write(sealed.root.join("etc/x"), "x").unwrap_err();
        }
    });
    let counted = attached.counters.tallies().write_denied() - before;
    assert_eq!(refused(&seen.attempts), TIMES);
    assert!(counted >= u64::try_from(TIMES).unwrap(), "{counted}");
}

#[tokio::test]
async fn the_verifier_stays_far_from_its_limit() {
    const LIMIT: u32 = 1_000_000;
    let attached = Attached::new();
    for verified in attached.sensor.verified() {
        let instructions = verified.instructions.expect("kernel 5.16 and newer tell");
        println!("{}: {instructions} verified instructions", verified.program);
        assert!(instructions < LIMIT / 2, "{}: {instructions}", verified.program);
    }
}
