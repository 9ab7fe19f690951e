"""Publishers' files: what is read, and that everything else is refused with its place."""

import gzip
import struct

import numpy as np
import oracles
import pytest

from ckd_ref.events import EVENT_DTYPE, FormatError
from ckd_ref.readers import read_bin, read_idx


def encode(rows):
    """Bytes of events (t, x, y, p), written from the format's description."""
    return b"".join(struct.pack(">BBB", x, y, p << 7 | t >> 16) + struct.pack(">H", t & 0xFFFF) for t, x, y, p in rows)


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
    rows = [(t[i], int(rng.integers(240)), int(rng.integers(180)), int(rng.integers(2))) for i in range(3000)]
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
    assert read_bin(path, (256, 256))["t"].tolist() == [1, 2, 3]        # no event lost, no time moved


def test_bin_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        read_bin(tmp_path / "none.bin")


def test_bin_real_recordings(shared):
    faces = read_bin(shared / "data/ncaltech101/Faces_easy/image_0001.bin", (180, 240))
    assert (len(faces), faces["t"][-1], faces["x"].max(), faces["y"].max()) == (67445, 299364, 150, 172)
    on = (faces["p"] == 1).sum()
    assert on / (len(faces) - on) == pytest.approx(1.003, abs=5e-4)
    for k in range(1, 21):
        digit = read_bin(shared / f"data/nmnist/events/{k:05d}.bin", (34, 34))
        assert 1000 < len(digit) < 9000 and 3.0e5 < digit["t"][-1] < 3.2e5


def idx(array, magic=b"\0\0\x08"):
    return magic + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_idx_round_trip(tmp_path, rng, pack):
    for shape in ((7, 28, 28), (5,), (0,)):
        array = rng.integers(0, 256, shape).astype(np.uint8)
        (tmp_path / "file").write_bytes(pack(idx(array)))
        read = read_idx(tmp_path / "file")
        assert read.dtype == np.uint8 and np.array_equal(read, array)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


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
    (gzip.compress(GOOD)[:-12], "damaged gzip"),
    (gzip.compress(GOOD)[:-6] + b"\0\0" + gzip.compress(GOOD)[-4:], "damaged gzip"),
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
