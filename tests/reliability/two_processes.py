"""The program `fewvox`, once or again and again, in one of two processes that train together.

Arguments: a file to write the exit statuses to, and a JSON list of [what happens, arguments of fewvox]. What
happens is {step: "raise" or "signal"}, to the second process alone.
"""

import json
import os
import signal
import sys
from dataclasses import replace

import torch
import torch.nn.functional as F
from fewvox.data.errors import UserError
from fewvox.experiments import cli
from fewvox.seg.engine.distributed import rank
from fewvox.ssl.methods.triplet import Triplet


class Disturbed(Triplet):
    """The triplet task with dropout, and with something that happens."""

    happens: dict[str, str] = {}

    def forward(self, batch, step):
        happens = self.happens.get(str(step)) if rank() == 1 else None
        if happens == "raise":
            raise UserError(
                f"case {batch.cases[0]}",
                found="spoilt",
                rule="it is not",
                remedy="look at it, or leave it out",
            )
        if happens == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        result = super().forward(batch, step)
        return replace(result, loss=result.loss * F.dropout(torch.ones(8), 0.1).mean())


def run(happens, arguments):
    """Exit status of a command."""
    Disturbed.happens = happens
    sys.argv = ["fewvox", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    from fewvox.ssl.methods.registry import METHODS

    METHODS["triplet"] = replace(METHODS["triplet"], method=Disturbed)
    file, commands = sys.argv[1], json.loads(sys.argv[2])
    statuses = [run(*command) for command in commands]
    if len(statuses) == 1:
        sys.exit(statuses[0])
    torch.save(statuses, file)
