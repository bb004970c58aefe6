"""Two houses on one street: the host's network namespace, the client's, and a cable between them.

The tests own their addresses, so they meet no other host on the machine, use the default ports and let multicast pass
as on a home network. Names carry the process that made them. What a killed run left behind is removed by the next one.
"""

import os
import subprocess
from pathlib import Path

PREFIX = "punktfunk-test-"
HOST_V4, CLIENT_V4 = "10.77.0.1", "10.77.0.2"
HOST_V6, CLIENT_V6 = "fd77::1", "fd77::2"


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


class Network:
    """Made by `with Network() as network`; gone afterwards, with every process that is still in it. Streets of other
    names may be there at the same time."""

    def __init__(self, street=""):
        owner = os.getpid()
        self.host, self.client = f"{PREFIX}{owner}-host{street}", f"{PREFIX}{owner}-client{street}"
        self.cable = (f"pf{owner}h{street}", f"pf{owner}c{street}")

    def __enter__(self):
        remove_leftovers()
        try:
            self._lay()
        except subprocess.CalledProcessError as error:
            self._remove()
            raise RuntimeError(f"network namespaces cannot be made here: {error.stderr.strip()}") from error
        return self

    def _lay(self):
        ip("netns", "add", self.host)
        ip("netns", "add", self.client)
        ip("link", "add", self.cable[0], "netns", self.host, "type", "veth",
           "peer", "name", self.cable[1], "netns", self.client)
        ends = zip((self.host, self.client), self.cable, (HOST_V4, CLIENT_V4), (HOST_V6, CLIENT_V6))
        for namespace, end, v4, v6 in ends:
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "addr", "add", f"{v4}/24", "brd", "+", "dev", end)
            # Duplicate detection would make the address unusable for the first second.
            ip("-n", namespace, "addr", "add", f"{v6}/64", "dev", end, "nodad")
            ip("-n", namespace, "link", "set", end, "up")
            ip("-n", namespace, "route", "add", "224.0.0.0/4", "dev", end)

    def give_client(self, address):
        """One more address for the client's machine."""
        ip("-n", self.client, "addr", "replace", f"{address}/24", "dev", self.cable[1])

    def __exit__(self, *_):
        self._remove()

    def _remove(self):
        for namespace in (self.host, self.client):
            remove_namespace(namespace)


def inside(namespace, command):
    """The command as it runs in a namespace."""
    return ["ip", "netns", "exec", namespace, *map(str, command)]


def processes(namespace):
    """What runs in a namespace: {pid: name}."""
    found = {}
    for pid in ip("netns", "pids", namespace, check=False).stdout.split():
        try:
            found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            pass  # It ended between the two looks.
    return found


def remove_namespace(namespace):
    for pid in processes(namespace):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass
    ip("netns", "del", namespace, check=False)


def remove_leftovers():
    """Removes the namespaces of runs whose process is gone."""
    for line in ip("netns", "list", check=False).stdout.splitlines():
        name = line.split()[0]
        owner = name.removeprefix(PREFIX).split("-")[0]
        if name.startswith(PREFIX) and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            remove_namespace(name)
