"""Paired data: images and event recordings of the same classes in one HDF5 file."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Self

import h5py
import numpy as np
from numpy import ndarray

from ..events import (
    EVENT_DTYPE,
    MAX_SIZE,
    MAX_TIME_US,
    FormatError,
    check_events,
    check_sensor_size,
    count_events,
    resize_frames,
    window_edges,
)
from . import hdf5
from .errors import error_context
from .files import atomic_hdf5

FORMAT, SCHEMA = np.bytes_("ckd_ref"), 1  # bytes: HDF5 keeps a str in a heap that has no checksum

IMAGE_SPLITS = ("teacher", "static", "test")
"""Pools of images: `teacher` is for the teacher only, `static` for the static stream as well.

The file stores the position in this tuple.
"""

EVENT_SPLITS = ("train", "test")
"""Pools of recordings: `train` films images of the static pool, `test` those of the test pool."""

LAYOUT = {
    # K classes, M images of S x S pixels, R recordings with N events in total.
    # Recording i is offsets[i] ... offsets[i+1].
    # An image and every recording that filmed it share one identity, a number.
    "classes": ("S", ("K",)),                       # names, utf-8 of fixed length; labels index it
    "names": ("S", ("I",)),                         # of the identities, optional
    "images/pixels": ("u1", ("M", "S", "S", 3)),    # RGB, 0 ... 255
    "images/label": ("i8", ("M",)),
    "images/identity": ("i8", ("M",)),
    "images/split": ("u1", ("M",)),                 # position in IMAGE_SPLITS
    "events/t": ("i8", ("N",)),                     # fields of EVENT_DTYPE, recordings in a row
    "events/x": ("u2", ("N",)),
    "events/y": ("u2", ("N",)),
    "events/p": ("u1", ("N",)),
    "events/offsets": ("i8", ("R+1",)),
    "events/label": ("i8", ("R",)),
    "events/identity": ("i8", ("R",)),
    "events/split": ("u1", ("R",)),                 # position in EVENT_SPLITS
}
"""The data sets of a file: type and shape.

Root attributes: format, schema, sensor_size = (H, W), image_size = S and leaky, 1 if test images
may be in other pools as well (0 if absent). All data sets are chunked and have fletcher32
checksums; pixels and events are compressed. Other data sets are ignored.
"""

NAMES = ("classes", "names")

STREAMED = ("images/pixels", *(f"events/{field}" for field in EVENT_DTYPE.names))
"""Never held in memory as a whole: written in pieces, read by sample, compressed by deflate."""

CHUNK_ELEMENTS = 2**13
"""Chunks are small enough that reading one recording decompresses little else."""

MAX_SENSOR_PIXELS = 2**24
"""Pixels of the sensor, at most: 18 times those of a camera of 720 x 1280."""

MAX_EVENTS = 2**26
"""Events of one recording, at most: 67 million, about 1 GB in memory."""

BUFFER_BYTES = 2**20
"""How much of one data set the writer buffers: HDF5 is slow with small writes."""


class PairedWriter:
    """Write a file of paired data sample by sample, atomically: it is complete or absent.

    A context manager: the file grows under a temporary name in the same folder, and when the
    block ends it is validated, flushed to disk and renamed, replacing an older file. If the
    block or the validation raises, nothing is left behind.

    Parameters
    ----------
    path : path-like
    classes : sequence of str
        Names, unique and not empty; the label of a sample is an index into it.
    sensor_size : (H, W)
        Rows and columns of the event camera, pixels.
    image_size : int
        Rows and columns of the images, pixels.
    names : sequence of str, optional
        Name of each identity, such as "airplanes/image_0001"; an identity is an index into it.
    leaky : bool
        Allow test images in other pools as well, and record this in the file.
    """

    def __init__(
        self, path: str | os.PathLike, classes: Sequence[str], sensor_size: tuple[int, int],
        image_size: int, names: Sequence[str] = (), leaky: bool = False,
    ) -> None:
        self.path = pathlib.Path(path)
        self.classes = tuple(classes)
        self.sensor_size = check_sensor_size(sensor_size)
        self.image_size = int(image_size)
        if not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"expected class names, got {classes!r}")
        _check_classes(self.classes)
        if self.image_size != image_size or self.image_size < 1:
            raise ValueError(
                f"expected image_size, a whole number of pixels >= 1, got {image_size!r}"
            )
        _check_sizes(self.sensor_size, self.image_size)
        self._columns: dict = {name: [] for name in LAYOUT if name not in STREAMED}
        self._columns["classes"] = [name.encode() for name in self.classes]
        self._columns["names"] = [name.encode() for name in names]
        self._leaky = leaky
        self._columns["events/offsets"] = [0]
        self._pending: dict = {name: [] for name in STREAMED}
        self._pending_bytes = dict.fromkeys(STREAMED, 0)
        self._file = None
        self._entered = False

    def __enter__(self) -> Self:
        if self._entered:
            raise ValueError(
                f"{self.path}: expected a new PairedWriter, got one that has begun its file before"
            )
        self._entered = True
        with contextlib.ExitStack() as exits:
            file = exits.enter_context(atomic_hdf5(self.path))
            file.attrs.update(
                format=FORMAT, schema=SCHEMA, sensor_size=self.sensor_size,
                image_size=self.image_size, leaky=np.uint8(self._leaky),
            )
            for name in STREAMED:
                dtype, (_, *sample) = LAYOUT[name]
                sample = [self.image_size if n == "S" else n for n in sample]
                file.create_dataset(
                    name, (0, *sample), dtype, maxshape=(None, *sample), fletcher32=True,
                    chunks=(1 if sample else CHUNK_ELEMENTS, *sample), compression="gzip",
                    compression_opts=1, shuffle=True,
                )
            # On exit, this runs before the file is closed.
            exits.push(lambda kind, *_: self._finish() if kind is None else None)
            self._file = file
            self._exits = exits.pop_all()
        return self

    def add_image(self, pixels: ndarray, label: int, identity: int, split: str) -> None:
        """Append an image, (S, S, 3) uint8 RGB; `split` is one of IMAGE_SPLITS."""
        place = f"image {len(self._columns['images/label'])}"
        S = self.image_size
        came = type(pixels).__name__
        if isinstance(pixels, np.ndarray):
            came = f"{pixels.dtype} {pixels.shape}"
        if came != f"uint8 {(S, S, 3)}":
            raise FormatError(
                f"{place}: expected ({S}, {S}, 3) uint8 RGB, got {came}; "
                "resize it, round 0 ... 1 to 255"
            )
        self._add_row("images", place, label, identity, split, IMAGE_SPLITS)
        self._append("images/pixels", pixels[None])

    def add_recording(self, events: ndarray, label: int, identity: int, split: str) -> None:
        """Append a valid recording with the identity of its image; `split`: EVENT_SPLITS."""
        place = f"recording {len(self._columns['events/label'])}"
        try:
            check_events(events, self.sensor_size)
        except FormatError as error:
            raise FormatError(f"{place}: {error}") from None
        self._add_row("events", place, label, identity, split, EVENT_SPLITS)
        for field in EVENT_DTYPE.names:
            self._append(f"events/{field}", events[field])
        self._columns["events/offsets"].append(self._columns["events/offsets"][-1] + len(events))

    def _add_row(self, group, place, label, identity, split, splits):
        if self._file is None:
            raise ValueError(
                f"{self.path} is not open for writing; use PairedWriter in a with block"
            )
        if split not in splits:
            raise ValueError(
                f"{place}: expected split to be one of {', '.join(splits)}, got {split!r}"
            )
        limits = ("label", label, len(self.classes)), ("identity", identity, 2**63)
        for name, value, end in limits:
            if not isinstance(value, (int, np.integer)) or not 0 <= value < end:
                raise FormatError(
                    f"{place}: expected {name}, a whole number in 0 ... {end - 1}, got {value!r}"
                )
        self._columns[f"{group}/label"].append(label)
        self._columns[f"{group}/identity"].append(identity)
        self._columns[f"{group}/split"].append(splits.index(split))

    def _append(self, name, rows):
        self._pending[name].append(rows.copy())
        self._pending_bytes[name] += rows.nbytes
        if self._pending_bytes[name] >= BUFFER_BYTES:
            self._flush(name)

    def _flush(self, name):
        dataset, pending = self._file[name], self._pending[name]
        begin = len(dataset)
        dataset.resize(begin + sum(map(len, pending)), axis=0)
        if pending:
            dataset[begin:] = np.concatenate(pending)
        pending.clear()
        self._pending_bytes[name] = 0

    def _finish(self):
        for name in STREAMED:
            self._flush(name)
        for name, values in self._columns.items():
            if name == "names" and not values:
                continue
            dtype = LAYOUT[name][0]
            if name in NAMES:
                dtype = h5py.string_dtype("utf-8", max(map(len, values)))
            chunks = (min(len(values), CHUNK_ELEMENTS) or 1,)
            hdf5.write(
                self._file, name, np.array(values, dtype), maxshape=(None,), chunks=chunks
            )
        with error_context(self.path, hdf5.REMAKE):
            _read_columns(self._file)

    def __exit__(self, *error):
        try:
            return self._exits.__exit__(*error)
        finally:
            self._file = None


class PairedData:
    """Read a file of paired data; a context manager.

    Opening validates everything except pixels and events, which stay on disk; these are
    validated when they are read.

    Attributes
    ----------
    classes, names : tuple of str
        Names of the classes and of the identities, the latter empty if the file has none.
    sensor_size, image_size : (H, W), S
    leaky : bool
        Whether test images may be in other pools as well.
    image_label, image_identity, image_split : (M,) arrays
        Of each image; the split is a position in IMAGE_SPLITS.
    event_label, event_identity, event_split, event_count : (R,) arrays
        Of each recording; the split is a position in EVENT_SPLITS.

    Raises
    ------
    FormatError
        Not HDF5, another schema, a damaged file, missing or mistyped data sets, lengths that
        disagree, labels or splits out of range, empty or duplicate names, an identity without
        a name, with two classes, or, unless the file is marked as leaky, in the test pools and
        in another.
    OSError
        A file that cannot be opened.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = pathlib.Path(path)
        with contextlib.ExitStack() as exits, error_context(path, hdf5.REMAKE):
            self._file = exits.enter_context(hdf5.open_checked(path))
            found = _read_columns(self._file)
            exits.pop_all()  # the file stays open
        self.classes = found["classes"]
        self.sensor_size = found["sensor_size"]
        self.image_size = found["image_size"]
        self.names, self.leaky = found["names"], found["leaky"]
        self.image_label, self.event_label = found["images/label"], found["events/label"]
        self.image_identity = found["images/identity"]
        self.event_identity = found["events/identity"]
        self.image_split, self.event_split = found["images/split"], found["events/split"]
        self._streamed = {name: found[name] for name in STREAMED}
        self._offsets = found["events/offsets"]
        self.event_count = np.diff(self._offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        self._file.close()

    def digest(self) -> str:
        """SHA-256, as text, of everything except pixels and events.

        It covers classes, sizes, labels, identities, splits and offsets. Other recordings change
        it as well, since their lengths hardly ever agree.
        """
        digest = hashlib.sha256(repr((self.classes, self.sensor_size, self.image_size)).encode())
        for column in (
            self.image_label, self.image_identity, self.image_split, self.event_label,
            self.event_identity, self.event_split, self._offsets,
        ):
            digest.update(len(column).to_bytes(8) + column.astype("<i8").tobytes())
        return digest.hexdigest()

    def images_in(self, split: str) -> ndarray:
        """(n,) int64 positions of the images of a pool, by its name."""
        return np.flatnonzero(self.image_split == _pool(split, IMAGE_SPLITS, "images"))

    def recordings_in(self, split: str) -> ndarray:
        """(n,) int64 positions of the recordings of a pool, by its name."""
        return np.flatnonzero(self.event_split == _pool(split, EVENT_SPLITS, "recordings"))

    def images(self, indices: ndarray) -> ndarray:
        """Images by position: (B, S, S, 3) float32 RGB in [0, 1]."""
        indices = self._check_indices(indices, len(self.image_label), "image")
        S = self.image_size
        images = self._empty((len(indices), S, S, 3), f"{len(indices)} images")
        for b, i in enumerate(indices):
            with error_context(f"{self.path}, image {i}", hdf5.REMAKE):
                np.divide(self._streamed["images/pixels"][i], np.float32(255), out=images[b])
        return images

    def recording(self, index: int) -> ndarray:
        """One recording by position, validated: (n,) array of EVENT_DTYPE."""
        i, = self._check_indices([index], len(self.event_label), "recording")
        begin, end = self._offsets[i:i + 2]
        events = np.empty(end - begin, EVENT_DTYPE)
        with error_context(f"{self.path}, recording {i}", hdf5.REMAKE):
            for field in EVENT_DTYPE.names:
                events[field] = self._streamed[f"events/{field}"][begin:end]
            return check_events(events, self.sensor_size)

    def durations(self) -> ndarray:
        """Microseconds from the first to the last event of every recording: (R,) int64 >= 0.

        Only these events are read. Raises FormatError if a last event is earlier than the first,
        or if either time is out of range.
        """
        self._check_indices(np.arange(len(self.event_label)), len(self.event_label), "recording")
        with error_context(self.path, hdf5.REMAKE):
            t = self._streamed["events/t"]
            # The last event before each offset and the first one after it.
            around = [t[max(begin - 1, 0):begin + 1] for begin in self._offsets]
        first = np.array([times[-1] for times in around[:-1]], np.int64)
        last = np.array([times[0] for times in around[1:]], np.int64)
        bad = (first < 0) | (last < first) | (last > MAX_TIME_US)
        if bad.any():
            i = int(bad.argmax())
            raise FormatError(
                f"{self.path}, recording {i}: expected times that do not decrease, in 0 ... "
                f"{MAX_TIME_US} us, got {first[i]} at its first and {last[i]} at its last event; "
                "make the file again"
            )
        return last - first

    def frames(self, indices: ndarray, T: int, size: int) -> ndarray:
        """Recordings by position as event counts: (T, B, size, size, 2) float32 >= 0.

        Binned by the conserving rule, and resized if the sensor has another size.
        """
        indices = np.atleast_1d(indices)
        if len(indices) == 0:
            raise ValueError("expected the position of at least one recording, got none")
        for b, i in enumerate(indices):
            recording = self.recording(i)  # validated: `bin_events` would do it again
            edges = window_edges(recording["t"], T)
            sample = count_events(recording, edges, self.sensor_size)
            if self.sensor_size != (size, size):
                sample = resize_frames(sample, size)
            if b == 0:
                what = f"{T} frames of {len(indices)} recordings"
                frames = self._empty((len(sample), len(indices), *sample.shape[1:]), what)
            frames[:, b] = sample
        return frames

    def _empty(self, shape, what):
        """Memory for floats, or a ValueError that says how much was asked for."""
        try:
            return np.empty(shape, np.float32)
        except MemoryError as error:
            raise ValueError(
                f"{self.path}: too little memory for {what} ({error}); use fewer or smaller ones"
            ) from None

    def _check_indices(self, indices, end, what):
        if not self._file:
            raise ValueError(f"{self.path} is closed; open it again to read")
        indices = np.asarray(indices)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(
                f"expected positions of {what}s, whole numbers in one dimension, got {indices!r}"
            )
        if len(indices) and not 0 <= indices.min() <= indices.max() < end:
            raise ValueError(
                f"expected positions in 0 ... {end - 1} of {end} {what}s, "
                f"got {indices.min()} ... {indices.max()}"
            )
        return indices


def open_paired(path: str | os.PathLike) -> PairedData:
    """Open a file of paired data for reading; see `PairedData`."""
    return PairedData(path)


def _read_columns(file):
    """Validate an open file by LAYOUT; return attributes and data sets, read unless STREAMED."""
    came = hdf5.attribute(file, "format"), hdf5.attribute(file, "schema")
    if came != (FORMAT, SCHEMA):
        raise FormatError(
            f"expected the attributes format = {FORMAT} and schema = {SCHEMA}, "
            f"got {came[0]} and {came[1]}; make the file with a converter of this version"
        )
    sensor_size = hdf5.attribute(file, "sensor_size", (2,))
    image_size = hdf5.attribute(file, "image_size")
    found = {
        "sensor_size": check_sensor_size(sensor_size),
        "image_size": int(image_size),
        "names": (),
        "leaky": bool(hdf5.attribute(file, "leaky")),
    }
    _check_sizes(found["sensor_size"], found["image_size"])
    lengths = {"S": found["image_size"]}
    for name, (dtype, shape) in LAYOUT.items():
        if name == "names" and name not in file:
            continue
        dataset = hdf5.dataset(file, name, dtype, shape, lengths)
        if name in NAMES:
            found[name] = tuple(text.decode() for text in dataset[()])
        else:
            found[name] = dataset if name in STREAMED else dataset[()]
    _check_classes(found["classes"])
    _check_offsets(found["events/offsets"], lengths["R"], lengths["N"])
    for group, splits in (("images", IMAGE_SPLITS), ("events", EVENT_SPLITS)):
        for name, end in (
            ("label", lengths["K"]),
            ("identity", lengths.get("I", 2**63)),
            ("split", len(splits)),
        ):
            column = found[f"{group}/{name}"]
            bad = (column < 0) | (column > end - 1)
            if bad.any():
                i = int(bad.argmax())
                raise FormatError(
                    f"{group}/{name}[{i}]: expected a number in 0 ... {end - 1}, got {column[i]}; "
                    "make the file again"
                )
    _check_identities(found)
    return found


def _check_sizes(sensor_size, image_size):
    """Refuse sizes with which a small file would ask for gigabytes of frames or images."""
    H, W = sensor_size
    if H * W > MAX_SENSOR_PIXELS:
        raise FormatError(
            f"expected a sensor of at most {MAX_SENSOR_PIXELS} pixels, got {H} x {W} = {H * W}; "
            "crop the recordings, or give the size of the sensor that made them"
        )
    if image_size > MAX_SIZE:
        raise FormatError(
            f"expected images of at most {MAX_SIZE} x {MAX_SIZE} pixels, "
            f"got {image_size} x {image_size}; make them smaller"
        )


def _check_classes(classes):
    if not classes or not all(classes) or len(set(classes)) < len(classes):
        raise FormatError(
            f"classes: expected at least one name, none empty and none twice, got {list(classes)}"
        )


def _check_offsets(offsets, R, N):
    increasing = (offsets[1:] > offsets[:-1]).all()
    if not (len(offsets) == R + 1 and increasing and offsets[0] == 0 and offsets[-1] == N):
        raise FormatError(
            f"events/offsets: expected {R + 1} numbers that increase from 0 to {N}, "
            "the number of events; make the file again"
        )
    longest = int(np.diff(offsets).max(initial=0))
    if longest > MAX_EVENTS:
        raise FormatError(
            f"events/offsets: expected at most {MAX_EVENTS} events of one recording, "
            f"got {longest}; cut it into several"
        )


def _pool(split, splits, what):
    """The number of a pool, by its name."""
    if split not in splits:
        raise ValueError(f"expected {what} of one of the pools {', '.join(splits)}, got {split!r}")
    return splits.index(split)


def _check_identities(found):
    """Each identity has one name and one class, and is either in the test pools or outside.

    In a leaky file, images are exempt from the latter.
    """
    if not all(found["names"]) or len(set(found["names"])) < len(found["names"]):
        raise FormatError(
            "names: expected one for each identity, none empty and none twice; make the file again"
        )
    events = found["events/identity"]
    identity = np.concatenate([found["images/identity"], events])
    label = np.concatenate([found["images/label"], found["events/label"]])
    _check_agreement(identity, label, "has two labels")

    image_is_test = found["images/split"] == IMAGE_SPLITS.index("test")
    event_is_test = found["events/split"] == EVENT_SPLITS.index("test")
    if found["leaky"]:
        _check_agreement(events, event_is_test, "is in a test split and in another one")
    else:
        is_test = np.concatenate([image_is_test, event_is_test])
        _check_agreement(identity, is_test, "is in a test split and in another one")


def _check_agreement(identity, column, problem):
    """Refuse a column that has two values for one identity."""
    _, first, inverse = np.unique(identity, return_index=True, return_inverse=True)
    bad = column != column[first][inverse]
    if bad.any():
        raise FormatError(
            f"identity {identity[bad.argmax()]} {problem}; "
            "split by identity, and give images and recordings of one source the same number"
        )
