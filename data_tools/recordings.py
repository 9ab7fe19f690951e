"""Recordings in the formats that users have: each is validated and becomes an array of events.

The formats are those of `SUFFIXES`. Whatever a file holds goes through `events.from_arrays`, which
names the first bad row.
"""

import io
import itertools
import math
import re
import warnings
import zipfile

import h5py
import numpy as np
import pairing

from ckd_ref.data.errors import error_context
from ckd_ref.data.readers import (
    EVENT_BYTES,
    MAX_BYTES,
    npy_header,
    read_bin,
    read_whole,
    unpacked_limit,
)
from ckd_ref.events import FormatError, check_events, from_arrays

COLUMNS = ("t", "x", "y", "p")

HDF5_PLACES = ("/", "events", "CD/events")
"""Where `read_hdf5` looks for the columns, in this order."""

MAX_EVENTS = MAX_BYTES // EVENT_BYTES
"""As many as the largest file that `read_bin` takes: 50 million."""


def read_recording(path, sensor_size=None, unit="us"):
    """Read a recording of any format of `SUFFIXES`, chosen by the suffix of the file.

    Parameters
    ----------
    path : pathlib.Path
    sensor_size : (H, W), optional
        Rows and columns of the sensor, pixels. Default: what the format can hold.
    unit : {"us", "s"}
        Unit of the times in formats that do not fix it: NumPy, CSV, HDF5.

    Returns
    -------
    events : (N,) array of EVENT_DTYPE
        As `from_arrays` returns them, on the sensor.

    Raises
    ------
    FormatError
        Anything but a valid recording; the message names the file and the first bad row.
    OSError
        The system does not let it be read.
    """
    suffix = path.suffix.lower()
    if suffix in pairing.RECORDING_SUFFIXES:
        return read_bin(path, sensor_size)
    unit = "us" if suffix in CAMERA_SUFFIXES else unit
    with error_context(path, "write it again"):
        events = from_arrays(*READERS[suffix](path), unit)
        return check_events(events, (2**16, 2**16) if sensor_size is None else sensor_size)


def extent(path, unit="us"):
    """The smallest sensor (H, W) on which a recording fits."""
    events = read_recording(path, None, unit)
    return int(events["y"].max()) + 1, int(events["x"].max()) + 1


def columns(array):
    """The columns t, x, y, p of an array with these fields, or of one of shape (N, 4)."""
    if array.dtype.names and set(COLUMNS) <= set(array.dtype.names):
        return [array[name] for name in COLUMNS]
    if array.dtype.names is None and array.ndim == 2 and array.shape[1] == 4:
        return list(array.T)
    raise FormatError(
        "expected an array with the fields t, x, y and p, or one of shape (N, 4) with these "
        f"columns, got {array.dtype} of shape {array.shape}"
    )


# NumPy

def read_npy(path):
    """The columns of a ``.npy`` file; nothing is unpickled."""
    return columns(_parse_npy(read_whole(path)))


def read_npz(path):
    """The columns of a ``.npz`` file: arrays t, x, y and p, or a single array as in ``.npy``.

    Refused before decompression if they unpack to more than `unpacked_limit`.
    """
    content = read_whole(path)
    limit = unpacked_limit(len(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        names = COLUMNS if set(COLUMNS) <= set(members) else tuple(members)
        if len(members) < len(archive.infolist()) or len(names) not in (1, 4):
            came = ", ".join(info.filename for info in archive.infolist()[:10])
            raise FormatError(f"expected the arrays t, x, y and p, or one array, got {came}")
        chosen = [members[name] for name in names]
        size = sum(info.file_size for info in chosen)
        if size > limit:
            raise FormatError(
                f"unpacks to {size} bytes, expected at most {limit} of a file of this length; "
                "not a recording"
            )
        arrays = [_parse_npy(_unzip(archive, info)) for info in chosen]
    return columns(arrays[0]) if len(arrays) == 1 else arrays


def _unzip(archive, info):
    """A member of an archive, no more of it than its header says; its checksum is verified."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(f"{info.filename}: expected it stored or deflated, as NumPy writes it")
    with archive.open(info) as stream:
        return stream.read(info.file_size)


def _parse_npy(content):
    """The array of the bytes of a ``.npy`` file."""
    stream = io.BytesIO(content)
    shape, by_column, dtype = npy_header(stream)
    if dtype.hasobject:
        raise FormatError(
            f"expected numbers, got Python objects ({dtype}), which are never unpickled; "
            "save arrays of numbers"
        )
    body = content[stream.tell():]
    size = math.prod(shape) * dtype.itemsize
    if size != len(body):
        raise FormatError(
            f"expected {size} bytes for {dtype} of the header's shape {shape}, got {len(body)}"
        )
    return np.frombuffer(body, dtype).reshape(shape, order="F" if by_column else "C")


# Text

def read_csv(path):
    """The columns of a text file: rows of four numbers with commas in between.

    The first line may name them, in any order, with or without a ``#``; otherwise they are t, x,
    y and p. Numbers are read as float64, which holds all valid ones exactly.
    """
    stream = io.TextIOWrapper(io.BytesIO(read_whole(path)), "utf-8-sig")
    first = [word.strip(' \t\r\n"') for word in stream.readline(200).lstrip("# ").split(",")]
    has_names = sorted(first) == sorted(COLUMNS)
    if len(first) != 4 or not has_names and not all(map(_is_number, first)):
        raise FormatError(
            "line 1: expected the names t, x, y and p or four numbers, with commas in between, "
            f"got {','.join(first)!r}"
        )
    begin = 2 if has_names else 1
    if not has_names:
        stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are no rows is said by `from_arrays`
            rows = np.loadtxt(stream, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        stream.seek(0)
        raise FormatError(_first_bad_line(stream, begin) or str(error)) from None
    if rows.size == 0:
        rows = np.empty((0, 4))
    if rows.shape[1] != 4:  # in every row alike, so that NumPy found nothing wrong
        stream.seek(0)
        raise FormatError(_first_bad_line(stream, begin))
    names = first if has_names else COLUMNS
    found = dict(zip(names, rows.T))
    return [found[name] for name in COLUMNS]


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def _first_bad_line(stream, begin):
    for number, line in enumerate(itertools.islice(stream, begin - 1, None), begin):
        words = line.strip().split(",")
        if line.strip() and not (len(words) == 4 and all(map(_is_number, words))):
            came = f"{line.strip()[:60]!r} ({len(words)} fields)"
            return f"line {number}: expected four numbers, got {came}"
    return None


# HDF5

def read_hdf5(path):
    """The columns of an HDF5 file: data sets t, x, y and p, or one with these fields.

    They are looked for in the root, in ``events`` and in ``CD/events``. Links, virtual and external
    data sets, missing chunks, filters that this h5py does not have, and more bytes than
    `unpacked_limit` are refused. The files that this project writes have checksums for all their
    bytes, which `ckd_ref.data.hdf5` verifies before HDF5 parses them; files of other programs
    have none. Such a file, if damaged, may be read as other valid numbers, and one that was made
    to do harm may crash the HDF5 library: give only files whose origin you trust.
    """
    limit = unpacked_limit(path.stat().st_size)
    with h5py.File(path, "r") as file:
        for place in HDF5_PLACES:
            found = _own(file, place)
            if isinstance(found, h5py.Group) and set(COLUMNS) <= set(found):
                parts = [_own(found, name) for name in COLUMNS]
                for name, part in zip(COLUMNS, parts):
                    _check_dataset(part, f"{place}/{name}".lstrip("/"), limit)
                return [part[()] for part in parts]
            if isinstance(found, h5py.Dataset) and set(COLUMNS) <= set(found.dtype.names or ()):
                _check_dataset(found, place, limit)
                return columns(found.fields(list(COLUMNS))[()])
    raise FormatError(
        "expected data sets t, x, y and p, or one with these fields, in the root, in events or "
        "in CD/events, got none"
    )


def _own(group, place):
    """What a group holds at a place, None if nothing or if any part of the path is a link."""
    for name in filter(None, place.split("/")):
        if not isinstance(group, h5py.Group):
            return None
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return None
        group = group[name]
    return group


def _check_dataset(found, name, limit):
    """Refuse a data set that is not one of numbers, complete, in the file and small enough."""
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise FormatError(f"{name}: expected a data set in the file itself")
    dtype = found.dtype
    kinds = [dtype[field].kind for field in COLUMNS] if dtype.names else [dtype.kind]
    if found.ndim != 1 or not set(kinds) <= set("iufb"):
        raise FormatError(
            f"{name}: expected numbers in one dimension, got {dtype} of shape {found.shape}"
        )
    plist = found.id.get_create_plist()
    for filter_id, *_, title in map(plist.get_filter, range(plist.get_nfilters())):
        if not h5py.h5z.filter_avail(filter_id):
            raise FormatError(
                f"{name}: compressed by the filter {filter_id} ({title.decode()}), "
                "which this h5py does not have; write it with gzip or without compression"
            )
    if found.chunks:
        missing = found.id.get_num_chunks() < math.ceil(len(found) / found.chunks[0])
    else:
        missing = found.id.get_storage_size() < len(found) * dtype.itemsize
    if missing:
        raise FormatError(f"{name}: a part of its {len(found)} rows was never written")
    size = max(len(found), *(found.chunks or (0,))) * dtype.itemsize
    if size > limit:
        raise FormatError(
            f"{name}: unpacks to {size} bytes, expected at most {limit} in a file of this length"
        )


# Formats of cameras

def read_camera(path):
    """The columns of a file of iniVation's or Prophesee's programs, by the package faery.

    A ``.raw`` file without a header that says its version is refused: faery would guess one. A
    damaged ``.aedat4`` file can make faery end its process.
    """
    if path.suffix.lower() == ".raw":
        with open(path, "rb") as file:
            start = file.read(2**12)
        if not re.match(rb"(% .*\n)*% (evt [23]|format EVT[23])", start):
            raise FormatError(
                'expected a header with "% evt 3.0", "% format EVT3" or version 2, '
                f"got the first bytes {start[:8].hex(' ') or '(none)'}"
            )
    try:
        import faery
    except ImportError:
        raise FormatError(
            f'{path.suffix} files are read by the package faery; pip install "ckd_ref[readers]"'
        ) from None
    packets = [np.empty(0, faery.EVENTS_DTYPE)]
    count = 0
    try:
        for packet in faery.events_stream_from_file(path):
            packets.append(packet)
            count += len(packet)
            if count > MAX_EVENTS:
                raise FormatError(f"expected at most {MAX_EVENTS} events; cut it into recordings")
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which Rust raises; it is no Exception
            raise
        raise FormatError(f"damaged ({error})") from None
    events = np.concatenate(packets)
    return [events[name] for name in ("t", "x", "y", "on")]


CAMERA_SUFFIXES = (".aedat4", ".raw")

READERS = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_csv,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    **dict.fromkeys(CAMERA_SUFFIXES, read_camera),
}
"""What reads the columns of a file, by its suffix in small letters."""

SUFFIXES = (*pairing.RECORDING_SUFFIXES, *READERS)
