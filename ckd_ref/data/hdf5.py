"""HDF5 files with checksums everywhere: how data sets are written, and the gate through which they are read."""

import itertools
import math
import struct

import h5py
import numpy as np

from ..events import FormatError

DEFLATE_RATIO = 1032
"""No deflate stream grows by more than this factor."""

REMAKE = "make the file again"

_KINDS = {"S": "bytes of fixed length", "f": "floating point"}


def write(file, name, values, **options):
    """Write an array of at least one dimension as a data set with checksums; `options` as for h5py."""
    return file.create_dataset(name, data=values, fletcher32=True, **{"chunks": True} | options)


def open_checked(path):
    """Open a file for reading; inside `naming`, since h5py reports damage by exceptions of many kinds."""
    with open(path, "rb") as file:
        magic = file.read(9)
    if magic[:8] != b"\x89HDF\r\n\x1a\n" or magic[8:] < b"\2":
        raise FormatError("expected an HDF5 file whose metadata has checksums (superblock 2 or later: libver='v110'), "
                          f"got the first bytes {magic.hex(' ') or '(none)'}; {REMAKE}")
    return h5py.File(path, "r")


def attribute(file, name, shape=()):
    """A root attribute that is a number, an array of numbers or bytes, None where there is none."""
    if name not in file.attrs:
        return None
    came = file.attrs.get_id(name)
    if came.shape != shape or came.dtype.kind not in "iufS" or came.dtype.itemsize > 64:
        raise FormatError(f"attribute {name}: expected numbers or bytes of the shape {shape}, got {came.dtype} of the "
                          f"shape {came.shape}; {REMAKE}")
    return file.attrs[name]


def dataset(file, name, dtype, shape, lengths=None):
    """The data set `name` of an open file, checked but not read.

    Memory is bounded before reading: the chunks of the data set unpack to at most the bytes that the file holds of
    them, or 1032 times as much where they are compressed.

    Parameters
    ----------
    file : h5py.File
    name : str
    dtype : dtype, or "S" or "f" for any bytes of fixed length or any floats
    shape : tuple of int and str
        The same name stands for the same length.
    lengths : dict, optional
        What is known of the named lengths; learns what this data set is the first to say.

    Returns
    -------
    dataset : h5py.Dataset

    Raises
    ------
    FormatError
        Missing, a link to elsewhere, virtual or stored outside of the file, of another type or shape, without
        checksums, filtered by anything but shuffle and deflate, with holes, or claiming more than the file holds.
    """
    if not all(isinstance(file.get(part, getlink=True), h5py.HardLink)
               for part in itertools.accumulate(name.split("/"), "{}/{}".format)):
        raise FormatError(f"{name}: expected a data set in the file itself, got none; {REMAKE}")
    if file.mode == "r":                                        # one that is being written is our own
        _check_header(file, name)
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.chunks is None or not found.fletcher32:
        raise FormatError(f"{name}: expected a chunked data set with fletcher32 checksums; {REMAKE}")
    filters = found.id.get_create_plist()
    filters = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
    if filters not in ([h5py.h5z.FILTER_FLETCHER32],
                       [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32]):
        raise FormatError(f"{name}: expected no filter but shuffle and deflate (gzip) before fletcher32, got the "
                          f"filters {filters}; {REMAKE}")
    if dtype not in (found.dtype.kind, found.dtype):
        raise FormatError(f"{name}: expected the type {_KINDS.get(dtype) or np.dtype(dtype)}, got {found.dtype}; "
                          f"{REMAKE}")
    lengths = {} if lengths is None else lengths
    expected = tuple(n if isinstance(n, int) else lengths.setdefault(n, came) for n, came in zip(shape, found.shape))
    if found.shape != expected or found.ndim != len(shape):
        raise FormatError(f"{name}: expected the shape {shape} = {expected}, got {found.shape}; {REMAKE}")
    chunks = math.prod(-(-n // c) for n, c in zip(found.shape, found.chunks))
    held = min(found.id.get_storage_size(), file.id.get_filesize())
    held *= DEFLATE_RATIO if len(filters) > 1 else 1
    claimed = chunks * math.prod(found.chunks) * found.dtype.itemsize
    if claimed > held:
        raise FormatError(f"{name}: {claimed} bytes by its shape {found.shape} in chunks of {found.chunks}, more than "
                          f"the {held} bytes at most that the file holds of it; {REMAKE}")
    if found.id.get_num_chunks() != chunks:
        raise FormatError(f"{name}: expected {chunks} chunks, got {found.id.get_num_chunks()}; {REMAKE}")
    return found


def _check_header(file, name):
    """Refuse what makes HDF5 2.0 crash or hang: chunks without axes, by which it divides, and endless chunk indexes.

    The layout of a data set (HDF5 1.10): version 4, class (2 = chunked), flags, number of axes, bytes per length, a
    length for each axis, type of the index, its parameters, its address. The index says how many chunks it has.
    """
    size = file.id.get_filesize()
    with open(file.filename, "rb") as raw:
        for kind, body in _messages(raw, h5py.h5o.get_info(file.id, name.encode()).addr):
            if kind != 8 or body[1] != 2:
                continue
            if body[0] < 4 or body[3] == 0:
                raise FormatError(f"{name}: expected chunks (layout 4 or later: libver='v110') with at least one axis, "
                                  f"got layout {body[0]}, {body[3]} axes; {REMAKE}")
            index = body[5 + body[3] * body[4]:]
            if index[0] == 1:                                   # a single chunk has no index
                continue
            if index[0] not in (3, 4):
                raise FormatError(f"{name}: expected one axis that grows at most, got a chunk index of type {index[0]}")
            address, count = (index[2:10], 8) if index[0] == 3 else (index[6:14], 44)
            raw.seek(min(int.from_bytes(address, "little"), size))              # of an empty one: far behind the end
            chunks = int.from_bytes(raw.read(count + 8)[count:], "little")
            if 16 * chunks > size:                              # with checksum and entry, a chunk takes more
                raise FormatError(f"{name}: an index of {chunks} chunks, more than {size} bytes hold; {REMAKE}")


def _messages(raw, address):
    """(type, body) of the messages in the header of an object.

    The header: its signature, version 2, flags, more that depends on them, the size of the first block of messages.
    A message: type (1 byte), size (2), flags (1), order (2, if the header's flags say so), body. Type 16 names a
    further block.
    """
    raw.seek(address)
    start = raw.read(34)
    if start[:5] != b"OHDR\2":
        raise FormatError(f"expected an object with a checksum at byte {address} (libver='v110'), got {start[:5]!r}")
    at = 6 + (16 if start[5] & 0x20 else 0) + (4 if start[5] & 0x10 else 0)
    width, order = 1 << (start[5] & 3), 2 if start[5] & 4 else 0
    blocks = [(address + at + width, int.from_bytes(start[at:at + width], "little"))]
    for begin, size in blocks:                                  # grows while it runs
        raw.seek(begin)
        block, at = raw.read(min(size, 2**16)), 0
        while at + 4 <= len(block):
            kind, length = struct.unpack_from("<BH", block, at)
            body = block[at + 4 + order:at + 4 + order + length]
            at += 4 + order + length
            if kind == 16 and len(blocks) < 16:
                offset, size = struct.unpack("<QQ", body)
                blocks.append((offset + 4, size - 8))           # between its signature and its checksum
            yield kind, body
