"""Command line: ``python -m ckd_ref`` runs the main job; see ``--help``."""

import argparse
import dataclasses
import os
import pathlib
import re
import shlex
import sys

import numpy as np

from .config import ASSUMED, METHODS_OF, PRESETS, PUBLISHED, Config
from .data.errors import PROBLEMS, in_words, printable
from .data.glyphs import SETS
from .data.paired import open_paired
from .run.arguments import given_file, nearest, output_folder, positive, unused
from .run.checkpoint import load_checkpoint
from .run.preflight import check_run
from .run.process_group import prepare_process
from .run.session import ctrl_c, train
from .run.teachers import kept_teacher, load_teacher
from .teacher import EPOCHS
from .training import classify

METAVARS = {int: "N", float: "X", str: "NAME"}
FROM_DATA = {"size": "that of the data"}
"""Options whose default is not that of `Config`."""


def main(argv=None):
    """Run a command; returns the exit code. Problems with input end in one line."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"):
        argv = ["compare", *argv]
    try:
        args = _arguments(argv)
        args.run(args)
    except PROBLEMS as error:
        said = in_words(error, "a smaller batch, size, width or T")
        print(f"ckd_ref: {printable(said)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        command = shlex.join(["python", "-m", "ckd_ref", *argv])
        print(f"ckd_ref: {str(stopped) or 'stopped'}; resume with: {command}", file=sys.stderr)
        return 130
    return 0


def _arguments(argv):
    """The parsed arguments; what is not known is refused with a hint."""
    parser = _parser()
    word = argv[0]
    if not word.startswith("-") and word not in parser.commands:
        meant = nearest(word, parser.commands)
        if pathlib.Path(word).exists() or word.endswith(".h5") or word in SETS:
            meant = f"compare {word}"
        parser.error(f"no command {word!r}" + (f"; did you mean {meant}?" if meant else ""))
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command = parser.commands[argv[0]]
        name = unknown[0].split("=")[0]
        meant = nearest(name.lstrip("-"), re.findall(r"--([\w-]+)", command.format_help()))
        hint = f"; did you mean --{meant}?" if meant and name.startswith("-") else ""
        command.error(f"unknown argument {unknown[0]}{hint}")
    return args


class _Parser(argparse.ArgumentParser):
    """Problems end in one line."""

    def error(self, message):
        self.exit(2, f"ckd_ref: {printable(message)}; see {self.prog} --help\n")


def _parser():
    parser = _Parser(
        prog="python -m ckd_ref",
        description="Cross knowledge distillation from an ANN on images to an SNN on events. "
        "Without a command: compare, on pictures of digits filmed by a simulated event camera.",
    )
    version = sys.modules[__package__].__version__
    parser.add_argument("--version", action="version", version=f"ckd_ref {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parser.commands = commands.choices
    cores = os.cpu_count() or 1

    compare = commands.add_parser(
        "compare", help="train the teacher and the ladder of students; print their table"
    )
    compare.add_argument("data", nargs="?", metavar="DATA", default="digits",
                         help="a data file, or an embedded set, digits (default) or symbols, which "
                         "is made on the spot")
    compare.add_argument("--methods", metavar="NAMES",
                         help="what to compare in place of the ladder, with commas between, the "
                         "first with all others: snn,nda,eventmix,tks,etc,transfer,ckd is Table I")
    compare.add_argument("--seeds", type=int, default=1,
                         help="repetitions (default 1); 6 or more for claims")
    compare.add_argument("--workers", type=int, default=cores,
                         help="processes (default: one per core)")
    compare.set_defaults(run=_compare)

    single = commands.add_parser("train", help="train one method on a data file, or resume a run")
    single.add_argument("data", metavar="DATA.h5")
    single.set_defaults(run=_train)

    estimate = commands.add_parser(
        "estimate", help="time and memory of a training on this machine, from a few steps of it"
    )
    estimate.add_argument("data", nargs="?", metavar="DATA.h5",
                          help="default: random data of the shape of N-Caltech101, with "
                          "--preset paper-cepdvs of CEP-DVS")
    estimate.set_defaults(run=_estimate)

    for command in (single, estimate):
        command.add_argument("--processes", type=int, choices=(1, 2), default=min(2, cores),
                             help="2: one for each stream (default on two cores and more)")
    for command in (compare, single):
        command.add_argument("--out", type=output_folder, default="results", metavar="FOLDER",
                             help="folder for everything that is written (default results)")
    for command in (compare, single, estimate):
        command.add_argument("--teacher", metavar="TEACHER.h5",
                             help="a saved teacher, or the logits of any teacher for every image")
        command.add_argument("--teacher-epochs", type=positive, metavar="N",
                             help=f"length of the training of a teacher here (default {EPOCHS})")
        command.add_argument("--preset", metavar="NAME",
                             help="all settings but the teacher of an experiment of the paper, "
                             f"{' or '.join(PRESETS)}; options beside it replace its own")
        for field in dataclasses.fields(Config):
            if field.name != "method" or command is not compare:
                _add_option(command, field)

    sweep = commands.add_parser(
        "sweep", help="run a list of variants and seeds, resumably; one line of JSON for each run"
    )
    sweep.add_argument("spec", type=pathlib.Path, metavar="SPEC.toml",
                       help="what to run; see tutorials/protocol.md")
    sweep.add_argument("--out", type=output_folder, default="results", metavar="FOLDER",
                       help="folder for the runs, and for SPEC.jsonl (default results)")
    sweep.add_argument("--workers", type=int, default=cores,
                       help="processes (default: one per core)")
    sweep.add_argument("--scheduler", metavar="ADDRESS",
                       help="use the workers of this dask.distributed scheduler instead")
    sweep.set_defaults(run=_sweep)

    for command in (compare, single, sweep):
        command.add_argument("--quiet", action="store_true", help="show no progress")

    report = commands.add_parser(
        "report", help="make tables and figures from the lines of finished sweeps"
    )
    report.add_argument("folder", type=pathlib.Path, metavar="FOLDER",
                        help="with SPEC.toml and SPEC.jsonl of every sweep; gets README.md")
    report.set_defaults(run=_report)

    evaluate = commands.add_parser(
        "evaluate", help="accuracy of a trained student on the test recordings"
    )
    evaluate.add_argument("data", metavar="DATA.h5")
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT.h5")
    evaluate.add_argument("--energy", action="store_true",
                          help="count spikes and synaptic operations, and estimate their energy")
    evaluate.set_defaults(run=_evaluate)

    tsne = commands.add_parser(
        "tsne", help="draw the features of trained students, as in Fig. 3; needs scikit-learn"
    )
    tsne.add_argument("data", metavar="DATA",
                      help="a data file, or the embedded set that they were trained on")
    tsne.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN",
                      help="folder of a student, such as results/digits-ckd-seed0")
    tsne.add_argument("--out", type=pathlib.Path, metavar="FIGURE.png",
                      default=pathlib.Path("tsne.png"), help="the picture (default tsne.png)")
    tsne.set_defaults(run=_tsne)

    info = commands.add_parser("info", help="describe a data file in numbers and pictures")
    info.add_argument("data", type=pathlib.Path, metavar="DATA.h5")
    info.add_argument("--out", type=pathlib.Path, metavar="SHEET.png",
                      help="picture of one pair per class (default: DATA.png here)")
    info.set_defaults(run=_info)
    return parser


def _add_option(command, field):
    """An option of the command line for a field of `Config`; absent unless it is given."""
    default = FROM_DATA.get(field.name, field.default)
    options = {"default": argparse.SUPPRESS, "help": field.metadata["help"]}
    if field.type is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options |= {"type": field.type, "metavar": METAVARS[field.type]}
    if default is not None:
        options["help"] += f" (default {default})"
    command.add_argument(f"--{field.name.replace('_', '-')}", **options)


def _config(args, runs=None, **defaults):
    """The options given, before those of the preset, before those of `defaults` and `Config`.

    Of a preset, those are printed that change one of the runs.
    """
    given = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(Config) if hasattr(args, field.name)
    }
    if args.preset is None:
        return Config(**defaults | given)
    if args.preset not in PRESETS:
        raise ValueError(f"expected a preset among {', '.join(PRESETS)}, got {args.preset!r}")
    config = Config(**PRESETS[args.preset] | given)
    runs = runs or [{"method": config.method}]
    sources = {"published": PUBLISHED[args.preset], "assumed": ASSUMED[args.preset]}
    for source, options in sources.items():
        used = {name for name in options if not unused(name, _left(name, runs))}
        _print_settings(f"{args.preset}, {source}", used - given.keys(), config)
    _print_settings("instead of its own or beside it", given, config)
    return config


def _left(name, runs):
    """Methods of the runs that do not set an option themselves."""
    return {run["method"] for run in runs if name not in run}


def _print_settings(title, names, config):
    values = (f"{field.name} {getattr(config, field.name)}"
              for field in dataclasses.fields(Config) if field.name in names)
    print(f"{title}: {', '.join(values) or 'none'}", flush=True)


def _compare(args):
    from .run.comparison import compare
    from .run.sweep import LADDER, spec_variants

    names = list(LADDER) if args.methods is None else args.methods.split(",")
    variants = spec_variants({"variants": names})
    _check_options(args, list(variants.values()))
    if args.data in SETS:
        size = SETS[args.data].size
    else:
        size = _image_size(given_file(args.data, "the first argument", "data"))
    config = _config(args, list(variants.values()), size=size)
    table = compare(
        args.data, config, args.out, args.seeds, args.teacher, args.workers,
        args.methods and names, args.teacher_epochs or EPOCHS, not args.quiet,
    )
    print(*map(printable, table.split("\n")), sep="\n")
    place = printable(args.out.resolve())
    print(f"Logs, checkpoints, curves.png and samples.png are in {place}")


def _image_size(path):
    with open_paired(path) as data:
        return data.image_size


def _sweep(args):
    from .run.sweep import read_spec, sweep

    name = given_file(args.spec, "the first argument", "spec").stem
    lines = args.out / f"{name}.jsonl"
    sweep(
        read_spec(args.spec), args.out / name, lines, args.workers, args.scheduler,
        progress=not args.quiet,
    )
    print(printable(f"{lines}: every run of {args.spec} has its line"))


def _report(args):
    from .run.report import report

    if not args.folder.is_dir():
        raise NotADirectoryError(f"the first argument is no folder: {args.folder}")
    print(*map(printable, report(args.folder).split("\n")), sep="\n")


def _train(args):
    from .run import plots

    prepare_process()
    given_file(args.data, "the first argument", "data")
    with open_paired(args.data) as data:
        config = _config(args, size=data.image_size)
        _check_options(args, [{"method": config.method}])
        check_run(data, config)                                # before a teacher is trained
        teacher = _teacher(args, data, config.seed) if config.method == "ckd" else None
        run = train(
            data, config, args.out, teacher, processes=args.processes, progress=not args.quiet
        )
    plots.learning_curves(args.out / "curves.png", {config.method: [run.history]})
    accuracies = [row["accuracy_test"] for row in run.history]
    print(f"{config.method}: final {accuracies[-1]:.1%}, best epoch {max(accuracies):.1%}; "
          f"log and checkpoint in {printable(args.out.resolve())}")


def _estimate(args):
    from .run.estimate import SHAPES, estimate

    source = args.data
    if source:
        size = _image_size(given_file(source, "the first argument", "data"))
        config = _config(args, size=size)
    else:
        config = _config(args)
        shape = SHAPES.get(args.preset, SHAPES["paper-ncaltech101"])
        source = dataclasses.replace(shape, image_size=config.size)
    _check_options(args, [{"method": config.method}])
    print("timing a few steps, which can take minutes for a large network", file=sys.stderr)
    print(estimate(
        source, config, args.teacher, args.processes, args.teacher_epochs or EPOCHS
    ))


def _check_options(args, runs):
    """Refuse an option where it would change none of the runs, and a teacher that is none."""
    for name in METHODS_OF:
        if getattr(args, name, None) is None:
            continue
        option = f"--{name.replace('_', '-')}"
        if found := unused(name, {run["method"] for run in runs}):
            raise ValueError(f"{option} is for {found}; leave it out")
        if unused(name, _left(name, runs)):
            raise ValueError(f"{option} is set by the runs themselves; leave it out")
    if args.teacher and args.teacher_epochs:
        raise ValueError("--teacher-epochs is for a teacher trained here; leave --teacher out")
    if args.teacher is not None:
        given_file(args.teacher, "--teacher", "teacher", "logits")


def _teacher(args, data, seed):
    """The given teacher, or one that is trained here and kept in the folder."""
    if args.teacher:
        return load_teacher(args.teacher, data)
    args.out.mkdir(parents=True, exist_ok=True)
    with ctrl_c() as stop:
        return kept_teacher(
            args.out / "teacher.h5", data, seed, args.teacher_epochs or EPOCHS,
            progress=not args.quiet, stop=stop,
        )


def _evaluate(args):
    prepare_process()
    given_file(args.data, "the first argument", "data")
    given_file(args.checkpoint, "the second argument", "checkpoint")
    run, config, classes, _ = load_checkpoint(args.checkpoint)
    with open_paired(args.data) as data:
        _check_classes(args.checkpoint, classes, data)
        test = data.recordings_in("test")
        if not len(test):
            raise ValueError(f"{data.path}: expected recordings to test, got none")
        frames = data.frames(test, config.T, config.size)
        predicted = classify(config.model(len(classes)), run, frames)
        right = predicted == data.event_label[test]
    batches = f" and {len(run.rows)} batches" if run.rows else ""
    print(f"{printable(args.checkpoint)}: {np.mean(right):.1%} of {len(test)} test recordings "
          f"({config.method}, after {run.epoch} epochs{batches})")
    if args.energy:
        print(_energy(run, config, len(classes), frames))


def _check_classes(path, classes, data):
    """Refuse data of other classes than those of a checkpoint."""
    if classes != data.classes:
        raise ValueError(
            f"expected the classes that {path} was trained on ({', '.join(classes)}), "
            f"got those of {data.path} ({', '.join(data.classes)})"
        )


def _energy(run, config, K, frames):
    """What an inference costs, in words and as a table."""
    from .energy import count_operations, energy_table, teacher_macs
    from .models import Teacher

    operations = count_operations(config.model(K), run.params, run.state, frames, config.batch)
    table = energy_table(operations, teacher_macs(Teacher(K, config.size)))
    return (f"\nOne recording in {config.T} time steps (mean of {frames.shape[1]}), and one image "
            f"of {config.size} x {config.size} pixels for the small teacher:\n\n{table}")


def _tsne(args):
    from .run.sweep import Job
    from .run.tsne import tsne

    prepare_process()
    _check_picture(args.out)
    if args.data not in SETS:
        given_file(args.data, "the first argument", "data")
    paths = [run if run.is_file() else run / "checkpoint.h5" for run in args.runs]
    found = [load_checkpoint(given_file(path, "that of a run", "checkpoint")) for path in paths]
    configs = [config for _, config, _, _ in found]
    if args.data in SETS and len({(config.seed, config.size) for config in configs}) > 1:
        raise ValueError(f"expected runs of one seed and size, which have {args.data} in common")
    with Job("", args.data, "", configs[0]).open() as data:
        students = []
        for path, (run, config, classes, _) in zip(paths, found):
            _check_classes(path, classes, data)
            students.append((printable(path.parent.name), config.model(len(classes)), run, config))
        print(tsne(args.out, data, students))
    print(f"The features are drawn in {printable(args.out.resolve())}")


def _check_picture(path):
    if path.suffix != ".png":                                  # never replace another file
        raise ValueError(f"expected a name that ends in .png for the picture, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"expected the picture in a folder that exists, got {path}")


def _info(args):
    from .data.info import describe, measure_recordings
    from .run import plots

    sheet = args.out or pathlib.Path(args.data.stem + ".png")
    _check_picture(sheet)
    given_file(args.data, "the first argument", "data")
    with open_paired(args.data) as data:
        print(describe(data, measure_recordings(data)))
        plots.contact_sheet(sheet, data)
    print(f"One pair of each class is drawn in {printable(sheet.resolve())}")


if __name__ == "__main__":
    sys.exit(main())
