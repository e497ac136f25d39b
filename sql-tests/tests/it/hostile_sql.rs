//! Bad SQL against three real workers: each statement ends in the error it deserves, within a
//! deadline and within memory, changes nothing, and the next statement works.
//!
//! Every test also asserts, by what `arena` does after each statement and at its end: the error has
//! a SQLSTATE, the next statement on the same connection works, nothing was created, nothing is left
//! running, and the process stayed within its memory. Numbers are those of FAULTS A5:
//!
//! | | test | asserts |
//! |---|---|---|
//! | 1, 2 | `texts::empty_endless_and_broken_texts_are_refused` | refused before they are parsed, with place or remedy |
//! | 3 | the same, `a_text_that_is_not_utf8_is_refused` | as a query, an update and a prepared statement |
//! | 4 | `deep_texts_are_refused_or_answered` | eight kinds of nesting, at 10,000 and at 10 to 45 |
//! | 5 | `long_chains_...`, `what_grows_when_it_is_planned_is_refused` | limits by name, and answers just below them |
//! | 6 | `resources::functions_that_make_too_much_are_refused`, `aggregates_of_...` | the function's name; on constants and on workers |
//! | 7, 8 | `what_never_ends_is_ended_by_its_client` | cancelled within ten seconds |
//! | 9 | `joins_and_sorts_beyond_memory_...`, `windows_over_...` | `RESOURCES_EXHAUSTED` |
//! | 10, 12 | `outside::sql_reads_nothing_outside_its_folders` | 13 paths, 6 URLs, links, a pipe |
//! | 11 | `sql_writes_no_files_and_registers_none` | no file appears |
//! | 13 | `sql_changes_no_limits_of_the_server` | every setting of DataFusion |
//! | 14 | `explain_changes_nothing_and_one_statement_is_one` | rows are as they were |
//! | 15, 16 | `texts::names_are_only_names` | no name becomes a path |
//! | 17 | `changes::values_that_do_not_fit_are_refused_and_nothing_of_them_stays` | no row of 30 INSERTs |
//! | 18 | `keys_are_changed_like_any_column_and_readers_keep_what_they_pinned` | keys are found again, a reader has all old rows |
//! | 19 | `resources::what_has_no_value_is_an_error` | by rows on workers |
//! | 20 | `patterns_are_bounded` | refused unread above 256 KiB; linear below |
//! | 21 | `changes::parameters_of_...`, `statements_that_are_prepared_and_never_closed_are_bounded` | bytes here; numbers in `coordinator/tests/it/flight/sessions.rs` |
//! | 22 | `names::names_are_quoted_wherever_we_write_sql_ourselves` | every statement, with names that are SQL |
//! | 23 | `changes::a_table_dropped_and_made_again_under_a_scan_...`, `names::an_insert_...`, `an_upload_never_reaches_another_table_...` | old rows and no other; a conflict, and no row |
//! | 24 | `coordinator/tests/it/catalog/commits.rs` | clients cannot name a statement yet; the catalog's rule for it |
//! | 25 | `texts::towers_of_views_are_refused` | refused at a height, by nodes and by depth |
//!
//! - `arena`: a small cluster, and what is checked of every statement
//! - `texts`: texts that are long, deep, odd or grow when planned
//! - `resources`: statements that would take all memory or never end
//! - `outside`: files, URLs and settings of the server
//! - `changes`: values, statements that do not exist, tables that change under a reader
//! - `names`: names that are SQL, names that come to mean another table

mod arena;
mod changes;
mod names;
mod outside;
mod resources;
mod texts;
