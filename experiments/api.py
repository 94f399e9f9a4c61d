"""The commands as Python functions: the same names, the same arguments, and what they made as result."""

import json as json_library
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from rich.markup import escape

from ..data import prepare as preparing
from ..data import scan as scanning
from ..data.atomic import new_folder, write_text
from ..data.errors import UserError
from ..data.labels import LabelKind
from ..data.layouts import refuse_among_images
from ..data.plan import BudgetName, Scheme
from ..data.reading import ScanOptions
from ..data.scan import Scan
from ..data.settings import plain
from ..data.splits import split, without_subjects_of
from ..data.store import Store
from ..seg import batch_predict
from ..seg import evaluate as evaluating
from ..seg import finetune as finetuning
from ..seg.batch_predict import Predictions
from ..seg.checkpoint import load
from ..seg.contract import ways_out
from ..seg.evaluate import Evaluation
from ..seg.export.nnssl import export_nnssl
from ..seg.export.nnunet import export_nnunet
from ..seg.export.onnx_file import export_onnx
from ..seg.export.safetensors_file import export_safetensors
from ..seg.finetune import FinetuneConfig, Finetuned
from ..seg.guard import patches_of
from ..seg.handoff import hand_over
from ..seg.neighbours.sources import open_source
from ..seg.networks.registry import NETWORKS, architecture_for, build
from ..seg.networks.registry import PLUGINS as NETWORK_PLUGINS
from ..seg.predict import PredictConfig
from ..seg.training import planned as planned_training
from ..seg.transfer_report import Choice, TransferReport
from ..ssl import embeddings as embedding
from ..ssl import pretrain as pretraining
from ..ssl import probes as probing
from ..ssl.embeddings import Embeddings
from ..ssl.method import PLUGINS as METHOD_PLUGINS
from ..ssl.pretrain import PretrainConfig, Pretrained
from ..ssl.probes import Probed
from . import plugin_checks
from .config import configuration, read_cases, read_split
from .display import TrainingDisplay, bytes_text, console, meter
from .method_list import MethodFacts, method_facts
from .planning import check_one_source, label_kind_of, planned
from .plugin_checks import Checked
from .reading import LabelReading, Reading, scan_options

if TYPE_CHECKING:
    from .bench.figure import Figure
    from .compare import Comparison

# as nnU-Net has
FOLDS = 5
EXPORTS: dict[str, Callable[..., list[str]]] = {
    "nnunet": export_nnunet,
    "safetensors": export_safetensors,
    "onnx": export_onnx,
    "nnssl": export_nnssl,
}


def scan(
    data: str | Path,
    labels: str | Path | None = None,
    *,
    subjects: str | Path | None = None,
    regions: str | Path | None = None,
    json: str | Path | None = None,
    **reading: Unpack[LabelReading],
) -> Scan:
    """Reads every voxel of a data set and lists every problem; writes nothing but `json`.

    Args:
        data: a folder or glob of volumes, or a folder with `images/` and `labels/` or a `dataset.json`.
        labels: folder of label maps named as their images are.
        subjects: CSV table with the columns case and subject, or a regular expression with one group that
            finds the subject in the id of a case.
        regions: folder of masks of what was annotated, named as their images are.
        json: file to write all that was found to.
        **reading: how images and labels are read, as `LabelReading` tells.
    """
    return _scan(data, labels, subjects, regions, json, scan_options(reading))


def _scan(
    data: str | Path,
    labels: str | Path | None,
    subjects: str | Path | None,
    regions: str | Path | None,
    json: str | Path | None,
    options: ScanOptions,
) -> Scan:
    with meter("reading") as shown:
        scanned = scanning.scan(
            data, labels, subjects=subjects, regions=regions, options=options, progress=shown.update
        )
    if json is not None:
        values = {
            "fingerprint": plain(scanned.fingerprint),
            "label_kind": scanned.label_kind,
            "problems": [vars(p) for p in scanned.problems],
        }
        write_text(Path(json), json_library.dumps(values, indent=1))
    return scanned


def prepare(
    data: str | Path,
    out: str | Path,
    labels: str | Path | None = None,
    *,
    subjects: str | Path | None = None,
    regions: str | Path | None = None,
    plan: str | Path | None = None,
    from_checkpoint: str | Path | None = None,
    budget: BudgetName | str | float | None = None,
    normalisation: Sequence[Scheme] | None = None,
    **reading: Unpack[LabelReading],
) -> Store:
    """Scans a data set, plans, and writes a store, or opens the one that was made of it in the same way.

    What a stopped `prepare` finished is kept: the same call goes on from there.

    Args:
        data, labels, subjects, regions: as in `scan`.
        out: the store to make.
        plan: YAML file with the plan to follow; made from the data when None.
        from_checkpoint: run or checkpoint whose preprocessing and patch are adopted, instead of `plan`.
        budget: size of patches and network: "default" (128^3 voxels; when None), "cpu" (64^3), a number of
            GiB of memory, or "device" for what is free there.
        normalisation: "zscore", "ct", "percentile" or "none", one for all channels or one each; chosen
            from channel names and grey values when None.
        **reading: how images and labels are read, as `LabelReading` tells.

    Raises:
        UserError: the scan found errors (all are told), or the store cannot be written.
    """
    check_one_source(plan, from_checkpoint, budget, normalisation)
    preparing.check_place(Path(out))
    refuse_among_images(Path(out), data)
    options = scan_options(reading)
    kind, ignore = label_kind_of(plan, options.label_kind, options.ignore)
    options = replace(options, label_kind=kind, ignore=ignore)
    begun = time.perf_counter()
    scanned = _scan(data, labels, subjects, regions, None, options)
    _refuse_errors(scanned)
    for told in (*(f"warning: {warning}" for warning in scanned.warnings), *scanned.records):
        _say(told)
    chosen = planned(
        scanned,
        file=plan,
        checkpoint=from_checkpoint,
        budget=budget,
        normalisation=normalisation,
        say=_say,
    )
    # preparing took two to seven times as long as scanning, on small volumes and on large ones
    seconds = 6 * (time.perf_counter() - begun)
    _say(
        f"estimate: {seconds:.0f} s, {bytes_text(preparing.memory_needed(scanned))} memory, "
        f"up to {bytes_text(preparing.bytes_needed(scanned, chosen))} disk"
    )
    with meter("preparing") as shown:
        store = preparing.prepare(scanned, chosen, out, progress=shown.update)
    if store.plan.training != chosen.training:
        _say("the store was there already, and its own patch, network and batch stand")
    for case in store.cases.values():
        if case.lost_classes:
            _say(f"warning: {case.id}: classes {case.lost_classes} are too small for the plan's spacing")
    return store


def finetune(
    store: str | Path,
    out: str | Path,
    *,
    labelled: int | None = None,
    seed: int | None = None,
    test: int = 0,
    split_seed: int = 0,
    fold: int | None = None,
    folds: int | None = None,
    cases: str | Path | None = None,
    config: str | Path | None = None,
    set: Sequence[str] = (),
    pretrained: str | Path | None = None,
    mapping: str | Path | None = None,
    accept_mismatch: bool = False,
    resume: bool = False,
    extend: bool = False,
) -> Finetuned:
    """Trains a network on labels: from scratch (the supervised baseline) or from `pretrained`.

    Args:
        store: what `prepare` made.
        out: the run folder to make, or to continue with `resume`.
        labelled: labels to use, each of another subject; all that are not test cases when None.
        seed: decides which labels, initial weights and sampling; the configuration's (0) when None.
        test: at least this many labelled cases are held out, the same for every `seed`.
        split_seed: decides which, and the folds.
        fold: validates on this one (from 0) of `folds` parts of the labels, and trains on the others.
        folds: how many parts there are; 5 when None.
        cases: JSON file with the lists train, validation, test (a run's split.json) instead.
        config: YAML file of settings (FinetuneConfig).
        set: overrides such as "optimizer.lr=0.001".
        pretrained: weights to start from: a run, a checkpoint folder, a weights file, or those of nnU-Net,
            nnssl or a plain state dict. `transfer` tells beforehand what of them would arrive.
        mapping: YAML file that tells what the names of a state dict mean.
        accept_mismatch: fine-tune though the volumes of the pretraining were prepared otherwise.
        resume: continue the run from its last checkpoint.
        extend: the same, with more steps than the run had.
    """
    opened = Store.open(store)
    settled = _finetune_config(config, set, seed=seed, accept_mismatch=accept_mismatch or None)
    if mapping is not None and pretrained is None:
        raise UserError(
            f"--mapping {mapping}",
            found="no pretrained weights",
            rule="A mapping tells what the names in a file of weights mean",
            remedy="Give --pretrained, or leave --mapping out to train from scratch",
        )
    if folds is not None and fold is None:
        raise UserError(
            f"--folds {folds}",
            found="no --fold",
            rule="A run trains for one of the folds",
            remedy=f"Give --fold 0, and run again up to --fold {folds - 1}",
        )
    if cases is None:
        chosen = split(
            opened.annotated,
            test=test,
            labelled=labelled,
            seed=settled.seed,
            split_seed=split_seed,
            fold=None if fold is None else (fold, folds or FOLDS),
        )
    elif labelled is None and test == 0 and fold is None:
        chosen = read_split(cases)
    else:
        raise UserError(
            f"--cases {cases}",
            found="--labelled, --test or --fold beside it",
            rule="Either a file says which cases train, validate and test, or their numbers do",
            remedy="Leave one of the two out",
        )
    which = "" if fold is None else f"fold {fold} of {folds or FOLDS}: "
    console.print(
        f"{which}{len(chosen.train)} training, {len(chosen.validation)} validation, "
        f"{len(chosen.test)} test cases",
        highlight=False,
    )
    with meter("training") as shown:
        return finetuning.finetune(
            opened,
            chosen,
            out,
            settled,
            pretrained=open_source(pretrained, mapping) if pretrained is not None else None,
            resume=resume,
            extend=extend,
            observer=TrainingDisplay(shown),
            announce=_say,
        )


def transfer(
    checkpoint: str | Path,
    store: str | Path,
    *,
    load: Choice | None = None,
    accept_mismatch: bool = False,
    mapping: str | Path | None = None,
    config: str | Path | None = None,
    set: Sequence[str] = (),
    json: str | Path | None = None,
) -> TransferReport:
    """What `finetune` would take of pretrained weights for a store; nothing is trained or written but `json`.

    Volumes that were prepared otherwise are no error here: they stand in the report, with the ways out among
    its warnings. How the images look is measured on all cases of the store, as no split is known here;
    `finetune` leaves its test cases out.

    Args:
        checkpoint: as `pretrained` of `finetune`.
        store: what `prepare` made.
        load: "encoder", "decoder", "both", or names of parts and blocks; the configuration's when None.
        accept_mismatch: report as accepted that volumes were prepared otherwise.
        mapping: YAML file that tells what the names of a state dict mean.
        config, set: as in `finetune`.
        json: file to write the report to.
    """
    opened = Store.open(store)
    settled = _finetune_config(config, set, load=load, accept_mismatch=accept_mismatch or None)
    plan = planned_training(opened.plan, settled)
    source = open_source(checkpoint, mapping)
    architecture = architecture_for(plan, settled.network or source.architecture.name)
    found = hand_over(
        build(architecture, settled.seed),
        architecture,
        source,
        plan,
        patches_of(opened, sorted(opened.cases), plan.training.patch),
        load=settled.load,
        expected_share=settled.expected_share,
        accept_mismatch=True,
    )
    report = found
    if found.mismatches and not settled.accept_mismatch:
        refused = f"fine-tuning refuses volumes prepared otherwise. {ways_out(source.contract, plan)}"
        report = replace(found, accepted=False, warnings=(*found.warnings, refused))
    if json is not None:
        write_text(Path(json), json_library.dumps(plain(report), indent=1))
    return report


def _finetune_config(config: str | Path | None, set: Sequence[str], **given: object) -> FinetuneConfig:
    """The settings of a file and of `set`, under those that are given and not None."""
    told = {name: value for name, value in given.items() if value is not None}
    return configuration(FinetuneConfig, config, set, **told)


def pretrain(
    method: str,
    store: str | Path,
    out: str | Path,
    *,
    test: int = 0,
    split_seed: int = 0,
    cases: str | Path | None = None,
    config: str | Path | None = None,
    set: Sequence[str] = (),
    resume: bool = False,
    extend: bool = False,
) -> Pretrained:
    """Trains a network on a store's volumes without their labels, by a pretext method.

    Args:
        method: one of those that `fewvox methods` lists.
        store: what `prepare` made.
        out: the run folder to make, or to continue with `resume`.
        test: leaves out the labelled cases that `finetune` holds out with the same `test` and `split_seed`.
        split_seed: decides which these are.
        cases: leaves out the test cases of this JSON file (a run's split.json) instead.
        config: YAML file of settings (PretrainConfig).
        set: overrides such as "steps=2000" or "options.margin=0.3".
        resume: continue the run from its last checkpoint.
        extend: the same, with more steps than the run had.
    """
    opened = Store.open(store)
    settled = configuration(PretrainConfig, config, set, method=method)
    if cases is not None and test > 0:
        raise UserError(
            f"--cases {cases}",
            found="--test beside it",
            rule="Either a file says which cases are held out, or their number does",
            remedy="Leave one of the two out",
        )
    held_out: tuple[str, ...] = ()
    if cases is not None:
        held_out = read_cases(cases)
    elif test > 0:
        held_out = split(opened.annotated, test=test, labelled=None, seed=0, split_seed=split_seed).test
    chosen = without_subjects_of(tuple(opened.cases.values()), held_out)
    labelled = [case for case in opened.annotated if case.id in chosen]
    console.print(f"{len(chosen)} volumes, {len(held_out)} test cases left out", highlight=False)
    if labelled and not held_out:
        console.print(
            f"{len(labelled)} of them have labels, which are not read. None of these can be a test case of "
            "what is fine-tuned from this run: hold some out with --test or --cases",
            highlight=False,
        )
    with meter("pretraining") as shown:
        return pretraining.pretrain(
            opened,
            chosen,
            out,
            settled,
            held_out=held_out,
            resume=resume,
            extend=extend,
            observer=TrainingDisplay(shown, "embeddings"),
            announce=_say,
        )


def embed(
    model: str | Path,
    store: str | Path,
    out: str | Path,
    *,
    volumes: int = 50,
    views: int = 8,
    head: bool = False,
    moment: float = 1.0,
    seed: int = 0,
    device: str = "auto",
) -> Embeddings:
    """Embeds views of a store's volumes, and writes what that tells of the network, beside random weights.

    Args:
        model: a run, a checkpoint folder or a weights file, pretrained or supervised.
        store: what `prepare` made, with the preprocessing of the model.
        out: the folder to make: embeddings.npz, embeddings.csv, measures.json, pca.png and pca_random.png.
        volumes: of more cases in the store, so many are taken evenly.
        views: augmented views of each volume.
        head: embed by the head of the method that `model`, a run, was pretrained with, and not by pooled
            features of the network.
        moment: 0 for views as a pretraining begins with, nearly whole volumes; 1 for parts, as at its end.
        seed: decides the views and the random weights.
        device: "auto", "cpu" or "cuda".
    """
    from .pictures import write_embeddings  # slow to import, needed here alone

    checkpoint = load(model)
    with new_folder(Path(out)) as partial:
        with meter("embedding") as shown:
            found = embedding.embed(
                checkpoint,
                Store.open(store),
                volumes=volumes,
                views=views,
                seed=seed,
                device=device,
                beside_random=True,
                head_of=Path(model) if head else None,
                moment=moment,
                progress=shown.update,
            )
        by = f"head of {checkpoint.info.method}" if head else checkpoint.info.method
        write_embeddings(found, f"{by}, {checkpoint.info.steps} steps", partial)
    return found


def probe(
    model: str | Path,
    store: str | Path,
    *,
    labelled: int = 4,
    test: int = 0,
    seed: int = 0,
    split_seed: int = 0,
    device: str = "auto",
    json: str | Path | None = None,
) -> tuple[Probed, ...]:
    """Dice of a linear layer on frozen features, of the network and of one with random weights.

    Args:
        model: a run, a checkpoint folder or a weights file, pretrained or supervised.
        store: what `prepare` made, with labels and with the preprocessing of the model.
        labelled: how many labelled volumes the layer is fitted on.
        test: how many it is scored on; those that `pretrain` and `finetune` hold out with the same `test` and
            `split_seed`.
        seed: decides which are labelled, the voxels of the fit, and the random weights.
        split_seed: decides which are tested.
        device: "auto", "cpu" or "cuda".
        json: a file that what was found is written to.
    """
    opened = Store.open(store)
    if test < 1:
        raise UserError(
            f"--test {test}",
            found="no test case",
            rule="A probe is scored on labelled volumes that neither the network nor the probe has seen",
            remedy="Give the --test that the pretraining had",
        )
    chosen = split(opened.annotated, test=test, labelled=labelled, seed=seed, split_seed=split_seed)
    with meter("probing"):
        found = probing.probe_checkpoint(load(model), opened, {seed: chosen}, device=device)
    if json is not None:
        write_text(Path(json), json_library.dumps(plain(found), indent=1))
    return found


def demo(out: str | Path | None = None, *, fast: bool = False) -> "Comparison":
    """Compares two pretrainings with training from scratch, on synthetic nuclei made for it.

    Args:
        out: the folder to make; "fewvox-demo", or with a number when that exists, when None.
        fast: a minute's version whose scores mean nothing.
    """
    from .demo import demo as run_demo

    return run_demo(out, fast=fast)


def methods() -> tuple[MethodFacts, ...]:
    """The pretext methods there are, of installed packages too; what of those cannot be used is said."""
    _warn(METHOD_PLUGINS.load_all())
    return method_facts()


def networks() -> dict[str, str]:
    """The networks there are, of installed packages too, and in a line what each is and where it is from."""
    _warn(NETWORK_PLUGINS.load_all())
    return {name: registered.summary for name, registered in NETWORKS.items()}


def check_plugin(name: str) -> tuple[Checked, ...]:
    """Whether a method, a network or an augmentation keeps to what ours keep to.

    Args:
        name: of ours, or one that an installed package offers; everything that has this name is checked.
    """
    return plugin_checks.check_plugin(name)


def compare(config: str | Path, out: str | Path, *, set: Sequence[str] = ()) -> "Comparison":
    """Runs a comparison of methods, and writes its results and report.

    What is done is not done again: the same call continues a comparison that was stopped. A cell that fails
    is recorded with its error, and the others go on. Arms, label counts and seeds can be added later.

    Args:
        config: YAML file of a comparison (docs/comparisons.md), or the name of one that comes with fewvox.
        out: the folder to make, or to continue.
        set: overrides such as "data=DIR".
    """
    from .compare import run_comparison
    from .comparison import read_config

    command = shlex.join(["fewvox", "compare", str(config), *(part for s in set for part in ("--set", s))])
    return run_comparison(read_config(config, set), Path(out), command)


def bench(what: str, *, json: str | Path | None = None) -> "tuple[Figure, ...]":
    """Measures a part of fewvox on this machine, in turn with other tools that are installed.

    Args:
        what: "store", "supply", "train", "predict", "methods" or "all".
        json: file to write the ratios to, by their keys, and under "figures" all that was measured.
    """
    from .bench.bench import bench as run_bench

    found = run_bench(what)
    if json is not None:
        ratios = {figure.key: figure.ratio for figure in found if figure.key is not None}
        figures = [{**plain(figure), "ratio": figure.ratio} for figure in found]
        write_text(Path(json), json_library.dumps({**ratios, "figures": figures}, indent=1))
    return found


def predict(
    model: str | Path | Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    cases: str | Path | None = None,
    device: str = "auto",
    probabilities: bool = False,
    overlap: float = 0.5,
    mirror: bool = False,
    threshold: float | None = None,
    memory: float | None = None,
    keep_memory: bool = True,
    postprocess: str | Path | None = None,
    **reading: Unpack[Reading],
) -> Predictions:
    """Writes a mask for each volume, in its own geometry and format.

    Args:
        model: a run, a checkpoint folder or a weights file; of several (folds, plans, networks) the
            probabilities are averaged.
        data: a folder or glob of volumes, or a folder with `images/`.
        out: folder of the masks; one begun with the same models and settings is completed.
        cases: only these: the test cases of a split.json, or a text file with one id a line.
        device: "auto", "cpu" or "cuda".
        probabilities: also write the probability of each class, as `<case>_probabilities` beside the masks.
        overlap: least share of a window that lies in the next one.
        mirror: average over the flips of the volume, which takes eight times as long.
        threshold: probability above which a voxel is of a class, where classes overlap or there is one.
        memory: GiB that the prediction may take; what is free when None.
        keep_memory: on a processor, keep what a window frees for the next, which is faster.
        postprocess: YAML file that tells what is done to the masks, or "none"; when None what the run chose
            on its validation cases.
        **reading: how images are read, as `Reading` tells.
    """
    with meter("predicting") as shown:
        return batch_predict.predict(
            model,
            data,
            out,
            only=read_cases(cases) if cases is not None else None,
            options=scan_options(reading),
            config=PredictConfig(
                overlap=overlap,
                mirror=mirror,
                threshold=threshold,
                memory_gib=memory,
                keep_memory=keep_memory,
            ),
            postprocess=postprocess,
            device=device,
            probabilities=probabilities,
            progress=shown.update,
            announce=_say,
        )


def export(model: str | Path, to: str, out: str | Path, *, dataset: str | None = None) -> Path:
    """Writes a model for another program, and gives the path of what was written.

    Args:
        model: a run, a checkpoint folder or a weights file.
        to: "nnunet" (a folder to train from, and to predict with where the run was trained on labels),
            "safetensors" (a folder of weights and JSON), "onnx" (a file) or "nnssl" (a file with an
            adaptation plan).
        out: the folder or file to make.
        dataset: with "nnunet", the name of the nnU-Net data set to train on; "Dataset001_fewvox" when None.
    """
    if to not in EXPORTS:
        raise UserError(
            f"--to {to}",
            found="no such format",
            rule=f"There are: {', '.join(EXPORTS)}",
            remedy="Choose one of them",
        )
    if dataset is not None and to != "nnunet":
        raise UserError(
            f"--dataset {dataset}",
            found=f"--to {to} beside it",
            rule="Only the plans of nnU-Net name a data set",
            remedy="Leave it out",
        )
    named = {} if dataset is None else {"dataset": dataset}
    for line in EXPORTS[to](load(model), Path(out), **named):
        _say(line)
    return Path(out)


def evaluate(
    predictions: str | Path,
    labels: str | Path,
    *,
    label_kind: LabelKind | None = None,
    ignore: int | None = None,
    regions: str | Path | None = None,
    accept_geometry: bool = False,
    tolerance: float | None = None,
    objects: bool = False,
    json: str | Path | None = None,
) -> Evaluation:
    """Scores of masks against labels of the same names: overlap, surfaces, volumes, objects if wanted.

    Args:
        predictions: folder of masks.
        labels: folder of label maps, or a data set with `labels/`.
        label_kind: for masks of another program; otherwise the masks' own manifest tells.
        ignore: the label value of voxels that nobody annotated, which are not scored; told as the kind is.
        regions: folder of masks of what was annotated; the rest is not scored.
        accept_geometry: compare voxel by voxel though headers disagree.
        tolerance: how far a surface may be off for NSD, in the unit of the files; the coarsest spacing of
            each case when None.
        objects: also match instances by their IoU and score those.
        json: file to write every score to.
    """
    with meter("scoring") as shown:
        found = evaluating.evaluate(
            predictions,
            labels,
            label_kind=label_kind,
            ignore=ignore,
            regions=regions,
            accept_geometry=accept_geometry,
            tolerance=tolerance,
            objects=objects,
            progress=shown.update,
        )
    if json is not None:
        write_text(Path(json), json_library.dumps({**plain(found), "mean_dice": found.mean()}, indent=1))
    return found


def _warn(problems: Sequence[UserError]) -> None:
    for problem in problems:
        _say(f"warning: {problem}")


def _say(text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)


def _refuse_errors(scanned: Scan) -> None:
    if scanned.errors:
        told = "".join(f"\n  {problem}" for problem in scanned.errors)
        raise UserError(
            "the data set",
            found=f"{len(scanned.errors)} problems:{told}\n",
            rule="Only a data set without errors is prepared",
            remedy="Solve these and run the command again; nothing was written",
        )
