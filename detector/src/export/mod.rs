//! The export room: formats, sinks, metrics.
