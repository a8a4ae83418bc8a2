"""The student as a generator while it trains: its own weights, no copy of them.

Sharded weights are put together for as long as it speaks, blocks are not computed twice,
and compiled blocks run as they are, since they would be compiled anew for every length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from potstill.models.recompute import not_recomputing
from potstill.training.parallel import in_shards


@contextmanager
def speaking(wrapped: nn.Module, student: Any) -> Iterator[None]:
    """Inside it `student`, the model that `wrapped` trains, can be sampled from.

    Where the weights are sharded, every process must do the same inside it.
    """
    for module in wrapped.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
    with ExitStack() as stack:
        stack.enter_context(not_recomputing(student))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
    in_shards(wrapped)
