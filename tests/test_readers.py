"""Readers of published data: valid files are read, all others refused with file and place."""

import gzip
import io
import os
import struct
import time
import tracemalloc
import zlib

import numpy as np
import oracles
import pytest
import scipy.io
from conftest import peak_memory
from PIL import Image

from ckd_ref.data import readers
from ckd_ref.data.errors import error_context
from ckd_ref.data.readers import npy_header, read_bin, read_idx, read_image, read_mat
from ckd_ref.events import EVENT_DTYPE, FormatError


def encode(rows):
    """Bytes of events (t, x, y, p), written from the format's description."""
    return b"".join(
        struct.pack(">BBB", x, y, p << 7 | t >> 16) + struct.pack(">H", t & 0xFFFF)
        for t, x, y, p in rows
    )


@pytest.fixture
def bin_file(tmp_path):
    def write(content):
        path = tmp_path / "00001.bin"
        path.write_bytes(content)
        return path
    return write


ROWS = [(0, 3, 5, 1), (255, 0, 0, 0), (256, 33, 33, 1), (65536, 7, 8, 0), (2**23 - 1, 1, 2, 1)]


def test_bin_fields_by_hand(bin_file):
    # x = 3, y = 5, ON, t = 0x012345; then x = 255, y = 128, OFF, the last time that 23 bits hold
    events = read_bin(bin_file(bytes.fromhex("03 05 81 23 45  ff 80 7f ff ff")))
    assert events.dtype == EVENT_DTYPE
    assert events.tolist() == [(0x012345, 3, 5, 1), (2**23 - 1, 255, 128, 0)]


def test_bin_round_trip_and_loop_oracle(bin_file, rng):
    t = np.sort(rng.integers(0, 2**23, 3000)).tolist()
    rows = [
        (t[i], int(rng.integers(240)), int(rng.integers(180)), int(rng.integers(2)))
        for i in range(3000)
    ]
    path = bin_file(encode(rows))
    assert read_bin(path, (180, 240)).tolist() == rows == oracles.decode_bin(path.read_bytes())


def test_bin_polarity_one_is_on(bin_file):
    assert read_bin(bin_file(encode(ROWS)))["p"].tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("content, message", [
    (b"", "empty file"),
    (encode(ROWS)[:-1], r"multiple of 5 bytes, got 24; event 4 at byte 20 is cut off"),
    (encode(ROWS)[:3], r"multiple of 5 bytes, got 3; event 0 at byte 0"),
    (encode(ROWS[:2] + [(300, 34, 0, 0)]), r"event 2 of 3: x = 34.*0 \.\.\. 33"),
    (encode(ROWS[:2] + [(300, 0, 34, 0)]), r"event 2 of 3: y = 34.*0 \.\.\. 33"),
    (encode([(9, 0, 0, 0), (8, 0, 0, 0)]), r"event 1 of 2: t = 8.*do not decrease"),
    (encode(ROWS[:1] + [(1, 0, 240, 0)]), r"event 1 of 2 at byte 5: y = 240.*overflow"),
])
def test_bin_refuses_and_names_file_and_place(bin_file, content, message):
    path = bin_file(content)
    with pytest.raises(FormatError, match=message) as refused:
        read_bin(path, (34, 34))
    assert str(path) in str(refused.value)


def test_bin_row_240_is_refused_unless_the_sensor_has_it(bin_file):
    path = bin_file(encode([(1, 0, 239, 0), (2, 0, 240, 0), (3, 0, 241, 0)]))
    for sensor_size in (None, (240, 240)):
        with pytest.raises(FormatError, match="event 1 of 3 at byte 5: y = 240"):
            read_bin(path, sensor_size)
    assert read_bin(path, (256, 256))["t"].tolist() == [1, 2, 3]  # no event lost, no time moved


def test_bin_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        read_bin(tmp_path / "none.bin")


def test_bin_garbage_is_refused(bin_file, rng):
    with pytest.raises(FormatError, match="00001.bin"):
        read_bin(bin_file(rng.bytes(5000)))


def refusal(read, path, match):
    """Seconds until a file is refused with a message that names it."""
    start = time.perf_counter()
    with pytest.raises(FormatError, match=match) as refused:
        read(path)
    assert str(path) in str(refused.value)
    return time.perf_counter() - start


@pytest.mark.parametrize("read", [read_bin, read_image, read_mat])
def test_gigantic_files_are_refused_before_they_are_read(bin_file, read):
    path = bin_file(b"")
    os.truncate(path, 10**13)  # a hole of 10 TB takes no room on the disk
    assert refusal(read, path, "expected at most 268435456 bytes .* got 10000000000000") < 1


def test_bin_memory_is_bounded_by_a_multiple_of_the_file(bin_file):
    path = bin_file(bytes(5 * 10**6))
    tracemalloc.start()
    read_bin(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 5e6


def test_bin_real_recordings(shared):
    faces = read_bin(shared / "data/ncaltech101/Faces_easy/image_0001.bin", (180, 240))
    assert (len(faces), faces["t"][-1], faces["x"].max(), faces["y"].max()) == (
        67445,
        299364,
        150,
        172,
    )
    on = (faces["p"] == 1).sum()
    assert on / (len(faces) - on) == pytest.approx(1.003, abs=5e-4)
    for k in range(1, 21):
        digit = read_bin(shared / f"data/nmnist/events/{k:05d}.bin", (34, 34))
        assert 1000 < len(digit) < 9000 and 3.0e5 < digit["t"][-1] < 3.2e5


def idx(array, magic=b"\0\0\x08"):
    return (
        magic + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_idx_round_trip(tmp_path, rng, pack):
    for shape in ((7, 28, 28), (5,), (0,), (0, 28, 28)):
        array = rng.integers(0, 256, shape).astype(np.uint8)
        (tmp_path / "file").write_bytes(pack(idx(array)))
        read = read_idx(tmp_path / "file")
        assert read.dtype == np.uint8 and np.array_equal(read, array)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
ZIPPED = gzip.compress(GOOD)


@pytest.mark.parametrize("content, message", [
    (b"", "empty file"),
    (b"\x89PNG\r\n\x1a\n", "first bytes 00 00 08.*got 89 50 4e 47"),
    (idx(np.zeros(4, np.uint8), b"\0\0\x0d"), "unsigned bytes"),
    (GOOD[:3] + b"\0" + GOOD[4:], "1 to 4 axes"),
    (GOOD[:3] + b"\x05" + GOOD[4:], "1 to 4 axes"),
    (GOOD[:9], "lengths of 3 axes from byte 4 on, got 5 bytes"),
    (GOOD[:-1], r"24 elements for the shape \(2, 3, 4\) of the header, got 23"),
    (GOOD + b"\0", "got more"),
    (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "holds at most 40"),
    (GOOD[:4] + bytes(4) + b"\xff" * 8, r"expected 0 elements for the shape \(0, 4294967295, "),
    (GOOD[:4] + b"\xff" * 8 + bytes(4), "expected 0 elements"),
    (ZIPPED[:-12], "damaged gzip"),
    (ZIPPED[:-6] + b"\0\0" + ZIPPED[-4:], "damaged gzip"),
    (b"\x1f\x8b" + b"\xff" * 50, "damaged gzip"),
    (gzip.compress(GOOD[:4] + b"\xff" * 12 + GOOD[16:]), "holds at most"),
])
def test_idx_refuses_and_names_file(tmp_path, content, message):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as refused:
        read_idx(path)
    assert str(path) in str(refused.value)


def test_idx_real_files(shared):
    images = read_idx(shared / "data/nmnist/images-idx3-ubyte.gz")
    labels = read_idx(shared / "data/nmnist/labels-idx1-ubyte.gz")
    assert images.shape == (1000, 28, 28) and labels.shape == (1000,)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]           # how MNIST's training set begins


# Headers of NumPy's files

def npy(text, version=1, size=None):
    text = text if isinstance(text, bytes) else text.encode()
    size = len(text) if size is None else size
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(2 * version, "little") + text


HEADER = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n"
TABLE = np.zeros((7, 3), "<f4")
FIELDS = np.zeros(5, [("t", "i8"), ("x", ">u2")])


def test_npy_headers_are_read_as_numpy_writes_them():
    for array in (TABLE, TABLE.T, FIELDS, np.zeros((0, 4)), np.float64(3)):
        for version in ((1, 0), (2, 0)):
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(array), version)
            stream.seek(0)
            by_column = array.ndim == 2 and array.strides[0] < array.strides[1]
            assert npy_header(stream) == (array.shape, by_column, array.dtype)
            assert len(stream.read()) == array.nbytes
    assert npy_header(io.BytesIO(npy(HEADER))) == ((2, 3), True, np.dtype("<f4"))


@pytest.mark.parametrize("content, message", [
    (b"", "not one array written by numpy.save: .* got an empty file"),
    (b"PK\3\4and more", "magic string .* got 50 4b 03 04"),
    (npy(HEADER, 3), "version 1 or 2, got 93 4e 55 4d 50 59 03 00"),
    (npy(HEADER, 2, 2**32 - 1), "at most 4096 bytes, got one of 4294967295 bytes, 59 of them"),
    (npy(HEADER + " " * 10**4), "at most 4096 bytes, got one of 10059 bytes, 4097 of them"),
    (npy(HEADER, size=60), "got one of 60 bytes, 59 of them read"),
    (npy(HEADER.replace("2, 3", "-" * 4000 + "1,")), "damaged header .*Error"),
    (npy("(" * 4000), "damaged header"),
    (npy(b"\xff" * 40), "damaged header"),
    (npy(HEADER.replace("f4", "V99999999999999")), "damaged header"),
    (npy(HEADER.replace("2, 3", "-2, -3")), r"at least 0, got the shape \(-2, -3\)"),
])
def test_npy_other_headers_are_refused_in_one_line(content, message):
    """Without gigabytes for a header, and without NumPy's advice to trust the file."""
    with pytest.raises(FormatError, match=message) as refused:
        npy_header(io.BytesIO(content))
    assert "\n" not in str(refused.value) and "allow_pickle" not in str(refused.value)


# What libraries complain of

@pytest.mark.parametrize(
    "error, comes_out",
    [
        (KeyError("a"), FormatError), (OSError("no errno"), FormatError),
        (RecursionError(), FormatError), (FormatError("mine"), FormatError),
        (OSError(28, "disk full"), OSError), (MemoryError(), MemoryError),
    ],
)
def test_complaints_name_the_place_and_the_systems_own_pass(error, comes_out):
    with pytest.raises(comes_out) as raised, error_context("a.h5", "make it again"):
        raise error
    assert comes_out is not FormatError or str(raised.value).startswith("a.h5: ")


# Images

def png(header, rows, *more, level=9):
    """A PNG from its header (W, H, bits, colour type, interlacing) and the bytes of its rows."""
    W, H, bits, color, interlaced = header
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", W, H, bits, color, 0, 0, interlaced)), *more,
              (b"IDAT", zlib.compress(rows, level)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks)


@pytest.fixture
def image_file(tmp_path):
    def write(content, kind="PNG", **options):
        path = tmp_path / "image_0001.jpg"  # the name says nothing about the format
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, kind, **options)
        return path
    return write


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (12, 17, 3)).astype(np.uint8)


def test_image_rgb_is_kept(image_file, pixels):
    for options in ({}, {"compress_level": 0}):
        read = read_image(image_file(Image.fromarray(pixels), **options))
        assert read.dtype == np.uint8 and np.array_equal(read, pixels)


def test_image_grey_becomes_rgb(image_file, pixels):
    grey = pixels[..., 0]
    for image, expected in (
        (Image.fromarray(grey), grey),
        (Image.fromarray(grey > 99), (grey > 99) * 255),
    ):
        assert np.array_equal(
            read_image(image_file(image)), np.repeat(expected[..., None], 3, axis=-1)
        )


def test_image_palette_becomes_rgb(image_file, pixels):
    image = Image.fromarray(pixels).quantize(16)
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    assert np.array_equal(read_image(image_file(image)), palette[np.asarray(image)])


def test_image_transparent_pixels_lie_over_white(image_file, pixels):
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[3], alpha[4] = 0, 128
    read = read_image(image_file(Image.fromarray(np.dstack((pixels, alpha)))))
    assert np.array_equal(read[alpha == 255], pixels[alpha == 255]) and (read[3] == 255).all()
    assert np.abs(read[4] - (pixels[4] * (128 / 255) + 127)).max() <= 1
    indexed = Image.fromarray(pixels).quantize(16)
    read = read_image(image_file(indexed, transparency=5))
    assert (read[np.asarray(indexed) == 5] == 255).all()


def test_image_of_16_bits_keeps_the_upper_8(image_file, rng):
    values = rng.integers(0, 2**16, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    assert np.array_equal(read_image(image_file(png((7, 5, 16, 2, 0), rows))), values >> 8)
    rows = b"".join(b"\0" + row.tobytes() for row in values[..., 0])
    grey = np.repeat(values[..., :1] >> 8, 3, axis=-1)
    assert np.array_equal(read_image(image_file(png((7, 5, 16, 0, 0), rows))), grey)


def test_image_jpeg_is_close_in_grey_rgb_and_cmyk(image_file):
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    smooth = np.dstack((ramp, 255 - ramp, ramp // 2 + 30))
    for image in (
        Image.fromarray(smooth),
        Image.fromarray(ramp),
        Image.fromarray(smooth).convert("CMYK"),
    ):
        expected = np.asarray(image.convert("RGB")).astype(int)
        for progressive in (False, True):
            read = read_image(image_file(image, "JPEG", quality=95, progressive=progressive))
            assert np.abs(read - expected).max() < 12


def test_image_interlaced_png_is_read(image_file):
    grids = (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    for H, W in ((9, 13), (1, 1), (2, 5)):
        grey = np.arange(H * W, dtype=np.uint8).reshape(H, W)
        rows = b"".join(
            b"\0" + row.tobytes()
            for x, y, dx, dy in grids
            for row in grey[y::dy, x::dx]
            if len(row)
        )
        path = image_file(png((W, H, 8, 0, 1), rows))
        assert np.array_equal(read_image(path)[..., 1], grey)
        refusal(read_image, image_file(png((W, H, 8, 0, 1), rows[:-1])), "bytes of pixels")


def encoded(kind, **options):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")
DARK = encoded("JPEG", progressive=True)
SCAN = DARK[DARK.rindex(b"\xff\xda"):-2]
NOT_IMAGES = {
    "empty": (b"", r"expected a JPEG or PNG image, got the first bytes \(none\)"),
    "garbage": (b"what is this?", "got the first bytes 77 68"),
    "gif": (encoded("GIF"), "got the first bytes 47 49 46"),
    "webp": (encoded("WEBP"), "expected a JPEG or PNG image"),
    "animated": (
        encoded("PNG", save_all=True, append_images=[Image.new("RGB", (50, 40))]),
        "animation of 2",
    ),
    "png signature": (PNG[:8], "damaged"),
    "png cut": (PNG[:-300], r"the IDAT chunk at byte \d+ is damaged"),
    "png without end": (PNG[:-12], "damaged"),
    "png flipped bit": (
        PNG[:900] + bytes([PNG[900] ^ 4]) + PNG[901:],
        r"the IDAT chunk at byte 33 is damaged",
    ),
    "png chunk of 4 GB": (PNG[:33] + b"\xff\xff\xff\xf0" + PNG[37:], "damaged"),
    "png of too few rows": (
        png((10, 10, 8, 2, 0), bytes(31 * 9)),
        "expected 310 bytes of pixels .* got 279",
    ),
    "png claims": (
        png((60000, 60000, 8, 2, 0), bytes(10)),
        "header says 60000 x 60000 pixels, expected at most",
    ),
    "png bomb": (
        lambda: png((40000, 40000, 1, 0, 0), bytes(5001 * 40000), level=1),
        "at most 33554432",
    ),
    "png text bomb": (
        lambda: png(
            (1, 1, 8, 0, 0), bytes(2), (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 1))
        ),
        "damaged",
    ),
    "jpg cut": (JPEG[:-500], "cut off: .* without the end of the image"),
    "jpg header only": (JPEG[:200], "damaged"),
    "jpg claims": (
        JPEG.replace(struct.pack(">HH", 40, 50), b"\xff\xff\xff\xff"),
        "header says 65535 x 65535 pixels",
    ),
    "jpg of thousand scans": (DARK[:-2] + 1000 * SCAN + DARK[-2:], "at most 100 scans"),
}


@pytest.mark.parametrize("content, message", NOT_IMAGES.values(), ids=NOT_IMAGES)
def test_image_refuses_and_names_file(image_file, content, message):
    content = content() if callable(content) else content
    path = image_file(content)
    assert refusal(read_image, path, message) < 1
    assert peak_memory(lambda: refusal(read_image, path, message)) < 2**24 + 4 * len(content)


def test_image_memory_is_bounded_by_its_pixels(image_file):
    for image, kind, options in ((Image.new("RGB", (3000, 2000)), "JPEG", {"progressive": True}),
                                 (Image.new("CMYK", (3000, 2000)), "JPEG", {}),
                                 (Image.new("RGBA", (3000, 2000)), "PNG", {})):
        path = image_file(image, kind, **options)
        assert peak_memory(lambda: read_image(path)) < 2**24 + 20 * 6e6


def test_image_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.jpg")


def test_image_real_files(shared):
    paths = sorted((shared / "data/caltech101").glob("*/image_000[1-3].jpg"))
    assert len(paths) == 63
    for path in paths:
        with Image.open(path) as image:
            assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))


# MATLAB files

def vectors(n=300, **changes):
    rng = np.random.default_rng(n)
    return {
        "x": rng.integers(0, 346, n),
        "y": rng.integers(0, 260, n),
        "ts": np.sort(rng.integers(0, 10**6, n)),
        "p": rng.choice([-1, 1], n),
    } | changes


@pytest.fixture
def mat_file(tmp_path):
    def write(content, **options):
        path = tmp_path / "17.mat"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            scipy.io.savemat(path, content, **options)
        return path
    return write


def expected(arrays):
    events = np.empty(len(arrays["x"]), EVENT_DTYPE)
    events["x"], events["y"], events["p"] = arrays["x"], arrays["y"], arrays["p"] == 1
    events["t"] = arrays["ts"] - arrays["ts"][0]
    return events


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u4", "i4", "i8", "u8"])
def test_mat_written_by_scipy_is_read(mat_file, dtype, packed):
    arrays = vectors(ts=np.arange(300) * 100)                   # within 16 bits
    typed = {name: column.astype("i1" if name == "p" else dtype) for name, column in arrays.items()}
    for oned_as in ("row", "column"):
        events = read_mat(mat_file(typed, do_compression=packed, oned_as=oned_as), (260, 346))
        assert np.array_equal(events, expected(arrays))


def test_mat_one_event_and_other_variables(mat_file):
    """A single number is stored in the short form; other variables of any kind are skipped."""
    others = {
        "s": {"a": 1}, "c": np.array(["a", 2], object), "text": "words", "z": np.ones(3) * 1j,
        "image": np.eye(9),
    }
    for n, packed in ((1, False), (1, True), (40, True)):
        arrays = vectors(n)
        assert np.array_equal(
            read_mat(mat_file(others | arrays, do_compression=packed)), expected(arrays)
        )


def test_mat_big_endian_by_hand(mat_file):
    def element(kind, body):
        return struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 8)

    content = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI"
    for name, kind, values in (("x", 4, ">3H"), ("y", 2, ">3B"), ("ts", 9, ">3d"), ("p", 1, ">3b")):
        numbers = {"x": (300, 0, 7), "y": (1, 2, 3), "ts": (10, 10, 25), "p": (-1, 1, -1)}[name]
        content += element(
            14,
            element(6, struct.pack(">II", 6, 0))
            + element(5, struct.pack(">ii", 3, 1))
            + element(1, name.encode())
            + element(kind, struct.pack(values, *numbers)),
        )
    assert read_mat(mat_file(content)).tolist() == [(0, 300, 1, 0), (0, 0, 2, 1), (15, 7, 3, 0)]


def test_mat_times_begin_with_the_first_event(mat_file):
    late = vectors()
    late["ts"] = late["ts"] + 1_600_000_000_000_000.0           # microseconds of a clock
    assert np.array_equal(read_mat(mat_file(late)), expected(vectors()))


def without(name):
    return {key: value for key, value in vectors().items() if key != name}


def changed(name, index, value):
    arrays = {key: column.astype(float) for key, column in vectors().items()}
    arrays[name][index] = value
    return arrays


BAD_VECTORS = {
    "missing": (without("p"), "expected the variables x, y, ts, p; missing: p;"),
    "other": ({"events": np.ones((3, 4))}, "missing: x, y, ts, p;"),
    "lengths": (vectors(p=np.ones(299)), "of one length.* 299 of p"),
    "empty": ({name: np.zeros((1, 0)) for name in ("x", "y", "ts", "p")}, "vector, got 0 numbers"),
    "matrix": (
        vectors(x=np.ones((10, 30))),
        r"x to be a vector, got 300 numbers, shape \(10, 30\)",
    ),
    "cube": (
        vectors(x=np.ones((1, 300, 1, 1))[:, :, :, :1].reshape(1, 300, 1)[..., [0, 0]]),
        "vector",
    ),
    "text": (vectors(x="x" * 300), "array of real numbers, got class 4"),
    "structure": (vectors(x={"a": 1}), "real numbers, got class 2"),
    "cell": (vectors(x=np.array([1, "a"], object)), "real numbers, got class 1"),
    "complex": (vectors(x=np.ones(300) * 1j), "real numbers, got class 6, flags 0x8"),
    "fraction": (changed("ts", 5, 0.5), r"ts\[5\] = 0.5, expected whole numbers"),
    "nan": (changed("x", 7, np.nan), r"x\[7\] = nan"),
    "infinity": (changed("ts", 299, np.inf), r"ts\[299\] = inf"),
    "huge": (vectors(ts=np.full(300, 2**64 - 1, np.uint64)), r"ts\[0\] = 18446744073709551615"),
    "outside": (changed("x", 9, 346), "event 9 of 300: x = 346"),
    "far outside": (changed("y", 9, 2**16 + 5), "event 9 of 300: y = 65541"),
    "negative": (changed("y", 9, -1), "event 9 of 300: y = -1"),
    "polarity": (changed("p", 3, 0), "event 3 of 300: p = 0, expected -1 or 1"),
    "back in time": (changed("ts", 299, 0), "event 299 of 300: t = .* do not decrease"),
}


@pytest.mark.parametrize("arrays, message", BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_mat_wrong_variables_are_refused(mat_file, arrays, message):
    for packed in (False, True):
        refusal(
            lambda path: read_mat(path, (260, 346)),
            mat_file(arrays, do_compression=packed),
            message,
        )


def mat(**options):
    file = io.BytesIO()
    scipy.io.savemat(file, vectors(), **options)
    return file.getvalue()


def bomb(claim, size):
    """A MATLAB file of one variable that claims `claim` bytes and decompresses to `size`."""
    packed = zlib.compress(struct.pack("<II", 14, claim) + bytes(size), 1)
    return MAT[:128] + struct.pack("<II", 15, len(packed)) + packed


MAT, PACKED = mat(), mat(do_compression=True)
NOT_MAT = {
    "empty": (b"", "expected the header of a MATLAB 5 file, got an empty file"),
    "garbage": (bytes(range(200)), "expected the header of a MATLAB 5 file, got 00 01 02 03"),
    "version 7.3": (
        b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n",
        "7.3 .* save it with -v7",
    ),
    "header only": (MAT[:128], "missing: x, y, ts, p;"),
    "cut": (MAT[:-100], r"element at byte \d+: expected \d+ bytes from its tag, got"),
    "cut tag": (MAT[:132], "at least 8 bytes at byte 128, got 4"),
    "cut packed": (PACKED[:-30], "bytes from its tag"),
    "no array": (
        MAT[:128] + struct.pack("<II", 9, 8) + bytes(8),
        "expected an array .* got type 9",
    ),
    "twice": (MAT + MAT[128:], "x is there twice"),
    "flipped bit": (
        PACKED[:200] + bytes([PACKED[200] ^ 1]) + PACKED[201:],
        "element at byte 128|damaged",
    ),
    "checksum": (bomb(100, 100)[:-1] + b"?", "damaged"),
    "bomb": (lambda: bomb(10**9, 10**8), "unpacks to 1000000000 bytes, expected at most"),
    "bomb that lies": (
        lambda: bomb(1000, 10**8),
        "expected 1000 bytes from its tag, the packed stream says otherwise",
    ),
    "claim": (bomb(2**20, 100), "expected 1048576 bytes from its tag"),
    "nested": (MAT[:128] + struct.pack("<II", 15, 8) + bytes(8), "damaged"),
}


@pytest.mark.parametrize("content, message", NOT_MAT.values(), ids=NOT_MAT)
def test_mat_refuses_and_names_file(mat_file, content, message):
    content = content() if callable(content) else content
    path = mat_file(content)
    assert refusal(read_mat, path, message) < 1
    assert peak_memory(lambda: refusal(read_mat, path, message)) < 2**23 + 4 * len(content)


def test_mat_memory_is_bounded_by_a_multiple_of_the_file(mat_file):
    """Constants compress best; a file of them is refused instead of decompressed to 48 MB."""
    path = mat_file(
        {name: np.ones(1_500_000) for name in ("x", "y", "ts", "p")}, do_compression=True
    )
    size = path.stat().st_size
    assert peak_memory(lambda: refusal(read_mat, path, "unpacks to")) < 2**23 + 4 * size
    path = mat_file(vectors(200_000), do_compression=True)
    assert peak_memory(lambda: read_mat(path)) < 2**23 + 40 * path.stat().st_size


def test_mat_a_reader_without_bound_or_checksum_is_caught(mat_file, monkeypatch):
    """The tests above notice a reader that decompresses without a limit."""
    monkeypatch.setattr(readers, "unpacked_limit", lambda size: 2**40)
    path = mat_file(bomb(10**8, 10**8))
    assert peak_memory(lambda: pytest.raises(FormatError, read_mat, path)) > 9e7


def test_idx_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 10**9) + bytes(10**8), 1))
    assert refusal(read_idx, path, "1000000000 elements .* holds at most") < 1
