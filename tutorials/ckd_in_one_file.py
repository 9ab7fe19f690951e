"""Cross Knowledge Distillation between Artificial and Spiking Neural Networks, on one page.

Event recordings are scarce, photos plentiful. CKD trains a spiking network on both: photos pass
through the same weights as events (Eqs. 5-8), and a teacher trained on photos helps (Eqs. 9-11).
Only events are tested. Axes: time T first, batch B, rows H, columns W, channels C last; K classes.
    python ckd_in_one_file.py DATA.h5 --method ckd    (or transfer: no teacher; snn: events alone)
"""

import argparse
import math

import autograd.numpy as np
from autograd import grad_and_aux
from autograd.extend import defvjp, primitive
from autograd.tracer import getval
from numpy.lib.stride_tricks import sliding_window_view

# Channels and pooling of each convolution. Paper: 64, 128, 256, 256, 4 x 512, every second pools.
LAYERS = ((8, 2), (16, 2), (32, 2), (64, 2))
# ---- Input: events and photographs become frames (T, B, H, W, 2) ---------------------------------
EVENT_DTYPE = np.dtype([("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "u1")])             # Eq. (4)

def bin_events(events, T, sensor_size, window=None, rule="conserving"):
    """Count events per time window, pixel and polarity (0 = OFF, 1 = ON): (T, H, W, 2)."""
    if rule != "conserving": raise NotImplementedError(f"only the conserving rule, not {rule!r}")
    first, last = (int(t) for t in (events["t"][[0, -1]] if window is None else window))
    events = events[(first <= events["t"]) & (events["t"] <= last)]
    edges = [first - (-k * max(last - first, 1) // T) for k in range(1, T)]  # rounded up
    step = np.searchsorted(edges, events["t"], side="right")
    shape = (T, *sensor_size, 2)
    place = np.ravel_multi_index((step, events["y"], events["x"], events["p"]), shape)
    return np.bincount(place, minlength=math.prod(shape)).reshape(shape).astype(np.float32)

def resize_frames(frames, size):
    """Bilinear, corners aligned: (..., H, W, C) to (..., size, size, C)."""
    def weights(n):                                  # (size, n)
        return np.maximum(0, 1 - np.abs(np.linspace(0, n - 1, size)[:, None] - np.arange(n)))
    rows, columns = (weights(n).astype(frames.dtype) for n in frames.shape[-3:-1])
    return np.einsum("ih,...hwc,jw->...ijc", rows, frames, columns, optimize=True)

def value_frames(rgb, T):
    """V of HSV for both polarities and all T steps: (B, H, W, 3) to (T, B, H, W, 2)."""
    return np.tile(rgb.max(-1)[None, ..., None], (T, 1, 1, 1, 2))

# ---- The leaky integrate-and-fire neuron ---------------------------------------------------------
@primitive
def spike(v, surrogate="triangle", width=1.0):
    """A neuron fires strictly above its threshold; v = u - v_th."""
    if surrogate != "triangle": raise ValueError(f"only the triangle, not {surrogate!r}")
    return (v > 0).astype(v.dtype)                                                       # Eq. (2)

defvjp(spike, lambda s, v, surrogate="triangle", width=1.0:  # H' is 0 almost everywhere: a triangle
       lambda g: g * np.maximum(width - np.abs(v), 0) / width**2, argnums=[0])

def lif(current, tau=0.5, v_th=1.0, surrogate="triangle", width=1.0, detach_reset=True):
    """Currents (T, ...) to spikes and potentials before the reset, both (T, ...)."""
    u, s, steps = 0.0, 0.0, []
    for I in np.split(current, len(current)):        # (1, ...)
        u = tau * u * (1 - s) + I                                                  # Eqs. (1), (3)
        s = spike(u - v_th, surrogate, width)
        steps.append((s, u))
        s = getval(s) if detach_reset else s
    return tuple(np.concatenate(each) for each in zip(*steps))

# ---- The network: convolution, batch norm, neurons and pooling; a linear head for each stream ----
def windows(x, k):
    """The k x k pixels around each pixel, 0 outside: (T, B, H, W, C) to (T, B, H, W, C, k, k)."""
    padded = np.pad(x, [(0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)])
    return sliding_window_view(padded, (k, k), axis=(2, 3))

@primitive
def conv2d(x, w):
    """Images (T, B, H, W, C) and filters (k, k, C, K) to (T, B, H, W, K); no bias."""
    return np.einsum("tbhwcij,ijck->tbhwk", windows(x, len(w)), w, optimize=True)
# The gradient of a convolution is a convolution, with the filter turned by 180 degrees.
defvjp(conv2d, lambda y, x, w: lambda g: conv2d(g, np.swapaxes(w[::-1, ::-1], 2, 3)),
       lambda y, x, w: lambda g: np.einsum("tbhwcij,tbhwk->ijck", windows(x, len(w)), g,
                                           optimize=True))

def batch_norm(x, scale, shift, running=None):
    """Normalise over time and batch, or by running statistics; return the statistics as well."""
    if running is None:
        x64 = x.astype(np.float64)                   # small errors of the mean would flip spikes
        running = np.mean(x64, (0, 1, 2, 3)), np.var(x64, (0, 1, 2, 3))
    mean, var = running
    slope = scale / np.sqrt(var + 1e-5)
    y = x * slope.astype(x.dtype) + (shift - mean * slope).astype(x.dtype)
    return y, np.stack([getval(mean), getval(var)])  # (2, C)

def avg_pool(x, size):
    """Mean of size x size tiles: (..., H, W, C) to (..., H / size, W / size, C)."""
    *leading, H, W, C = x.shape
    tiles = np.reshape(x, (*leading, H // size, size, W // size, size, C))
    return np.sum(tiles, axis=(-4, -2)) * (1 / size**2)

def network(params, x, neurons, head, running=None):
    """(T, B, H, W, C) to logits (T, B, K), features of the last neurons, batch statistics."""
    statistics = []
    for layer, (_, pool) in enumerate(LAYERS):
        w, scale, shift = (params[f"conv{layer}/{name}"] for name in ("w", "scale", "shift"))
        x, moments = batch_norm(conv2d(x, w), scale, shift, running and running[layer])
        statistics.append(moments)
        s, u = neurons(x)
        x = avg_pool(s, pool)
    features = u * (1 - getval(s))                   # after the reset, which is a constant backward
    x = np.reshape(x, (*x.shape[:2], -1))            # (T, B, D)
    return x @ params[f"{head}/w"] + params[f"{head}/b"], features, statistics

def init(rng, channels, size, classes, heads):
    """Random parameters by name: uniform within 1 / sqrt(number of inputs)."""
    def uniform(inputs, *shape):
        return (rng.uniform(-1, 1, shape) / inputs**0.5).astype(np.float32)
    params = {}
    for layer, (K, pool) in enumerate(LAYERS):
        params[f"conv{layer}/w"] = uniform(9 * channels, 3, 3, channels, K)
        params[f"conv{layer}/scale"] = np.ones(K, np.float32)
        params[f"conv{layer}/shift"] = np.zeros(K, np.float32)
        channels, size = K, size // pool
    D = size**2 * channels
    for head in heads:
        params[f"{head}/w"], params[f"{head}/b"] = uniform(D, D, classes), uniform(D, classes)
    return params

# ---- The loss ------------------------------------------------------------------------------------
def mean(x, axis=None):                              # np.mean's gradient is float64 in autograd
    return np.sum(x, axis=axis) * (1 / (x.size if axis is None else x.shape[axis]))
def sigmoid(x):                                      # does not overflow
    return 0.5 * (1 + np.tanh(0.5 * x))
def log_softmax(z):                                  # nor does this, whatever is subtracted
    z = z - getval(z).max(-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))

def linear_cka(X, Y, debiased=False, eps=0.0):
    """Are B samples arranged alike in two spaces? X (..., B, D1), Y (..., B, D2) to [0, 1]."""
    if debiased: raise NotImplementedError("only the biased estimate")
    def gram(X):
        X = X - getval(X)[..., :1, :]                # equal samples become exactly 0
        X = X - np.sum(X, axis=-2, keepdims=True) * (1 / X.shape[-2])
        return X @ np.swapaxes(X, -1, -2)            # (..., B, B)
    K, L = gram(X), gram(Y)
    KL, KK, LL = (np.sum(product, axis=(-2, -1)) for product in (K * L, K * K, L * L))
    return KL / (np.sqrt(KK + (KK == 0)) * np.sqrt(LL + (LL == 0)) + eps)  # no root of 0: no NaN

def domain_alignment_loss(features_s, features_d, theta=None, eps=1e-7):
    """How differently the streams see the same pairs; features (T, B, ...), row b of one class."""
    X, Y = (np.reshape(F, (*F.shape[:2], -1)) for F in (features_s, features_d))  # (T, B, D)
    distance = 1 - linear_cka(X, Y, eps=eps)         # (T,)
    return mean(distance if theta is None else sigmoid(theta) * distance)          # Eqs. (5), (6)

def cross_entropy(logits, labels):
    """Logits (..., B, K) and labels (B,) to (..., B)."""
    one_hot = np.eye(logits.shape[-1], dtype=logits.dtype)[labels]
    return -np.sum(one_hot * log_softmax(logits), axis=-1)

def tet_loss(logits, labels, lam=1e-3, target=1.0, weights=None):
    """Every time step of the logits (T, B, K) classifies on its own and stays near the target."""
    outliers = mean((logits - target)**2, axis=2)    # (T, B)
    steps = mean((1 - lam) * cross_entropy(logits, labels) + lam * outliers, axis=1)  # (T,)
    return mean(steps if weights is None else weights * steps)

def kd_loss(teacher_logits, student_logits, temperature=4.0):
    """KL divergence of softened (B, K) logits; the square and the mean follow Hinton et al."""
    log_p, log_q = (log_softmax(z / temperature) for z in (teacher_logits, student_logits))
    return temperature**2 * mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))        # Eq. (9)

def ckd_loss(static_logits, event_logits, features_s, features_d, labels, theta,
             teacher_logits=None, gamma=0.0, alpha=1.0, beta=1.0, temperature=4.0,
             lam=1e-3, target=1.0, reading="paper"):
    """The loss of both streams, and its parts for the log."""
    weights = {"paper": None, "baseline": 1 - sigmoid(theta)}[reading]
    cls_s = tet_loss(static_logits, labels, lam, target)
    cls_e = tet_loss(event_logits, labels, lam, target, weights)
    da = domain_alignment_loss(features_s, features_d, theta)
    if reading == "paper":                           # L_cls-e enters twice, as printed
        da = da + mean(1 - sigmoid(theta)) * cls_e                                       # Eq. (6)
    parts = {"cls_s": cls_s, "da": da, "cls_e": cls_e}
    if teacher_logits is not None:
        parts["kd"] = kd_loss(teacher_logits, mean(static_logits, axis=0), temperature)
    L_S = alpha * cls_s + beta * da + float(gamma) * parts.get("kd", 0.0)         # Eqs. (7), (11)
    return L_S + cls_e, {name: float(getval(part)) for name, part in parts.items()}

# ---- Training ------------------------------------------------------------------------------------
def replacement_probability(batch, epoch, batches_per_epoch, epochs, power=3):
    """The chance that an event sample replaces a static one: from 0 to 1."""
    progress = (batch + epoch * batches_per_epoch) / (batches_per_epoch * epochs)
    return min(max(progress, 0.0), 1.0)**power                                           # Eq. (8)

def phase_weight(epoch, threshold, slope):
    """gamma = 1 - 1 / (1 + exp(-slope (epoch - threshold))), the weight of the distillation."""
    return sigmoid(-slope * (epoch - threshold))                                        # Eq. (10)

def learning_rate(epoch, epochs, peak, warmup_epochs=5, floor=1e-5, warmup_start=1e-6):
    """Linear warm-up, then half a cosine down to the floor."""
    if epoch < warmup_epochs:
        return warmup_start + epoch * (peak - warmup_start) / warmup_epochs
    return floor + (peak - floor) * (1 + math.cos(math.pi * min(epoch / epochs, 1))) / 2

def adamw(params, grads, moments, step, rate, decay=0.01, betas=(0.9, 0.999), eps=1e-8):
    """One step, counted from 1; vectors (batch norm, biases, theta) do not decay."""
    new_params, new_moments = {}, {}
    for name, p in params.items():
        g, (m, v) = grads[name], moments.get(name, (0.0, 0.0))
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        root = np.sqrt(v / (1 - betas[1]**step)) + eps
        shrink = 1 - rate * decay if p.ndim >= 2 else 1
        new_params[name] = shrink * p - rate / (1 - betas[0]**step) * m / root
        new_moments[name] = m, v
    return new_params, new_moments

def minimise(loss, draw, params, epochs, batches, rate):
    """Yield every epoch's number, parameters, running statistics and mean parts of the loss."""
    moments, running = {}, None
    for epoch in range(epochs):
        log, now = [], learning_rate(epoch, epochs, rate, warmup_epochs=2)
        for batch in range(batches):
            grads, (parts, new) = grad_and_aux(loss)(params, *draw(epoch, batch))
            params, moments = adamw(params, grads, moments, epoch * batches + batch + 1, now)
            running = [0.9 * r + 0.1 * n for r, n in zip(running or new, new)]
            log.append(parts)
        yield epoch, params, running, {k: np.mean([parts[k] for parts in log]) for k in parts}

def evaluate(params, x, neurons, head, running, batch=40):
    """Logits (T, B, K) by the running statistics."""
    pieces = (x[:, i:i + batch] for i in range(0, x.shape[1], batch))
    return np.concatenate([network(params, p, neurons, head, running)[0] for p in pieces], axis=1)

def student_loss(params, method, events, static, labels, teacher_logits, gamma, reading):
    """The loss of a batch; beside it, its parts and the statistics of the events."""
    event_logits, features_d, statistics = network(params, events, lif, "event")
    if method == "snn":
        loss = tet_loss(event_logits, labels)
        return loss, ({"cls_e": float(getval(loss))}, statistics)
    static_logits, features_s, _ = network(params, static, lif, "static")
    loss, parts = ckd_loss(static_logits, event_logits, features_s, features_d, labels,
                           params["theta"], teacher_logits, gamma, reading=reading)
    return loss, (parts, statistics)

def train_teacher(data, rng, epochs=8, batch=32, rate=5e-3):
    """Train an ordinary network of the same layers on photographs; its logits for all, (M, K)."""
    relu = lambda x: (x * (getval(x) > 0), x)
    def loss(params, j):
        logits, _, statistics = network(params, data["images"][None, j], relu, "teacher")
        return mean(cross_entropy(logits, data["images/label"][j])), ({}, statistics)
    draw = lambda epoch, index: [rng.choice(pool, batch)]
    pool = np.flatnonzero(data["images/split"] < 2)
    params = init(rng, 3, data["images"].shape[1], data["classes"], ["teacher"])
    *_, (_, params, running, _) = minimise(loss, draw, params, epochs, len(pool)//batch or 1, rate)
    return evaluate(params, data["images"][None], relu, "teacher", running)[0]

def train(data, method, reading="paper", epochs=20, batches=12, batch=20, rate=5e-3, seed=0):
    """Train the student, print a line per epoch, return the parameters."""
    def choose(labels, split, wanted):
        return [rng.choice(np.flatnonzero((labels == y) & split)) for y in wanted]
    def draw(epoch, index):
        y = rng.integers(classes, size=batch)
        i = choose(data["events/label"], data["events/split"] == 0, y)
        j = choose(data["images/label"], data["images/split"] == 1, y)
        events, static = data["frames"][:, i], value_frames(data["images"][j], T)
        replaced = rng.random(batch) < replacement_probability(index, epoch, batches, epochs)
        hybrid = np.where(replaced[:, None, None, None], events, static)
        gamma = phase_weight(epoch, threshold=0.75 * epochs - 0.5, slope=100)
        return method, events, hybrid, y, teacher[j] if method == "ckd" else None, gamma, reading
    rng = np.random.default_rng(seed)
    T, _, size, classes = *data["frames"].shape[:3], data["classes"]
    teacher = train_teacher(data, rng) if method == "ckd" else None
    params = init(rng, 2, size, classes, ["static", "event"]) | {"theta": np.ones(T, np.float32)}
    test = data["events/split"] == 1
    for epoch, params, state, parts in minimise(student_loss, draw, params, epochs, batches, rate):
        logits = evaluate(params, data["frames"][:, test], lif, "event", state)
        accuracy = np.mean(logits.sum(0).argmax(-1) == data["events/label"][test])
        losses = " ".join(f"{name} {value:.4f}" for name, value in parts.items())
        print(f"epoch {epoch + 1:2}  {losses}  accuracy {accuracy:.3f}", flush=True)
    return params

def load(path, T, size):
    """Columns, frames and images of a file in the layout of `ckd_ref.data`."""
    import h5py
    with h5py.File(path) as file:
        data = {f"{group}/{column}": file[f"{group}/{column}"][:]
                for group in ("events", "images") for column in ("label", "split")}
        data["classes"] = len(file["classes"])
        data["images"] = resize_frames(file["images/pixels"][:] / np.float32(255), size)
        events = np.empty(len(file["events/t"]), EVENT_DTYPE)
        for name in EVENT_DTYPE.names:
            events[name] = file[f"events/{name}"][:]
        recordings = np.split(events, file["events/offsets"][1:-1])
        frames = [bin_events(recording, T, file.attrs["sensor_size"]) for recording in recordings]
        data["frames"] = np.stack([resize_frames(f, size) for f in frames], axis=1)
    return data

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--method", default="ckd", choices=["snn", "transfer", "ckd"])
    parser.add_argument("--reading", default="paper", choices=["paper", "baseline"])
    for name, default in (("T", 6), ("size", 48), ("epochs", 20), ("batches", 12), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = vars(parser.parse_args())
    train(load(args.pop("data"), args.pop("T"), args.pop("size")), **args)
