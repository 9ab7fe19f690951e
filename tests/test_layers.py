"""The layers and their hand-written vector-Jacobian products. Golden arrays are channel-first."""

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from autograd import grad
from autograd.test_util import check_grads
from conftest import golden_keys, relative_error
from scipy.signal import correlate2d

from ckd_ref.nn import avg_pool, batch_norm, blocks, conv, conv2d, linear, relu, update_running
from ckd_ref.nn.conv import col2im, im2col
from ckd_ref.nn.layers import unpool
from ckd_ref.nn.norm import channel_sums, norm_vjp, normalisation


def channel_last(images):
    return onp.moveaxis(images, 1, -1)


def channel_first(images):
    return onp.moveaxis(images, -1, 1)


# Convolution


@pytest.mark.parametrize("key", golden_keys("conv2d"))
def test_conv2d_golden(golden, key):
    case = golden["conv2d"][key]
    x, upstream = channel_last(case["x"][:]), channel_last(case["w"][:])
    w = case["weight"][:].transpose(2, 3, 1, 0)                # (k, k, C, K)
    stride = int(case.attrs["stride"])
    bias = case["bias"][:] if "bias" in case else 0.0
    assert case.attrs["padding"] == w.shape[0] // 2, "the golden case has another padding"

    def scalar(x, w):
        return np.sum(upstream * (conv2d(x, w, stride) + bias))

    y = channel_first(conv2d(x, w, stride) + bias)
    dx = channel_first(grad(scalar, 0)(x, w))
    dw = grad(scalar, 1)(x, w).transpose(3, 2, 0, 1)           # (K, C, k, k)
    assert relative_error(y, case["y"][:]) < 1e-9, "the outputs differ"
    assert relative_error(dx, case["grad_x"][:]) < 1e-9, "the gradient of the images differs"
    assert relative_error(dw, case["grad_weight"][:]) < 1e-9, "the gradient of the filter differs"


@pytest.mark.parametrize("k, stride", [(1, 1), (3, 1), (5, 1), (1, 2), (3, 2), (3, 3)])
def test_conv2d_equals_the_loop_and_scipy(rng, k, stride):
    x, w = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(k, k, 3, 4))
    y = conv2d(x, w, stride)
    assert relative_error(y, oracles.conv2d(x, w, stride)) < 1e-12, "it differs from the loop"
    for c in range(4):
        planes = sum(correlate2d(x[0, ..., d], w[..., d, c], mode="same") for d in range(3))
        error = relative_error(y[0, ..., c], planes[::stride, ::stride])
        assert error < 1e-12, f"output channel {c} differs from scipy's correlation"


def test_conv2d_is_no_convolution():
    """A wrong version: the kernel flipped. A weight above the centre looks up."""
    x, w = onp.zeros((1, 3, 3, 1)), onp.zeros((3, 3, 1, 1))
    x[0, 0, 1], w[0, 1] = 1, 1
    assert conv2d(x, w)[0, 1, 1, 0] == 1, "the pixel above the centre is not seen"
    assert conv2d(x, w[::-1])[0, 1, 1, 0] == 0, "a flipped kernel gives the same"


@pytest.mark.parametrize("k, stride", [(1, 2), (3, 1), (3, 2), (5, 3)])
def test_conv2d_gradient(rng, k, stride):
    x, w = rng.normal(size=(2, 5, 6, 2)), rng.normal(size=(k, k, 2, 3))
    check_grads(lambda x, w: conv2d(x, w, stride), modes=["rev"], order=1)(x, w)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv2d_does_not_depend_on_its_blocks(rng, monkeypatch, stride):
    x, w = rng.normal(size=(3, 4, 6, 6, 2)), rng.normal(size=(3, 3, 2, 3))

    def run():
        dx = grad(lambda x: np.sum(conv2d(x, w, stride) ** 2))(x)
        dw = grad(lambda w: np.sum(conv2d(x, w, stride) ** 2))(w)
        return {"output": conv2d(x, w, stride), "gradient of x": dx, "gradient of w": dw}

    whole = run()
    monkeypatch.setattr(conv, "BLOCK_BYTES", 1)
    for name, image_by_image in run().items():
        error = relative_error(image_by_image, whole[name])
        assert error < 1e-12, f"image by image, the {name} is another"


@pytest.mark.parametrize("k, stride", [(1, 1), (3, 1), (3, 2), (5, 3)])
def test_im2col_has_the_neighbourhood_of_each_pixel_in_a_row(rng, k, stride):
    x = rng.normal(size=(2, 5, 6, 3))
    rows = im2col(x, k, stride)                                # (n Ho Wo, k k C)
    p = k // 2
    padded = onp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    neighbourhoods = [
        padded[n, i:i + k, j:j + k].ravel()
        for n in range(2) for i in range(0, 5, stride) for j in range(0, 6, stride)
    ]
    assert onp.array_equal(rows, neighbourhoods), "a row is not the neighbourhood of its pixel"


@pytest.mark.parametrize("k, stride", [(1, 2), (3, 1), (3, 2), (5, 3)])
def test_col2im_is_the_transpose_of_im2col(rng, k, stride):
    """<im2col(x), rows> = <x, col2im(rows)> for any x and rows."""
    x, back = rng.normal(size=(2, 2, 5, 6, 3))
    rows = rng.normal(size=im2col(x, k, stride).shape)
    col2im(rows, k, stride, out=back)
    there = onp.vdot(im2col(x, k, stride), rows)
    assert onp.vdot(x, back) == pytest.approx(there, rel=1e-12), "the two products differ"


# Batch normalisation

RUNNING = onp.zeros(4), onp.ones(4)


def test_batch_norm_golden(golden):
    """Two training calls, then evaluation with the statistics they left."""
    g, running = golden["batchnorm2d"], RUNNING
    scale, shift = g["weight"][:], g["bias"][:]
    for key in ("train0", "train1", "eval"):
        case = g[key]
        x, upstream = channel_last(case["x"][:]), channel_last(case["w"][:])
        given = running if key == "eval" else None

        def scalar(x, scale, shift):
            return np.sum(upstream * batch_norm(x, scale, shift, given)[0])

        y, statistics = batch_norm(x, scale, shift, given)
        if given is None:
            running = update_running(running, statistics)
        dx, dscale, dshift = (grad(scalar, i)(x, scale, shift) for i in range(3))
        pairs = {
            "output": (channel_first(y), case["y"]),
            "running mean": (running[0], case["running_mean"]),
            "running variance": (running[1], case["running_var"]),
            "gradient of x": (channel_first(dx), case["grad_x"]),
            "gradient of scale": (dscale, case["grad_weight"]),
            "gradient of shift": (dshift, case["grad_bias"]),
        }
        for name, (result, expected) in pairs.items():
            assert relative_error(result, expected[:]) < 1e-9, f"{key}: the {name} differs"


@pytest.fixture
def norm(rng):
    """x (T, B, H, W, C), scale and shift."""
    x = rng.normal(size=(3, 2, 4, 5, 4)) * [1, 2, 3, 4] + [0, 5, -5, 1]
    return x, rng.normal(size=4), rng.normal(size=4)


def test_batch_norm_equals_the_loop(norm):
    x, scale, shift = norm
    y, (mean, var) = batch_norm(x, scale, shift)
    reference, means, variances = oracles.batch_norm(x.reshape(6, 4, 5, 4), scale, shift, 1e-5)
    error = relative_error(y.reshape(reference.shape), reference)
    assert error < 1e-12, "the output differs from the loop's"
    assert mean.shape == var.shape == (1, 4), "expected one mean and variance per channel"
    assert relative_error(mean[0], means) < 1e-12, "the means differ from the loop's"
    assert relative_error(var[0], variances) < 1e-12, "the unbiased variances differ"


def test_per_step_statistics_are_those_of_each_step(norm):
    """One call per step, each with its own statistics, and the running ones updated each time."""
    x, scale, shift = norm
    y, statistics = batch_norm(x, scale, shift, per_step=True)
    running = RUNNING
    for t in range(3):
        step, (mean, var) = batch_norm(x[t], scale, shift)
        running = update_running(running, (mean, var))
        assert relative_error(y[t], step) < 1e-12, f"step {t} is not normalised by itself"
        assert relative_error(statistics[0][t], mean[0]) < 1e-12, f"the mean of step {t} differs"
        assert relative_error(statistics[1][t], var[0]) < 1e-12, f"the variance of step {t} differs"
    after_mean, after_var = update_running(RUNNING, statistics)
    assert relative_error(after_mean, running[0]) < 1e-12, "the running mean is another"
    assert relative_error(after_var, running[1]) < 1e-12, "the running variance is another"
    # A wrong version: time and batch together.
    together = batch_norm(x, scale, shift)[0]
    assert relative_error(y, together) > 1e-3, "over time and batch together must differ"


def test_running_statistics_move_by_their_momentum():
    statistics = onp.array([[4.0], [8.0]]), onp.array([[1.0], [3.0]])
    running = onp.array([2.0]), onp.array([5.0])
    mean, var = update_running(running, statistics, momentum=0.25)
    assert mean == 0.75 * (0.75 * 2 + 0.25 * 4) + 0.25 * 8, "a running mean by hand"
    assert var == 0.75 * (0.75 * 5 + 0.25 * 1) + 0.25 * 3, "a running variance by hand"


CASES = {
    "training": dict(),
    "per step": dict(per_step=True),
    "evaluation": dict(running=(onp.ones(4), onp.full(4, 2.0))),
}


@pytest.mark.parametrize("block_bytes", [blocks.BLOCK_BYTES, 1])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_batch_norm_gradient(norm, options, block_bytes, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    check_grads(lambda *a: batch_norm(*a, **options)[0], modes=["rev"], order=1)(*norm)


def textbook_norm_vjp(g, x, scale, mean, inv_std, axes):
    """dx, dscale, dshift with full arrays; `axes` are those of the mean, None in evaluation."""
    mean, inv_std = (values[:, None, None, None] for values in (mean, inv_std))
    x_hat = (x - mean) * inv_std                               # (T, B, H, W, C)
    dx = scale * inv_std * g
    if axes:
        mean_g = g.mean(axes, keepdims=True)
        mean_gx = (g * x_hat).mean(axes, keepdims=True)
        dx = scale * inv_std * (g - mean_g - x_hat * mean_gx)
    return dx, (g * x_hat).sum((0, 1, 2, 3)), g.sum((0, 1, 2, 3))


def assert_textbook(norm, g, options, axes):
    x, scale, _ = norm
    mean, inv_std, n, _ = normalisation(x, scale, **options)
    dx = g.copy()
    sum_g, sum_gx = channel_sums(g), channel_sums(g, x)        # (T, C)
    dscale, dshift = norm_vjp(dx, x, scale, mean, inv_std, n, sum_g, sum_gx)
    expected = textbook_norm_vjp(g, x, scale, mean, inv_std, axes)
    for name, result, reference in zip(("x", "scale", "shift"), (dx, dscale, dshift), expected):
        error = relative_error(result, reference)
        assert error < 1e-11, f"the gradient of {name} is not the textbook's"


AXES = {"training": (0, 1, 2, 3), "per step": (1, 2, 3), "evaluation": None}


@pytest.mark.parametrize("block_bytes", [blocks.BLOCK_BYTES, 1])
@pytest.mark.parametrize("case", CASES)
def test_norm_vjp_equals_the_textbook(norm, rng, monkeypatch, case, block_bytes):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    assert_textbook(norm, rng.normal(size=norm[0].shape), CASES[case], AXES[case])


@pytest.mark.parametrize("case, wrong_axes", [
    ("training", None),                                        # statistics taken for constants
    ("training", (1, 2, 3)),
    ("per step", (0, 1, 2, 3)),
    ("evaluation", (0, 1, 2, 3)),
])
def test_another_textbook_formula_is_caught(norm, rng, case, wrong_axes):
    with pytest.raises(AssertionError, match="the gradient of x is not the textbook's"):
        assert_textbook(norm, rng.normal(size=norm[0].shape), CASES[case], wrong_axes)


@pytest.mark.parametrize("block_bytes", [blocks.BLOCK_BYTES, 1])
def test_channel_sums_are_those_of_each_step(norm, rng, monkeypatch, block_bytes):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    x, *_ = norm
    y = rng.normal(size=x.shape)
    error = relative_error(channel_sums(x), x.sum((1, 2, 3)))
    assert error < 1e-12, "the sums of x per step and channel differ"
    error = relative_error(channel_sums(x, y), (x * y).sum((1, 2, 3)))
    assert error < 1e-12, "the sums of x y per step and channel differ"


def test_batch_norm_output_has_the_statistics_asked_for(norm):
    x, scale, shift = norm
    y, _ = batch_norm(x, scale, shift)
    assert relative_error(y.mean((0, 1, 2, 3)), shift) < 1e-9, "the mean is not the shift"
    assert relative_error(y.std((0, 1, 2, 3)), abs(scale)) < 1e-4, "the deviation is not the scale"


def test_batch_norm_evaluation_uses_the_running_statistics(norm):
    x, scale, shift = norm
    mean, var = onp.arange(4.0), onp.arange(1.0, 5.0)
    sample = x[:, :1]
    y, statistics = batch_norm(sample, scale, shift, (mean, var))
    expected = (sample - mean) / onp.sqrt(var + 1e-5) * scale + shift
    assert statistics is None, "evaluation takes no statistics"
    assert relative_error(y, expected) < 1e-12, "it is not normalised by the statistics given"


def test_batch_norm_accumulates_in_float64(rng):
    """Far from zero, plain float32 sums lose the statistics; a wrong version shows it."""
    x = (1000 + rng.normal(size=(16, 128, 128, 2))).astype(onp.float32)
    one, zero = onp.ones(2, onp.float32), onp.zeros(2, onp.float32)
    mean, var = update_running((zero, one), batch_norm(x, one, zero)[1], momentum=1.0)
    exact = x.astype(float).reshape(-1, 2)
    assert mean.dtype == var.dtype == onp.float32, "the running statistics left float32"
    assert relative_error(mean, exact.mean(0)) < 1e-7, "the mean was not accumulated in float64"
    assert relative_error(var, exact.var(0, ddof=1)) < 1e-6, "the variance lost its precision"
    rows = x.reshape(-1, 2)
    naive_mean = rows.mean(0)
    naive_var = (rows**2).mean(0) - naive_mean**2
    assert relative_error(naive_mean, exact.mean(0)) > 1e-7, "float32 sums would do for the mean"
    assert relative_error(naive_var, exact.var(0)) > 1e-3, "float32 sums would do for the variance"


# Pooling, rectifier, linear map


@pytest.mark.parametrize("key", golden_keys("avgpool"))
def test_avg_pool_golden(golden, key):
    case = golden["avgpool"][key]
    x, upstream = channel_last(case["x"][:]), channel_last(case["avg2_w"][:])
    y = channel_first(avg_pool(x, 2))
    dx = channel_first(grad(lambda x: np.sum(upstream * avg_pool(x, 2)))(x))
    assert relative_error(y, case["avg2_y"][:]) < 1e-9, "the means differ"
    assert relative_error(dx, case["avg2_grad_x"][:]) < 1e-9, "the gradient differs"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_avg_pool_equals_reshaped_means_and_leaves_the_rest_out(rng, size):
    x = rng.normal(size=(2, 3, 7, 6, 2))
    H, W = 7 // size, 6 // size
    whole = x[:, :, :H * size, :W * size]
    windows = whole.reshape(2, 3, H, size, W, size, 2)
    error = relative_error(avg_pool(x, size), windows.mean((3, 5)))
    assert error < 1e-12, "a window's mean differs"
    check_grads(lambda x: avg_pool(x, size), modes=["rev"], order=1)(x)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_unpool_is_the_transpose_of_avg_pool(rng, size):
    """``<avg_pool(x), g> = <x, unpool(g)>``."""
    x = rng.normal(size=(2, 7, 6, 2))
    pooled = avg_pool(x, size)
    g = rng.normal(size=pooled.shape)
    spread = unpool(g, x.shape, size)
    assert spread.shape == x.shape, "a gradient has the shape of its input"
    inner = (x * spread).sum()
    assert inner == pytest.approx((pooled * g).sum(), rel=1e-12), "unpool is not the transpose"


def test_linear_golden(golden):
    g = golden["linear"]
    x, w, b = g["x"][:], g["weight"][:].T, g["bias"][:]

    def scalar(*a):
        return np.sum(g["w"][:] * linear(*a))

    dx, dw, db = (grad(scalar, i)(x, w, b) for i in range(3))
    assert relative_error(linear(x, w, b), g["y"][:]) < 1e-9, "the outputs differ"
    assert relative_error(dx, g["grad_x"][:]) < 1e-9, "the gradient of x differs"
    assert relative_error(dw, g["grad_weight"][:].T) < 1e-9, "the gradient of w differs"
    assert relative_error(db, g["grad_bias"][:]) < 1e-9, "the gradient of b differs"


def test_linear_treats_leading_axes_alike(rng):
    x, w, b = rng.normal(size=(3, 2, 5)), rng.normal(size=(5, 4)), rng.normal(size=4)
    expected = onp.einsum("tbd,dk->tbk", x, w) + b
    assert relative_error(linear(x, w, b), expected) < 1e-12, "x w + b over the last axis differs"
    check_grads(linear, modes=["rev"], order=1)(x, w, b)


def test_relu_by_hand_and_gradient(rng):
    x = onp.array([-1.0, 0, 2])
    slope = grad(lambda x: np.sum(relu(x)))(x)
    assert relu(x).tolist() == [0, 0, 2], "max(x, 0) by hand"
    assert slope.tolist() == [0, 0, 1], "the gradient passes where x > 0, not at 0"
    check_grads(relu, modes=["rev"], order=1)(rng.normal(size=20))


# Precision and bad input


def test_float32_stays_float32(rng):
    x = rng.normal(size=(2, 3, 6, 6, 2)).astype(onp.float32)
    w = rng.normal(size=(3, 3, 2, 4)).astype(onp.float32)
    scale, shift = onp.ones(2, onp.float32), onp.zeros(2, onp.float32)
    matrix, bias = w[0, 0], onp.zeros(4, onp.float32)

    def norm(**options):
        return lambda x, scale, shift: batch_norm(x, scale, shift, **options)[0]

    calls = {
        "conv2d": (conv2d, (x, w)),
        "conv2d with a stride": (lambda x, w: conv2d(x, w, 2), (x, w)),
        "relu": (relu, (x,)),
        "batch_norm": (norm(), (x, scale, shift)),
        "batch_norm per step": (norm(per_step=True), (x, scale, shift)),
        "batch_norm in evaluation": (norm(running=(shift, scale)), (x, scale, shift)),
        "avg_pool": (lambda x: avg_pool(x, 2), (x,)),
        "linear": (linear, (x, matrix, bias)),
    }
    for name, (layer, arguments) in calls.items():
        assert layer(*arguments).dtype == onp.float32, f"{name}: the output left float32"
        for i in range(len(arguments)):
            slope = grad(lambda *a: np.sum(layer(*a)), i)(*arguments)
            assert slope.dtype == onp.float32, f"{name}: gradient {i} left float32"
    running = update_running((shift, scale), batch_norm(x, scale, shift)[1])
    dtypes = [r.dtype for r in running]
    assert dtypes == [onp.float32] * 2, "the running statistics left float32"


def test_inputs_are_left_as_they_were(norm):
    x, scale, shift = norm
    before = x.copy()
    grad(lambda x: np.sum(avg_pool(relu(batch_norm(x, scale, shift)[0]), 2)))(x)
    grad(lambda x: np.sum(conv2d(x, onp.ones((3, 3, 4, 2)))))(x)
    assert (x == before).all(), "a layer changed its input in place"


X = onp.zeros((2, 6, 6, 4))


@pytest.mark.parametrize("call, message", [
    (
        lambda: conv2d(X, onp.zeros((2, 2, 4, 3))),
        r"weights \(k, k, C, K\) with odd k, got shape \(2, 2, 4, 3\)",
    ),
    (lambda: conv2d(X, onp.zeros((3, 3, 5, 3))), r"images \(..., H, W, 5\)"),
    (lambda: conv2d(X, onp.zeros((3, 3, 4, 3)), 0), "stride >= 1, got 0"),
    (
        lambda: batch_norm(X[:1], onp.ones(4), onp.zeros(4)),
        "at least 2 images.* got 1; a batch of one",
    ),
    (
        lambda: batch_norm(X[:, None], onp.ones(4), onp.zeros(4), per_step=True),
        "got 1; a batch of one",
    ),
    (
        lambda: batch_norm(X, onp.ones(3), onp.zeros(3)),
        r"H, W, 3\) to normalise, got shape \(2, 6, 6, 4\)",
    ),
    (lambda: avg_pool(X, 7), "at least size x size pixels, .*size 7"),
    (lambda: avg_pool(X, 0), "size 0"),
    (lambda: avg_pool(X[:, :4], 5), "size 5"),
    (lambda: conv2d(X, onp.zeros((3, 5, 4, 3))), r"odd k, got shape \(3, 5, 4, 3\)"),
    (lambda: avg_pool(X[:, :, :4], 5), "size 5"),
    (lambda: conv2d(X[0, 0], onp.zeros((3, 3, 4, 3))), r"images \(..., H, W, 4\)"),
    (
        lambda: linear(X, onp.zeros((5, 3)), onp.zeros(3)),
        r"\(D, K\) and b \(K,\), got shapes \(2, 6, 6, 4\), \(5, 3\)",
    ),
    (lambda: linear(X, onp.zeros((4, 3)), onp.zeros(4)), r"b \(K,\)"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_layers_take_a_single_image_or_row(rng):
    """No leading axes at all."""
    x, w = rng.normal(size=(6, 5, 2)), rng.normal(size=(3, 3, 2, 4))
    assert relative_error(conv2d(x, w), conv2d(x[None], w)[0]) < 1e-12, "one image by itself"
    assert (avg_pool(x, 2) == avg_pool(x[None], 2)[0]).all(), "one image by itself"
    row, matrix, bias = rng.normal(size=5), rng.normal(size=(5, 3)), rng.normal(size=3)
    assert relative_error(linear(row, matrix, bias), row @ matrix + bias) < 1e-12, "one row"
