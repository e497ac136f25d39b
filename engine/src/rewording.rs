//! Statements in words that DataFusion understands, where it has trouble with its own.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::{Analyzer, AnalyzerRule};

use crate::functions::coalesce_functions;
use crate::group_keys::GroupKeys;
use crate::peer_frames::PeerFrames;
use crate::union_names::UnionNames;

/// Gives a session that plans the rules that change no answer, but let it have one: also for those
/// who compare with DataFusion.
pub fn reworded(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    // The last of a name counts.
    builder.scalar_functions().get_or_insert_default().extend(coalesce_functions());
    let analyzer = builder.analyzer().get_or_insert_with(Analyzer::new);
    let before_types: [Arc<dyn AnalyzerRule + Send + Sync>; 2] =
        [Arc::new(GroupKeys), Arc::new(PeerFrames)];
    analyzer.rules.splice(0..0, before_types);
    analyzer.rules.push(Arc::new(UnionNames));
    builder
}
