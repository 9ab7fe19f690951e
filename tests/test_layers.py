"""The layers and their hand-written vector-Jacobian products. Golden arrays are channel-first."""

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from autograd import grad
from autograd.test_util import check_grads
from conftest import golden_keys, relative_error
from scipy.signal import correlate2d

import ckd_ref.nn.layers
from ckd_ref.nn.layers import avg_pool, batch_norm, conv2d, linear, relu, update_running


def channel_last(images):
    return onp.moveaxis(images, 1, -1)


def channel_first(images):
    return onp.moveaxis(images, -1, 1)


# Convolution

@pytest.mark.parametrize("key", golden_keys("conv2d"))
def test_conv2d_golden(golden, key):
    case = golden["conv2d"][key]
    x, upstream = channel_last(case["x"][:]), channel_last(case["w"][:])
    w, stride = case["weight"][:].transpose(2, 3, 1, 0), int(case.attrs["stride"])
    assert case.attrs["padding"] == w.shape[0] // 2
    bias = case["bias"][:] if "bias" in case else 0.0

    def scalar(x, w):
        return np.sum(upstream * (conv2d(x, w, stride) + bias))
    assert relative_error(channel_first(conv2d(x, w, stride) + bias), case["y"][:]) < 1e-9
    assert relative_error(channel_first(grad(scalar)(x, w)), case["grad_x"][:]) < 1e-9
    assert relative_error(grad(scalar, 1)(x, w).transpose(3, 2, 0, 1), case["grad_weight"][:]) < 1e-9


@pytest.mark.parametrize("k, stride", [(1, 1), (3, 1), (5, 1), (1, 2), (3, 2), (3, 3)])
def test_conv2d_equals_the_loop_and_scipy(rng, k, stride):
    x, w = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(k, k, 3, 4))
    y = conv2d(x, w, stride)
    assert relative_error(y, oracles.conv2d(x, w, stride)) < 1e-12
    for c in range(4):
        planes = sum(correlate2d(x[0, ..., d], w[..., d, c], mode="same") for d in range(3))
        assert relative_error(y[0, ..., c], planes[::stride, ::stride]) < 1e-12


def test_conv2d_is_no_convolution():
    """A wrong version: the kernel is not flipped. A weight above the centre looks up."""
    x, w = onp.zeros((1, 3, 3, 1)), onp.zeros((3, 3, 1, 1))
    x[0, 0, 1], w[0, 1] = 1, 1
    assert conv2d(x, w)[0, 1, 1, 0] == 1 and conv2d(x, w[::-1])[0, 1, 1, 0] == 0


@pytest.mark.parametrize("k, stride", [(1, 2), (3, 1), (3, 2), (5, 3)])
def test_conv2d_gradient(rng, k, stride):
    check_grads(lambda x, w: conv2d(x, w, stride), modes=["rev"], order=1)(
        rng.normal(size=(2, 5, 6, 2)), rng.normal(size=(k, k, 2, 3)))


def test_conv2d_does_not_depend_on_its_blocks(rng, monkeypatch):
    x, w = rng.normal(size=(3, 4, 6, 6, 2)), rng.normal(size=(3, 3, 2, 3))

    def run():
        return conv2d(x, w), grad(lambda w: np.sum(conv2d(x, w) ** 2))(w), grad(lambda x: np.sum(conv2d(x, w) ** 2))(x)
    whole = run()
    monkeypatch.setattr(ckd_ref.nn.layers, "BLOCK_BYTES", 1)
    for once, image_by_image in zip(whole, run()):
        assert relative_error(image_by_image, once) < 1e-12


# Batch normalisation

RUNNING = onp.zeros(4), onp.ones(4)


def test_batch_norm_golden(golden):
    """Two training calls, then evaluation with the statistics they left."""
    g, running = golden["batchnorm2d"], RUNNING
    scale, shift = g["weight"][:], g["bias"][:]
    for key in ("train0", "train1", "eval"):
        case, training = g[key], key != "eval"
        x, upstream = channel_last(case["x"][:]), channel_last(case["w"][:])

        def scalar(x, scale, shift):
            return np.sum(upstream * batch_norm(x, scale, shift, None if training else running)[0])
        y, statistics = batch_norm(x, scale, shift, None if training else running)
        running = update_running(running, statistics) if training else running
        assert relative_error(channel_first(y), case["y"][:]) < 1e-9
        assert relative_error(running[0], case["running_mean"][:]) < 1e-9
        assert relative_error(running[1], case["running_var"][:]) < 1e-9
        assert relative_error(channel_first(grad(scalar)(x, scale, shift)), case["grad_x"][:]) < 1e-9
        assert relative_error(grad(scalar, 1)(x, scale, shift), case["grad_weight"][:]) < 1e-9
        assert relative_error(grad(scalar, 2)(x, scale, shift), case["grad_bias"][:]) < 1e-9


@pytest.fixture
def norm(rng):
    """x (T, B, H, W, C), scale and shift."""
    return rng.normal(size=(3, 2, 4, 5, 4)) * [1, 2, 3, 4] + [0, 5, -5, 1], rng.normal(size=4), rng.normal(size=4)


def test_batch_norm_equals_the_loop(norm):
    x, scale, shift = norm
    y, (mean, var) = batch_norm(x, scale, shift)
    reference, means, variances = oracles.batch_norm(x.reshape(6, 4, 5, 4), scale, shift, 1e-5)
    assert relative_error(y.reshape(reference.shape), reference) < 1e-12
    assert mean.shape == var.shape == (1, 4)
    assert relative_error(mean[0], means) < 1e-12 and relative_error(var[0], variances) < 1e-12


def test_batch_norm_per_step_is_one_call_per_step(norm):
    x, scale, shift = norm
    y, statistics = batch_norm(x, scale, shift, per_step=True)
    running = RUNNING
    for t in range(3):
        step, new = batch_norm(x[t], scale, shift)
        running = update_running(running, new)
        assert relative_error(y[t], step) < 1e-12
    after = update_running(RUNNING, statistics)
    assert relative_error(after[0], running[0]) < 1e-12 and relative_error(after[1], running[1]) < 1e-12
    assert relative_error(y, batch_norm(x, scale, shift)[0]) > 1e-3, "the two must differ"


def test_running_statistics_move_by_their_momentum():
    statistics = onp.array([[4.0], [8.0]]), onp.array([[1.0], [3.0]])
    mean, var = update_running((onp.array([2.0]), onp.array([5.0])), statistics, momentum=0.25)
    assert mean == 0.75 * (0.75 * 2 + 0.25 * 4) + 0.25 * 8 and var == 0.75 * (0.75 * 5 + 0.25 * 1) + 0.25 * 3


@pytest.mark.parametrize("options", [dict(), dict(per_step=True), dict(running=(onp.ones(4), onp.full(4, 2.0)))],
                         ids=["training", "per step", "evaluation"])
def test_batch_norm_gradient(norm, options):
    check_grads(lambda *a: batch_norm(*a, **options)[0], modes=["rev"], order=1)(*norm)


def test_batch_norm_output_has_the_statistics_asked_for(norm):
    x, scale, shift = norm
    y, _ = batch_norm(x, scale, shift)
    assert relative_error(y.mean((0, 1, 2, 3)), shift) < 1e-9
    assert relative_error(y.std((0, 1, 2, 3)), abs(scale)) < 1e-4


def test_batch_norm_evaluation_uses_the_running_statistics(norm):
    x, scale, shift = norm
    mean, var = onp.arange(4.0), onp.arange(1.0, 5.0)
    y, statistics = batch_norm(x[:, :1], scale, shift, (mean, var))
    assert statistics is None
    assert relative_error(y, (x[:, :1] - mean) / onp.sqrt(var + 1e-5) * scale + shift) < 1e-12


def test_batch_norm_accumulates_in_float64(rng):
    """Far from zero, plain float32 sums lose the statistics; a wrong version shows it."""
    x = (1000 + rng.normal(size=(16, 128, 128, 2))).astype(onp.float32)
    one, zero = onp.ones(2, onp.float32), onp.zeros(2, onp.float32)
    mean, var = update_running((zero, one), batch_norm(x, one, zero)[1], momentum=1.0)
    exact = x.astype(float).reshape(-1, 2)
    assert mean.dtype == var.dtype == onp.float32
    assert relative_error(mean, exact.mean(0)) < 1e-7 and relative_error(var, exact.var(0, ddof=1)) < 1e-6
    assert relative_error(x.reshape(-1, 2).mean(0), exact.mean(0)) > 1e-7
    naive = (x.reshape(-1, 2) ** 2).mean(0) - x.reshape(-1, 2).mean(0) ** 2
    assert relative_error(naive, exact.var(0)) > 1e-3


# Pooling, rectifier, linear map

@pytest.mark.parametrize("key", golden_keys("avgpool"))
def test_avg_pool_golden(golden, key):
    case = golden["avgpool"][key]
    x, upstream = channel_last(case["x"][:]), channel_last(case["avg2_w"][:])
    assert relative_error(channel_first(avg_pool(x, 2)), case["avg2_y"][:]) < 1e-9
    slope = grad(lambda x: np.sum(upstream * avg_pool(x, 2)))(x)
    assert relative_error(channel_first(slope), case["avg2_grad_x"][:]) < 1e-9


@pytest.mark.parametrize("size", [1, 2, 3])
def test_avg_pool_equals_reshaped_means_and_leaves_the_rest_out(rng, size):
    x = rng.normal(size=(2, 3, 7, 6, 2))
    H, W = 7 // size, 6 // size
    reference = x[:, :, :H * size, :W * size].reshape(2, 3, H, size, W, size, 2).mean((3, 5))
    assert relative_error(avg_pool(x, size), reference) < 1e-12
    check_grads(lambda x: avg_pool(x, size), modes=["rev"], order=1)(x)


def test_linear_golden(golden):
    g = golden["linear"]
    x, w, b = g["x"][:], g["weight"][:].T, g["bias"][:]

    def scalar(*a):
        return np.sum(g["w"][:] * linear(*a))
    assert relative_error(linear(x, w, b), g["y"][:]) < 1e-9
    assert relative_error(grad(scalar)(x, w, b), g["grad_x"][:]) < 1e-9
    assert relative_error(grad(scalar, 1)(x, w, b), g["grad_weight"][:].T) < 1e-9
    assert relative_error(grad(scalar, 2)(x, w, b), g["grad_bias"][:]) < 1e-9


def test_linear_treats_leading_axes_alike(rng):
    x, w, b = rng.normal(size=(3, 2, 5)), rng.normal(size=(5, 4)), rng.normal(size=4)
    assert relative_error(linear(x, w, b), onp.einsum("tbd,dk->tbk", x, w) + b) < 1e-12
    check_grads(linear, modes=["rev"], order=1)(x, w, b)


def test_relu_by_hand_and_gradient(rng):
    assert relu(onp.array([-1.0, 0, 2])).tolist() == [0, 0, 2]
    assert grad(lambda x: np.sum(relu(x)))(onp.array([-1.0, 0, 2])).tolist() == [0, 0, 1]
    check_grads(relu, modes=["rev"], order=1)(rng.normal(size=20))


# Precision and bad input

def test_float32_stays_float32(rng):
    x, w = rng.normal(size=(2, 3, 6, 6, 2)).astype(onp.float32), rng.normal(size=(3, 3, 2, 4)).astype(onp.float32)
    scale, shift = onp.ones(2, onp.float32), onp.zeros(2, onp.float32)
    matrix, bias = w[0, 0], onp.zeros(4, onp.float32)

    def norm(**options):
        return lambda x, scale, shift: batch_norm(x, scale, shift, **options)[0]
    for layer, arguments in (
        (lambda x, w: conv2d(x, w), (x, w)), (lambda x, w: conv2d(x, w, 2), (x, w)), (relu, (x,)),
        (norm(), (x, scale, shift)), (norm(per_step=True), (x, scale, shift)),
        (norm(running=(shift, scale)), (x, scale, shift)), (lambda x: avg_pool(x, 2), (x,)), (linear, (x, matrix, bias)),
    ):
        assert layer(*arguments).dtype == onp.float32
        for i in range(len(arguments)):
            assert grad(lambda *a: np.sum(layer(*a)), i)(*arguments).dtype == onp.float32
    statistics = batch_norm(x, scale, shift)[1]
    assert [r.dtype for r in update_running((shift, scale), statistics)] == [onp.float32] * 2


def test_inputs_are_left_as_they_were(norm):
    x, scale, shift = norm
    before = x.copy()
    grad(lambda x: np.sum(avg_pool(relu(batch_norm(x, scale, shift)[0]), 2)))(x)
    grad(lambda x: np.sum(conv2d(x, onp.ones((3, 3, 4, 2)))))(x)
    assert (x == before).all()


X = onp.zeros((2, 6, 6, 4))


@pytest.mark.parametrize("call, message", [
    (lambda: conv2d(X, onp.zeros((2, 2, 4, 3))), r"weights \(k, k, C, K\) with odd k, got shape \(2, 2, 4, 3\)"),
    (lambda: conv2d(X, onp.zeros((3, 3, 5, 3))), r"images \(..., H, W, 5\)"),
    (lambda: conv2d(X, onp.zeros((3, 3, 4, 3)), 0), "stride >= 1, got 0"),
    (lambda: batch_norm(X[:1], onp.ones(4), onp.zeros(4)), "at least 2 images.* got 1; a batch of one"),
    (lambda: batch_norm(X[:, None], onp.ones(4), onp.zeros(4), per_step=True), "got 1; a batch of one"),
    (lambda: batch_norm(X, onp.ones(3), onp.zeros(3)), r"H, W, 3\) to normalise, got shape \(2, 6, 6, 4\)"),
    (lambda: avg_pool(X, 7), "at least size x size pixels, .*size 7"),
    (lambda: avg_pool(X, 0), "size 0"),
    (lambda: linear(X, onp.zeros((5, 3)), onp.zeros(3)), r"\(D, K\) and b \(K,\), got shapes \(2, 6, 6, 4\), \(5, 3\)"),
    (lambda: linear(X, onp.zeros((4, 3)), onp.zeros(4)), r"b \(K,\)"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
