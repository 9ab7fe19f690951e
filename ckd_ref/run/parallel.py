"""Twins of `training.train_step` and `training.classify` for a group of processes, bit-identical.

Each process has a stream of its own. Only for the loss, which compares the streams, do they
exchange their outputs; then each computes the loss and backpropagates through its own stream.
"""

import dataclasses

import numpy as np
from autograd import grad, make_vjp
from autograd.builtins import tuple as traced_tuple

from ..models import predict, update_state
from ..nn import adamw
from ..training import AT_ONCE, batch_loss, streams


def train_step(group, net, run, batch, config, rate, gamma, step):
    """See `training.train_step`; `group` is a `ProcessGroup`."""
    frames = streams(batch, config)
    names = list(frames)
    rest = dataclasses.replace(batch, static=None, events=None)
    parts = []
    for rank in range(group.size):
        own = {name: frames[name] for name in names[rank::group.size]}
        parts.append((net, run.params, own, rest, config, gamma))
    results = group.call(_gradients, parts)
    row, grad_theta = results[0][1:]
    passes = {name: result for own, *_ in results for name, result in own.items()}
    grads = {}
    for name in run.params:
        grads[name] = sum(passes[stream][0][name] for stream in names)
    grads["theta"] = grad_theta
    run.params, run.moments = adamw(run.params, grads, run.moments, step, rate, config.decay)
    for stream in names:
        run.state = update_state(run.state, passes[stream][1])
    return row


def _gradients(group, net, params, frames, batch, config, gamma):
    """What one member computes.

    Returns
    -------
    passes : dict of (gradients of the parameters, statistics), by own stream
    row : dict of floats, see `training.batch_loss`
    grad_theta : (T,) array
    """
    statistics, row = {}, {}

    def forward(params, stream):
        logits, features, statistics[stream] = net.apply(params, frames[stream], stream)
        return traced_tuple((logits, features))

    def loss(outputs, theta):
        total, parts = batch_loss(outputs, theta, batch, config, gamma)
        row.update(parts)
        return total

    vjps, own = {}, {}
    for stream in frames:
        vjps[stream], own[stream] = make_vjp(forward)(params, stream)
    outputs = {}
    for gathered in group.all_gather(own):
        outputs |= gathered
    grad_outputs, grad_theta = grad(loss, (0, 1))(outputs, params["theta"])
    passes = {stream: (vjps[stream](grad_outputs[stream]), statistics[stream]) for stream in frames}
    return passes, row, grad_theta


def classify(group, net, run, frames, batch=AT_ONCE):
    """See `training.classify`; `group` is a `ProcessGroup`."""
    batches = [frames[:, i:i + batch] for i in range(0, frames.shape[1], batch)]
    parts = [(net, run.params, run.state, batches[rank::group.size]) for rank in range(group.size)]
    predicted = [None] * len(batches)
    for rank, classes in enumerate(group.call(_predict, parts)):
        predicted[rank::group.size] = classes
    return np.concatenate(predicted)


def _predict(_, net, params, state, batches):
    return [predict(net.apply(params, frames, "event", state)[0]) for frames in batches]
