"""HDF5 files with checksums throughout: writing of data sets, validation, reading of chunks."""

import itertools
import math
import struct
import zlib

import h5py
import numpy as np

from ..events import FormatError
from .files import open_file

DEFLATE_RATIO = 1032
"""Largest possible expansion of a deflate stream."""

MAX_PACKED_CHUNK, MAX_PACKED = 2**26, 2**30
"""Bytes of one compressed chunk, and of a compressed data set that is read as a whole, at most.

By the ratio alone, a file of 30 MB might claim 30 GB.
"""

MAGIC = b"\x89HDF\r\n\x1a\n"
"""The first bytes of a file."""

REMAKE = "make the file again"

_KINDS = {"S": "bytes of fixed length", "f": "floating point"}


def write(file, name, values, **options):
    """Write an array, at least one-dimensional, with checksums; `options` are h5py's."""
    return file.create_dataset(name, data=values, fletcher32=True, **{"chunks": True} | options)


def open_checked(path):
    """Open a file for reading, to be used inside `error_context`.

    h5py reports damage by exceptions of many kinds.
    """
    with open_file(path) as file:
        magic = file.read(9)
    if magic[:8] != MAGIC or magic[8:] < b"\2":
        raise FormatError(
            "expected an HDF5 file whose metadata has checksums "
            "(superblock 2 or later: libver='v110'), "
            f"got the first bytes {magic.hex(' ') or '(none)'}; {REMAKE}"
        )
    return h5py.File(path, "r")


def attribute(file, name, shape=()):
    """A root attribute that is a number, an array of numbers or bytes; None if missing."""
    if name not in file.attrs:
        return None
    came = file.attrs.get_id(name)
    if came.shape != shape or came.dtype.kind not in "iufS" or came.dtype.itemsize > 64:
        raise FormatError(
            f"attribute {name}: expected numbers or bytes of the shape {shape}, "
            f"got {came.dtype} of the shape {came.shape}; {REMAKE}"
        )
    return file.attrs[name]


def dataset(file, name, dtype, shape, lengths=None):
    """The data set `name` of an open file, validated but not read.

    Memory is bounded before reading: the chunks of the data set decompress to at most the bytes
    stored for them, or 1032 times as much if they are compressed, each of them to at most
    `MAX_PACKED_CHUNK`.

    Parameters
    ----------
    file : h5py.File
    name : str
    dtype : dtype, or "S" or "f" for any bytes of fixed length or any floats
    shape : tuple of int and str
        Equal names stand for equal lengths.
    lengths : dict, optional
        Known lengths by name; those that occur first in this data set are added.

    Returns
    -------
    dataset : StoredArray

    Raises
    ------
    FormatError
        Missing, a link, virtual or external, of another type or shape, without checksums, with
        filters other than shuffle and deflate, with missing chunks, or claiming more bytes than
        the file can hold.
    """
    parts = itertools.accumulate(name.split("/"), "{}/{}".format)
    if not all(isinstance(file.get(part, getlink=True), h5py.HardLink) for part in parts):
        raise FormatError(f"{name}: expected a data set in the file itself, got none; {REMAKE}")
    index = None
    if file.mode == "r":  # a file being written is our own
        index = _check_header(file, name)
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.chunks is None or not found.fletcher32:
        raise FormatError(
            f"{name}: expected a chunked data set with fletcher32 checksums; {REMAKE}"
        )
    filters = found.id.get_create_plist()
    filters = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
    if filters not in (
        [h5py.h5z.FILTER_FLETCHER32],
        [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32],
    ):
        raise FormatError(
            f"{name}: expected no filter but shuffle and deflate (gzip) before fletcher32, "
            f"got the filters {filters}; {REMAKE}"
        )
    # Never `dtype == "f"`: to NumPy, the letter is float32 in any byte order.
    by_kind = isinstance(dtype, str) and dtype in _KINDS
    if (found.dtype.kind if by_kind else found.dtype) != dtype:
        raise FormatError(
            f"{name}: expected the type {_KINDS.get(dtype) or np.dtype(dtype)}, "
            f"got {found.dtype}; {REMAKE}"
        )
    if found.id.get_type().get_size() != found.dtype.itemsize:
        raise FormatError(f"{name}: expected a type of NumPy, {found.dtype}; {REMAKE}")
    lengths = {} if lengths is None else lengths
    expected = tuple(
        n if isinstance(n, int) else lengths.setdefault(n, came)
        for n, came in zip(shape, found.shape)
    )
    if found.shape != expected or found.ndim != len(shape):
        raise FormatError(
            f"{name}: expected the shape {shape} = {expected}, got {found.shape}; {REMAKE}"
        )
    chunks = math.prod(-(-n // c) for n, c in zip(found.shape, found.chunks))
    if index:
        _check_index(found, name, chunks, *index)
    held = min(found.id.get_storage_size(), file.id.get_filesize())
    held *= DEFLATE_RATIO if len(filters) > 1 else 1
    claimed = chunks * math.prod(found.chunks) * found.dtype.itemsize
    if claimed > held:
        raise FormatError(
            f"{name}: {claimed} bytes by its shape {found.shape} in chunks of {found.chunks}, "
            f"more than the {held} bytes at most that the file holds of it; {REMAKE}"
        )
    if len(filters) > 1 and claimed > chunks * MAX_PACKED_CHUNK:
        raise FormatError(
            f"{name}: expected compressed chunks of at most {MAX_PACKED_CHUNK} bytes, "
            f"got {found.chunks} of {found.dtype}; {REMAKE} with smaller ones"
        )
    if found.id.get_num_chunks() != chunks:
        raise FormatError(
            f"{name}: expected {chunks} chunks, got {found.id.get_num_chunks()}; {REMAKE}"
        )
    return StoredArray(found, packed=len(filters) > 1)


class StoredArray:
    """A validated data set of an open file: read whole by ``[()]``, in rows by ``[i]``, ``[i:j]``.

    Chunks are decoded here, because HDF5 2.0 crashes at a chunk of less than 4 bytes, and returns
    memory that it never wrote for one that holds less than a whole chunk. The latest chunk is
    kept: neighbouring recordings share it.
    """

    def __init__(self, found, packed):
        self.shape = found.shape
        self._name = found.name.removeprefix("/")
        self._id = found.id
        self._dtype = found.dtype
        self._chunk_shape = found.chunks
        self._packed = packed
        self._latest = None, None

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        if isinstance(key, tuple):
            size = math.prod(self.shape) * self._dtype.itemsize
            if self._packed and size > MAX_PACKED:
                raise FormatError(
                    f"{self._name}: unpacks to {size} bytes, expected at most {MAX_PACKED}; "
                    f"{REMAKE} without compression"
                )
            return self._rows(0, len(self))
        if isinstance(key, slice):
            begin, end, _ = key.indices(len(self))
            return self._rows(begin, end)
        return self._rows(key, key + 1)[0]

    def _rows(self, begin, end):
        rows = np.empty((max(end - begin, 0), *self.shape[1:]), self._dtype)
        first = begin - begin % self._chunk_shape[0]
        starts = map(range, (first, *[0] * len(rows.shape[1:])), (end, *self.shape[1:]),
                     self._chunk_shape)
        for corner in itertools.product(*starts):
            chunk = self._chunk(corner)[max(begin - corner[0], 0):]
            place = max(corner[0] - begin, 0), *corner[1:]
            target = rows[tuple(slice(at, at + n) for at, n in zip(place, chunk.shape))]
            target[:] = chunk[tuple(map(slice, target.shape))]  # the last chunks reach beyond
        return rows

    def _chunk(self, corner):
        """The chunk that begins at an index: its checksum verified, decompressed, unshuffled."""
        if self._latest[0] == corner:
            return self._latest[1]
        width = self._dtype.itemsize
        size = math.prod(self._chunk_shape) * width
        most = size + size // 8 + 64                           # deflate may expand a little
        mask, stored = self._id.read_direct_chunk(corner, out=bytearray(most))
        content, checksum = stored[:-4], stored[-4:]
        if mask or checksum != struct.pack("<I", fletcher32(content)):
            raise FormatError(f"{self._name}: damaged at {corner}, wrong checksum; {REMAKE}")
        if self._packed:
            content = zlib.decompressobj().decompress(content, size + 1)
        if len(content) != size:
            raise FormatError(
                f"{self._name}: damaged at {corner}, expected {size} bytes, got "
                f"{'more' if len(content) > size else len(content)}; {REMAKE}"
            )
        if self._packed:                                       # bytes of equal rank lie together
            content = np.frombuffer(content, np.uint8).reshape(width, -1).T.tobytes()
        chunk = np.frombuffer(content, self._dtype).reshape(self._chunk_shape)
        self._latest = corner, chunk
        return chunk


def fletcher32(content):
    """Fletcher's checksum of bytes as HDF5 stores it: of 16-bit numbers, the high byte first.

    The lower half is their sum, the upper half the sum of their partial sums, both modulo 65535,
    where a positive multiple counts as 65535.
    """
    numbers = np.frombuffer(bytes(content) + bytes(len(content) % 2), ">u2")
    total, partial_sums = 0, 0
    for i in range(0, len(numbers), 2**15):
        block = numbers[i:i + 2**15].astype(np.uint64)
        times = np.arange(len(block), 0, -1, dtype=np.uint64)  # how many partial sums each is in
        partial_sums += total * len(block) + int(block @ times)
        total += int(block.sum())
    low, high = (1 + (n - 1) % 65535 if n else 0 for n in (total, partial_sums))
    return high << 16 | low


def _check_index(found, name, chunks, kind, elements):
    """Refuse a chunk index that does not fit the lengths: HDF5 2.0 would read beyond its end.

    An index of type 4 is for a first axis that grows; all others are for fixed lengths.
    """
    growing = (None, *found.shape[1:])
    expected = growing if kind == 4 else found.shape
    if found.maxshape != expected:
        raise FormatError(
            f"{name}: expected the largest shape {expected} for a chunk index of type {kind}, "
            f"got {found.maxshape}; {REMAKE}"
        )
    if kind == 3 and elements != chunks:
        raise FormatError(
            f"{name}: expected an index of {chunks} chunks, got one of {elements}; {REMAKE}"
        )


def _check_header(file, name):
    """Type of the chunk index and how many elements it claims; refuse what HDF5 2.0 fails at.

    It crashes at chunks without axes, by whose number it divides, and hangs at endless indexes. The
    layout of a data set (HDF5 1.10) consists of version 4, class (2 = chunked), flags, number
    of axes, bytes per length, a length for each axis, type of the index, its parameters and its
    address. The index stores its number of chunks.
    """
    size = file.id.get_filesize()
    found = None
    with open(file.filename, "rb") as raw:
        for kind, body in _messages(raw, h5py.h5o.get_info(file.id, name.encode()).addr):
            if kind != 8 or body[1] != 2:
                continue
            if found:
                raise FormatError(f"{name}: expected one layout, got two; {REMAKE}")
            if body[0] < 4 or body[3] == 0:
                raise FormatError(
                    f"{name}: expected chunks (layout 4 or later: libver='v110') with at least "
                    f"one axis, got layout {body[0]}, {body[3]} axes; {REMAKE}"
                )
            index = body[5 + body[3] * body[4]:]
            if index[0] == 1:  # a single chunk has no index
                found = 1, 1
                continue
            if index[0] not in (3, 4):
                raise FormatError(
                    f"{name}: expected one axis that grows at most, "
                    f"got a chunk index of type {index[0]}"
                )
            if index[0] == 3:
                address, count = index[2:10], 8
            else:
                address, count = index[6:14], 44
            # The address of an empty index lies far behind the end of the file.
            raw.seek(min(int.from_bytes(address, "little"), size))
            chunks = int.from_bytes(raw.read(count + 8)[count:], "little")
            if 16 * chunks > size:  # a chunk takes more, with its checksum and entry
                raise FormatError(
                    f"{name}: an index of {chunks} chunks, more than {size} bytes hold; {REMAKE}"
                )
            found = index[0], chunks
    return found


def _messages(raw, address):
    """(type, body) of the messages in the header of an object.

    A header consists of a signature, version 2, flags, optional fields and the size of the
    first block of messages. A message consists of type (1 byte), size (2), flags (1), order (2,
    optional by the header's flags) and body. Type 16 points to a further block.
    """
    raw.seek(address)
    start = raw.read(34)
    if start[:5] != b"OHDR\2":
        raise FormatError(
            f"expected an object with a checksum at byte {address} (libver='v110'), "
            f"got {start[:5]!r}"
        )
    at = 6 + (16 if start[5] & 0x20 else 0) + (4 if start[5] & 0x10 else 0)
    width = 1 << (start[5] & 3)
    order = 2 if start[5] & 4 else 0
    blocks = [(address + at + width, int.from_bytes(start[at:at + width], "little"))]
    for begin, size in blocks:  # grows inside the loop
        raw.seek(begin)
        block, at = raw.read(min(size, 2**16)), 0
        while at + 4 <= len(block):
            kind, length = struct.unpack_from("<BH", block, at)
            body = block[at + 4 + order:at + 4 + order + length]
            at += 4 + order + length
            if kind == 16 and len(blocks) < 16:
                offset, size = struct.unpack("<QQ", body)
                blocks.append((offset + 4, size - 8))  # between its signature and its checksum
            yield kind, body
