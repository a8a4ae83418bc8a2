"""What `check` foresees before anything is spent: agreement, sizes, work, memory, time.

Estimates, said as such: floating-point operations are counted from parameters and
measured lengths (2 per weight and token forward, 4 backward), time is that count
over the rate of one matrix product measured here, times what a real step takes
more than its products (seen on CPU: about 1.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from potstill.config.data import NoCompletions, SampledCompletions
from potstill.config.run import Run
from potstill.diagnosis.findings import MIN_EVALUATIONS
from potstill.diagnosis.remedies import cost, remedies
from potstill.head import Arithmetic
from potstill.losses.fused import chunk_positions
from potstill.records import Verdict
from potstill.training.completions import data_plans
from potstill.training.hardware import matmul_rate
from potstill.training.mending import amounts_of
from potstill.training.permission import in_words, permitted
from potstill.training.stages import Models, Prompts, check_lengths, held_out_sampling
from potstill.training.variety import foreseen

OVERHEAD = 1.6
#: Of sampling over a full forward of as many tokens: one token at a time is bound by memory.
SAMPLING_OVERHEAD = 4.0


@dataclass
class Forecast:
    """What a run will take, and what the user should know of it."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def say(self, name: str, value: str) -> None:
        self.facts.append((name, value))

    @property
    def monitor_share(self) -> float:
        return self.seconds["monitor"] / max(1e-9, sum(self.seconds.values()))


def body_and_head(model: Any) -> tuple[int, int]:
    """(weights that every token passes, weights of the head)."""
    head = model.get_output_embeddings().weight.numel()
    embedding = model.get_input_embeddings().weight
    total = sum(p.numel() for p in model.parameters())
    tied = embedding is model.get_output_embeddings().weight
    return total - head - (0 if tied else embedding.numel()), head


def forecast(config: Run, models: Models, prompts: Prompts, device: torch.device, limit: int) -> Forecast:
    """Foresee a run. Raises where teacher and student do not fit (see `stages`)."""
    report = Forecast()
    teacher, student = models.teacher.model, models.student
    t_body, t_head = body_and_head(teacher)
    s_body, s_head = body_and_head(student)
    sizes = {"teacher": t_body + t_head, "student": s_body + s_head}
    ratio = sizes["teacher"] / sizes["student"]
    report.say("teacher", f"{models.teacher.name}, {sizes['teacher'] / 1e6:,.0f}M parameters")
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    learns = "" if trained == sizes["student"] else f", {trained / 1e6:,.1f}M of them trained"
    report.say(
        "student", f"{sizes['student'] / 1e6:,.0f}M parameters ({models.lineage['from']}), ratio {ratio:.1f}{learns}"
    )
    if ratio > 10:
        report.warnings.append(
            f"the teacher is {ratio:.0f} times the student's size. Beyond one order of magnitude students often "
            "learn less from a large teacher than from a middle one; consider a teacher between."
        )
    _agreement(report, models, config)
    _what_feeds(report, config, prompts)
    prompt_tokens = _mean([len(prompts.encoded[p.id].ids) for p in prompts.train])
    answer = _answer_tokens(config, models, prompts)
    rows, references = config.training.batch_rows, len(prompts.held_out)
    report.say("prompts", f"{prompts.in_use} for training, {references} held out; limit {limit} tokens")
    report.say("lengths", f"prompts {prompt_tokens:.0f} tokens, answers about {answer:.0f}")
    read, counted = rows * (prompt_tokens + answer), rows * answer
    step = _step_work(config, (s_body, s_head), trained / sizes["student"], read, counted)
    targets = _targets_work(config, (t_body, t_head), prompts.in_use, prompt_tokens, answer)
    evaluations = 1 + -(-config.training.steps // config.monitor.every_steps)
    held = references * config.monitor.completions_per_prompt
    once = (held + references) * ((prompt_tokens + answer) * 2 * s_body + answer * 2 * (s_head + t_head))
    by_teacher, by_student = _sampled_tokens(config, prompts, answer)
    rate = matmul_rate(device, "bf16" if config.training.precision == "bf16" else "fp32")
    greedy = evaluations * config.monitor.sample_texts * config.monitor.sample_tokens
    report.seconds = {
        "sampling": SAMPLING_OVERHEAD * 2 * (by_teacher * (t_body + t_head) + by_student * (s_body + s_head)) / rate,
        "training": OVERHEAD * (step * config.training.steps + targets) / rate,
        "monitor": (
            OVERHEAD * evaluations * once
            + SAMPLING_OVERHEAD * greedy * 2 * (s_body + s_head)
            + _sequences_work(config, models, held, prompt_tokens, answer)
        )
        / rate,
    }
    report.say(
        "training tokens",
        f"{counted * config.training.steps:,.0f} counted, {read * config.training.steps:,.0f} read",
    )
    report.say("work", f"{step / 1e12:.2f} TFLOP a step, {step * config.training.steps / 1e12:,.0f} in all")
    report.say("memory", f"about {_memory(config, models, read, answer) / 2**30:.1f} GiB")
    report.say("rate", f"{rate / 1e9:,.0f} GFLOP/s in {config.training.precision} ({device})")
    report.say("time", ", ".join(f"{name} {_clock(s)}" for name, s in report.seconds.items()))
    report.say("monitor share", f"{100 * report.monitor_share:.0f} % in {evaluations} evaluations")
    _watched(report, config, evaluations)
    _on_alarm(report, config, prompts)
    return report


def _watched(report: Forecast, config: Run, evaluations: int) -> None:
    """Warnings on a monitor that costs too much, or sees too little."""
    if report.monitor_share > 0.1:
        report.warnings.append(
            f"the monitor would take {100 * report.monitor_share:.0f} % of the time (10 % is meant). Raise "
            "monitor.every_steps or monitor.sequence_every, or lower monitor.max_prompts or monitor.sample_texts."
        )
    if evaluations < 7:
        report.warnings.append(
            f"{evaluations} evaluations are too few for a verdict, which needs at least 7 (with step 0). "
            f"Set monitor.every_steps to {max(1, config.training.steps // 8)}."
        )


def _on_alarm(report: Forecast, config: Run, prompts: Prompts) -> None:
    """What a remedy would cost, were it taken at the first evaluation at which it could be."""
    on_alarm, steps, every = config.monitor.on_alarm, config.training.steps, config.monitor.every_steps
    if on_alarm is None:
        return
    left = max(0, steps - MIN_EVALUATIONS * every) * config.training.batch_rows
    plan = data_plans(config, prompts)[0]
    alarm = Verdict("hacking", 1.0, None, "", {})
    amounts = amounts_of(on_alarm, len(prompts.spare), left)
    offered = {remedy.action: remedy for remedy in remedies(alarm, plan, 0, amounts)}
    costs = [f"{name} (up to {cost(offered[name], plan, left):,} completions)" for name in on_alarm.remedies]
    report.say("on alarm", f"{', '.join(on_alarm.alarms)}: {', else '.join(costs)}")
    if left == 0:
        report.warnings.append(
            f"monitor.on_alarm can hardly act: an alarm needs {MIN_EVALUATIONS} evaluations, and the run ends with "
            f"them. Lower monitor.every_steps to {max(1, steps // (2 * MIN_EVALUATIONS))}."
        )


def _sequences_work(config: Run, models: Models, held: float, prompt: float, answer: float) -> float:
    """FLOPs, overheads included, of `monitor.sequence_every`: `held` completions each time, scored by everybody."""
    if config.monitor.sequence_every is None:
        return 0.0
    times = 1 + -(-config.training.steps // (config.monitor.every_steps * config.monitor.sequence_every))
    body, head = body_and_head(models.student)
    work = SAMPLING_OVERHEAD * 2 * answer * (body + head)
    for judge in [models.teacher, *([] if models.oracle is None else [models.oracle])]:
        its_body, its_head = body_and_head(judge.model)
        # The student reads its own samples and the frozen model's, the frozen model the student's.
        work += OVERHEAD * 2 * ((prompt + answer) * (2 * body + its_body) + answer * (3 * head + its_head))
    return times * held * work


def _step_work(config: Run, weights: tuple[int, int], trained_share: float, read: float, counted: float) -> float:
    """FLOPs of the student's part of a step over `read` tokens, `counted` of which reach the head."""
    # Forward 2, gradients of activations 2, of weights 2 where they are trained, and 2 for computing blocks again.
    passes = 4 + 2 * min(1.0, trained_share) + 2 * config.training.gradient_checkpointing
    body, head = weights
    return passes * body * read + 10 * head * counted  # the head is computed once more in the backward


def _targets_work(config: Run, weights: tuple[int, int], prompts: int, prompt: float, answer: float) -> float:
    """FLOPs of all that the teacher says about training rows: its passes, kept or not, and its projections."""
    if not config.objective.needs_teacher_targets:
        return 0.0
    rows = config.training.batch_rows * config.training.steps
    passed = rows
    if config.training.keep_teacher_hidden_mb and isinstance(config.data.completions, SampledCompletions):
        passed = min(rows, prompts * config.data.completions.per_prompt)
    body, head = weights
    return 2 * body * passed * (prompt + answer) + 4 * head * rows * answer


def _what_feeds(report: Forecast, config: Run, prompts: Prompts) -> None:
    """Terms of those who feed the student, and how varied what it is fed with is. Raises TermsError."""
    report.say("terms", in_words(config))
    facts, warnings = foreseen(config, prompts)
    report.facts += facts
    report.warnings += [*permitted(config), *warnings]


def _agreement(report: Forecast, models: Models, config: Run) -> None:
    shared = models.alignment.shared
    width = "same tokens, same width" if shared is None else f"same {shared} tokens, padding aligned"
    report.say("vocabularies", width)
    ours, theirs = models.tokenizer, models.teacher.tokenizer
    if ours.chat_template != theirs.chat_template and config.data.prompts.chat:
        report.warnings.append(
            "teacher and student have different chat templates. Both are shown prompts in the student's; the "
            "teacher may answer worse in it. Give the student the teacher's template if it has not been tuned yet."
        )
    if ours.eos_token_id != theirs.eos_token_id:
        report.warnings.append(
            f"the end-of-sequence tokens differ: teacher {theirs.eos_token!r}, student {ours.eos_token!r}"
        )


def _answer_tokens(config: Run, models: Models, prompts: Prompts) -> float:
    """From references where there are any; else half of what may be sampled."""
    texts = [p.reference for p in [*prompts.train, *prompts.held_out] if p.reference is not None][:256]
    most = held_out_sampling(config).max_new_tokens
    if isinstance(config.data.completions, NoCompletions) or not texts:
        return _mean([len(models.tokenizer(t).input_ids) for t in texts]) if texts else most / 2
    # Models answer at more length than people: seen between 1.5 and 2 times.
    return min(most, 1.7 * _mean([len(models.tokenizer(t).input_ids) for t in texts]))


def _sampled_tokens(config: Run, prompts: Prompts, answer: float) -> tuple[float, float]:
    """(by the teacher, by the student), before and during training; changes of the plan are left out."""
    rows = float(len(prompts.held_out) * config.monitor.completions_per_prompt)
    if isinstance(config.data.completions, SampledCompletions) and "teacher" in config.source.fed:
        rows += prompts.in_use * config.data.completions.per_prompt
    trained = config.training.steps * config.training.batch_rows
    rows += trained * config.source.fractions.get("online_teacher", 0.0)
    return rows * answer, trained * config.source.fractions.get("online_student", 0.0) * answer


def _memory(config: Run, models: Models, read: float, answer: float) -> float:
    """Bytes: both models, gradients and moments, activations (about 34 numbers a layer and hidden unit,
    or its input and one layer's inside where blocks are computed again)."""
    width: Literal[2, 4] = 2 if config.training.precision == "bf16" else 4
    weights = sum(p.numel() * (4 + 12 * p.requires_grad) for p in models.student.parameters())
    teacher = sum(p.numel() * p.element_size() for p in models.teacher.model.parameters())
    micro = (config.training.micro_batch_rows or config.training.batch_rows) / config.training.batch_rows
    shape = models.student.config
    layers = shape.num_hidden_layers * (2 if shape.is_encoder_decoder else 1)
    kept = layers + 34 if config.training.gradient_checkpointing else 34 * layers
    activations = kept * read * micro * shape.hidden_size * width
    ours, others = (m.get_output_embeddings().weight.shape[0] for m in (models.student, models.teacher.model))
    kinds = Arithmetic(torch.float32, torch.float32)
    at_once = chunk_positions(config.objective.head_memory_mb, ours, others, kinds)
    logits = min(at_once, answer * config.training.batch_rows * micro) * (ours + others) * 4
    return float(weights + teacher + activations + logits)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def preflight(config: Run, models: Models, prompts: Prompts, device: torch.device) -> Forecast:
    """All checks and the forecast."""
    return forecast(config, models, prompts, device, check_lengths(config, prompts, models))
