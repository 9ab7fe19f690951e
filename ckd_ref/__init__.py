"""Reference implementation of Cross Knowledge Distillation between artificial and spiking networks.

Every public name is `ckd_ref.NAME`; the module that defines it is loaded when it is first used.
"""

import importlib

__version__ = "0.1.0"

PUBLIC = {
    "events": {
        "EVENT_DTYPE": "one event of Eq. (4): time, column, row, polarity",
        "FormatError": "data that does not keep to its format",
        "check_events": "validate a recording, or name its first bad event",
        "bin_events": "Eq. (4): events to frames of counts",
        "window_edges": "when the frames of a recording begin and end",
        "count_events": "counts per window, pixel and polarity",
        "resize_frames": "bilinear resizing, corners aligned",
        "from_arrays": "columns of an event file to a recording",
    },
    "color": {
        "rgb_to_hsv": "hue, saturation and value",
        "value_frames": "input of the static stream: the V channel as frames",
    },
    "neuron": {
        "Neuron": "settings of a layer of neurons",
        "spike": "Eq. (2): the threshold, with a surrogate gradient",
        "surrogate_grad": "the derivative that replaces that of the threshold",
        "lif_step": "Eq. (3): leak, reset and input",
        "lif": "Eqs. (1)-(3): a layer of neurons over all time steps",
        "reset": "potentials after the reset, the features of Eq. (5)",
    },
    "similarity": {
        "linear_cka": "Eq. (5): similarity of two sets of features",
    },
    "losses": {
        "cross_entropy": "cross-entropy of each sample",
        "tet_loss": "temporal efficient training: every time step classifies",
        "domain_alignment_loss": "Eqs. (5) and (6): how differently the streams see the same pairs",
        "kd_loss": "Eq. (9): knowledge distillation",
        "ckd_loss": "Eqs. (7) and (11): the whole loss of a batch",
    },
    "distillation": {
        "dkd_loss": "Table II: decoupled distillation",
        "dist_loss": "Table II: distillation by correlation",
        "luminet_loss": "Table II: distillation of standardised logits",
    },
    "table1": {
        "etc_loss": "Table I: consistency of the time steps",
        "tks_loss": "Table I: right time steps teach all",
        "sharing_weight": "Table I: how much of it, by epoch",
        "eventmix": "Table I: two recordings in one",
        "eventmix_mask": "Table I: which cells are of which",
        "nda": "Table I: augmentation of event frames",
        "flip_and_rotate": "the one of all methods on CEP-DVS",
    },
    "schedules": {
        "replacement_probability": "Eq. (8): when events replace images",
        "phase_weight": "Eq. (10): when to stop listening to the teacher",
        "learning_rate": "warm-up and cosine",
    },
    "nn": {
        "conv2d": "convolution",
        "batch_norm": "batch normalisation over time",
        "avg_pool": "average pooling",
        "relu": "the rectifier of the teacher",
        "linear": "affine map of the last axis",
        "update_running": "running statistics after a batch",
        "init_moments": "AdamW's moments before the first step",
        "adamw": "one step of AdamW",
    },
    "batches": {
        "Batch": "frames of both streams, labels, teacher logits",
        "BatchSampler": "draws batches from the training data",
        "training_pools": "the recordings and images that a run trains on",
        "first_of_class": "the first samples of every class",
        "sample_pairs": "recordings, and images of the same classes",
        "replacement_mask": "Eq. (8): which rows are replaced",
        "replace_static": "the hybrid stream",
        "random_crop": "shifts of up to some pixels",
        "mix_recordings": "Table I: recordings of a batch mixed with each other",
    },
    "models": {
        "VGGSNN": "the student of N-Caltech101",
        "SpikingResNet18": "the student of CEP-DVS",
        "Teacher": "a small ordinary network",
        "predict": "classes from the event stream's logits",
        "update_state": "running statistics after a stream",
    },
    "config": {
        "Config": "what decides a run besides its data",
    },
    "training": {
        "TrainState": "all that changes during training",
        "train_step": "the method: one batch",
        "epochs": "a whole training, batch by batch",
        "classify": "classes of recordings, from events alone",
    },
    "teacher": {
        "TrainedTeacher": "a teacher's network as a function of images",
        "train_teacher": "train the small teacher",
        "teacher_epochs": "its training, batch by batch",
        "untrained_teacher": "its network, and its state before training",
    },
    "energy": {
        "Operations": "what an inference takes in one layer",
        "count_operations": "synaptic operations of a student, from its spikes",
        "teacher_macs": "multiply-accumulates of the small teacher",
        "fan_out": "synapses that a spike at each pixel drives",
        "joules": "estimated energy of operations",
        "energy_table": "student and teacher beside each other",
    },
    "data.paired": {
        "PairedData": "read a file of images and recordings",
        "PairedWriter": "write one",
        "open_paired": "open one",
    },
    "data.camera": {
        "Camera": "parameters of the simulated event camera",
        "Saccades": "how the picture moves before it",
        "record": "film a picture",
        "threshold_crossings": "Eq. (4): when the camera's pixels fire",
        "rgb_to_luminance": "brightness of a picture",
    },
    "data.readers": {
        "read_bin": "a recording of N-Caltech101 or N-MNIST",
        "read_mat": "a recording of CEP-DVS",
        "read_idx": "images and labels of MNIST",
        "read_image": "a JPEG or PNG image",
    },
    "run.session": {
        "train": "train a student, resume it, save it",
    },
    "run.comparison": {
        "compare": "teacher and the ladder of students, repeated: the table",
    },
    "run.sweep": {
        "Job": "one run of a sweep",
        "read_spec": "the jobs of a TOML file",
        "sweep": "many runs, one line of JSON for each",
    },
    "run.estimate": {
        "estimate": "time and memory of a training, from a few steps",
    },
    "run.report": {
        "report": "tables and figures of finished sweeps",
    },
    "run.tsne": {
        "tsne": "Fig. 3: the features of students in the plane",
        "mean_features": "features of recordings, averaged over time",
        "neighbour_accuracy": "how well their neighbours classify them",
    },
    "run.checkpoint": {
        "save_checkpoint": "write a run",
        "load_checkpoint": "read a run",
    },
    "run.teachers": {
        "save_teacher": "write a teacher's network",
        "load_teacher": "read a teacher, a network or logits",
        "check_logits": "validate a teacher's logits",
        "save_logits": "write the logits of any teacher",
        "load_logits": "read them",
    },
}
"""Where each public name lives, and what it is in a few words."""

__all__ = [name for names in PUBLIC.values() for name in names]
__doc__ += "".join(
    f"\n{module}\n" + "".join(f"    {name:<24}{line}\n" for name, line in names.items())
    for module, names in PUBLIC.items()
)


def __getattr__(name):
    for module, names in PUBLIC.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
        if name == module.split(".")[0]:
            return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
