"""What run.py fetches is checked before it is used, and an interrupt leaves nothing half-made."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from freesteer.tools import Failure, setup_host
from freesteer.tools.setup_host import Archive, fetch_host, link_pack, unpack

GOOD = {
    "c-1/vendor/ComfyUI/main.py": "host",
    "c-1/vendor/ComfyUI/comfy/a.py": "a",
    "c-1/README": "not wanted",
    "c-1/vendor/other/b.py": "not wanted",
}


def archive(folder: Path, files: dict[str, str], link: tuple[str, str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "c-1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        if link:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            tar.addfile(info)
    return path


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local archive, pinned as version `1`."""
    file = archive(tmp_path / "index", GOOD)
    monkeypatch.setitem(setup_host.ARCHIVES, "1", Archive("1", hashlib.sha256(file.read_bytes()).hexdigest()))
    return file


def copying(file: Path) -> Callable[[str, Path], None]:
    def download(requirement: str, folder: Path) -> None:
        (folder / file.name).write_bytes(file.read_bytes())

    return download


def test_only_the_hosts_files_are_unpacked(pinned: Path, tmp_path: Path) -> None:
    host = fetch_host("1", copying(pinned), tmp_path / "hosts")
    assert host == tmp_path / "hosts" / "ComfyUI-1"
    assert {file.relative_to(host).as_posix() for file in host.rglob("*") if file.is_file()} == {"main.py", "comfy/a.py"}
    assert list((tmp_path / "hosts").iterdir()) == [host]


def test_a_host_that_is_there_is_not_fetched_again(pinned: Path, tmp_path: Path) -> None:
    def download(requirement: str, folder: Path) -> None:
        raise AssertionError("fetched again")

    first = fetch_host("1", copying(pinned), tmp_path)
    assert fetch_host("1", download, tmp_path) == first


def test_an_archive_with_another_hash_is_refused(pinned: Path, tmp_path: Path) -> None:
    other = archive(tmp_path / "other", {**GOOD, "c-1/vendor/ComfyUI/main.py": "changed"})
    with pytest.raises(Failure, match=r"not the file that this was made with.*cache purge"):
        fetch_host("1", copying(other), tmp_path / "hosts")
    assert list((tmp_path / "hosts").iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("broke off")])
def test_an_interrupted_download_leaves_nothing(pinned: Path, tmp_path: Path, error: BaseException) -> None:
    def download(requirement: str, folder: Path) -> None:
        (folder / "c-1.tar.gz").write_bytes(pinned.read_bytes()[:50])
        raise error

    with pytest.raises(type(error)):
        fetch_host("1", download, tmp_path / "hosts")
    assert list((tmp_path / "hosts").iterdir()) == []


def test_an_interrupt_while_unpacking_leaves_nothing(pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_host.shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_host("1", copying(pinned), tmp_path / "hosts")
    assert list((tmp_path / "hosts").iterdir()) == []


@pytest.mark.parametrize("name", ["c-1/vendor/ComfyUI/../../../evil.py", "c-1/vendor/ComfyUI/..\\evil.py", "c-1/vendor/ComfyUI/C:evil.py"])
def test_a_member_outside_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match="outside of its folder"):
        unpack(archive(tmp_path / "in", {**GOOD, name: "evil"}), tmp_path / "out" / "host")
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_in_the_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="neither file nor folder"):
        unpack(archive(tmp_path / "in", GOOD, link=("c-1/vendor/ComfyUI/models", "/etc")), tmp_path / "out")


def test_an_archive_that_broke_off_or_holds_no_host_is_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "in", GOOD)
    whole.write_bytes(whole.read_bytes()[:60])
    with pytest.raises(Failure, match="cannot be read"):
        unpack(whole, tmp_path / "a")
    with pytest.raises(Failure, match="holds no ComfyUI"):
        unpack(archive(tmp_path / "in", {"c-1/README": "x"}), tmp_path / "b")


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "host" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "pack").mkdir()
    return tmp_path / "pack"


def test_the_pack_is_linked_once(pack: Path, tmp_path: Path) -> None:
    host = tmp_path / "host"
    assert link_pack(host, pack) == link_pack(host, pack) == "FreeSteer"
    assert (host / "custom_nodes" / "FreeSteer").resolve() == pack


def test_a_pack_that_is_already_among_the_custom_nodes_keeps_its_name(pack: Path, tmp_path: Path) -> None:
    mine = tmp_path / "host" / "custom_nodes" / "my-copy"
    pack.rename(mine)
    assert link_pack(tmp_path / "host", mine) == "my-copy"
    assert [place.name for place in mine.parent.iterdir()] == ["my-copy"]


def test_a_link_to_nowhere_is_replaced_and_another_copy_is_not(pack: Path, tmp_path: Path) -> None:
    link = tmp_path / "host" / "custom_nodes" / "FreeSteer"
    link.symlink_to(tmp_path / "gone")
    assert link_pack(tmp_path / "host", pack) == "FreeSteer"
    link.unlink()
    link.mkdir()
    (link / "theirs.py").touch()
    with pytest.raises(Failure, match="another copy of the pack: move it away"):
        link_pack(tmp_path / "host", pack)
    assert (link / "theirs.py").exists()
