"""The text of benchmark queries: statements, the last LIMIT, the keys of the last ORDER BY."""

import re


def statements(sql):
    """The statements of a text; none of these texts has a semicolon in a literal."""
    return [part.strip() for part in sql.split(";") if part.strip()]


def is_query(statement):
    return re.match(r"(\s|--[^\n]*\n|/\*.*?\*/|\()*(select|with)\b", statement, re.I | re.S) is not None


def top_level(sql):
    """The text with everything in parentheses, literals and comments blanked out."""
    blank = lambda match: " " * len(match.group())
    sql = re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", blank, sql, flags=re.S)
    depth, out = 0, []
    for char in sql:
        depth -= char == ")"
        out.append(char if depth == 0 and char not in "()" else " ")
        depth += char == "("
    return "".join(out)


def split_limit(sql):
    """The text without its last LIMIT, and the limit; (sql, None) when there is none."""
    found = re.search(r"\blimit\s+(\d+)\s*$", top_level(sql), re.I)
    return (sql[: found.start()], int(found.group(1))) if found else (sql, None)


def order_keys(sql, names):
    """The leading ORDER BY keys that are output columns: (position, is_descending)."""
    flat, (body, _) = top_level(sql), split_limit(sql)
    starts = [match.end() for match in re.finditer(r"\border\s+by\b", flat, re.I)]
    if not starts:
        return []
    keys, text, cut = [], flat[starts[-1] : len(body)], 0
    for item in text.split(","):
        source = sql[starts[-1] + cut : starts[-1] + cut + len(item)].strip()
        cut += len(item) + 1
        match = re.match(r"^([\w.\"]+)(\s+asc|\s+desc)?$", source, re.I)
        if match is None:
            break
        name = match.group(1).split(".")[-1].strip('"').lower()
        if name.isdigit():
            position = int(name) - 1
        elif names.count(name) == 1:
            position = names.index(name)
        else:
            break
        keys.append((position, (match.group(2) or "").strip().lower() == "desc"))
    return keys


def without_limit(sql):
    """The same statements, the queries without their last LIMIT."""
    return ";\n".join(split_limit(part)[0] if is_query(part) else part for part in statements(sql))


def last_query(sql):
    return [part for part in statements(sql) if is_query(part)][-1]
