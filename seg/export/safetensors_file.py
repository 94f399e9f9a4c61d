"""Weights and what they are, for programs that know nothing of fewvox.

OUT/weights.safetensors   the tensors by the names of our network; fewvox reads it as a checkpoint
OUT/model.json            architecture, plan with labels, training
"""

import json
import shutil
from pathlib import Path

from ...data.atomic import new_folder
from ...data.settings import plain
from ..checkpoint import WEIGHTS, Checkpoint

MODEL = "model.json"


def export_safetensors(checkpoint: Checkpoint, out: Path) -> list[str]:
    """Writes the folder `out`; gives what its reader should know, in lines."""
    with new_folder(out) as folder:
        shutil.copyfile(checkpoint.path, folder / WEIGHTS)
        (folder / MODEL).write_text(json.dumps(plain(checkpoint.info), indent=1), encoding="utf-8")
    return [
        f"{MODEL} tells how volumes are prepared (plan.preprocessing) and what the classes are (plan.labels)."
    ]
