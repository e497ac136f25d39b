//! DataFusion integration: everything that coordinator and workers must agree on.
//!
//! Knows nothing of which process it runs in. Read the modules in this order:
//!
//! - [`error`]: the one error that SQL users see
//! - [`snapshot`]: what one statement sees
//! - [`dialect`]: from text to statements
//! - [`types`]: SQL, storage, scan and wire types
//! - [`settings`]: what SQL may set
//! - [`defaults`], [`row_checks`]: DEFAULT, NOT NULL and lengths of columns
//! - [`arithmetic`]: integer arithmetic and sums that never wrap, extremes in any order
//! - `snapshot_catalog`, `information_schema`, `session_functions`: what names mean in a session
//! - [`session`]: the sessions that plans are made and run in, with [`runtime`] limits
//! - [`table`], [`scan`], [`chunks`], [`column_cache`]: reading stored tables
//! - [`statistics`], [`sketches`]: what ANALYZE found out, and how
//! - [`plan_size`], `functions`, `window_memory`: limits of plans, functions and windows
//! - `memory_shares`, `memory_pool`, `query_memory`: who has how much memory
//! - [`files`]: reading files from outside
//! - [`mod@write`]: rows into segments
//! - [`batch_bytes`]: what rows weigh
//! - [`distribute`]: which worker runs what, and the plan checker
//! - [`auto_distribution`]: what `DISTSTYLE AUTO` comes to
//! - [`rewording`] (`decimals_beside_floats`, `group_keys`, `intervals`, `literal_sides`, `lossy_casts`, `peer_frames`, `range_frames`, `union_names`, `unsigned_division`): statements in words that DataFusion understands
//! - `empty_grouping_set`, `portable_windows` (`shifts`), `subqueries`: in words that workers understand, too
//! - `node_expressions`: what rules do to the expressions of one node
//! - `logical_rules` (`constant_filters`, `flattened_joins`, `functional_dependencies`, `lateral_joins`, `null_equality`) and `physical_rules`, with `unknown_nulls`, `exact_bounds`, `unestimated`, `required_orders`, `partition_orders`, `topk_of_floats`, `unread_sides`, `filter_columns` and `pass_through`: DataFusion's rules kept from going too far
//! - `filter_routes`: filters that find their column, where columns share a name
//! - `filter_estimates`, `column_samples`: how much filters keep; `join_order`: the order of joins by cost; `smaller_builds`: which side of one is built
//! - [`shared_subplans`]: what a statement has several times, computed once
//! - `guarded`: a fragment's panics are errors; `late_builds`: build sides that wait
//! - [`codec`], `recursive`, [`plan_gate`], [`allow_list`], [`ipc`]: plans and rows on the wire
//! - [`protocol`], [`log_protocol`], [`commit_protocol`], [`secret`], [`addressee`], [`channels`],
//!   [`fence`]: the internal gRPC contracts

pub mod addressee;
pub mod allow_list;
pub mod arithmetic;
pub mod auto_distribution;
pub mod batch_bytes;
pub mod channels;
pub mod chunks;
pub mod codec;
pub mod column_cache;
mod column_samples;
pub mod commit_protocol;
mod constant_filters;
pub mod decided_by;
mod decimals_beside_floats;
pub mod defaults;
pub mod dialect;
pub mod distribute;
mod empty_grouping_set;
pub mod error;
mod exact_bounds;
pub mod fence;
pub mod files;
mod filter_columns;
mod filter_estimates;
mod filter_routes;
mod flattened_joins;
mod fold;
mod functional_dependencies;
mod functions;
mod group_keys;
mod guarded;
mod information_schema;
mod intervals;
pub mod ipc;
mod join_order;
mod late_builds;
mod lateral_joins;
mod literal_sides;
pub mod log_protocol;
mod logical_rules;
mod lossy_casts;
mod memory_pool;
mod memory_shares;
mod node_expressions;
mod null_equality;
mod partition_orders;
mod pass_through;
mod peer_frames;
mod physical_rules;
mod plan_cache;
pub mod plan_gate;
pub mod plan_size;
mod portable_windows;
pub mod protocol;
mod query_memory;
mod range_frames;
mod recursive;
mod required_orders;
pub mod rewording;
pub mod row_checks;
pub mod runtime;
pub mod scan;
pub mod secret;
pub mod segment_list;
pub mod session;
mod session_functions;
pub mod settings;
pub mod shared_subplans;
mod shifts;
pub mod sketches;
mod smaller_builds;
pub mod snapshot;
mod snapshot_catalog;
mod sorted_scans;
pub mod stack;
pub mod statistics;
mod subqueries;
pub mod table;
mod topk_of_floats;
pub mod types;
mod unestimated;
mod union_names;
mod unknown_nulls;
mod unread_sides;
mod unsigned_division;
mod window_memory;
pub mod write;
mod yielding;
