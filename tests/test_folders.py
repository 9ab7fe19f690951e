"""Own images and recordings: every format, pairs by class and by name, published splits."""

import io
import pickle
import re
import zipfile

import h5py
import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields

from ckd_ref.data.paired import open_paired
from ckd_ref.events import EVENT_DTYPE, FormatError, from_arrays

ROWS = [(10, 4, 6, 1), (10, 3, 0, 0), (2500, 0, 6, 1), (1_000_001, 4, 2, 0)]
"""t in us, x, y, p."""

EVENTS = np.array(ROWS, EVENT_DTYPE)
OTHER_ORDER = repack_fields(EVENTS[["x", "y", "p", "t"]])
TABLE = np.array(ROWS)                                                      # (N, 4) int64


@pytest.fixture
def folders(converter):
    return converter("folders")


@pytest.fixture
def recordings(converter):
    return converter("recordings")


# Formats

def in_bits(events):
    """The 40-bit format."""
    t = [int(time).to_bytes(3) for time in events["t"]]
    return b"".join(
        bytes([x, y, p << 7 | high, middle, low])
        for x, y, p, (high, middle, low) in zip(*(events[name].tolist() for name in "xyp"), t)
    )


def saved(function, *arrays, **named):
    stream = io.BytesIO()
    function(stream, *arrays, **named)
    return stream.getvalue()


def write_hdf5(path, place="events", seconds=False, compound=False, **options):
    t = EVENTS["t"] / 1e6 if seconds else EVENTS["t"]
    with h5py.File(path, "w") as file:
        if compound:
            file.create_dataset(place, data=OTHER_ORDER, **options)
            return
        group = file.require_group(place)
        for name in "xyp":
            group.create_dataset(name, data=EVENTS[name], **options)
        group.create_dataset("t", data=t, **options)
        group["ms_to_idx"] = [0, 1]                                         # what others add


def text(header, rows, order=(0, 1, 2, 3)):
    lines = [",".join(str(row[i]) for i in order) for row in rows]
    return "\n".join([header] * bool(header) + lines + [""]).encode()


SIGNED = [(t, x, y, 2 * p - 1) for t, x, y, p in ROWS]
SECONDS = [(t / 1e6, x, y, p) for t, x, y, p in ROWS]
NAMED = {name: EVENTS[name] for name in "txyp"}

FILES = {
    "bits.bin": in_bits(EVENTS),
    "table.npy": saved(np.save, TABLE),
    "table of floats.npy": saved(np.save, TABLE.astype(float)),
    "by column.npy": saved(np.save, np.asfortranarray(TABLE.astype("<i4"))),
    "fields.npy": saved(np.save, OTHER_ORDER),
    "four arrays.npz": saved(np.savez, **NAMED, note=np.array("a")),
    "compressed.npz": saved(np.savez_compressed, **NAMED | {"p": EVENTS["p"] == 1}),
    "one array.npz": saved(np.savez, events=EVENTS),
    "plain.csv": text("", ROWS),
    "named.csv": text("t,x,y,p", SIGNED),
    "CRLF, byte order mark.CSV": b"\xef\xbb\xbf" + text("t,x,y,p", ROWS).replace(b"\n", b"\r\n"),
    "another order.csv": text("# x, y, p, t", ROWS, (1, 2, 3, 0)),
    "events group.h5": dict(),
    "root.hdf5": dict(place="/"),
    "gzip.h5": dict(compression="gzip", shuffle=True, fletcher32=True, chunks=(2,)),
    "lzf.h5": dict(compression="lzf"),
    "fields of one data set.h5": dict(compound=True),
    "prophesee.h5": dict(place="CD/events", compound=True, chunks=(3,)),
}

FILES_IN_SECONDS = {
    "s.csv": text("t,x,y,p", SECONDS),
    "s.npz": saved(np.savez, **NAMED | {"t": (EVENTS["t"] / 1e6).astype(np.float32)}),
    "s.h5": dict(seconds=True),
}


def put(path, content):
    if isinstance(content, dict):
        write_hdf5(path, **content)
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("unit, files", [("us", FILES), ("s", FILES_IN_SECONDS)])
def test_every_format_holds_the_same_events(recordings, tmp_path, unit, files):
    for name, content in files.items():
        events = recordings.read_recording(put(tmp_path / name, content), (7, 5), unit)
        assert events.dtype == EVENT_DTYPE and events.tolist() == ROWS, name
        with pytest.raises(FormatError, match=f"{re.escape(name)}.* event 0 of 4: x = 4"):
            recordings.read_recording(tmp_path / name, (7, 4), unit)
    assert recordings.extent(tmp_path / name, unit) == (7, 5)


@pytest.mark.parametrize("suffix, version", [(".aedat4", None), (".raw", "evt2"), (".raw", "evt3")])
def test_files_of_cameras_hold_the_same_events(recordings, tmp_path, suffix, version):
    faery = pytest.importorskip("faery")
    path = tmp_path / f"camera{suffix}"
    array = np.array([(t, x, y, p) for t, x, y, p in ROWS], faery.EVENTS_DTYPE)
    stream = faery.events_stream_from_array(array, (5, 7))
    stream.to_file(path, version=version, zero_t0=False)
    assert recordings.read_recording(path, (7, 5), "s").tolist() == ROWS    # the format has us
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match="camera"):
        recordings.read_recording(path)


def test_files_of_cameras_name_the_package_they_need(recordings, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faery", None)
    with pytest.raises(FormatError, match=r'a.aedat4: .*pip install "ckd_ref\[readers\]"'):
        recordings.read_recording(tmp_path / "a.aedat4")


def bomb():
    """A megabyte of zeros for every kilobyte."""
    zeros = saved(np.save, np.zeros((2**17, 4), np.int64))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("events.npy", zeros)
    return stream.getvalue()


def lying_bomb():
    """The same, but both headers of the archive say that it unpacks to 128 bytes."""
    size = 128 + 2**17 * 32
    return bomb().replace(size.to_bytes(4, "little"), (128).to_bytes(4, "little"))


def lzma_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("events.npy", FILES["table.npy"])
    return stream.getvalue()


def twice_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("t.npy", FILES["table.npy"])
    return stream.getvalue()


class Loud:
    """Says so if it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


OBJECTS = np.array([Loud(), 1, 2, 3], object)
HUGE = saved(np.save, TABLE).replace(b"(4, 4), }" + b" " * 9, b"(4000000000, 4), }")


@pytest.mark.parametrize("name, content, message", [
    ("a.npz", bomb, "unpacks to 4194432 bytes, expected at most"),
    ("a.npz", lying_bomb, "Bad CRC-32"),
    ("a.npz", lzma_zip, "expected it stored or deflated"),
    ("a.npz", twice_zip, "expected the arrays t, x, y and p, or one array, got t.npy, t.npy"),
    ("a.npz", saved(np.savez, t=TABLE, x=TABLE), "got t.npy, x.npy"),
    ("a.npz", lambda: saved(np.savez, events=OBJECTS), "got Python objects"),
    ("a.npz", lambda: saved(np.savez, **NAMED | {"p": OBJECTS}), "got Python objects"),
    ("a.npz", FILES["one array.npz"][:-50], "not a zip file"),
    ("a.npz", FILES["table.npy"], "not a zip file"),
    ("a.npy", lambda: saved(np.save, OBJECTS), "got Python objects .*never unpickled"),
    ("a.npy", lambda: pickle.dumps(OBJECTS), "magic string"),
    ("a.npy", HUGE, "expected 128000000000 bytes .* got 128"),
    ("a.npy", FILES["table.npy"][:-1], "expected 128 bytes .* got 127"),
    ("a.npy", saved(np.save, TABLE[:, :3]), r"got int64 of shape \(4, 3\)"),
    ("a.npy", saved(np.save, TABLE * 1j), "t: .*got ndarray of complex128"),
    ("a.npy", b"", "damaged"),
    ("a.csv", b"", "line 1: expected the names t, x, y and p or four numbers"),
    ("a.csv", b"timestamp,x,y,polarity\n1,2,3,1\n", "line 1: .*got 'timestamp,x,y,polarity'"),
    ("a.csv", b"t,x,y,p\n", "expected at least one event, got none"),
    ("a.csv", b"t,x,y,p\n1,2,3,1\n\n1,2,3\n", "line 4: expected four numbers, got '1,2,3'"),
    ("a.csv", b"t,x,y,p\n\n1,2,3,1,9\n1,2,3,1,9\n",
     r"line 3: expected four numbers, got '1,2,3,1,9' \(5 fields\)"),
    ("a.csv", b"t,x,y,p\n1,2,3\n", r"line 2: expected four numbers, got '1,2,3' \(3 fields\)"),
    ("a.csv", b"1,2,3,1\n1,2,3,one\n", "line 2: expected four numbers, got '1,2,3,one'"),
    ("a.csv", b"1,2,3,1\n1,2.5,3,1\n", "row 1 of 2: x = 2.5"),
    ("a.csv", b"t,x,y,p\n1,2,3,1\n1,nan,3,1\n", "row 1 of 2: x = nan"),
    ("a.csv", b"1,2,3,1\n\xff\n", "damaged"),
    ("a.bin", b"1234", "cut off"),
    ("a.h5", b"1,2,3,1\n", "damaged"),
    ("a.h5", dict(place="recording"), "expected data sets t, x, y and p"),
    ("a.h5", dict(compression="gzip", maxshape=(None,), chunks=(2**20,)),
     "events/t: unpacks to 8388608 bytes"),
])
def test_what_is_no_recording_is_refused_by_name(recordings, tmp_path, name, content, message):
    path = put(tmp_path / name, content() if callable(content) else content)
    with pytest.raises(FormatError, match=f"(?s){re.escape(str(path))}: .*{message}"):
        recordings.read_recording(path)


def never_written(file):
    file.create_dataset("t", (4,), "i8", chunks=(2,))[:2] = 1


def outside(file):
    file.create_dataset("t", (4,), "i8", external=[("/dev/zero", 0, 32)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "i8")
    layout[:] = h5py.VirtualSource(".", "x", (4,), "u2")
    file.create_virtual_dataset("t", layout)


def foreign_filter(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    plist.set_filter(36559, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(
        file.id, b"t", h5py.h5t.NATIVE_INT64, h5py.h5s.create_simple((4,)), dcpl=plist
    ).write(h5py.h5s.ALL, h5py.h5s.ALL, EVENTS["t"].copy())


@pytest.mark.parametrize("spoil, message", [
    (never_written, "t: a part of its 4 rows was never written"),
    (outside, "t: expected a data set in the file itself"),
    (virtual, "t: expected a data set in the file itself"),
    (lambda file: file.update(t=h5py.SoftLink("/x")), "t: expected a data set in the file itself"),
    (lambda file: file.create_group("t"), "t: expected a data set in the file itself"),
    (lambda file: file.create_dataset("t", data=["a"] * 4), "t: expected numbers in one dimension"),
    (lambda file: file.create_dataset("t", data=TABLE), r"t: .*got int64 of shape \(4, 4\)"),
    (foreign_filter, "t: compressed by the filter 36559 .*gzip"),
])
def test_hdf5_that_is_not_plain_is_refused(recordings, tmp_path, spoil, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "xyp":
            file[name] = EVENTS[name]
        spoil(file)
    with pytest.raises(FormatError, match=f"a.h5: {message}"):
        recordings.read_recording(tmp_path / "a.h5")


# Folders

COUNTS = {"ant": 4, "bee": 3}


@pytest.fixture
def source(tmp_path):
    """Image k of class c is grey 20 c + k; its recording has one event at (k, c), k us."""
    from PIL import Image

    formats = ".csv", ".npy", ".bin", ".npz"
    for c, (name, count) in enumerate(COUNTS.items()):
        for side in ("images", "events"):
            (tmp_path / side / name).mkdir(parents=True)
        for k in range(count):
            Image.new("L", (9, 7), 20 * c + k).save(tmp_path / f"images/{name}/no. {k}.png")
            events = from_arrays([k], [k], [c], [1])
            path = tmp_path / f"events/{name}/no. {k}{formats[k]}"
            table = np.array(events.tolist())
            contents = text("", table), saved(np.save, table), in_bits(events), None
            path.write_bytes(contents[k] or saved(np.savez, table))
    (tmp_path / "events/notes.txt").write_text("")
    return tmp_path


def arguments(source, *more):
    return [
        *(str(source / name) for name in ("images", "events", "out.h5")),
        "--size", "6", "--workers", "1", *more,
    ]


def converted(folders, source, *more):
    """What the file holds: {(pool, name): (class, what the sample shows)} of both sides."""
    folders.main(arguments(source, "--overwrite", *more))
    with open_paired(source / "out.h5") as data:
        images, films = {}, {}
        for pool in ("teacher", "static", "test"):
            for i in data.images_in(pool):
                grey = int(np.rint(255 * data.images([i])).max())
                images[pool, data.names[data.image_identity[i]]] = data.image_label[i], grey
        for pool in ("train", "test"):
            for i in data.recordings_in(pool):
                event, = data.recording(i)
                assert event["t"] == event["x"] and event["p"] == 1
                shown = 20 * int(event["y"]) + int(event["x"])
                films[pool, data.names[data.event_identity[i]]] = data.event_label[i], shown
        return data.classes, data.sensor_size, images, films


def names(samples, pool):
    return {name for place, name in samples if place == pool}


def refusal(folders, source, *more):
    with pytest.raises(SystemExit) as stopped:
        folders.main(arguments(source, *more))
    assert not (source / "out.h5").exists()
    return str(stopped.value)


def test_pairs_by_name_share_an_identity(folders, source, capsys):
    classes, sensor, images, films = converted(folders, source, "--pair", "name")
    assert classes == ("ant", "bee") and sensor == (2, 4)
    assert "sensor of 2 x 4 pixels; if yours is larger" in capsys.readouterr().err
    everything = {f"{name}/no. {k}" for name, n in COUNTS.items() for k in range(n)}
    assert names(films, "test") == names(images, "test") and len(names(films, "test")) == 2
    assert names(films, "train") == names(images, "static") == everything - names(films, "test")
    for (_, name), (label, shown) in [*images.items(), *films.items()]:
        place, number = name.split("/no. ")
        assert (classes[label], shown) == (place, 20 * label + int(number)), name


def test_pairs_by_class_have_identities_of_their_own(folders, source, capsys):
    (source / "events/ant/no. 0.csv").rename(source / "events/ant/another.csv")
    more = "--sensor", "7", "5", "--images-per-class", "1", "--events-per-class", "1"
    classes, sensor, images, films = converted(folders, source, *more)
    assert classes == ("ant", "bee") and sensor == (7, 5)
    assert "warning" not in capsys.readouterr().err
    assert [len(names(images, pool)) for pool in ("teacher", "static", "test")] == [3, 2, 2]
    assert [len(names(films, pool)) for pool in ("train", "test")] == [2, 2]
    assert not {name for _, name in images} & {name for _, name in films}
    for (_, name), (label, shown) in images.items():
        assert name == f"{classes[label]}/no. {shown - 20 * label}.png"
    for (_, name), (label, _) in films.items():
        assert name.startswith(classes[label])


def test_by_class_there_can_be_more_recordings_than_images(folders, source, capsys):
    """By name there cannot: the training recordings filmed the static images."""
    more = "--images-per-class", "1", "--events-per-class", "2", "--sensor-size", "2", "4"
    _, _, images, films = converted(folders, source, *more)
    assert len(names(images, "static")) == 2 and len(names(films, "train")) > 2
    with pytest.raises(SystemExit):
        folders.main(arguments(source, "--overwrite", "--pair", "name", *more))
    assert "film the first static images" in capsys.readouterr().err


def test_the_unit_of_the_times_reaches_every_recording(folders, source):
    """But for those whose format fixes it: the third of each class is a .bin."""
    folders.main(arguments(source, "--unit", "s"))
    with open_paired(source / "out.h5") as data:
        events = np.concatenate([data.recording(i) for i in range(len(data.event_label))])
    expected = [2 if k == 2 else k * 10**6 for k in events["x"].tolist()]
    assert events["t"].tolist() == expected


def test_memory_does_not_grow_with_the_number_of_recordings(recordings, folders, source):
    """Only paths are kept and sent to other processes."""
    options = folders.parse(arguments(source, "--pair", "name"))
    images = folders.by_stem(options.images, (".png",))
    films = folders.by_stem(options.events, recordings.SUFFIXES)
    pairs, _ = folders.pairs_by_name(images, films, None, (7, 5), options)
    for pair in pairs:
        for load in (pair.image, pair.recording):
            assert len(pickle.dumps(load)) < 1000 and pickle.loads(pickle.dumps(load))() is not None


def test_a_split_by_list_is_obeyed(folders, source, capsys):
    """One file with headings, or two as EventBind has them; bee 1 is in neither list."""
    one = source / "split.txt"
    one.write_text("train\nant/no. 0\nant/no. 1\nbee/no. 0.npz\n\ntest\nant/no. 2\nant/no. 3\n"
                   "bee/no. 2.png\n")
    two = source / "train.txt", source / "val.txt"
    row = "N/{0}/no. {1}.bin\tC/{0}/no. {1}.jpg\n"
    two[0].write_text("".join(row.format(*w) for w in (("ant", 0), ("ant", 1), ("bee", 0))))
    two[1].write_text("".join(row.format(*w) for w in (("ant", 2), ("ant", 3), ("bee", 2))))
    train, test = {"ant/no. 0", "ant/no. 1", "bee/no. 0"}, {"ant/no. 2", "ant/no. 3", "bee/no. 2"}
    for seed, files in enumerate(([one], two)):
        chosen = ["--pair", "name", "--seed", str(seed), "--split", *map(str, files)]
        _, _, images, films = converted(folders, source, *chosen)
        assert names(films, "train") == names(images, "static") == train
        assert names(films, "test") == names(images, "test") == test
        assert "left out: 1 recordings that --split does not name: bee/no. 1" in (
            capsys.readouterr().err
        )
    _, _, images, films = converted(folders, source, "--split", str(one))
    assert {name.rpartition(".")[0] for name in names(films, "train")} == train
    assert {name.rpartition(".")[0] for name in names(films, "test")} == test
    assert len(images) == 7                                     # the list is one of recordings


@pytest.mark.parametrize("lists, message", [
    ("ant/no. 0\n", """line 1: expected the line "train" or "test", got 'ant/no. 0'"""),
    ("train\nant\n", "line 2: expected a name like class/file, got 'ant'"),
    ("train\nant/no. 0\ntest\nx/ant/no. 0.bin\n", "1 names are in both lists: ant/no. 0"),
    ("train\nant/no. 9\ntest\nant/no. 1\n", "1 names of --split have no recording: ant/no. 9"),
    ("train\nant/no. 0\ntest\n", "class ant: expected at least one .* in the list for the test"),
    ("train\ntest\nant/no. 0\n", "class ant: expected at least 2 pairs"),
    ("train\ntest\n", "expected names of recordings to train on and to test"),
    ("", "expected names of recordings to train on and to test"),
    (b"train\n\xff", "expected names in UTF-8"),
])
def test_an_unusable_split_is_refused(folders, source, lists, message):
    path = source / "split.txt"
    path.write_bytes(lists if isinstance(lists, bytes) else lists.encode())
    assert re.search(message, refusal(folders, source, "--pair", "name", "--split", str(path)))


def test_what_cannot_be_paired_is_listed_and_refused(folders, source, capsys):
    (source / "images/ant/no. 1.png").rename(source / "images/ant/no. 7.png")
    (source / "events/wasp").mkdir()
    (source / "events/wasp/a.csv").write_text("1,2,3,1\n")
    message = refusal(folders, source, "--pair", "name")
    assert "1 classes without images: wasp" in message
    assert "ant: 1 without images: no. 1.npy" in message
    assert "ant: 1 without recordings: no. 7.png" in message and "--incomplete" in message
    assert "no. 1" not in refusal(folders, source)              # by class, files need no partner
    classes, _, images, films = converted(folders, source, "--pair", "name", "--incomplete")
    assert classes == ("ant", "bee") and len(images) == len(films) == 6
    assert "left out:\n  1 classes without images: wasp" in capsys.readouterr().err


@pytest.mark.parametrize("spoil, more, message", [
    (lambda s: (s / "events/ant/no. 0.npy").write_bytes(b""), (), "no. 0.npy: no. 0.csv has the s"),
    (lambda s: (s / "images/ant/no. 0.jpg").write_bytes(b""), (), "no. 0.png: no. 0.jpg has the s"),
    (lambda s: (s / "events/bee/no. 1.npy").write_bytes(b""), (), "events/bee/no. 1.npy: damaged"),
    (
        lambda s: (s / "events/bee/no. 0.csv").write_text("1,1,1,1\n0,0,0,0\n"), (),
        "events/bee/no. 0.csv: row 1 of 2: t = 0.0, expected times that do not decrease",
    ),
    (None, ("--sensor-size", "1", "9"), "events/bee/no. 0.csv: event 0 of 1: y = 1"),
    (None, ("--test-per-class", "4"), "class ant: expected at least 5 images"),
    (lambda s: (s / "images").rename(s / "elsewhere"), (), "images is not a folder"),
])
def test_unusable_sources_end_in_one_message(folders, source, spoil, more, message):
    if spoil:
        spoil(source)
    assert re.search(message, refusal(folders, source, *more))


def test_a_folder_of_the_user_is_refused_before_any_recording_is_read(
    folders, recordings, source, monkeypatch
):
    monkeypatch.setattr(recordings, "extent", None)
    (source / "out.h5.parts").mkdir()
    (source / "out.h5.parts/thesis.txt").write_text("years of work")
    line = refusal(folders, source)
    assert "out.h5.parts: expected nothing, or the parts of a conversion, got a folder" in line
    assert "\n" not in line and (source / "out.h5.parts/thesis.txt").exists()


@pytest.mark.parametrize("more", [
    ("--split", "a", "b", "c"), ("--pair", "name", "--split", "a", "--test-per-class", "1"),
    ("--unit", "ms"), ("--sensor-size", "0", "4"),
])
def test_options_that_contradict_are_refused(folders, source, more):
    with pytest.raises(SystemExit) as stopped:
        folders.main(arguments(source, *more))
    assert stopped.value.code == 2
