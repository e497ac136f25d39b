//! Look-ups and changes of a few orders, and of one day's line items: what the 22 queries never do.

use crate::workload::Operation;

/// Far apart, so that no two of them meet in a page.
const STRIDE: u64 = 7_919;

/// In the order in which they are run.
pub(super) static OPERATIONS: [Operation; 6] = [
    Operation {
        name: "look up an order",
        table: "orders",
        sql: |n, rows| format!("SELECT * FROM orders WHERE o_orderkey = {}", order_key(n, rows)),
        times: 20,
    },
    Operation {
        name: "look up its items",
        table: "orders",
        sql: |n, rows| format!("SELECT * FROM lineitem WHERE l_orderkey = {}", order_key(n, rows)),
        times: 20,
    },
    Operation {
        name: "insert an order",
        table: "orders",
        sql: |n, _| {
            format!(
                "INSERT INTO orders VALUES (-{}, 1, 'O', 100.25, DATE '1998-09-01', '1-URGENT', \
                 'Clerk#000000001', 0, 'inserted by a benchmark')",
                n + 1
            )
        },
        times: 20,
    },
    Operation {
        name: "update an order",
        table: "orders",
        sql: |n, rows| {
            let key = order_key(n, rows);
            format!("UPDATE orders SET o_orderstatus = 'P' WHERE o_orderkey = {key}")
        },
        times: 20,
    },
    Operation {
        name: "delete an order",
        table: "orders",
        sql: |n, _| format!("DELETE FROM orders WHERE o_orderkey = -{}", n + 1),
        times: 20,
    },
    Operation {
        name: "update a day",
        table: "orders",
        sql: |n, _| {
            format!(
                "UPDATE lineitem SET l_shipmode = 'RAIL' \
                 WHERE l_shipdate = DATE '1994-01-01' + INTERVAL '{n}' DAY"
            )
        },
        times: 1,
    },
];

/// The key of one of `rows` orders: of 32 numbers, TPC-H uses the first eight.
fn order_key(n: u64, rows: u64) -> u64 {
    let order = n.wrapping_mul(STRIDE) % rows.max(1);
    order / 8 * 32 + order % 8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_orders_have() {
        assert_eq!((order_key(0, 10), order_key(1, 7_920)), (1, 7_919 / 8 * 32 + 8));
        assert!((0..1_000).all(|n| (1..=8).contains(&(order_key(n, 1_500_000) % 32))));
    }
}
