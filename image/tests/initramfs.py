"""More files for an initramfs: a cpio archive that the kernel unpacks over the ones before it."""

from pathlib import PurePosixPath

PROGRAM, TEXT, FOLDER = 0o100755, 0o100644, 0o040755


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive (`newc`) with these files, each with its mode, and the folders above them."""
    members = {}
    for path, (mode, content) in files.items():
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            members[str(folder)] = (FOLDER, b"")
        members[path] = (mode, content)
    packed = b"".join(_member(path, mode, content) for path, (mode, content) in members.items())
    return packed + _member("TRAILER!!!", 0, b"")


def behind(first: bytes, archive: bytes) -> bytes:
    """Both; the kernel looks for the second where four bytes begin."""
    return _pad(first) + archive


def _member(path: str, mode: int, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    # Number, mode, owner, group, links, time, size, four for devices, length of the name, a sum that is not used.
    fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _pad(header + name) + _pad(content)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
