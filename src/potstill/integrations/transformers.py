"""Potstill's monitor and verdict in a run of `transformers.Trainer`, or of a trainer that derives from it (TRL's).

The callback lets the teacher answer held-out prompts before the first step, measures
the student on them every so many steps, and ends with a verdict. What it measures does
not touch training: losses are the same numbers with it and without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from transformers import TrainerCallback

from potstill.config.data import Sampling
from potstill.config.monitor import MonitorConfig
from potstill.diagnosis import MAX_LOOKS
from potstill.integrations.foreign import plain_model
from potstill.integrations.held_out import held_out_prompts
from potstill.integrations.watching import Place, Settings, Watch, start_watch
from potstill.records import Prompt, Verdict
from potstill.training.show import Show


class MonitorCallback(TrainerCallback):  # type: ignore[misc]
    """Watches the student of a Trainer on held-out prompts and judges the run.

    Measured at step 0, every `every_steps` optimiser steps and at the last step, in nats
    per token: `proxy`, forward KL to the teacher at temperature 1 on the teacher's own
    samples, whatever the trainer minimises; `golden`, the NLL of the references, or with
    an oracle forward KL to it on its samples; and the teacher's own golden. They go into
    `state.log_history` as potstill/proxy and so on, beside the trainer's `loss`. Trackers (W&B,
    TensorBoard) see them after `feed_trackers(trainer)`.

    With several processes (DDP) the main one measures and writes while the others wait at
    their next exchange of gradients, so `ddp_timeout` must be longer than the sampling
    takes. `verdict` is set on the main process when training has ended, else None.
    """

    def __init__(
        self,
        *,
        teacher: Any,
        tokenizer: Any,
        prompts: Iterable[Mapping[str, Any] | Prompt],
        output: str | Path,
        every_steps: int = 50,
        max_new_tokens: int = 64,
        batch_rows: int = 16,
        seed: int = 0,
        oracle: Any = None,
        stop_on: Iterable[str] = (),
    ):
        """
        teacher: a loaded Transformers model with a language-model head; moved to the student's device.
        tokenizer: the teacher's; the student's is the trainer's processing_class, or this where it has none.
        prompts: held-out rows, in no training set; see `held_out_prompts` for their keys.
        output: a run directory, for `potstill diagnose` and `potstill report`.
        max_new_tokens: longest sampled answer, in tokens.
        batch_rows: rows of one forward pass.
        oracle: in experiments, a loaded model that the student is held against instead of the references.
        stop_on: verdicts that end training one step after the evaluation that shows them; see
            `monitor.stop_on` (suspected hacking counts as hacking). The run is judged at every
            evaluation then, by a stricter test.

        Raises PromptError, ValueError (references missing, unknown words in stop_on), ModelError (no
        language-model head). When training begins: ModelError (vocabularies, head, sharded weights),
        EncodeError (prompts too long), RunDirError (the directory is another run's), ValueError
        (stop_on with several processes, or with too many evaluations).
        """
        plain_model(teacher, "teacher")
        if oracle is not None:
            plain_model(oracle, "oracle")
        monitor = MonitorConfig.model_validate(
            {
                "every_steps": every_steps,
                "batch_rows": batch_rows,
                "sample_tokens": max_new_tokens,
                "stop_on": tuple(stop_on),
            }
        )
        self.settings = Settings(Path(output), monitor, Sampling(max_new_tokens=max_new_tokens), seed)
        self.prompts = held_out_prompts(prompts, seed, has_oracle=oracle is not None)
        self.teacher, self.oracle, self.tokenizer = teacher, oracle, tokenizer
        self.verdict: Verdict | None = None
        self._show = Show()
        self._watch: Watch | None = None
        self._evaluated: int | None = None
        self._due = False
        self._handler: Any = None

    def feed_trackers(self, trainer: Any) -> None:
        """Have the trainer's W&B, TensorBoard and the like told of every evaluation, as train/potstill/proxy and so on.

        Call it before `trainer.train()`. The trainer's own averages are not touched.
        """
        self._handler = trainer.callback_handler

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sample and set up; evaluate where the directory lacks this step."""
        self.verdict, self._watch, self._due = None, None, False
        self._refuse_stops_that_cannot_work(args, state)
        if not state.is_world_process_zero:
            return
        found = kwargs.get("processing_class")
        found = getattr(found, "tokenizer", found)  # of a processor for several kinds of input
        student_tokenizer = found if hasattr(found, "get_vocab") else self.tokenizer
        self._watch = start_watch(
            self.settings, self.prompts, kwargs["model"], student_tokenizer, self.teacher, self.oracle,
            self.tokenizer, _place(args), state.global_step, self._show,
        )  # fmt: skip
        done = self._watch.run.evaluation_steps()
        self._evaluated = done[-1] if done else None
        if not done or self._is_due(state):
            self._evaluate(args, state, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep the training loss; logs of evaluations and of the end have none."""
        if self._watch is not None and logs and "loss" in logs:
            self._watch.log(state.global_step, logs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Only notice: the trainer logs the loss of this step after this event."""
        self._due = self._is_due(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The weights are still those that the last step ended with."""
        if self._due:
            self._evaluate(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last step has no next one; and before the end the trainer may load its best checkpoint."""
        if self._due or control.should_training_stop:
            self._evaluate(args, state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The verdict."""
        if self._watch is None:
            return
        if not args.load_best_model_at_end:
            self._evaluate(args, state, control)
        self.verdict = self._watch.finish(state.global_step)
        self._show.say(f"[bold]{self.verdict.verdict.replace('_', ' ')}[/bold]: {escape(self.verdict.sentence)}")
        self._watch = None  # and with it the frozen sets

    def _is_due(self, state: Any) -> bool:
        return bool(state.global_step % self.settings.monitor.every_steps == 0)

    def _evaluate(self, args: Any, state: Any, control: Any) -> None:
        """Once a step."""
        self._due = False
        if self._watch is None or state.global_step == self._evaluated:
            return
        values = self._watch.evaluate(state.global_step)
        self._evaluated = state.global_step
        named = {f"potstill/{name}": value for name, value in values.items()} | {"epoch": state.epoch}
        state.log_history.append(named | {"step": state.global_step})
        if self._handler is not None:
            should_log = control.should_log  # the handler takes it for done
            self._handler.on_log(args, state, control, named)
            control.should_log = should_log
        wanted = self.settings.monitor.stop_on
        if wanted and state.global_step and not control.should_training_stop:
            found = self._watch.stops_early(state.global_step, self._looks(state))
            control.should_training_stop = found is not None
            if found is not None:
                self._show.say(f"stopping after step {state.global_step}: {found}")

    def _looks(self, state: Any) -> int:
        """How often the verdict is asked for: at every evaluation after the first."""
        return max(1, -(-int(state.max_steps) // self.settings.monitor.every_steps))

    def _refuse_stops_that_cannot_work(self, args: Any, state: Any) -> None:
        if not self.settings.monitor.stop_on:
            return
        if args.world_size > 1:
            raise ValueError(
                f"stop_on works on one process, found {args.world_size}: only the first measures, and the others would "
                "wait for it. Leave stop_on out, and look at the verdict at the end."
            )
        if (looks := self._looks(state)) > MAX_LOOKS:
            raise ValueError(
                f"stop_on judges the run {looks} times; more than {MAX_LOOKS} leave no p-value small enough. Raise "
                f"every_steps to {math.ceil(state.max_steps / MAX_LOOKS)}."
            )


def _place(args: Any) -> Place:
    """The trainer computes under autocast where it was told so; its numbers are what we must measure."""
    autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    return Place(torch.device(args.device), autocast)
