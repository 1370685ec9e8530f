"""Writes the golden outputs of the shipped networks: python -m selftest.write_golden [NAME ...]

Nothing is kept from one run to the next: every file is computed whole, in float64, on this host.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save

from fixtures.core import golden, weights
from fixtures.core.chain import Chain
from fixtures.core.networks import NETWORKS, network
from fixtures.core.store import Store, tensors_digest
from fixtures.core.weights import state_digest


def write(name):
    """One network's file."""
    row = network(name)
    plan = weights.resolve("synthetic", row, row.num_classes, golden.SEED)
    model = weights.build(row, plan, row.num_classes)[0]
    inputs = golden.images(model)
    digest = state_digest(model)
    with tempfile.TemporaryDirectory() as folder:
        tensors = golden.content(Chain(model, digest, Store(Path(folder))), inputs)
    metadata = {
        "network": name,
        "weights": digest,
        "inputs": tensors_digest({"images": inputs}),
        "made by": f"torch {torch.__version__.partition('+')[0]}, float64",
    }
    # one key: safetensors writes several in no fixed order, and the digest is to stay
    golden.path_of(name).write_bytes(
        save(tensors, {"golden": json.dumps(metadata, sort_keys=True)})
    )


def main(names):
    """The files of these networks, and the list of all digests."""
    golden.FOLDER.mkdir(exist_ok=True)
    for name in names or NETWORKS:
        write(name)
        print(f"{name}: written")
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(golden.FOLDER.glob("*.safetensors"))
    ]
    (golden.FOLDER / golden.SUMS).write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
