//! Which worker runs what: leaves split by slice owner, tasks routed to the data, plans checked.
//!
//! ```text
//! physical plan ─▶ datafusion-distributed cuts it into stages of tasks
//!                    │  scale: a leaf's row groups go to the task of their slice's owner, or evenly to all who have them
//!                    │  route: task t runs on worker t
//!                    ▼
//!                  colocate: exchanges of rows that are where they should be are taken out
//!                    ▼
//!                  few_rows: stages of few rows are one task
//!                    ▼
//!                  head: nothing heavy stays on the coordinator
//!                    ▼
//!                  whole_builds: joins within a task build one table where that is cheaper
//!                    ▼
//!                  check: no operator that needs all rows sits in a stage of several tasks
//! ```

mod alerts;
mod calls;
mod check;
mod colocate;
mod depth;
mod few_rows;
mod head;
mod leaves;
mod limited_build;
mod moved_keys;
mod movement;
mod node_statistics;
mod one_task;
mod planner;
mod profile;
mod slice_route;
mod topology;
mod whole_builds;
mod window_keys;

pub use alerts::{Alert, alerts};
pub use calls::{Calls, calls};
pub use check::{Refusal, check_plan};
pub(crate) use colocate::Colocation;
pub use leaves::{desired_tasks, route_tasks, scale_up_leaf};
pub(crate) use limited_build::LimitedBuildSides;
pub use moved_keys::{MovedKey, MovedSide, StoredColumn, moved_keys};
pub use movement::{Movement, movements};
pub use node_statistics::estimated_rows;
pub use one_task::start;
pub use planner::{DistributedPlan, plan_distributed};
pub use profile::{Measured, StageProfile, WorkerTime, measured_stages, stages};
pub(crate) use slice_route::slice_route;
pub use topology::Topology;
pub(crate) use whole_builds::WholeBuilds;
pub(crate) use window_keys::VisibleWindowKeys;
