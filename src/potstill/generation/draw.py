"""Which token comes next: inverse CDF from the keyed number of its position.

The law is softmax(logits / temperature), over the top-p set where there is one. A sum
over the whole vocabulary in float64 would cost more than it is worth: the vocabulary is
summed in blocks, a block is drawn, then a token within it. The order of the tokens is the
vocabulary's, so that a number draws the same token as a plain inverse CDF would.

Letters: n rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.config.data import Sampling

#: Tokens of a block.
BLOCK = 256
#: A top-p set is looked for among so many likeliest tokens first.
LIKELIEST = 1024
#: Numbers stay this far below 1, so that rounding never leaves one beyond the end.
BELOW_ONE = 1 - 2.0**-40


def draw(logits: Tensor, numbers: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """One token for each row, and its log-prob (nats) under the sampler's own law.

    `logits` [n, V] in fp32 or wider are overwritten; `numbers` [n] float64 lie in [0, 1).
    Returns ids [n] int64 and log-probs [n] float64. At temperature 0 the likeliest token
    is certain, and its log-prob 0.
    """
    if sampling.sampling_temperature == 0:
        return logits.argmax(-1), torch.zeros_like(numbers)
    logits.sub_(logits.amax(-1, keepdim=True))
    if sampling.sampling_temperature != 1:
        logits.div_(sampling.sampling_temperature)
    weights = logits.exp_()
    if sampling.top_p < 1:
        weights = likeliest(weights, sampling.top_p)
    return inverse_cdf(weights, numbers)


def likeliest(weights: Tensor, top_p: float) -> Tensor:
    """[n, V] weights, 0 outside the smallest set of tokens that holds `top_p` of each row's sum."""
    enough = top_p * weights.sum(-1, keepdim=True, dtype=torch.float64)
    count = min(LIKELIEST, weights.shape[1])
    while True:
        ordered, where = weights.topk(count, dim=-1)
        wide = ordered.double()
        kept = wide.cumsum(-1) - wide < enough
        if count == weights.shape[1] or not kept[:, -1].any():
            return torch.zeros_like(weights).scatter_(1, where, ordered * kept)
        count = weights.shape[1]


def inverse_cdf(weights: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The first token whose cumulative weight exceeds the number's share of the sum, and its log-prob.

    `weights` [n, V] are at least 0 and need not sum to 1; a token of weight 0 is never drawn.
    """
    n, width = weights.shape
    whole = width // BLOCK * BLOCK
    sums = weights[:, :whole].view(n, -1, BLOCK).sum(-1)
    if whole < width:
        sums = torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], 1)
    upto = sums.double().cumsum(-1)  # [n, blocks]
    target = numbers.clamp(max=BELOW_ONE)[:, None] * upto[:, -1:]
    block = torch.searchsorted(upto, target, right=True)
    mass = sums.double().gather(1, block)
    share = (target - (upto.gather(1, block) - mass)) / mass
    columns = block * BLOCK + torch.arange(BLOCK, device=weights.device)  # [n, BLOCK]
    within = weights.gather(1, columns.clamp(max=width - 1)).double().masked_fill(columns >= width, 0)
    inside = within.cumsum(-1)
    place = torch.searchsorted(inside, share.clamp(0, BELOW_ONE) * inside[:, -1:], right=True)
    log_probs = (within.gather(1, place) / upto[:, -1:]).log()
    return (block * BLOCK + place).squeeze(1), log_probs.squeeze(1)
