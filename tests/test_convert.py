"""Conversion of pairs to a file: interrupted, resumed, repeated, and by two processes at once."""

import functools
import os
import pathlib
import signal
import tracemalloc
import types

import numpy as np
import pytest

from ckd_ref.data.files import locked
from ckd_ref.data.paired import open_paired
from ckd_ref.events import EVENT_DTYPE, FormatError

CLASSES = ("ant", "bee")


def picture(k, size):
    return np.full((size, size, 3), k % 256, np.uint8)


def recording(k, switch=None):
    if switch and switch.read_text() == "stop":
        raise KeyboardInterrupt
    return np.array([(t, k % 7, k % 5, t % 2) for t in range(k % 30 + 1)], EVENT_DTYPE)


@pytest.fixture
def convert(converter, monkeypatch):
    module = converter("convert")
    monkeypatch.setattr(module, "SHARD", 4)
    return module


@pytest.mark.parametrize("error, said", [
    (MemoryError(), "not enough memory; a smaller --size or --workers 1 takes less"),
    (MemoryError("Unable to allocate 8 GiB"), "not enough memory (Unable to allocate 8 GiB); a s"),
    (OverflowError("int too large"), "a number is too large (int too large)"),
    (ValueError("array is too big"), "array is too big"),
    (FileNotFoundError(2, "No such file", "a\x1b.csv"), "a?.csv: No such file"),
])
def test_problems_end_in_one_line(convert, error, said):
    with pytest.raises(SystemExit) as stopped, convert.one_line_errors("film.py"):
        raise error
    assert stopped.value.code.startswith(f"film.py: {said}") and stopped.value.code.isprintable()


def test_an_error_of_the_program_keeps_its_traceback(convert):
    with pytest.raises(TypeError), convert.one_line_errors("film.py"):
        len(3)


@pytest.fixture
def pairing(converter):
    return converter("pairing")


@pytest.fixture
def run(convert, pairing, tmp_path):
    """Convert 10 pairs of each class; pair 15 needs the file `switch`.

    Returns the path of the output.
    """
    switch = tmp_path / "switch"
    switch.write_text("go")
    pairs = [
        pairing.Pair(
            f"{CLASSES[k // 10]}/{k}",
            k // 10,
            functools.partial(picture, k, 6),
            functools.partial(recording, k, *[switch] * (k == 15)),
        )
        for k in range(20)
    ]

    def run(**changes):
        chosen = options(**{"out": tmp_path / "out.h5"} | changes)
        convert.convert(chosen, CLASSES, (5, 7), pairs, pairing.split(pairs, CLASSES, chosen))
        return chosen.out
    return run


def options(**changes):
    plain = {"size": 6, "workers": 1, "leaky": False, "overwrite": False, "seed": 0,
             "test_per_class": None, "images_per_class": None, "events_per_class": None}
    return types.SimpleNamespace(**plain | changes)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def turn(switch, text):
    """To "stop" or "goes": as long and as old as the other, so that the plan stays the same."""
    switch.write_text(text)
    os.utime(switch, ns=(0, 0))


def interrupted(run, folder):
    """Stop a conversion at the switch; return the bytes of the complete output, now removed."""
    whole = run().read_bytes()
    (folder / "out.h5").unlink()
    turn(folder / "switch", "stop")
    with pytest.raises(KeyboardInterrupt):
        run()
    return whole


def test_content_names_and_order(run):
    with open_paired(run(images_per_class=4, events_per_class=2)) as data:
        assert data.classes == CLASSES and not data.leaky
        assert data.names == tuple(f"{CLASSES[k // 10]}/{k}" for k in range(20))
        assert [len(data.images_in(pool)) for pool in ("teacher", "static", "test")] == [10, 8, 2]
        assert [len(data.recordings_in(pool)) for pool in ("train", "test")] == [4, 2]
        for i, k in enumerate(data.image_identity):
            assert np.rint(255 * data.images([i])).max() == k and data.image_label[i] == k // 10
        for i, k in enumerate(data.event_identity):
            assert np.array_equal(data.recording(i), recording(k))
            assert data.event_label[i] == k // 10


@pytest.mark.skipif(os.name != "posix", reason="names of files cannot have such characters")
def test_the_name_of_the_output_cannot_command_the_terminal(run, tmp_path, capsys, monkeypatch):
    """Neither in the closing line nor beside the progress bar."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(out=tmp_path / "out\x1b[2J\nfilm.py: done.h5")
    shown = capsys.readouterr()
    assert "out?[2J?film.py: done.h5: 2 classes" in shown.out
    assert "out?[2J?film.py: done.h5: " in shown.err
    assert "\x1b[2J" not in shown.out + shown.err


def test_where_nobody_looks_there_is_no_bar(run, capsys):
    run()
    shown = capsys.readouterr()
    assert shown.err == "" and "2 classes" in shown.out


def test_the_leaky_split_shows_the_test_images_to_the_static_stream(run):
    with open_paired(run()) as data:
        honest = data.event_identity[data.recordings_in("test")]
    with open_paired(run(leaky=True, overwrite=True)) as data:
        assert data.leaky
        assert data.event_identity[data.recordings_in("test")].tolist() == honest.tolist()
        assert set(data.image_identity[data.images_in("static")]) == set(range(20))
        assert set(data.image_identity[data.images_in("test")]) == set(honest)
        assert not set(data.event_identity[data.recordings_in("train")]) & set(honest)


def test_the_number_of_processes_does_not_change_a_byte(run):
    alone = run().read_bytes()
    assert run(workers=2, overwrite=True).read_bytes() == alone


def test_interrupted_and_continued_is_as_never_interrupted(run, tmp_path, monkeypatch):
    whole = interrupted(run, tmp_path)
    assert files(tmp_path) == ["out.h5.parts", "switch"]
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.h5.parts").iterdir()}
    assert len(kept) > 5 and "00000.npz" in kept
    turn(tmp_path / "switch", "goes")
    monkeypatch.setitem(globals(), "picture", None)  # what is finished is not loaded again
    assert run().read_bytes() == whole
    assert files(tmp_path) == ["out.h5", "switch"]


def test_ctrl_c_is_noticed_after_the_shard(run, tmp_path, convert, monkeypatch):
    whole = run().read_bytes()
    (tmp_path / "out.h5").unlink()
    add_image = convert.PairedWriter.add_image

    def pressed(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        add_image(*arguments)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(convert.PairedWriter, "add_image", pressed)
        run()
    assert files(tmp_path / "out.h5.parts") == ["00000.npz", "plan"]
    assert not (tmp_path / "out.h5").exists()
    assert run().read_bytes() == whole


def test_parts_of_another_plan_are_not_mixed_in(run, tmp_path):
    (tmp_path / "switch").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        run()
    for changes in ({"seed": 1}, {"size": 7}, {"leaky": True}):
        with pytest.raises(FileExistsError, match="out.h5.parts holds parts of another conversion"):
            run(**changes)
    (tmp_path / "switch").write_text("go on")                   # another content, so another plan
    with pytest.raises(FileExistsError, match="its options or its source files were different"):
        run()
    with open_paired(run(overwrite=True, seed=1)) as data:
        assert len(data.event_label) == 20
    assert files(tmp_path) == ["out.h5", "switch"]


def thesis(folder):
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")


def thesis_with_a_plan(folder):
    thesis(folder)
    (folder / "plan").write_text("write the conclusion")


def link_to_parts(folder):
    thesis(folder.with_name("elsewhere"))
    (folder.with_name("elsewhere") / "plan").write_text(64 * "0")
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("put, came", [
    (thesis, "a folder with thesis.txt"), (thesis_with_a_plan, "a folder with plan"),
    (link_to_parts, "a link"), (lambda folder: folder.symlink_to("nowhere"), "a link"),
    (lambda folder: folder.write_text("x"), "something else than a folder"),
    (lambda folder: os.mkfifo(folder), "something else than a folder"),
])
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX: links, pipes")
def test_what_is_not_ours_at_the_name_of_the_parts_is_kept_and_refused(run, tmp_path, put, came):
    put(tmp_path / "out.h5.parts")
    before = sorted(tmp_path.glob("**/*"))
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=f"out.h5.parts: .*got {came}; move it away"):
            run(overwrite=overwrite)
    assert sorted(tmp_path.glob("**/*")) == before


@pytest.mark.parametrize("left", [(), (".plan.tmp", "..plan.tmp.lock")])
def test_a_kill_before_the_plan_was_written_is_no_obstacle(run, tmp_path, left):
    (tmp_path / "out.h5.parts").mkdir()
    for name in left:
        (tmp_path / "out.h5.parts" / name).write_bytes(b"")
    run()
    assert files(tmp_path) == ["out.h5", "switch"]


def test_a_kill_while_parts_are_deleted_is_no_obstacle(run, tmp_path, monkeypatch):
    """The plan, by which the folder is known, goes last; so does --overwrite with another plan."""
    unlink = pathlib.Path.unlink

    def killed(path, **options):
        if path.name == "00003.npz":
            raise KeyboardInterrupt
        unlink(path, **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pathlib.Path, "unlink", killed)
        run()
    left = files(tmp_path / "out.h5.parts")
    assert left[0] == "00003.npz" and left[-1] == "plan"
    (tmp_path / "out.h5.parts" / ".00007.npz.tmp").write_bytes(b"")
    run(overwrite=True, seed=1)
    assert files(tmp_path) == ["out.h5", "switch"]


def test_a_file_that_somebody_put_among_the_parts_is_kept(run, tmp_path):
    whole = interrupted(run, tmp_path)
    (tmp_path / "out.h5.parts" / "thesis.txt").write_text("years of work")
    turn(tmp_path / "switch", "goes")
    assert run().read_bytes() == whole
    assert files(tmp_path / "out.h5.parts") == ["thesis.txt"]


@pytest.mark.parametrize("damage", [
    lambda b: b[:-300], lambda b: b[:500] + bytes([b[500] ^ 4]) + b[501:], lambda b: b""])
def test_a_damaged_part_is_found_and_made_again(run, tmp_path, damage):
    whole = interrupted(run, tmp_path)
    part = tmp_path / "out.h5.parts" / "00001.npz"
    part.write_bytes(damage(part.read_bytes()))
    turn(tmp_path / "switch", "goes")
    with pytest.raises(FormatError, match="00001.npz: .*repeat the command"):
        run()
    assert run().read_bytes() == whole


def test_an_existing_output_is_replaced_only_by_a_complete_one(run, tmp_path):
    (tmp_path / "out.h5").write_text("precious")
    with pytest.raises(FileExistsError, match="give --overwrite"):
        run()
    (tmp_path / "switch").write_text("stop")
    with pytest.raises(KeyboardInterrupt):
        run(overwrite=True)
    assert (tmp_path / "out.h5").read_text() == "precious"


@pytest.mark.parametrize("share", [0, 0.1, 0.6, 0.99])
def test_a_full_disk_is_an_os_error_and_the_next_run_goes_on(run, tmp_path, small_disk, share):
    whole = run().read_bytes()
    (tmp_path / "out.h5").unlink()
    small_disk(int(share * len(whole)))
    with pytest.raises(OSError, match="too large"):
        run()
    small_disk(-1)
    assert not (tmp_path / "out.h5").exists() and run().read_bytes() == whole
    assert files(tmp_path) == ["out.h5", "switch"]


def test_a_second_process_is_refused(run, tmp_path):
    with (
        locked(tmp_path / "out.h5"),
        pytest.raises(BlockingIOError, match="out.h5 is in use by process"),
    ):
        run()
    assert files(tmp_path) == ["switch"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind the superuser"
)
def test_a_read_only_folder_is_an_os_error(run, tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError):
        run()
    tmp_path.chmod(0o755)


def test_a_missing_or_unwritable_folder_is_an_os_error(convert, tmp_path):
    for folder, message in ((tmp_path / "none", "no folder .* make it first"), ("/proc", "/proc")):
        chosen = options(out=convert.pathlib.Path(folder, "out.h5"))
        with pytest.raises(OSError, match=message):
            convert.convert(
                chosen, CLASSES, (5, 7), [],
                {pool: [] for pool in ("teacher", "static", "test", "train")},
            )


def test_memory_does_not_grow_with_the_number_of_recordings(convert, pairing, tmp_path):
    def peak(n):
        pairs = [
            pairing.Pair(
                f"ant/{k}", 0, functools.partial(picture, 0, 200), functools.partial(recording, 3)
            )
            for k in range(n)
        ]
        chosen = options(out=tmp_path / f"{n}.h5", size=200)
        tracemalloc.start()
        convert.convert(
            chosen, CLASSES[:1], (5, 7), pairs, pairing.split(pairs, CLASSES[:1], chosen)
        )
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most
    peak(4)
    small, large = peak(40), peak(120)
    assert large - small < 80 * 200 * 200 * 3 / 8       # an eighth of what 80 more images weigh
