//! The `basalt` binary.
