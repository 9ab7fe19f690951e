"""Fixtures, and the specification table that ends every run."""

import collections
import os
import pathlib
import re

import numpy as np
import pytest

SHARED = pathlib.Path(os.environ.get("CKD_REF_SHARED", pathlib.Path(__file__).parents[2] / "shared"))


@pytest.fixture
def rng():
    return np.random.default_rng(20250712)


@pytest.fixture(scope="session")
def golden():
    """Values made by the original functions; see golden/README.md."""
    import h5py

    with h5py.File(pathlib.Path(__file__).parent / "golden" / "golden.h5") as file:
        yield file


@pytest.fixture(scope="session")
def shared():
    """The folder of real recordings, which the project does not ship."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real recordings at {SHARED / 'data'} (CKD_REF_SHARED names their folder)")
    return SHARED
