"""The code that ours is measured against, all of it here: what a user would pick instead."""

import itertools

import torch
from torch.nn import functional


# ---- events


def to_frame(sensor_size, T):
    """tonic's transform to T frames of equal duration: events -> (T, 2, H, W) int16."""
    from tonic.transforms import ToFrame

    H, W = sensor_size
    return ToFrame(sensor_size=(W, H, 2), n_time_bins=T)


def interpolate(frames, size):
    """torch's bilinear resize, corners aligned, of planes first or of planes last in memory: (N, C, H, W)."""
    return functional.interpolate(frames, (size, size), mode="bilinear", align_corners=True)


def planes_first(frames):
    """Frames (..., H, W, C) as torch's usual tensor (N, C, H, W): each plane in one piece."""
    return planes_last(frames).contiguous()


def planes_last(frames):
    """Frames (..., H, W, C) as torch's `channels_last` tensor (N, C, H, W): our memory, not copied."""
    return torch.from_numpy(frames.reshape(-1, *frames.shape[-3:])).permute(0, 3, 1, 2)


# ---- camera


def film(frames, times_us, threshold):
    """eventify-dvs's events of frames (grey, 0 ... 255), two by two: it keeps no level from one pair to the next."""
    from eventify import frame_to_event_tuples

    pairs = zip(itertools.pairwise(frames), itertools.pairwise(times_us))
    return [frame_to_event_tuples(*pair, *times, c_thresh=threshold) for pair, times in pairs]
