"""A plain Debian on a disk that boots like the box's: what the box's figures are compared with.

It is trixie's smallest variant with the same kernel, systemd and a network, started by the same loader with the same
arguments from an initramfs that is made the same way. What it lacks is all that makes a box: OSTree, our programs, sound,
graphics.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from image import BASE_DAYS, CACHE, COMPONENTS, ROOT, install_loader, kernel_arguments, make_disk, run

PACKAGES = "linux-image-amd64 systemd-sysv udev dbus-broker kmod iproute2 login passwd dracut zstd"
# The same words as in image/steps/20-initramfs, but for OSTree's module.
DRACUT = (
    'kernel=$(ls /usr/lib/modules); dracut --force --no-hostonly --no-hostonly-cmdline --reproducible --compress zstd '
    '--add "systemd systemd-initrd" '
    '--omit "network network-manager plymouth brltty lvm mdraid multipath nfs iscsi crypt dm btrfs i18n drm" '
    '--omit-drivers "amdgpu radeon nouveau i915 xe" --kver "$kernel" /boot/initramfs.img && '
    'cp "/boot/vmlinuz-$kernel" /boot/vmlinuz'
)
NETWORK = "[Match]\nType=ether\nKind=!*\n[Network]\nDHCP=yes\n"


def plain_disk(units: dict[str, tuple[str, str]], read: Callable[[str], bytes]) -> Path:
    """The disk, made once a week. `units` are units of its own: by name, their text and the target that wants them.
    `read` gives the files of the box's system, of which the loader is taken."""
    recipe = repr((Path(__file__).read_text(), COMPONENTS, sorted(units.items()), int(time.time() // (BASE_DAYS * 86400))))
    disk = CACHE / f"plain-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.raw"
    if not disk.exists():
        for old in CACHE.glob("plain-*"):
            old.unlink()
        CACHE.mkdir(parents=True, exist_ok=True)
        tar = disk.with_suffix(".tar")
        bootstrap(tar)
        new = disk.with_suffix(".new")
        make_disk(new, lambda sysroot, esp: fill(sysroot, esp, tar, units, read))
        tar.unlink()
        new.rename(disk)
    return disk


def bootstrap(tar: Path) -> None:
    mirror, security = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
    suites = [(mirror, "trixie"), (mirror, "trixie-updates"), (security, "trixie-security")]
    # The kernel's package would make an initramfs of its own.
    none = (
        'mkdir -p "$1/etc/kernel/postinst.d" && cd "$1/etc/kernel/postinst.d" && printf "#!/bin/sh\\nexit 0\\n" >dracut && '
        'chmod 755 dracut'
    )
    run(
        *["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES.split())}"],
        *["--dpkgopt=force-confold", "--dpkgopt=force-unsafe-io", f"--essential-hook={none}"],
        *[f"--customize-hook=chroot \"$1\" sh -c '{DRACUT}'", "--customize-hook=chroot \"$1\" passwd -qd root"],
        # It would ask somebody at the keyboard for a time zone.
        *["--customize-hook=chroot \"$1\" systemctl mask systemd-firstboot"],
        *["--customize-hook=chroot \"$1\" systemctl enable systemd-networkd", "trixie", tar],
        *[f"deb {where} {suite} {COMPONENTS}" for where, suite in suites],
    )


def fill(sysroot: Path, esp: Path, tar: Path, units: dict[str, tuple[str, str]], read: Callable[[str], bytes]) -> None:
    run("tar", "--extract", "--numeric-owner", "--xattrs", f"--file={tar}", f"--directory={sysroot}")
    (sysroot / "etc/machine-id").write_text("")
    (sysroot / "etc/hostname").write_text("plain\n")
    (sysroot / "etc/systemd/network/80-wired.network").write_text(NETWORK)
    # A shell on the serial console, as a DEBUG image has it.
    run("cp", "-a", f"{ROOT}/overlays/debug/.", sysroot)
    system = sysroot / "etc/systemd/system"
    for name, (text, target) in units.items():
        (system / name).parent.mkdir(exist_ok=True)
        (system / name).write_text(text)
        if target:
            (system / f"{target}.wants").mkdir(exist_ok=True)
            (system / f"{target}.wants" / name).symlink_to(f"../{name}")
    install_loader(esp, read)
    (esp / "plain").mkdir()
    for name in ("vmlinuz", "initramfs.img"):
        run("cp", sysroot / "boot" / name, esp / "plain" / name)
    (esp / "loader/entries/plain.conf").write_text(
        "title plain\nlinux /plain/vmlinuz\ninitrd /plain/initramfs.img\n"
        f"options {' '.join(kernel_arguments())}\n")
