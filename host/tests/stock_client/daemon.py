"""The real daemon, run in its namespace by an ordinary user with folders of its own, and the launcher beside it."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from launcher import Launcher
from network import inside, processes

NOBODY = 65534
START_DEADLINE_S = 60
STOP_DEADLINE_S = 30


def wait_for(what, deadline_s, probe, pause_s=0.1):
    """Asks until the answer is true, and returns it; fails with what was waited for."""
    end = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s} s for {what}")
        time.sleep(pause_s)


class Daemon:
    """A host under test. `start` returns when its owner's socket answers."""

    def __init__(self, binary, namespace, log_path, config="", options=()):
        self.namespace = namespace
        self.log_path = Path(log_path)
        # Short, because the path of a Unix socket may have just 107 bytes; outside the clone, because whoever runs
        # the host there may not be allowed to look into the clone.
        self.folder = Path(tempfile.mkdtemp(prefix="pf-"))
        self.folder.chmod(0o755)
        self.binary = self.folder / "punktfunk-host"
        shutil.copy(binary, self.binary)
        # What the daemon starts lies beside it.
        for part in ("punktfunk-agent", "punktfunk-sound"):
            shutil.copy(Path(binary).with_name(part), self.folder)
        self.config = self.folder / "host.toml"
        self.config.write_text(config.replace("FOLDER", str(self.folder)))
        self.launcher = Launcher(Path(binary).parent, self.folder, namespace, NOBODY,
                                 self.log_path.with_name(self.log_path.stem + "-launcher.log"))
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "SHELL": "/bin/bash", "LANG": "C.UTF-8", "TERM": "dumb",
            "USER": "nobody", "RUST_BACKTRACE": "1", "RUST_LOG": os.environ.get("RUST_LOG", "info"),
            "PUNKTFUNK_SESSIONS__ISOLATION": "required", "PUNKTFUNK_LAUNCHER__SOCKET": str(self.launcher.socket),
        }
        for name, folder in (("HOME", "home"), ("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state")):
            path = self.folder / folder
            path.mkdir(mode=0o700)
            os.chown(path, NOBODY, NOBODY)
            self.environment[name] = str(path)
        # A host that runs on this machine as a service is looked for before one of the user's own.
        self.environment["PUNKTFUNK_SOCKET"] = str(self.socket)
        # What `serve` is started by, if a test puts something between the host and its machine.
        self.wrapper = []
        # What `serve` is told beside its configuration.
        self.options = options
        self.process = None

    @property
    def socket(self):
        return self.folder / "run" / "punktfunk" / "host.sock"

    def start(self):
        if self.launcher.process is None:
            self.launcher.start()
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            self._as_nobody([*self.wrapper, self.binary, "serve", "--foreground", "--config", self.config,
                            *self.options],
                            "--pdeathsig=TERM"),
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.environment,
            start_new_session=True, cwd=self.folder)
        wait_for("the daemon to answer its owner", START_DEADLINE_S, self._answers)

    def _answers(self):
        assert self.process.poll() is None, f"the daemon ended at once:\n{self.log()[-4000:]}"
        return self.socket.exists() and self.ask("clients", "list", check=False).returncode == 0

    def _as_nobody(self, command, *options):
        return inside(self.namespace, [
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all",
            "--no-new-privs", *options, *command])

    def ask(self, *words, check=True):
        """Runs `punktfunk-host WORDS..` as its owner would."""
        done = subprocess.run(self._as_nobody([self.binary, *words]), env=self.environment, cwd=self.folder,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        if check and done.returncode != 0:
            raise AssertionError(f"punktfunk-host {' '.join(words)}: {done.stderr or done.stdout}")
        return done

    def ask_json(self, *words):
        return json.loads(self.ask(*words).stdout)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def family(self):
        """Every process in the host's house but the launcher; what its apps started is included."""
        found = processes(self.namespace)
        found.pop(self.launcher.process.pid, None)
        return found

    def descriptors(self):
        """How many files and sockets the daemon holds open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def cpu_s(self):
        """The processor time that the daemon itself has used; what its apps use is not in it."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_of_threads_s(self, name):
        """The processor time of each living thread of this name, to the nanosecond: {id: seconds}."""
        used = {}
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                if (thread / "comm").read_text().strip() == name:
                    used[thread.name] = int((thread / "schedstat").read_text().split()[0]) / 1e9
            except OSError:
                pass  # It ended between the two looks.
        return used

    def rss_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def maps(self, *libraries):
        """Whether the daemon has one of these libraries in memory."""
        mapped = Path(f"/proc/{self.process.pid}/maps").read_text()
        return any(library in mapped for library in libraries)

    def stop(self):
        """SIGTERM, as a service manager would. Returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_DEADLINE_S)

    def discard(self):
        """Whatever happened: nothing is left."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.launcher.discard()
        shutil.rmtree(self.folder, ignore_errors=True)
