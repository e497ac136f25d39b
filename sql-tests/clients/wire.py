"""Flight SQL messages by hand, for what no Python driver sends."""


def _varint(value):
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(number, value):
    """One field of a protobuf message: bytes, text or a number."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, str):
        value = value.encode()
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def command(message, *fields):
    """A Flight SQL message in the Any that it travels in."""
    url = f"type.googleapis.com/arrow.flight.protocol.sql.{message}"
    return field(1, url) + field(2, b"".join(fields))
