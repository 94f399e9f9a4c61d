"""Vectors of cells, and what they are together."""

import pytest
import torch
from fewvox.seg.networks.registry import build
from fewvox.ssl.cell_heads import CellClassifier, CellHead, CellHeadConfig
from fewvox.ssl.heads import pool, read_features
from torch import nn

CELLS = torch.randn(2, 5, 1, 4, 8, 4, generator=torch.Generator().manual_seed(0))


class Told(nn.Module):
    """Stands for a network whose coarsest features are the cells themselves."""

    def encode(self, images):
        return [None, None, images]


def test_a_vector_is_made_of_the_means_of_octants(architecture):
    """Of every block that is read, by plain loops."""
    network = build(architecture, 0).eval()
    head = CellHead(architecture, CellHeadConfig(blocks=("encoder", "encoder.1"), hidden=6)).eval()
    coarsest, middle = read_features(network, CELLS[1, 3:4], ["encoder.2", "encoder.1"])
    assert coarsest.shape[2:] == (2, 2, 2)
    assert middle.shape[2:] == (4, 4, 4)
    means = [
        f[0, c, z, y, x].mean()
        for f, halves in ((coarsest, [slice(0, 1), slice(1, 2)]), (middle, [slice(0, 2), slice(2, 4)]))
        for c in range(f.shape[1])
        for z in halves
        for y in halves
        for x in halves
    ]
    found = head(network, CELLS)
    assert found.shape == (2, 5, 6)
    torch.testing.assert_close(found[1, 3], head.layers(torch.stack(means)[None])[0], atol=1e-5, rtol=1e-5)


def test_cells_do_not_see_each_other(architecture):
    network, head = build(architecture, 0).eval(), CellHead(architecture, CellHeadConfig(hidden=6)).eval()
    alone = torch.stack([head(network, CELLS[:, i : i + 1])[:, 0] for i in range(5)], dim=1)
    torch.testing.assert_close(head(network, CELLS), alone, atol=1e-5, rtol=0)


def test_it_is_kept_where_in_a_cell_a_feature_lies(architecture):
    """Mean and deviation over the whole are the same for both."""
    head = CellHead(architecture, CellHeadConfig(hidden=8)).eval()
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    cells = signs[None, :, None, :, None, None].expand(1, 2, 16, 2, 1, 1)
    first, second = head(Told(), cells)[0]
    assert (first - second).abs().max() > 0.1
    torch.testing.assert_close(*pool([cells[0]]))


def test_whole_views_are_embedded_by_the_pooled_features_of_the_same_blocks(architecture):
    network, head = build(architecture, 0), CellHead(architecture, CellHeadConfig(hidden=8))
    view = CELLS[:, 0]
    expected = pool(read_features(network, view, ["encoder.2"]))
    torch.testing.assert_close(head.embed(network, view), expected)


@pytest.mark.parametrize("cells", [1, 2, 8])
def test_a_classifier_knows_which_cell_stands_where(architecture, cells):
    torch.manual_seed(0)
    head = CellClassifier(architecture, CellHeadConfig(hidden=6), cells, classes=4)
    tuples = torch.randn(3, cells, 6)
    logits = head(tuples)
    assert logits.shape == (3, head.classes) == (3, 4)
    if cells > 1:
        assert not torch.allclose(head(tuples.flip(1)), logits)
