"""Progress: tqdm's bar on a terminal; a line now and then where nobody looks."""

import io
import math
import sys

from tqdm import tqdm

from ..data.errors import printable


class Progress:
    """A bar on a terminal; elsewhere, as in a file of a batch system, a line when `note` is called.

    tqdm's environment variables hold as they do for its own bars, such as ``TQDM_DISABLE=1``, which
    silences the lines as well, and ``TQDM_MININTERVAL``.

    Parameters
    ----------
    label : str
        What is under way.
    total : int
        Number of steps.
    unit : str
        What a step is.
    shown : bool
        Whether anything is written.
    initial : int
        Steps done before.
    position : int
        The bar's line on the screen, for bars side by side.
    options
        Others of tqdm. They override its variables.
    """

    def __init__(self, label, total, unit="batch", shown=True, initial=0, position=0, **options):
        options |= {} if shown else {"disable": True}
        terminal = sys.stderr.isatty()
        if not terminal:
            options |= {"file": io.StringIO(), "mininterval": math.inf}
        self._bar = tqdm(
            desc=printable(label), total=total, unit=unit, initial=initial, position=position,
            leave=None, **options,
        )
        self._lines = not terminal and not self._bar.disable

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def step(self, count=1, **values):
        """Count a step or several, and show the values behind the bar."""
        self._bar.set_postfix({k: f"{v:.3f}" for k, v in values.items()}, refresh=False)
        self._bar.update(count)

    def note(self, text):
        """Write a line, unless there is a bar."""
        if self._lines:
            sys.stderr.write(f"{self._bar.desc}: {text}\n")
            sys.stderr.flush()
