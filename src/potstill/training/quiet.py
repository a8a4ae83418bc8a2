"""Libraries speak of themselves at every load; a user of Potstill wants to hear of the run."""

from __future__ import annotations

import logging
import os


def quiet_imports() -> None:
    """What libraries say when they are imported; call it before they are."""
    for name in ("torchao", "torch.utils._pytree"):  # where torchao is installed it speaks of other hardware
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TQDM_DISABLE", "1")  # tqdm reads it when it is imported


def quiet_libraries() -> None:
    """Progress bars and advice of Transformers and its hub client off; errors stay."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
