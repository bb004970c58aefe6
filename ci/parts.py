"""Runs the parts of ci/test and says what became of each.

Every part runs to its end, also after another has failed, so that one run tells everything. What the tools print is
printed as it comes; the verdict is the last thing on the screen. ci/test has installed what is needed and has chosen
the build cache before this begins.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import proof

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ["CARGO_TARGET_DIR"])
CACHE = Path(os.environ["PUNKTFUNK_CACHE"])
ARTEFACTS = ROOT / "target" / "ci"
STOCK_CLIENT = ROOT / "host" / "tests" / "stock_client"
BOX = ROOT / "image" / "tests"
ALL = ["lint", "unit", "stream", "vm"]
# From where the box of the tests updates itself: at the router of the home that they make.
REGISTRY = "http://10.78.0.1:5000/punktfunk"
# Of each fuzz target, in a full run.
FUZZ_SECONDS = int(os.environ.get("PUNKTFUNK_FUZZ_SECONDS", "600"))
# Tests whose `#[ignore]` ends so need a compositor, which refuses root.
NEEDS_ORDINARY_USER = 'an unprivileged user"]'
# And these a disk in a folder, with owners and modes, or users of sessions.
NEEDS_ROOT = '"needs root and ostree"', '"needs root and the launcher"'
NOBODY = 65534


class Failed(Exception):
    """A part did not pass; the text says which command it was."""


def run(command, name=None, **options):
    """Runs a command, shows it and its output, and fails the part, by the name given, if the command fails."""
    command = [str(word) for word in command]
    print("+", " ".join(command), flush=True)
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, **options).returncode != 0:
        raise Failed(name or " ".join(command[:4]))


def lint(_long):
    run(["cargo", "fmt", "--all", "--check"])
    if subprocess.run(["cargo", "clippy", "--version"], capture_output=True).returncode != 0:
        # Debian's newer Rust comes without clippy. A gate has it; a desk without it still learns the rest.
        print("clippy: not run, this toolchain has none", flush=True)
        return
    run(["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])


def unit(long):
    shutil.rmtree(ARTEFACTS / "unit", ignore_errors=True)
    # Most tests wait for somebody most of the time, so that two processors are enough for four.
    threads = max(4, os.cpu_count() or 0)
    run(["cargo", "test", "--workspace", "--locked"], env=os.environ | {"RUST_TEST_THREADS": str(threads)})
    for binary, source in test_binaries():
        for group in ignored_tests(source, NEEDS_ORDINARY_USER):
            run_as_ordinary_user(binary, group, {"PUNKTFUNK_CYCLES": "500"} if long else {})
        for reason in NEEDS_ROOT:
            for group in ignored_tests(source, reason):
                run_as_root(binary, group)


def test_binaries():
    """The compiled test programs of the workspace, each with the file it was compiled from."""
    command = ["cargo", "test", "--workspace", "--locked", "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in output.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("profile", {}).get("test") and message.get("executable"):
            yield Path(message["executable"]), Path(message["target"]["src_path"])


def ignored_tests(source, reason):
    """What to hand to a test program so that it runs its tests that are ignored for this reason: a filter for each
    module."""
    if source.name != "lib.rs":
        # A test of several files lies in a folder of its own, below `tests`, and begins with its main.rs.
        is_folder = source.name == "main.rs" and source.parent.parent.name == "tests"
        files = source.parent.rglob("*.rs") if is_folder else [source]
        return [""] if any(reason in file.read_text() for file in files) else []
    groups = []
    for file in sorted(source.parent.rglob("*.rs")):
        if reason in file.read_text():
            parts = file.relative_to(source.parent).with_suffix("").parts
            groups.append("::".join(parts[:-1] if parts[-1] == "mod" else parts) + "::")
    return groups


def run_as_root(binary, name_filter):
    """Runs the ignored tests of one program as root."""
    command = [] if os.getuid() == 0 else ["sudo"]
    words = [name_filter] if name_filter else []
    run([*command, binary, "--ignored", "--test-threads=2", *words],
        name=f"tests as root: {binary.name.rsplit('-', 1)[0]} {name_filter}")


def run_as_ordinary_user(binary, name_filter, settings):
    """Runs the ignored tests of one program as somebody who is not root, with folders of their own; keeps what they
    measured."""
    private = Path(tempfile.mkdtemp(prefix="punktfunk-unit-"))
    try:
        uid = os.getuid() or NOBODY
        program = private / binary.name
        shutil.copy(binary, program)
        # What runs in a session is looked for beside the program that starts it; and the build's own folder may be one
        # that nobody else can enter.
        for part in ("punktfunk-host", "punktfunk-agent", "punktfunk-sound"):
            shutil.copy(TARGET / "debug" / part, private)
        private.chmod(0o755)
        folders = {"HOME": private / "home", "XDG_RUNTIME_DIR": private / "run", "TMPDIR": private / "tmp",
                   "PUNKTFUNK_MEASURED": private / "measured"}
        for folder in folders.values():
            folder.mkdir(mode=0o700)
            os.chown(folder, uid, -1)
        environment = {name: str(folder) for name, folder in folders.items()}
        environment |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "SHELL": "/bin/bash", "LANG": "C.UTF-8",
                        "RUST_BACKTRACE": "1"} | settings
        drop = [] if os.getuid() else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups",
                                       "--inh-caps=-all", "--no-new-privs"]
        words = [name_filter] if name_filter else []
        run([*drop, program, "--ignored", "--test-threads=1", *words],
            name=f"tests as an ordinary user: {binary.name.rsplit('-', 1)[0]} {name_filter}", env=environment)
        (ARTEFACTS / "unit").mkdir(parents=True, exist_ok=True)
        for measured in (private / "measured").iterdir():
            shutil.copyfile(measured, ARTEFACTS / "unit" / measured.name, follow_symlinks=False)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def stream(long):
    # The same command as the unit part's, so that both use one build.
    run(["cargo", "test", "--workspace", "--locked", "--no-run"])
    daemon = TARGET / "debug" / "punktfunk-host"
    published = ROOT / "target" / "debug"
    published.mkdir(parents=True, exist_ok=True)
    parts = ("punktfunk-agent", "punktfunk-launcher", "punktfunk-os", "punktfunk-sound", "punktfunk-update",
             "punktfunk-publish")
    for program in (daemon, *map(daemon.with_name, parts)):
        shutil.copy2(program, published / f".new-{program.name}")
        os.replace(published / f".new-{program.name}", published / program.name)
    results = ARTEFACTS / "stream"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    command = [python_with_stock_client(), "-B", "-m", "pytest", STOCK_CLIENT, "-v", "-p", "no:cacheprovider",
               "--rootdir", ROOT, "--daemon", daemon, "--artefacts", results,
               *([] if long else ["-m", "not long"])]
    if os.getuid() == 0:
        run(command, name="the stock client's tests")
        return
    try:
        run(["sudo", *command], name="the stock client's tests")
    finally:
        run(["sudo", "chown", "-R", f"{os.getuid()}:{os.getgid()}", results])


def vm(long, only=None):
    """`only` are parts of the long cases; all of them if it says nothing."""
    image = ARTEFACTS / "image"
    run([ROOT / "ci" / "image", "--raw", "--registry", f"{REGISTRY} plain", "--out", image], name="the image of the box")
    results = ARTEFACTS / "vm"
    as_root = [] if os.getuid() == 0 else ["sudo"]
    run([*as_root, "rm", "-rf", results])
    results.mkdir(parents=True)
    built = json.loads((image / "image.json").read_text())
    raw = image / f"punktfunk-{built['version']}-{built['flavour']}.raw"
    passed = {}
    python = python_with_stock_client()

    repo = CACHE / "image" / "repo"
    copies = []

    def tests(what, place, repo, *words):
        return [*as_root, python, "-B", "-m", "pytest", what, "-v", "-p", "no:cacheprovider", "--rootdir", ROOT,
                "--image", raw, "--repo", repo, "--os-program", ROOT / "target" / "debug" / "punktfunk-os",
                "--publish-program", ROOT / "target" / "debug" / "punktfunk-publish", "--keys", CACHE / "image" / "keys",
                "--registry", REGISTRY,
                "--artefacts", place, *words]

    def of_file(file):
        # Each makes its versions in a repository of its own, of links to the files, which nobody changes.
        copies.append(repo.with_name(f"{repo.name}-{os.getpid()}-{file.stem}"))
        run([*as_root, "cp", "-al", repo, copies[-1]])
        # Each its own, or whoever works in one of them keeps the others from theirs.
        run([*as_root, "rm", "-f", copies[-1] / ".lock"])
        return tests(file, results / file.stem, copies[-1], "--maxfail=4")

    try:
        if long:
            chosen = {part: of_file(BOX / f"test_{part}.py") for part in only or proof.parts()}
            passed = together(chosen)
            if failed := [part for part, done in passed.items() if not done]:
                raise Failed(f"the tests of the box: {', '.join(failed)}")
        else:
            run(tests(BOX, results, repo, "-x", "-m", "not long"), name="the tests of the box")
    finally:
        run([*as_root, "rm", "-rf", *copies])
        run([*as_root, "chown", "-R", f"{os.getuid()}:{os.getgid()}", results, image])
        if long:
            merge(results)
            proof.write(results, passed)
        # 8 GiB that are mostly holes, and made anew in seconds.
        raw.unlink(missing_ok=True)


def together(commands):
    """Runs commands beside each other, as many as there are processors: each is a machine that has one. Shows what they
    say, a line at a time behind the name of each. Which of them ended well."""
    def follow(name, command):
        command = [str(word) for word in command]
        print(f"{name:10} +", " ".join(command), flush=True)
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, errors="replace")
        for line in process.stdout:
            print(f"{name:10} {line}", end="", flush=True)
        return process.wait()

    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        return {name: not code for name, code in zip(commands, pool.map(follow, commands, commands.values()))}


def merge(results):
    """One file of what several runs left in folders of their own."""
    for name in ("cases.json", "measured.json"):
        found = [json.loads(file.read_text()) for file in sorted(results.glob(f"*/{name}"))]
        (results / name).write_text(json.dumps({key: value for one in found for key, value in one.items()}, indent=2))


def fuzz(long):
    run([ROOT / "ci" / "fuzz", "all", FUZZ_SECONDS if long else 60], name="the search for input that breaks a parser")


def python_with_stock_client():
    """The Python of an environment that holds just what requirements.txt pins; made once for each such file."""
    requirements = STOCK_CLIENT / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + platform.python_version().encode()).hexdigest()[:16]
    environment = CACHE / f"stock-client-{key}"
    if not (environment / "complete").exists():
        print("Installing the stock client from PyPI", flush=True)
        shutil.rmtree(environment, ignore_errors=True)
        run([sys.executable, "-m", "venv", environment])
        run([environment / "bin" / "pip", "install", "--quiet", "--require-hashes", "-r", requirements])
        (environment / "complete").touch()
    return environment / "bin" / "python"


def main(words):
    only = [word.split(":", 1)[1] for word in words if word.startswith("vm-full:")]
    if unknown := [part for part in only if part not in proof.parts()]:
        print(f"ci/test: vm-full has no part {', '.join(unknown)}; it has {', '.join(proof.parts())}", file=sys.stderr)
        return 2
    words = ["vm-full" if word.startswith("vm-full:") else word for word in words]
    long = "full" in words or "vm-full" in words
    known = [*ALL, "fuzz"]
    wanted = known if "full" in words else ALL if not words or "all" in words else [
        part for part in known if part in words or f"{part}-full" in words]
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[1]
    print(f"ci/test: {', '.join(wanted)}{' with the long cases' if long else ''}; Rust {rust}; "
          f"cache {TARGET}", flush=True)
    outcomes = []
    for part in wanted:
        print(f"\n== {part}", flush=True)
        began = time.monotonic()
        try:
            vm(long, only) if part == "vm" else globals()[part](long)
            failure = None
        except (Failed, OSError, subprocess.SubprocessError) as error:
            failure = str(error)
        outcomes.append({"part": part, "passed": failure is None, "failure": failure,
                         "seconds": round(time.monotonic() - began, 1)})
    if long:
        report(outcomes, rust)
    print("\n== verdict")
    for outcome in outcomes:
        word = "passed" if outcome["passed"] else f"FAILED ({outcome['failure']})"
        print(f"{outcome['part']:8}{outcome['seconds']:7.1f} s  {word}")
    failed = sum(not outcome["passed"] for outcome in outcomes)
    print(f"parts: {len(outcomes) - failed} passed, {failed} failed")
    print(f"proof of the box: {proof.state()}", flush=True)
    return 1 if failed else 0


def report(outcomes, rust):
    """Writes and prints the result of a full run as JSON: the parts, and what the tests measured."""
    measured = [*(ARTEFACTS / part / "measured.json" for part in ("stream", "vm")), *sorted((ARTEFACTS / "unit").glob("*.json"))]
    searched = ARTEFACTS / "fuzz" / "result.json"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    result = {
        "passed": all(outcome["passed"] for outcome in outcomes),
        "parts": outcomes,
        "measured": {name: figures for file in measured if file.exists()
                     for name, figures in json.loads(file.read_text()).items()},
        "fuzz": json.loads(searched.read_text()) if searched.exists() else {},
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "rust": rust, "commit": commit},
    }
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2)
    (ARTEFACTS / "full.json").write_text(text + "\n")
    print("\n== target/ci/full.json\n" + text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
