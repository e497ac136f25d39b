//! A sum by a count, as the nearest DOUBLE.

/// Integers up to here are DOUBLEs, so that the processor's division rounds once.
const EXACT_MAX: u128 = 1 << f64::MANTISSA_DIGITS;

/// The DOUBLE nearest to `sum / count`, ties to even. `count` is not 0.
pub(in crate::arithmetic) fn quotient(sum: i128, count: u64) -> f64 {
    let magnitude = sum.unsigned_abs();
    if magnitude <= EXACT_MAX && u128::from(count) <= EXACT_MAX {
        return sum as f64 / count as f64;
    }
    if magnitude == 0 {
        return 0.0;
    }
    // At least 64 bits of the quotient: the last of them stands for all that follow, far behind the 53 that
    // a DOUBLE keeps, so that the conversion rounds once.
    let shift = magnitude.leading_zeros();
    let (shifted, count) = (magnitude << shift, u128::from(count));
    let bits = (shifted / count) | u128::from(!shifted.is_multiple_of(count));
    let quotient = bits as f64 * 2_f64.powi(-(shift as i32));
    if sum < 0 { -quotient } else { quotient }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::i256;
    use proptest::prelude::*;

    use super::quotient;

    /// How far `value * count` is from `sum`, in units of 2^-64: values here are multiples of 2^-64.
    fn distance(value: f64, sum: i128, count: u64) -> i256 {
        const UNITS: i32 = 64;
        let (mantissa, exponent) = {
            let bits = value.abs().to_bits();
            let exponent = (bits >> 52) as i32;
            ((bits & ((1 << 52) - 1)) | 1 << 52, exponent - 1075 + UNITS)
        };
        let product = i256::from_i128(i128::from(mantissa)) * i256::from_i128(i128::from(count));
        let product = if exponent >= 0 {
            product << exponent as u8
        } else {
            product >> exponent.unsigned_abs() as u8
        };
        let exact = i256::from_i128(sum).wrapping_abs() << UNITS as u8;
        (product - exact).wrapping_abs()
    }

    fn sums() -> impl Strategy<Value = i128> {
        prop_oneof![
            (any::<i64>(), 1_i64..1 << 40).prop_map(|(v, n)| i128::from(v) * i128::from(n)),
            any::<i128>().prop_map(|sum| sum >> 2),
            any::<i64>().prop_map(i128::from),
        ]
    }

    proptest! {
        #[test]
        fn no_double_is_nearer_to_the_quotient(sum in sums(), count in 1_u64..1 << 40) {
            // Below, a double has more than 64 bits behind the point.
            prop_assume!(sum.unsigned_abs() >= u128::from(count));
            let value = quotient(sum, count);
            prop_assert_eq!(value.is_sign_negative(), sum < 0);
            let off = distance(value, sum, count);
            prop_assert!(off <= distance(value.abs().next_up(), sum, count));
            prop_assert!(off <= distance(value.abs().next_down(), sum, count));
        }
    }

    #[test]
    fn what_cancels_out_leaves_what_is_left() {
        assert_eq!(quotient(16, 4), 4.0);
        assert_eq!(quotient(0, u64::MAX), 0.0);
        assert_eq!(quotient(-1, u64::MAX), -1.0 / u64::MAX as f64);
        assert_eq!(quotient((1 << 53) + 1, 1), 9_007_199_254_740_992.0, "ties to even");
        assert_eq!(quotient((1 << 54) + 3, 2), 9_007_199_254_740_994.0, "not a tie");
    }
}
