"""The file of paired data: round trip, damage, atomic writes, validation once per recording."""

import functools
import shutil

import h5py
import numpy as np
import pytest
from conftest import peak_memory

from ckd_ref import events as events_module
from ckd_ref.data import hdf5
from ckd_ref.data import paired as data_module
from ckd_ref.data.paired import LAYOUT, PairedWriter, open_paired
from ckd_ref.events import EVENT_DTYPE, FormatError, bin_events, resize_frames

SENSOR, S = (6, 9), 5
CLASSES = ("anchor", "yin yang", "Äther")
IMAGES = [
    (0, 10, "teacher"), (0, 11, "static"), (1, 12, "static"), (2, 13, "static"),
    (0, 20, "test"), (2, 21, "test"),
]
RECORDINGS = [
    (0, 11, "train"), (1, 12, "train"), (2, 13, "train"), (0, 20, "test"), (2, 21, "test"),
]

NAMES = [f"picture {i} ß" for i in range(22)]


def make_events(rng, n):
    events = np.empty(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 300_000, n))
    for field, end in (("x", SENSOR[1]), ("y", SENSOR[0]), ("p", 2)):
        events[field] = rng.integers(0, end, n)
    return events


def write(path, rng):
    """Write a valid file of three classes; return its contents."""
    pixels = rng.integers(0, 256, (len(IMAGES), S, S, 3)).astype(np.uint8)
    recordings = [make_events(rng, int(n)) for n in rng.integers(1, 400, len(RECORDINGS))]
    with PairedWriter(path, CLASSES, SENSOR, S, NAMES) as writer:
        for image, row in zip(pixels, IMAGES):
            writer.add_image(image, *row)
        for events, row in zip(recordings, RECORDINGS):
            writer.add_recording(events, *row)
    return pixels, recordings


@pytest.fixture
def path(tmp_path, rng):
    write(tmp_path / "good.h5", rng)
    return tmp_path / "good.h5"


# The file

def test_round_trip(tmp_path, rng):
    pixels, recordings = write(tmp_path / "a.h5", rng)
    with open_paired(tmp_path / "a.h5") as data:
        assert (data.classes, data.sensor_size, data.image_size) == (CLASSES, SENSOR, S)
        assert data.image_label.tolist() == [row[0] for row in IMAGES]
        assert data.image_identity.tolist() == [row[1] for row in IMAGES]
        assert data.image_split.tolist() == [0, 1, 1, 1, 2, 2]
        assert data.event_label.tolist() == [row[0] for row in RECORDINGS]
        assert data.event_identity.tolist() == [row[1] for row in RECORDINGS]
        assert data.event_split.tolist() == [0, 0, 0, 1, 1]
        assert data.images_in("static").tolist() == [1, 2, 3]
        assert data.recordings_in("test").tolist() == [3, 4]
        for i, events in enumerate(recordings):
            assert data.recording(i).dtype == EVENT_DTYPE
            assert np.array_equal(data.recording(i), events)
        assert data.names == tuple(NAMES) and not data.leaky
        images = data.images([4, 0, 4])
        assert images.dtype == np.float32
        assert np.array_equal(images, pixels[[4, 0, 4]] / np.float32(255))
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_writer_does_not_keep_the_callers_arrays(tmp_path, rng):
    events, pixels = make_events(rng, 50), np.zeros((S, S, 3), np.uint8)
    before = events.copy()
    with PairedWriter(tmp_path / "a.h5", CLASSES, SENSOR, S) as writer:
        writer.add_image(pixels, 0, 0, "static")
        writer.add_recording(events, 0, 0, "train")
        events["x"], pixels[:] = 0, 255
    with open_paired(tmp_path / "a.h5") as data:
        assert np.array_equal(data.recording(0), before) and not data.images([0]).any()


def test_writer_streams(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(data_module, "BUFFER_BYTES", 1000)
    recordings = [make_events(rng, 300) for _ in range(60)]
    with PairedWriter(tmp_path / "a.h5", CLASSES, SENSOR, S) as writer:
        for i, events in enumerate(recordings):
            writer.add_recording(events, i % 3, i, "train")
            held = max(
                sum(piece.nbytes for piece in pending) for pending in writer._pending.values()
            )
            assert held < 1000
    with open_paired(tmp_path / "a.h5") as data:
        assert all(np.array_equal(data.recording(i), events) for i, events in enumerate(recordings))


def test_every_data_set_is_checksummed_and_chunked(path):
    with h5py.File(path) as file:
        assert all(file[name].fletcher32 and file[name].chunks for name in LAYOUT)


def test_frames_are_binned_then_resized(path):
    with open_paired(path) as data:
        frames = data.frames([3, 0], T=4, size=8)
        assert frames.shape == (4, 2, 8, 8, 2) and frames.dtype == np.float32
        for b, i in enumerate([3, 0]):
            assert np.array_equal(
                frames[:, b], resize_frames(bin_events(data.recording(i), 4, SENSOR), 8)
            )


def test_frames_of_the_sensors_size_keep_every_event(tmp_path, rng):
    events = make_events(rng, 100)
    with PairedWriter(tmp_path / "a.h5", CLASSES, (9, 9), S) as writer:
        writer.add_recording(events, 0, 0, "train")
    with open_paired(tmp_path / "a.h5") as data:
        assert np.array_equal(data.frames([0], 3, 9)[:, 0], bin_events(events, 3, (9, 9)))


def test_events_are_checked_exactly_once_per_recording(path, monkeypatch):
    checked = []

    def check(events, sensor_size):
        checked.append(len(events))
        return events

    monkeypatch.setattr(data_module, "check_events", check)
    monkeypatch.setattr(events_module, "check_events", check)
    with open_paired(path) as data:
        data.frames([3, 0, 3], T=4, size=8)
        assert checked == data.event_count[[3, 0, 3]].tolist()


@pytest.mark.parametrize("T", [0, -1, 1.5, np.inf, 10**9])
def test_frames_need_a_whole_number_of_windows(path, T):
    with open_paired(path) as data, pytest.raises(ValueError, match="a whole number in 1 .*, got"):
        data.frames([0], T, 8)


def test_what_memory_does_not_hold_is_refused_with_its_size(path, monkeypatch):
    def no_memory(shape, dtype):
        raise MemoryError(f"Unable to allocate an array with shape {shape}")

    with open_paired(path) as data, monkeypatch.context() as patch:
        monkeypatch.setattr(data, "recording", functools.cache(data.recording))
        data.frames([0], 2, 8)
        patch.setattr(np, "empty", no_memory)
        with pytest.raises(ValueError, match=r"good.h5: too little memory for 2 .*\(2, 3, 8, 8, 2"):
            data.frames([0, 0, 0], 2, 8)
        with pytest.raises(ValueError, match=r"too little memory for 2 images .*\(2, 5, 5, 3\)"):
            data.images([0, 1])


def test_frames_are_resized_one_recording_at_a_time(tmp_path, rng):
    """Not all at the sensor's size first: for N-Caltech101 these would be 27 GB."""
    with PairedWriter(tmp_path / "a.h5", CLASSES, (400, 400), S) as writer:
        for i in range(20):
            writer.add_recording(make_events(rng, 5), 0, i, "train")
    with open_paired(tmp_path / "a.h5") as data:
        one = 4 * 4 * 400 * 400 * 2
        assert peak_memory(lambda: data.frames(np.arange(20), 4, 8)) < 3 * one


def test_opening_reads_neither_pixels_nor_events(path, monkeypatch):
    read = set()
    original = hdf5.StoredArray._chunk
    monkeypatch.setattr(
        hdf5.StoredArray,
        "_chunk",
        lambda self, corner: read.add(self._name) or original(self, corner),
    )
    open_paired(path).close()
    assert read == set(LAYOUT) - set(data_module.STREAMED)


def test_closed_file_says_so(path):
    with open_paired(path) as data:
        pass
    for use in (
        lambda: data.images([0]),
        lambda: data.recording(0),
        lambda: data.frames([0], 2, 4),
    ):
        with pytest.raises(ValueError, match="good.h5 is closed; open it again"):
            use()


def test_a_writer_writes_one_file(tmp_path):
    """Used again, it would write the samples of the block before as well."""
    writer = PairedWriter(tmp_path / "a.h5", CLASSES, SENSOR, S)
    with pytest.raises(KeyError), writer:
        raise KeyError
    with pytest.raises(ValueError, match="a.h5: expected a new PairedWriter, got one that has"):
        writer.__enter__()
    assert not list(tmp_path.iterdir())


def test_pools_have_names(path):
    with open_paired(path) as data:
        with pytest.raises(ValueError, match="pools teacher, static, test, got 'train'"):
            data.images_in("train")
        with pytest.raises(ValueError, match="pools train, test, got 'static'"):
            data.recordings_in("static")


@pytest.mark.parametrize("indices", [[6], [-1], [0.5], [[0]], 3])
def test_positions_outside_are_refused(path, indices):
    with open_paired(path) as data, pytest.raises(ValueError, match="expected positions"):
        data.images(indices)


# Broken files

def swap(name, change, **properties):
    """Change one data set of a file, written like the writer's except for `properties`."""
    def spoil(file):
        values = change(file[name][()])
        del file[name]
        file.create_dataset(name, data=values, **{"chunks": True, "fletcher32": True, **properties})
    return spoil


def put(name, index, value):
    def spoil(file):
        file[name][index] = value
    return spoil


def attribute(name, value):
    def spoil(file):
        file.attrs[name] = value
    return spoil


def soft_link(file):
    file.move("events/x", "events/elsewhere")
    file["events/x"] = h5py.SoftLink("/events/elsewhere")


def external_link(file):
    del file["images/label"]
    file["images/label"] = h5py.ExternalLink("other.h5", "/images/label")


def external_group(file):
    del file["images"]
    file["images"] = h5py.ExternalLink("other.h5", "/images")


def vlen_strings(file):
    del file["classes"]
    file.create_dataset("classes", data=list(CLASSES), dtype=h5py.string_dtype(), chunks=True)


def external_storage(file):
    del file["events/p"]
    file.create_dataset(
        "events/p",
        file["events/x"].shape,
        np.uint8,
        external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)],
    )


def virtual(file):
    layout = h5py.VirtualLayout(file["events/x"].shape, np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "p", file["events/x"].shape)
    del file["events/p"]
    file.create_virtual_dataset("events/p", layout)


def holes(file):
    """Data sets with only the first chunk stored: the rest would read as zeros."""
    for field in "txyp":
        dtype = file[f"events/{field}"].dtype
        del file[f"events/{field}"]
        file.create_dataset(
            f"events/{field}", (2 * 8192,), dtype, chunks=(8192,), fletcher32=True,
            shuffle=True, compression="gzip", maxshape=(None,),
        )[:8192] = np.arange(8192) % 2


def claim_gigabytes(file):
    file["events/t"].resize(2**40, axis=0)


def lone(names):
    return np.array([name.encode() for name in names], h5py.string_dtype("utf-8", 8))


BROKEN = {
    "format": (
        attribute("format", np.bytes_("other")),
        "format = b'ckd_ref' and schema = 1, got b'other' and 1",
    ),
    "format in a heap": (
        attribute("format", "ckd_ref"),
        "attribute format: expected numbers or bytes",
    ),
    "schema": (attribute("schema", 2), "schema = 1, got b'ckd_ref' and 2"),
    "schema list": (
        attribute("schema", [1, 1]),
        r"attribute schema: .* got int64 of the shape \(2,\)",
    ),
    "no attributes": (
        lambda file: [file.attrs.pop(name) for name in list(file.attrs)],
        "got None and None",
    ),
    "sensor": (attribute("sensor_size", [34]), "sensor_size"),
    "sensor huge": (
        attribute("sensor_size", [65535, 65535]),
        "expected a sensor of at most 16777216 pixels, got 65535 x 65535 = 4294836225",
    ),
    "image size huge": (attribute("image_size", 30000), "at most 2048 x 2048 pixels, got 30000"),
    "sensor gone": (lambda file: file.attrs.pop("sensor_size"), "sensor_size"),
    "image size": (attribute("image_size", 6), "images/pixels: expected the shape"),
    "missing": (lambda file: file.pop("images/label"), "images/label: expected a data set"),
    "missing group": (lambda file: file.pop("events"), "events/t: expected a data set"),
    "group": (
        lambda file: (file.pop("events/p"), file.create_group("events/p")),
        "events/p: expected a chunked",
    ),
    "type": (
        swap("images/label", lambda v: v.astype(np.float64)),
        "images/label: expected the type int64",
    ),
    "width": (swap("events/x", lambda v: v.astype(np.uint8)), "events/x: expected the type uint16"),
    "classes type": (swap("classes", lambda v: np.arange(3)), "classes: expected the type"),
    "rank": (swap("images/label", lambda v: v[:, None]), "images/label: expected the shape"),
    "rank pixels": (
        swap("images/pixels", lambda v: v[..., 0]),
        "images/pixels: expected the shape",
    ),
    "grey": (swap("images/pixels", lambda v: v[..., :1]), "images/pixels: expected the shape"),
    "images": (
        swap("images/label", lambda v: v[:-1]),
        r"expected the shape \('M',\) = \(6,\), got \(5,\)",
    ),
    "recordings": (swap("events/split", lambda v: v[:-1]), "events/split: expected the shape"),
    "events": (swap("events/p", lambda v: v[:-1]), "events/p: expected the shape"),
    "no checksum": (swap("events/y", lambda v: v, fletcher32=False), "events/y: .*fletcher32"),
    "claim": (claim_gigabytes, "events/t: 8796093022208 bytes by its shape .* more than"),
    "type of the other end": (
        swap("images/label", lambda v: v.astype(">i8")),
        "expected the type int64, got >i8",
    ),
    "objects": (vlen_strings, "classes: expected a chunked data set with fletcher32"),
    "external storage": (external_storage, "events/p: expected a chunked data set"),
    "virtual": (virtual, "events/p: expected a chunked data set"),
    "compact": (
        swap("images/label", lambda v: v, chunks=None, fletcher32=False),
        "images/label: expected a chunked",
    ),
    "other filter": (
        swap("events/y", lambda v: v, compression="lzf"),
        r"events/y: expected no filter but shuffle",
    ),
    "holes": (holes, "events/[txyp]: .*(more than the|chunks, got)"),
    "external link": (external_link, "images/label: expected a data set in the file itself"),
    "soft link": (soft_link, "events/x: expected a data set in the file itself"),
    "external group": (external_group, "images/pixels: expected a data set in the file itself"),
    "offsets start": (
        put("events/offsets", 0, 1),
        "events/offsets: expected 6 numbers that increase from 0",
    ),
    "offsets end": (put("events/offsets", -1, 7), "events/offsets"),
    "offsets equal": (
        lambda file: put("events/offsets", 1, file["events/offsets"][2])(file),
        "events/offsets",
    ),
    "offsets negative": (put("events/offsets", 1, -5), "events/offsets"),
    "offsets length": (
        swap("events/offsets", lambda v: np.delete(v, 1)),
        "events/offsets: expected 6",
    ),
    "label high": (
        put("images/label", 4, 3),
        r"images/label\[4\]: expected a number in 0 ... 2, got 3",
    ),
    "label low": (put("events/label", 0, -1), r"events/label\[0\]"),
    "identity": (put("events/identity", 0, -1), r"events/identity\[0\]"),
    "image split": (
        put("images/split", 2, 3),
        r"images/split\[2\]: expected a number in 0 ... 2, got 3",
    ),
    "event split": (
        put("events/split", 2, 2),
        r"events/split\[2\]: expected a number in 0 ... 1, got 2",
    ),
    "leak of an image": (
        put("images/split", 4, 0),
        "identity 20 is in a test split and in another one",
    ),
    "leak of a recording": (
        put("events/identity", 3, 11),
        "identity 11 is in a test split and in another one",
    ),
    "two classes": (put("events/label", 1, 2), "identity 12 has two labels"),
    "names too few": (
        swap("names", lambda v: v[:21]),
        r"images/identity\[5\]: expected a number in 0 ... 20, got 21",
    ),
    "name twice": (
        swap("names", lambda v: v[[0, 0, *range(2, 22)]]),
        "names: expected one for each identity",
    ),
    "name empty": (put("names", 3, b""), "names: expected one for each identity, none empty"),
    "names number": (swap("names", lambda v: np.arange(22)), "names: expected the type"),
    "class twice": (swap("classes", lambda v: lone(["a", "b", "a"])), "none twice"),
    "class empty": (swap("classes", lambda v: lone(["a", "", "b"])), "none empty"),
    "no class": (swap("classes", lambda v: v[:0], maxshape=(None,)), "at least one name"),
    "class not utf-8": (swap("classes", lambda v: np.array([b"\xff", b"a", b"b"])), "utf-8"),
}


@pytest.mark.parametrize("spoil, message", BROKEN.values(), ids=BROKEN)
def test_broken_file_is_refused_when_opened(path, spoil, message):
    with h5py.File(path, "r+", libver="v110") as file:
        spoil(file)
    with pytest.raises(FormatError, match=message) as refused:
        open_paired(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(200)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(
        FormatError, match="a.h5: (damaged, or of another format|expected an HDF5 file)"
    ):
        open_paired(tmp_path / "a.h5")


def test_truncated_file_is_refused_at_every_length(path, tmp_path):
    content = path.read_bytes()
    for length in range(0, len(content), 997):
        (tmp_path / "cut.h5").write_bytes(content[:length])
        with pytest.raises(FormatError, match="cut.h5"):
            open_paired(tmp_path / "cut.h5")


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_paired(tmp_path / "none.h5")


def test_a_recording_of_too_many_events_is_refused(path, monkeypatch):
    monkeypatch.setattr(data_module, "MAX_EVENTS", 10)
    with pytest.raises(FormatError, match=r"good.h5: events/offsets: expected at most 10 events"):
        open_paired(path)


def test_a_flipped_bit_is_found_by_the_checksum(path):
    with h5py.File(path) as file:
        places = {name: file[name].id.get_chunk_info(0) for name in ("events/t", "images/pixels")}
    content = path.read_bytes()
    for name, use in (
        ("events/t", lambda file: file.recording(0)),
        ("images/pixels", lambda file: file.images([0])),
    ):
        place = places[name].byte_offset + places[name].size // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
        with (
            open_paired(path) as data,
            pytest.raises(FormatError, match=r"good.h5, (recording|image) 0: .*damaged"),
        ):
            use(data)
    with h5py.File(path) as file:
        place = file["images/identity"].id.get_chunk_info(0).byte_offset
    # 10 becomes 74
    path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1:])
    with pytest.raises(FormatError, match="good.h5: .*damaged"):
        open_paired(path)


@pytest.mark.parametrize("name, value, message", [
    ("events/x", 9, "event 1 of .*: x = 9"), ("events/y", 6, "y = 6"), ("events/p", 2, "p = 2"),
    ("events/t", -1, "t = -1")])
def test_broken_events_are_refused_when_read(path, name, value, message):
    with h5py.File(path, "r+") as file:
        begin = file["events/offsets"][1]
        file[name][begin + 1] = value
    with open_paired(path) as data:
        data.recording(0)
        with pytest.raises(FormatError, match=f"good.h5, recording 1: .*{message}"):
            data.recording(1)


# Writing

def test_nothing_is_left_when_the_block_raises(tmp_path, rng):
    with (
        pytest.raises(KeyboardInterrupt),
        PairedWriter(tmp_path / "a.h5", CLASSES, SENSOR, S) as writer,
    ):
        writer.add_recording(make_events(rng, 10), 0, 0, "train")
        assert (tmp_path / ".a.h5.tmp").exists() and not (tmp_path / "a.h5").exists()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_old_file_survives_a_failed_rewrite_and_is_replaced_by_a_good_one(path, rng):
    old = path.read_bytes()
    with pytest.raises(FormatError), PairedWriter(path, CLASSES, SENSOR, S) as writer:
        writer.add_image(np.zeros((S, S, 3)), 0, 0, "static")
    assert path.read_bytes() == old
    write(path, rng)
    assert path.read_bytes() != old and [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("first, second, message", [
    ((0, 7, "static"), (0, 7, "test"), "identity 7 is in a test split and in another one"),
    ((0, 7, "test"), (0, 7, "train"), "identity 7 is in a test split"),
    ((0, 7, "static"), (1, 7, "train"), "identity 7 has two labels"),
])
def test_leaking_or_contradictory_identities_are_not_written(tmp_path, rng, first, second, message):
    path = tmp_path / "a.h5"
    with (
        pytest.raises(FormatError, match=f"a.h5: {message}"),
        PairedWriter(path, CLASSES, SENSOR, S) as writer,
    ):
        writer.add_image(np.zeros((S, S, 3), np.uint8), *first)
        if second[2] == "train":
            writer.add_recording(make_events(rng, 5), *second)
        else:
            writer.add_image(np.zeros((S, S, 3), np.uint8), *second)
    assert not list(tmp_path.iterdir())


def test_a_leaky_file_says_so_and_recordings_stay_apart(tmp_path, rng):
    def write_leaky(*rows):
        with PairedWriter(tmp_path / "a.h5", CLASSES, SENSOR, S, leaky=True) as writer:
            for split in ("static", "test"):
                writer.add_image(GOOD_IMAGE, 0, 7, split)
            for row in rows:
                writer.add_recording(make_events(rng, 5), *row)
    write_leaky((0, 8, "train"), (0, 7, "test"))
    with open_paired(tmp_path / "a.h5") as data:
        assert data.leaky and data.names == ()
    with pytest.raises(FormatError, match="identity 8 is in a test split and in another one"):
        write_leaky((0, 8, "train"), (0, 8, "test"))
    with pytest.raises(FormatError, match="identity 7 has two labels"):
        write_leaky((1, 7, "test"))


GOOD_IMAGE = np.zeros((S, S, 3), np.uint8)


@pytest.mark.parametrize("image, message", [
    ((np.zeros((S, S, 3)), 0, 0, "static"), "image 0: expected .* uint8 RGB, got float64"),
    ((np.full((S, S, 3), np.nan, np.float32), 0, 0, "static"), "got float32"),
    ((np.zeros((S, S), np.uint8), 0, 0, "static"), "uint8 RGB, got uint8"),
    ((np.zeros((S, S + 1, 3), np.uint8), 0, 0, "static"), "uint8 RGB"),
    ((None, 0, 0, "static"), "got NoneType"),
    ((GOOD_IMAGE, 3, 0, "static"), "image 0: expected label, a whole number in 0 ... 2, got 3"),
    ((GOOD_IMAGE, "anchor", 0, "static"), "expected label"),
    ((GOOD_IMAGE, 0, -1, "static"), "expected identity"),
    ((GOOD_IMAGE, 0, 0, "train"), "expected split to be one of teacher, static, test, got 'train'"),
])
def test_writer_refuses_bad_images(tmp_path, image, message):
    with (
        pytest.raises(ValueError, match=message),
        PairedWriter(tmp_path / "a.h5", CLASSES, SENSOR, S) as writer,
    ):
        writer.add_image(*image)


def test_writer_refuses_bad_recordings(tmp_path, rng):
    outside = make_events(rng, 9)
    outside["x"][4] = SENSOR[1]
    with PairedWriter(tmp_path / "a.h5", CLASSES, SENSOR, S) as writer:
        writer.add_recording(make_events(rng, 9), 0, 0, "train")
        for events, split, message in ((outside, "train", "recording 1: event 4 of 9: x = 9"),
                                       (outside[:0], "train", "recording 1: .*empty"),
                                       (outside[:1], "static", "recording 1: expected split")):
            with pytest.raises(ValueError, match=message):
                writer.add_recording(events, 0, 1, split)
    with open_paired(tmp_path / "a.h5") as data:        # what was refused left no trace
        assert len(data.event_label) == 1 and len(data.recording(0)) == 9


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((), SENSOR, S), "at least one name"),
        ((("a", "a"), SENSOR, S), "none twice"),
        ((("a", ""), SENSOR, S), "empty"),
        (((1, 2), SENSOR, S), "class names"),
        ((CLASSES, 34, S), "sensor_size"),
        ((CLASSES, (2**16, 2**16), S), "sensor of at most 16777216 pixels, got 65536 x 65536"),
        ((CLASSES, SENSOR, 2**16), "images of at most 2048 x 2048 pixels"),
        ((CLASSES, SENSOR, 0), "image_size"),
        ((CLASSES, SENSOR, 4.5), "image_size"),
    ],
)
def test_writer_refuses_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        PairedWriter(tmp_path / "a.h5", *arguments)


def test_writer_outside_its_block_and_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="in a with block"):
        PairedWriter(tmp_path / "a.h5", CLASSES, SENSOR, S).add_image(GOOD_IMAGE, 0, 0, "static")
    with pytest.raises(FileNotFoundError, match="make it first"):
        PairedWriter(tmp_path / "no/a.h5", CLASSES, SENSOR, S).__enter__()


def test_a_moved_file_is_the_same_file(path, tmp_path):
    shutil.copy(path, tmp_path / "copy.h5")
    with open_paired(path) as one, open_paired(tmp_path / "copy.h5") as two:
        assert np.array_equal(one.recording(2), two.recording(2))
