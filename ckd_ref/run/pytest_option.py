"""The option ``pytest --implementation FILE.py``, which pytest has to know before it sees `tests`.

An installed package registers it (entry point ``pytest11``); the tests do the rest.
"""


def pytest_addoption(parser):
    parser.addoption(
        "--implementation", metavar="FILE.py",
        help="in the tests of ckd_ref: hold the functions of this file to the equations "
        "instead of the package's; tests/subject.py says what it may define",
    )
