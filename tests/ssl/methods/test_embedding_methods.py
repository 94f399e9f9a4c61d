"""What holds alike for the methods that compare the embeddings of two views."""

from dataclasses import replace

import pytest
import torch
from fewvox.ssl.method import Method
from fewvox.ssl.methods.registry import find_method
from fewvox.ssl.pretrain import reached_blocks

NAMES = ("byol", "simclr", "vicreg")


@pytest.fixture
def make_method(fresh_method, make_scope):
    """The method of that name on a fresh network; keywords replace settings."""

    def make(name: str, **fields) -> Method:
        registered = find_method(name)
        config = replace(registered.config(), hidden=16, dimension=8, **fields)
        return fresh_method(registered.method, config, make_scope())

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_local_view_may_have_another_extent(make_method, make_views, name):
    batch = make_views(extent=(4, 8, 4))
    first, second = batch.views
    assert torch.isfinite(make_method(name)(replace(batch, views=(first, second[:, :, :2, :4, :2])), 0).loss)


@pytest.mark.parametrize("name", NAMES)
def test_constant_volumes_have_a_finite_loss_and_gradient(make_method, views_of, check_finite, name):
    """Nothing tells them apart: where a method says at what loss it rests, it is that."""
    method, flat = make_method(name), torch.ones(3, 1, 4, 8, 4)
    loss, resting = float(check_finite(method, views_of(flat, flat)).loss.detach()), method.resting_loss()
    assert resting is None or loss == pytest.approx(resting, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("blocks", "reached"),
    [
        (None, ("encoder", "decoder")),
        (("encoder",), ("encoder",)),
        (("decoder.0",), ("encoder", "decoder.0")),
    ],
)
def test_the_loss_reaches_what_the_embedded_features_are_made_of(
    make_method, make_views, name, blocks, reached
):
    assert reached_blocks(make_method(name, blocks=blocks), make_views()) == reached
