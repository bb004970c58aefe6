"""The replay of a disk's writes, on a log that is made here: without it the tests of lost power would prove nothing."""

import struct

import writes


def test_what_was_written_is_done_again_up_to_each_flush(tmp_path):
    log, part = tmp_path / "log", tmp_path / "part"
    part.write_bytes(bytes(4 * 512))
    entries = [(10, b"a" * 512, 0), (12, b"", writes.FLUSH), (12, b"b" * 1024, 0), (9, b"c" * 1024, writes.FUA), (13, b"", writes.FLUSH)]
    with log.open("wb") as file:
        file.write(struct.pack("<QQQI", writes.MAGIC, 1, len(entries) + 1, 512).ljust(512, b"\0"))
        for sector, data, flags in entries:
            file.write(struct.pack("<QQQQ", sector, len(data) // 512, flags, len(data)).ljust(512, b"\0") + data)
        # The last one is torn.
        file.write(struct.pack("<QQQQ", 10, 4, 0, 2048).ljust(512, b"\0") + b"torn")
    found = writes.read(log)
    assert [(one.offset // 512, one.count, one.is_flush) for one in found] == [
        (10, 512, False), (12, 0, True), (12, 1024, False), (9, 1024, True), (13, 0, True)]
    seen = [(number, part.read_bytes()[::512]) for number in writes.replay(log, found, {part: (10 * 512, 4 * 512)})]
    assert seen == [(1, b"a\0\0\0"), (3, b"c\0bb"), (4, b"c\0bb")]
