"""All the code that ours is compared with: what a user would choose instead."""

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
    """torch's bilinear resize, corners aligned, of (N, C, H, W) in either memory layout."""
    return functional.interpolate(frames, (size, size), mode="bilinear", align_corners=True)


def planes_first(frames):
    """Frames (..., H, W, C) as torch's default tensor (N, C, H, W), each plane contiguous."""
    return planes_last(frames).contiguous()


def planes_last(frames):
    """Frames (..., H, W, C) as torch's `channels_last` tensor (N, C, H, W), without a copy."""
    return torch.from_numpy(frames.reshape(-1, *frames.shape[-3:])).permute(0, 3, 1, 2)


# ---- camera


def film(frames, times_us, threshold):
    """eventify-dvs's events of frames (grey, 0 ... 255), one pair of frames at a time.

    It does not carry levels over from one pair to the next.
    """
    from eventify import frame_to_event_tuples

    pairs = zip(itertools.pairwise(frames), itertools.pairwise(times_us))
    return [frame_to_event_tuples(*pair, *times, c_thresh=threshold) for pair, times in pairs]


# ---- training


class Spike(torch.autograd.Function):
    """Heaviside's step of v = u - 1, with the triangle of width 1 as its surrogate."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0].abs()).relu_()


class Neurons(torch.autograd.Function):
    """A layer of LIF neurons over all steps, its derivative by hand.

    Maps currents to spikes and potentials after the reset.
    """

    @staticmethod
    def forward(ctx, currents):
        potentials, spikes, kept = (torch.empty_like(currents) for _ in range(3))
        last = torch.zeros_like(currents[0])
        for current, u, s, k in zip(currents, potentials, spikes, kept):
            torch.add(current, last, alpha=0.5, out=u)
            torch.gt(u, 1, out=s)
            last = torch.mul(u, u <= 1, out=k)
        ctx.save_for_backward(potentials)
        return spikes, kept

    @staticmethod
    def backward(ctx, g_spikes, g_kept):
        (potentials,) = ctx.saved_tensors
        grads, later = torch.empty_like(potentials), torch.zeros_like(potentials[0])
        for t in reversed(range(len(potentials))):
            u = potentials[t]
            direct = (1 - (u - 1).abs()).relu_().mul_(g_spikes[t])
            torch.addcmul(direct, later + g_kept[t], (u <= 1).to(u.dtype), out=grads[t])
            later = 0.5 * grads[t]
        return grads


def neurons_of_plain_operations(currents):
    kept, spikes = [torch.zeros_like(currents[0])], []
    for current in currents:
        u = 0.5 * kept[-1] + current
        spikes.append(Spike.apply(u - 1))
        kept.append(u * (1 - spikes[-1].detach()))
    return torch.stack(spikes), torch.stack(kept[1:])


class Variant(torch.nn.Module):
    """What all students have, behind layers of their own: two heads, and a way to compute.

    Parameters
    ----------
    variant : {"step", "multi", "best", "compiled"}
        The whole network once per time step, as BrainCog does; time and batch merged except in
        the neuron, as SpikingJelly does; the same with `Neurons` and channels last in memory;
        "multi" with torch.compile.
    """

    def finish(self, variant, features, classes):
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(features, classes) for name in ("static", "event")}
        )
        self.variant, best = variant, variant == "best"
        self.layout = torch.channels_last if best else torch.contiguous_format
        self.neurons = Neurons.apply if best else neurons_of_plain_operations
        if best:
            self.to(memory_format=torch.channels_last)
        self.stream = self.by_step if variant == "step" else self.layer_by_layer
        if variant == "compiled":
            self.stream = torch.compile(self.layer_by_layer)


class Student(Variant):
    """VGGSNN as PyTorch's users write it.

    Parameters
    ----------
    variant
        See `Variant`.
    stages : tuple of tuples of int
        Channels of the convolutions, each stage followed by pooling.
    """

    def __init__(self, variant, stages, classes, size=48):
        super().__init__()
        channels = [2, *itertools.chain(*stages)]
        pairs = list(itertools.pairwise(channels))
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv2d(*pair, 3, padding=1, bias=False) for pair in pairs
        )
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(K) for _, K in pairs)
        self.pooled = [layer == len(stage) - 1 for stage in stages for layer in range(len(stage))]
        features = channels[-1] * (size // 2 ** len(stages)) ** 2
        self.finish(variant, features, classes)

    def layers(self):
        return zip(self.convolutions, self.norms, self.pooled)

    def by_step(self, frames, head):
        kept, features, logits = [0.0] * len(self.norms), [], []
        for x in frames:
            for i, (convolution, norm, pooled) in enumerate(self.layers()):
                u = 0.5 * kept[i] + norm(convolution(x))
                x = Spike.apply(u - 1)
                kept[i] = u * (1 - x.detach())
                x = functional.avg_pool2d(x, 2) if pooled else x
            features.append(kept[-1])
            logits.append(self.heads[head](x.flatten(1)))
        return torch.stack(logits), torch.stack(features)

    def layer_by_layer(self, frames, head):
        x = frames.flatten(0, 1)
        for convolution, norm, pooled in self.layers():
            x = norm(convolution(x.contiguous(memory_format=self.layout)))
            spikes, kept = self.neurons(x.unflatten(0, (len(frames), -1)))
            x = functional.avg_pool2d(spikes.flatten(0, 1), 2) if pooled else spikes.flatten(0, 1)
        return self.heads[head](x.flatten(1)).unflatten(0, (len(frames), -1)), kept


class ResidualStudent(Variant):
    """SpikingResNet18 as PyTorch's users write it; `variant` as for `Variant`.

    Parameters
    ----------
    layers, channels : tuples of int
        Blocks of each stage, and their output channels.
    """

    def __init__(self, variant, layers, channels, classes):
        super().__init__()
        C = channels[0]
        self.first = torch.nn.Conv2d(2, C, 3, padding=1, bias=False)
        self.blocks = torch.nn.ModuleList()
        for stage, (count, K) in enumerate(zip(layers, channels)):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                block = {"conv0": Half(C, K, 3, stride), "conv1": Half(K, K, 3, 1)}
                if stride > 1:
                    block["shortcut"] = Half(C, K, 1, stride)
                self.blocks.append(torch.nn.ModuleDict(block))
                C = K
        self.norm = torch.nn.BatchNorm2d(C)
        self.finish(variant, C, classes)

    def features(self, x, neurons):
        """Images (N, 2, H, W) to (N, D); `neurons` makes spikes of the currents of a `Half`."""
        x = self.first(x)
        for block in self.blocks:
            change = block["conv1"](block["conv0"](x, neurons), neurons)
            x = change + (block["shortcut"](x, neurons) if "shortcut" in block else x)
        return self.norm(x).mean((2, 3))

    def by_step(self, frames, head):
        kept = {}

        def neurons(half, current):
            u = 0.5 * kept.get(half, 0.0) + current
            spikes = Spike.apply(u - 1)
            kept[half] = u * (1 - spikes.detach())
            return spikes

        features = torch.stack([self.features(x, neurons) for x in frames])
        return self.heads[head](features), features

    def layer_by_layer(self, frames, head):
        def neurons(_, current):
            spikes, _ = self.neurons(current.unflatten(0, (len(frames), -1)))
            return spikes.flatten(0, 1).contiguous(memory_format=self.layout)

        x = frames.flatten(0, 1).contiguous(memory_format=self.layout)
        features = self.features(x, neurons).unflatten(0, (len(frames), -1))
        return self.heads[head](features), features


class Half(torch.nn.Module):
    """Half a residual block: batch norm, neurons, and a convolution.

    One of a single pixel leaves pixels out beforehand: with a stride, channels last, torch 2.13
    ends in a segmentation fault (backward, processors with AVX-512).
    """

    def __init__(self, C, K, side, stride):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(C)
        self.step, stride = (stride, 1) if side == 1 else (1, stride)
        self.convolution = torch.nn.Conv2d(
            C, K, side, stride=stride, padding=side // 2, bias=False
        )

    def forward(self, x, neurons):
        spikes = neurons(self, self.norm(x))
        return self.convolution(spikes[..., ::self.step, ::self.step])


def similarity(X, Y):
    """Linear CKA of (T, B, D) and (T, B, D), per step."""
    X, Y = (F - F.mean(1, keepdim=True) for F in (X, Y))
    K, L = X @ X.mT, Y @ Y.mT
    return (K * L).sum((1, 2)) / (K.norm(dim=(1, 2)) * L.norm(dim=(1, 2)) + 1e-7)


def make_step(student, static, events, labels, teacher_logits):
    """A function that runs one training step of a student and returns the loss.

    `static` and `events` are frames (T, B, H, W, 2).
    """
    data = planes(static), planes(events), *map(torch.from_numpy, (labels, teacher_logits))
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3)

    def step():
        optimiser.zero_grad()
        value = loss(student, *data)
        value.backward()
        optimiser.step()
        return value.item()

    return step


def loss(student, static, events, labels, teacher_logits):
    """Classification of both streams, Eq. (5), and Eq. (9) at temperature 4."""
    static_logits, static_features = student.stream(static, "static")
    if student.variant == "compiled":
        static_features = static_features.clone()
    event_logits, event_features = student.stream(events, "event")
    value = (1 - similarity(static_features.flatten(2), event_features.flatten(2))).mean()
    for logits in (static_logits, event_logits):
        value = value + functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))
    p = torch.softmax(teacher_logits / 4, 1)
    q = torch.log_softmax(static_logits.mean(0) / 4, 1)
    return value + 16 * functional.kl_div(q, p, reduction="batchmean")


def make_evaluation(student, events):
    """A function that classifies frames (T, B, H, W, 2) by a student in evaluation mode."""
    events = planes(events)
    student.eval()

    def evaluate():
        with torch.inference_mode():
            return student.stream(events, "event")[0].sum(0).argmax(1)

    return evaluate


def planes(frames):
    """Frames (T, B, H, W, C) as (T, B, C, H, W), each plane contiguous."""
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).contiguous()
