//! Parquet made to break readers: each file gives its rows or an error about that file, within
//! memory, and never a panic that escapes (FAULTS A5: 26 to 38).
//!
//! - `forge`: files with one thing wrong in them
//! - `footers`: what the footer says, and lies
//! - `pages`: what pages say, and become
//! - `mutations`: single bytes and lengths at random

mod footers;
mod forge;
mod mutations;
mod pages;
