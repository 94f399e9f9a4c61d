"""What every registered method keeps to, on any network."""

import copy

import pytest
import torch
from fewvox.data.settings import plain
from fewvox.seg.engine.step import StepResult
from fewvox.seg.networks.registry import build
from fewvox.ssl.method import Method
from fewvox.ssl.methods.registry import METHODS
from torch import nn

METHOD_NAMES = sorted(METHODS)


def fresh(name, architecture, seed=0):
    """The method built from its defaults."""
    registered = METHODS[name]
    torch.manual_seed(seed)
    heads = registered.method.heads(architecture, registered.config())
    return registered.method(build(architecture, seed), heads, registered.config())


@pytest.fixture(params=METHOD_NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def batch(name, make_views):
    """Views as the method asks for them."""
    spec = METHODS[name].method.views
    return make_views(spec.count, batch=max(3, spec.volumes))


def test_the_methods_there_are():
    assert METHOD_NAMES == ["mae", "triplet"]


def test_a_method_builds_from_defaults_that_a_file_can_hold(name, architecture):
    assert isinstance(fresh(name, architecture), Method)
    assert METHODS[name].summary.endswith(".")
    assert METHODS[name].config(**plain(METHODS[name].config())) == METHODS[name].config()


def test_a_loss_is_finite_and_moves_encoder_decoder_and_heads(name, architecture, batch):
    method = fresh(name, architecture).train()
    result = method(batch, 0)
    assert isinstance(result, StepResult)
    assert result.loss.shape == ()
    assert torch.isfinite(result.loss)
    assert all(value.numel() == 1 and not value.requires_grad for value in result.logs.values())
    result.loss.backward()
    for part in (method.network.encoder, method.network.decoder, method.head):
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in part.parameters())


def test_the_same_seed_gives_the_same_loss_and_another_one_another(name, architecture, batch):
    losses = [fresh(name, architecture, seed)(batch, 0).loss for seed in (0, 0, 1)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_a_state_dict_round_trip_keeps_the_loss(name, architecture, batch):
    trained = fresh(name, architecture).train()
    trained(batch, 0)
    other = fresh(name, architecture, seed=1)
    other.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(other.eval()(batch, 0).loss, trained.eval()(batch, 0).loss)


def test_embeddings_for_watching_are_one_vector_for_each_view_whatever_stands_beside_it(
    name, architecture, batch
):
    method = fresh(name, architecture).eval()
    with torch.no_grad():
        together = method.embed(batch.views[0])
        alone = torch.cat([method.embed(image[None]) for image in batch.views[0]])
    assert together.shape[0] == 3
    assert together.ndim == 2
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_exported_network_is_one_that_can_be_fine_tuned(name, architecture, batch):
    method = fresh(name, architecture)
    exported = method.exported_network()
    assert exported.state_dict().keys() == build(architecture).state_dict().keys()
    assert any(module is exported for module in method.modules())
    before = copy.deepcopy(method.state_dict())
    method.after_step(0)
    assert isinstance(exported, nn.Module)
    assert before.keys() == method.state_dict().keys()


def test_a_batch_is_left_as_it_was(name, architecture, batch):
    before = copy.deepcopy(batch.views)
    fresh(name, architecture)(batch, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, batch.views, strict=True))
