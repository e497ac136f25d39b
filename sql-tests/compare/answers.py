"""When two answers are the same: rows as multisets, in the order asked for, numbers by value.

Numbers are equal when their values are. An engine that answers in floats where the other has
decimals, or keeps fewer digits of a quotient, is compared at the digits of the shorter one; two
floats may differ by FLOAT_TOLERANCE, for engines sum in different orders.
"""

import collections
import datetime
import decimal

import pyarrow as pa

from texts import order_keys, split_limit

# Relative error allowed between floats that two engines summed in different orders.
FLOAT_TOLERANCE = 1e-9
# DataFusion and Basalt cut a quotient of decimals to the digits of its type, DuckDB divides as
# floats: times 100 ("percent") or summed a few dozen times, the last two digits may differ.
QUOTIENT_DIGITS_LOST = 2


def rows_of(table):
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns)) if columns else []


def plain(value):
    """A value as what it means: numbers of every type are comparable, text loses padding."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return decimal.Decimal(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is None:
        # An engine that answers midnight for a date means the date.
        return value.date() if value.time() == datetime.time() else value
    return value


def same(ours, theirs):
    ours, theirs = plain(ours), plain(theirs)
    if ours is None or theirs is None or isinstance(ours, (bool, str)):
        return ours == theirs
    if isinstance(ours, decimal.Decimal) and isinstance(theirs, decimal.Decimal):
        if ours == theirs:
            return True
        # avg() of decimals and quotients have the digits that each engine chose to keep: equal up
        # to the last digit of the shorter one, never for sums, whose scales are the same.
        ours_scale, theirs_scale = -ours.as_tuple().exponent, -theirs.as_tuple().exponent
        if ours_scale == theirs_scale:
            return False
        return abs(ours - theirs) <= decimal.Decimal(1).scaleb(-min(ours_scale, theirs_scale))
    if isinstance(ours, (float, decimal.Decimal)) and isinstance(theirs, (float, decimal.Decimal)):
        ulp = max(
            (10.0 ** (value.as_tuple().exponent + QUOTIENT_DIGITS_LOST) for value in (ours, theirs) if isinstance(value, decimal.Decimal)),
            default=0.0,
        )
        ours, theirs = float(ours), float(theirs)
        if ours != ours or theirs != theirs:
            return ours != ours and theirs != theirs
        return abs(ours - theirs) <= max(ulp, FLOAT_TOLERANCE * max(abs(ours), abs(theirs)))
    return ours == theirs


def digits_of(ours, theirs):
    """Decimal digits that the values of a column share, None when they are exact on both sides."""
    scales = [type.scale for type in (ours, theirs) if pa.types.is_decimal(type)]
    if pa.types.is_floating(ours) or pa.types.is_floating(theirs) or len(set(scales)) == 2:
        return min(scales, default=7) - QUOTIENT_DIGITS_LOST
    return None


def sort_key(digits):
    """Orders rows by what is exact first, so that values which are nearly equal stand together."""
    def key(row):
        exact, near = [], []
        for value, places in zip(map(plain, row), digits):
            if value is None or value != value:
                exact.append((value is not None, "", 0))
            elif isinstance(value, (decimal.Decimal, float)):
                if places is None:
                    exact.append((True, "", value))
                else:
                    near.append(round(float(value), places))
            else:
                exact.append((True, str(value), 0))
        return exact, near

    return key


def first_difference(ours, theirs):
    """None when two tables hold the same rows, otherwise words for the first difference."""
    if ours.num_columns != theirs.num_columns:
        return f"{ours.num_columns} columns instead of {theirs.num_columns}"
    if ours.num_rows != theirs.num_rows:
        return f"{ours.num_rows} rows instead of {theirs.num_rows}"
    key = sort_key([digits_of(a.type, b.type) for a, b in zip(ours.schema, theirs.schema)])
    for mine, other in zip(sorted(rows_of(ours), key=key), sorted(rows_of(theirs), key=key)):
        if not all(same(a, b) for a, b in zip(mine, other)):
            return f"{shown(mine)} instead of {shown(other)}"
    return None


def shown(row):
    return "(" + ", ".join(str(value) for value in row) + ")"


def order_fault(rows, keys):
    """None when rows stand in the order of the keys: NULLs last ascending, first descending."""
    def before(left, right):
        for position, descending in keys:
            a, b = plain(left[position]), plain(right[position])
            if a == b:
                continue
            if a is None or b is None:
                return (b is None) != descending
            return (a < b) != descending
        return True

    for index in range(1, len(rows)):
        if not before(rows[index - 1], rows[index]):
            return f"row {index + 1} stands before its turn: {shown(rows[index])}"
    return None


def multiset(rows):
    return collections.Counter(tuple(plain(value) for value in row) for row in rows)


def check(sql, whole, limited, expected):
    """Words for what is wrong with the answers to one query, or None."""
    fault = first_difference(whole, expected)
    if fault:
        return fault
    _, limit = split_limit(sql)
    rows = rows_of(limited)
    if limit is not None:
        wanted = min(limit, whole.num_rows)
        if len(rows) != wanted:
            return f"with LIMIT {limit}: {len(rows)} rows instead of {wanted}"
        stray = first_stray(rows, rows_of(whole))
        if stray is not None:
            return f"with LIMIT {limit}: {shown(stray)} is not in the whole answer"
    keys = order_keys(sql, [name.lower() for name in limited.column_names])
    fault = order_fault(rows, keys)
    if fault:
        return fault
    if limit is not None and keys:
        # The first rows by the keys: those of the whole answer, up to ties.
        key_of = lambda row: tuple(plain(row[position]) for position, _ in keys)
        first = [key_of(row) for row in rows_of(whole)[:limit]]
        if not all(all(same(a, b) for a, b in zip(key_of(row), key)) for row, key in zip(rows, first)):
            return f"with LIMIT {limit}: not the first rows of the whole answer"
    return None


def first_stray(some, whole):
    """A row of `some` that is missing in `whole`; floats may differ in their last digits."""
    missing = list((multiset(some) - multiset(whole)).elements())
    for row in missing:
        if not any(all(same(a, b) for a, b in zip(row, other)) for other in whole):
            return row
    return None
