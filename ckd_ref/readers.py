"""Files of the data sets' publishers: one gate per format, which passes valid data through and refuses any other."""

import gzip
import math
import pathlib
import zlib

import numpy as np

from .events import EVENT_DTYPE, FormatError, check_events, check_sensor_size

EVENT_BYTES = 5
OVERFLOW_ROW = 240
DEFLATE_RATIO = 1032
"""No deflate stream grows by more than this factor: what bounds the memory that a compressed file may ask for."""


def read_bin(path, sensor_size=None):
    """Read a recording in the 40-bit format of N-Caltech101 and N-MNIST (``.bin``, also ``.bs2``).

    Five bytes per event, big-endian: x (8 bits), y (8 bits), polarity (1 bit, 1 = ON), time (23 bits,
    microseconds, so 8.4 s at most).

    Parameters
    ----------
    path : path-like
    sensor_size : (H, W), optional
        Rows and columns of the sensor, pixels: (34, 34) for N-MNIST, (180, 240) for N-Caltech101. Default: all
        that 8 bits can say.

    Returns
    -------
    events : (N,) array of EVENT_DTYPE
        N >= 1, in the file's order, which is that of time.

    Raises
    ------
    FormatError
        A file without events or with a part of one, a coordinate outside the sensor, a step back in time, or an
        event in row 240 of a sensor that is not known to have it. The message names file, event and byte.
    OSError
        A file that cannot be read.

    Notes
    -----
    Row 240: the sensor behind these data sets has no such row, and some readers take an event there for a
    marker that the clock has overflowed, which moves it and all later events by 2^13 us. Neither data set
    contains one. Here it is an error, because a damaged file is the likelier cause, unless `sensor_size` has
    more than 240 rows: then it is an event like any other.
    """
    H, W = (256, 256) if sensor_size is None else check_sensor_size(sensor_size)
    data = np.fromfile(path, np.uint8)
    if len(data) == 0:
        raise FormatError(f"{path}: expected at least one event of {EVENT_BYTES} bytes, got an empty file; "
                          "leave it out of the data set or fetch it again")
    whole = len(data) - len(data) % EVENT_BYTES
    if whole < len(data):
        raise FormatError(f"{path}: expected a multiple of {EVENT_BYTES} bytes, got {len(data)}; event "
                          f"{whole // EVENT_BYTES} at byte {whole} is cut off; fetch the file again")
    x, y, high, middle, low = data.reshape(-1, EVENT_BYTES).T
    events = np.empty(len(x), EVENT_DTYPE)
    events["x"], events["y"], events["p"] = x, y, high >> 7
    events["t"] = (high & 0x7F).astype(np.int32) << 16 | middle.astype(np.int32) << 8 | low
    if (sensor_size is None or H <= OVERFLOW_ROW) and (y == OVERFLOW_ROW).any():
        i = int((y == OVERFLOW_ROW).argmax())
        raise FormatError(f"{path}: event {i} of {len(y)} at byte {EVENT_BYTES * i}: y = {OVERFLOW_ROW}, which some "
                          "readers take for a clock overflow and N-Caltech101 and N-MNIST never contain; fetch the "
                          f"file again, or give a sensor_size of more than {OVERFLOW_ROW} rows if the row is real")
    try:
        return check_events(events, (H, W))
    except FormatError as error:
        raise FormatError(f"{path}: {error} (event i starts at byte {EVENT_BYTES} i)") from None


def read_idx(path):
    """Read the unsigned bytes of an idx file, the format of MNIST's images and labels, plain or gzipped.

    Big-endian: two zero bytes, the code of the element type (8 = unsigned byte), the number of axes, the length
    of each axis (32 bits), then the elements, the last axis fastest.

    Parameters
    ----------
    path : path-like
        Compression is recognised by content, not by name.

    Returns
    -------
    array : array of uint8, read-only
        (M, rows, columns) for images, (M,) for labels.

    Raises
    ------
    FormatError
        Another type, a broken header, fewer or more elements than the header says, a damaged gzip stream.
    OSError
        A file that cannot be read.
    """
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        limit = path.stat().st_size * (DEFLATE_RATIO if packed else 1)
        try:
            return _parse_idx(gzip.GzipFile(fileobj=file) if packed else file, limit)
        except FormatError as error:
            raise FormatError(f"{path}: {error}; fetch the file again") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FormatError(f"{path}: damaged gzip stream ({error}); fetch the file again") from None


def _parse_idx(stream, limit):
    """The array of an open idx stream that holds at most `limit` bytes."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
        raise FormatError("expected the first bytes 00 00 08 and 1 to 4 axes (idx of unsigned bytes), "
                          f"got {magic.hex(' ') or 'an empty file'}")
    lengths = stream.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise FormatError(f"expected the lengths of {magic[3]} axes from byte 4 on, got {len(lengths)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4"))
    size = math.prod(shape)
    if size > limit:                # before reading: a header may claim any amount
        raise FormatError(f"expected {size} elements for the shape {shape} of the header, "
                          f"but a file of this length holds at most {limit}")
    elements = stream.read(size + 1)
    if len(elements) != size:
        came = f"{len(elements)}" if len(elements) < size else "more"
        raise FormatError(f"expected {size} elements for the shape {shape} of the header, got {came}")
    return np.frombuffer(elements, np.uint8).reshape(shape)
