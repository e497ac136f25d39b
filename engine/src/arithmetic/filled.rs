//! Which groups have a value: the sum, or the least, of none is NULL.

use arrow::array::{Array, BooleanArray, BooleanBufferBuilder};
use arrow::buffer::NullBuffer;
use datafusion::logical_expr::EmitTo;

/// The groups that have a value. As long as every row has one, so has every group, and there is
/// nothing to keep but their number.
#[derive(Debug, Default)]
pub(in crate::arithmetic) struct Filled {
    groups: usize,
    /// A bit per group, from the first row without a value on.
    bits: Option<BooleanBufferBuilder>,
}

impl Filled {
    /// Hands each valid value to `add` and notes that its group has one.
    pub(in crate::arithmetic) fn visit<V: Copy>(
        &mut self,
        values: &[V],
        valid: Option<&NullBuffer>,
        groups: &[usize],
        total_groups: usize,
        mut add: impl FnMut(usize, V),
    ) {
        let rows = groups.iter().zip(values);
        if valid.is_none() && self.bits.is_none() {
            rows.for_each(|(group, value)| add(*group, *value));
            self.groups = total_groups;
            return;
        }
        let bits = self.bits.get_or_insert_with(|| {
            let mut bits = BooleanBufferBuilder::new(total_groups);
            bits.append_n(self.groups, true);
            bits
        });
        bits.append_n(total_groups.saturating_sub(bits.len()), false);
        let mut add = |group: usize, value: V| {
            bits.set_bit(group, true);
            add(group, value);
        };
        match valid {
            None => rows.for_each(|(group, value)| add(*group, *value)),
            Some(valid) => {
                let chunks = groups.chunks(64).zip(values.chunks(64));
                let bits = valid.inner().bit_chunks();
                for ((groups, values), mut valid) in chunks.zip(bits.iter_padded()) {
                    while valid != 0 {
                        let row = valid.trailing_zeros() as usize;
                        add(groups[row], values[row]);
                        valid &= valid - 1;
                    }
                }
            }
        }
    }

    /// Forgets the groups that are emitted, and says which of them have a value.
    pub(in crate::arithmetic) fn take(&mut self, emit_to: EmitTo) -> Option<NullBuffer> {
        let (EmitTo::First(first), Some(bits)) = (emit_to, &mut self.bits) else {
            return match emit_to {
                EmitTo::First(first) => {
                    self.groups = self.groups.saturating_sub(first);
                    None
                }
                EmitTo::All => {
                    self.groups = 0;
                    self.bits.take().map(|mut bits| NullBuffer::new(bits.finish()))
                }
            };
        };
        let all = bits.finish();
        let rest = all.slice(first, all.len() - first);
        bits.append_buffer(&rest);
        Some(NullBuffer::new(all.slice(0, first)))
    }

    /// Bytes on the heap.
    pub(in crate::arithmetic) fn size(&self) -> usize {
        self.bits.as_ref().map_or(0, |bits| bits.capacity() / 8)
    }
}

/// The rows that have a value and pass the filter; `None` when all do.
pub(in crate::arithmetic) fn passing(
    nulls: Option<&NullBuffer>,
    filter: Option<&BooleanArray>,
) -> Option<NullBuffer> {
    let filter = filter.map(|filter| match filter.nulls() {
        Some(known) => NullBuffer::new(filter.values() & known.inner()),
        None => NullBuffer::new(filter.values().clone()),
    });
    NullBuffer::union(nulls, filter.as_ref())
}
