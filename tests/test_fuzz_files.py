"""Damaged files of every format: a short run of fuzz_files.py, and tests that it finds faults."""

import dataclasses
import os
import re
import signal
import time

import h5py
import numpy as np
import pytest

pytest.importorskip("resource", reason="processes are limited and watched on POSIX only")
fuzz_files = pytest.importorskip("fuzz_files")

FILES = 12


@pytest.mark.parametrize("name", fuzz_files.FORMATS)
def test_damaged_files_are_refused_or_read_as_valid_data(name):
    found = fuzz_files.run(name, range(FILES))
    assert len(found) == FILES and not fuzz_files.failures(name, found)
    refused = sum(outcome.startswith("refused") for outcome, _ in found.values())
    assert refused > FILES / 3


def reader(misbehave):
    """A reader of .bin files that misbehaves if the last byte is odd."""
    def read(path):
        if path.name == "damaged" and path.stat().st_size and path.read_bytes()[-1] % 2:
            misbehave()
        return fuzz_files.BIN.read(path)
    return read


def raise_key_error():
    raise KeyError("x")


@pytest.mark.parametrize(
    "misbehave, outcome",
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "crash with exit code -9"),
        (lambda: time.sleep(60), "hang"),
        (raise_key_error, "KeyError: 'x'"),
        (lambda: np.empty(2**40), "MemoryError"),
    ],
)
def test_a_reader_that_crashes_hangs_or_raises_is_noticed(monkeypatch, misbehave, outcome):
    monkeypatch.setattr(fuzz_files, "SECONDS", 0.2)
    monkeypatch.setitem(
        fuzz_files.FORMATS, "bad", dataclasses.replace(fuzz_files.BIN, read=reader(misbehave))
    )
    found = fuzz_files.run("bad", range(12))
    bad = fuzz_files.failures("bad", found)
    assert len(found) == 12 and 0 < len(bad) < 12
    assert all(text.startswith(outcome) for text in bad.values())


def test_other_data_despite_a_checksum_is_noticed(monkeypatch):
    """A format without checksums that claims to have them."""
    monkeypatch.setitem(
        fuzz_files.FORMATS, "bad", dataclasses.replace(fuzz_files.IDX, checked=True)
    )
    bad = fuzz_files.failures("bad", fuzz_files.run("bad", range(50)))
    assert bad and set(bad.values()) == {"different"}


def test_the_same_seed_damages_alike():
    content, other = bytes(range(200)), bytes(200)
    one, two, three = (
        fuzz_files.mutate(content, other, [0, 50], np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert one == two != three


def test_every_byte_of_an_hdf5_file_is_covered_by_a_checksum(tmp_path, rng):
    """Every third one is tried."""
    form, path = fuzz_files.FORMATS["logits h5"], tmp_path / "l.h5"
    form.make(path, rng)
    content = path.read_bytes()
    for i in range(0, len(content), 3):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1:])
        with pytest.raises(fuzz_files.FormatError):
            form.read(path)


def test_all_metadata_of_an_hdf5_file_is_found_with_its_checksum(tmp_path, rng):
    """No signature that HDF5 uses is left over but those of headers that were replaced."""
    for name in ("paired h5", "checkpoint", "logits h5", "teacher h5"):
        fuzz_files.FORMATS[name].make(tmp_path / "a", rng)
        content = (tmp_path / "a").read_bytes()
        blocks = dict(fuzz_files.hdf5_blocks(content))
        for begin, end in blocks.items():
            checksum = fuzz_files.lookup3(content[begin:end])
            assert content[end:end + 4] == checksum.to_bytes(4, "little")
        signs = rb"OHDR|EA(HD|IB|SB|DB)|FA(HD|DB)|BT(HD|LF|IN)|FRHP|FH(DB|IB)"
        assert set(blocks) >= {found.start() for found in re.finditer(signs, content)}
        with h5py.File(tmp_path / "a") as file:
            found = []
            file.visititems(lambda _, item: found.append(item))
            chunks = [item.id.get_num_chunks() for item in found if isinstance(item, h5py.Dataset)]
        assert len(fuzz_files.hdf5_chunks(content)) == sum(chunks)


def test_damage_that_knows_the_format_is_what_it_says(tmp_path, rng):
    """Chunks of a few bytes with good checksums, shapes without elements, long headers."""
    fuzz_files.PAIRED.make(tmp_path / "a", rng)
    content = (tmp_path / "a").read_bytes()
    places = [place for place, *_ in fuzz_files.hdf5_chunks(content)]
    sizes = set()
    for _ in range(60):
        damaged = fuzz_files.edit_hdf5(content, rng)
        sizes |= {int.from_bytes(damaged[place], "little") for place in places}
    assert {0, 1, 2, 3} < sizes
    idx = [fuzz_files.edit_idx(bytes(16 + 50), rng) for _ in range(100)]
    shapes = [np.frombuffer(content[4:4 + 4 * content[3]], ">u4") for content in idx]
    assert any(0 in shape and shape.max() > 2**30 for shape in shapes)
    npy = [fuzz_files.edit_npy(bytes(608), rng) for _ in range(60)]
    assert {content[6] for content in npy} == {1, 2, 3}
    assert any(content[6] == 2 and content[11] for content in npy)   # 2^24 bytes of header or more


def test_lookup3_is_that_of_its_author():
    # driver5 of Bob Jenkins' lookup3.c
    assert fuzz_files.lookup3(b"Four score and seven years ago") == 0x17770551


def test_recomputed_checksums_are_accepted(tmp_path, rng):
    """The repair of an undamaged file changes nothing."""
    for form, repair in (
        (fuzz_files.PAIRED, fuzz_files.repair_hdf5),
        (fuzz_files.IMAGE, fuzz_files.repair_png),
    ):
        form.make(tmp_path / "a", rng)
        content = (tmp_path / "a").read_bytes()
        assert repair(content) == content
