"""Which changes are made is what is asked for, and the loss is that of the answers."""

import math
from dataclasses import replace

import pytest
import torch
from fewvox.data.augment.draws import Draws
from fewvox.data.augment.intensity import Blur, Noise
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse, plain
from fewvox.ssl.methods.augmentation import (
    OPERATIONS,
    Augmentation,
    AugmentationConfig,
    flipped_axes,
    probabilities,
    recognition_loss,
    with_changes,
)
from fewvox.ssl.pretrain import reached_blocks

EXTENT = (8, 16, 12)
NAMES = [*OPERATIONS, "flip_z", "flip_y", "flip_x"]


def textured(batch=3, channels=1, extent=EXTENT) -> torch.Tensor:
    """Waves of another length in each item, brighter towards a corner; z-scored."""
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in extent), indexing="ij")
    items = [
        torch.sin(z * (0.5 + 0.2 * k)) * torch.sin(0.7 * y) * torch.sin(0.9 * x + k) + (z + y + x) / 12
        for k in range(batch * channels)
    ]
    images = torch.stack(items).view(batch, channels, *extent)
    return (images - images.mean()) / images.std()


def made_of(image, operations=OPERATIONS, axes=(0, 1, 2), flip_probability=0.5, seed=(0,)):
    return with_changes(image, operations, axes, flip_probability, seed)


@pytest.fixture
def make_augmentation(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(extent=EXTENT, **fields) -> Augmentation:
        return fresh_method(Augmentation, AugmentationConfig(**fields), make_scope(1, extent=extent))

    return make


def test_the_loss_and_its_gradient_are_those_of_plain_loops():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    made = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    given = logits.clone().requires_grad_()
    loss = recognition_loss(given, made)
    loss.backward()
    total, gradient = 0.0, torch.zeros(3, 4)
    for b in range(3):
        for k in range(4):
            told = 1 / (1 + math.exp(-float(logits[b, k])))
            total -= math.log(told if made[b, k] else 1 - told) / 12
            gradient[b, k] = (told - float(made[b, k])) / 12
    assert float(loss.detach()) == pytest.approx(total, rel=1e-6)
    torch.testing.assert_close(given.grad.float(), gradient, atol=1e-7, rtol=1e-5)


def test_certain_answers_have_a_finite_loss_in_half_precision():
    logits = torch.tensor([[200.0, -200.0]], dtype=torch.bfloat16)
    assert recognition_loss(logits, torch.tensor([[True, False]])) == 0
    assert recognition_loss(logits, torch.tensor([[False, True]])) == 200


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_told_exactly_where_it_was_made(name):
    """Left out of the others, whose draws stay the same, it changes the image if and only if it is told."""
    image, told = textured(1)[0], []
    others = {n: operation for n, operation in OPERATIONS.items() if n != name}
    for seed in range(20):
        changed, made = made_of(image, seed=(seed,))
        without, of_others = made_of(image, others, seed=(seed,))
        told.append(made.pop(list(OPERATIONS).index(name)))
        assert made == of_others
        assert torch.equal(changed, without) != told[-1]
    assert 4 < sum(told) < 16


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_is_told_exactly_where_it_was_made(axis):
    image = textured(1)[0]
    for seed in range(10):
        changed, (flipped,) = made_of(image, {}, (axis,), seed=(seed,))
        assert torch.equal(changed, image.flip(axis + 1) if flipped else image)
    assert made_of(image, {}, (0, 1, 2), seed=(3,))[1][axis] == made_of(image, {}, (axis,), seed=(3,))[1][0]


def test_every_change_is_made_as_often_as_it_is_said_to_be():
    chances = {"a": Noise(probability=0.2), "b": Noise(probability=0.7)}
    image = torch.zeros(1, 2, 2, 2)
    made = torch.tensor([made_of(image, chances, (0,), 0.4, (seed,))[1] for seed in range(1000)]).double()
    assert made.mean(dim=0).tolist() == pytest.approx([0.2, 0.7, 0.4], abs=0.05)
    # none goes along with another
    assert torch.corrcoef(made.T)[~torch.eye(3, dtype=torch.bool)].abs().max() < 0.1


def test_no_change_of_the_default_is_ever_too_weak_to_be_seen():
    """Whatever is drawn, it leaves a trace of more than 3 % of the image's deviation."""
    image = textured(1)[0]
    for name, operation in OPERATIONS.items():
        for seed in range(20):
            change = (operation(image.clone(), Draws((seed,))) - image).square().mean().sqrt()
            assert change > 0.03, (name, seed)


def test_the_batch_s_own_seed_decides_and_items_differ(make_augmentation, views_of):
    method = make_augmentation()
    batch = views_of(textured(1).expand(3, -1, -1, -1, -1))
    shown = []
    method.head.register_forward_pre_hook(lambda head, given: shown.append(given[1]))
    for seed in (0, 0, 1):
        torch.manual_seed(seed + 5)
        method(replace(batch, seed=seed), 0)
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    assert len({item.numpy().tobytes() for item in shown[0]}) == 3


def test_what_is_asked_is_what_was_made(make_augmentation, views_of):
    """Loss and accuracies of the logits, beside changes that are drawn once more."""
    method, batch = make_augmentation(flip_probability=0.25), views_of(textured(), seed=11)
    logits = []
    method.head.register_forward_hook(lambda head, given, out: logits.append(out.detach()))
    result = method(batch, 0)
    made = [
        with_changes(image, OPERATIONS, (0, 1, 2), 0.25, (11, i))[1] for i, image in enumerate(batch.views[0])
    ]
    assert float(result.loss.detach()) == pytest.approx(
        float(recognition_loss(logits[0], torch.tensor(made)))
    )
    right = [
        [(float(v) > 0) == m for v, m in zip(row, of, strict=True)]
        for row, of in zip(logits[0], made, strict=True)
    ]
    for k, name in enumerate(NAMES):
        assert result.logs[f"accuracy/{name}"] == pytest.approx(sum(row[k] for row in right) / 3)
    assert result.logs["accuracy"] == pytest.approx(sum(map(sum, right)) / 27)
    # always saying what is likelier: half of the time for six of them, three quarters for the flips
    assert result.logs["chance"] == pytest.approx((6 * 0.5 + 3 * 0.75) / 9)
    assert set(result.logs) == {"accuracy", "chance", *(f"accuracy/{name}" for name in NAMES)}


def test_answers_that_are_always_the_same_rest_where_it_says(make_augmentation):
    fields = {"operations": {"noise": Noise(probability=0.1)}, "flip_probability": 0.5, "flips": ("x",)}
    method = make_augmentation(**fields)
    odds = torch.tensor([[math.log(0.1 / 0.9), 0.0]])
    every = torch.tensor([[i == 0, j] for i in range(10) for j in (True, False)])
    assert method.resting_loss() == pytest.approx(
        float(recognition_loss(odds.expand(20, 2), every)), rel=1e-6
    )
    assert make_augmentation().resting_loss() == pytest.approx(math.log(2))
    certain = make_augmentation(operations={"noise": Noise(probability=1.0)}, flips=())
    assert certain.resting_loss() == 0


def test_an_axis_of_one_voxel_is_not_flipped(make_augmentation, make_scope, views_of):
    config, flat = AugmentationConfig(), make_scope(1, extent=(1, 8, 4))
    assert flipped_axes(config, flat) == (1, 2)
    assert list(probabilities(config, flat)) == [*OPERATIONS, "flip_y", "flip_x"]
    assert flipped_axes(replace(config, flips=("x", "z")), make_scope(1)) == (0, 2)


def test_a_task_without_any_change_is_refused(make_scope):
    nothing = AugmentationConfig(operations=dict.fromkeys(OPERATIONS), flips=("z",))
    with pytest.raises(UserError, match=r"options.operations: no change that views of \(1, 8, 4\) voxels"):
        probabilities(nothing, make_scope(1, extent=(1, 8, 4)))
    assert list(probabilities(nothing, make_scope(1))) == ["flip_z"]


def test_an_item_s_answers_do_not_depend_on_the_others(make_augmentation):
    """In training too: of the pooled features of two items, batch statistics would leave a sign alone."""
    method, images = make_augmentation().train(), textured()
    alone = torch.cat([method.head(method.network, image[None]) for image in images])
    torch.testing.assert_close(method.head(method.network, images), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("blocks", "reached"),
    [
        (("encoder", "decoder"), ("encoder", "decoder")),
        (("encoder",), ("encoder",)),
        (("decoder",), ("encoder", "decoder")),
    ],
)
def test_the_loss_reaches_what_the_pooled_features_are_made_of(make_augmentation, views_of, blocks, reached):
    assert reached_blocks(make_augmentation(blocks=blocks), views_of(textured())) == reached


def test_a_flat_view_and_several_channels_have_a_finite_loss(make_augmentation, views_of, check_finite):
    check_finite(make_augmentation(), views_of(torch.ones(2, 1, *EXTENT)))
    changed, _ = made_of(textured(1, channels=3)[0], seed=(1,))
    assert changed.shape == (3, *EXTENT)
    assert changed.isfinite().all()


def test_a_few_steps_learn_to_tell_noise(make_augmentation, views_of, train):
    noise = {**dict.fromkeys(OPERATIONS), "noise": Noise(probability=0.5, deviation=(1.0, 1.0))}
    method = make_augmentation(operations=noise, flips=())
    last = train(method, lambda step: views_of(textured(4), seed=step), 30)[-8:]
    assert sum(float(r.logs["accuracy"]) for r in last) / 8 > 0.9
    assert sum(float(r.loss) for r in last) / 8 < method.resting_loss() / 2


def test_what_a_file_says_of_an_operation_stands_over_the_default():
    said = {
        "noise": {"deviation": [1, 2]},
        "gamma": None,
        "cutout": {"op": "blur"},
        "mine": {"op": "swap", "probability": 0.3},
    }
    found = parse(AugmentationConfig, {"operations": said}, "options")
    assert list(found.operations) == [*OPERATIONS, "mine"]
    assert list(found.made) == [n for n in found.operations if n != "gamma"]
    assert found.made["noise"] == Noise(probability=0.5, deviation=(1, 2))
    assert found.made["cutout"] == Blur()
    assert found.made["blur"] == OPERATIONS["blur"]
    assert parse(AugmentationConfig, plain(found), "options") == found
    assert parse(AugmentationConfig, {}, "options") == AugmentationConfig()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"flips": ["w"]}, "flips"),
        ({"flip_probability": 1.5}, "flip_probability"),
        ({"operations": {"noise": {"probability": 2}}}, r"operations\.noise\.probability"),
        ({"operations": {"mine": {"sigma": 1}}}, "an operation has an `op`"),
        ({"operations": 3}, "operations"),
        ({"hidden": 0}, "hidden"),
        ({"margin": 1}, "margin"),
    ],
)
def test_settings_beyond_their_limits_are_refused(values, told):
    with pytest.raises(SettingsError, match=told):
        parse(AugmentationConfig, values, "options")
