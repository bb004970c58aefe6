"""Builds the container image of the box, commits it to OSTree, and makes a raw disk of it. `ci/image` is the door."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ["PUNKTFUNK_CACHE"]) / "image"
# A base older than this is made anew, so that the security updates of its packages come along.
BASE_DAYS = 7
COMPONENTS = "main contrib non-free non-free-firmware"
BRANCH = "punktfunk/x86_64"
# Room for four sets of kernel and initramfs: booted, staged, rollback and pristine.
ESP_MIB = 1024
DISK_GIB = 8
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
# Whose updates a box believes: the key that signs, and the one that takes its place.
KEYS = ("current", "next")
# Layers of old builds; one build has about 4 GiB of them.
MAX_STORAGE_GIB = 12
# How long each step took, in seconds.
TIMES: dict[str, float] = {}


def main() -> None:
    arguments = parse()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    os.environ.update(CONTAINERS_STORAGE_CONF=str(storage()), TMPDIR=str(temporary()), BUILDAH_ISOLATION="chroot")
    tidy()
    tag = build(arguments)
    with step("commit"):
        commit = commit_tree(tag, arguments, out)
    (out / "sbom.spdx.json").write_text(json.dumps(sbom(arguments, out, commit), indent=1) + "\n")
    figures = {"version": arguments.version, "flavour": arguments.flavour, "commit": commit}
    figures["container_mib"] = mib(tree_bytes(tag))
    if arguments.raw:
        with step("disk"):
            disk = out / f"punktfunk-{arguments.version}-{arguments.flavour}.raw"
            make_disk(disk, lambda sysroot, esp: install(sysroot, esp, commit))
        figures["raw_used_mib"] = mib(disk.stat().st_blocks * 512)
        if arguments.release:
            with step("compress"):
                run("zstd", "-q", "-f", "-T0", "-10", disk)
            figures["raw_zst_mib"] = mib(disk.with_suffix(".raw.zst").stat().st_size)
    figures["seconds"] = {name: round(seconds, 1) for name, seconds in TIMES.items()}
    (out / "image.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ci/image")
    parser.add_argument("flavour", nargs="?", choices=["slim", "full"], default="slim")
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--version", default=workspace_version(), type=version)
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--release", action="store_true")
    parser.add_argument("--base")
    parser.add_argument("--registry", default="")
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--nvidia", choices=["none", "debian", "vendor"], default="none")
    parser.add_argument("--out", type=Path, default=ROOT / "target/image")
    arguments = parser.parse_args()
    if arguments.release and not (arguments.base and "@sha256:" in arguments.base):
        parser.error("a release begins from a base that is named by digest (--base IMAGE@sha256:..)")
    if arguments.release and not arguments.keys:
        parser.error("a release believes keys that are not for tests (--keys FOLDER)")
    return arguments


def version(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError("a version is three numbers, like 1.4.2")
    return text


def workspace_version() -> str:
    return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]


# --- the container image ---


def storage() -> Path:
    """buildah keeps its images in the cache, apart from those of the machine."""
    path = CACHE / "storage.conf"
    path.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{CACHE}/storage"\nrunroot = "/run/punktfunk-image"\n'
    )
    return path


def temporary() -> Path:
    """On the big disk: layers and the caches of builds go there."""
    path = CACHE / "tmp"
    path.mkdir(exist_ok=True)
    return path


def tidy() -> None:
    """Layers that no build asks for any more are not told apart from those that the next one takes: when there are too
    many, all go. The compiler's cache is not among them."""
    layers = CACHE / "storage"
    if layers.exists() and int(output("du", "--summarize", "--block-size=1G", layers).split()[0]) > MAX_STORAGE_GIB:
        with step("tidy"):
            run("buildah", "rm", "--all", quiet=True)
            run("buildah", "rmi", "--all", "--force", quiet=True)


def build(arguments: argparse.Namespace) -> str:
    tag = f"localhost/punktfunk:{arguments.version}-{arguments.flavour}{'-debug' if arguments.debug else ''}"
    base = arguments.base
    if base is None:
        with step("base"):
            base = make_base()
    context = snapshot(arguments.keys or test_keys())
    registry = Path(os.environ["CARGO_HOME"]) / "registry"
    settings = {
        "BASE": base,
        "FLAVOUR": arguments.flavour,
        "NVIDIA": arguments.nvidia,
        "VERSION": arguments.version,
        "REGISTRY": arguments.registry,
        "DEBUG": int(arguments.debug),
        "RELEASE": int(arguments.release),
        "CARGO_NET_OFFLINE": "true",
    }
    words = [
        *["buildah", "bud", "--layers", "--pull-never" if arguments.base is None else "--pull"],
        *["--signature-policy", policy(), "--network", "host", "--isolation", "chroot"],
        *[word for name, value in settings.items() for word in ("--build-arg", f"{name}={value}")],
        *["--file", context / "Containerfile"],
    ]
    with step("programs"):
        # Only the compiler sees the crates' sources of this machine; the whole build takes its layer as it is.
        run(*words, "--target", "programs", "--volume", f"{registry}:/root/.cargo/registry:ro", context)
    with step("system"):
        run(*words, "--tag", tag, context)
    return tag


def snapshot(keys: Path) -> Path:
    """A copy of what the image is made from: a file that is changed meanwhile is in all of it or in none."""
    context = CACHE / "context"
    parts = ["Containerfile", "Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "core", "host", "image", "overlays"]
    run("rsync", "--archive", "--delete", "--exclude=target", *(ROOT / part for part in parts), context)
    # The secret halves stay where they are.
    shutil.rmtree(context / "keys", ignore_errors=True)
    (context / "keys").mkdir()
    for name in KEYS:
        run("install", "-m", "0644", keys / f"{name}.pub", context / "keys")
    return context


def test_keys() -> Path:
    """Keys of this machine, with both halves, so that its tests can make updates for its images. They say what they are,
    and no release may hold them."""
    folder = CACHE / "keys"
    for name in KEYS:
        if not (folder / f"{name}.pub").exists():
            (folder / f"{name}.key").unlink(missing_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            run(ROOT / "target/debug/punktfunk-publish", "keygen", "--test", folder, name, quiet=True)
    return folder


def policy() -> Path:
    """For the build alone: what is pulled is named by digest, or was made here. The image has no such file."""
    path = CACHE / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
    return path


def make_base() -> str:
    """What docker.io's debian:trixie is, from Debian's packages, for where no registry can be reached."""
    recipe = hashlib.sha256(f"{COMPONENTS} trixie 1".encode()).hexdigest()[:12]
    name = f"localhost/punktfunk-base:{recipe}-{int(time.time() // (BASE_DAYS * 86400))}"
    if subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True).returncode == 0:
        return name
    tar = CACHE / "base.tar"
    mirror, security = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
    suites = [(mirror, "trixie"), (mirror, "trixie-updates"), (security, "trixie-security")]
    run(
        *["mmdebstrap", "--quiet", "--variant=apt", "--include=ca-certificates", "trixie", tar],
        *[f"deb {where} {suite} {COMPONENTS}" for where, suite in suites],
    )
    container = output("buildah", "from", "scratch")
    run("buildah", "add", "--quiet", container, tar, "/")
    run("buildah", "commit", "--quiet", "--signature-policy", policy(), "--rm", container, name)
    tar.unlink()
    return name


@contextmanager
def mounted(tag: str):
    container = output("buildah", "from", "--pull-never", "--signature-policy", policy(), tag)
    try:
        yield Path(output("buildah", "mount", container))
    finally:
        run("buildah", "rm", container, quiet=True)


def tree_bytes(tag: str) -> int:
    return size_of(json.loads(output("buildah", "images", "--json", tag))[0]["size"])


def size_of(text: str) -> int:
    number, unit = text.split()
    return int(float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()])


# --- OSTree ---


def repository() -> Path:
    path = CACHE / "repo"
    if not (path / "config").exists():
        run("ostree", f"--repo={path}", "init", "--mode=bare-user")
    return path


def commit_tree(tag: str, arguments: argparse.Namespace, out: Path) -> str:
    branch = f"{BRANCH}/{arguments.flavour}{'-debug' if arguments.debug else ''}"
    with mounted(tag) as tree:
        # What the build laid over these is nobody's.
        for name in ("hostname", "hosts", "resolv.conf", "mtab"):
            (tree / "etc" / name).unlink(missing_ok=True)
        (tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 punktfunk\n")
        (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
        (tree / "etc/machine-id").write_text("")
        (tree / "etc/hostname").write_text("punktfunk\n")
        for name in ("dev", "run", "tmp", "var", "proc", "sys"):
            empty(tree / name)
        # A folder of a lower layer is not renamed.
        run("cp", "-a", tree / "etc", tree / "usr/etc")
        run("rm", "-rf", tree / "etc")
        for name in ("packages.tsv", "crates.tsv"):
            shutil.copy(tree / "usr/share/punktfunk" / name, out / name)
        commit = output(
            *["ostree", f"--repo={repository()}", "commit", "--branch", branch, f"--tree=dir={tree}", "--bootable"],
            *["--subject", f"punktfunk {arguments.version}", f"--add-metadata-string=version={arguments.version}"],
        )
    run("ostree", f"--repo={repository()}", "prune", "--refs-only", "--depth=0", quiet=True)
    return commit


def empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def sbom(arguments: argparse.Namespace, out: Path, commit: str) -> dict:
    """What the image consists of, as SPDX 2.3: Debian's packages, and the crates that our programs are compiled from."""
    parts = [
        part("deb", name, version_, f"pkg:deb/debian/{quote(name)}@{quote(version_)}?arch={architecture}&distro=trixie")
        for name, version_, architecture, *_ in rows(out / "packages.tsv")
    ]
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(crate["name"], crate["version"]): crate.get("checksum") for crate in locked}
    parts += [
        part("crate", name, version_, f"pkg:cargo/{quote(name)}@{quote(version_)}", checksums[name, version_])
        for name, version_ in rows(out / "crates.tsv")
    ]
    image = part("image", "punktfunk", arguments.version, f"pkg:generic/punktfunk@{arguments.version}", commit)
    changed = int(output("git", "-C", ROOT, "log", "-1", "--format=%ct"))
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"punktfunk-{arguments.version}-{arguments.flavour}",
        "documentNamespace": f"https://github.com/punktfunk/punktfunk/spdx/{commit}",
        "creationInfo": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(changed)),
            "creators": ["Tool: ci/image"],
        },
        "packages": [image, *parts],
        "relationships": [
            relation("SPDXRef-DOCUMENT", "DESCRIBES", image["SPDXID"]),
            *(relation(image["SPDXID"], "CONTAINS", one["SPDXID"]) for one in parts),
        ],
    }


def rows(table: Path) -> list[list[str]]:
    return [line.split("\t") for line in table.read_text().splitlines()]


def part(kind: str, name: str, version_: str, locator: str, checksum: str | None = None) -> dict:
    found = {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{kind}-{name}-{version_}"),
        "name": name,
        "versionInfo": version_,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}
        ],
    }
    if checksum is not None:
        found["checksums"] = [{"algorithm": "SHA256", "checksumValue": checksum}]
    return found


def relation(one: str, kind: str, other: str) -> dict:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


# --- the disk ---


def make_disk(disk: Path, fill: Callable[[Path, Path], None]) -> None:
    """One image for stick and disk: an ESP and a root, both found by their types, and what `fill` lays into the folders
    of the two. Nothing is booted for it."""
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(DISK_GIB << 30)
    table = (
        f'label: gpt\nstart=1MiB, size={ESP_MIB}MiB, type={ESP_TYPE}, name="punktfunk-esp"\n'
        f'type={ROOT_TYPE}, name="punktfunk-root"\n'
    )
    subprocess.run(["sfdisk", "-q", disk], input=table.encode(), check=True)
    parts = json.loads(output("sfdisk", "-J", disk))["partitiontable"]["partitions"]
    start, size = parts[1]["start"] * 512, parts[1]["size"] * 512
    run(
        *["mkfs.ext4", "-q", "-L", "punktfunk", "-E", f"offset={start},lazy_itable_init=1", "-O", "^orphan_file,verity"],
        *[disk, f"{size // 1024}k"],
    )
    # What is set aside at the first start is the daemon's as well; the kernel learns whose it is by mounting.
    run("tune2fs", "-g", "960", f"{disk}?offset={start}", quiet=True)
    esp = disk.with_suffix(".esp")
    shutil.rmtree(esp, ignore_errors=True)
    with loop_mounted(disk, start, size) as sysroot:
        fill(sysroot, esp)
    write_esp(disk, esp)
    shutil.rmtree(esp)


@contextmanager
def loop_mounted(disk: Path, start: int, size: int):
    place = disk.with_suffix(".mnt")
    place.mkdir(exist_ok=True)
    run("mount", "-o", f"loop,offset={start},sizelimit={size}", disk, place)
    try:
        yield place
        run("sync", "-f", place)
    finally:
        run("umount", place)
        place.rmdir()


def deploy(sysroot: Path, commit: str) -> None:
    run("ostree", "admin", "init-fs", "--modern", sysroot)
    repo = f"--repo={sysroot}/ostree/repo"
    for name, value in (("bootloader", "none"), ("readonly", "true"), ("bootprefix", "true")):
        run("ostree", "config", repo, "set", f"sysroot.{name}", value)
    run("ostree", "admin", "os-init", f"--sysroot={sysroot}", "punktfunk")
    run("ostree", "pull-local", repo, "--disable-fsync", "--untrusted", repository(), commit, quiet=True)
    run("ostree", "refs", repo, "--create", f"{BRANCH}/local", commit)
    run(
        *["ostree", "admin", "deploy", f"--sysroot={sysroot}", "--os=punktfunk", "--no-prune"],
        # Of two with one name, `--karg` would leave the last alone: there are two consoles.
        *[f"--karg-append={argument}" for argument in kernel_arguments()],
        f"{BRANCH}/local",
    )


def kernel_arguments() -> list[str]:
    text = (ROOT / "overlays/base/usr/lib/bootc/kargs.d/10-punktfunk.toml").read_text()
    # Strings in quotes, and nothing else in the list.
    return re.findall(r'"([^"]+)"', text[text.index("kargs") :])


def install(sysroot: Path, esp: Path, commit: str) -> None:
    deploy(sysroot, commit)
    deployment = next((sysroot / "ostree/deploy/punktfunk/deploy").glob("*.0"))
    install_loader(esp, lambda path: (deployment / path).read_bytes())
    run(os_program(), "mirror", "--sysroot", sysroot, "--esp", esp, "--pristine")


def install_loader(esp: Path, read: Callable[[str], bytes]) -> None:
    """`read` gives a file of the system by its path."""
    fallback = esp / "EFI/BOOT"
    fallback.mkdir(parents=True)
    (fallback / "BOOTX64.EFI").write_bytes(read("usr/lib/shim/shimx64.efi.signed"))
    (fallback / "mmx64.efi").write_bytes(read("usr/lib/shim/mmx64.efi.signed"))
    # The name that shim looks for.
    (fallback / "grubx64.efi").write_bytes(read("usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed"))
    (esp / "loader/entries").mkdir(parents=True)
    (esp / "loader/loader.conf").write_text("timeout 1\nconsole-mode keep\neditor no\nauto-firmware no\n")


def os_program() -> Path:
    return ROOT / "target/debug/punktfunk-os"


def write_esp(disk: Path, esp: Path) -> None:
    image = disk.with_suffix(".fat")
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(ESP_MIB << 20)
    run("mkfs.vfat", "-F32", "-n", "PUNKTFUNK", image, quiet=True)
    run("mcopy", "-s", "-i", image, *sorted(esp.iterdir()), "::")
    run("dd", f"if={image}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    image.unlink()


# --- programs ---


@contextmanager
def step(name: str):
    print(f"ci/image: {name} ..", flush=True)
    began = time.monotonic()
    yield
    TIMES[name] = time.monotonic() - began


def run(*words: object, quiet: bool = False) -> None:
    result = subprocess.run([str(word) for word in words], stdout=subprocess.DEVNULL if quiet else None)
    if result.returncode != 0:
        sys.exit(f"ci/image: \"{' '.join(map(str, words[:3]))} ..\" failed with {result.returncode}")


def output(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def mib(count: float) -> int:
    return round(count / (1 << 20))


if __name__ == "__main__":
    main()
