"""Readers of the published data sets: one per format, each with full validation."""

import gzip
import io
import math
import os
import pathlib
import struct
import warnings
import zlib
from typing import BinaryIO

import numpy as np
from numpy import ndarray
from numpy.lib import format as npy

from ..events import EVENT_DTYPE, MAX_TIME_US, FormatError, check_events, check_sensor_size
from .errors import error_context
from .files import open_file

EVENT_BYTES = 5
OVERFLOW_ROW = 240

MAX_BYTES = 2**28
"""Larger recordings and images are refused, compressed or not: 50 million events in one file."""

MAX_PIXELS = 2**25
"""Images of more pixels are refused: 33 million, 100 MB as RGB."""

PIXELS_PER_BYTE = {"JPEG": 512, "PNG": 8 * 1032}
"""The most that a file of the format can hold.

JPEG takes at least one bit per 8 x 8 pixels. A deflate stream expands by at most the factor 1032,
and a PNG may have 8 pixels per byte.
"""

MAX_SCANS = 100
"""Scans of a progressive JPEG; 10 are usual, and thousands in a small file would take minutes."""

PNG_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""The passes of an interlaced PNG (Adam7): first column and row, then steps, in pixels."""

MAX_NPY_HEADER = 2**12
"""Headers of NumPy's files take 64 to 256 bytes; longer ones than this are refused."""

FETCH = "fetch the file again"

MAT_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}
"""Element types of a MATLAB 5 file that are arrays of numbers."""


def unpacked_limit(size: int) -> int:
    """How many bytes a compressed file may decompress to: 1 MiB + 100 `size`, at most `MAX_BYTES`.

    Events and images compress by a factor of 2 to 20; a file beyond the limit is a bomb.
    """
    return min(2**20 + 100 * size, MAX_BYTES)


def read_whole(path: str | os.PathLike) -> bytes:
    """The bytes of a file of at most `MAX_BYTES`."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise FormatError(
                f"{path}: expected at most {MAX_BYTES} bytes of one recording or image, "
                f"got {size}; check that it is one"
            )
        return file.read()


def read_bin(path: str | os.PathLike, sensor_size: tuple[int, int] | None = None) -> ndarray:
    """Read a recording in the 40-bit format of N-Caltech101 and N-MNIST (``.bin``, also ``.bs2``).

    Five bytes per event, big-endian: x (8 bits), y (8 bits), polarity (1 bit, 1 = ON), time (23
    bits, microseconds, so 8.4 s at most).

    Parameters
    ----------
    path : path-like
    sensor_size : (H, W), optional
        Rows and columns of the sensor, pixels: (34, 34) for N-MNIST, (180, 240) for
        N-Caltech101. Default: 256 x 256, the range of 8 bits.

    Returns
    -------
    events : (N,) array of EVENT_DTYPE
        N >= 1, in the file's order, which is that of time.

    Raises
    ------
    FormatError
        A file without events or with an incomplete one, a coordinate outside the sensor,
        decreasing times, or an event in row 240 of a sensor not known to have it. The message
        names file, event and byte.
    OSError
        A file that cannot be read.

    Notes
    -----
    Row 240: the sensor of these data sets has no such row, and some readers interpret an event
    there as a clock overflow, which shifts it and all later events by 2^13 us. Neither data set
    contains one. Here it is an error, since a damaged file is the likelier cause, unless
    `sensor_size` has more than 240 rows; then it is an ordinary event.
    """
    H, W = (256, 256) if sensor_size is None else check_sensor_size(sensor_size)
    data = np.frombuffer(read_whole(path), np.uint8)
    if len(data) == 0:
        raise FormatError(
            f"{path}: expected at least one event of {EVENT_BYTES} bytes, got an empty file; "
            "leave it out of the data set or fetch it again"
        )
    whole = len(data) - len(data) % EVENT_BYTES
    if whole < len(data):
        raise FormatError(
            f"{path}: expected a multiple of {EVENT_BYTES} bytes, got {len(data)}; "
            f"event {whole // EVENT_BYTES} at byte {whole} is cut off; fetch the file again"
        )
    x, y, high, middle, low = data.reshape(-1, EVENT_BYTES).T
    events = np.empty(len(x), EVENT_DTYPE)
    events["x"], events["y"], events["p"] = x, y, high >> 7
    events["t"] = (high & 0x7F).astype(np.int32) << 16 | middle.astype(np.int32) << 8 | low
    if (sensor_size is None or H <= OVERFLOW_ROW) and (y == OVERFLOW_ROW).any():
        i = int((y == OVERFLOW_ROW).argmax())
        raise FormatError(
            f"{path}: event {i} of {len(y)} at byte {EVENT_BYTES * i}: y = {OVERFLOW_ROW}, "
            "which some readers take for a clock overflow and N-Caltech101 and N-MNIST never "
            f"contain; fetch the file again, or give a sensor_size of more than {OVERFLOW_ROW} "
            "rows if the row is real"
        )
    try:
        return check_events(events, (H, W))
    except FormatError as error:
        raise FormatError(f"{path}: {error} (event i starts at byte {EVENT_BYTES} i)") from None


def read_idx(path: str | os.PathLike) -> ndarray:
    """Read an idx file of unsigned bytes, MNIST's format of images and labels, plain or gzipped.

    Big-endian: two zero bytes, the code of the element type (8 = unsigned byte), the number of
    axes, the length of each axis (32 bits), then the elements, the last axis fastest.

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
        Another type, a damaged header, fewer or more elements than the header says, a damaged
        gzip stream.
    OSError
        A file that cannot be read.
    """
    path = pathlib.Path(path)
    with open_file(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        limit = unpacked_limit(size) if packed else size
        try:
            return _parse_idx(gzip.GzipFile(fileobj=file) if packed else file, limit)
        except FormatError as error:
            raise FormatError(f"{path}: {error}; fetch the file again") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FormatError(
                f"{path}: damaged gzip stream ({error}); fetch the file again"
            ) from None


def _parse_idx(stream, limit):
    """The array of an open idx stream that holds at most `limit` bytes."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
        raise FormatError(
            "expected the first bytes 00 00 08 and 1 to 4 axes (idx of unsigned bytes), "
            f"got {magic.hex(' ') or 'an empty file'}"
        )
    lengths = stream.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise FormatError(
            f"expected the lengths of {magic[3]} axes from byte 4 on, got {len(lengths)} bytes"
        )
    shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4"))
    size = math.prod(shape)
    # Before reading: a header may claim any amount, and even without elements too large a shape.
    if size > limit or math.prod(filter(None, shape)) > max(limit, MAX_BYTES):
        raise FormatError(
            f"expected {size} elements for the shape {shape} of the header, "
            f"but a file of this length holds at most {limit}"
        )
    elements = stream.read(size + 1)
    if len(elements) != size:
        came = f"{len(elements)}" if len(elements) < size else "more"
        raise FormatError(
            f"expected {size} elements for the shape {shape} of the header, got {came}"
        )
    return np.frombuffer(elements, np.uint8).reshape(shape)


def npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """What the header of a ``.npy`` file says, version 1 or 2 of the format.

    Parameters
    ----------
    stream : file of bytes, at its beginning; afterwards at the first byte of the elements

    Returns
    -------
    shape : tuple of int
    by_column : bool
        Whether the first index changes fastest.
    dtype : dtype

    Raises
    ------
    FormatError
        Another format or version, a header that is damaged, cut off or longer than
        `MAX_NPY_HEADER`. NumPy would read up to 4 GiB of header, and parses it as Python, which
        can end in a MemoryError.
    """
    magic = stream.read(8)
    if magic not in (b"\x93NUMPY\1\0", b"\x93NUMPY\2\0"):
        raise FormatError(
            "damaged, or not one array written by numpy.save: expected the magic string "
            f"93 'NUMPY' and version 1 or 2, got {magic.hex(' ') or 'an empty file'}"
        )
    size = int.from_bytes(stream.read(2 * magic[6]), "little")
    header = stream.read(min(size, MAX_NPY_HEADER + 1))
    if size > MAX_NPY_HEADER or len(header) < size:
        raise FormatError(
            f"expected a header of at most {MAX_NPY_HEADER} bytes, "
            f"got one of {size} bytes, {len(header)} of them read; write it with numpy.save"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Python 2 wrote it
            first = io.BytesIO(struct.pack("<H", size) + header)
            shape, by_column, dtype = npy.read_array_header_1_0(first)
    except Exception as error:
        raise FormatError(
            f"damaged header {header[:40]!r} ({type(error).__name__}); write it with numpy.save"
        ) from None
    if min(shape, default=0) < 0:
        raise FormatError(f"expected lengths of at least 0, got the shape {shape}")
    return shape, by_column, dtype


def read_image(path: str | os.PathLike) -> ndarray:
    """Read a JPEG or PNG image as RGB.

    Parameters
    ----------
    path : path-like
        The format is recognised by content, not by name.

    Returns
    -------
    pixels : (H, W, 3) array of uint8, RGB in 0 ... 255.

    Raises
    ------
    FormatError
        Another format, a damaged or truncated file, an animation, more pixels than `MAX_PIXELS`
        or than a file of that length can hold (refused before decompression).
    OSError
        A file that cannot be read.

    Notes
    -----
    Greyscale and palettes become RGB; CMYK is converted without a colour profile; transparent
    pixels are composited over white; of 16 bits per channel the upper 8 are kept. The EXIF
    orientation is not applied. The checksums of PNG are verified; a damaged JPEG may decode to
    a damaged picture.
    """
    from PIL import Image, JpegImagePlugin, PngImagePlugin

    content = read_whole(path)
    with error_context(path, FETCH), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is validated here
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            image: Image.Image = PngImagePlugin.PngImageFile(io.BytesIO(content))
        elif content.startswith(b"\xff\xd8\xff"):
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
        else:
            raise FormatError(
                "expected a JPEG or PNG image, "
                f"got the first bytes {content[:8].hex(' ') or '(none)'}; "
                "convert it, or leave it out"
            )
        W, H = image.size
        limit = min(MAX_PIXELS, len(content) * PIXELS_PER_BYTE[image.format])
        if W * H > limit:
            raise FormatError(
                f"the header says {W} x {H} pixels, expected at most {limit} in {len(content)} "
                f"bytes; {FETCH}, or save it smaller"
            )
        pictures = getattr(image, "n_frames", 1)
        if pictures > 1:
            raise FormatError(
                f"expected one picture, got an animation of {pictures}; save one of them"
            )
        if image.format == "PNG":  # the decoder checks neither checksums nor completeness
            _check_png(content)
        else:
            _check_jpeg(content)
        if image.mode.startswith("I"):  # 16 bits of grey
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        if "A" in image.mode or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))


def _check_jpeg(content):
    """Check what the decoder finds late or never: an end (ff d9), and few scans (ff da)."""
    scans = content.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise FormatError(
            f"expected at most {MAX_SCANS} scans of a progressive JPEG, got {scans}; save it anew"
        )
    if b"\xff\xd9" not in content[content.rfind(b"\xff\xda"):]:
        raise FormatError(
            f"cut off: {len(content)} bytes without the end of the image (ff d9); {FETCH}"
        )


def _check_png(content):
    """Check what the decoder ignores: all checksums, and that the pixel data is complete."""
    stream = zlib.decompressobj()
    unpacked = 0
    kind = None
    at = 8
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        body = content[at + 8:end]
        checksum = content[end:end + 4]
        if checksum != struct.pack(">I", zlib.crc32(kind + body)):
            raise FormatError(
                f"the {kind.decode('ascii', 'replace')} chunk at byte {at} is damaged "
                f"(wrong checksum, or cut off); {FETCH}"
            )
        if kind == b"IHDR":
            W, H, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", body)
        if kind == b"IDAT":
            for begin in range(0, length, 2**12):
                if stream.eof:
                    break
                unpacked += len(stream.decompress(body[begin:begin + 2**12]))  # counted, not kept
        at = end + 4
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    grids = PNG_PASSES if interlaced else [(0, 0, 1, 1)]
    sizes = [(-(-(W - x) // dx), -(-(H - y) // dy)) for x, y, dx, dy in grids]
    expected = sum(h * (1 + -(-w * bits // 8)) for w, h in sizes if w > 0 and h > 0)
    if unpacked < expected:
        raise FormatError(
            f"expected {expected} bytes of pixels for {W} x {H} of {bits} bits, "
            f"got {unpacked}; {FETCH}"
        )


def read_mat(path: str | os.PathLike, sensor_size: tuple[int, int] | None = None) -> ndarray:
    """Read a recording of CEP-DVS: a MATLAB 5 file with the vectors x, y, ts and p.

    MATLAB writes this version of the format by ``save -v6`` and ``save -v7``.

    Parameters
    ----------
    path : path-like
    sensor_size : (H, W), optional
        Rows and columns of the sensor, pixels. Default: the range of 16 bits.

    Returns
    -------
    events : (N,) array of EVENT_DTYPE
        N >= 1, in the file's order, which is that of time. Times are microseconds since the
        first event.

    Raises
    ------
    FormatError
        Another version of the format, a damaged file, a vector that is missing, duplicate, of
        another length than the others or not of whole numbers, a polarity other than -1 and 1,
        an invalid event, or a variable that would decompress to more than 1 MiB + 100 times its
        size (refused before decompression).
    OSError
        A file that cannot be read.

    Notes
    -----
    Only arrays of numbers are decoded. Other variables are skipped; objects, structures and
    functions are never created.
    """
    sensor_size = (2**16, 2**16) if sensor_size is None else check_sensor_size(sensor_size)
    data = read_whole(path)
    with error_context(path, FETCH):
        columns = {
            name: _whole_numbers(name, values)
            for name, values in _parse_mat(data, ("x", "y", "ts", "p"))
        }
        x, y, t, p = columns["x"], columns["y"], columns["ts"], columns["p"]
        if len({len(column) for column in columns.values()}) > 1 or len(x) == 0:
            raise FormatError(
                "expected x, y, ts and p of one length, at least one event, got "
                + ", ".join(f"{len(column)} of {name}" for name, column in columns.items())
            )
        most = 2**16 - 1
        for column, name, bad, expected in (
            (x, "x", (x < 0) | (x > most), f"0 ... {most}"),
            (y, "y", (y < 0) | (y > most), f"0 ... {most}"),
            (p, "p", np.abs(p) != 1, "-1 or 1"),
        ):
            if bad.any():
                i = int(bad.argmax())
                raise FormatError(
                    f"event {i} of {len(x)}: {name} = {column[i]}, expected {expected}"
                )
        events = np.empty(len(x), EVENT_DTYPE)
        events["x"], events["y"], events["t"], events["p"] = x, y, t - t.min(), p > 0
        return check_events(events, sensor_size)


def _parse_mat(data, names):
    """The named vectors of a MATLAB 5 file as (name, values), in the order of `names`.

    A header of 128 bytes is followed by elements, each with a tag (type, bytes) and a body: type
    14 is an array, 15 one compressed by zlib. The body of an array consists of elements as well:
    flags with the class, lengths of the axes, name, values.
    """
    version, order = data[124:128], {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if data[:19] == b"MATLAB 7.3 MAT-file":
        raise FormatError(
            "this is MATLAB 7.3 (HDF5), expected MATLAB 5; in MATLAB load it and save it with -v7"
        )
    if order is None or version[:2] != (b"\0\1" if order == "<" else b"\1\0"):
        raise FormatError(
            "expected the header of a MATLAB 5 file, "
            f"got {data[:4].hex(' ') or 'an empty file'} "
            f"and {version.hex(' ') or 'nothing'} at byte 124; {FETCH}"
        )
    found, at = {}, 128
    while at < len(data):
        place = f"element at byte {at}"
        kind, body, at = _mat_element(data, at, order)
        if kind == 15:
            kind, body = _unpack_mat(body, order, place)
        if kind != 14:
            raise FormatError(f"{place}: expected an array (type 14), got type {kind}; {FETCH}")
        _, flags, after = _mat_element(body, 0, order)
        flags = struct.unpack(order + "I", flags[:4])[0]
        if flags & 0xFF > 15:  # functions and opaque objects have another structure
            continue
        _, lengths, after = _mat_element(body, after, order)
        _, name, after = _mat_element(body, after, order)
        name = name.decode("ascii", "replace")
        shape = tuple(np.frombuffer(lengths, order + "i4").tolist())
        if name not in names:
            continue
        if name in found:
            raise FormatError(f"{place}: {name} is there twice; {FETCH}")
        kind = 0
        is_real = flags & 0xFF >= 6 and not flags & 0x800
        if is_real:
            kind, values, _ = _mat_element(body, after, order)
        if kind not in MAT_NUMBERS:
            raise FormatError(
                f"{place}: expected {name} to be an array of real numbers, "
                f"got class {flags & 0xFF}, flags {flags >> 8:#x}, type {kind}"
            )
        values = np.frombuffer(values, order + MAT_NUMBERS[kind])
        if len(shape) != 2 or min(shape) != 1 or max(shape) != len(values):
            raise FormatError(
                f"{place}: expected {name} to be a vector, "
                f"got {len(values)} numbers, shape {shape}"
            )
        found[name] = values
    missing = [name for name in names if name not in found]
    if missing:
        raise FormatError(
            f"expected the variables {', '.join(names)}; missing: {', '.join(missing)}; "
            "give recordings of CEP-DVS"
        )
    return [(name, found[name]) for name in names]


def _mat_element(data, at, order):
    """The element at a position: its type, its body, the position of the next one."""
    if len(data) < at + 8:
        raise FormatError(
            f"expected an element of at least 8 bytes at byte {at}, got {len(data) - at}; {FETCH}"
        )
    kind, size = struct.unpack_from(order + "II", data, at)
    if kind >> 16:  # short form: both in 4 bytes, the body in the next 4
        kind, size = kind & 0xFFFF, kind >> 16
        begin = at + 4
        end = at + 8
    else:
        padding = 0 if kind == 15 else -size % 8
        begin = at + 8
        end = begin + size + padding
    if begin + size > min(end, len(data)):
        raise FormatError(
            f"element at byte {at}: expected {size} bytes from its tag, "
            f"got {min(end, len(data)) - begin}; {FETCH}"
        )
    return kind, data[begin:begin + size], end


def _unpack_mat(packed, order, place):
    """Type and body of a compressed element; its size and its checksum are verified."""
    limit = unpacked_limit(len(packed))
    stream = zlib.decompressobj()
    tag = stream.decompress(packed, 8)
    kind, size = struct.unpack(order + "II", tag) if len(tag) == 8 else (0, 0)
    if size > limit:
        raise FormatError(
            f"{place}: unpacks to {size} bytes, "
            f"expected at most {limit} for {len(packed)} packed bytes; not a recording"
        )
    body = stream.decompress(stream.unconsumed_tail, max(size, 1))
    # Nothing may follow but the checksum.
    more = stream.decompress(stream.unconsumed_tail, 1)
    if len(body) != size or more or not stream.eof:
        raise FormatError(
            f"{place}: expected {size} bytes from its tag, "
            f"the packed stream says otherwise; {FETCH}"
        )
    return kind, body


def _whole_numbers(name, values):
    """A vector as int64; a FormatError if a number is not whole or beyond 2^52."""
    bad = ~((values >= -MAX_TIME_US) & (values <= MAX_TIME_US))  # true for NaN as well
    with np.errstate(invalid="ignore"):
        bad |= values != np.trunc(values)
    if bad.any():
        i = int(bad.argmax())
        raise FormatError(
            f"{name}[{i}] = {values[i]}, "
            f"expected whole numbers of at most {MAX_TIME_US} (ts in us)"
        )
    return values.astype(np.int64)
