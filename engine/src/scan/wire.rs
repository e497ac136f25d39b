//! The scan as a message: what one task's variant needs, and nothing about other tasks.

use std::sync::Arc;

use arrow::datatypes::Schema;
use basalt_storage::delete_vector::DeleteVector;
use basalt_storage::ids::{ColumnId, ColumnVersion, Epoch, SegmentId, SliceId, TableId, WorkerId};
use basalt_storage::manifest::Layout;
use basalt_storage::schema::{schema_from_bytes, schema_to_bytes};
use datafusion::common::Statistics;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalExprNode;
use prost::Message;

use super::order::{KeyColumn, KeyOrder, ScanOrder};
use super::{ScanSegment, ScanTable, ScanUnit, SegmentScanExec};
use crate::protocol::{
    Endpoint, MalformedMessage, ScanOrderColumn, ScanPartition, ScanSegment as WireSegment,
    ScanUnit as WireUnit, SegmentScan, WireId, digest_from_wire,
};

const MESSAGE: &str = "SegmentScan";

fn malformed(field: &'static str) -> DataFusionError {
    MalformedMessage::new(MESSAGE, field).into()
}

impl SegmentScanExec {
    /// This scan as a message.
    pub(crate) fn to_wire(
        &self,
        codec: &dyn PhysicalExtensionCodec,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<SegmentScan> {
        let table = &self.table;
        let predicate = match &self.predicate {
            Some(predicate) => {
                Some(converter.physical_expr_to_proto(predicate, codec)?.encode_to_vec())
            }
            None => None,
        };
        Ok(SegmentScan {
            epoch: table.epoch.0,
            table: table.table.0,
            table_name: table.name.clone(),
            schema: schema_to_bytes(&table.schema),
            columns: table.columns.iter().map(|column| column.0).collect(),
            projection: self.projection.iter().map(|index| *index as u32).collect(),
            segments: self.segments.iter().map(segment_to_wire).collect(),
            partitions: self.partitions_to_wire(),
            order: self.order_to_wire(),
            predicate,
            limit: self.limit.map(|limit| limit as u64),
            endpoints: table
                .endpoints
                .iter()
                .map(|(worker, url)| Endpoint { worker: worker.to_wire(), url: url.to_string() })
                .collect(),
        })
    }

    /// Reads a scan from a message, checking every index in it.
    pub(crate) fn from_wire(
        message: SegmentScan,
        context: &TaskContext,
        codec: &dyn PhysicalExtensionCodec,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Self> {
        let schema = decode_schema(&message.schema)?;
        let columns: Vec<_> = message.columns.iter().map(|column| ColumnId(*column)).collect();
        if columns.len() != schema.fields().len() {
            return Err(malformed("columns"));
        }
        let endpoints = message
            .endpoints
            .iter()
            .map(|endpoint| {
                let worker = WorkerId::from_wire(&endpoint.worker, MESSAGE, "endpoints")?;
                let url = endpoint.url.parse().map_err(|_| malformed("endpoints"))?;
                Ok((worker, url))
            })
            .collect::<Result<_>>()?;
        let segments = message
            .segments
            .iter()
            .map(|segment| segment_from_wire(segment, columns.len()))
            .collect::<Result<Vec<_>>>()?;
        let partitions = message
            .partitions
            .iter()
            .map(|partition| partition_from_wire(partition, &segments))
            .collect::<Result<Vec<_>>>()?;
        let order = order_from_wire(&message, columns.len())?;
        let projection: Vec<_> = message.projection.iter().map(|index| *index as usize).collect();
        if projection.iter().any(|index| *index >= columns.len()) {
            return Err(malformed("projection"));
        }
        let predicate = match &message.predicate {
            Some(bytes) => {
                let node = PhysicalExprNode::decode(bytes.as_slice())
                    .map_err(|_| malformed("predicate"))?;
                let decode = PhysicalPlanDecodeContext::new(context, codec);
                Some(converter.proto_to_physical_expr(&node, &schema, &decode)?)
            }
            None => None,
        };
        let statistics = Statistics::new_unknown(&schema);
        let table = ScanTable {
            epoch: Epoch(message.epoch),
            table: TableId(message.table),
            name: message.table_name,
            columns,
            schema: Arc::new(schema),
            endpoints,
        };
        let limit = message.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let scan = Self::from_parts(
            Arc::new(table),
            Arc::new(segments.into()),
            partitions.into(),
            projection,
            statistics,
        );
        Ok(scan.with_predicate(predicate).with_limit(limit).in_order(order))
    }

    fn partitions_to_wire(&self) -> Vec<ScanPartition> {
        let chains = |partition: usize| match &self.order {
            ScanOrder::Key(order) => order.chains[partition].iter().map(|n| *n as u32).collect(),
            _ => vec![],
        };
        let partitions = self.partitions.iter().enumerate();
        partitions.map(|(at, units)| partition_to_wire(units, chains(at))).collect()
    }

    fn order_to_wire(&self) -> Vec<ScanOrderColumn> {
        let ScanOrder::Key(order) = &self.order else { return vec![] };
        let column = |key: &KeyColumn| ScanOrderColumn {
            index: key.index as u32,
            nulls_first: key.nulls_first,
        };
        order.columns.iter().map(column).collect()
    }
}

/// The order of a scan's partitions, whose chains must be all of their units.
fn order_from_wire(message: &SegmentScan, columns: usize) -> Result<ScanOrder> {
    if message.order.is_empty() {
        return Ok(ScanOrder::None);
    }
    let key = |column: &ScanOrderColumn| {
        let index = column.index as usize;
        let is_read = index < columns && message.projection.contains(&column.index);
        is_read
            .then_some(KeyColumn { index, nulls_first: column.nulls_first })
            .ok_or_else(|| malformed("order"))
    };
    let chains = |partition: &ScanPartition| {
        let lengths: Vec<_> = partition.chains.iter().map(|length| *length as usize).collect();
        let units: usize = lengths.iter().sum();
        let fits = units == partition.units.len() && lengths.len() <= units;
        if fits { Ok(lengths) } else { Err(malformed("chains")) }
    };
    Ok(ScanOrder::Key(KeyOrder {
        columns: message.order.iter().map(key).collect::<Result<_>>()?,
        chains: message.partitions.iter().map(chains).collect::<Result<_>>()?,
        merges: true,
    }))
}

fn decode_schema(bytes: &[u8]) -> Result<Schema> {
    schema_from_bytes(bytes).map_err(|_| malformed("schema"))
}

fn segment_to_wire(segment: &ScanSegment) -> WireSegment {
    WireSegment {
        table: segment.table.0,
        slice: u32::from(segment.slice.0),
        segment: segment.segment.to_wire(),
        packed: segment.layout == Layout::Packed,
        rows: segment.rows,
        row_groups: segment.row_groups.clone(),
        meta_digest: segment.meta_digest.as_bytes().to_vec(),
        column_versions: segment
            .column_versions
            .iter()
            .map(|version| version.map_or(0, |version| version.0))
            .collect(),
        holders: segment.holders.iter().map(WireId::to_wire).collect(),
        deleted: segment.deleted.as_ref().map(DeleteVector::to_bytes),
        ordinal: segment.ordinal,
    }
}

fn segment_from_wire(message: &WireSegment, columns: usize) -> Result<ScanSegment> {
    if message.column_versions.len() != columns {
        return Err(malformed("column_versions"));
    }
    let versions = message.column_versions.iter();
    Ok(ScanSegment {
        table: TableId(message.table),
        slice: SliceId(u16::try_from(message.slice).map_err(|_| malformed("slice"))?),
        segment: SegmentId::from_wire(&message.segment, MESSAGE, "segment")?,
        layout: if message.packed { Layout::Packed } else { Layout::Wide },
        rows: message.rows,
        row_groups: message.row_groups.clone(),
        meta_digest: digest_from_wire(&message.meta_digest, MESSAGE)?,
        column_versions: versions
            .map(|version| (*version != 0).then_some(ColumnVersion(*version)))
            .collect(),
        holders: message
            .holders
            .iter()
            .map(|holder| WorkerId::from_wire(holder, MESSAGE, "holders"))
            .collect::<std::result::Result<_, _>>()?,
        deleted: match &message.deleted {
            None => None,
            Some(bytes) => Some(
                DeleteVector::from_bytes(bytes, message.rows).map_err(|_| malformed("deleted"))?,
            ),
        },
        ordinal: message.ordinal,
    })
}

fn partition_to_wire(units: &[ScanUnit], chains: Vec<u32>) -> ScanPartition {
    let units = units.iter().map(|unit| WireUnit {
        segment: unit.segment,
        first_row_group: unit.first,
        end_row_group: unit.end,
    });
    ScanPartition { units: units.collect(), chains }
}

fn partition_from_wire(message: &ScanPartition, segments: &[ScanSegment]) -> Result<Vec<ScanUnit>> {
    message
        .units
        .iter()
        .map(|unit| {
            let segment = segments.get(unit.segment as usize).ok_or_else(|| malformed("units"))?;
            let groups = segment.row_groups.len();
            if unit.first_row_group > unit.end_row_group || unit.end_row_group as usize > groups {
                return Err(malformed("units"));
            }
            Ok(ScanUnit {
                segment: unit.segment,
                first: unit.first_row_group,
                end: unit.end_row_group,
            })
        })
        .collect()
}
