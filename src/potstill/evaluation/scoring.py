"""Log-likelihoods of choices by a model in memory: many short texts, sorted by length, each of them read once.

It gives the numbers of lm-eval's own Transformers model (tests compare them item by item) in two thirds of the time
for small models: texts are tokenised together, equal inputs are run once, and only the positions that count go
through the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from potstill.evaluation.choices import ChoiceScores, Item, digest
from potstill.models.load import ModelError
from potstill.models.scored import ScoredModel

#: Floats of logits that exist at once: 64 MiB.
LOGITS_AT_ONCE = 2**24
#: Where configurations write how many positions they know, in lm-eval's order.
POSITIONS = ("n_positions", "max_position_embeddings", "n_ctx")


@dataclass(frozen=True, slots=True)
class EncodedChoice:
    """One choice in token ids: what the model reads, and what it should have said at the last positions."""

    read: tuple[int, ...]
    targets: tuple[int, ...]
    cut: int  # tokens lost on the left


def score_choices(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    batch_tokens: int = 2048,
    *,
    max_length: int | None = None,
    prefix_id: int | None = None,
) -> ChoiceScores:
    """Every choice of every item, scored by a decoder-only Transformers model where it stands.

    batch_tokens: at most so many tokens are read at once, padding included (one text may have more).
    max_length: positions of the model; None: what its configuration says. What is longer loses its beginning, which
    `ChoiceScores.cut` counts. prefix_id: the token before items without context; None: the tokenizer's beginning of
    sequence or, without one, its end.

    Raises ValueError for no items, a choice that is longer than the model's context, and a context that is nothing
    but spaces; ModelError for an encoder-decoder or a model whose head is not known. Gradients are off and the model
    is in eval mode meanwhile.
    """
    texts = encode_items(model, tokenizer, items, max_length, prefix_id)
    was_training = model.training
    model.eval()
    try:
        sums, hits = _score(ScoredModel(model), texts, batch_tokens)
    finally:
        model.train(was_training)
    return gather(items, texts, sums, hits == np.array([len(text.targets) for text in texts]))


def context_length(model: Any) -> int:
    """How many positions a model's configuration says it has. Raises ModelError where it does not say."""
    config = getattr(model.config, "text_config", None) or model.config
    for name in POSITIONS:
        if (found := getattr(config, name, None)) is not None:
            return int(found)
    raise ModelError(f"{type(model).__name__} does not say how many positions it has; pass max_length")


def encode_items(
    model: Any, tokenizer: Any, items: Sequence[Item], max_length: int | None, prefix_id: int | None
) -> list[EncodedChoice]:
    """Every choice in token ids, item by item; see `score_choices` for the settings and what is raised.

    As in lm-eval context and choice are tokenised together, so that their border is where the model saw it.
    """
    if not items:
        raise ValueError("expected at least one item, found none")
    if model.config.is_encoder_decoder:
        raise ModelError(f"expected a decoder-only model, found the encoder-decoder {type(model).__name__}")
    limit = context_length(model) if max_length is None else max_length
    prefix = _prefix(tokenizer) if prefix_id is None else prefix_id
    parts = [_split(context, scored) for item in items for context, scored in item.texts()]
    begins = None if prefix is None else tokenizer.decode(prefix)
    whole = _ids(tokenizer, [a + b for a, b in parts if a], begins)
    before = _ids(tokenizer, [a for a, _ in parts if a], begins)
    alone = _ids(tokenizer, [b for a, b in parts if not a], "")
    texts = []
    for context, scored in parts:
        if context:
            start = before[context]
            said = whole[context + scored][len(start) :]
        elif prefix is None:
            raise ValueError("an item without context needs a token to stand before it; pass prefix_id")
        elif (said := alone[scored])[:1] == [prefix]:
            start, said = said[:1], said[1:]
        else:
            start = [prefix]
        texts.append(_fit(start, said, limit, scored))
    return texts


def _prefix(tokenizer: Any) -> int | None:
    found = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return None if found is None else int(found)


def _split(context: str, scored: str) -> tuple[str, str]:
    """Spaces at the end of the context belong to the choice: there tokenizers put them."""
    bare = context.rstrip()
    if context and not bare:
        raise ValueError(f"expected a context with words, or none, found {context!r}: leave it empty")
    return bare, context[len(bare) :] + scored


def _ids(tokenizer: Any, texts: list[str], begins: str | None) -> dict[str, list[int]]:
    """Ids by text, with the special tokens that the tokenizer adds, unless the text begins with `begins` (or "")."""
    unique = list(dict.fromkeys(texts))
    bare = [begins is not None and text.startswith(begins) for text in unique]
    found: dict[str, list[int]] = {}
    for special in (True, False):
        mine = [text for text, without in zip(unique, bare, strict=True) if without != special]
        if mine:
            found |= dict(zip(mine, tokenizer(mine, add_special_tokens=special)["input_ids"], strict=True))
    return found


def _fit(start: list[int], said: list[int], limit: int, scored: str) -> EncodedChoice:
    if not start or not said:
        raise ValueError(f"expected tokens before and in the choice {scored!r}, found {len(start)} and {len(said)}")
    if len(said) > limit:
        raise ValueError(
            f"the choice {scored[:60]!r} has {len(said)} tokens and the model {limit} positions: nobody can score it. "
            "Leave out such items (`keep_fitting` does, and counts them), or take a model with a longer context."
        )
    ids = start + said
    return EncodedChoice(tuple(ids[-(limit + 1) : -1]), tuple(said), max(0, len(ids) - limit - 1))


def keep_fitting(
    items: Sequence[Item], model: Any, tokenizer: Any, max_length: int | None = None
) -> tuple[list[Item], int]:
    """The items whose choices all fit into the model's context, and how many are left out.

    Which ones are left out depends on tokenizer and context alone, so that models which share both get the same.
    """
    limit = context_length(model) if max_length is None else max_length
    pairs = [[_split(context, scored)[1] for context, scored in item.texts()] for item in items]
    ids = _ids(tokenizer, [text for texts in pairs for text in texts], "")
    kept = [item for item, texts in zip(items, pairs, strict=True) if max(len(ids[text]) for text in texts) <= limit]
    return kept, len(items) - len(kept)


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices, longest first, so that a batch's first text says how much padding there is."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    at = 0
    while at < len(order):
        rows = max(1, batch_tokens // lengths[order[at]])
        yield order[at : at + rows]
        at += rows


@torch.no_grad()
def _score(scored: ScoredModel, texts: Sequence[EncodedChoice], batch_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """[R] log-likelihoods in nats, and how many tokens of each text are the model's likeliest."""
    scored.verify_head()
    device = next(scored.parameters()).device
    unique = {read: i for i, read in enumerate(dict.fromkeys(text.read for text in texts))}
    reads = list(unique)
    askers: list[list[int]] = [[] for _ in reads]
    for i, text in enumerate(texts):
        askers[unique[text.read]].append(i)
    sums = torch.zeros(len(texts), dtype=torch.float64, device=device)
    hits = torch.zeros(len(texts), dtype=torch.int64, device=device)
    for chosen in _batches([len(read) for read in reads], batch_tokens):
        longest = len(reads[chosen[0]])
        # Padding is the last token again, on the right, where a decoder's earlier positions never look: no mask.
        padded = [reads[which] + reads[which][-1:] * (longest - len(reads[which])) for which in chosen]
        places: list[tuple[int, int, int, int]] = []  # row, position, target, whose
        for row, which in enumerate(chosen):
            length = len(reads[which])
            for who in askers[which]:
                first = length - len(texts[who].targets)
                places += [(row, first + k, target, who) for k, target in enumerate(texts[who].targets)]
        ids = torch.tensor(padded, device=device)
        hidden = scored.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        _add(scored, hidden, torch.tensor(places, device=device), sums, hits)
    return sums.cpu().numpy(), hits.cpu().numpy()


def _add(
    scored: ScoredModel, hidden: torch.Tensor, places: torch.Tensor, sums: torch.Tensor, hits: torch.Tensor
) -> None:
    head = scored.head()
    for part in places.split(max(1, LOGITS_AT_ONCE // head.width)):
        rows, positions, targets, whose = part.unbind(1)
        logits = head.project(hidden[rows, positions])
        logs = logits.gather(1, targets[:, None])[:, 0] - torch.logsumexp(logits, 1)
        sums.index_add_(0, whose, logs.double())
        hits.index_add_(0, whose, (logits.argmax(1) == targets).long())


def gather(items: Sequence[Item], texts: Sequence[EncodedChoice], sums: np.ndarray, greedy: np.ndarray) -> ChoiceScores:
    """Results choice by choice (`sums` in nats), into one row an item."""
    counts = np.array([len(item.choices) for item in items])
    there = np.arange(counts.max())[None, :] < counts[:, None]

    def table(flat: Sequence[Any] | np.ndarray, empty: float | int | bool, kind: Any) -> np.ndarray:
        full = np.full(there.shape, empty, dtype=kind)
        full[there] = flat
        return full

    said = [choice for item in items for choice in item.choices]
    return ChoiceScores(
        log_likelihood=table(sums, np.nan, np.float64),
        greedy=table(greedy, False, bool),
        tokens=table([len(text.targets) for text in texts], 0, np.int64),
        characters=table([len(choice) for choice in said], 0, np.int64),
        bytes=table([len(choice.encode()) for choice in said], 0, np.int64),
        right=np.array([item.right for item in items], dtype=np.int64),
        cut=table([text.cut for text in texts], 0, np.int64).max(1),
        groups=np.array([item.group for item in items], dtype=str),
        digest=digest(items),
    )
