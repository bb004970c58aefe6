"""What the image says that it consists of, against the image itself: its package database, its programs, and SPDX 2.3."""

import json
import re
import subprocess
import tomllib

import pytest

from conftest import ROOT

PROGRAMS = ("host", "agent", "launcher", "sound", "os", "update")
# SPDX 2.3, sec. 3.2.1, 7.2.1 and 6.9.1: what an identifier and a moment look like.
IDENTIFIER = re.compile(r"SPDXRef-[A-Za-z0-9.-]+")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def sbom(image):
    return json.loads((image.parent / "sbom.spdx.json").read_text())


def listed(sbom, kind):
    """Name and version of what has a locator of this kind."""
    return {
        (part["name"], part["versionInfo"])
        for part in sbom["packages"]
        for reference in part["externalRefs"] if reference["referenceLocator"].startswith(f"pkg:{kind}/")
    }


def test_every_package_of_the_image_is_listed_and_no_other(image, variants, sbom):
    database = variants.read("usr/lib/sysimage/dpkg/status").strip().split("\n\n")
    fields = [dict(re.findall(r"(?m)^(Package|Version|Status): (.*)$", stanza)) for stanza in database]
    installed = {(one["Package"], one["Version"]) for one in fields if one["Status"].endswith(" installed")}
    assert len(installed) > 100, "the database is not read rightly"
    assert listed(sbom, "deb") == installed
    rows = [line.split("\t") for line in (image.parent / "packages.tsv").read_text().splitlines()]
    assert {(name, version) for name, version, *_ in rows} == installed
    # Architecture, source, its version and the size in KiB stand beside them.
    assert all(len(row) == 6 and all(row) for row in rows)
    assert variants.read("usr/share/punktfunk/packages.tsv") == (image.parent / "packages.tsv").read_text()


def test_the_crates_listed_are_those_that_are_in_the_programs(variants, sbom):
    crates = listed(sbom, "cargo")
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    fetched = {(crate["name"], crate["version"]): crate["checksum"] for crate in locked if "source" in crate}
    assert crates <= fetched.keys()
    # Where a crate may panic, the program has the path of its source in it.
    seen = set()
    for program in PROGRAMS:
        bytes_ = variants.read_bytes(f"usr/libexec/punktfunk/punktfunk-{program}")
        seen |= {found.decode() for found in re.findall(rb"registry/src/[^/\0]+/([\w.+-]+)/", bytes_)}
    assert len(seen) > 50, "the programs are not read rightly"
    assert seen <= {"-".join(crate) for crate in crates}
    # What only the tests take is in no program and in no list.
    assert "proptest" not in {name for name, _ in crates} and len(crates) < len(fetched)
    stated = {
        (part["name"], part["versionInfo"]): part["checksums"][0]["checksumValue"]
        for part in sbom["packages"] if part["SPDXID"].startswith("SPDXRef-crate-")
    }
    assert stated == {crate: fetched[crate] for crate in crates}


def test_it_is_spdx(sbom, image):
    built = json.loads((image.parent / "image.json").read_text())
    assert (sbom["spdxVersion"], sbom["dataLicense"], sbom["SPDXID"]) == ("SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT")
    assert sbom["name"] and "#" not in sbom["documentNamespace"]
    assert re.fullmatch(r"https?://\S+", sbom["documentNamespace"])
    assert MOMENT.fullmatch(sbom["creationInfo"]["created"])
    assert all(re.match(r"(Tool|Person|Organization): \S", who) for who in sbom["creationInfo"]["creators"])
    identifiers = [part["SPDXID"] for part in sbom["packages"]]
    assert len(set(identifiers)) == len(identifiers), "an identifier stands for two things"
    assert all(IDENTIFIER.fullmatch(one) for one in identifiers)
    for part in sbom["packages"]:
        assert part["name"] and part["downloadLocation"] == "NOASSERTION" and part["filesAnalyzed"] is False, part
        for sum_ in part.get("checksums", []):
            assert sum_["algorithm"] == "SHA256" and re.fullmatch("[0-9a-f]{64}", sum_["checksumValue"]), part
        for reference in part["externalRefs"]:
            assert (reference["referenceCategory"], reference["referenceType"]) == ("PACKAGE-MANAGER", "purl")
            assert re.fullmatch(r"pkg:(deb/debian|cargo|generic)/[^\s@]+@[^\s@]+", reference["referenceLocator"]), part
    relations = {(one["spdxElementId"], one["relationshipType"], one["relatedSpdxElement"])
                 for one in sbom["relationships"]}
    described = [part for part in sbom["packages"] if ("SPDXRef-DOCUMENT", "DESCRIBES", part["SPDXID"]) in relations]
    assert [part["checksums"][0]["checksumValue"] for part in described] == [built["commit"]]
    contained = {(described[0]["SPDXID"], "CONTAINS", one) for one in identifiers if one != described[0]["SPDXID"]}
    assert relations == contained | {("SPDXRef-DOCUMENT", "DESCRIBES", described[0]["SPDXID"])}


def test_its_parts_are_free_to_be_given_away(variants, image):
    """Every package has the file in which its licence stands."""
    names = [line.split("\t")[0] for line in (image.parent / "packages.tsv").read_text().splitlines()]
    there = variants.entries("usr/share/doc")
    # Packages of one source may share a folder.
    missing = [name for name in names if f"{there.get(name) or name}/copyright" not in there]
    assert not missing, missing


def test_the_sizes_are_what_they_are(image, measured):
    built = json.loads((image.parent / "image.json").read_text())
    rows = (image.parent / "packages.tsv").read_text().splitlines()
    measured["sizes"] = {name: value for name, value in built.items() if name.endswith("_mib")}
    measured["sizes"]["packages"] = len(rows)
    disk = subprocess.run(["du", "--block-size=1M", image], capture_output=True, text=True, check=True).stdout
    assert abs(int(disk.split()[0]) - built["raw_used_mib"]) <= 16, (disk, built)
