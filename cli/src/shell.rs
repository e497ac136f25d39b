//! The SQL shell: `basalt sql`, interactive or fed by `-c`, `-f` and standard input.
//!
//! ```text
//! terminal --interactive--+
//! file, stdin --script----+--> Splitter --> Statement --> Session::run --> ResultWriter --> stdout
//! -c texts ---------------+             `-> meta command (\d, \x, ...)
//! ```
//! Invariant: one statement runs at a time, to its end, its error or Ctrl-C; a script stops at
//! its first error.

mod history;
mod interactive;
mod meta;
mod script;
mod session;
mod split;

pub use interactive::interactive;
pub use meta::{Meta, parse_meta};
pub use script::{run_reader, run_text};
pub use session::{Session, SessionOptions, StatementError, duration_text, grouped};
pub use split::{Splitter, Statement};
