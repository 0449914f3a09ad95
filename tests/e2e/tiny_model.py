"""Run in a pod of the stage image, with tests/tiny_llama.py beside it: puts a tiny random model into the storage.

Most tests ask what becomes of a run, not what its model has learned; with weights of kilobytes they take a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from perseid.storage.objects import Objects
from tiny_llama import make_model, write_model

if __name__ == "__main__":
    objects = Objects(sys.argv[1])
    model = make_model(hidden_size=16, intermediate_size=32, num_hidden_layers=1, max_position_embeddings=4096)
    with tempfile.TemporaryDirectory() as scratch:
        for path in write_model(Path(scratch) / "model", model).iterdir():
            objects.upload(path.name, path, path.stat().st_size)
