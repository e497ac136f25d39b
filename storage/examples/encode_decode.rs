//! How long TPC-H `lineitem` takes to encode, publish and read, per column and in all.
//!
//! `cargo run -p basalt-storage --example encode_decode [scale] [segments]`
//!
//! In the dev profile the figures mean something only beside each other: this crate is not
//! optimised there.

#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use basalt_storage::chunk_store::{ChunkStore, Identity};
use basalt_storage::ids::{ClusterId, ColumnId, SegmentId, SliceId, TableId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::schema::{Column, TableSchema};
use basalt_storage::segment_reader::decode_row_group;
use basalt_storage::segment_writer::{SegmentSpec, SegmentWriter, WriterOptions};
use basalt_storage::types::{storage_type, to_storage, view_type};
use basalt_storage::vfs::RealVfs;
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let scale: f64 = arguments.next().map_or(Ok(0.1), |text| text.parse())?;
    let segments: u16 = arguments.next().map_or(Ok(1), |text| text.parse())?;

    let generated = Instant::now();
    let (schema, batches) = lineitem(scale)?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    println!("{rows} rows generated in {:?}", generated.elapsed());

    let dir = tempfile::tempdir()?;
    let identity = Identity { cluster: ClusterId::generate(), worker: WorkerId::generate() };
    let store = ChunkStore::open(dir.path(), identity, Arc::new(RealVfs))?;
    let records = write(&store, identity, &schema, &batches, segments)?;
    for pass in ["cold", "hot"] {
        println!("{pass}:");
        read(&store, &schema, &records)?;
    }
    Ok(())
}

fn lineitem(scale: f64) -> Result<(Arc<TableSchema>, Vec<RecordBatch>), Box<dyn Error>> {
    let generator = LineItemArrow::new(LineItemGenerator::new(scale, 1, 1)).with_batch_size(8_192);
    let mut columns = Vec::new();
    for (index, field) in LineItemArrow::schema_ref().fields().iter().enumerate() {
        columns.push(Column {
            id: ColumnId(index as u32),
            name: field.name().clone(),
            data_type: storage_type(field.data_type())?,
            nullable: false,
            declared: Default::default(),
        });
    }
    let schema = Arc::new(TableSchema { version: 1, columns, keys: vec![] });
    let mut batches = Vec::new();
    for batch in generator {
        let batch = batch?;
        let arrays = batch
            .columns()
            .iter()
            .zip(&schema.columns)
            .map(|(array, column)| to_storage(array, &column.data_type))
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        batches.push(RecordBatch::try_new(schema.to_arrow(), arrays)?);
    }
    Ok((schema, batches))
}

fn write(
    store: &ChunkStore,
    identity: Identity,
    schema: &Arc<TableSchema>,
    batches: &[RecordBatch],
    segments: u16,
) -> Result<Vec<SegmentRecord>, Box<dyn Error>> {
    let started = Instant::now();
    let txn = TxnId::generate();
    let mut encoded = Vec::new();
    for slice in 0..segments {
        let spec = SegmentSpec {
            cluster: identity.cluster,
            table: TableId(1),
            slice: SliceId(slice),
            segment: SegmentId::generate(),
            txn,
            schema: Arc::clone(schema),
            sort_key: vec![],
            holder: identity.worker,
        };
        let mut writer = SegmentWriter::new(spec, WriterOptions::default())?;
        for batch in batches.iter().skip(slice.into()).step_by(segments.into()) {
            writer.append(batch.clone())?;
        }
        encoded.push(writer.encode()?);
    }
    println!("encoded in {:?}", started.elapsed());
    let published = Instant::now();
    let records = store.publish(encoded)?;
    let bytes: u64 = records.iter().map(|record| record.bytes).sum();
    println!("{:.1} MB published in {:?}", bytes as f64 / 1e6, published.elapsed());
    Ok(records)
}

fn read(
    store: &ChunkStore,
    schema: &TableSchema,
    records: &[SegmentRecord],
) -> Result<(), Box<dyn Error>> {
    let mut total = Duration::ZERO;
    for column in &schema.columns {
        let target = view_type(&column.data_type);
        let (mut fetch, mut verify, mut decode) = Default::default();
        let (mut rows, mut bytes, mut encoding) = (0, 0, String::new());
        for record in records {
            let meta = store.segment_meta(record)?;
            let Some(chunk) = meta.column(column.id) else { continue };
            encoding = chunk.encoding().to_owned();
            for row_group in 0..meta.row_groups().len() {
                let Some(extent) = chunk.extent(row_group) else { continue };
                let range = chunk.blocks_for(extent);
                let fetched =
                    timed(&mut fetch, || store.read_extent(&chunk.chunk(), record.layout, range))?;
                let verified = timed(&mut verify, || chunk.verify(range, fetched))?;
                let array = timed(&mut decode, || {
                    decode_row_group(&meta, column.id, row_group, &verified, &target, None)
                })?;
                rows += array.len();
                bytes += extent.length;
            }
        }
        let per_row = |time: Duration| time.as_secs_f64() * 1e9 / rows.max(1) as f64;
        println!(
            "  {:16} {encoding:12} {:6.2} B/row  fetch {:5.2}  verify {:5.2}  decode {:6.2} ns/row",
            column.name,
            bytes as f64 / rows.max(1) as f64,
            per_row(fetch),
            per_row(verify),
            per_row(decode),
        );
        total += fetch + verify + decode;
    }
    println!("  all columns in {total:?}");
    Ok(())
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *total += started.elapsed();
    result
}
