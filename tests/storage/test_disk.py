"""The disk backend: the conformance suite, and what only a disk has."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import stat
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from regstore.digest import Digest
from regstore.errors import (
    AccessDenied,
    AlreadyExists,
    IntegrityError,
    NoSuchBucket,
    NotFound,
    StorageError,
    StorageFull,
    Unsupported,
)
from regstore.layout import BLOBS, REPOSITORIES, BlobKey, LayerLinkKey, UnknownKey, decode, encode
from regstore.storage.base import Capabilities, Storage
from regstore.storage.disk import DiskStorage, openat2, walk
from regstore.testing.any_keys import AnyKeys
from regstore.testing.conformance import StorageConformance
from regstore.testing.faulty import FaultyStorage
from regstore.testing.store import SECOND, keys, read, stream


class TestDisk(StorageConformance, AnyKeys):
    odd_keys = ("a\nb", "tab\t/x", "\x01", "c/\x7f", "back\\slash", "-", "...", "a\\xff")
    many = 4_100

    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        self.root = tmp_path / "root"
        self.root.mkdir()
        async with DiskStorage(self.root) as storage:
            yield storage

    @pytest.fixture
    async def missing(self, tmp_path: Path) -> AsyncIterator[Storage]:
        async with DiskStorage(tmp_path / "not" / "there") as storage:
            yield storage
        assert not (tmp_path / "not").exists()

    async def raw_put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    async def raw_get(self, key: str) -> bytes | None:
        path = self.root / key
        return path.read_bytes() if path.is_file() else None

    async def raw_keys(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()]


class TestFaultyWithoutFaults(TestDisk):
    """The wrapper for tests changes nothing where it is told of no fault. Folders are opened one by one here."""

    many = 2_100

    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        self.root = tmp_path / "root"
        self.root.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(openat2, "_is_known", False)
            async with FaultyStorage(DiskStorage(self.root)) as storage:
                yield storage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture(params=["at once", "one by one"])
async def disk(
    root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DiskStorage]:
    """How folders are opened."""
    if request.param == "one by one":
        monkeypatch.setattr(openat2, "_is_known", False)
    async with DiskStorage(root) as storage:
        yield storage


def fill(root: Path, *keys: str) -> None:
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(key.encode())


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir())


def path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def fails(
    monkeypatch: pytest.MonkeyPatch, name: str, code: int, when: Callable[..., bool] = lambda *a: True
) -> None:
    """Make `os.name` fail with the code where `when(*arguments)` holds."""
    real = getattr(os, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)


# -- nothing leaves the root


async def test_symbolic_links_are_noted_not_listed_and_not_followed(disk: DiskStorage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside, "secret", "below/secret")
    fill(disk.root, "a/real", "z")
    (disk.root / "a/file").symlink_to(outside / "secret")
    (disk.root / "a/folder").symlink_to(outside)
    (disk.root / "a/broken").symlink_to("nowhere")
    (disk.root / "a/up").symlink_to("..")
    assert await keys(disk) == ["a/real", "z"]
    assert disk.symlinks == {"a/file", "a/folder", "a/broken", "a/up"}
    for key in ("a/file", "a/folder", "a/broken", "a/folder/secret", "a/folder/below/secret", "a/up/z"):
        for attempt in (
            disk.get(key),
            disk.stat(key),
            disk.put(key, b"evil"),
            disk.put(key, b"evil", if_absent=True),
            disk.put_stream(key, stream(b"evil")),
            disk.copy(key, "target"),
            disk.copy("z", key),
            disk.move(key, "target", size=6),
            disk.move("z", key, size=1),
            read(disk, key),
        ):
            with pytest.raises(Unsupported, match="symbolic link"):
                await attempt
        outcome = (await disk.delete_many([key]))[key]
        assert isinstance(outcome, Unsupported)
    for prefix in ("a/folder/", "a/folder/bel", "a/up/"):
        with pytest.raises(Unsupported, match="symbolic link"):
            await keys(disk, prefix)
    with pytest.raises(Unsupported):
        await disk.remove_empty_folders("a/folder/below/", older_than=await disk.now() + SECOND)
    assert await disk.remove_empty_folders("", older_than=await disk.now() + SECOND) == 0
    assert files(outside) == ["below/secret", "secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert files(disk.root) == ["a/broken", "a/file", "a/folder", "a/real", "a/up", "z"]


async def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    async with DiskStorage(tmp_path / "link") as storage:
        await storage.put("a/b", b"x")
        assert await keys(storage) == ["a/b"]
    assert files(root) == ["a/b"]


async def test_a_folder_that_becomes_a_link_is_not_followed(
    disk: DiskStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of a folder's names and the opening of one of them."""
    fill(tmp_path / "outside", "secret")
    fill(disk.root, "a/x", "b/x", "c/x")
    monkeypatch.setattr(walk, "PAGE_KEYS", 1)
    found: list[str] = []
    async for page in disk.list(""):
        if page.keys == ["a/x"]:
            (disk.root / "b/x").unlink()
            (disk.root / "b").rmdir()
            (disk.root / "b").symlink_to(tmp_path / "outside")
        found += page.keys
    assert found == ["a/x", "c/x"]


@pytest.mark.parametrize(
    "key",
    ["", "/", "/etc/passwd", "a//b", "a/", "../x", "a/../../x", ".", "a/.", "a\0b", "\udcff", "a/" + "é" * 128],
)
async def test_keys_that_no_file_can_have(disk: DiskStorage, tmp_path: Path, key: str) -> None:
    fill(disk.root, "a/b")
    with pytest.raises(Unsupported):
        await disk.put(key, b"x")
    with pytest.raises(Unsupported):
        await disk.put_stream(key, stream(b"x"))
    with pytest.raises(Unsupported):
        await disk.move("a/b", key, size=3)
    with pytest.raises(NotFound):
        await disk.get(key)
    with pytest.raises(NotFound):
        await disk.stat(key)
    assert await disk.delete_many([key]) == {key: None}
    assert files(tmp_path) == ["root/a/b"]


async def test_several_files_are_read_at_once(disk: DiskStorage) -> None:
    await disk.put("a/b", b"first")
    await disk.put("c", b"second")
    before = disk.counters.requests.get("get", 0)
    one, absent, other, folder = await disk.get_many(["c", "no/such", "a/b", "a"])
    assert (one, other) == (b"second", b"first")
    assert isinstance(absent, NotFound) and absent.key == "no/such" and isinstance(folder, StorageError)
    assert disk.counters.requests["get"] - before == 4


async def test_a_file_and_a_folder_cannot_share_a_name(disk: DiskStorage) -> None:
    fill(disk.root, "file", "folder/x")
    for key in ("folder", "file/below", "file/far/below"):
        for attempt in (
            disk.put(key, b""),
            disk.put(key, b"", if_absent=True),
            disk.put_stream(key, stream()),
            disk.copy("file", key),
            disk.move("folder/x", key, size=8),
        ):
            with pytest.raises(Unsupported, match=r"is a (file|folder)"):
                await attempt
    assert files(disk.root) == ["file", "folder/x"]


async def test_what_is_no_regular_file_is_passed_over(
    disk: DiskStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(disk.root, "a", "z")
    os.mkfifo(disk.root / "pipe")
    monkeypatch.chdir(disk.root)  # a socket's path may have 108 bytes only
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert await keys(disk) == ["a", "z"]
        for key in ("pipe", "socket"):
            with pytest.raises(NotFound):
                await disk.get(key)
            assert await disk.delete_many([key]) == {key: None}
    assert files(disk.root) == ["a", "pipe", "socket", "z"]


# -- listing


async def test_names_that_are_not_utf8_come_escaped(disk: DiskStorage) -> None:
    for name in (b"\xff", b"caf\xe9/x", b"zz", "é".encode()):
        path = disk.root / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = await keys(disk)
    assert found == ["\\xff", "caf\\xe9/x", "zz", "é"]
    with pytest.raises(NotFound):
        await disk.get("caf\\xe9/x")
    assert await disk.delete_many(["\\xff"]) == {"\\xff": None}
    assert await keys(disk) == found


async def test_what_vanishes_while_listing_is_skipped(disk: DiskStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(disk.root, "a/1", "a/2", "a/3", "b/1", "c/1")
    monkeypatch.setattr(walk, "PAGE_KEYS", 1)
    found: list[str] = []
    async for page in disk.list(""):
        if page.keys == ["a/1"]:
            (disk.root / "a/2").unlink()
            (disk.root / "b/1").unlink()
            (disk.root / "b").rmdir()
        found += page.keys
    assert found == ["a/1", "a/3", "c/1"]


async def test_folders_before_start_after_are_not_looked_into(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(disk.root, "a/x", "b/c/x", "b/d/x", "b-/x", "c/x")
    scanned: list[str] = []
    real = os.scandir

    def scandir(folder: int) -> Any:
        scanned.append(os.path.relpath(path_of(folder), disk.root))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert await keys(disk, start_after="b/d") == ["b/d/x", "c/x"]
    assert scanned == [".", "b", "b/d", "c"]
    scanned.clear()
    assert await keys(disk, "b/c/") == ["b/c/x"]
    assert scanned == ["b/c"]


@pytest.mark.parametrize(("code", "kind"), [(errno.EACCES, AccessDenied), (errno.EIO, StorageError)])
async def test_a_folder_that_cannot_be_read_is_not_empty(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StorageError]
) -> None:
    fill(disk.root, "a/x", "b/x")
    monkeypatch.setattr(openat2, "_is_known", False)
    with monkeypatch.context() as patch:
        fails(patch, "open", code, lambda path, *_: path == b"b")
        with pytest.raises(kind, match=f"{disk.root}/b"):
            await keys(disk)
    with monkeypatch.context() as patch:
        fails(patch, "scandir", code, lambda folder: path_of(folder).name == "b")
        with pytest.raises(kind, match=f"{disk.root}/b"):
            await keys(disk, "b/")
    with monkeypatch.context() as patch:
        fails(patch, "open", code, lambda path, *_: path in ("x", b"x"))
        (page,) = [page async for page in disk.list("")]  # a file is listed all the same, and proves nothing
        assert (page.keys, page.sizes, page.etags) == (["a/x", "b/x"], [3, 3], ["", ""])
        with pytest.raises(kind, match=f"{disk.root}/a/x") as caught:
            await disk.get("a/x")
        assert not isinstance(caught.value, NotFound)
        assert isinstance(caught.value.__cause__, OSError)


async def test_a_file_is_opened_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, "a/b/c/d/e/file")
    opened: list[Any] = []
    real = os.open

    def note(path: Any, *more: Any, **options: Any) -> int:
        opened.append(path)
        return real(path, *more, **options)

    async with DiskStorage(root) as disk:
        await disk.get("a/b/c/d/e/file")
        if not openat2._is_known:
            pytest.skip("this system has no openat2")
        monkeypatch.setattr(os, "open", note)
        assert await disk.get("a/b/c/d/e/file") == b"a/b/c/d/e/file"
        assert opened == [root]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
async def test_a_system_without_openat2_is_asked_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    asked = 0

    def call(folder: int, path: bytes, flags: int) -> int:
        nonlocal asked
        asked += 1
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(openat2, "_is_known", True)
    monkeypatch.setattr(openat2, "_call", call)
    fill(root, "a/x", "a/y")
    async with DiskStorage(root) as disk:
        assert [await disk.get(key) for key in ("a/x", "a/y")] == [b"a/x", b"a/y"]
    assert asked == 1


async def test_a_root_that_goes_away_is_no_empty_store(disk: DiskStorage) -> None:
    fill(disk.root, "a")
    disk.root.rename(disk.root.with_name("elsewhere"))
    with pytest.raises(NoSuchBucket):
        await keys(disk)
    with pytest.raises(NoSuchBucket):
        await disk.now()
    with pytest.raises(NoSuchBucket):
        await disk.capabilities()
    with pytest.raises(NoSuchBucket):
        await disk.remove_empty_folders("", older_than=0)
    disk.root.write_bytes(b"a file now")
    with pytest.raises(NoSuchBucket, match="not a folder"):
        await disk.get("a")


async def test_a_root_is_made_only_when_asked_for(tmp_path: Path) -> None:
    async with DiskStorage(tmp_path / "new" / "root", create=True) as storage:
        await storage.put("a/b", b"x")
    assert files(tmp_path) == ["new/root/a/b"]


# -- writing


async def test_data_is_synced_before_it_is_named_and_folders_after(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename, link, mkdir = os.fsync, os.rename, os.link, os.mkdir

    def seen_fsync(file: int) -> None:
        path = os.path.relpath(path_of(file), disk.root)
        steps.append("sync data" if ".regstore-" in path else f"sync {path}")
        fsync(file)

    def seen(name: str, call: Callable[..., None], which: int) -> Callable[..., None]:
        def noted(*arguments: Any, **more: Any) -> None:
            steps.append(f"{name} {arguments[which]}")
            call(*arguments, **more)

        return noted

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen("rename", rename, 1))
    monkeypatch.setattr(os, "link", seen("link", link, 1))
    monkeypatch.setattr(os, "mkdir", seen("mkdir", mkdir, 0))
    made = ["mkdir a", "mkdir b", "sync .", "sync a"]
    await disk.put("a/b/put", b"x")
    assert steps == [*made, "sync data", "rename put", "sync a/b"]
    steps.clear()
    await disk.put("a/b/new", b"x", if_absent=True)
    assert steps == ["sync data", "link new", "sync a/b"]
    steps.clear()
    await disk.put_stream("a/b/stream", stream(b"x"))
    await disk.copy("a/b/stream", "a/b/copy")
    assert steps == ["sync data", "rename stream", "sync a/b", "sync data", "rename copy", "sync a/b"]
    steps.clear()
    await disk.move("a/b/copy", "a/moved", size=1)
    assert steps == ["rename moved", "sync a", "sync a/b"]
    steps.clear()
    await disk.delete_many(["a/b/put", "a/b/new", "a/moved", "a/none", "none/x"])
    assert sorted(steps) == ["sync a", "sync a/b"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EACCES, AccessDenied),
        (errno.EPERM, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.EIO, StorageError),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
async def test_a_write_that_fails_leaves_what_was_there(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch, call: str, code: int, kind: type[StorageError]
) -> None:
    fill(disk.root, "a/there", "a/source")
    with monkeypatch.context() as patch:
        fails(patch, call, code)
        for key in ("a/there", "a/new"):
            with pytest.raises(kind, match=f"{disk.root}/{key}") as caught:
                await disk.put(key, b"data")
            assert type(caught.value) is kind
            with pytest.raises(kind):
                await disk.put_stream(key, stream(b"data"))
            if call == "rename":
                with pytest.raises(kind):
                    await disk.move("a/source", key, size=8)
            else:
                patch.delattr(os, "copy_file_range", raising=False)
                with pytest.raises(kind):
                    await disk.copy("a/source", key)
    assert files(disk.root) == ["a/source", "a/there"]
    assert (disk.root / "a/there").read_bytes() == b"a/there"


async def test_a_delete_that_fails_says_so_for_its_key(disk: DiskStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(disk.root, "a", "b", "c")
    with monkeypatch.context() as patch:
        fails(patch, "unlink", errno.EACCES, lambda name: name == "b")
        outcomes = await disk.delete_many(["a", "b", "c"])
    assert isinstance(outcomes.pop("b"), AccessDenied)
    assert outcomes == {"a": None, "c": None}
    assert files(disk.root) == ["b"]


async def test_what_a_killed_write_leaves_is_listed_and_unknown(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Digest.of(b"x")
    keys_ = [encode(BlobKey(digest)), encode(LayerLinkKey("a/b", digest))]
    with monkeypatch.context() as patch:
        fails(patch, "rename", errno.EIO)
        fails(patch, "unlink", errno.EIO)
        for key in keys_:
            with pytest.raises(StorageError):
                await disk.put(key, b"x")
    left = await keys(disk)
    assert len(left) == 2
    for key, temporary in zip(keys_, left, strict=True):
        assert temporary.startswith(key.rpartition("/")[0] + "/.regstore-")
        assert decode(temporary) == UnknownKey(temporary)


async def test_without_hard_links_there_is_no_conditional_put(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, "link", errno.EPERM)
    assert await disk.capabilities() == Capabilities(atomic_rename=True, folders=True)
    with pytest.raises(Unsupported):
        await disk.put("lock", b"", if_absent=True)
    assert files(disk.root) == []


async def test_a_store_that_cannot_be_written(disk: DiskStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(disk.root, "a")
    fails(monkeypatch, "mkdir", errno.EROFS)
    assert not (await disk.capabilities()).conditional_put
    assert abs(await disk.now() - (disk.root / "a").stat().st_mtime_ns // 1000) < 60 * SECOND
    with pytest.raises(AccessDenied):
        await disk.put("b/c", b"")
    assert await disk.get("a") == b"a"


async def test_read_only_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, "a/b")
    before = [(path, path.stat().st_mtime_ns) for path in (tmp_path, *sorted(tmp_path.rglob("*")))]
    async with DiskStorage(tmp_path, read_only=True) as disk:
        assert abs(await disk.now() - time.time_ns() // 1000) < 60 * SECOND
        assert (await disk.capabilities()).conditional_put is False
        assert await disk.get("a/b") == b"a/b"
        for change in (
            disk.put("c", b""),
            disk.put("c", b"", if_absent=True),
            disk.put_stream("c", stream(b"")),
            disk.delete_many(["a/b"]),
            disk.copy("a/b", "c"),
            disk.move("a/b", "c", size=3),
            disk.remove_empty_folders("", older_than=0),
            disk.remove_folders(["a"]),
        ):
            with pytest.raises(AccessDenied, match="to be looked at only"):
                await change
    assert [(path, path.stat().st_mtime_ns) for path in (tmp_path, *sorted(tmp_path.rglob("*")))] == before


async def test_probes_leave_no_folder(disk: DiskStorage) -> None:
    await disk.capabilities()
    await disk.now()
    assert list(disk.root.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_as_root_new_files_belong_to_the_folder_s_owner(disk: DiskStorage) -> None:
    os.chown(disk.root, 12345, 23456)
    await disk.put("a/b/put", b"x")
    await disk.put("a/b/new", b"x", if_absent=True)
    await disk.put_stream("a/stream", stream(b"x"))
    await disk.copy("a/stream", "c/d/copy")
    await disk.move("a/stream", "e/f/moved", size=1)
    for path in disk.root.rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456), path


async def test_modes_follow_the_umask(disk: DiskStorage) -> None:
    before = os.umask(0o027)
    try:
        await disk.put("a/b", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((disk.root / "a").stat().st_mode) == 0o750
    assert stat.S_IMODE((disk.root / "a/b").stat().st_mode) == 0o640


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS])
async def test_copies_without_the_kernel_s_help(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    body = os.urandom(3_000_000)
    await disk.put("source", body)
    fails(monkeypatch, "copy_file_range", code)
    await disk.copy("source", "copy")
    assert await disk.get("copy") == body


async def test_a_copy_of_a_source_that_changed_is_refused(disk: DiskStorage) -> None:
    await disk.put("source", b"12345")
    with pytest.raises(IntegrityError):
        await disk.copy("source", "copy", size=4)
    assert files(disk.root) == ["source"]


async def test_a_move_between_file_systems_copies(disk: DiskStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    await disk.put("a/source", b"content")
    fails(monkeypatch, "rename", errno.EXDEV, lambda source, _: source == "source")
    await disk.move("a/source", "b/target", size=7)
    assert files(disk.root) == ["b/target"]
    assert await disk.get("b/target") == b"content"


async def test_a_file_cut_while_it_is_read_never_passes_as_whole(disk: DiskStorage) -> None:
    await disk.put("k", b"x" * (3 << 20))
    async with disk.open_read("k") as handle:
        with pytest.raises(IntegrityError, match="ended after"):
            async for _ in handle:
                os.truncate(disk.root / "k", 2 << 20)


async def test_a_cancelled_call_has_ended_when_its_task_has(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    real = os.fsync

    def slow(file: int) -> None:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", slow)
        task = asyncio.create_task(disk.put("k", b"x"))
        await began.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert files(disk.root) == ["k"], "done as a whole, before the task ended"


async def test_nothing_works_after_close(disk: DiskStorage) -> None:
    await disk.close()
    with pytest.raises(StorageError, match="is closed"):
        await disk.get("k")


async def test_no_descriptor_is_left_open(disk: DiskStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(disk.root, *(f"a/{number}/x" for number in range(20)))
    monkeypatch.setattr(walk, "PAGE_KEYS", 5)
    await keys(disk)
    gc.collect()
    before = list(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        await disk.put("b/c", b"x")
        await read(disk, "b/c")
        await disk.capabilities()
        await disk.now()
        await disk.copy("b/c", "d/e")
        await disk.move("d/e", "f/g", size=1)
        await disk.delete_many(["f/g", "none/x", "a"])
        await disk.remove_empty_folders("", older_than=await disk.now() + SECOND)
        await keys(disk)
        listing = disk.list("")
        assert isinstance(listing, AsyncGenerator)
        async with aclosing(listing):
            async for _ in listing:
                break
        for attempt in (
            disk.get("none"),
            disk.put("a", b""),
            disk.put("a/1/x/y", b""),
            disk.copy("none", "x"),
            disk.copy("b/c", "a"),
            disk.move("none", "x", size=1),
            disk.move("b/c", "a", size=1),
            disk.put_stream("b/c", stream(b"x"), size=2),
            disk.put("b/c", b"", if_absent=True),
        ):
            with pytest.raises((NotFound, Unsupported, IntegrityError, AlreadyExists)):
                await attempt
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


async def test_cancelled_opens_leave_no_descriptor_open(disk: DiskStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(disk.root, "a")
    opening, go_on = threading.Event(), threading.Event()
    really = disk._tree.open_file

    def open_file(key: str) -> int:
        file = really(key)
        opening.set()
        go_on.wait(60)
        return file

    monkeypatch.setattr(disk._tree, "open_file", open_file)
    for work in (read(disk, "a"), disk.copy("a", "b")):
        before = len(list(Path("/proc/self/fd").iterdir()))
        opening.clear()
        go_on.clear()
        task = asyncio.create_task(work)
        while not opening.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- empty folders


def make_old(*folders: Path) -> None:
    for folder in folders:
        os.utime(folder, (1_000, 1_000))


async def test_only_old_empty_folders_go_deepest_first(disk: DiskStorage, tmp_path: Path) -> None:
    base = disk.root / REPOSITORIES
    for name in ("old/a/b", "young/a", "mixed/old", "mixed/young", "full/a", "linked/a"):
        (base / name).mkdir(parents=True)
    (disk.root / BLOBS / "sha256").mkdir(parents=True)
    fill(base, "full/a/.hidden")
    (base / "linked/a/link").symlink_to(tmp_path)
    make_old(*(path for path in disk.root.rglob("*") if path.is_dir() and not path.is_symlink()))
    now = await disk.now()
    os.utime(base / "young/a")
    os.utime(base / "mixed/young")
    make_old(base / "young", base / "mixed", base)
    assert await disk.remove_empty_folders(REPOSITORIES, older_than=now) == 4
    left = sorted(
        str(path.relative_to(base)) for path in base.rglob("*") if path.is_dir() and not path.is_symlink()
    )
    assert left == ["full", "full/a", "linked", "linked/a", "mixed", "mixed/young", "young", "young/a"]
    assert await disk.remove_empty_folders("", older_than=now) == 1, "blobs/sha256"
    assert (disk.root / BLOBS).is_dir()


async def test_the_registry_s_own_folders_stay(disk: DiskStorage) -> None:
    (disk.root / BLOBS).mkdir(parents=True)
    (disk.root / REPOSITORIES / "a").mkdir(parents=True)
    (disk.root / "regstore" / "trash").mkdir(parents=True)
    later = await disk.now() + 60 * SECOND
    assert await disk.remove_empty_folders("", older_than=later) == 3
    assert sorted(str(path.relative_to(disk.root)) for path in disk.root.rglob("*")) == [
        "docker",
        "docker/registry",
        "docker/registry/v2",
        "docker/registry/v2/blobs",
        "docker/registry/v2/repositories",
    ]
    assert await disk.remove_empty_folders("docker/registry/v2/blobs", older_than=later) == 0


async def test_folders_of_names_to_keep_stay_with_those_above(disk: DiskStorage) -> None:
    for name in ("r/_uploads", "r/_layers/sha256", "s/_uploads/1", "_uploads/t"):
        (disk.root / name).mkdir(parents=True)
    later = await disk.now() + 60 * SECOND
    assert await disk.remove_empty_folders("", older_than=later, keep=frozenset(["_uploads"])) == 4
    left = sorted(str(path.relative_to(disk.root)) for path in disk.root.rglob("*"))
    assert left == ["_uploads", "r", "r/_uploads", "s", "s/_uploads"]
    assert await disk.remove_empty_folders("r/_uploads/", older_than=later, keep=frozenset(["_uploads"])) == 0
    assert await disk.remove_empty_folders("r/_uploads/", older_than=later) == 1


async def test_writers_and_sweeps_do_not_disturb_each_other(disk: DiskStorage) -> None:
    """A folder may vanish at any moment between its making and its first file."""
    writing = True

    async def sweep() -> None:
        while writing:
            await disk.remove_empty_folders("", older_than=4_000_000_000 * SECOND)

    async def write(number: int) -> None:
        for round_ in range(8):
            key = f"r/{number}/{round_}/a/b/x"
            await disk.put(key, b"x", if_absent=bool(round_ % 2))
            assert await disk.get(key) == b"x"
            await disk.copy(key, f"c/{number}/{round_}/x")
            await disk.move(key, f"m/{number}/{round_}/x", size=1)
            assert await disk.delete_many([f"c/{number}/{round_}/x"]) == {f"c/{number}/{round_}/x": None}

    async with asyncio.TaskGroup() as group:
        sweepers = [group.create_task(sweep()) for _ in range(2)]
        await asyncio.gather(*(write(number) for number in range(4)))
        writing = False
    assert all(task.done() for task in sweepers)
    assert files(disk.root) == sorted(f"m/{number}/{round_}/x" for number in range(4) for round_ in range(8))


async def test_a_move_whose_emptied_folder_is_removed_at_once_has_succeeded(
    disk: DiskStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await disk.put("a/source", b"x")
    real = os.rename

    def rename_and_remove(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        (disk.root / "a").rmdir()

    monkeypatch.setattr(os, "rename", rename_and_remove)
    await disk.move("a/source", "b/target", size=1)
    assert files(disk.root) == ["b/target"]


async def test_a_deep_tree(disk: DiskStorage) -> None:
    key = "/".join(["d"] * 100 + ["x"])
    await disk.put(key, b"x")
    assert await keys(disk) == [key]
    assert await disk.get(key) == b"x"
    await disk.delete_many([key])
    assert await disk.remove_empty_folders("", older_than=await disk.now() + SECOND) == 100
