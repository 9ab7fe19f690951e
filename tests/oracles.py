"""Slow, obvious versions of what the package computes: plain loops that import nothing from it."""

import math

import numpy as np


def threshold_crossings(levels, times_us, thresholds, refractory_us):
    """Events (t, pixel, on) of an event camera's pixels, one pixel and one time step after the other."""
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
            if abs(level - reference) <= threshold:             # nothing missed: wait for the crossing
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
