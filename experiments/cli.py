"""The command line: thin over `api`, so that both do the same."""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..data.errors import UserError
from ..data.problems import Problem
from ..seg.engine.launch import launched
from .display import console, errors
from .reading_options import label_kind_option, takes_reading

app = typer.Typer(
    name="fewvox",
    help="Self-supervised pretraining and few-label fine-tuning for 3D image segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

# what a shell reports for a program that a signal ended: 130 for SIGINT, 143 for SIGTERM
_SIGNAL_EXIT = 128
# by whether there is something to go on from
_GO_ON = {
    True: "continue with --resume (compare and studies: the same line again)",
    False: "run the same line again, with --resume where the run's folder has a config.yaml",
}

_IN_SEVERAL_PROCESSES = ("pretrain", "finetune")
# seconds
_TIME_TO_TELL = 1.0


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fewvox {version('fewvox')}")
        raise typer.Exit


Data = Annotated[str, typer.Argument(help="Folder or glob of volumes, or a folder with images/ and labels/.")]
Labels = Annotated[Path | None, typer.Option(help="Folder of label maps, named as their images are.")]
Subjects = Annotated[
    str | None,
    typer.Option(help="CSV table with the columns case and subject, or a pattern such as 'mouse(\\d+)_'."),
]
Regions = Annotated[
    Path | None, typer.Option(help="Folder of masks of what was annotated, named as their images are.")
]
Mapping = Annotated[
    Path | None, typer.Option(help="YAML file that tells what the names of a state dict mean.")
]
AcceptMismatch = Annotated[
    bool, typer.Option("--accept-mismatch", help="Go on though its volumes were prepared otherwise.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]
Extend = Annotated[
    bool, typer.Option("--extend", help="The same, with more steps than the run had: --set steps=N.")
]
JsonFile = Annotated[Path | None, typer.Option(help="Write everything to this file as well.")]


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 (its callback does it)
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Self-supervised pretraining and few-label fine-tuning for 3D image segmentation."""
    if launched().processes > 1 and context.invoked_subcommand not in _IN_SEVERAL_PROCESSES:
        raise UserError(
            f"{launched().processes} processes",
            found=f"fewvox {context.invoked_subcommand}",
            rule=f"Several processes do one of these: {', '.join(_IN_SEVERAL_PROCESSES)}",
            remedy="Run it without torchrun",
        )


@app.command()
@takes_reading(labels=True)
def scan(
    data: Data,
    labels: Labels = None,
    subjects: Subjects = None,
    regions: Regions = None,
    json: JsonFile = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Read every voxel, list every problem; exit 1 when there are errors. Nothing else is written."""
    from . import api, tables

    found = api.scan(data, labels, subjects=subjects, regions=regions, json=json, **reading)
    console.print(tables.scan_table(found))
    for problem in found.problems:
        _show_problem(problem)
    if found.errors:
        console.print(f"errors to solve before `fewvox prepare`: {len(found.errors)}", highlight=False)
        raise typer.Exit(1)
    console.print("no errors", highlight=False)


@app.command()
@takes_reading(labels=True)
def prepare(
    data: Data,
    out: Annotated[Path, typer.Option(help="The store to make; what a stopped run finished is kept.")],
    labels: Labels = None,
    subjects: Subjects = None,
    regions: Regions = None,
    plan: Annotated[Path | None, typer.Option(help="YAML file with the plan to follow.")] = None,
    from_checkpoint: Annotated[
        Path | None, typer.Option(help="Run whose preprocessing, patch and network are adopted.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Patch and network: 'default', 'cpu', a number of GiB, or 'device'.")
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(help="zscore, ct, percentile or none, for all channels or one each (with commas)."),
    ] = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Scan, plan, and write the store that training reads."""
    from . import api

    store = api.prepare(
        data,
        out,
        labels,
        subjects=subjects,
        regions=regions,
        plan=plan,
        from_checkpoint=from_checkpoint,
        budget=budget,
        normalisation=_schemes(normalisation),
        **reading,
    )
    training = store.plan.training
    console.print(
        f"{len(store.cases)} cases ({len(store.annotated)} with labels) in {escape(str(store.path))}\n"
        f"plan: patch {training.patch}, {len(training.strides)} poolings, width {training.width}, "
        f"batch {training.batch}; reasons in {escape(str(store.path / 'plan.yaml'))}",
        highlight=False,
    )


@app.command()
def finetune(
    store: Annotated[Path, typer.Option(help="What `fewvox prepare` made.")],
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    pretrained: Annotated[
        Path | None, typer.Option(help="Run or weights to start from; `fewvox transfer` shows what arrives.")
    ] = None,
    labelled: Annotated[
        int | None, typer.Option(min=1, help="Labels to use, each of another subject.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Decides which labels, initial weights, sampling; 0 if not set.")
    ] = None,
    test: Annotated[
        int, typer.Option(min=0, help="Labelled cases to hold out, the same for every seed.")
    ] = 0,
    split_seed: Annotated[
        int, typer.Option(min=0, help="Decides which cases are held out, and the folds.")
    ] = 0,
    fold: Annotated[
        int | None,
        typer.Option(min=0, help="Validate on this fold (from 0) of the labels, train on the rest."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="How many folds of whole subjects there are; 5 if not set.")
    ] = None,
    cases: Annotated[Path | None, typer.Option(help="JSON lists train, validation, test instead.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override a setting.")] = None,
    mapping: Mapping = None,
    accept_mismatch: AcceptMismatch = False,
    resume: Resume = False,
    extend: Extend = False,
) -> None:
    """Train on labels; without --pretrained this is the supervised baseline."""
    from . import api

    run = api.finetune(
        store,
        out,
        labelled=labelled,
        seed=seed,
        test=test,
        split_seed=split_seed,
        fold=fold,
        folds=folds,
        cases=cases,
        config=config,
        set=set or (),
        pretrained=pretrained,
        mapping=mapping,
        accept_mismatch=accept_mismatch,
        resume=resume,
        extend=extend,
    )
    console.print(f"run: {escape(str(run.path))}", highlight=False, soft_wrap=True)


@app.command()
def transfer(
    checkpoint: Annotated[Path, typer.Argument(help="Run or weights, as for `finetune --pretrained`.")],
    store: Annotated[Path, typer.Option(help="What `fewvox prepare` made.")],
    dry_run: Annotated[  # noqa: ARG001 (the command does nothing else; the option says so)
        bool, typer.Option("--dry-run", help="Train nothing. It never does: finetune --pretrained trains.")
    ] = True,
    load: Annotated[
        str | None, typer.Option(help="encoder, decoder, both, or blocks such as encoder.0,encoder.1.")
    ] = None,
    accept_mismatch: AcceptMismatch = False,
    mapping: Mapping = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings of the fine-tuning.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override a setting.")] = None,
    json: JsonFile = None,
) -> None:
    """Show what of pretrained weights would arrive, and whether the volumes are alike. Nothing is trained.

    Exit 1 where volumes were prepared otherwise, which `finetune` would refuse.
    """
    from . import api

    report = api.transfer(
        checkpoint,
        store,
        load=_choice(load),
        accept_mismatch=accept_mismatch,
        mapping=mapping,
        config=config,
        set=set or (),
        json=json,
    )
    console.print(escape("\n".join(report.lines())), highlight=False, soft_wrap=True)
    if report.mismatches and not report.accepted:
        console.print("[red]fine-tuning would refuse this[/]: the volumes were prepared otherwise")
        raise typer.Exit(1)


@app.command()
def pretrain(
    method: Annotated[str, typer.Argument(help="Pretext method; `fewvox methods` lists them.")],
    store: Annotated[Path, typer.Option(help="What `fewvox prepare` made.")],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    test: Annotated[
        int, typer.Option(min=0, help="Leave out what `finetune --test` of this number holds out.")
    ] = 0,
    split_seed: Annotated[int, typer.Option(min=0, help="Decides which cases are left out.")] = 0,
    cases: Annotated[Path | None, typer.Option(help="Leave out the test cases of this split.json.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override a setting.")] = None,
    resume: Resume = False,
    extend: Extend = False,
) -> None:
    """Train on volumes without their labels; `finetune --pretrained` goes on from the result."""
    from . import api

    run = api.pretrain(
        method,
        store,
        out,
        test=test,
        split_seed=split_seed,
        cases=cases,
        config=config,
        set=set or (),
        resume=resume,
        extend=extend,
    )
    console.print(f"run: {escape(str(run.path))}", highlight=False, soft_wrap=True)


@app.command()
def embed(
    model: Annotated[Path, typer.Option(help="Run, checkpoint folder or weights file.")],
    store: Annotated[Path, typer.Option(help="What `fewvox prepare` made.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    volumes: Annotated[int, typer.Option(min=2, help="At most so many volumes, taken evenly.")] = 50,
    views: Annotated[int, typer.Option(min=1, help="Augmented views of each.")] = 8,
    head: Annotated[bool, typer.Option("--head", help="By the head of the run's pretext method.")] = False,
    moment: Annotated[
        float,
        typer.Option(min=0, max=1, help="Views as early (0, whole) or late (1, parts) in a pretraining."),
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides the views and the random weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Embed views of volumes: principal components, and measures beside those of random weights."""
    from . import api, tables

    found = api.embed(
        model, store, out, volumes=volumes, views=views, head=head, moment=moment, seed=seed, device=device
    )
    console.print(tables.measures_table(found))
    console.print(f"picture: {escape(str((out / 'pca.png').resolve()))}", highlight=False, soft_wrap=True)


@app.command()
def probe(
    model: Annotated[Path, typer.Option(help="Run, checkpoint folder or weights file.")],
    store: Annotated[Path, typer.Option(help="What `fewvox prepare` made, with labels.")],
    test: Annotated[int, typer.Option(min=1, help="Volumes to score, as they were held out before.")],
    labelled: Annotated[int, typer.Option(min=1, help="Volumes to fit the linear layer on.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Decides the labelled ones.")] = 0,
    split_seed: Annotated[int, typer.Option(min=0, help="Decides the test cases.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: JsonFile = None,
) -> None:
    """Measure frozen features by one linear layer, beside those of a network with random weights."""
    from . import api, tables

    found = api.probe(
        model,
        store,
        labelled=labelled,
        test=test,
        seed=seed,
        split_seed=split_seed,
        device=device,
        json=json,
    )
    console.print(tables.probe_table(found))


@app.command()
def compare(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a comparison of fewvox's own.")],
    out: Annotated[Path | None, typer.Option(help="The folder to make, or to continue.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override a setting.")] = None,
) -> None:
    """Compare methods at several numbers of labels and seeds; continues what was stopped."""
    from . import api

    _show_comparison(api.compare(config, out or Path(f"{Path(config).stem}-comparison"), set=set or ()))


@app.command()
def methods() -> None:
    """List the pretext methods: what each does, where it is from, what it trains, what a step costs."""
    from . import api, tables

    console.print(tables.methods_table(api.methods()))


@app.command()
def networks() -> None:
    """List the networks, for --set network=NAME."""
    from . import api

    for name, summary in api.networks().items():
        console.print(f"[bold]{name:14}[/] {escape(summary)}", highlight=False)


@app.command("check-plugin")
def check_plugin(
    name: Annotated[str, typer.Argument(help="Of a method, a network or an augmentation.")],
) -> None:
    """Try whether what a package offers (or one of ours) keeps to the contract; exit 1 where it does not."""
    from . import api, tables

    found = api.check_plugin(name)
    console.print(tables.checks_table(name, found))
    if not all(each.passed for each in found):
        raise typer.Exit(1)


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="store, supply, train, predict, methods or all.")],
    json: JsonFile = None,
) -> None:
    """Measure a part of fewvox on this machine, in turn with other tools that are installed."""
    from . import api, tables

    console.print(tables.bench_table(api.bench(what, json=json)))


@app.command()
@takes_reading(labels=False)
def predict(
    data: Data,
    model: Annotated[
        list[Path],
        typer.Option(help="Run, checkpoint folder or weights file; given several times: averaged."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the masks.")],
    cases: Annotated[
        Path | None, typer.Option(help="Only the test cases of a split.json, or the ids in a text file.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write each class's probability, beside the masks.")
    ] = False,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.99, help="Least share of a window that lies in the next one.")
    ] = 0.5,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Average over the eight flips, in eight times the time.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Probability above which a voxel is of a class, where classes overlap or there is one.",
        ),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB to take at most; what is free if not set.")
    ] = None,
    keep_memory: Annotated[
        bool, typer.Option(help="On a processor, keep what a window frees for the next: faster.")
    ] = True,
    postprocess: Annotated[
        str | None,
        typer.Option(metavar="FILE|none", help="What is done to the masks; else what the run chose itself."),
    ] = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Write a mask for each volume, in its own geometry; exit 1 when one could not be made."""
    from . import api

    made = api.predict(
        model,
        data,
        out,
        cases=cases,
        device=device,
        probabilities=probabilities,
        overlap=overlap,
        mirror=mirror,
        threshold=threshold,
        memory=memory,
        keep_memory=keep_memory,
        postprocess=postprocess,
        **reading,
    )
    kept = f", {len(made.kept)} were there already" if made.kept else ""
    console.print(f"{len(made.written)} masks written to {escape(str(made.path))}{kept}", highlight=False)
    for problem in made.problems:
        _show_problem(problem)
    if made.problems:
        raise typer.Exit(1)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Run, checkpoint folder or weights file.")],
    to: Annotated[str, typer.Option(help="nnunet, safetensors, onnx or nnssl.")],
    out: Annotated[Path, typer.Option(help="Folder (nnunet, safetensors) or file (onnx, nnssl) to make.")],
    dataset: Annotated[
        str | None, typer.Option(help="nnunet: the data set to train on, such as Dataset004_Hippocampus.")
    ] = None,
) -> None:
    """Write a model for another program: nnU-Net, ONNX, or any that reads safetensors."""
    from . import api

    made = api.export(model, to, out, dataset=dataset)
    console.print(f"written: {escape(str(made))}", highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of masks.")],
    labels: Annotated[Path, typer.Argument(help="Folder of label maps of the same names.")],
    label_kind: Annotated[str | None, typer.Option(help="For masks of another program.")] = None,
    ignore_value: Annotated[
        int | None, typer.Option(help="Label value of voxels that nobody annotated; they are not scored.")
    ] = None,
    json: JsonFile = None,
    regions: Annotated[
        Path | None, typer.Option(help="Folder of masks of what was annotated; the rest is not scored.")
    ] = None,
    accept_geometry: Annotated[
        bool, typer.Option("--accept-geometry", help="Compare voxel by voxel though headers disagree.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="NSD: how far a surface may be off, in the files' unit; else the coarsest spacing."
        ),
    ] = None,
    objects: Annotated[
        bool, typer.Option("--objects", help="Also score instances, matched by their IoU.")
    ] = False,
) -> None:
    """Score masks against labels: Dice, IoU, HD95, NSD; --json has all. Training cases are in no mean."""
    from . import api, tables

    found = api.evaluate(
        predictions,
        labels,
        label_kind=label_kind_option(label_kind),
        ignore=ignore_value,
        regions=regions,
        accept_geometry=accept_geometry,
        tolerance=tolerance,
        objects=objects,
        json=json,
    )
    console.print(tables.score_table(found))
    if found.all_objects is not None:
        console.print(tables.object_table(found.all_objects))
    for ids, what in (
        (found.excluded, "were training or validation cases of the model and are left out of the means"),
        (found.without_prediction, "labels have no mask"),
        (found.without_label, "masks have no label"),
    ):
        if ids:
            console.print(f"{len(ids)} {what}: {escape(', '.join(ids[:5]))}", highlight=False)
    mean = found.mean()
    if mean is None:
        console.print("no case that the model has not seen: there is nothing to average", highlight=False)
    console.print(f"mean Dice {'n/a' if mean is None else f'{mean:.4f}'}", highlight=False)
    for problem in found.problems:
        _show_problem(problem)
    if found.problems:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Folder to make; fewvox-demo by default.")] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="A minute's version, for trying the machinery.")
    ] = False,
) -> None:
    """Synthetic nuclei: pretrain two ways, fine-tune with 1, 2 and 4 labels, score, report."""
    from . import api

    _show_comparison(api.demo(out, fast=fast))


def _show_comparison(made: Any) -> None:
    from . import tables

    console.print(tables.comparison_table(made.results))
    console.print(f"report: {escape(str(made.report.resolve()))}", highlight=False, soft_wrap=True)
    failed = [run for run in made.results.runs if run.status == "failed"]
    if failed:
        console.print(f"[red]{len(failed)} runs failed[/]; the report says why", highlight=False)
        raise typer.Exit(1)


def _choice(text: str | None) -> Any:
    return text if text in (None, "encoder", "decoder", "both") else tuple(text.split(","))


def _schemes(text: str | None) -> Any:
    if text is None:
        return None
    schemes = text.split(",")
    unknown = sorted(set(schemes) - {"zscore", "ct", "percentile", "none"})
    if unknown:
        raise typer.BadParameter(
            f"'{unknown[0]}' is none of zscore, ct, percentile, none", param_hint="--normalisation"
        )
    return schemes


_COLOURS = {"error": "red", "warning": "yellow", "corrected": "cyan", "accepted": "magenta"}


def _show_problem(problem: Problem) -> None:
    colour = _COLOURS[problem.severity]
    told = f"[{colour}]{problem.severity}[/] {escape(str(problem))}"
    console.print(told, highlight=False, soft_wrap=True)


def main() -> None:
    """The program `fewvox`."""
    answered(app)


def answered(program: Callable[[], object]) -> None:
    """Calls a program: errors that a user can act on are told in words, with exit status 1.

    Of several processes that train together one tells of its error: that which failed first.
    """
    level = logging.ERROR if launched().rank else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")
    from ..seg.engine.stopping import Interrupted

    try:
        program()
    except UserError as error:
        _tell_error(str(error))
        sys.exit(1)
    except OSError as error:
        where = error.filename or "a file"
        advice = "Check the path, the rights on it and the space on its disk, and run the command again"
        _tell_error(f"{where}: {error.strerror or error}. {advice}.")
        sys.exit(1)
    except Interrupted as stop:
        console.quiet = not _tells()
        console.print(f"{stop}; {_GO_ON[stop.step is not None]}", highlight=False, soft_wrap=True)
        sys.exit(_SIGNAL_EXIT + stop.signal_number)
    except Exception:
        if not _tells():
            sys.exit(1)
        raise


def _tell_error(text: str) -> None:
    if _tells():
        errors.print(f"[red]error[/] {escape(text)}", highlight=False, soft_wrap=True)


def _tells() -> bool:
    """Whether what ends this process is to be told."""
    if launched().processes == 1:
        return True
    from ..seg.engine.distributed import first_to_fail  # needs torch, which is slow to import

    if not first_to_fail():
        # torchrun ends all as soon as one has ended, also one that is still to tell
        time.sleep(_TIME_TO_TELL)
    return first_to_fail()
