"""`potstill generate`: completions of many prompts into a store, which runs read later.

    config.yaml  environment.json
    completions.jsonl   every completion, as sampled, with its history (drafts beside, with a critique)
    requests.jsonl      what was sent to an endpoint, before it was answered
    kept.jsonl  rejection.json   with rejection: what was kept, and why

Started again it goes on where it stopped; nothing that is stored is asked for twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import yaml

from potstill.config.data import Sampling
from potstill.config.endpoint import Endpoint
from potstill.config.generate import Generate
from potstill.config.generate import Generator as Source
from potstill.data.encode import encode_prompt
from potstill.data.mixing import read_all
from potstill.data.model_hints import terms_of_endpoint
from potstill.data.rows import check_room
from potstill.data.store import CompletionStore
from potstill.data.terms import find_terms, refuse_forbidden
from potstill.generation.base import Generator, Request, sample_all
from potstill.generation.endpoint import EndpointGenerator, RefusedPromptsError
from potstill.models.load import Loaded, load_model, load_tokenizer, source_name, source_terms
from potstill.records import Completion, Message, Prompt
from potstill.run_dir import RunDir, RunDirError
from potstill.training.completions import Asker, in_turns, local_judge, local_sampler
from potstill.training.hardware import environment
from potstill.training.opening import refuse_another
from potstill.training.parallel import start_world
from potstill.training.rejecting import keep_verified
from potstill.training.show import Bar, Show
from potstill.training.signals import Stopped, stopping

NAME = "completions"


def generate(config: Generate, show: Show) -> RunDir:
    """Sample what is not stored yet, then verify; returns the store's directory.

    Raises the errors of prompts, terms, models and servers before anything is asked; Stopped when
    somebody wants to leave, with all that came so far stored.
    """
    warnings = _permitted(config)
    prompts, notes = read_all(config.data, config.seed)
    world = start_world(config.device)
    run = _open(config, world.device)
    for text in (*notes, *warnings):
        show.say(f"[yellow]note[/yellow] {text}")
    asker, make, loaded = _generator(config, run, prompts, world.device)
    with stopping() as stop:
        bars: list[Bar] = []

        def keep(name: str, generator: Generator, requests: Sequence[Request]) -> list[Completion] | None:
            bar = show.bar(f"{source_name_of(config.generator)} answers", len(requests))
            bars.append(bar.__enter__())

            def advance(rows: int, tokens: int) -> bool:
                bar.advance(rows, tokens, cost_so_far(generator))
                return stop.requested

            store = CompletionStore(run.file(f"{name}.jsonl"))
            try:
                return sample_all(requests, generator, store, advance)
            except RefusedPromptsError as error:
                show.say(f"[yellow]warning[/yellow] {error}")
                return store.read(generator.fingerprint)
            finally:
                bar.__exit__(None, None, None)

        found = in_turns(NAME, asker, prompts, config.per_prompt, make, keep)
        if found is None:
            raise Stopped("stopped while sampling; what was sampled is kept", stop.signal_number)
    _say_what_came(found, show)
    if config.rejection is not None:
        judge = _judge(config, run, asker, loaded, world.device)
        with show.bar("verifying", len(found)) as bar:
            survivors = keep_verified(
                run.path, prompts, found, config.rejection, judge, lambda _: bar.advance(1, 0)
            )  # fmt: skip
        for line in survivors.lines:
            show.say(line)
    return run


def cost_so_far(generator: Generator) -> str:
    """For the progress line: what an endpoint was sent and charges; nothing for a model in this process."""
    if not isinstance(generator, EndpointGenerator):
        return ""
    spent = generator.spending
    cost = spent.cost(generator.config)
    priced = "" if cost is None else f", cost {cost:.4g}"
    return f"{spent.sent} requests, {spent.repeated} repeated, {spent.tokens:,} tokens{priced}"


def source_name_of(source: Source) -> str:
    """A short name for people."""
    return source.model if isinstance(source, Endpoint) else source_name(source)


def _open(config: Generate, device: torch.device) -> RunDir:
    """The store's directory, made or taken up; another configuration's is refused."""
    run = RunDir(config.output)
    wanted = config.dump()
    if run.file("config.yaml").is_file():
        refuse_another(run, run.read_config(), wanted)
    elif run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise RunDirError(f"{run.path} exists and is no store (it has no config.yaml). Choose another `output`.")
    else:
        run.write_json("environment.json", environment(device))
        run.write_text("config.yaml", yaml.safe_dump(wanted, sort_keys=False))
    return run


def _generator(
    config: Generate, run: RunDir, prompts: Sequence[Prompt], device: torch.device
) -> tuple[Asker, Callable[[str], Generator], Loaded | None]:
    """What turns prompts into requests, what makes a generator for a stream, and the model where it is here."""
    loaded = None
    if isinstance(config.generator, Endpoint):
        assert config.tokenizer is not None
        tokenizer = load_tokenizer(config.tokenizer)
    else:
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        loaded = load_model(config.generator, dtype)
        tokenizer = loaded.tokenizer
    template = dict(config.data.chat_template_kwargs)
    encoded = {p.id: encode_prompt(tokenizer, p, "last", template) for p in prompts}
    is_pair = loaded is not None and loaded.is_encoder_decoder
    check_room(encoded, config.sampling.max_new_tokens, config.data.max_length, is_pair)
    asker = Asker(tokenizer, template, encoded, config.asking, config.seed)
    if loaded is None:
        assert isinstance(config.generator, Endpoint)
        served = partial(_served, config.generator, tokenizer, config.sampling, config.seed, run)
        served(NAME).preflight()
        return asker, served, None
    return (
        asker,
        lambda stream: local_sampler(loaded, device, config.sampling, config.seed, stream, config.slots),
        loaded,
    )


def _served(
    config: Endpoint, tokenizer: Any, sampling: Sampling, seed: int, run: RunDir, stream: str
) -> EndpointGenerator:
    config = config.model_copy(update={"terms": terms_of_endpoint(config)})  # every completion carries them
    return EndpointGenerator(config, tokenizer, sampling, seed, stream, run.file("requests.jsonl"))


def _judge(config: Generate, run: RunDir, asker: Asker, loaded: Loaded | None, device: torch.device) -> Any:
    """Makes the judge when a verifier asks for it: the generator itself, or the model configured for it."""
    source = config.judge or config.generator
    if isinstance(source, Endpoint):

        def served(most: int) -> tuple[Generator, None]:
            law = Sampling(sampling_temperature=0.0, max_new_tokens=most)
            return _served(source, asker.tokenizer, law, config.seed, run, "judge"), None

        return served
    if config.judge is None and loaded is not None:
        return partial(local_judge, loaded, device, asker, config.slots)

    def other(most: int) -> tuple[Generator, Callable[[tuple[Message, ...]], tuple[int, ...]]]:
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        judge = load_model(source, dtype)
        return local_judge(judge, device, replace(asker, tokenizer=judge.tokenizer), config.slots, most)

    return other


def _permitted(config: Generate) -> list[str]:
    """Warnings on the generator's terms. Raises TermsError where they forbid what this is for."""
    source = config.generator
    text = terms_of_endpoint(source) if isinstance(source, Endpoint) else source_terms(source)
    terms = find_terms(text)
    return refuse_forbidden({source_name_of(source): terms}, config.data.acknowledged_terms)


def _say_what_came(found: Sequence[Completion], show: Show) -> None:
    tokens = [len(completion.token_ids) for completion in found]
    cut = sum(completion.finish == "length" for completion in found)
    show.say(
        f"{len(found)} completions, {sum(tokens) / max(1, len(tokens)):.0f} tokens on average, {cut} cut by length"
    )
    strategies = sorted({c.history.strategy for c in found if c.history.strategy is not None})
    for name in strategies:
        show.say(f"  {name}: {sum(c.history.strategy == name for c in found)}")
