"""Validation of HDF5 files: what is bounded, what is refused.

Damage anywhere in a file: test_data.py, test_fuzz_files.py.
"""

import faulthandler
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import fuzz_files
import h5py
import numpy as np
import pytest
from conftest import peak_memory

from ckd_ref.data import hdf5
from ckd_ref.data.errors import error_context
from ckd_ref.data.files import atomic_hdf5
from ckd_ref.events import FormatError


@pytest.fixture
def path(tmp_path):
    with atomic_hdf5(tmp_path / "a.h5") as file:
        hdf5.write(file, "group/values", np.arange(12.0).reshape(3, 4))
        hdf5.write(file, "names", np.array([b"a", "ä".encode()]))
        file.attrs["size"], file.attrs["sides"] = 7, (3, 4)
    return tmp_path / "a.h5"


def read(path, name="group/values", dtype="f", shape=("M", "K")):
    with error_context(path, "make it again"), hdf5.open_checked(path) as file:
        return hdf5.dataset(file, name, dtype, shape)[()]


def test_what_is_written_is_read(path):
    assert np.array_equal(read(path), np.arange(12.0).reshape(3, 4))
    assert read(path, "names", "S", (2,)).tolist() == [b"a", "ä".encode()]
    with hdf5.open_checked(path) as file:
        assert hdf5.attribute(file, "size") == 7
        assert hdf5.attribute(file, "sides", (2,)).tolist() == [3, 4]
        assert hdf5.attribute(file, "other") is None


def test_equal_names_are_equal_lengths(path):
    lengths = {}
    with hdf5.open_checked(path) as file:
        hdf5.dataset(file, "group/values", np.float64, ("M", 4), lengths)
        assert lengths == {"M": 3}
        with pytest.raises(
            FormatError, match=r"names: expected the shape \('M',\) = \(3,\), got \(2,\)"
        ):
            hdf5.dataset(file, "names", "S", ("M",), lengths)


@pytest.mark.parametrize(
    "name, dtype, shape, message",
    [
        ("group", "f", (1,), "group: expected a chunked data set"),
        ("other", "f", (1,), "other: expected a data set"),
        ("group/values", "S", ("M", "K"), "type bytes of fixed length, got float64"),
        ("group/values", np.float32, ("M", "K"), "type float32, got float64"),
        ("group/values", np.dtype("f4"), ("M", "K"), "type float32, got float64"),
        ("group/values", np.dtype(">f8"), ("M", "K"), "type >f8, got float64"),
        ("group/values", "f", ("M",), "expected the shape"),
        ("group/values", "f", (3, 5), r"\(3, 5\), got \(3, 4\)"),
        ("names/x", "S", (2,), "expected a data set"),
        ("../names", "S", (2,), "expected a data set in the file itself"),
    ],
)
def test_another_data_set_than_expected_is_refused(path, name, dtype, shape, message):
    with pytest.raises(FormatError, match=f"a.h5: .*{message}"):
        read(path, name, dtype, shape)


@pytest.mark.parametrize(
    "value",
    [
        "text in a heap", np.ones(5), [[1, 2]], np.bytes_(b"x" * 65), h5py.Empty("f4"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    ],
)
def test_other_attributes_are_refused(path, value):
    with h5py.File(path, "r+", libver="v110") as file:
        file.attrs["size"] = value
    with (
        hdf5.open_checked(path) as file,
        pytest.raises(FormatError, match="attribute size: expected numbers or bytes"),
    ):
        hdf5.attribute(file, "size")


def test_files_without_checksums_of_metadata_are_refused(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w", libver="earliest") as file:
        hdf5.write(file, "group/values", np.ones((3, 4)))
    with pytest.raises(
        FormatError, match="old.h5: expected an HDF5 file whose metadata has checksums"
    ):
        read(tmp_path / "old.h5")


def bomb(path, unpacked):
    """A file of zeros that decompress to this many bytes."""
    with atomic_hdf5(path) as file:
        size = min(unpacked // 8, 2**22)
        packed = file.create_dataset(
            "group/values", (unpacked // 8,), "f8", chunks=(size,), fletcher32=True,
            compression="gzip", compression_opts=9, shuffle=True,
        )
        for i in range(0, unpacked // 8, size):
            packed[i:i + size] = 0.0
    return path


def test_memory_is_bounded_before_reading(tmp_path):
    """A file that claims more than its bytes can hold is refused at once, not decompressed."""
    path = bomb(tmp_path / "a.h5", 2**25)
    honest = path.stat().st_size
    assert honest < 2**25 / 900                                 # deflate at its best
    with h5py.File(path, "r+", libver="v110") as file:
        del file["group/values"]
        file.create_dataset(
            "group/values", (2**36,), "f8", chunks=(2**20,), fletcher32=True, shuffle=True,
            compression="gzip",
        )[:2**20] = 0.0
    start = time.perf_counter()
    with pytest.raises(FormatError, match="549755813888 bytes by its shape .* more than the"):
        read(path, shape=("N",))
    assert time.perf_counter() - start < 1
    assert peak_memory(lambda: pytest.raises(FormatError, read, path, shape=("N",))) < 2**23


def test_what_passes_unpacks_to_no_more_than_the_stated_multiple(tmp_path):
    path = bomb(tmp_path / "a.h5", 2**25)
    assert (
        peak_memory(lambda: read(path, shape=("N",)))
        < 2**24 + 3 * hdf5.DEFLATE_RATIO * path.stat().st_size
    )


def test_one_chunk_larger_than_the_data_is_refused(tmp_path):
    with atomic_hdf5(tmp_path / "a.h5") as file:  # a gigabyte for three numbers, in a small file
        lying = file.create_dataset(
            "group/values", (3,), "f8", chunks=(2**27,), maxshape=(None,), fletcher32=True,
            shuffle=True, compression="gzip",
        )
        lying.id.write_direct_chunk((0,), b"x" * 100)
    assert (
        peak_memory(lambda: pytest.raises(FormatError, read, tmp_path / "a.h5", shape=("N",)))
        < 2**23
    )


def test_the_systems_own_errors_pass(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.h5")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    fcntl = pytest.importorskip("fcntl")
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)                        # as a process that writes to it
        with pytest.raises(OSError, match="lock"):
            read(path)


def test_links_are_not_followed(path, tmp_path):
    shutil.copy(path, tmp_path / "other.h5")
    for link in (
        h5py.ExternalLink("other.h5", "/group/values"),
        h5py.SoftLink("/names"),
        h5py.SoftLink("/nowhere"),
    ):
        with h5py.File(path, "r+", libver="v110") as file:
            del file["group/values"]
            file["group/values"] = link
        with pytest.raises(
            FormatError, match="group/values: expected a data set in the file itself"
        ):
            read(path)


def test_a_gigantic_file_of_another_format_is_refused_at_once(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"")
    os.truncate(tmp_path / "a.h5", 10**13)
    with pytest.raises(FormatError, match="expected an HDF5 file"):
        read(tmp_path / "a.h5")


def test_headers_without_checksums_are_refused(path):
    with h5py.File(path, "r+", libver="earliest") as file:
        hdf5.write(file, "group/old", np.ones((3, 4)))
        header = h5py.h5o.get_info(file.id, b"group/old").addr
    if path.read_bytes()[header:].startswith(b"OHDR"):
        pytest.skip("this HDF5 (older than 2.0) writes a checksum here all the same")
    with pytest.raises(FormatError, match="expected an object with a checksum at byte"):
        read(path, "group/old")


def change_header(path, change):
    """Apply `change` to the bytes of the data set's header and recompute its checksum."""
    content = path.read_bytes()
    with h5py.File(path) as file:
        begin = h5py.h5o.get_info(file.id, b"group/values").addr
    end = content.find(b"OHDR", begin + 4)
    header = change(content[begin:end])
    path.write_bytes(fuzz_files.repair_hdf5(content[:begin] + header + content[end:]))


def test_chunks_that_hdf5_would_divide_by_are_refused(path):
    """HDF5 2.0 notices a length of 0, but not that there is no axis, and crashes."""
    with h5py.File(path, "r+", libver="v110") as file:
        del file["group/values"]
        hdf5.write(file, "group/values", np.ones(4, "f4"))
    one = b"\x02\x01\x04\x04"  # axes (including that of bytes), width, lengths
    content = path.read_bytes()
    for changed, message in (
        (b"\x02\x01\x00\x04", "chunk dimension must be positive"),
        (b"\x00\x01\x01\x04", "expected chunks .* with at least one axis, got layout 4, 0 axes"),
    ):
        path.write_bytes(content)
        change_header(path, lambda header: header.replace(one, changed))
        assert path.read_bytes() != content
        with pytest.raises(FormatError, match=f"a.h5: .*{message}"):
            read(path, shape=("N",))
    status = subprocess.run(
        [sys.executable, "-c", f"import h5py; h5py.File({str(path)!r})['group/values']"],
        capture_output=True,
    ).returncode
    assert status in (-signal.SIGFPE, 1)  # without validation: a crash, in some versions an error


def test_an_endless_index_is_refused(path):
    """HDF5 counts the chunks one by one, as many as the index says: here for a thousand years."""
    with h5py.File(path, "r+", libver="v110") as file:
        del file["group/values"]
        hdf5.write(file, "group/values", np.ones(10), chunks=(5,), maxshape=(None,))
    content = bytearray(path.read_bytes())
    at = content.index(b"EAHD") + 44
    assert content[at:at + 8] == b"\2" + bytes(7)               # two chunks
    content[at:at + 8] = b"\xff" * 7 + b"\0"
    path.write_bytes(fuzz_files.repair_hdf5(content))
    start = time.perf_counter()
    with pytest.raises(
        FormatError, match="group/values: an index of 72057594037927935 chunks, more than"
    ):
        read(path, shape=("N",))
    assert time.perf_counter() - start < 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="crashes are kept to a forked process")
def test_an_index_that_does_not_fit_the_lengths_is_refused(tmp_path):
    """HDF5 2.0 finds a chunk's place by the largest lengths, and reads beyond the index's end."""
    def use():
        with pytest.raises(FormatError, match=f"a.h5: .*{message}"):
            read(path, shape=("N", 10))

    path = tmp_path / "a.h5"
    fixed, grows = {"chunks": (2, 5)}, {"chunks": (2, 10), "maxshape": (None, 10)}
    ten, endless = (10).to_bytes(8, "little"), b"\xff" * 8
    for options, field, changed, message in (
        (fixed, ten * 4, ten * 3 + ten[:6] + b"\xff\0", "the largest shape .10, 10. for .* type 3"),
        (fixed, ten * 4, ten * 3 + endless, "the largest shape .10, 10. .* got .10, None."),
        (grows, ten * 2 + endless + ten, ten * 4, "(the largest shape|unlimited)"),
        (fixed, b"FAHD\0\1\x0e\x0a" + ten, b"FAHD\0\1\x0e\x0a\5" + bytes(7),
         "an index of 10 chunks, got one of 5"),
    ):
        with h5py.File(path, "w", libver="v110") as file:
            hdf5.write(file, "group/values", np.ones((10, 10)), **options)
        content = path.read_bytes()
        assert content.count(field) == 1
        path.write_bytes(fuzz_files.repair_hdf5(content.replace(field, changed)))
        assert exit_code(use) == 0


def test_two_axes_that_grow_are_refused(path):
    with h5py.File(path, "r+", libver="v110") as file:
        del file["group/values"]
        hdf5.write(file, "group/values", np.ones((3, 4)), chunks=(1, 1), maxshape=(None, None))
    with pytest.raises(FormatError, match="group/values: expected one axis that grows at most"):
        read(path)


LAYOUTS = {
    "one chunk": {"chunks": (10,)},
    "fixed array": {"chunks": (5,)},
    "extensible array": {"chunks": (5,), "maxshape": (None,)},
}
PACKED = {"compression": "gzip", "shuffle": True}


def write_chunks(path, **options):
    with h5py.File(path, "w", libver="v110") as file:
        hdf5.write(file, "group/values", np.arange(10.0), **options)


def set_stored_size(path, size):
    """Change the stored size of the first chunk in the file's index; recompute checksums."""
    with h5py.File(path) as file:
        info = file["group/values"].id.get_chunk_info(0)
        single = file["group/values"].id.get_num_chunks() == 1
    content = bytearray(path.read_bytes())
    at = content.index(info.byte_offset.to_bytes(8, "little"))
    # Beside the address: before it 8 bytes and a mask of 4, or after it 2 bytes.
    field = slice(at - 12, at - 4) if single else slice(at + 8, at + 10)
    assert int.from_bytes(content[field], "little") == info.size
    content[field] = size.to_bytes(field.stop - field.start, "little")
    path.write_bytes(fuzz_files.repair_hdf5(content))


def exit_code(use):
    """That of a forked process that makes a call; negative if it crashes."""
    def quietly():
        faulthandler.disable()
        use()

    process = multiprocessing.get_context("fork").Process(target=quietly)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.skipif(not hasattr(os, "fork"), reason="crashes are kept to a forked process")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("filters", [{}, PACKED], ids=["plain", "packed"])
def test_chunks_of_less_than_a_checksum_are_refused(tmp_path, layout, filters):
    """HDF5 2.0 crashes at them: its checksum filter subtracts 4 from the size."""
    def use():
        for size in (0, 1, 3, 4, 5, 30, 4000):
            set_stored_size(path, size)
            with pytest.raises(FormatError, match="a.h5: .*(damaged|more than the)"):
                read(path, shape=("N",))

    path = tmp_path / "a.h5"
    write_chunks(path, **LAYOUTS[layout], **filters)
    assert exit_code(use) == 0
    set_stored_size(path, 0)
    by_itself = exit_code(lambda: h5py.File(path)["group/values"][()])
    assert by_itself in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, 1)


def test_chunks_that_unpack_to_another_size_are_refused(tmp_path):
    """HDF5 2.0 returns memory that was never written for the rest of such a chunk."""
    path = tmp_path / "a.h5"
    for content in (bytes(78), bytes(82)):
        for filters, stored in (({}, content), (PACKED, zlib.compress(content))):
            write_chunks(path, chunks=(10,), **filters)
            with h5py.File(path, "r+", libver="v110") as file:
                checksum = struct.pack("<I", hdf5.fletcher32(stored))
                file["group/values"].id.write_direct_chunk((0,), stored + checksum)
            with pytest.raises(FormatError, match="(damaged at .*expected|values:) 80 bytes"):
                read(path, shape=("N",))


def test_chunks_marked_as_stored_without_checksum_are_refused(tmp_path):
    write_chunks(tmp_path / "a.h5", chunks=(10,))
    with h5py.File(tmp_path / "a.h5", "r+", libver="v110") as file:
        file["group/values"].id.write_direct_chunk((0,), bytes(80), filter_mask=1)
    with pytest.raises(FormatError, match="group/values: damaged at .*wrong checksum"):
        read(tmp_path / "a.h5", shape=("N",))


@pytest.mark.parametrize("shape, chunks", [
    ((), None), ((7,), (3,)), ((7, 5), (3, 2)), ((2, 3, 4), (5, 1, 4)), ((0, 4), (1, 4)),
])
@pytest.mark.parametrize("filters", [{}, PACKED], ids=["plain", "packed"])
def test_chunks_are_decoded_as_by_hdf5(tmp_path, rng, shape, chunks, filters):
    """By rows and as a whole, in all types; the oracle is HDF5 itself."""
    for dtype in ("u1", ">i2", "<f4", "f8", "S3"):
        values = rng.integers(0, 256, shape).astype(dtype)
        path = tmp_path / f"{dtype[-2:]}.h5"
        with h5py.File(path, "w", libver="v110") as file:
            maxshape = (None, *shape[1:])
            options = {"chunks": chunks, "maxshape": maxshape} if shape else {"shape": (1,)}
            file.create_dataset("v", data=values, fletcher32=True, **options, **filters)
        with h5py.File(path) as oracle, hdf5.open_checked(path) as file:
            stored = hdf5.dataset(file, "v", values.dtype, values.shape or (1,))
            assert stored[()].dtype == values.dtype and stored[()].flags.c_contiguous
            assert np.array_equal(stored[()], oracle["v"][()])
            for i, j in ((0, 0), (0, 4), (2, 5), (3, 7), (6, 9), (4, 2)):
                assert np.array_equal(stored[i:j], oracle["v"][i:j])
            for i in range(len(stored)):
                assert np.array_equal(stored[np.int64(i)], oracle["v"][i])


def test_compressed_data_sets_are_bounded_by_more_than_their_ratio(tmp_path, monkeypatch):
    path = bomb(tmp_path / "a.h5", 2**16)
    monkeypatch.setattr(hdf5, "MAX_PACKED", 2**16 - 1)
    with pytest.raises(FormatError, match="values: unpacks to 65536 bytes, expected at most 65535"):
        read(path, shape=("N",))
    with hdf5.open_checked(path) as file:                       # in rows, as recordings are read
        assert not hdf5.dataset(file, "group/values", "f8", ("N",))[5:9].any()
    monkeypatch.setattr(hdf5, "MAX_PACKED_CHUNK", 2**16 - 1)
    with pytest.raises(FormatError, match="compressed chunks of at most 65535 bytes, got .8192,."):
        read(path, shape=("N",))


def test_fletcher32_by_hand():
    assert hdf5.fletcher32(b"") == hdf5.fletcher32(bytes(6)) == 0
    # The numbers 0x0102 and 0x0300: their sum, and 0x0102 + (0x0102 + 0x0300).
    assert hdf5.fletcher32(b"\1\2\3") == 0x0504_0402
    assert hdf5.fletcher32(b"\xff\xff" * 3) == 0xFFFF_FFFF      # multiples of 65535
    assert hdf5.fletcher32(b"\1\2" + bytes(2**17)) == (0x0102 * 65537 % 65535) << 16 | 0x0102


def test_headers_with_recomputed_checksums_are_opened(path):
    change_header(path, lambda header: header)
    assert read(path).shape == (3, 4)
