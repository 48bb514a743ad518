"""Archives: unpacked once and safely, everything refused is counted, and tables and pictures in them are read like others."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import tiny
from tunesmith.core.errors import DataError
from tunesmith.data.sources import archive
from tunesmith.data.sources.archive import files_in, located, unpacked
from tunesmith.data.sources.base import Reason
from tunesmith.spec.addresses import archive_of

Member = tuple[str, bytes]
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def zipped(path: Path, members: list[Member]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def tarred(path: Path, members: list[Member | tarfile.TarInfo]) -> Path:
    mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(path.name.rpartition(".")[2], "w:")
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


def packed(path: Path, members: list[Member]) -> Path:
    return zipped(path, members) if path.suffix == ".zip" else tarred(path, list(members))


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("ending", ENDINGS)
def test_files_come_out_as_they_went_in_and_only_once(tmp_path: Path, cache: Path, ending: str) -> None:
    path = packed(tmp_path / f"all{ending}", [("a/x.csv", b"1"), ("b/y z.csv", b"22"), ("ä.txt", b"")])
    found = unpacked(path)
    assert below(found.path) == {"a/x.csv": b"1", "b/y z.csv": b"22", "ä.txt": b""} and found.left == ()
    stamp = (found.path / "a/x.csv").stat().st_mtime_ns
    assert unpacked(path) == found and (found.path / "a/x.csv").stat().st_mtime_ns == stamp
    assert len(list((cache / "tunesmith/sources").iterdir())) == 1, "nothing half unpacked stays"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_unsafe_members_are_refused_and_named(tmp_path: Path, ending: str) -> None:
    members = [
        ("good.csv", b"1"), ("../up.csv", b"2"), ("a/../../up.csv", b"2"), ("/etc/abs.csv", b"3"), ("C:\\win.csv", b"4"),
        ("..\\up.csv", b"5"), ("good.csv", b"other"), ("good.csv/x", b"6"), ("in.zip", b"PK"), ("deep/in.tar.gz", b"7"), ("n" * 300, b"8"),
    ]  # fmt: skip
    found = unpacked(packed(tmp_path / f"bad{ending}", members))
    assert below(found.path) == {"good.csv": b"1"}
    wanted = {Reason.OUTSIDE_FOLDER: 5, Reason.NAME_TWICE: 2, Reason.NESTED_ARCHIVE: 2, Reason.BAD_NAME: 1}
    assert Counter(reason for _, reason, _ in found.left) == wanted
    assert all(source.startswith(f"bad{ending}: ") for source, *_ in found.left)
    assert not list(tmp_path.rglob("up.csv"))


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("secret")
    members: list[Member | tarfile.TarInfo] = [
        special("link.csv", tarfile.SYMTYPE, str(tmp_path / "secret.csv")), special("hard.csv", tarfile.LNKTYPE, "ok.csv"),
        special("folder", tarfile.SYMTYPE, str(tmp_path)), ("folder/written.csv", b"1"), special("fifo", tarfile.FIFOTYPE),
        special("disk", tarfile.BLKTYPE), special("console", tarfile.CHRTYPE), ("ok.csv", b"1"),
    ]  # fmt: skip
    found = unpacked(tarred(tmp_path / "t.tar", members))
    assert set(below(found.path)) == {"ok.csv", "folder/written.csv"} and not (tmp_path / "written.csv").exists()
    assert Counter(reason for _, reason, _ in found.left) == {Reason.ARCHIVE_LINK: 3, Reason.ARCHIVE_DEVICE: 3}
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as file:
        for name, kind in (("link", stat.S_IFLNK), ("fifo", stat.S_IFIFO), ("file", stat.S_IFREG)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o777) << 16
            file.writestr(info, "/etc/passwd")
    found = unpacked(tmp_path / "t.zip")
    assert set(below(found.path)) == {"file"} and not os.access(found.path / "file", os.X_OK)
    assert [reason for _, reason, _ in found.left] == [Reason.ARCHIVE_LINK, Reason.ARCHIVE_DEVICE]


def test_bombs_are_refused_whole_and_leave_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "TIMES_FROM", 10**5)
    for path in (zipped(tmp_path / "z.zip", [("zeros", bytes(10**6))]), tarred(tmp_path / "z.tgz", [("zeros", bytes(10**6))])):
        with pytest.raises(DataError, match="looks like a bomb"):
            unpacked(path)
    monkeypatch.setattr(archive, "MOST_ENTRIES", 3)
    for path in (packed(tmp_path / f"m{ending}", [(str(n), b"") for n in range(4)]) for ending in (".zip", ".tar")):
        with pytest.raises(DataError, match="more than 3 entries"):
            unpacked(path)
    monkeypatch.setattr(archive, "MOST_BYTES", 10)
    with pytest.raises(DataError, match="unpacked"):
        unpacked(packed(tmp_path / "b.tar", [("a", bytes(11))]))
    assert not list((cache / "tunesmith/sources").iterdir())


def test_a_zip_that_lies_about_its_size_is_damaged_not_trusted(tmp_path: Path) -> None:
    path = zipped(tmp_path / "lie.zip", [("a.csv", b"x" * 1000), ("b.csv", b"y")])
    raw = path.read_bytes()
    path.write_bytes(raw.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    found = unpacked(path)
    assert set(below(found.path)) == {"b.csv"} and [reason for _, reason, _ in found.left] == [Reason.DAMAGED]


def test_a_tar_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    info = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 2**33
    (tmp_path / "long.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match="a header of"):
        unpacked(tmp_path / "long.tar")


@pytest.mark.parametrize("ending", ENDINGS)
def test_damage_is_one_error_that_names_the_archive(tmp_path: Path, ending: str) -> None:
    path = packed(tmp_path / f"cut{ending}", [("a.csv", os.urandom(20_000)), ("b.csv", b"1" * 5000)])
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive at all" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError) as raised:
            unpacked(path)
        assert raised.value.issues[0].where == str(path)


NAMES = st.lists(
    st.sampled_from(["..", ".", "", "a", "b", "C:", "é", "x.csv", "\\", "..\\..", "~", "con", " ", "in.zip", "%2e%2e", "a\0b"]),
    min_size=1,
    max_size=5,
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.one_of(NAMES.map("/".join), st.text(min_size=1, max_size=20)), min_size=1, max_size=6), st.sampled_from([".zip", ".tar"])
)
def test_no_name_leads_out_of_the_folder_and_every_member_is_accounted_for(tmp_path: Path, names: list[str], ending: str) -> None:
    names = [name for name in names if name.encode("utf-8", "ignore").decode() == name and (ending == ".zip" or "\0" not in name)]
    top, copies = tmp_path / "fuzz", tmp_path / "fuzz" / "copies"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    path = packed(top / f"f{ending}", [(name, b"1") for name in names])
    unpacked(path, copies)
    found = unpacked(path, copies)
    written = below(next(iter(copies.iterdir())) / "f")
    listed = [name for name in names if not name.endswith("/")]
    # tar knows folders by type, not by a slash at the end
    assert len(written) + len(found.left) == len(names if ending == ".tar" else listed)
    assert not [path for path in top.rglob("*") if path.is_symlink()]
    assert set(below(tmp_path)) == {*(f"fuzz/{name}" for name in below(top))} and len(below(top)) == len(written) + 2


def test_the_name_of_a_file_in_an_archive(tmp_path: Path) -> None:
    path = packed(tmp_path / "t.zip", [("set/train.csv", b"text,label\na,b\n"), ("set/test.csv", b"text,label\na,b\n")])
    assert located(f"{path}/train.csv").path.read_text() == "text,label\na,b\n"
    assert [name for _, name in files_in(f"{path}/*.csv")] == [f"{path}/test.csv", f"{path}/train.csv"]
    with pytest.raises(DataError, match=r"it holds test\.csv, train\.csv"):
        located(f"{path}/none.csv")
    (tmp_path / "folder.zip").mkdir()
    assert archive_of(str(tmp_path / "folder.zip" / "t.csv")) is None
    assert pl.read_csv(located(f"{path}/test.csv").path).height == 1 and tiny.table(3).height == 3
