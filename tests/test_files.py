"""Writes are atomic, and locks keep a second process out."""

import contextlib
import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from ckd_ref.data import files
from ckd_ref.data.files import atomic_write, locked, remove_leftovers


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
        threading.Timer(0.2, holder.kill).start()
        start = time.monotonic()
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
