"""A hostile program in a session: tries whatever it must not be able to do, and writes down what it managed.

`probe.py TARGETS RESULT`: TARGETS is a JSON file that says what is where, RESULT gets an object with an entry for each
attempt, true if it succeeded. Nothing is harmed: signals are signal 0, and what is traced is let go. Run by somebody
who may, the same attempts succeed, which is how the tests know that each of them can.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
libc = ctypes.CDLL(None, use_errno=True)


def succeeds(attempt, *arguments):
    """Whether an attempt came to its end; one that says nothing has."""
    try:
        return attempt(*arguments) is not False
    except (OSError, PermissionError):
        return False


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def open_for_reading(path):
    os.close(os.open(path, os.O_RDONLY))


def make_a_file(folder):
    path = os.path.join(folder, "probe")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)


def connect_local(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(5)
        client.connect(path)


def ask_the_host(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(path)
        client.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: host\r\n\r\n")
        return client.recv(64).startswith(b"HTTP/1.1 200 ")


def trace(pid):
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) != 0:
        return False
    os.waitpid(pid, 0x40000000)  # __WALL
    return libc.ptrace(PTRACE_DETACH, pid, None, None) == 0


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(address, port):
    with socket.socket(family(address), socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect((address, port))


def send(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"x" * 20, (address, port))


def status_field(name):
    return next(line for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith(f"{name}:")).split()[1]


def attempts(targets):
    for path in targets["secrets"]:
        yield f"read {path}", read, path
    for folder in targets["folders"]:
        yield f"list {folder}", os.listdir, folder
    for path in targets["programs"]:
        yield f"change {path}", os.utime, path
    for folder in targets["parents"]:
        yield f"write into {folder}", make_a_file, folder
    yield "ask the host", ask_the_host, targets["host"]
    yield "ask the launcher", connect_local, targets["launcher"]
    for name, pid in targets["processes"].items():
        for file in ("environ", "maps"):
            yield f"read {file} of {name}", read, f"/proc/{pid}/{file}"
        yield f"open memory of {name}", open_for_reading, f"/proc/{pid}/mem"
        yield f"list descriptors of {name}", os.listdir, f"/proc/{pid}/fd"
        yield f"trace {name}", trace, pid
        yield f"signal {name}", os.kill, pid, 0
    for address in targets["addresses"]:
        for port in targets["tcp"]:
            yield f"connect to {address} port {port}", connect, address, port
    for address in targets["addresses"] + targets["everybody"]:
        for port in targets["udp"]:
            yield f"send to {address} port {port}", send, address, port
    yield "gain privileges", lambda: status_field("NoNewPrivs") == "0"
    yield "have capabilities", lambda: int(status_field("CapBnd"), 16) != 0
    yield "be in another group", lambda: bool(set(os.getgroups()) - {os.getgid()})


def main():
    targets = json.loads(Path(sys.argv[1]).read_text())
    result, done = Path(sys.argv[2]), {}
    for what, attempt, *arguments in attempts(targets):
        done[what] = succeeds(attempt, *arguments)
    if targets["stays"]:
        # Something that has left its group, its session and its parent, and does not listen to reason.
        subprocess.run(["setsid", "-f", "sh", "-c", "trap '' TERM HUP INT; sleep 6000 & sleep 6000"], check=True)
    unfinished = result.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(done))
    unfinished.rename(result)
    if targets["stays"]:
        signal.pause()


if __name__ == "__main__":
    main()
