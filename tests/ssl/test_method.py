"""The interface of pretext methods."""

from dataclasses import replace

import pytest
import torch
from fewvox.data.augment.chain import preset
from fewvox.data.errors import UserError
from fewvox.ssl.method import (
    METHODS,
    Method,
    PretextResult,
    Scope,
    Views,
    ViewSpec,
    find_method,
    register_method,
)
from torch import nn


class Toy(Method):
    source = "nobody"

    @staticmethod
    def views(config: object) -> ViewSpec:
        return ViewSpec(local_views=1)

    @staticmethod
    def heads(scope: Scope, config: object) -> nn.Module:
        return nn.Identity()

    def forward(self, batch: Views, step: int) -> PretextResult:
        first, second = (self.network(view) for view in batch.views)
        return PretextResult(loss=(first - second).square().mean(), embeddings=first)


@pytest.fixture
def table():
    """Empty for the test."""
    kept = dict(METHODS)
    METHODS.clear()
    yield METHODS
    METHODS.clear()
    METHODS.update(kept)


def test_a_registered_method_is_found_by_its_name(table):
    register_method("toy", dict)(Toy)
    assert find_method("toy").method is Toy


def test_an_unknown_name_is_answered_with_the_known_ones(table):
    register_method("toy", dict)(Toy)
    with pytest.raises(UserError, match="There are: toy"):
        find_method("tripplet")


def test_a_class_that_is_no_method_is_refused(table):
    class Unfinished(Method):
        def forward(self, batch: Views, step: int) -> PretextResult: ...

    with pytest.raises(TypeError, match="Unfinished lacks heads, views, source"):
        register_method("unfinished", dict)(Unfinished)


def test_a_name_is_given_once(table):
    register_method("toy", dict)(Toy)
    with pytest.raises(TypeError, match="second 'toy'"):
        register_method("toy", dict)(Toy)


def test_a_batch_has_each_volume_once():
    with pytest.raises(ValueError, match="distinct volumes"):
        Views(views=(torch.zeros(2, 1, 4, 4, 4),), maps=(torch.zeros(2, 3, 4),), cases=("a", "a"))


def test_views_move_together():
    parts = torch.zeros(1, 2), torch.ones(1, 2)
    views = Views(views=parts, maps=parts, cases=("a",), seed=3).to(torch.device("meta"))
    assert [v.device.type for v in (*views.views, *views.maps)] == ["meta"] * 4
    assert (views.cases, views.seed) == (("a",), 3)


def test_every_view_has_its_maps():
    with pytest.raises(ValueError, match="1 views have as many maps, not 0"):
        Views(views=(torch.zeros(1, 2),), maps=(), cases=("a",))


@pytest.mark.parametrize(
    "fields", [{"global_views": 0}, {"global_views": 3}, {"local_views": -1}, {"volumes": 0}]
)
def test_a_method_needs_one_or_two_global_views_of_a_volume(fields):
    with pytest.raises(ValueError, match="one or two global views, any number of local"):
        ViewSpec(**fields)


def test_the_summary_of_a_method_is_the_first_line_of_its_description(table):
    Documented = type("Documented", (Toy,), {"__doc__": "Told in a line.\n\nAnd at length."})
    register_method("told", dict)(Documented)
    assert find_method("told").summary == "Told in a line."


def test_upright_views_are_not_turned_and_plain_ones_keep_their_grey_values():
    augment = preset("views")
    assert ViewSpec().changes(augment) == augment
    assert ViewSpec(upright=True).changes(augment) == replace(augment, spatial=None)
    assert ViewSpec(plain=True).changes(augment) == replace(augment, chain=dict.fromkeys(augment.chain))
