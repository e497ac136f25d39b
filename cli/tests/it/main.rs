//! Tests of the `basalt` program: its command line, its output and the pure parts of its client
//! commands. What needs a cluster is tested in `sql-tests`.

mod command_line;
mod format;
mod split;
mod upload;
