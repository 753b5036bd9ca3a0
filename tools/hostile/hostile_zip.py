"""A zip writer without scruples: every field can lie."""

import struct
import zlib
from dataclasses import dataclass


@dataclass
class Entry:
    """`size`, `packed`, `crc` are what is written, whatever the data are; `at` points the directory at another entry's header."""

    name: str
    data: bytes
    method: int = 0
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    flags: int = 0
    at: int | None = None
    local_name: str | None = None
    hidden: bool = False


def deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def deflated(name, data, **more):
    return Entry(name, deflate(data), 8, **(dict(size=len(data), crc=zlib.crc32(data)) | more))


def fields(entry):
    size = len(entry.data) if entry.size is None else entry.size
    packed = len(entry.data) if entry.packed is None else entry.packed
    crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
    if max(size, packed) < 0xFFFFFFFF:
        return crc, packed, size, b""
    return crc, 0xFFFFFFFF, 0xFFFFFFFF, struct.pack("<HHQQ", 1, 16, size, packed)


def write_zip(*entries, prefix=b"", comment=b"", count=None):
    out, directory, starts = bytearray(prefix), bytearray(), []
    for entry in entries:
        crc, packed, size, extra = fields(entry)
        name = entry.name.encode()
        if entry.at is None:
            starts.append(len(out))
            local = (entry.local_name or entry.name).encode()
            out += struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, entry.flags, entry.method, 0, 33, crc, packed, size, len(local), len(extra))
            out += local + extra + entry.data
        start = starts[-1] if entry.at is None else (starts[entry.at] if entry.at < len(starts) else entry.at)
        if not entry.hidden:
            directory += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 45, 45, entry.flags, entry.method, 0, 33, crc, packed, size, len(name),
                                     len(extra), 0, 0, 0, 0, start) + name + extra
    shown = sum(not entry.hidden for entry in entries) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, shown & 0xFFFF, shown & 0xFFFF, len(directory), len(out), len(comment))
    return bytes(out + directory + end + comment)
