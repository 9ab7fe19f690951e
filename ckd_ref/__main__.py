"""Command line: ``python -m ckd_ref`` runs the main job; see ``--help``."""

import argparse
import dataclasses
import os
import pathlib
import shlex
import sys

import numpy as np

from .data.files import locked
from .run.checkpoint import load_checkpoint
from .config import Config
from .teacher import train_teacher
from .run.logits import load_logits, save_logits
from .training import classify, train

METAVARS = {int: "N", float: "X", str: "NAME"}


def main(argv=None):
    """Run a command; returns the exit code. Problems with input end in one line, not in a traceback."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0].startswith("-") and argv[0] not in ("-h", "--help"):
        argv = ["compare", *argv]
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"ckd_ref: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"ckd_ref: {stopped or 'stopped'}; the same command goes on from there: "
              f"{shlex.join(['python', '-m', 'ckd_ref', *argv])}", file=sys.stderr)
        return 130
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m ckd_ref", description="Cross knowledge distillation from an ANN on images to an SNN on events. "
        "Without a command: compare, on pictures of symbols filmed by a simulated event camera.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    compare = commands.add_parser("compare", help="train the teacher and all three methods; print their table")
    compare.add_argument("data", nargs="?", metavar="DATA.h5", help="default: the embedded glyphs, made on the spot")
    compare.add_argument("--seeds", type=int, default=1, help="repetitions (default 1); 6 or more for claims")
    compare.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    compare.set_defaults(run=_compare)

    single = commands.add_parser("train", help="train one method on a data file, or go on with a run")
    single.add_argument("data", metavar="DATA.h5")
    single.add_argument("--processes", type=int, choices=(1, 2), default=min(2, os.cpu_count() or 1),
                        help="2: one for each stream (default on two cores and more)")
    single.set_defaults(run=_train)

    for command in (compare, single):
        command.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"),
                             help="folder for everything that is written (default results)")
        command.add_argument("--teacher", metavar="LOGITS.h5", help="logits of any teacher for every image of the data")
        for field in dataclasses.fields(Config):
            if field.name == "method" and command is compare:
                continue
            kind = {"type": field.type, "metavar": METAVARS.get(field.type)}
            if field.type is bool:
                kind = {"action": "store_true"}
            default = "" if field.default in (None, False) else f" (default {field.default})"
            command.add_argument(f"--{field.name.replace('_', '-')}", default=field.default,
                                 help=field.metadata["help"] + default, **kind)

    evaluate = commands.add_parser("evaluate", help="accuracy of a trained student on the test recordings")
    evaluate.add_argument("data", metavar="DATA.h5")
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT.h5")
    evaluate.set_defaults(run=_evaluate)

    info = commands.add_parser("info", help="describe a data file in numbers and pictures")
    info.add_argument("data", type=pathlib.Path, metavar="DATA.h5")
    info.add_argument("--out", type=pathlib.Path, metavar="SHEET.png",
                      help="picture of one pair per class (default: DATA.png in the current folder)")
    info.set_defaults(run=_info)
    return parser


def _config(args, **fixed):
    names = [field.name for field in dataclasses.fields(Config)]
    return Config(**{name: getattr(args, name) for name in names if hasattr(args, name)} | fixed)


def _compare(args):
    from .run.comparison import compare

    print(compare(args.data, _config(args), args.out, args.seeds, args.teacher, args.workers))
    print(f"Logs, checkpoints, curves.png and samples.png are in {args.out.resolve()}")


def _train(args):
    from .run import plots
    from .data.paired import open_paired

    config = _config(args)
    with open_paired(args.data) as data:
        logits = None
        if config.method == "ckd":
            path = args.teacher or args.out / "teacher.h5"
            if not args.teacher and not path.exists():
                args.out.mkdir(parents=True, exist_ok=True)
                with locked(path):
                    save_logits(path, train_teacher(data, config.seed), data.classes)
            logits = load_logits(path, data)
        run = train(data, config, args.out, logits, processes=args.processes)
    plots.learning_curves(args.out / "curves.png", {config.method: [run.history]})
    print(f"{config.method}: final {run.history[-1]['accuracy_test']:.1%}, best epoch "
          f"{max(row['accuracy_test'] for row in run.history):.1%}; log and checkpoint in {args.out.resolve()}")


def _evaluate(args):
    from .data.paired import open_paired

    run, config, classes = load_checkpoint(args.checkpoint)
    with open_paired(args.data) as data:
        if classes != data.classes:
            raise ValueError(f"expected the classes that {args.checkpoint} was trained on ({', '.join(classes)}), "
                             f"got those of {args.data} ({', '.join(data.classes)})")
        test = data.recordings_in("test")
        frames = data.frames(test, config.T, config.size)
        right = classify(config.model(len(classes)), run, frames) == data.event_label[test]
    print(f"{args.checkpoint}: {np.mean(right):.1%} of {len(test)} test recordings "
          f"({config.method}, after {run.epoch} epochs{f' and {len(run.rows)} batches' if run.rows else ''})")


def _info(args):
    from .run import plots
    from .data.paired import open_paired
    from .data.info import describe, measure_recordings

    sheet = args.out or pathlib.Path(args.data.stem + ".png")
    if sheet.suffix != ".png":                                                  # the data file is not to be replaced
        raise ValueError(f"expected a name that ends in .png for the picture, got {sheet}")
    with open_paired(args.data) as data:
        print(describe(data, measure_recordings(data)))
        plots.contact_sheet(sheet, data)
    print(f"One pair of each class is drawn in {sheet.resolve()}")


if __name__ == "__main__":
    sys.exit(main())
