"""Slow, obvious versions of what the package computes: plain loops that import nothing from it."""

import math

import numpy as np


def threshold_crossings(levels, times_us, thresholds, refractory_us):
    """Events (t, pixel, on) of an event camera: one pixel and time step after the other."""
    events = []
    for pixel in range(len(levels[0])):
        reference, threshold, sees_from = levels[0][pixel], thresholds[pixel], 0
        for k in range(len(times_us) - 1):
            start, end = int(times_us[k]), int(times_us[k + 1])
            first, last = levels[k][pixel], levels[k + 1][pixel]
            if sees_from > end:
                continue
            t = max(sees_from, start)
            level = first + (t - start) / (end - start) * (last - first)
            # Nothing was missed: wait for the crossing.
            if abs(level - reference) <= threshold:
                if abs(last - reference) <= threshold:
                    continue
                level = reference + threshold if last > reference else reference - threshold
                t = start + math.ceil((level - first) / (last - first) * (end - start))
            events.append((t, pixel, bool(level > reference)))
            reference, sees_from = level, t + refractory_us
    return sorted(events)


def decode_bin(content):
    """Events (t, x, y, p) of the 40-bit format, bit by bit."""
    rows = []
    for i in range(0, len(content), 5):
        bits = "".join(f"{byte:08b}" for byte in content[i:i + 5])
        rows.append((int(bits[17:], 2), int(bits[:8], 2), int(bits[8:16], 2), int(bits[16])))
    return rows


def shifted_crop(sample, down, right):
    """A frame (H, W, C) whose pixel (i, j) is the old one at (i + down, j + right), 0 outside."""
    H, W, C = sample.shape
    result = np.zeros_like(sample)
    for i in range(H):
        for j in range(W):
            if 0 <= i + down < H and 0 <= j + right < W:
                for c in range(C):
                    result[i, j, c] = sample[i + down, j + right, c]
    return result


def replace_rows(static, events, mask):
    """The hybrid stream, number by number."""
    hybrid = static.copy()
    for index in np.ndindex(static.shape):
        if mask[index[1]]:
            hybrid[index] = events[index]
    return hybrid


def lif(current, tau, v_th):
    """Spikes and potentials of leaky integrate-and-fire neurons (T, N), neuron by neuron."""
    spikes, potentials = np.zeros_like(current), np.zeros_like(current)
    for n in range(current.shape[1]):
        u = 0.0
        for t in range(current.shape[0]):
            u = tau * u + current[t, n]
            potentials[t, n] = u
            if u > v_th:
                spikes[t, n] = 1
                u = 0.0
    return spikes, potentials


def bin_events(rows, T, H, W):
    """Frames (T, H, W, 2) of events (t, x, y, p); each one's window is searched from the first."""
    frames = np.zeros((T, H, W, 2))
    first, duration = rows[0][0], rows[-1][0] - rows[0][0]
    for t, x, y, p in rows:
        k = 0
        while k < T - 1 and (t - first) * T >= (k + 1) * duration and duration > 0:
            k += 1
        frames[k, y, x, p] += 1
    return frames


def centred_gram(X):
    """Similarity <x_i, x_j> of every pair of rows, then row, column and total means removed."""
    n = len(X)
    K = [[sum(a * b for a, b in zip(X[i], X[j])) for j in range(n)] for i in range(n)]
    rows = [sum(K[i]) / n for i in range(n)]
    columns = [sum(K[i][j] for i in range(n)) / n for j in range(n)]
    total = sum(rows) / n
    return [[K[i][j] - rows[i] - columns[j] + total for j in range(n)] for i in range(n)]


def cka_by_gram(X, Y):
    """Linear CKA, pair of samples by pair of samples."""
    K, L = centred_gram(X.tolist()), centred_gram(Y.tolist())

    def inner(A, B):
        return sum(a * b for row_a, row_b in zip(A, B) for a, b in zip(row_a, row_b))
    return inner(K, L) / math.sqrt(inner(K, K) * inner(L, L))


def cka_by_features(X, Y):
    """Linear CKA by the second route: covariances of every pair of features."""
    def squares(A, B):
        total = 0.0
        for a in A.T:
            for b in B.T:
                total += sum((p - a.mean()) * (q - b.mean()) for p, q in zip(a, b)) ** 2
        return total
    return squares(X, Y) / math.sqrt(squares(X, X) * squares(Y, Y))


def hsic_unbiased(X, Y):
    """The U-statistic of HSIC as Song et al. (2012) print it; Gram matrices without diagonals."""
    n = len(X)
    K, L = X @ X.T, Y @ Y.T
    for i in range(n):
        K[i, i] = L[i, i] = 0
    one = np.ones(n)
    value = np.trace(K @ L) + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    value -= 2 * (one @ K @ L @ one) / (n - 2)
    return value / (n * (n - 3))


def cross_entropy(logits, label):
    """-log softmax of one row at its label."""
    return math.log(sum(math.exp(z - max(logits)) for z in logits)) + max(logits) - logits[label]


def tet(logits, labels, lam, target, weights=None):
    """Mean over the steps of what each is worth, sample by sample and output by output."""
    T, B, K = logits.shape
    total = 0.0
    for t in range(T):
        step = 0.0
        for b in range(B):
            step += (1 - lam) * cross_entropy(logits[t, b].tolist(), labels[b])
            step += lam * sum((z - target) ** 2 for z in logits[t, b]) / K
        total += step / B * (1 if weights is None else weights[t])
    return total / T


def kl(teacher, student, temperature):
    """Divergence of two rows of logits, class by class."""
    p, q = ([math.exp((z - max(row)) / temperature) for z in row] for row in (teacher, student))
    return sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q))


def conv2d(x, w, stride):
    """Images (N, H, W, C), weights (k, k, C, K), zero padding k // 2: every product by itself."""
    N, H, W, C = x.shape
    k, K = w.shape[0], w.shape[3]
    y = np.zeros((N, math.ceil(H / stride), math.ceil(W / stride), K))
    for n, i, j, c in np.ndindex(y.shape):
        for a, b in np.ndindex(k, k):
            row, column = i * stride + a - k // 2, j * stride + b - k // 2
            if 0 <= row < H and 0 <= column < W:
                for d in range(C):
                    y[n, i, j, c] += x[n, row, column, d] * w[a, b, d, c]
    return y


def batch_norm(x, scale, shift, eps):
    """Normalised x (N, H, W, C), with the mean and the unbiased variance of every channel."""
    y, means, variances = np.zeros_like(x), [], []
    for c in range(x.shape[-1]):
        values = x[..., c].ravel().tolist()
        mean = math.fsum(values) / len(values)
        spread = math.fsum((v - mean) ** 2 for v in values)
        std = math.sqrt(spread / len(values) + eps)
        normalised = [scale[c] * (v - mean) / std + shift[c] for v in values]
        y[..., c] = np.reshape(normalised, x.shape[:-1])
        means.append(mean)
        variances.append(spread / (len(values) - 1))
    return y, np.array(means), np.array(variances)


def avg_pool(x, size):
    """Mean of every window of images (N, H, W, C), pixel by pixel."""
    N, H, W, C = x.shape
    y = np.zeros((N, H // size, W // size, C))
    for n, i, j, c in np.ndindex(y.shape):
        for a, b in np.ndindex(size, size):
            y[n, i, j, c] += x[n, i * size + a, j * size + b, c] / size**2
    return y
