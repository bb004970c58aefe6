"""The launcher beside the daemon under test: as root, in the host's namespace, with users and folders of its own."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from network import inside

PROFILES = 64
TCP_PORTS, UDP_PORTS = (47984, 47989, 48010), (47998, 47999, 48000)


class Launcher:
    """`start` returns when it takes requests."""

    def __init__(self, binaries, folder, namespace, daemon_uid, log):
        self.namespace, self.log = namespace, log
        self.folder, self.homes = folder / "sessions", folder / "homes"
        for name in ("punktfunk-launcher", "punktfunk-agent"):
            shutil.copy(Path(binaries) / name, folder)
        self.binary, self.agent = folder / "punktfunk-launcher", folder / "punktfunk-agent"
        # Other runs on this machine have other users. Each profile has one, and one to sweep up after it.
        self.first_uid = 100_000 + os.getpid() % 500 * 2 * PROFILES
        ports = ",".join(map(str, TCP_PORTS + UDP_PORTS))
        self.options = ["--daemon-uid", daemon_uid, "--first-uid", self.first_uid, "--profiles", PROFILES,
                        "--folder", self.folder, "--homes", self.homes, "--agent", self.agent, "--ports", ports]
        self.process = None

    @property
    def socket(self):
        return self.folder / "launcher.sock"

    def start(self):
        from daemon import wait_for

        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                # With as many descriptors as a program has where nobody asked for more.
                inside(self.namespace, ["setpriv", "--pdeathsig=KILL", "prlimit", "--nofile=1024:",
                                        self.binary, "serve", *self.options]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
        wait_for("the launcher", 30, lambda: self.socket.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, Path(self.log).read_text()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def clear(self):
        """What `ci/start` and a service manager do once it has ended."""
        return subprocess.run(inside(self.namespace, [self.binary, "clear", *self.options]),
                              capture_output=True, text=True, timeout=120)

    def discard(self):
        if self.process:
            if self.process.poll() is None:
                self.kill()
            self.clear()

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(30)
        client.connect(str(self.socket))
        return client

    def ask(self, request):
        """Asks as root may; the answer, and the connection to an agent if one is handed over."""
        with self.connect() as client:
            client.send(request)
            answer, descriptors, _, _ = socket.recv_fds(client, 512, 1)
        return answer.decode(), [socket.socket(fileno=descriptor) for descriptor in descriptors]

    def processes_of(self, profile):
        """What lives of a profile: {pid: words}."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    status = (entry / "status").read_text()
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                fields = dict(line.split(":", 1) for line in status.splitlines())
                if int(fields["Uid"].split()[0]) == self.first_uid + profile and "Z" not in fields["State"]:
                    found[int(entry.name)] = [word.decode(errors="replace") for word in words if word]
        return found
