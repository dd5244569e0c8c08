//! The finding room: what an attempt means. No serialisation formats, no I/O.
