"""What a machine wrote to its disk, in order, as QEMU's blklogwrites wrote it down: the format of Linux's dm-log-writes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4


@dataclass(frozen=True)
class Write:
    """One entry: `count` bytes at `offset` of the disk, which lie at `place` of the log. A flush may have none."""

    offset: int
    count: int
    place: int
    is_flush: bool
    is_discard: bool


def read(log: Path) -> list[Write]:
    """All entries that came to the log whole."""
    found = []
    with log.open("rb") as file:
        magic, version, entries, sector = struct.unpack("<QQQI", file.read(28))
        assert (magic, version) == (MAGIC, 1), (magic, version)
        place, end = sector, log.stat().st_size
        for _ in range(entries):
            file.seek(place)
            head = file.read(32)
            if len(head) < 32:
                break
            where, count, flags, _ = struct.unpack("<QQQQ", head)
            # What is discarded has no data here.
            data = 0 if flags & DISCARD else count * sector
            if place + sector + data > end:
                break
            found.append(Write(where * sector, count * sector, place + sector, bool(flags & (FLUSH | FUA)),
                               bool(flags & DISCARD)))
            place += sector + data
    return found


def replay(log: Path, writes: list[Write], parts: dict[Path, tuple[int, int]]) -> Iterator[int]:
    """Does the writes again, to files that are parts of the disk by start and length in bytes. Stops after each entry that
    is a flush, when all before it have come to the disk, and gives its number."""
    with log.open("rb") as source:
        files = {path: path.open("r+b", buffering=0) for path in parts}
        try:
            for number, write in enumerate(writes):
                if write.count and not write.is_discard:
                    source.seek(write.place)
                    data = source.read(write.count)
                    for path, (start, length) in parts.items():
                        first, last = max(write.offset, start), min(write.offset + write.count, start + length)
                        if first < last:
                            files[path].seek(first - start)
                            files[path].write(data[first - write.offset : last - write.offset])
                if write.is_flush:
                    yield number
        finally:
            for file in files.values():
                file.close()
