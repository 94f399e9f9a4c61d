"""Batches are the same, and in the same order, whoever makes them."""

import pickle
import threading
from dataclasses import replace
from itertools import islice

import psutil
import pytest
import torch
from fewvox.data import supply
from fewvox.data.augment.chain import AugmentConfig, preset
from fewvox.data.augment.torchio_transform import TorchIO
from fewvox.data.loader import PatchBatch, PatchConfig, PatchSampler
from fewvox.data.making import BatchError
from fewvox.data.supply import default_workers, prefetched

SPATIAL = {"rotation_probability": 0.5, "scale_probability": 0.5, "flip_probability": 0.5}


@pytest.fixture(scope="module")
def sampler(tiny_store) -> PatchSampler:
    config = PatchConfig(augment=preset("nnunet", spatial=SPATIAL))
    return PatchSampler(tiny_store, tuple(tiny_store.cases), (6, 8, 8), 2, config, 0)


@pytest.fixture
def no_gpu_needed(monkeypatch):
    """What is done on a GPU is done on the CPU; the steps that were."""
    steps: list[int] = []

    def finishing(sampler, device):
        def finish(step, read):
            steps.append(step)
            return sampler.finish(read)

        return finish

    monkeypatch.setattr(supply, "pinned", supply.pageable)
    monkeypatch.setattr(supply, "finishing", finishing)
    return steps


def same(one: PatchBatch, other: PatchBatch) -> bool:
    images, labels = torch.equal(one.images, other.images), torch.equal(one.labels, other.labels)
    return images and labels and one.cases == other.cases


def workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "resource_tracker" not in "".join(child.cmdline())]


@pytest.mark.parametrize(("count", "device"), [(0, "cpu"), (0, "cuda"), (1, "cuda"), (2, "cpu")])
def test_batches_do_not_depend_on_who_makes_them(sampler, no_gpu_needed, count, device):
    supply = sampler.batches(3, 1000, workers=count, device=torch.device(device))
    made = list(islice(supply, 11))
    assert no_gpu_needed[:11] == (list(range(3, 14)) if device == "cuda" else [])
    assert all(same(batch, sampler.batch(step)) for step, batch in enumerate(made, start=3))
    assert len(workers()) == count
    running = threading.active_count()
    supply.close()
    assert workers() == []
    assert threading.active_count() < running


def test_no_steps_need_no_workers(sampler):
    assert list(sampler.batches(5, 5, workers=2)) == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_thread_names_the_case_that_failed(sampler, no_gpu_needed, monkeypatch, device):
    def fail(*_, **__):
        raise ValueError("no such voxel")

    monkeypatch.setattr(PatchSampler, "_anchor", fail)
    with pytest.raises(BatchError, match=rf"^case {sampler.cases_of(4)[0]}: .*ValueError: no such voxel"):
        next(sampler.batches(4, 5, device=torch.device(device)))


def test_a_transform_that_fails_is_told_with_its_case(sampler):
    chain = {"crop": TorchIO(transform="Crop", probability=1.0, arguments={"cropping": 1})}
    cropping = replace(sampler.config, augment=AugmentConfig(chain=chain))
    failing = PatchSampler(sampler.store, sampler.cases, (6, 8, 8), 2, cropping, 0)
    told = rf"^case {sampler.cases_of(4)[0]}, TorchIO's Crop: it made image of \(1, 4, 6, 6\).*augment\.chain"
    with pytest.raises(BatchError, match=told):
        next(failing.batches(4, 5))


def test_cases_are_known_before_a_batch_is_made(sampler):
    assert [sampler.cases_of(step) for step in range(8)] == [sampler.batch(step).cases for step in range(8)]


def test_a_source_ends_before_the_thread_that_waits_for_it():
    """Else a batch that never comes would be waited for."""
    ended = threading.Event()

    class Source:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            ended.set()

    def make(step: int) -> int:
        assert step == 0 or ended.wait(60)
        return step

    batches = prefetched(make, 0, 5, Source())
    assert next(batches) == 0
    batches.close()
    assert ended.is_set()


def test_all_tensors_of_a_batch_are_found(sampler):
    batch, read = sampler.batch(0), sampler.read(0)
    assert [id(t) for t in supply._tensors(batch)] == [id(batch.images), id(batch.labels)]
    assert len(list(supply._tensors(read))) == 4


def test_workers_are_for_gpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(6))
    assert default_workers(torch.device("cpu")) == 0
    assert default_workers(torch.device("cuda")) == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64))
    assert default_workers(torch.device("cuda")) == 8
    assert default_workers(torch.device("cuda"), processes=4) == 8
    assert default_workers(torch.device("cuda"), processes=16) == 2
    assert default_workers(torch.device("cuda"), processes=64) == 1
    assert default_workers(torch.device("cpu"), processes=4) == 0


def test_a_sampler_can_be_sent(sampler):
    assert same(pickle.loads(pickle.dumps(sampler)).batch(2), sampler.batch(2))
