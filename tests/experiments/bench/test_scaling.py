"""What a second worker brings, without what its start costs."""

import time

import pytest
from fewvox.experiments.bench.scaling import worker_figure


def test_the_ratio_is_of_batches_that_are_waited_for():
    begun, ended = [], []

    def supply(workers, count):
        begun.append(workers)
        assert len(begun) == len(ended) + 1
        try:
            time.sleep(0.2)
            for k in range(count):
                # the first are there at once
                time.sleep(0 if k < 8 else 0.04 / workers)
                yield k
        finally:
            ended.append(workers)

    figure = worker_figure(supply, batches=5, runs=2)
    assert begun == ended == [2, 1, 2, 1]
    assert figure.key == "workers_2_vs_1"
    assert figure.ratio == pytest.approx(2, rel=0.3)
    assert figure.theirs == pytest.approx(0.04, rel=0.5)
