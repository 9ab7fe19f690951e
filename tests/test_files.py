"""Writes are atomic, and locks keep a second process out."""

import contextlib
import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from ckd_ref.data import files, hdf5
from ckd_ref.data.files import atomic_write, locked, open_file, remove_leftovers
from ckd_ref.data.readers import read_bin, read_idx
from ckd_ref.run.session import read_rows
from ckd_ref.run.sweep import read_lines, read_spec


def test_file_appears_when_the_block_ends(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "new")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_block_leaves_the_old_file_alone(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("ne")
        raise error
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere.*make it first"):
        with atomic_write(tmp_path / "nowhere" / "a.txt"):
            pass


# Locks

HOLD = """
import sys, time
from ckd_ref.data.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held_elsewhere(path, script=HOLD):
    """A process that holds the lock of `path`, or that runs another script."""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("name", ["", "a.h5"], ids=["folder", "file"])
def test_second_process_is_refused_and_told_of_the_first(tmp_path, name):
    path = tmp_path / name
    with held_elsewhere(path) as holder:
        with pytest.raises(BlockingIOError) as error, locked(path):
            pass
        for part in (
            str(path),
            f"process {holder.pid} on {platform.node()}",
            "ckd_ref.data.files",
            "choose another name",
        ):
            assert part in str(error.value)
        assert "\n" not in str(error.value)


def test_lock_of_a_killed_process_is_stale(tmp_path):
    with held_elsewhere(tmp_path) as holder:
        holder.kill()
        holder.wait()
        assert f"process {holder.pid} " in (tmp_path / ".lock").read_text()
        with locked(tmp_path):
            assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_lock_is_free_after_the_block_however_it_ends(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError), locked(tmp_path):
            raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_a_lock_can_be_waited_for(tmp_path):
    with held_elsewhere(tmp_path) as holder:
        start = time.monotonic()
        threading.Timer(0.2, holder.kill).start()
        with locked(tmp_path, wait=True):
            assert time.monotonic() - start > 0.1


COUNT = """
import pathlib, sys
from ckd_ref.data.files import locked
counter = pathlib.Path(sys.argv[1], "n")
for _ in range(50):
    with locked(counter, wait=True):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_at_most_one_process_is_inside(tmp_path):
    (tmp_path / "n").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "n").read_text() == "150"


WRITE = """
import sys, time
from ckd_ref.data.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_leftovers_of_killed_processes_are_removed_but_not_the_work_of_living_ones(tmp_path):
    with held_elsewhere(tmp_path / "a.txt", WRITE) as writer:
        names = {file.name for file in tmp_path.iterdir()}
        assert names == {".a.txt.tmp", "..a.txt.tmp.lock"}
        remove_leftovers(tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == names
        writer.kill()
        writer.wait()
        remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_one_file(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("first")
        with (
            pytest.raises(BlockingIOError, match=f"process {os.getpid()} "),
            atomic_write(tmp_path / "a.txt"),
        ):
            pass
    assert (tmp_path / "a.txt").read_text() == "first"


def test_without_flock_the_lock_file_itself_is_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with locked(tmp_path):
        with pytest.raises(
            BlockingIOError, match=r"in use by process .* if it has ended, delete .*\.lock"
        ):
            with locked(tmp_path):
                pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="so nothing can be written in this folder: '.*nowhere'"):
        with locked(tmp_path / "nowhere" / "a.txt"):
            pass


# Links, pipes and folders with the names of locks and temporary files

posix = pytest.mark.skipif(files.fcntl is None, reason="links and pipes are those of POSIX")


@pytest.fixture
def victim(tmp_path):
    """A file that must stay as it is, outside of the folder that is written to."""
    path = tmp_path / "victim"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious" and path.stat().st_mode & 0o777 == 0o644


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@posix
@pytest.mark.parametrize("put", ["symlink_to", "hardlink_to"])
def test_a_link_in_place_of_a_lock_is_refused_and_not_followed(folder, victim, put):
    victim.chmod(0o644)
    getattr(folder / ".lock", put)(victim)
    with pytest.raises(FileExistsError, match="expected a lock, got .*; remove it: .*out/.lock"):
        with locked(folder):
            pass


@posix
@pytest.mark.parametrize("put", ["symlink_to", "hardlink_to"])
def test_a_link_in_place_of_a_temporary_file_is_removed_and_not_followed(folder, victim, put):
    victim.chmod(0o644)
    getattr(folder / ".a.txt.tmp", put)(victim)
    with atomic_write(folder / "a.txt") as temporary:
        temporary.write_text("new")
    (folder / ".b.txt.tmp").symlink_to(folder.parent)           # a folder, where a lock would go
    with atomic_write(folder / "b.txt") as temporary:
        assert not (folder.parent / ".lock").exists()
        temporary.write_text("new")
    (folder / ".c.txt.tmp").symlink_to("nowhere")
    remove_leftovers(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["a.txt", "b.txt"]


@posix
def test_a_link_in_place_of_the_output_is_replaced(folder, victim):
    victim.chmod(0o644)
    (folder / "a.txt").symlink_to(victim)
    with atomic_write(folder / "a.txt", previous=folder / "b.txt") as temporary:
        temporary.write_text("new")
    assert not (folder / "a.txt").is_symlink() and (folder / "b.txt").is_symlink()


@posix
def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / ".lock")
    with pytest.raises(FileExistsError, match="expected a lock, got a pipe"), locked(folder):
        pass
    os.mkfifo(folder / ".a.txt.tmp")
    with atomic_write(folder / "a.txt") as temporary:
        temporary.write_text("new")
    os.mkfifo(folder / "b.txt")
    for path in (folder / "b.txt", "/dev/zero"):
        with pytest.raises(OSError, match="expected a file, got a pipe or a device: "):
            open_file(path)
    for read in (read_bin, read_idx, hdf5.open_checked, read_rows, read_lines, read_spec):
        with pytest.raises(OSError, match="expected a file, got a pipe or a device: .*b.txt"):
            read(folder / "b.txt")


@pytest.mark.parametrize("name", ["a.txt", "b.txt", ".a.txt.tmp", "..a.txt.tmp.lock"])
def test_a_folder_with_the_name_of_a_file_is_named(folder, name):
    (folder / name).mkdir()
    with pytest.raises(IsADirectoryError, match=f"a folder is where a file .*: '.*/{name}'"):
        with atomic_write(folder / "a.txt", previous=folder / "b.txt") as temporary:
            temporary.write_text("new")
    assert [file.name for file in folder.iterdir()] == [name]


@posix
def test_only_the_owner_may_read_what_is_not_finished(folder):
    umask = os.umask(0o027)
    try:
        with atomic_write(folder / "a.txt") as temporary:
            temporary.write_text("new")
            assert temporary.stat().st_mode & 0o777 == 0o600
        assert (folder / "a.txt").stat().st_mode & 0o777 == 0o640
    finally:
        assert os.umask(umask) == 0o027


def test_leftovers_without_a_lock_are_removed_but_not_the_files_of_others(folder):
    for name in (".a.txt.tmp", ".tmp", ".vim.tmp", "a.tmp", "b.txt.tmp"):
        (folder / name).write_text("half")
    remove_leftovers(folder)
    assert {file.name for file in folder.iterdir()} == {".tmp", ".vim.tmp", "a.tmp", "b.txt.tmp"}


@posix
def test_what_a_holder_says_is_shown_safely(tmp_path):
    with locked(tmp_path):
        (tmp_path / ".lock").write_bytes(b"me\n\x1b[2J\xff" + bytes(10**6))
        with pytest.raises(BlockingIOError) as refused, locked(tmp_path):
            pass
    assert f"{tmp_path} is in use by me??[2J" in str(refused.value)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 2000
