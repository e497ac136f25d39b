//! Bad SQL against three real workers: each statement ends in the error it deserves, within a
//! deadline and within memory, changes nothing, and the next statement works.
//!
//! The numbers are those of the catalogue of bad inputs (FAULTS A5).
//!
//! - `arena`: a small cluster, and what is checked of every statement
//! - `texts`: 1 to 5, 15, 16: texts that are long, deep, odd or grow when planned
//! - `resources`: 6 to 9, 19, 20: statements that would take all memory or never end
//! - `outside`: 10 to 14: files, URLs and settings of the server
//! - `changes`: 17, 18, 21, 23 to 25: values, statements that do not exist, names that move

mod arena;
mod changes;
mod outside;
mod resources;
mod texts;
