"""The functions under test: the package's, or those of another implementation.

Tests of equations import what they test from here: ``from subject import lif``. Without an option
that is `ckd_ref.lif`; under ``pytest --implementation=FILE.py`` it is the ``lif`` of that file.

What such a file defines
------------------------
* Any of the functions in `NAMES`, with the signatures of `ckd_ref`. Arrays come in and go out as
  numpy's; a Python float that is returned counts as a number of the arguments' precision.
  `ckd_loss` returns ``(total, parts)``, parts a dict of ``cls_s``, ``da``, ``cls_e`` and, with a
  teacher, ``kd``: the unweighted losses.
* `EVENT_DTYPE`, if it is not the package's. Other names are ignored; the tests take the helpers
  they need, such as `reset`, from the package.
* For gradients either nothing, if autograd can trace the functions, or ``NAME_grad(g, *args,
  **kwargs)``: a tuple with one gradient of ``sum(g * NAME(*args, **kwargs))`` for each argument
  that is an array of floats, in the order of NAME's signature; None for one it does not have.
  `lif` returns two arrays: there g is the pair ``(g_spikes, g_potentials)``, and the gradient that
  of ``sum(g_spikes * spikes) + sum(g_potentials * potentials)``. For `ckd_loss` g is a number, the
  gradient that of ``g * total``. For `spike` and `lif` it is the surrogate's.

What is skipped, always with its reason
---------------------------------------
* Tests of a function that the file does not define.
* Options it does not have: it raises NotImplementedError, does not take the argument, or raises
  ValueError or KeyError naming the option's value, such as a surrogate.
* Tests of gradients where autograd cannot trace the function and there is no ``NAME_grad``.

A wrong number is never skipped.
"""

import functools
import importlib.util
import inspect
import pathlib
import re
import sys

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.extend import defvjp, primitive
from autograd.tracer import getval, isbox

import ckd_ref

NAMES = (
    "check_events", "bin_events",
    "spike", "surrogate_grad", "lif_step", "lif",
    "linear_cka",
    "cross_entropy", "tet_loss", "domain_alignment_loss", "kd_loss", "ckd_loss",
    "dkd_loss", "dist_loss", "luminet_loss",
    "replacement_probability", "phase_weight",
)
"""The functions that tests of equations ask for."""

file = None
"""The module made of FILE.py."""


def load(path):
    """Test the functions of that file from now on; a ValueError says why it cannot be."""
    global file
    path = pathlib.Path(path).resolve()
    spec = importlib.util.spec_from_file_location(f"implementation_{path.stem}", path)
    if spec is None or not path.is_file():
        raise ValueError(f"expected a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot import {path}: {type(error).__name__}: {error}") from error
    found = {name: getattr(module, name) for name in NAMES if hasattr(module, name)}
    if not found:
        raise ValueError(f"{path} defines none of {', '.join(NAMES)}")
    for name, value in found.items():
        if not callable(value) or inspect.isclass(value):
            raise ValueError(f"{path}: expected {name} to be a function, got {value!r}")
    file = module


def title():
    return pathlib.Path(file.__file__).name


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    if file is None:
        return getattr(ckd_ref, name)
    if name == "EVENT_DTYPE":
        return getattr(file, name, ckd_ref.EVENT_DTYPE)
    if name not in NAMES:                                      # helpers such as `reset`
        return getattr(ckd_ref, name)
    return adapt(name, getattr(file, name)) if hasattr(file, name) else missing(name)


def missing(name):
    def skip(*args, **kwargs):
        pytest.skip(f"{title()} defines no {name}")

    return skip


def adapt(name, function):
    """The file's function as the tests call it."""
    gradient = getattr(file, f"{name}_grad", None)

    @functools.wraps(function)
    def call(*args, **kwargs):
        if not any(isbox(value) for value in (*args, *kwargs.values())):
            return attempt(name, function, args, kwargs)
        if gradient is not None:
            return with_gradient(name, function, gradient, args, kwargs)
        return traced(name, function, args, kwargs)

    return call


def attempt(name, function, args, kwargs):
    """Call the function; skip the test if it says that it does not have an option."""
    def skip(error):
        reason = str(error).strip().split("\n")[0]
        pytest.skip(f"{title()}: {name} does not have this option ({reason})")

    try:
        result = function(*args, **kwargs)
    except NotImplementedError as error:
        skip(error)
    except TypeError as error:
        unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unexpected and unexpected[1] in kwargs or too_many(function, args, kwargs):
            skip(error)
        raise
    except (ValueError, KeyError) as error:
        if any(option in str(error) for option in options(args, kwargs)):
            skip(error)
        raise
    if isinstance(result, float) and not isinstance(result, np.floating):
        return precision_of(args, kwargs)(result)
    return result


def too_many(function, args, kwargs):
    """The signature has no place for an argument; that one is missing does not count."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return "missing a required" not in str(error)
    except ValueError:                                         # it has no signature
        return False
    return False


def options(args, kwargs):
    """The values that are words, such as a surrogate."""
    return [value for value in (*args, *kwargs.values()) if isinstance(value, str)]


def precision_of(args, kwargs):
    """float32 if all arrays of floats are float32."""
    types = {value.dtype for value in (*args, *kwargs.values()) if is_float_array(value)}
    return np.float32 if types == {np.dtype(np.float32)} else np.float64


def is_float_array(value):
    value = getval(value)
    return isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind == "f"


def unboxed(args, kwargs):
    return [getval(value) for value in args], {key: getval(kwargs[key]) for key in kwargs}


# Gradients by autograd

def traced(name, function, args, kwargs):
    """The result as autograd traces it; skip the test if it cannot."""
    plain_args, plain_kwargs = unboxed(args, kwargs)

    def skip(reason):
        pytest.skip(
            f"{title()}: autograd cannot trace {name}, and there is no {name}_grad ({reason})"
        )

    try:
        result = function(*args, **kwargs)
    except Exception as error:
        # What is wrong without autograd, too, is a fault or a missing option.
        attempt(name, function, plain_args, plain_kwargs)
        skip(f"{type(error).__name__}: {error}".split("\n")[0])
    parts = result if isinstance(result, tuple) else (result,)
    if any(isinstance(part, np.ndarray) and part.dtype == object for part in parts):
        skip("numpy made an array of objects of it")
    if not any(isbox(part) for part in parts) and not uses_autograd(function):
        skip("the result does not depend on the traced argument")
    if options(args, kwargs):
        attempt(name, backward_pass(function), plain_args, plain_kwargs)
    return result


def backward_pass(function):
    """The function, differentiated for its first array: some miss an option only there."""
    def call(*args, **kwargs):
        place = [is_float_array(value) for value in (*args, *kwargs.values())].index(True)

        def total(array):
            values = [*args, *kwargs.values()]
            values[place] = array
            result = function(*values[:len(args)], **dict(zip(kwargs, values[len(args):])))
            parts = result if isinstance(result, tuple) else (result,)
            return sum(anp.sum(part) for part in parts if not isinstance(part, dict))

        return grad(total)([*args, *kwargs.values()][place])

    return call


def uses_autograd(function):
    """The file, or the one that its function comes from, imports autograd.

    There a result that autograd does not trace has the gradient 0 and is tested as such.
    """
    modules = file, sys.modules.get(getattr(function, "__module__", None), file)
    texts = [pathlib.Path(module.__file__).read_text(encoding="utf-8") for module in modules]
    return any(re.search(r"^\s*(import|from) +autograd", text, re.MULTILINE) for text in texts)


# Gradients by NAME_grad

def with_gradient(name, function, gradient, args, kwargs):
    """The result as an autograd primitive whose gradient is the file's."""
    if too_many(function, *unboxed(args, kwargs)):
        attempt(name, function, *unboxed(args, kwargs))        # skips
    args, kwargs = in_order(function, args, kwargs)
    slots = [i for i, value in enumerate(args) if is_float_array(value)]
    slots += [key for key, value in kwargs.items() if is_float_array(value)]
    given = [args[slot] if isinstance(slot, int) else kwargs[slot] for slot in slots]
    plain_args, plain_kwargs = unboxed(args, kwargs)
    example = attempt(name, function, plain_args, plain_kwargs)
    pair = isinstance(example, tuple) and not isinstance(example[1], dict)

    def filled(arrays):
        args, kwargs = list(plain_args), dict(plain_kwargs)
        for slot, array in zip(slots, arrays):
            (args if isinstance(slot, int) else kwargs)[slot] = array
        return args, kwargs

    @primitive
    def value(*arrays):
        result = attempt(name, function, *filled(arrays))
        if pair:
            return np.stack(result)
        return result[0] if isinstance(result, tuple) else result

    def vjp(i):
        def of(ans, *arrays):
            return lambda g: slope(g, i, arrays)
        return of

    def slope(g, i, arrays):
        args, kwargs = filled(arrays)
        g = (g[0], g[1]) if pair else g
        slopes = attempt(f"{name}_grad", gradient, (g, *args), kwargs)
        assert isinstance(slopes, (tuple, list)) and len(slopes) == len(slots), (
            f"{name}_grad is to return a tuple of {len(slots)} gradients, "
            "one for each array of floats"
        )
        if slopes[i] is None:
            pytest.skip(f"{title()}: {name}_grad has no gradient for array {i}")
        assert np.shape(slopes[i]) == arrays[i].shape, (
            f"{name}_grad: gradient {i} has shape {np.shape(slopes[i])}, "
            f"its array has {arrays[i].shape}"
        )
        return np.asarray(slopes[i])

    defvjp(value, *(vjp(i) for i in range(len(slots))))
    result = value(*given)
    if pair:
        return result[0], result[1]
    return (result, example[1]) if isinstance(example, tuple) else result


def in_order(function, args, kwargs):
    """The arguments in the order of the signature."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return list(args), dict(kwargs)
    return list(bound.args), dict(bound.kwargs)
