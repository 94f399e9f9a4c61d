"""The prediction of a volume beside that of other tools."""

from fewvox.experiments.bench import predict
from fewvox.experiments.bench.predict import PEERS, predict_figures


def test_every_ratio_has_its_key_and_absent_peers_are_told(monkeypatch):
    monkeypatch.setattr(predict, "_peak", lambda *_: 1000)
    tools = predict._tools
    monkeypatch.setattr(
        predict, "_tools", lambda patch: {k: v for k, v in tools(patch).items() if k != "nnunet"}
    )
    figures = {figure.key: figure for figure in predict_figures(1, (20, 24, 16), (8, 8, 8))}
    assert set(figures) == {f"{what}_vs_{peer}" for what in ("overhead", "total", "memory") for peer in PEERS}
    for key, figure in figures.items():
        assert (figure.ratio is None) == key.endswith("nnunet")
        assert (figure.missing is None) == key.endswith("monai")
        assert "60 windows of (8, 8, 8) over (20, 24, 16)" in figure.work


def test_a_process_tells_what_a_prediction_took():
    # the sums of a patch's depth, at the very least
    assert predict._peak("fewvox", (40, 96, 96), (16, 32, 32)) > 2 * 16 * 96 * 96 * 4
