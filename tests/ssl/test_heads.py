"""Features by name, their pooling, and embeddings of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg.networks.registry import NETWORKS, build
from fewvox.seg.networks.topology import Topology
from fewvox.ssl.heads import (
    EmbeddingConfig,
    EmbeddingHead,
    chosen_blocks,
    feature_widths,
    pool,
    read_features,
)

CONFIG = EmbeddingConfig(hidden=16, dimension=6)
IMAGES = torch.randn(2, 1, 4, 8, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def single(architecture):
    """An architecture of one level, without any decoder."""
    return replace(architecture, topology=Topology(features=(4,), kernels=((3, 3, 3),), strides=()))


# one EfficientNet for all
@pytest.mark.parametrize("name", [n for n in NETWORKS if n[-1] not in "1234"])
def test_widths_are_those_of_the_features_themselves(architecture, name):
    blocks = (1, 2, 1) if NETWORKS[name].blocks else ()
    architecture = replace(architecture, name=name, topology=replace(architecture.topology, blocks=blocks))
    widths = feature_widths(architecture)
    assert list(widths) == ["encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1"]
    found = read_features(build(architecture, 0), IMAGES, list(widths))
    assert {name: f.shape[1] for name, f in zip(widths, found, strict=True)} == widths
    extents = [(4, 8, 4), (4, 4, 4), (2, 2, 2), (4, 4, 4), (4, 8, 4)]
    assert [tuple(f.shape[2:]) for f in found] == extents


def test_features_are_those_of_the_network(architecture):
    """In the order asked for, the last decoder level being what the output reads."""
    network = build(architecture, 0)
    last, first = read_features(network, IMAGES, ["decoder.1", "encoder.0"])
    torch.testing.assert_close(last, network.features(IMAGES))
    torch.testing.assert_close(first, network.encode(IMAGES)[0])


def test_names_of_features_are_names_of_tensors(architecture):
    """A block reached in the loss is a block in the checkpoint."""
    names = build(architecture, 0).state_dict()
    for block in feature_widths(architecture):
        assert any(name.startswith(f"{block}.") for name in names)


def test_features_of_the_encoder_need_no_decoder(architecture, monkeypatch):
    network = build(architecture, 0)
    monkeypatch.setattr(network, "decode", None)
    assert len(read_features(network, IMAGES, ["encoder.2", "encoder.0"])) == 2


@pytest.mark.parametrize("names", [("encoder.3",), ("decoder.1", "bottleneck"), ()])
def test_unknown_blocks_are_answered_with_the_known_ones(architecture, names):
    known = r"The network has: encoder, decoder, encoder\.0, encoder\.1, encoder\.2, decoder\.0, decoder\.1"
    with pytest.raises(UserError, match=known) as told:
        chosen_blocks(architecture, names)
    assert (names[-1] if names else "none") in str(told.value)


def test_every_decoder_level_is_read_unless_chosen(architecture, single):
    assert chosen_blocks(architecture, None) == ("decoder.0", "decoder.1")
    assert chosen_blocks(architecture, ["encoder.2"]) == ("encoder.2",)
    assert chosen_blocks(single, None) == ("encoder.0",)


def test_parts_stand_for_blocks(architecture, single):
    assert chosen_blocks(architecture, ["encoder"]) == ("encoder.2",)
    assert chosen_blocks(architecture, ["decoder"]) == chosen_blocks(architecture, None)
    assert chosen_blocks(architecture, ["decoder.1", "decoder", "encoder"]) == (
        "decoder.1",
        "decoder.0",
        "encoder.2",
    )
    assert chosen_blocks(single, ["encoder", "decoder"]) == ("encoder.0",)


def test_pooling_is_mean_and_deviation_of_every_feature():
    features = [torch.randn(2, c, 3, 4, 5, generator=torch.Generator().manual_seed(c)) for c in (3, 2)]
    expected = [
        [
            statistic
            for f in features
            for part in (np.mean, np.std)
            for statistic in map(part, f[item].numpy())
        ]
        for item in range(2)
    ]
    torch.testing.assert_close(pool(features), torch.tensor(np.array(expected)), atol=1e-4, rtol=0)


def test_flat_features_have_a_finite_gradient():
    """The gradient of a standard deviation is infinite at 0."""
    flat = torch.full((2, 3, 2, 2, 2), 0.5, requires_grad=True)
    pool([flat]).sum().backward()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("blocks", [None, ("encoder.2",), ("decoder.0", "encoder.0")])
def test_embeddings_are_made_of_the_chosen_blocks(architecture, blocks):
    network, head = build(architecture, 0), EmbeddingHead(architecture, replace(CONFIG, blocks=blocks))
    embedded = head(network, IMAGES)
    assert embedded.shape == (2, 6)
    expected = head.layers(pool(read_features(network, IMAGES, chosen_blocks(architecture, blocks))))
    torch.testing.assert_close(embedded, expected)


def test_an_embedding_that_is_looked_at_does_not_depend_on_its_neighbours(architecture):
    network, head = build(architecture, 0).eval(), EmbeddingHead(architecture, CONFIG)
    head.train()(network, IMAGES)
    head.eval()
    alone = torch.cat([head(network, image[None]) for image in IMAGES])
    torch.testing.assert_close(head(network, IMAGES), alone, atol=1e-4, rtol=0)


def test_embeddings_of_like_images_do_not_begin_collapsed(architecture):
    """Pooled features of all volumes point nearly the same way: their common part is taken off."""
    noise = torch.randn(8, 1, 4, 8, 4, generator=torch.Generator().manual_seed(1))
    network, like = build(architecture, 0), IMAGES[:1] + 0.1 * noise
    torch.manual_seed(0)
    head = EmbeddingHead(architecture, CONFIG)
    pooled, embedded = pool(read_features(network, like, head.blocks)), head.train()(network, like)
    cosines = [torch.cosine_similarity(z[:1], z[1:]).mean() for z in (pooled, embedded)]
    assert cosines[0] > 0.99
    assert cosines[1] < 0.5


def test_a_network_without_decoder_is_embedded_too(single):
    assert EmbeddingHead(single, CONFIG)(build(single, 0), IMAGES).shape == (2, 6)
