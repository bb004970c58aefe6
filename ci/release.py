"""Makes a release of the box and publishes it. `ci/release` is the door."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPO = Path(os.environ["PUNKTFUNK_CACHE"]) / "image" / "repo"
PROGRAM = ROOT / "target/debug/punktfunk-publish"
# As many a statement may have; what is older is reached by way of what is newer.
MAX_RELEASES = 16
DAY_S = 86400


def main() -> None:
    arguments = parse()
    out = ROOT / "target/release"
    out.mkdir(parents=True, exist_ok=True)
    commit, version = arguments.commit and of_commit(arguments.commit), arguments.version
    if commit:
        version = version or said_of(commit)
    else:
        commit, version = build(arguments)
    layout = out / f"{version}-{arguments.flavour}"
    made = json.loads(output(PROGRAM, "encapsulate", "--repo", REPO, "--commit", commit, "--out", layout))
    release = {"version": version, "commit": commit, **{key: made[key] for key in ("image", "size_bytes", "unpacked_bytes")}}
    statement = state(arguments, release)
    text, envelope = out / "statement.json", out / f"{arguments.channel}-{arguments.flavour}.json"
    text.write_text(json.dumps(statement, indent=2) + "\n")
    keys = [word for key in arguments.key for word in ("--key", key)]
    run(PROGRAM, "sign", *keys, text, envelope)
    run(PROGRAM, "archive", "--envelope", envelope, "--layout", layout, out / f"punktfunk-{version}-{arguments.flavour}.update")
    if arguments.dry_run:
        print(f"Nothing was pushed. What would have been lies in {out}.")
        return
    tag = f"{arguments.channel}-{arguments.flavour}"
    insecure = ["--allow-http"] if arguments.allow_http else []
    run(PROGRAM, "push", layout, arguments.registry, "--envelope", envelope, "--tag", tag, *insecure)
    # Only now is it what boxes know.
    arguments.statement.write_text(text.read_text())
    print(f"{version} is what {tag} offers at {arguments.registry}. Keep {arguments.statement}.")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ci/release")
    parser.add_argument("registry")
    parser.add_argument("--version", type=version_of)
    parser.add_argument("--base")
    parser.add_argument("--flavour", choices=["slim", "full"], default="slim")
    parser.add_argument("--channel", choices=["stable", "next"], default="next")
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--key", type=Path, action="append", required=True)
    parser.add_argument("--changes", type=Path, required=True)
    parser.add_argument("--minimum", type=version_of)
    parser.add_argument("--statement", type=Path, required=True)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--commit")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--allow-http", action="store_true")
    arguments = parser.parse_args()
    if not arguments.commit and not (arguments.base and arguments.keys):
        parser.error("what is built for a release needs --base, by digest, and --keys; or name what was built, with --commit")
    return arguments


def version_of(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError("a version is three numbers, like 1.4.2")
    return text


def number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def build(arguments: argparse.Namespace) -> tuple[str, str]:
    """The image as it is published. Gives its commit and what it is called."""
    registry = f"{arguments.registry} plain" if arguments.allow_http else arguments.registry
    words = ["--release", "--raw", "--base", arguments.base, "--keys", arguments.keys, "--registry", registry]
    words += ["--version", arguments.version] if arguments.version else []
    run(ROOT / "ci/image", arguments.flavour, *words)
    built = json.loads((ROOT / "target/image/image.json").read_text())
    return built["commit"], built["version"]


def of_commit(text: str) -> str:
    return output("ostree", f"--repo={REPO}", "rev-parse", text)


def said_of(commit: str) -> str:
    """What a commit is called by those who built it."""
    return version_of(output("ostree", f"--repo={REPO}", "show", "--print-metadata-key=version", commit).strip("'"))


def state(arguments: argparse.Namespace, release: dict) -> dict:
    """What is stated from now on: what was, and this one."""
    before = json.loads(arguments.statement.read_text()) if arguments.statement.exists() else {}
    expected = {"channel": arguments.channel, "flavour": arguments.flavour}
    if before and {key: before[key] for key in expected} != expected:
        sys.exit(f"ci/release: {arguments.statement} is of {before['channel']}-{before['flavour']}")
    others = [one for one in before.get("releases", []) if one["version"] != release["version"]]
    same = [one for one in before.get("releases", []) if one["version"] == release["version"]]
    if same and same[0]["commit"] != release["commit"]:
        sys.exit(f"ci/release: {release['version']} was stated before, of another system; give this one another version")
    changes = [line.strip() for line in arguments.changes.read_text().splitlines() if line.strip()]
    oldest = min((one["version"] for one in others), key=number, default=release["version"])
    release |= {"minimum": arguments.minimum or oldest, "changes": changes}
    releases = sorted([*others, release], key=lambda one: number(one["version"]))[-MAX_RELEASES:]
    now = int(time.time())
    return {
        "schema": 1, **expected, "made_at": max(now, before.get("made_at", 0) + 1), "expires_at": now + arguments.days * DAY_S,
        **{key: before[key] for key in ("floor", "revoked", "withdrawn") if key in before}, "releases": releases,
    }


def run(*words: object) -> None:
    result = subprocess.run([str(word) for word in words])
    if result.returncode != 0:
        sys.exit(f"ci/release: \"{' '.join(map(str, words[:2]))} ..\" failed with {result.returncode}")


def output(*words: object) -> str:
    result = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"ci/release: \"{' '.join(map(str, words[:2]))} ..\" failed with {result.returncode}")
    return result.stdout.strip()


if __name__ == "__main__":
    main()
