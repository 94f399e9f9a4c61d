import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from fewvox.experiments.report import figures
from fewvox.experiments.report.report import Picture, cautions, lead, sentences, verdict, write_report
from fewvox.experiments.results import (
    ArmSummary,
    Curve,
    Difference,
    Interval,
    Results,
    RunRecord,
    Score,
    Transferred,
)

CASES = tuple(f"case_{i}" for i in range(8))
NASTY = '<b>mine</b> & "yours" $x_1$ 細胞 ' + "long " * 20
UNDECIDED = "no difference that these data can show"


def interval(mean: float, half: float = 0.02) -> Interval:
    return Interval(mean=mean, low=mean - half, high=mean + half)


def summary(arm: str, labels: int, mean: float, **changes) -> ArmSummary:
    known = {"per_class": {1: mean + 0.1, 2: mean - 0.1}, "runs": 3, "runs_with_zero_class": 0}
    return ArmSummary(
        **{"arm": arm, "labels": labels, "dice": interval(mean, 0.03), "failed_runs": 0} | known | changes
    )


def difference(arm: str, labels: int, mean: float, **changes) -> Difference:
    known = {
        "dice": interval(mean),
        "cases": 8,
        "seeds": 3,
        "share_better": 0.75,
        "per_case": {case: mean + 0.01 * (i - 3.5) for i, case in enumerate(CASES)},
        "seeds_without_zero_runs": 3,
    }
    return Difference(**{"arm": arm, "baseline": "scratch", "labels": labels} | known | changes)


def run(stage: str, arm: str, labels: int | None, seed: int = 0, **changes) -> RunRecord:
    names = ("loss", "monitor/spread", "monitor/a<b") if stage == "pretraining" else ("loss",)
    steps = tuple(range(1, 101))
    curves = tuple(Curve(name=n, steps=steps, values=tuple(1 / s for s in steps)) for n in names)
    known = {"steps": 100, "seconds": 3725.0, "mean_dice": None if labels is None else 0.6, "curves": curves}
    return RunRecord(**{"stage": stage, "arm": arm, "labels": labels, "seed": seed} | known | changes)


@pytest.fixture
def results() -> Results:
    """Better with 1 label, undecided with 2, worse with 4; one failed run."""
    gains = {1: 0.0512, 2: 0.0034, 4: -0.0456}
    summaries = [summary("scratch", n, 0.6) for n in gains]
    summaries += [summary("triplet", n, 0.6 + gain) for n, gain in gains.items()]
    runs = [run("fine-tuning", arm, n, s) for arm in ("scratch", "triplet") for n in gains for s in range(3)]
    runs[-1] = replace(
        runs[-1], status="failed", error="CUDA <out> of memory", mean_dice=None, seconds=None, curves=()
    )
    runs[-2] = replace(runs[-2], sittings=2, parameters_loaded={"encoder": 1.0, "decoder": 0.973})
    scores = [
        Score(arm="triplet", labels=1, seed=0, case=c, value=v, dice=0.5, iou=0.345, hd95=None)
        for c in CASES
        for v in (1, 2)
    ]
    return Results(
        name="Tiny",
        command="fewvox compare tiny --out <here>",
        created="2026-11-21",
        commit="abc123",
        confidence=0.95,
        baseline="scratch",
        arms=("scratch", "triplet"),
        label_counts=(1, 2, 4),
        seeds=(0, 1, 2),
        test_cases=CASES,
        hd95_unit="um",
        leak_check="No test case was among the training volumes.",
        environment={"torch": "2.7.0"},
        config={"arms": {"triplet": {"margin": 0.2}}},
        runs=(run("pretraining", "triplet", None), *runs),
        scores=tuple(scores),
        summaries=tuple(summaries),
        differences=tuple(difference("triplet", n, gain) for n, gain in gains.items()),
    )


class Page(HTMLParser):
    """Tags with attributes, and the text of the page outside its style."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.tags, self.text, self.inside = source, [], "", []
        self.feed(source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.inside.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        if "style" not in self.inside:
            self.text += data


@pytest.fixture
def page(tmp_path):
    def write(results: Results, pictures=()) -> Page:
        out = tmp_path / "report.html"
        write_report(results, pictures, out)
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
        written = Page(out.read_text(encoding="utf-8"))
        assert written.inside == [], "every tag is closed"
        return written

    return write


def assert_self_contained(page: Page) -> None:
    assert not {"link", "script", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)
    assert "@import" not in page.source
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page.source))


def with_differences(results: Results, *differences: Difference, zero: int = 0) -> Results:
    changed = tuple(replace(s, runs_with_zero_class=zero) for s in results.summaries)
    return replace(results, differences=differences, summaries=changed)


def test_numbers_appear_where_a_reader_looks(results, page):
    text = page(results).text
    for number in (
        "0.651 [0.621, 0.681]",  # mean Dice of triplet with 1 label
        "+0.051 [0.031, 0.071] better",
        f"+0.003 [−0.017, 0.023] {UNDECIDED}",  # noqa: RUF001
        "−0.046 [−0.066, −0.026] worse",  # noqa: RUF001
        "better in 6 of 8",
        "8 test cases, with 3 seeds",
        "95 % intervals",
        "1:02:05 in 2 sittings",
        "encoder 100 %, decoder 97.3 %",
        "1:02:05 for pretraining and 17:35:25 for fine-tuning",
        "19 runs, 1 failed",
        "abc123",
        "margin: 0.2",
        "2.7.0",
        "No test case was among the training volumes.",
    ):
        assert number in text
    (row,) = re.findall(
        r"triplet 1 2 ([\d.]+) ([\d.]+) (\S+)", re.sub(r"<[^>]+>|\s+", " ", _rows(page(results)))
    )
    assert row == ("0.551", "0.345", "–")  # noqa: RUF001


def _rows(page: Page) -> str:
    start = page.source.index("Scores of each class")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.source[start:]))


def test_the_order_is_result_labels_cases_training_pictures_runs_methods(results, page):
    pictures = [
        Picture(title="E", caption="c", group="embeddings", png=b"x"),
        Picture(title="S", caption="c", group="slices", png=b"y"),
    ]
    written = page(results, pictures)
    sections = [attributes["id"] for tag, attributes in written.tags if tag == "section"]
    assert sections == ["result", "labels", "cases", "curves", "pictures", "runs", "reading"]
    assert [a["alt"] for tag, a in written.tags if tag == "img"] == ["S. c", "E. c"]
    assert next(a["src"] for tag, a in written.tags if tag == "img") == "data:image/png;base64,eQ=="
    links = {a["href"][1:] for tag, a in written.tags if tag == "a"}
    assert links == set(sections)


def test_nothing_outside_the_file_is_needed(results, page):
    written = page(results, [Picture(title="a", caption="b", group="slices", png=b"x")])
    assert_self_contained(written)
    assert "http:" not in written.source
    assert "https:" not in written.source
    policy = next(a["content"] for tag, a in written.tags if "Content-Security-Policy" in a.values())
    assert policy.startswith("default-src 'none'")


def test_names_from_files_stay_text(results, page):
    def rename(items):
        return tuple(replace(i, arm=NASTY) if i.arm == "triplet" else i for i in items)

    nasty = replace(
        results,
        name=NASTY,
        leak_check=NASTY,
        hd95_unit=NASTY,
        environment={NASTY: NASTY},
        config={NASTY: "</pre><script>alert(1)</script>"},
        test_cases=(NASTY, *CASES[1:]),
        arms=("scratch", NASTY),
        runs=rename(results.runs),
        summaries=rename(results.summaries),
        differences=rename(results.differences),
    )
    picture = Picture(title=NASTY, caption='" onload="alert(1)', group="slices", png=b"x")
    written = page(nasty, [picture])
    assert_self_contained(written)
    assert not [tag for tag, a in written.tags if tag == "b" or "onload" in a]
    assert '<b>mine</b> & "yours" $x_1$ 細胞 long' in written.text
    # a figure shows a shortened name, and no formula
    assert '<b>mine</b> & "yours" $x_1$ 細胞 lo…: better in 6 of 8' in written.text


def test_headline_follows_the_interval(results):
    assert lead(results) == (
        "Of 3 comparisons with the baseline “scratch” (each one arm at one number of labels):"
        f" 1 better, 1 worse, 1 with {UNDECIDED}."
    )
    (text,) = sentences(results).values()
    better, undecided, worse = text.replace("\xa0", " ").split("; ")
    assert better == "better with 1 (+0.051 [0.031, 0.071]) labelled volume"
    assert undecided.startswith(f"{UNDECIDED} with 2 (+0.003 [")
    assert worse.startswith("worse with 4 (−0.046 [")  # noqa: RUF001


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.1, "better"),
        (0.0, 0.1, "open"),
        (-0.1, 0.1, "open"),
        (-0.1, 0.0, "open"),
        (-0.1, -0.001, "worse"),
    ],
)
def test_verdict_at_the_edges(results, low, high, expected):
    d = difference("triplet", 1, 0.0, dice=Interval(mean=(low + high) / 2, low=low, high=high))
    assert verdict(results, d) == expected
    changed = with_differences(results, d)
    words = {"better": "better", "worse": "worse", "open": UNDECIDED}
    assert lead(changed) == f"Compared with the baseline “scratch”: {words[expected]}."


def test_equal_verdicts_share_a_clause(results):
    same = with_differences(results, *(difference("triplet", n, 0.05) for n in (2, 1)))
    assert sentences(same)["triplet"].replace("\xa0", " ") == (
        "better with 1 (+0.050 [0.030, 0.070]) and 2 (+0.050 [0.030, 0.070]) labelled volumes."
    )


def test_one_test_case_supports_no_statement(results, page):
    d = difference("triplet", 1, 0.3, cases=1, per_case={"case_0": 0.3}, share_better=1.0)
    single = replace(with_differences(results, d), test_cases=("case_0",))
    assert "no statement" in lead(single)
    assert "There is only 1 test case" in page(single).text


def test_zero_class_runs_are_visible_and_change_the_headline(results, page):
    d = difference("triplet", 1, 0.2, without_zero_runs=interval(0.01), seeds_without_zero_runs=1)
    changed = with_differences(results, d, zero=2)
    assert verdict(changed, d) == "doubtful"
    assert "rests on runs with a class at Dice 0" in lead(changed)
    text = page(changed).text
    assert (
        "triplet, 1 labelled volume: 2 of 3 runs ended with a class at Dice 0:"
        " they measure optimisation, not pretraining" in text
    )
    assert "over 1 of 3 seeds: +0.010 [−0.010, 0.030]" in text  # noqa: RUF001


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"without_zero_runs": interval(0.1), "seeds_without_zero_runs": 2}, "better"),
        ({"without_zero_runs": interval(-0.1), "seeds_without_zero_runs": 2}, "doubtful"),
        ({"without_zero_runs": None, "seeds_without_zero_runs": 0}, "doubtful"),
        # the zero run was none of the paired ones
        ({"without_zero_runs": None, "seeds_without_zero_runs": 3}, "better"),
    ],
)
def test_a_difference_must_survive_without_the_zero_class_runs(results, changes, expected):
    d = difference("triplet", 1, 0.2, **changes)
    assert verdict(with_differences(results, d, zero=1), d) == expected
    # without such runs there is nothing to doubt, whatever the count says
    assert verdict(with_differences(results, d, zero=0), d) == "better"


def test_failed_runs_are_visible(results, page):
    written = page(results)
    message = "fine-tuning of triplet, 4 labelled volumes, seed 2: CUDA <out> of memory"
    assert f"Failed: {message}" in written.text
    assert "1 run failed" in written.text
    assert [a.get("class") for tag, a in written.tags if tag == "tr"].count("failed") == 1


def test_collapsed_pretrainings_are_told_before_the_numbers(results):
    runs = tuple(
        replace(r, collapse="complete at step 9, the spread is 0.01")
        if r.arm == "triplet" and r.seed == 0
        else r
        for r in results.runs
    )
    (told,) = [c for c in cautions(replace(results, runs=runs)) if c.startswith("Collapsed")]
    assert "triplet" in told
    assert (
        "complete at step 9, the spread is 0.01. What was fine-tuned from it is shown, and not compared"
        in told
    )
    assert not [c for c in cautions(results) if c.startswith("Collapsed")]


def test_zero_class_runs_are_drawn_hollow(results):
    def hollow(changed: Results) -> int:
        svg = figures.dice_by_labels(changed, figures.arm_styles(changed)).svg
        return len(re.findall(r"fill: #ffffff; stroke: #0072b2", svg))

    runs = tuple(
        replace(r, zero_classes=(2,)) if r.arm == "triplet" and r.labels == 2 else r for r in results.runs
    )
    assert hollow(results) == 0
    assert hollow(replace(results, runs=runs)) == 3


def test_figures_are_sound_svg_with_words_and_names_of_their_own(results):
    styles = figures.arm_styles(results)
    panels = [
        figures.dice_by_labels(results, styles),
        *figures.differences(results, styles),
        *figures.finetuning_curves(results, styles),
        *figures.pretraining_curves(results, styles)["triplet"],
    ]
    assert len(panels) == 1 + 3 + 3 + 3
    seen = set()
    for panel in panels:
        root = ET.fromstring(str(panel.svg).replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert root.findtext("title") == panel.title
        assert root.findtext("desc")
        texts = ["".join(t.itertext()) for t in root.iter("text")]
        assert any("step" in t or "Dice" in t or "labelled" in t for t in texts)
        ids = [e.get("id") for e in root.iter() if e.get("id")]
        assert len(ids) == len(set(ids))
        assert not seen & set(ids)
        seen |= set(ids)
        assert {u[1:] for u in re.findall(r'xlink:href="([^"]*)"', panel.svg)} <= set(ids)
        assert set(re.findall(r"url\(#([^)]*)\)", panel.svg)) <= set(ids)
    assert "triplet with 1 labelled volume: 0.651 [0.621, 0.681]" in panels[0].svg
    ticks = [
        "".join(t.itertext()) for t in ET.fromstring(str(panels[0].svg).replace("xlink:", "")).iter("text")
    ]
    assert ticks[:3] == ["1", "2", "4"]


def test_only_the_spread_has_a_line_at_one(results):
    panels = figures.pretraining_curves(results, figures.arm_styles(results))["triplet"]
    dotted = {p.title: "stroke-dasharray" in p.svg for p in panels}
    assert dotted == {"Pretraining loss": False, "a<b": False, "spread (healthy: 1)": True}


def test_arms_keep_apart_in_colour_and_marker(results):
    many = replace(results, arms=("scratch", *(f"arm {i}" for i in range(20))))
    styles = list(figures.arm_styles(many).values())
    assert len(set(styles)) == len(styles)
    assert len({s.colour for s in styles[:8]}) == len({s.marker for s in styles[:8]}) == 8
    assert styles[0] == figures.Style(colour=figures.BASELINE_COLOUR, marker="o")


def test_smoothing_keeps_a_constant_and_leaves_out_what_is_not_finite():
    values = (2.0,) * 500 + (float("nan"), float("inf"))
    steps, smooth = figures._smooth(Curve(name="loss", steps=tuple(range(502)), values=values))
    assert len(steps) == len(smooth) == 300
    assert (steps[0], steps[-1]) == (0, 499)
    assert smooth == pytest.approx(2.0)


def test_smoothing_is_the_mean_around_each_step():
    values = tuple(float(i * i % 17) for i in range(100))
    _, smooth = figures._smooth(Curve(name="loss", steps=tuple(range(100)), values=values))
    plain = [sum(w) / len(w) for w in (values[max(0, i - 2) : i + 3] for i in range(100))]
    assert smooth == pytest.approx(plain)


def test_unequal_steps_and_few_cases_and_one_seed_are_told(results):
    runs = (*results.runs, run("fine-tuning", "triplet", 1, seed=3, steps=900))
    told = " ".join(cautions(replace(results, runs=runs, seeds=(0,), test_cases=CASES[:3])))
    assert "With 1 labelled volume not all runs took equally many steps: 100, 900" in told
    assert "There is one seed, so the intervals know nothing" in told
    assert "There are only 3 test cases" in told
    clean = " ".join(cautions(results))
    assert "steps" not in clean
    assert "one seed" not in clean
    assert "only" not in clean


def test_a_threshold_is_called_untrained_and_stands_once_among_the_runs(results, page):
    bare = {"steps": None, "seconds": None, "curves": (), "mean_dice": 0.31415}
    runs = [run("untrained", "otsu", n, s, **bare) for n in (1, 2) for s in (0, 1)]
    changed = replace(
        results,
        arms=(*results.arms, "otsu"),
        runs=(*results.runs, *runs),
        summaries=(*results.summaries, summary("otsu", 1, 0.3)),
        differences=(*results.differences, difference("otsu", 1, -0.3)),
    )
    text = page(changed).text
    assert "otsu: (a threshold, without training) worse with 1" in text
    assert "Nothing was trained for otsu: a threshold on the images" in text
    assert text.count("0.314") == 1


@pytest.mark.parametrize(("tolerance", "told"), [(None, "the coarsest voxel spacing"), (1.5, "1.5 um")])
def test_nsd_is_told_with_its_tolerance(results, page, tolerance, told):
    scores = tuple(replace(s, nsd=0.777) for s in results.scores)
    text = page(replace(results, scores=scores, config={**results.config, "tolerance": tolerance})).text
    assert f"is within {told} of the other" in text
    assert "0.777" in text
    assert "is within the coarsest voxel spacing" in page(results).text, "of results from before"


def test_foreign_predictions_are_called_so(results, page):
    foreign = run("foreign", "nnU-Net", 1, steps=None, seconds=None, curves=(), mean_dice=0.7)
    changed = replace(
        results,
        arms=(*results.arms, "nnU-Net"),
        runs=(*results.runs, foreign),
        summaries=(*results.summaries, summary("nnU-Net", 1, 0.7, runs=1)),
        differences=(*results.differences, difference("nnU-Net", 1, 0.1)),
    )
    text = page(changed).text
    assert "nnU-Net: (another tool's predictions) better with 1" in text
    assert "how it was trained is not known here" in text
    assert "how it was trained is not known here" not in page(results).text


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": ("scratch",), "differences": (), "runs": (), "summaries": (), "scores": ()},
        {"differences": ()},
        {"arms": ("scratch", "triplet", "unfinished")},
        {"arms": ()},
        {"runs": ()},
        {"seeds": (), "test_cases": (), "label_counts": (), "environment": {}, "config": {}, "commit": None},
        {"runs": (RunRecord(stage="foreign", arm="other", labels=None, seed=0, mean_dice=0.5),)},
        {"runs": (run("fine-tuning", "triplet", 0, seed=1),)},
        {"runs": (run("fine-tuning", "triplet", 1, curves=(Curve(name="loss", steps=(), values=()),)),)},
        {"runs": (run("pretraining", "x", None, curves=(Curve(name="loss", steps=(1,), values=(1.0,)),)),)},
        {"runs": (run("pretraining", "x", None, status="failed", curves=()),)},
        {"summaries": (summary("scratch", 2, 0.5),)},
        {"summaries": (summary("scratch", 2, 0.5, per_class={}),)},
        {"differences": (difference("triplet", 1, 0.0, per_case={}),)},
        {"confidence": 1.0},
        {
            "scores": (
                Score(arm="triplet", labels=1, seed=0, case="a", value=1, dice=None, iou=None, hd95=None),
            )
        },
    ],
)
def test_whatever_is_missing_there_is_a_report(results, page, changes):
    written = page(replace(results, **changes))
    assert_self_contained(written)
    assert "How to read this" in written.text


def test_nothing_compared_is_said(results):
    none = replace(results, differences=(), arms=("scratch", "triplet", "unfinished"))
    assert lead(none) == (
        "These data say nothing about pretraining: no arm could be compared with the baseline “scratch”."
    )
    assert "unfinished: no run has finished, so there are no scores" in cautions(none)


def test_eight_arms_at_many_label_counts(results, page):
    arms = ("scratch", *(f"arm {i}" for i in range(7)))
    counts = (1, 2, 3, 4, 8, 16)
    changed = replace(
        results,
        arms=arms,
        label_counts=counts,
        runs=tuple(run("fine-tuning", arm, n, s) for arm in arms for n in counts for s in (0, 1)),
        summaries=tuple(summary(arm, n, 0.5) for arm in arms for n in counts),
        differences=tuple(difference(arm, n, 0.1) for arm in arms[1:] for n in counts),
    )
    written = page(changed)
    assert "<details>\n<summary>All runs" in written.source, "a long table is folded"
    assert "Runs that failed" not in written.text
    failed = replace(changed, runs=(*changed.runs, run("pretraining", "arm 1", None, status="failed")))
    assert "Runs that failed stage" in page(failed).text, "but never what failed"
    assert "Of 42 comparisons" in written.text
    assert "about 1 in 20 such intervals" in written.text
    assert len(written.source) < 1_500_000


def test_same_results_same_file(results, page):
    assert page(results).source == page(results).source


def test_an_interrupted_write_leaves_the_old_report(results, page, tmp_path, monkeypatch):
    old = page(results).source
    monkeypatch.setattr(figures, "differences", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(results, [], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


def test_what_was_accepted_in_the_data_is_told(results):
    assert not [text for text in cautions(results) if "In the data" in text]
    told = cautions(replace(results, accepted=tuple(f"accepted: label {n}." for n in range(7))))
    assert "In the data, accepted: label 0" in told
    assert "2 more such in the data; store.json lists them" in told


def test_what_each_arm_took_from_pretraining_is_told_once(results, tmp_path):
    def taken(deviation, **fields):
        return Transferred(adapted="encoder.0", reinitialised="output", deviation=deviation, **fields)

    told = {"accepted": ("spacing: 1 mm there, 2 mm <x> here",), "warnings": ("grey values of channel 0",)}
    runs = [
        replace(r, transferred=taken(3e-7, **told) if r.seed == 0 else taken(None))
        if r.arm == "triplet" and r.stage == "fine-tuning"
        else r
        for r in results.runs
    ]
    write_report(replace(results, runs=tuple(runs)), [], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    section = page.text.split("What was taken from pretraining")[1].split("All runs")[0]
    assert section.count("triplet") == 1
    assert "scratch" not in section
    assert "encoder.0 output 3e-07 prepared otherwise: spacing: 1 mm there, 2 mm <x> here." in section
    assert "grey values of channel 0." in section


def test_a_report_without_pretraining_tells_of_none(results, tmp_path):
    write_report(results, [], tmp_path / "report.html")
    assert "What was taken from pretraining" not in (tmp_path / "report.html").read_text(encoding="utf-8")
