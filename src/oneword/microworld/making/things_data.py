"""Builds the data folder of the artists' drawings from npm packages of pinned versions.

    python -m oneword.microworld.making.things_data --packages FOLDER

``FOLDER`` keeps the packages; those that it lacks are fetched with ``npm pack``. The curated list
in the data folder says which drawing of each package a thing is. Building again from the same
packages gives the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import lzma
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneword.errors import UserError
from oneword.microworld.world import artwork


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """An npm package that holds one look."""

    name: str
    version: str
    integrity: str
    """SHA-512 of the package file in base64, as the registry states it."""

    @property
    def file(self) -> str:
        """Name that ``npm pack`` gives the package file."""
        return f"iconify-json-{self.name}-{self.version}.tgz"


PACKAGES = {
    "flat sticker": Package(
        name="fluent-emoji-flat",
        version="1.2.6",
        integrity="RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7"
        "yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    "line icon": Package(
        name="fluent-emoji-high-contrast",
        version="1.2.6",
        integrity="esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy"
        "3HtVQB8xhIKu3+Nq1byX5w==",
    ),
    "glossy sticker": Package(
        name="fluent-emoji",
        version="1.2.7",
        integrity="D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUc"
        "agzJvSyg+9OBv4hz4Hc/QA==",
    ),
    "classic emoji": Package(
        name="noto",
        version="1.2.9",
        integrity="DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jf"
        "rTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "classic first edition": Package(
        name="noto-v1",
        version="1.2.5",
        integrity="/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UH"
        "Hb/XpBsw+1L1x3eyPqMuVA==",
    ),
}
"""By look. The licences are in the data folder."""


class BuildError(UserError):
    """The packages are not those that the drawings are built from."""


def icons(package: Package, path: Path) -> dict[str, Any]:
    """Read a package file's drawings.

    Raises:
        BuildError: it is another version, or not the file that the registry has.
    """
    with tarfile.open(path) as archive:
        about, drawings = (
            json.load(archive.extractfile(f"package/{name}"))  # pyright: ignore[reportArgumentType]
            for name in ("package.json", "icons.json")
        )
    if about["version"] != package.version:
        raise BuildError(
            f"The package {package.name} must be version {package.version}, got "
            f"{about['version']} in {path}; get that version."
        )
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != package.integrity:
        raise BuildError(
            f"The package {package.name} {package.version} must have SHA-512 "
            f"{package.integrity[:12]}..., got {digest[:12]}... in {path}; download it again."
        )
    return drawings


def drawing(drawings: dict[str, Any], name: str) -> tuple[list[float], str]:
    """A drawing's view box (left, top, width, height), and its body as skia reads it."""
    while name not in drawings["icons"]:
        name = drawings["aliases"][name]["parent"]
    icon = drawings["icons"][name]
    side = {key: icon.get(key, drawings.get(key, 0)) for key in ("left", "top", "width", "height")}
    # skia knows references by their older name only, and no colour of the surrounding text
    body = re.sub(r'(?<![:\w])href="', 'xlink:href="', icon["body"])
    body = body.replace("currentColor", "#1c1c22")
    return list(side.values()), body


def build(packages: Path, folder: Path = artwork.FOLDER) -> dict[str, int]:
    """Write the compressed drawings and their checksums.

    Args:
        packages: Folder that holds the package files.
        folder: The data folder; it holds the curated lists.

    Returns:
        Bytes of each look's file.
    """
    listed = [json.loads(line) for line in (folder / artwork.LIST).read_text("utf-8").splitlines()]
    sums: dict[str, dict[str, str]] = {}
    sizes: dict[str, int] = {}
    for look, package in PACKAGES.items():
        drawings = icons(package, packages / package.file)
        found = {}
        for _, slug, *_, names in listed:
            name = names.get(package.name, slug)
            if name:
                found[slug] = drawing(drawings, name)
        text = json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()
        packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
        (folder / artwork.file_of(look)).write_bytes(packed)
        sizes[look] = len(packed)
        sums[look] = {
            "package": f"@iconify-json/{package.name}",
            "version": package.version,
            "sha256": hashlib.sha256(packed).hexdigest(),
        }
    for name in (artwork.LIST, artwork.COLOURED):
        data = (folder / name).read_bytes()
        sums[name] = {"sha256": hashlib.sha256(data).hexdigest()}
    (folder / artwork.SUMS).write_text(json.dumps(sums, indent=1) + "\n")
    return sizes


def fetch(packages: Path) -> None:
    """Fetch the packages that a folder lacks."""
    packages.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES.values():
        if not (packages / package.file).exists():
            name = f"@iconify-json/{package.name}@{package.version}"
            subprocess.run(["npm", "pack", "--silent", name], cwd=packages, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the build from the command line."""
    parser = argparse.ArgumentParser(description="Build the artists' drawings of the world.")
    parser.add_argument(
        "--packages", type=Path, required=True, help="folder that keeps the npm packages"
    )
    options = parser.parse_args(arguments)
    try:
        fetch(options.packages)
        sizes = build(options.packages)
    except UserError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    for look, size in sizes.items():
        print(f"{look}: {size / 1024:.0f} KiB")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
