"""`potstill check`: what a run would take, without starting it."""

from __future__ import annotations

from potstill.config import Run
from potstill.training.distil import say_forecast
from potstill.training.hardware import settle_precision
from potstill.training.parallel import start_world
from potstill.training.permission import permitted
from potstill.training.preflight import preflight
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show
from potstill.training.stages import load_models, load_prompts


def check_verb(config: Run) -> None:
    """Load models and prompts, foresee; nothing is written."""
    quiet_libraries()
    permitted(config)  # before anything is loaded
    device = start_world(config.training.device).device
    precision = settle_precision(config.training.precision, device)
    config = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})
    models = load_models(config)
    prompts = load_prompts(config, models.tokenizer, models.teacher.is_encoder_decoder)
    say_forecast(Show(), preflight(config, models, prompts, device), prompts)
