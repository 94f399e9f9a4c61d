"""An installed package brings a method, a network and an augmentation; the checks tell good from bad."""

import json
import sys

import pytest
from fewvox.data.augment.chain import PLUGINS as OPERATIONS
from fewvox.data.errors import UserError
from fewvox.data.plugins import PluginError
from fewvox.data.settings import SettingsError, parse, plain
from fewvox.experiments import api, cli, plugin_checks
from fewvox.experiments.tables import checks_table, methods_table
from fewvox.seg.checkpoint import load
from fewvox.seg.networks.registry import PLUGINS as NETWORKS
from fewvox.seg.networks.registry import Architecture, architecture_for, build
from fewvox.ssl.method import PLUGINS as METHODS
from fewvox.ssl.method import find_method
from fewvox.ssl.pretrain import PretrainConfig
from rich.console import Console

CODE = '''
from typing import Literal

from fewvox.data.settings import Probability, settings
from fewvox.seg.networks.registry import Registered as RegisteredNetwork
from fewvox.seg.networks.unet import UNet
from fewvox.ssl.method import Method, PretextResult, Registered, ViewSpec
from torch import nn


@settings
class CopyConfig:
    weight: float = 1.0


class Copy(Method):
    """The network paints what it is shown."""

    source = "nobody 2026"

    @staticmethod
    def views(config):
        return ViewSpec()

    @staticmethod
    def heads(scope, config):
        return nn.Conv3d(scope.architecture.topology.features[0], scope.architecture.in_channels, 1)

    def forward(self, batch, step):
        (view,) = batch.views
        painted = self.head(self.network.features(view))
        return PretextResult(loss=self.config.weight * (painted - view).square().mean())


class Careless(Copy):
    """The network paints what it has spoilt before."""

    trains = ("encoder",)

    def forward(self, batch, step):
        batch.views[0].mul_(0.5)
        return super().forward(batch, step)


class Plain(UNet):
    pass


class Mixing(UNet):
    def forward(self, images):
        logits = super().forward(images)
        return logits + logits.mean(dim=0, keepdim=True)


@settings
class Halving:
    op: Literal["halving"] = "halving"
    probability: Probability = 1.0

    def __call__(self, image, draws):
        return image.div_(2)


@settings
class Idle(Halving):
    op: Literal["idle"] = "idle"

    def __call__(self, image, draws):
        return image


copying = Registered(method=Copy, config=CopyConfig)
careless = Registered(method=Careless, config=CopyConfig)
their_unet = RegisteredNetwork(network=Plain, summary="A U-Net of theirs.")
mixing = RegisteredNetwork(network=Mixing, summary="A U-Net whose items mix.")
'''
OFFERS = {
    METHODS: {"copying": "copying", "careless": "careless", "unmet": "nosuch", "mae": "copying"},
    NETWORKS: {"their_unet": "their_unet", "mixing": "mixing"},
    OPERATIONS: {"halving": "Halving", "idle": "Idle"},
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package "planted" 0.3, in a folder of its own on Python's path."""
    (tmp_path / "planted_tasks.py").write_text(CODE)
    info = tmp_path / "planted-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 0.3\n")
    groups = {
        plugins.group: "".join(f"{name} = planted_tasks:{what}\n" for name, what in offers.items())
        for plugins, offers in OFFERS.items()
    }
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{lines}" for group, lines in groups.items()))
    monkeypatch.syspath_prepend(tmp_path)
    kept = [(plugins, dict(plugins.table), dict(plugins._packages)) for plugins in OFFERS]
    yield
    for plugins, table, packages in kept:
        plugins.table.clear()
        plugins.table.update(table)
        plugins._packages.clear()
        plugins._packages.update(packages)
    sys.modules.pop("planted_tasks", None)


def failed(name: str) -> dict[str, dict[str, str]]:
    """The checks that something fails, with what was found."""
    return {each.check: each.faults for each in api.check_plugin(name) if not each.passed}


@pytest.mark.parametrize("name", ["copying", "their_unet", "halving"])
def test_what_is_sound_passes_every_check(installed, name):
    assert "planted_tasks" not in sys.modules
    found = api.check_plugin(name)
    assert [each for each in found if not each.passed] == []
    assert found[0].note == "from planted 0.3"
    assert len(found) > 5


def test_a_method_s_faults_are_told(installed):
    found = failed("careless")
    assert {"leaves the batch", "reaches what it claims"} <= set(found)
    assert "loss is finite" not in found
    assert found["leaves the batch"] == dict.fromkeys(found["leaves the batch"], "a view was overwritten")
    assert len(found["leaves the batch"]) == 2
    assert all("decoder.0" in fault for fault in found["reaches what it claims"].values())


def test_a_network_s_faults_are_told(installed):
    found = failed("mixing")
    assert set(found) == {"parts compose to the whole", "items of a batch do not mix"}


def test_an_augmentation_s_faults_are_told(installed):
    assert set(failed("idle")) == {"changes something"}


def test_what_cannot_be_loaded_or_has_a_name_of_ours_is_told(installed):
    (found,) = api.check_plugin("unmet")
    assert "planted 0.3 offers it (planted_tasks:nosuch), which fails with AttributeError" in found.faults[""]
    (found,) = api.check_plugin("mae")
    assert "planted 0.3 offers it, a name that is fewvox's own" in found.faults[""]


def test_a_plan_that_a_network_refuses_is_no_fault():
    follows = next(e for e in plugin_checks._network("swin_unetr") if e.check == "follows a plan")
    assert follows.passed
    assert follows.note.startswith("no pooling: refused: network swin_unetr: a plan without pooling")


def test_an_unknown_name_is_answered_with_all_of_them(installed):
    with pytest.raises(
        UserError, match=r"methods: .*careless, .*; networks: .*hrnet, .*; augmentations: .*halving"
    ):
        api.check_plugin("nosuch")


def test_the_methods_of_packages_are_listed_and_broken_ones_told(installed, capsys):
    facts = {fact.name: fact for fact in api.methods()}
    told = " ".join(capsys.readouterr().out.split())
    assert facts["copying"].package == "planted 0.3"
    assert facts["mae"].package is None
    assert facts["copying"].cost is None
    assert "warning: method unmet: planted 0.3 offers it (planted_tasks:nosuch), which fails with" in told
    assert "warning: method mae: planted 0.3 offers it, a name that is fewvox's own" in told
    console = Console(width=160)
    with console.capture() as shown:
        console.print(methods_table(tuple(facts.values())))
    assert "nobody 2026 (from planted 0.3)" in shown.get()
    assert api.networks()["their_unet"] == "A U-Net of theirs."


def test_a_method_and_a_network_of_a_package_are_trained_and_read_again(installed, tiny_store, tmp_path):
    small = [
        "steps=2",
        "batch=2",
        "patch=[8,16,8]",
        "width=4",
        "device=cpu",
        "network=their_unet",
        "workers=0",
    ]
    with pytest.raises(SettingsError, match="unknown key 'wait'"):
        api.pretrain("copying", tiny_store.path, tmp_path / "run", set=[*small, "options.wait=1"])
    run = api.pretrain("copying", tiny_store.path, tmp_path / "run", set=[*small, "options.weight=2"])
    checkpoint = load(run.path)
    assert (checkpoint.info.method, checkpoint.info.architecture.name) == ("copying", "their_unet")
    assert type(checkpoint.network()).__name__ == "Plain"


def test_a_checkpoint_of_a_network_that_is_not_installed_is_refused_with_its_name(installed, tiny_store):
    values = json.loads(json.dumps(plain(architecture_for(tiny_store.plan, "their_unet"))))
    assert type(build(parse(Architecture, values, "a checkpoint"))).__name__ == "Plain"
    with pytest.raises(SettingsError, match=r"'name' is 'gone': no such network; there are: .*their_unet"):
        parse(Architecture, values | {"name": "gone"}, "a checkpoint")


def test_a_file_names_what_is_installed_and_nothing_else(installed):
    """A path to code is a name like any other: unknown."""
    for name in ("planted_tasks:copying", "os:system", "./planted_tasks.py"):
        with pytest.raises(UserError, match="no such method"):
            find_method(name)
        with pytest.raises(SettingsError, match="no such network"):
            parse(PretrainConfig, {"method": "mae", "network": name}, "a file")
    assert "planted_tasks" not in sys.modules
    with pytest.raises(PluginError, match="planted"):
        find_method("unmet")


def test_the_command_ends_with_1_where_a_check_fails(installed, monkeypatch, capsys):
    for name, status in (("halving", 0), ("idle", 1)):
        monkeypatch.setattr(sys, "argv", ["fewvox", "check-plugin", name])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == status
        shown = capsys.readouterr().out
        assert ("checks failed" in shown) == (status == 1)
    assert "nothing changes with" in shown


def test_the_table_names_the_situations_that_failed():
    rows = (
        plugin_checks.Checked(kind="method", check="a", note="noted"),
        plugin_checks.Checked(kind="method", check="b", faults={"one": "1 [x]", "two": "2"}),
    )
    console = Console(width=100)
    with console.capture() as shown:
        console.print(checks_table("mine", rows))
    told = shown.get()
    for part in ("mine: 1 of 2 checks failed", "noted", "one: 1 [x]", "two: 2"):
        assert part in told
