"""Embeddings in pictures."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fewvox.experiments.pictures import embedding_map, write_embeddings
from fewvox.ssl.embeddings import Embeddings, principal_components
from fewvox.ssl.monitors import measure
from PIL import Image


def opened(png: bytes) -> np.ndarray:
    """The pixels of a PNG, (rows, columns, 3)."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    """Of 12 volumes, more than there are colours, in three views each."""
    owners = [f"c{i:02}" for i in range(12) for _ in range(3)]
    centres = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)).repeat_interleave(3, dim=0)
    values = centres + 0.1 * torch.randn(36, 6, generator=torch.Generator().manual_seed(1))
    components, explained = principal_components(values)
    return Embeddings(
        cases=tuple(owners),
        values=values,
        components=components,
        explained=explained,
        measures=measure(values, owners),
    )


def test_embeddings_are_drawn_in_colours(embeddings):
    pixels = opened(embedding_map(embeddings, "mae, 3 steps")).astype(int)
    colourful = pixels.max(axis=-1) - pixels.min(axis=-1) > 60
    assert colourful.sum() > 200


def test_the_files_of_embeddings_hold_what_they_say(embeddings, tmp_path):
    write_embeddings(embeddings, "mae, 3 steps", tmp_path)
    names = {"embeddings.npz", "embeddings.csv", "measures.json", "pca.png"}
    assert {p.name for p in tmp_path.iterdir()} == names
    with np.load(tmp_path / "embeddings.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["values"], embeddings.values.numpy())
        np.testing.assert_array_equal(arrays["components"], embeddings.components.numpy())
        assert tuple(arrays["cases"]) == embeddings.cases
    with (tmp_path / "embeddings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == list(embeddings.cases)
    told = [[float(row["component_1"]), float(row["component_2"])] for row in rows]
    np.testing.assert_allclose(told, embeddings.components.numpy(), rtol=1e-5)
    measures = json.loads((tmp_path / "measures.json").read_text())
    assert measures["retrieval"] == embeddings.measures.retrieval
    assert measures["explained"] == list(embeddings.explained)
    opened((tmp_path / "pca.png").read_bytes())


def test_what_random_weights_make_of_the_views_stands_beside(embeddings, tmp_path):
    random = replace(embeddings, silhouette=-0.2, components=embeddings.components.flip(1))
    write_embeddings(replace(embeddings, silhouette=0.6, random=random), "mae, 3 steps", tmp_path)
    measures = json.loads((tmp_path / "measures.json").read_text())
    assert (measures["silhouette"], measures["random"]["silhouette"]) == (0.6, -0.2)
    drawn = [opened((tmp_path / name).read_bytes()) for name in ("pca.png", "pca_random.png")]
    assert drawn[0].shape == drawn[1].shape
    assert (drawn[0] != drawn[1]).any()
