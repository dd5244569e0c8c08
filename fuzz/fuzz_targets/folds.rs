//! [`detector::fuzzing::FOLDS`].

#![no_main]

use std::path::Path;

use detector::fuzzing::FOLDS as TARGET;

libfuzzer_sys::fuzz_target!(
    init: TARGET.plant(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the corpus can be written"),
    |bytes: &[u8]| {
        TARGET.run(bytes);
    }
);
