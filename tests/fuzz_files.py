"""Damage files at random and read them: python tests/fuzz_files.py [--files 10000] [FORMAT ...]

Half of the damage is blind: bits, bytes, integers, pieces lost, moved, repeated or spliced from
another file. The other half knows the format: what lengths, types and offsets say, sizes and
contents of chunks; and where a format has checksums, a second form of it has them recomputed at
every level, as by an attacker.

Every damaged file must be read unchanged, be refused with FormatError or OSError, or, if the
format has no checksum, be read as other valid data. A crash, a hang, another exception or, despite
a checksum, other data is a failure. Files are read in a separate process, so that crashes and
hangs are noticed. Prints a Markdown table.
"""

import argparse
import collections
import dataclasses
import functools
import gzip
import hashlib
import io
import math
import multiprocessing
import os
import pathlib
import re
import resource
import struct
import sys
import tempfile
import time
import zlib

import h5py
import numpy as np
import scipy.io
import test_data
from PIL import Image

from ckd_ref.config import Config
from ckd_ref.data.errors import error_context
from ckd_ref.data.hdf5 import fletcher32
from ckd_ref.data.paired import open_paired
from ckd_ref.data.readers import read_bin, read_idx, read_image, read_mat
from ckd_ref.events import FormatError, from_arrays
from ckd_ref.models import Teacher
from ckd_ref.nn.optim import init_moments
from ckd_ref.run.checkpoint import load_checkpoint, save_checkpoint
from ckd_ref.run.teachers import load_logits, load_teacher, save_logits, save_teacher
from ckd_ref.teacher import TrainedTeacher
from ckd_ref.training import TrainState

sys.path.append(str(pathlib.Path(__file__).parents[1] / "data_tools"))

import recordings
import teacher_logits

SECONDS = 10
"""Reading a file for longer counts as a hang."""

MEMORY = 4 * 2**30
"""Address space of a reading process, bytes; beyond it, a MemoryError counts as a failure."""

FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Folder of the damaged files, in memory if possible: a busy disk would look like a hang."""

INTERESTING = [
    value % 2**64 for k in (7, 8, 15, 16, 31, 32, 63) for value in (2**k - 1, 2**k, -(2**k))
]
INTERESTING += [0, 1, 2, 3, 100, 1000, 2**40]


@dataclasses.dataclass(frozen=True)
class Format:
    """How a valid file is written and read, and where its structure is."""

    make: callable              # (path, rng): writes a valid file
    read: callable              # path -> arrays and values
    checked: bool               # whether checksums cover everything that is read
    marks: bytes                # regular expression of the places with structure
    repair: callable = bytes    # recomputes the checksums of damaged bytes, as an attacker would
    edit: callable = None       # (bytes, rng): other bytes, changed by what they mean


def make_bin(path, rng):
    events = test_data.make_events(rng, 1000)
    t = events["t"].astype(np.uint32)
    columns = events["x"], events["y"], events["p"] << 7 | t >> 16, t >> 8 & 255, t & 255
    path.write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())


def make_mat(path, rng, packed=True):
    events = test_data.make_events(rng, int(rng.integers(200, 400)))
    columns = {"x": events["x"], "y": events["y"], "ts": events["t"], "p": events["p"] * 2.0 - 1}
    scipy.io.savemat(
        path, {"note": "camera 1", "info": {"a": [1, 2]}} | columns, do_compression=packed
    )


def make_image(path, rng, kind="PNG"):
    slope = np.add.outer(np.arange(24), np.arange(32))[..., None] * 3
    pixels = slope + rng.integers(0, 60, (24, 32, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path, kind)


def make_idx(path, rng, pack=bytes):
    images = rng.integers(0, 256, (5, 28, 28)).astype(np.uint8)
    path.write_bytes(pack(b"\0\0\x08\x03" + struct.pack(">3I", *images.shape) + images.tobytes()))


def make_checkpoint(path, rng):
    config = Config(width=1 / 64, T=2, size=16, epochs=3)
    params, state = config.model(3).init(rng)
    history = [{"epoch": epoch, "loss": float(rng.random())} for epoch in range(2)]
    run = TrainState(params, state, init_moments(params), rng, 2, [], history)
    save_checkpoint(path, run, config, test_data.CLASSES)


class Labels:
    """The part of `PairedData` that teachers and their logits need."""

    path = "data.h5"
    classes = test_data.CLASSES
    image_label = np.zeros(40, int)
    image_size = 16


def make_logits(path, rng):
    save_logits(path, rng.normal(size=(40, 3)).astype(np.float32), Labels.classes)


def make_teacher(path, rng):
    net = Teacher(len(Labels.classes), Labels.image_size)
    save_teacher(path, TrainedTeacher(net, *net.init(rng)), Labels.classes)


def make_npy(path, rng):
    np.save(path.open("wb"), rng.normal(size=(40, 3)).astype(np.float32))


def make_recording(path, rng):
    np.save(path.open("wb"), test_data.make_events(rng, 100))


def read_paired(path):
    with open_paired(path) as data:
        return [
            data.classes, data.sensor_size, data.image_size, data.image_label,
            data.image_identity, data.image_split, data.event_label, data.event_identity,
            data.event_split, data.images(range(len(data.image_label))),
            *map(data.recording, range(len(data.event_label))),
        ]


def read_checkpoint(path):
    run, config, classes, _ = load_checkpoint(path)
    values = [config, classes, run.epoch, run.history, run.rng.bit_generator.state]
    for tree in (run.params, run.state, run.moments):
        for name in sorted(tree):
            values += [name, *np.atleast_1d(tree[name])]
    return values


def read_teacher(path):
    teacher = load_teacher(path, Labels)
    return [part for tree in (teacher.params, teacher.state) for part in sorted(tree.items())]


def read_recording(path):
    """What `read_recording` does to a name that ends in ``.npy``."""
    with error_context(path, "write it again"):
        return [from_arrays(*recordings.read_npy(path))]


def repair_mat(content):
    """Compress every element, as ``save -v7`` does: its checksum covers the damage."""
    content, at, packed = bytes(content), 128, bytes(content[:128])
    while at + 8 <= len(content):
        size = 8 + int.from_bytes(content[at + 4:at + 8], "little")
        element = zlib.compress(content[at:at + size])
        packed += struct.pack("<II", 15, len(element)) + element
        at += size
    return packed


def repair_png(content):
    """Recompute the checksum of every chunk."""
    content = bytearray(content)
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at:at + 4])
        checksum = struct.pack(">I", zlib.crc32(content[at + 4:end]))
        content[end:end + 4] = checksum if end + 4 <= len(content) else b""
        at = end + 4
    return bytes(content)


def repair_hdf5(content):
    """Recompute the checksums of all metadata: superblock, object headers and chunk indexes."""
    content = bytearray(content)
    for begin, end in hdf5_blocks(content):
        content[end:end + 4] = struct.pack("<I", lookup3(content[begin:end]))
    return bytes(content)


def hdf5_messages(content):
    """Type, begin and end of the messages of all object headers, also of those continued."""
    for found in re.finditer(b"OHDR", content):
        size, begin, end = hdf5_header(content, found.start())
        while begin + 4 <= min(end, len(content)):
            body = begin + 4 + (2 if content[found.start() + 5] & 4 else 0)
            begin = body + int.from_bytes(content[begin + 1:begin + 3], "little")
            yield content[body - size], body, begin


def hdf5_header(content, begin):
    """Of the object header there: size of a message's own header, begin and end of messages."""
    flags = content[begin + 5] if begin + 5 < len(content) else 0
    at = begin + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 2 ** (flags & 3)
    first = at + width
    return 4 + (flags & 4) // 2, first, first + int.from_bytes(content[at:first], "little")


def hdf5_blocks(content):
    """Where the blocks of metadata begin and where their checksums are, by what the file says."""
    def number(at, width):
        return int.from_bytes(content[at:at + width], "little")

    def log2(n):
        return n.bit_length() - 1

    def at(sign):
        return [found.start() for found in re.finditer(sign, content)]

    blocks = [(0, 44)] + [(begin, begin + 34) for begin in at(b"BTHD")]
    blocks += [(begin, hdf5_header(content, begin)[2]) for begin in at(b"OHDR")]
    for kind, body, _ in hdf5_messages(content):
        if kind == 16:                                         # the header continues elsewhere
            begin = number(body, 8)
            blocks.append((begin, begin + number(body + 8, 8) - 4))
    for begin in at(b"FAHD"):
        block = number(begin + 16, 8)
        elements = number(begin + 8, 8) * number(begin + 6, 1)
        blocks += [(begin, begin + 24), (block, block + 14 + elements)]
    for begin in at(b"EAHD"):
        size, bits, own, least, pointers = content[begin + 6:begin + 11].ljust(5, b"\1")
        block = number(begin + 60, 8)
        # Addresses of the first data blocks, and of further blocks that point to all others.
        addresses = 2 * (pointers - 1) + 1 + bits - log2(least) - 2 * log2(pointers)
        blocks += [(begin, begin + 68), (block, block + 14 + own * size + 8 * addresses)]
        for data in at(b"EADB"):
            if number(data + 6, 8) == begin:
                blocks.append((data, data + 14 + -(-bits // 8) + least * size))
    return [(a, b) for a, b in blocks if 0 <= a < b <= len(content) - 4 and b < a + 4096]


def lookup3(data):
    """Bob Jenkins' hash, the checksum of HDF5's metadata."""
    def rot(x, k):
        return x << k & 0xFFFFFFFF | x >> 32 - k

    a = b = c = 0xDEADBEEF + len(data) & 0xFFFFFFFF
    words = struct.unpack(f"<{-(-len(data) // 12) * 3}I", data + bytes(-len(data) % 12))
    for i in range(0, len(words), 3):
        a, b, c = (x + y & 0xFFFFFFFF for x, y in zip((a, b, c), words[i:i + 3]))
        if i + 3 < len(words):
            for k in (4, 6, 8, 16, 19, 4):
                a, b, c = b, c + b & 0xFFFFFFFF, (a - c & 0xFFFFFFFF) ^ rot(c, k)
    for k in (14, 11, 25, 16, 4, 14, 24):
        a, b, c = b, (c ^ b) - rot(b, k) & 0xFFFFFFFF, a
    return b


# Damage that knows the format

def wrong(old, width, rng):
    """A number to put in place of another one."""
    values = [*INTERESTING, old + 1, old - 1, 2 * old, old // 2, old + 4, old ^ 1 << width]
    return values[rng.integers(len(values))] % 256**width


def edit_idx(content, rng):
    """Other numbers of axes, lengths and elements."""
    lengths = (0, 1, 2, 5, 28, 784, 2**16, 2**31, 2**32 - 1)
    shape = [int(rng.choice(lengths)) for _ in range(rng.integers(1, 5))]
    elements, size = content[16:], math.prod(shape)
    if size < 10**5 and rng.random() < 0.5:
        elements = (elements * (1 + size // len(elements)))[:size]
    return b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + elements


def edit_npy(content, rng):
    """Another header, its length and version, and as many elements as it says, or not."""
    kinds = ["'<f4'", "'>f8'", "'<f2'", "'|O'", "'<c8'", "'<i8'", "'V9999'", "'<U9'", "None", "[]",
             "[('t', '<i8'), ('x', '<u2'), ('y', '<u2'), ('p', '|u1')]", "('<f4', (9, 9))"]
    kinds.append("[('a', " * 50)
    sizes = ["40", "3", "0", "1", "-1", "True", "1e3", "''", "4294967295", "9" * 30, "-" * 3000]
    shape = ", ".join(rng.choice(sizes, rng.integers(1, 4)))
    shape = shape if rng.random() < 0.8 else "40, 3"
    order = rng.choice(["False", "True", "0", "()"])
    header = f"{{'descr': {rng.choice(kinds)}, 'fortran_order': {order}, 'shape': ({shape}), }}"
    header += " " * int(rng.choice([0, 60, 10**4])) + "\n"
    version, size = int(rng.integers(1, 4)), len(header)
    if rng.random() < 0.3:
        size = wrong(size, 4, rng)
    width = 2 if version == 1 else 4
    start = b"\x93NUMPY" + bytes([version, 0]) + (size % 256**width).to_bytes(width, "little")
    return start + header.encode() + content[128:] * int(rng.integers(3))


@functools.lru_cache(4)
def hdf5_chunks(content):
    """Of every chunk: where its stored size is noted, where it lies, size, bytes, compressed."""
    found = []

    def visit(name, item):
        if not isinstance(item, h5py.Dataset):
            return
        size = math.prod(item.chunks) * item.dtype.itemsize
        width = min(1 + (size.bit_length() + 7) // 8, 8)
        for i in range(item.id.get_num_chunks()):
            info = item.id.get_chunk_info(i)
            for at in re.finditer(re.escape(info.byte_offset.to_bytes(8, "little")), content):
                for begin, end in ((at.start() - 12, at.start() - 4), (at.end(), at.end() + width)):
                    if int.from_bytes(content[begin:end], "little") == info.size:
                        place = slice(begin, end)
                        found.append((place, info.byte_offset, info.size, size, item.compression))

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(visit)
    return found


@functools.lru_cache(4)
def hdf5_numbers(content):
    """Begin and end of what consists of numbers: messages by their type, chunk indexes."""
    found = {}
    for kind, begin, end in hdf5_messages(content):
        if end > begin:
            found.setdefault(kind, []).append((begin, end))
    for begin, end in hdf5_blocks(content):
        if content[begin:begin + 2] in (b"EA", b"FA"):
            found.setdefault(content[begin:begin + 4], []).append((begin + 4, end))
    return list(found.values())


def edit_hdf5(content, rng):
    """Numbers in messages and indexes, stored sizes and contents of chunks, blocks exchanged."""
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        kind = rng.choice(["number", "size", "chunk", "block"], p=[0.45, 0.25, 0.2, 0.1])
        chunks = hdf5_chunks(content)
        place, address, size, whole, packed = chunks[rng.integers(len(chunks))]
        if kind == "number":
            kinds = hdf5_numbers(content)
            spans = kinds[rng.integers(len(kinds))]
            begin, end = spans[rng.integers(len(spans))]
            at = int(rng.integers(begin, end))
            width = min(2 ** int(rng.integers(4)), end - at)
            old = int.from_bytes(damaged[at:at + width], "little")
            damaged[at:at + width] = wrong(old, width, rng).to_bytes(width, "little")
        elif kind == "size":
            width = place.stop - place.start
            new = int(rng.integers(9)) if rng.random() < 0.5 else wrong(size, width, rng)
            damaged[place] = new.to_bytes(width, "little")
        elif kind == "chunk":
            length = int(rng.choice([0, 1, whole // 2, whole - 1, whole, whole + 1, 2 * whole]))
            plain = rng.bytes(length) if rng.random() < 0.3 else bytes(length)
            stored = zlib.compress(plain, 9) if packed else plain
            stored = stored[:rng.integers(len(stored) + 1)] if rng.random() < 0.2 else stored
            stored += struct.pack("<I", fletcher32(stored))
            if len(stored) <= size:                            # else there is no room
                damaged[address:address + len(stored)] = stored
                damaged[place] = len(stored).to_bytes(place.stop - place.start, "little")
        else:
            blocks = hdf5_blocks(content)
            (a, b), (c, d) = (blocks[i] for i in rng.integers(len(blocks), size=2))
            length = min(b - a, d - c)
            one, two = damaged[a:a + length], damaged[c:c + length]
            damaged[a:a + length], damaged[c:c + length] = two, one
    return bytes(damaged)


# The formats

BIN = Format(make_bin, lambda path: [read_bin(path, test_data.SENSOR)], False, rb"^")
MAT = Format(
    make_mat,
    lambda path: [read_mat(path, test_data.SENSOR)],
    True,
    rb"^|.[\0\1]IM|[\x0e\x0f]\0\0\0",
)
IMAGE = Format(make_image, lambda path: [read_image(path)], True, rb"^|IHDR|IDAT|IEND")
IDX = Format(make_idx, lambda path: [read_idx(path)], False, rb"^", edit=edit_idx)
PAIRED = Format(
    test_data.write, read_paired, True, rb"^|OHDR|FADB|FAHD|EAHD|EAIB|EADB|BTHD|SNOD|FRHP"
)
CHECKPOINT = dataclasses.replace(PAIRED, make=make_checkpoint, read=read_checkpoint)
LOGITS = dataclasses.replace(
    PAIRED, make=make_logits, read=lambda path: [load_logits(path, Labels)]
)
TEACHER = dataclasses.replace(PAIRED, make=make_teacher, read=read_teacher)
NPY = Format(
    make_npy, lambda path: [teacher_logits.read_npy(path, Labels)], False, rb"^", edit=edit_npy
)


def as_by_an_attacker(form):
    return dataclasses.replace(form, checked=False, repair=repair_hdf5, edit=edit_hdf5)


FORMATS = {
    "bin": BIN,
    "mat": MAT,
    "mat, not packed": dataclasses.replace(
        MAT, make=lambda *a: make_mat(*a, packed=False), checked=False
    ),
    "mat, checksums recomputed": dataclasses.replace(
        MAT, make=lambda *a: make_mat(*a, packed=False), checked=False, repair=repair_mat
    ),
    "jpg": dataclasses.replace(
        IMAGE, make=lambda *a: make_image(*a, "JPEG"), checked=False, marks=rb"\xff[\xc0-\xfe]"
    ),
    "png": IMAGE,
    "png, checksums recomputed": dataclasses.replace(IMAGE, checked=False, repair=repair_png),
    "idx": IDX,
    "idx.gz": dataclasses.replace(
        IDX, make=lambda *a: make_idx(*a, gzip.compress), checked=True, edit=None
    ),
    "idx.gz, checksums recomputed": dataclasses.replace(IDX, repair=gzip.compress),
    "npy, logits": NPY,
    "npy, recording": dataclasses.replace(NPY, make=make_recording, read=read_recording),
    "paired h5": PAIRED,
    "checkpoint": CHECKPOINT,
    "logits h5": LOGITS,
    "teacher h5": TEACHER,
    "paired h5, checksums recomputed": as_by_an_attacker(PAIRED),
    "checkpoint, checksums recomputed": as_by_an_attacker(CHECKPOINT),
    "logits h5, checksums recomputed": as_by_an_attacker(LOGITS),
    "teacher h5, checksums recomputed": as_by_an_attacker(TEACHER),
}


def mutate(content, other, places, rng):
    """A damaged copy of `content`: one to three of ten kinds of damage.

    Half of them are near `places`, where the structure is.
    """
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if not content:
            break
        if rng.random() < 0.5:
            at = int(rng.choice(places) + rng.integers(48))
        else:
            at = int(rng.integers(len(content)))
        at = min(at, len(content) - 1)
        length = min(int(2 ** rng.uniform(0, 9)), len(content) - at)
        to = int(rng.integers(len(content) - length + 1))
        kind = rng.choice(
            ["bit", "bytes", "integer", "cut", "insert", "repeat", "delete", "swap", "splice",
             "piece"],
            p=[0.2, 0.2, 0.2, 0.05, 0.05, 0.06, 0.06, 0.06, 0.06, 0.06],
        )
        if kind == "bit":
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == "bytes":
            length = min(length, 8)
            content[at:at + length] = rng.bytes(length)
        elif kind == "integer":
            width = min(2 ** int(rng.integers(4)), len(content) - at)
            value = INTERESTING[rng.integers(len(INTERESTING))] % 256**width
            content[at:at + width] = value.to_bytes(width, ("little", "big")[rng.integers(2)])
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
        elif kind == "repeat":
            content[to:to] = content[at:at + length]
        elif kind == "delete":
            del content[at:at + length]
        elif kind == "swap":
            one, two = content[at:at + length], content[to:to + length]
            content[at:at + length], content[to:to + length] = two, one
        elif kind == "splice":
            content[at:] = other[at:]
        else:                                                  # from one place to another
            begin, end = sorted(rng.choice(places, 2))
            first, last = sorted(rng.choice(places, 2))
            content[begin:end] = other[first:last]
    return bytes(content)


def digest(values):
    """A digest of what was read, to compare with what was written."""
    result = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, np.ndarray):
            result.update(f"{value.dtype} {value.shape}".encode())
            result.update(np.ascontiguousarray(value).tobytes())
        else:
            result.update(repr(value).encode())
    return result.hexdigest()


def examine(name, seeds, folder, results):
    """Read the damaged file of every seed and send (seed, outcome, seconds).

    Runs in a separate process.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    form = FORMATS[name]
    originals, written = [], set()
    for k in range(2):
        form.make(folder / "whole", np.random.default_rng(k))
        originals.append((folder / "whole").read_bytes())
        written.add(digest(form.read(folder / "whole")))
    places = [found.start() for found in re.finditer(form.marks, originals[0], re.DOTALL)]
    for seed in seeds:
        damaged = originals[0]
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        while damaged in originals:
            damaged = originals[0]
            if form.edit and rng.random() < 0.5:
                damaged = form.edit(damaged, rng)
            else:
                damaged = mutate(damaged, originals[1], places, rng)
            damaged = form.repair(damaged)
        (folder / "damaged").write_bytes(damaged)
        start = time.perf_counter()
        try:
            outcome = "equal" if digest(form.read(folder / "damaged")) in written else "different"
        except FormatError as error:
            outcome = "refused"
            if not str(error).startswith(f"{folder / 'damaged'}"):
                outcome = f"without its file: {error}"
        except OSError:
            outcome = "refused by the system"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        results.send((seed, outcome, time.perf_counter() - start))
    results.close()


def run(name, seeds, context=multiprocessing.get_context("fork")):
    """Outcome and seconds of the damaged file of every seed: {seed: (outcome, seconds)}."""
    found = {}
    seeds = list(seeds)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        while len(found) < len(seeds):
            left = [seed for seed in seeds if seed not in found]
            results, end = context.Pipe(duplex=False)
            process = context.Process(
                target=examine, args=(name, left, pathlib.Path(folder), end), daemon=True
            )
            process.start()
            end.close()
            try:
                for seed in left:
                    if not results.poll(SECONDS):
                        found[seed] = "hang", SECONDS
                        break
                    _, *found[seed] = results.recv()
            except EOFError:
                process.join()
                found[seed] = f"crash with exit code {process.exitcode}", 0.0
            process.kill()
            process.join()
    return found


def failures(name, found):
    """The forbidden outcomes: {seed: outcome}."""
    allowed = {"equal", "refused", "refused by the system"}
    if not FORMATS[name].checked:
        allowed.add("different")
    return {seed: outcome for seed, (outcome, _) in found.items() if outcome not in allowed}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "--files", type=int, default=10000, help="damaged files per format (default 10000)"
    )
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    args = parser.parse_args()
    columns = "format", "checksums", "files", "read, equal", "read, different", "refused"
    print(f"| {' | '.join(columns)} | failed | slowest |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    worst = {}
    for name in args.formats or FORMATS:
        found = run(name, range(args.first, args.first + args.files))
        count = collections.Counter(outcome for outcome, _ in found.values())
        worst[name] = failures(name, found)
        refused = count["refused"] + count["refused by the system"]
        checked = "yes" if FORMATS[name].checked else "no"
        slowest = 1e3 * max(seconds for _, seconds in found.values())
        print(
            f"| {name} | {checked} | {len(found)} | {count['equal']} | {count['different']} "
            f"| {refused} | {len(worst[name])} | {slowest:.0f} ms |",
            flush=True,
        )
    for name, bad in worst.items():
        for seed, outcome in list(bad.items())[:10]:
            print(f"{name}, seed {seed}: {outcome[:300]}")
    return 1 if any(worst.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
