"""Hides what Lightning says about hardware, data loaders and its own code; its errors stay."""

from __future__ import annotations

import logging
import warnings

HIDDEN = (
    "Couldn't infer the batch indices",  # a job is no batch of samples
    ".*LeafSpec.*",  # Lightning calls what PyTorch deprecates
    ".*num_workers.*",  # a batch is a number or a path: no worker would help
    "Checkpoint directory .* exists and is not empty",  # a resumed run continues from it
    "You're resuming from a checkpoint that ended before",  # the number of a step seeds it
)


def quieten_lightning() -> None:
    """Hides Lightning's messages below a warning, and the warnings that begin as in HIDDEN."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in HIDDEN:
        warnings.filterwarnings("ignore", message)
