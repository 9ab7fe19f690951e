"""Write the logits of an image classifier for a file of paired data, to serve as its teacher.

    python data_tools/teacher_logits.py DATA.h5 LOGITS.h5
    python data_tools/teacher_logits.py DATA.h5 LOGITS.h5 --fine-tuned STATE.pt
    python data_tools/teacher_logits.py DATA.h5 LOGITS.h5 --logits-npy FILE.npy

A network pretrained on ImageNet has 1,000 other classes. The paper replaces its last layer and
fine-tunes all of it on the images of the data set. The first command trains only the new last
layer: a logistic regression on the features of the frozen network, fitted to the images of the
pools teacher and static. The second takes a network trained as in the paper, the third the
logits of any classifier; you have to make sure that these have not seen the test images. The
first two need torch and torchvision.

Assumption: an outside teacher may see RGB or HSV images, and the networks loaded here see RGB
scaled as for ImageNet, where the paper's ImageNet-pretrained network is fine-tuned on HSV images.
Test: `test_batches_keep_the_order_of_the_file`.
"""

import argparse
import pathlib
import pickle
import sys
import textwrap

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp
from tqdm import tqdm

from ckd_ref.data.errors import error_context
from ckd_ref.data.paired import IMAGE_SPLITS, open_paired
from ckd_ref.events import FormatError
from ckd_ref.run.teachers import check_logits, load_logits, save_logits


def main(argv=None):
    options = parse(argv)
    try:
        convert(options)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"teacher_logits.py: {error}")


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=pathlib.Path, metavar="DATA.h5")
    parser.add_argument("out", type=pathlib.Path, metavar="LOGITS.h5")
    parser.add_argument(
        "--network",
        default="wide_resnet101_2",
        metavar="NAME",
        help="a classifier of torchvision [wide_resnet101_2]",
    )
    parser.add_argument(
        "--weights",
        default="DEFAULT",
        metavar="NAME",
        help=(
            "torchvision's name of its weights, such as IMAGENET1K_V1 [DEFAULT: the best it has]; "
            "they also define how images are scaled"
        ),
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--fine-tuned",
        type=pathlib.Path,
        metavar="STATE.pt",
        help="state dict of NAME with one output per class of the data",
    )
    given.add_argument(
        "--logits-npy",
        type=pathlib.Path,
        metavar="FILE.npy",
        help="logits of any classifier: a row per image in the data's order, a column per class",
    )
    parser.add_argument(
        "--classes",
        type=pathlib.Path,
        metavar="NAMES.txt",
        help=(
            "names of the outputs of STATE.pt or columns of FILE.npy, one per line "
            "[the data's order]"
        ),
    )
    parser.add_argument("--overwrite", action="store_true", help="replace LOGITS.h5 if it exists")
    options = parser.parse_args(argv)
    if options.classes and not (options.fine_tuned or options.logits_npy):
        parser.error(
            "--classes names the outputs of --fine-tuned or --logits-npy; "
            "give one of these with it"
        )
    return options


def convert(options):
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} exists; give --overwrite to replace it")
    with open_paired(options.data) as data:
        names = read_classes(options.classes, data) if options.classes else data.classes
        if options.logits_npy:
            logits = read_npy(options.logits_npy, data)
        elif options.fine_tuned:
            K = len(names)
            network = fine_tuned(options.network, options.weights, options.fine_tuned, K)
            logits = apply(network, data)
        else:
            network = frozen(options.network, options.weights)
            logits = linear_head(apply(network, data), data)
        save_logits(options.out, check_logits(logits, data), names)
        right = load_logits(options.out, data).argmax(-1) == data.image_label
        pools = [(split, right[data.images_in(split)]) for split in IMAGE_SPLITS]
    shares = [f"{hits.mean():.1%} of {len(hits)} {split}" for split, hits in pools if len(hits)]
    print(f"{options.out}: logits of {len(right)} images; correct are {', '.join(shares)}")


def read_classes(path, data):
    """The names of the columns of logits, one per line: the data's classes in any order."""
    with error_context(path, "save it as text in UTF-8"):
        names = path.read_text(encoding="utf-8").splitlines()
    if sorted(names) != sorted(data.classes):
        raise FormatError(
            f"{path}: expected the {len(data.classes)} classes of {data.path}, one name per line, "
            f"got {len(names)} lines; "
            f"in only one of the two: {sorted(set(names) ^ set(data.classes))}"
        )
    return names


def read_npy(path, data):
    """Finite logits (M, K) written by `numpy.save`, as float32."""
    expected = len(data.image_label), len(data.classes)
    with error_context(path, "write it with numpy.save"):
        # Memory-mapped: a header may claim any size.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            came = "several arrays"
        else:
            came = f"{array.dtype} {array.shape}"
        if came == "several arrays" or array.dtype.kind != "f" or array.shape != expected:
            raise FormatError(
                f"expected floats {expected}, a row for each image in the order of {data.path} "
                f"and a column for each class, got {came}"
            )
        bad = ~(np.abs(array) <= np.finfo(np.float32).max)  # true for NaN as well
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise FormatError(
                f"expected finite logits, got {array[row, column]} in row {row}, column {column}"
            )
        return array.astype(np.float32)


def apply(network, data, batch=32):
    """Apply a function of RGB images (B, S, S, 3) in [0, 1] to all images of the data: (M, ...)."""
    positions = np.arange(len(data.image_label))
    starts = tqdm(range(0, len(positions), batch), desc="network", unit="batch")
    return np.concatenate([network(data.images(positions[i:i + batch])) for i in starts])


def linear_head(features, data, decay=1e-5):
    """A new last layer: logits (M, K) of a logistic regression on features (M, D).

    It is fitted without the test images. Over the training images, features are shifted to mean
    0 and scaled to mean square norm 1, so that `decay`, the coefficient of half the squared
    weights in the loss, means the same for every network. Among powers of ten, the default gave
    the lowest cross-entropy on the static images of N-MNIST and of the glyphs, when fitted to
    the pool teacher with features of random filters.
    """
    train = np.concatenate([data.images_in("teacher"), data.images_in("static")])
    label = data.image_label[train]
    K = len(data.classes)
    missing = np.setdiff1d(np.arange(K), label)
    if len(missing):
        raise FormatError(
            f"{data.path}: expected images of every class in the pools teacher and static, "
            f"got none of {', '.join(data.classes[k] for k in missing)}; "
            "fit another classifier and give its logits"
        )
    features = features - features[train].mean(0, dtype=np.float64)  # (M, D)
    norm = np.sqrt((features[train] ** 2).sum(-1).mean())
    features = features / (norm if norm > 0 else 1)
    x = features[train]  # (N, D)
    one_hot = np.eye(K)[label]  # (N, K)

    def loss(flat):
        w, b = unpack(flat)
        logits = x @ w + b
        log_p = logits - logsumexp(logits, axis=-1, keepdims=True)
        error = (np.exp(log_p) - one_hot) / len(x)
        gradient = np.concatenate([x.T @ error + decay * w, error.sum(0, keepdims=True)])
        cross_entropy = -(one_hot * log_p).sum() / len(x)
        return cross_entropy + decay / 2 * (w ** 2).sum(), gradient.ravel()

    def unpack(flat):
        return np.split(flat.reshape(-1, K), [-1])  # (D, K), (1, K)

    start = np.zeros((x.shape[1] + 1) * K)
    w, b = unpack(minimize(loss, start, jac=True, method="L-BFGS-B").x)
    return features @ w + b


# The networks; only the functions below use torch

def frozen(name, weights):
    """The input of a pretrained network's last layer: images (B, S, S, 3) to features (B, D)."""
    torch, models, entry = find(name, weights)
    model = models.get_model(name)
    state = torch.hub.load_state_dict_from_url(
        entry.url, map_location="cpu", check_hash=True, weights_only=True
    )
    model.load_state_dict(state)
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    given = []
    last.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    logits = on_images(torch, model, entry)

    def features(images):
        logits(images)
        return given.pop().cpu().numpy()

    return features


def fine_tuned(name, weights, path, K):
    """The network of a state dict: a function from images (B, S, S, 3) to logits (B, K)."""
    torch, models, entry = find(name, weights)
    model = models.get_model(name, num_classes=K)
    with open(path, "rb"):  # a missing file is an ordinary OSError
        pass
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # nothing is unpickled
        model.load_state_dict(state)
    except Exception as error:  # torch reports foreign files by exceptions of many kinds
        # Its message would list every missing tensor, or advise to unpickle the file after all.
        came = textwrap.shorten(str(error), 250)
        if isinstance(error, pickle.UnpicklingError):
            came = "more than tensors"
        raise FormatError(
            f"{path}: expected the state dict of a {name} with {K} outputs, "
            "as written by torch.save(model.state_dict(), path), "
            f"got another or a damaged one: {came}"
        ) from None
    return on_images(torch, model, entry)


def find(name, weights):
    """torch, torchvision's models, and the entry of these weights among them."""
    try:
        import torch
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            f"{error}; networks need torch and torchvision (pip install torch torchvision); "
            "logits made elsewhere need neither: --logits-npy"
        ) from None
    entries = models.get_model_weights(name).__members__
    if weights not in entries:
        raise ValueError(
            f"expected --weights to be one of {', '.join(entries)} for {name}, got {weights}"
        )
    return torch, models, entries[weights]


def on_images(torch, model, entry):
    """The model in evaluation mode: RGB images (B, S, S, 3) in [0, 1] to logits."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device)
    transform = entry.transforms()

    def logits(images):
        planes = torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, 3, S, S)
        with torch.no_grad():
            return model(transform(planes).to(device)).cpu().numpy()

    return logits


if __name__ == "__main__":
    main()
