"""The root that gets wrapped: a model together with its head and loss.

`ScoredModel.forward` runs backbone, gather of the counted positions, head and
loss, and returns sums. DDP or FSDP2 wraps this module and nobody reaches around
it: a head used outside its wrapper's forward is a shard, or misses its gradient
hooks. Prompt and padding positions never reach the head, so their gradient from
it is exactly zero, and [N, V] need not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from potstill.batch import TokenBatch
from potstill.head import Head
from potstill.losses.fused import Scored, weighted_sums
from potstill.losses.objective import Objective
from potstill.models.adapt import head_weight
from potstill.models.load import ModelError
from potstill.models.packing import packed_hidden, refuse_encoder_decoder
from potstill.models.vocabulary import Alignment
from potstill.targets import FinalHidden


class ScoredModel(nn.Module):
    """A Transformers language model, decoder-only or encoder-decoder, that scores batches."""

    model: Any

    def __init__(self, model: Any, pack_tokens: int | None = None):
        super().__init__()
        if pack_tokens is not None:
            refuse_encoder_decoder(model)
        self.model, self.pack_tokens = model, pack_tokens

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(self.model.config.is_encoder_decoder)

    @property
    def vocabulary_width(self) -> int:
        """V: columns of the head, padding included."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    def head(self) -> Head:
        """The head as it is now; under FSDP2 only meaningful inside forward."""
        layer, config = self.model.get_output_embeddings(), self.model.config
        bias = layer.bias
        if getattr(self.model, "final_logits_bias", None) is not None:  # BART
            extra = self.model.final_logits_bias[0]
            bias = extra if bias is None else bias + extra
        scale = float(getattr(config, "logit_scale", 1.0) or 1.0)
        scale /= float(getattr(config, "logits_scaling", 1.0) or 1.0)
        hidden_scale = 1.0
        if config.model_type in {"t5", "mt5", "umt5"} and _scales_hidden(config):
            hidden_scale = float(config.d_model) ** -0.5
        cap = getattr(config, "final_logit_softcapping", None)
        return Head(head_weight(layer), bias, hidden_scale, scale, cap)

    def hidden(self, batch: TokenBatch) -> Tensor:
        """Last hidden states of the counted positions, [N, D], row by row."""
        if self.pack_tokens is not None:
            return packed_hidden(self.model.get_decoder(), batch, self.pack_tokens)
        mask = batch.attention_mask
        if not self.is_encoder_decoder:
            # Said outright, so that left padding gives the same numbers as right.
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            output = self.model.get_decoder()(
                input_ids=batch.input_ids, attention_mask=mask, position_ids=positions, use_cache=False
            )
        else:
            encoded = self.model.get_encoder()(input_ids=batch.encoder_ids, attention_mask=batch.encoder_mask)
            output = self.model.get_decoder()(
                input_ids=batch.input_ids,
                attention_mask=mask,
                encoder_hidden_states=encoded.last_hidden_state,
                encoder_attention_mask=batch.encoder_mask,
                use_cache=False,
            )
        selected: Tensor = output.last_hidden_state[batch.counted]
        return selected

    def forward(
        self, batch: TokenBatch, objective: Objective, term_weights: Mapping[str, float] | None = None
    ) -> Scored:
        """The total to go back from, undivided, and what it consists of; see `weighted_sums`."""
        weights = {name: value[batch.counted] for name, value in batch.token_weights.items()}
        return weighted_sums(
            self.hidden(batch),
            self.head(),
            batch.target_ids[batch.counted],
            weights,
            batch.targets,
            objective,
            term_weights,
        )

    @torch.no_grad()
    def targets(self, batch: TokenBatch, alignment: Alignment, fingerprint: str) -> FinalHidden:
        """What this model, as teacher, says about the counted positions of the batch."""
        return self.as_targets(self.hidden(batch), alignment, fingerprint)

    def as_targets(self, hidden: Tensor, alignment: Alignment, fingerprint: str) -> FinalHidden:
        """Kept hidden states [N, D] as targets."""
        return FinalHidden(hidden, self.head(), fingerprint, alignment.student_width, alignment.shared)

    @torch.no_grad()
    def verify_head(self) -> None:
        """Compare hidden states through our head with the model's own logits.

        Model families scale, shift or cap their logits in ways of their own. One that
        does what we do not know must be refused, not trained on a wrong distribution.
        """
        device = next(self.model.parameters()).device
        ids = torch.arange(1, 9, device=device)[None] % self.vocabulary_width
        everywhere = torch.ones_like(ids)
        batch = TokenBatch(ids, everywhere, ids, everywhere.bool(), ("corpus",), ("",))
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": everywhere}
        if self.is_encoder_decoder:
            batch.encoder_ids, batch.encoder_mask = ids, everywhere
            inputs |= {"decoder_input_ids": ids, "decoder_attention_mask": everywhere}
        expected = self.model(**inputs).logits[0].float()
        found = self.head().project(self.hidden(batch))
        error = float((torch.log_softmax(found, -1) - torch.log_softmax(expected, -1)).abs().max())
        if not error <= 0.01 * max(1.0, float(expected.abs().max())):
            raise ModelError(
                f"{type(self.model).__name__} does something to its logits that Potstill does not know "
                f"(largest difference {error:.3g} nats). Its head is not supported yet; please report it."
            )


def _scales_hidden(config: Any) -> bool:
    """T5 with tied embeddings shrinks its hidden states; newer configs say so themselves."""
    said = getattr(config, "scale_decoder_outputs", None)
    return bool(config.tie_word_embeddings if said is None else said)
