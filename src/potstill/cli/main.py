"""The command line. A verb's module, and torch with it, is imported only when it is chosen.

A file of settings is read before that: a slip in it should cost its user a second, not an import of torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Distil language models, and learn whether the student learned the task or its teacher's mistakes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Config = Annotated[Path, typer.Argument(help="A YAML file, such as recipes/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings to change, such as training.steps=20.", metavar="key.path=value"),
]
RunPath = Annotated[Path, typer.Argument(help="A run directory.")]


@app.command()
def run(config: Config, overrides: Overrides = None) -> None:
    """Distil; go on where it stopped; end with verdict, student and report."""
    from potstill.config.load import load_run

    settings = load_run(config, overrides or [])
    from potstill.cli.run import run_verb

    run_verb(settings)


@app.command()
def check(config: Config, overrides: Overrides = None) -> None:
    """Foresee a run before spending anything: agreement, sizes, work, memory, time."""
    from potstill.config.load import load_run

    settings = load_run(config, overrides or [])
    from potstill.cli.check import check_verb

    check_verb(settings)


@app.command()
def generate(config: Config, overrides: Overrides = None) -> None:
    """Have a teacher answer prompts into a store: several answers each, verified, resumable."""
    from potstill.config.load import load_generate

    settings = load_generate(config, overrides or [])
    from potstill.cli.generate import generate_verb

    generate_verb(settings)


@app.command()
def cache(config: Config, overrides: Overrides = None) -> None:
    """Write what the teacher says about a run's rows to disk, to train from; say what that costs and loses."""
    from potstill.config.load import load_run

    settings = load_run(config, overrides or [])
    from potstill.cli.cache import cache_verb

    cache_verb(config, settings)


@app.command()
def diagnose(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A run directory, or another tool's log: a Trainer's output folder or trainer_state.json, TensorBoard "
            "event files, CSV, JSON, JSON lines, an export from W&B."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=COLUMN", help="What a log calls otherwise, such as proxy=eval/kl. Repeat."),
    ] = None,
    golden_kind: Annotated[
        str | None,
        typer.Option(help="What a log's golden is measured against: oracle, or reference_nll (the default)."),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="VERDICT,...",
            help="Exit with code 3 on these verdicts, for scripts; hacking includes suspected_hacking.",
        ),
    ] = None,
    example: Annotated[str | None, typer.Option(help="Judge a log that comes along: hacked or healthy.")] = None,
) -> None:
    """Say whether the student learned the task or its teacher's mistakes."""
    from potstill.cli.diagnose import diagnose_verb

    diagnose_verb(path, as_json, columns or [], golden_kind, fail_on, example)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One run directory, or several to compare.", metavar="RUN...")],
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write. Default: report.html in the run; for several runs ./comparison.html."),
    ] = None,
) -> None:
    """Write one HTML page: verdict, proxy-golden plane, curves, samples; several runs side by side."""
    from potstill.cli.report import report_verb

    report_verb(runs, output)


@app.command()
def export(
    run: RunPath,
    step: Annotated[int, typer.Option(help="Which checkpoint; the run keeps the last ones and the best.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write; default: exports/ in the run.")] = None,
) -> None:
    """Write the student of any kept checkpoint as a Hugging Face folder."""
    from potstill.cli.export import export_verb

    export_verb(run, step, output)


@app.command()
def chat(
    run: RunPath,
    prompt: Annotated[str | None, typer.Option(help="Answer this one prompt and leave.")] = None,
    sampling_temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 128,
) -> None:
    """Talk with a run's student (or with any model folder)."""
    from potstill.cli.chat import chat_verb

    chat_verb(run, prompt, sampling_temperature, max_new_tokens)


@app.command()
def corpus(
    config: Config,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="Folder of the corpus.")] = Path("corpus"),
) -> None:
    """Text becomes tokens on disk, once: training, held-out and other sets, contamination; goes on where it stopped."""
    from potstill.config.load import load_corpus

    settings = load_corpus(config, overrides or [])
    from potstill.cli.corpus import corpus_verb

    corpus_verb(settings, output)


@app.command()
def pretrain(config: Config, overrides: Overrides = None) -> None:
    """Train one model from random weights on a corpus, with a teacher or without; goes on where it stopped."""
    from potstill.config.load import load_pretraining

    settings = load_pretraining(config, overrides or [])
    from potstill.cli.pretrain import pretrain_verb

    pretrain_verb(settings)


@app.command()
def plan(
    results: Annotated[
        Path, typer.Argument(help="results.json of `potstill lab pretraining`, its folder, or its laws alone.")
    ],
    student: Annotated[str, typer.Option(help="A size of the lab by name, or a number of parameters, such as 0.9M.")],
    tokens: Annotated[str, typer.Option(help="What the student reads, such as 20M.")],
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PARAMS,TOKENS[,LOSS]",
            help="A teacher at hand, or one of the results by id. Repeat. Default: all of the results.",
        ),
    ] = None,
    by: Annotated[str, typer.Option(help="What decides: held_out, out-of-domain or downstream.")] = "held_out",
    train_teacher: Annotated[bool, typer.Option("--train-teacher", help="Count the teacher's training too.")] = False,
    unique_tokens: Annotated[str | None, typer.Option(help="How much fresh text there is, such as 100M.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Distil or train plainly? With which teacher and weight, and how sure, from a pretraining lab's laws."""
    from potstill.cli.plan import plan_verb

    plan_verb(results, student, tokens, teacher or [], by, train_teacher, unique_tokens, as_json)


lab_app = typer.Typer(help="Controlled experiments, where the truth is known.", no_args_is_help=True)
app.add_typer(lab_app, name="lab")


@lab_app.callback()
def lab() -> None:
    """Controlled experiments, where the truth is known."""


@lab_app.command()
def hacking(
    overrides: Overrides = None,
    preset: Annotated[str, typer.Option(help="Settings that come along: tiny, smollm or paper.")] = "tiny",
    config: Annotated[Path | None, typer.Option(help="Settings of your own, as a YAML file, instead.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; default: runs/lab-hacking-PRESET.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Steps at once; default: one a core (most 8), one on a GPU.")
    ] = None,
) -> None:
    """Teacher hacking: oracle, teacher and students in many arms; go on where it stopped; findings and report."""
    from potstill.cli.lab import hacking_verb

    hacking_verb(preset, config, output, workers, overrides or [])


@lab_app.command()
def pretraining(
    overrides: Overrides = None,
    preset: Annotated[
        str, typer.Option(help="Settings that come along: tiny, tiny-full or small (a GPU, text of your own).")
    ] = "tiny",
    config: Annotated[Path | None, typer.Option(help="Settings of your own, as a YAML file, instead.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; default: runs/lab-pretraining-PRESET.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Steps at once; default: one a core (most 8), one on a GPU.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it costs: FLOPs, hours, bytes.")] = False,
) -> None:
    """Weak, equal and strong teachers in pretraining: grid, twins, claims, law and report; goes on where it stopped."""
    from potstill.cli.lab import pretraining_verb

    pretraining_verb(preset, config, output, workers, dry_run, overrides or [])


def main() -> None:
    """Entry point: errors meant for the user are shown without a traceback."""
    from potstill.cli.errors import explained
    from potstill.training.quiet import quiet_imports

    quiet_imports()
    with explained():
        app(standalone_mode=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
