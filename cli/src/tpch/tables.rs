//! The eight tables: how they are laid out on slices, and where their rows come from. The two big tables
//! go by order, so that their join moves no rows; the others are left to AUTO.

use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

use crate::workload::Table;

macro_rules! batches {
    ($arrow:ident, $generator:ident) => {
        |scale, part, parts| Box::new($arrow::new($generator::new(scale, part, parts)))
    };
}

/// All tables, those that others refer to first.
pub(super) static TABLES: [Table; 8] = [
    Table {
        name: "region",
        columns: "r_regionkey BIGINT NOT NULL, r_name VARCHAR NOT NULL, r_comment VARCHAR NOT NULL",
        distribution: "",
        sort_key: "",
        rows_per_scale: 5.0,
        is_scaled: false,
        schema: RegionArrow::schema_ref,
        batches: batches!(RegionArrow, RegionGenerator),
    },
    Table {
        name: "nation",
        columns: "n_nationkey BIGINT NOT NULL, n_name VARCHAR NOT NULL, \
                  n_regionkey BIGINT NOT NULL, n_comment VARCHAR NOT NULL",
        distribution: "",
        sort_key: "",
        rows_per_scale: 25.0,
        is_scaled: false,
        schema: NationArrow::schema_ref,
        batches: batches!(NationArrow, NationGenerator),
    },
    Table {
        name: "supplier",
        columns: "s_suppkey BIGINT NOT NULL, s_name VARCHAR NOT NULL, s_address VARCHAR NOT NULL, \
                  s_nationkey BIGINT NOT NULL, s_phone VARCHAR NOT NULL, \
                  s_acctbal DECIMAL(15, 2) NOT NULL, s_comment VARCHAR NOT NULL",
        distribution: "",
        sort_key: "SORTKEY(s_suppkey)",
        rows_per_scale: 10_000.0,
        is_scaled: true,
        schema: SupplierArrow::schema_ref,
        batches: batches!(SupplierArrow, SupplierGenerator),
    },
    Table {
        name: "customer",
        columns: "c_custkey BIGINT NOT NULL, c_name VARCHAR NOT NULL, c_address VARCHAR NOT NULL, \
                  c_nationkey BIGINT NOT NULL, c_phone VARCHAR NOT NULL, \
                  c_acctbal DECIMAL(15, 2) NOT NULL, c_mktsegment VARCHAR NOT NULL, \
                  c_comment VARCHAR NOT NULL",
        distribution: "",
        sort_key: "SORTKEY(c_custkey)",
        rows_per_scale: 150_000.0,
        is_scaled: true,
        schema: CustomerArrow::schema_ref,
        batches: batches!(CustomerArrow, CustomerGenerator),
    },
    Table {
        name: "part",
        columns: "p_partkey BIGINT NOT NULL, p_name VARCHAR NOT NULL, p_mfgr VARCHAR NOT NULL, \
                  p_brand VARCHAR NOT NULL, p_type VARCHAR NOT NULL, p_size INTEGER NOT NULL, \
                  p_container VARCHAR NOT NULL, p_retailprice DECIMAL(15, 2) NOT NULL, \
                  p_comment VARCHAR NOT NULL",
        distribution: "",
        sort_key: "SORTKEY(p_partkey)",
        rows_per_scale: 200_000.0,
        is_scaled: true,
        schema: PartArrow::schema_ref,
        batches: batches!(PartArrow, PartGenerator),
    },
    Table {
        name: "partsupp",
        columns: "ps_partkey BIGINT NOT NULL, ps_suppkey BIGINT NOT NULL, \
                  ps_availqty INTEGER NOT NULL, ps_supplycost DECIMAL(15, 2) NOT NULL, \
                  ps_comment VARCHAR NOT NULL",
        distribution: "",
        sort_key: "SORTKEY(ps_partkey)",
        rows_per_scale: 800_000.0,
        is_scaled: true,
        schema: PartSuppArrow::schema_ref,
        batches: batches!(PartSuppArrow, PartSuppGenerator),
    },
    Table {
        name: "orders",
        columns: "o_orderkey BIGINT NOT NULL, o_custkey BIGINT NOT NULL, \
                  o_orderstatus VARCHAR NOT NULL, o_totalprice DECIMAL(15, 2) NOT NULL, \
                  o_orderdate DATE NOT NULL, o_orderpriority VARCHAR NOT NULL, \
                  o_clerk VARCHAR NOT NULL, o_shippriority INTEGER NOT NULL, \
                  o_comment VARCHAR NOT NULL",
        distribution: "DISTKEY(o_orderkey)",
        sort_key: "SORTKEY(o_orderdate)",
        rows_per_scale: 1_500_000.0,
        is_scaled: true,
        schema: OrderArrow::schema_ref,
        batches: batches!(OrderArrow, OrderGenerator),
    },
    lineitem("SORTKEY(l_shipdate)"),
];

/// Lineitem as who asks for single orders would declare it.
pub(super) static LINES_BY_ORDER: [Table; 1] = [lineitem("SORTKEY(l_orderkey)")];

const fn lineitem(sort_key: &'static str) -> Table {
    Table {
        name: "lineitem",
        columns: "l_orderkey BIGINT NOT NULL, l_partkey BIGINT NOT NULL, \
                  l_suppkey BIGINT NOT NULL, l_linenumber INTEGER NOT NULL, \
                  l_quantity DECIMAL(15, 2) NOT NULL, l_extendedprice DECIMAL(15, 2) NOT NULL, \
                  l_discount DECIMAL(15, 2) NOT NULL, l_tax DECIMAL(15, 2) NOT NULL, \
                  l_returnflag VARCHAR NOT NULL, l_linestatus VARCHAR NOT NULL, \
                  l_shipdate DATE NOT NULL, l_commitdate DATE NOT NULL, \
                  l_receiptdate DATE NOT NULL, l_shipinstruct VARCHAR NOT NULL, \
                  l_shipmode VARCHAR NOT NULL, l_comment VARCHAR NOT NULL",
        distribution: "DISTKEY(l_orderkey)",
        sort_key,
        rows_per_scale: 6_000_000.0,
        is_scaled: true,
        schema: LineItemArrow::schema_ref,
        batches: batches!(LineItemArrow, LineItemGenerator),
    }
}
