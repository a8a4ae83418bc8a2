"""Choices scored by likelihood: by hand, item by item against lm-eval, and from question sets in files."""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import numpy as np
import pytest
import torch
from conftest import make_llama, make_t5
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import GPT2Config, GPT2LMHeadModel

from potstill.config.lab import Bpe
from potstill.data.train_tokenizer import train_tokenizer
from potstill.evaluation.choices import ChoiceScores, Item, compare, pair_items
from potstill.evaluation.harness import HarnessError, harness_scores, task
from potstill.evaluation.scoring import keep_fitting, score_choices
from potstill.evaluation.suites import KINDS, SuiteError, load_suite, suite_names
from potstill.lab.text.corpora import corpus
from potstill.lab.text.grammar.pairs import minimal_pairs
from potstill.models.load import ModelError

POSITIONS = 96
#: One row a set, as files hold them, and the same row with the columns of the hub's data set.
ROWS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "arc_easy": (
        {"question": "What melts?", "choices": ["stone", "butter in a pan", "air"], "label": 1},
        "arc/arc_easy.yaml",
        {
            "question": "What melts?",
            "answerKey": "B",
            "choices": {"text": ["stone", "butter in a pan", "air"], "label": ["A", "B", "C"]},
        },
    ),
    "blimp": (
        {"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps.", "UID": "agreement"},
        "blimp/adjunct_island.yaml",
        {"sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps."},
    ),
    "boolq": (
        {"question": "is ice cold?", "passage": "Ice is frozen water.", "choices": ["false", "true"], "label": 1},
        "super_glue/boolq/default.yaml",
        {"question": "is ice cold", "passage": "Ice is frozen water.", "label": 1},
    ),
    "commonsenseqa": (
        {"question": " Where is a bed? ", "choices": ["sea", "sky", "room", "fire", "cup"], "label": 2},
        "commonsense_qa/default.yaml",
        {
            "question": " Where is a bed? ",
            "answerKey": "C",
            "choices": {"text": ["sea", "sky", "room", "fire", "cup"], "label": list("ABCDE")},
        },
    ),
    "hellaswag": (
        {
            "activity_label": "Baking",
            "ctx_a": "A man mixes  dough.",
            "ctx_b": "he",
            "endings": ["bakes [step] it.", "flies.", "sings [title] Loudly.", "is a cup. "],
            "label": "0",
        },
        "hellaswag/hellaswag.yaml",
        {
            "activity_label": "Baking",
            "ctx_a": "A man mixes  dough.",
            "ctx_b": "he",
            "endings": ["bakes [step] it.", "flies.", "sings [title] Loudly.", "is a cup. "],
            "label": "0",
        },
    ),
    "lambada": (
        {"context": "Tom saw the sea and", "target": "laughed"},
        "lambada/lambada_openai.yaml",
        {"text": "Tom saw the sea and laughed"},
    ),
    "mmlu_30": (
        {"subject": "anatomy", "question": "What beats? ", "choices": ["toe", "heart", "ear", "nose"], "label": 1},
        "mmlu/default/mmlu_anatomy.yaml",
        {"question": "What beats? ", "choices": ["toe", "heart", "ear", "nose"], "answer": 1},
    ),
    "openbookqa": (
        {"question": "Plants need", "choices": ["light", "paper"], "label": 0},
        "openbookqa/openbookqa.yaml",
        {
            "question_stem": "Plants need",
            "answerKey": "A",
            "choices": {"text": ["light", "paper"], "label": ["A", "B"]},
        },
    ),
    "piqa": (
        {"goal": "open a jar", "sol1": "turn the lid", "sol2": "eat it", "label": 0},
        "piqa/piqa.yaml",
        {"goal": "open a jar", "sol1": "turn the lid", "sol2": "eat it", "label": 0},
    ),
    "social_i_qa": (
        {"question": "Ann fell. How did she feel?", "choices": ["hurt", "rich", "tall"], "label": 0},
        "siqa/siqa.yaml",
        {
            "context": "Ann fell.",
            "question": "How did she feel?",
            "label": "1",
            "answerA": "hurt",
            "answerB": "rich",
            "answerC": "tall",
        },
    ),
    "winogrande": (
        {"question": "The cup fell off the table because _ was smooth.", "choices": ["cup", "table"], "label": 1},
        "winogrande/default.yaml",
        {
            "sentence": "The cup fell off the table because _ was smooth.",
            "option1": "cup",
            "option2": "table",
            "answer": "2",
        },
    ),
}
ITEMS = {
    "pairs": pair_items((p.good, p.bad) for p in minimal_pairs(48, seed=5)),
    "questions": [
        Item("The baker had", ("a loaf", "two loaves of bread", "it"), 1),
        Item("A context that ends in spaces  ", ("and goes on", "or not"), 0),
        Item("Pick one: A or B.\nAnswer:", ("A", "B"), 1),  # one token each: the model reads the same for both
        Item("a word " * 80, ("short", "a choice that is rather long"), 0),  # longer than the model's context
    ],
    "last word": [Item("The river ran to the", ("sea",), 0), Item("She said", (".",), 0, delimiter=" ")],
    "beginnings": [Item(("The cup fell as it", "The table fell as it"), ("was smooth.",) * 2, 1)],
}


def write(path: Path, rows: list[Mapping[str, Any]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())


@pytest.fixture(scope="module")
def grammar() -> str:
    return corpus("grammar", 3, 150_000)


@pytest.fixture(scope="module")
def words(grammar: str) -> Any:
    """No beginning-of-sequence token: what has no context stands behind <end>."""
    return train_tokenizer(Bpe(kind="bpe", vocabulary=800), [grammar])


def make_gpt2(tokenizer: Any, dropout: float = 0.0) -> Any:
    torch.manual_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=64, n_layer=2, n_head=4, initializer_range=0.08,
            resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=None, eos_token_id=1,
        )
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def untrained(words: Any) -> Any:
    return make_gpt2(words)


@pytest.fixture(scope="module")
def trained(words: Any, grammar: str) -> Any:
    """A few seconds on sentences of the made-up language."""
    model = make_gpt2(words).train()
    ids = torch.tensor(words(grammar)["input_ids"])
    blocks = ids[: len(ids) // 32 * 32].view(-1, 32)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(150):
        rows = blocks[torch.randint(len(blocks), (16,), generator=torch.Generator().manual_seed(step))]
        model(input_ids=rows, labels=rows).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def test_a_log_likelihood_is_the_sum_over_the_choices_tokens(untrained: Any, words: Any) -> None:
    item = Item("the dog ", ("sees a cat", "runs"), 0)
    found = score_choices(untrained, words, [item])
    for column, choice in enumerate(item.choices):
        start, whole = words("the dog")["input_ids"], words(f"the dog  {choice}")["input_ids"]  # both spaces move over
        with torch.no_grad():
            logs = untrained(torch.tensor([whole])).logits[0].log_softmax(-1)
        expected = sum(float(logs[i - 1, whole[i]]) for i in range(len(start), len(whole)))
        assert found.log_likelihood[0, column] == pytest.approx(expected, abs=1e-4)
        assert found.tokens[0, column] == len(whole) - len(start)
    assert found.margin[0] == pytest.approx(found.log_likelihood[0, 0] - found.log_likelihood[0, 1])


def test_what_has_no_context_stands_behind_the_end_token_or_the_prefix_asked_for(untrained: Any, words: Any) -> None:
    ids = words(" a cat")["input_ids"]
    for prefix in (None, 7):
        found = score_choices(untrained, words, [Item("", ("a cat", "x"), 0)], prefix_id=prefix)
        read = torch.tensor([[words.eos_token_id if prefix is None else prefix, *ids]])
        with torch.no_grad():
            logs = untrained(read).logits[0].log_softmax(-1)
        expected = sum(float(logs[i, token]) for i, token in enumerate(ids))
        assert found.log_likelihood[0, 0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("which", ["untrained", "trained"])
def test_every_item_agrees_with_lm_eval(which: str, words: Any, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    theirs = harness_scores(model, words, ITEMS, batch_rows=8)
    for name, items in ITEMS.items():
        ours, found = score_choices(model, words, items, batch_tokens=256), theirs[name]
        np.testing.assert_allclose(ours.log_likelihood, found.scores.log_likelihood, atol=1e-4, rtol=0)
        assert (ours.greedy == found.scores.greedy).all()
        metrics = ("acc",) if name in ("last word", "beginnings") else ("acc", "acc_norm", "acc_bytes")
        for metric in metrics:
            assert ours.accuracy(metric).value == pytest.approx(found.results[metric])
        assert ours.digest == found.scores.digest


def test_standard_errors_are_lm_evals(trained: Any, words: Any) -> None:
    items = ITEMS["pairs"]
    runner = lm_eval.models.huggingface.HFLM(pretrained=trained, tokenizer=words, backend="causal", batch_size=8)
    found = lm_eval.evaluate(
        lm=runner, task_dict={"tasks": {"p": task("p", items)}, "groups": {}, "group_map": {}}, bootstrap_iters=10
    )
    assert score_choices(trained, words, items).accuracy().se == pytest.approx(found["results"]["p"]["acc_stderr,none"])


def test_a_beginning_of_sequence_token_is_used_as_lm_eval_does(tokenizer: Any, vocabulary: int) -> None:
    model = make_llama(vocabulary)
    items = {"pairs": pair_items([("people like tea", "people likes tea")]), "with": [Item("<s>how", ("do", "to"), 0)]}
    theirs = harness_scores(model, tokenizer, items)
    for name, some in items.items():
        found = score_choices(model, tokenizer, some).log_likelihood
        np.testing.assert_allclose(found, theirs[name].scores.log_likelihood, atol=1e-4, rtol=0)


def test_training_on_the_language_beats_chance_and_pairs_show_it(untrained: Any, trained: Any, words: Any) -> None:
    pairs = minimal_pairs(320, seed=9)
    items = pair_items(((p.good, p.bad) for p in pairs), [p.phenomenon for p in pairs])
    before, after = (score_choices(model, words, items) for model in (untrained, trained))
    assert after.accuracy().beats_chance and not before.accuracy().beats_chance
    change = compare(after, before)
    assert change["accuracy"] == pytest.approx(after.accuracy().value - before.accuracy().value)
    assert change["gained"] - change["lost"] == pytest.approx(change["accuracy"] * 320)
    assert change["margin"] > 2 * change["margin_se"]
    assert set(after.by_group()) == {p.phenomenon for p in pairs}
    with pytest.raises(ValueError, match="same items"):
        compare(after, score_choices(untrained, words, items[:-1]))


def test_what_is_longer_than_the_model_is_cut_and_counted(untrained: Any, words: Any) -> None:
    found = score_choices(untrained, words, ITEMS["questions"])
    context = len(words(("a word " * 80).rstrip())["input_ids"])
    longest = int(found.tokens[3].max())
    assert found.cut.tolist() == [0, 0, 0, context + longest - POSITIONS - 1]
    assert found.as_dict()["cut_items"] == 1
    too_long = Item("yes", ("word " * 200, "no"), 1)
    with pytest.raises(ValueError, match="96 positions"):
        score_choices(untrained, words, [too_long])
    assert keep_fitting([too_long, *ITEMS["questions"]], untrained, words) == (ITEMS["questions"], 1)


def test_batches_do_not_change_the_numbers_and_the_model_comes_back_as_it_was(words: Any) -> None:
    model = make_gpt2(words, dropout=0.5).train()
    one = score_choices(model, words, ITEMS["pairs"], batch_tokens=1)
    all_at_once = score_choices(model, words, ITEMS["pairs"], batch_tokens=10**6)
    np.testing.assert_allclose(one.log_likelihood, all_at_once.log_likelihood, atol=1e-4, rtol=0)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_models_and_items_that_cannot_be_scored_are_refused(untrained: Any, words: Any, vocabulary: int) -> None:
    with pytest.raises(ModelError, match="encoder-decoder"):
        score_choices(make_t5(vocabulary), words, ITEMS["pairs"])
    with pytest.raises(ValueError, match="at least one item"):
        score_choices(untrained, words, [])
    with pytest.raises(ValueError, match="leave it empty"):
        score_choices(untrained, words, [Item(" \n", ("a", "b"), 0)])
    for wrong in ({"choices": ()}, {"choices": ("a", "")}, {"right": 2}, {"context": ("a",)}):
        with pytest.raises(ValueError, match="expected"):
            Item(**{"context": "x", "choices": ("a", "b"), "right": 0} | wrong)


def by_hand() -> ChoiceScores:
    """Four items: two with two choices, one with three, one with a single choice."""
    nan = np.nan
    return ChoiceScores(
        log_likelihood=np.array([[-1.0, -2.0, nan], [-6.0, -4.0, nan], [-3.0, -2.5, -9.0], [-1.0, nan, nan]]),
        greedy=np.array([[True, False, False]] * 4),
        tokens=np.array([[1, 1, 0], [3, 1, 0], [1, 1, 1], [1, 0, 0]]),
        characters=np.array([[4, 4, 0], [6, 2, 0], [3, 2, 3], [4, 0, 0]]),
        bytes=np.array([[4, 10, 0], [6, 2, 0], [3, 2, 3], [4, 0, 0]]),
        right=np.array([0, 0, 1, 0]),
        cut=np.array([0, 5, 0, 0]),
        groups=np.array(["a", "a", "b", "b"]),
        digest="by hand",
    )


def test_metrics_by_hand(tmp_path: Path) -> None:
    found = by_hand()
    assert found.correct("acc").tolist() == [1, 0, 1, 1]
    assert found.correct("acc_norm").tolist() == [1, 1, 0, 1]  # -1/4 and -2/4; -6/6 and -4/2; -3/3 and -2.5/2
    assert found.correct("acc_bytes").tolist() == [0, 1, 0, 1]  # -1/4 and -2/10: the second has longer letters
    np.testing.assert_array_equal(found.margin, [1.0, -2.0, 0.5, np.nan])
    np.testing.assert_allclose(found.chance, [0.5, 0.5, 1 / 3, 0.0])
    accuracy = found.accuracy()
    assert (accuracy.value, accuracy.chance) == (0.75, pytest.approx(1 / 3))
    assert accuracy.se == pytest.approx(math.sqrt(0.75 * 0.25 / 3))  # p (1 - p) / (n - 1)
    grouped = found.only(np.array([True, True, True, False])).accuracy(equal_groups=True)
    assert grouped.value == 0.75 and math.isnan(grouped.se)  # group b has one item
    assert found.accuracy(equal_groups=True).se == pytest.approx(0.5 / 2)  # errors 0.5 and 0
    assert found.as_dict() == {
        "accuracy": 0.75, "margin": pytest.approx(-0.5 / 3), "items": 4, "chance": pytest.approx(1 / 3),
        "se": pytest.approx(0.25), "metric": "acc", "beats_chance": False, "cut_items": 1,
        "nats_of_right": pytest.approx((1 + 6 + 2.5 + 1) / 4),
    }  # fmt: skip
    json.dumps(found.as_dict(), allow_nan=False)
    with pytest.raises(ValueError, match="acc_norm"):
        found.correct("accuracy")  # type: ignore[arg-type]
    np.savez(tmp_path / "scores.npz", **found.arrays())
    with np.load(tmp_path / "scores.npz") as arrays:
        again = ChoiceScores.from_arrays(arrays)
    assert again.as_dict() == found.as_dict() and compare(again, found)["margin"] == 0


def test_a_few_lucky_items_do_not_beat_chance() -> None:
    lucky = by_hand().only(np.array([True, False, True, False]))
    assert lucky.accuracy().value == 1 and lucky.accuracy().se == 0
    assert not lucky.accuracy().beats_chance


@pytest.mark.parametrize("name", sorted(ROWS))
def test_prompts_and_choices_are_those_of_lm_evals_own_definition(name: str, tmp_path: Path) -> None:
    row, definition, theirs = ROWS[name]
    write(tmp_path / f"{name}_test.jsonl.gz", [row])
    suite = load_suite(tmp_path, name)
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / definition)
    split = config.get("test_split") or config["validation_split"]
    for gone in ("tag", "dataset_path", "dataset_name", "training_split", "fewshot_split", "fewshot_config"):
        config.pop(gone, None)
    table = dict.fromkeys(("validation", split), datasets.Dataset.from_list([theirs]))
    told = ConfigurableTask(config={**config, "metadata": None, "custom_dataset": lambda: table})
    ours = task(name, suite.items)
    for one in (told, ours):
        one.build_all_requests()
    assert [r.args for r in ours.instances] == [r.args for r in told.instances] == suite.items[0].texts()
    doc = told.task_docs[0]
    if len(suite.items[0].choices) > 1:
        gold = told.doc_to_text(doc) if name == "winogrande" else told.doc_to_target(doc)
        assert (told.doc_to_choice(doc).index(gold) if isinstance(gold, str) else gold) == suite.items[0].right
        assert suite.metric == "acc" or suite.metric in told._metric_fn_list


def test_every_known_set_is_compared_with_lm_eval() -> None:
    assert {next(kind for kind in KINDS if name.startswith(kind)) for name in ROWS} == set(KINDS) - {"arc_challenge"}


def test_hellaswag_and_lambada_are_read_in_both_layouts(tmp_path: Path) -> None:
    write(tmp_path / "hellaswag.jsonl", [{"ctx": "Baking: He", "endings": ["a", "b"], "label": 1}])
    write(tmp_path / "lambada.jsonl", [{"text": "Tom saw the sea and laughed"}])
    assert load_suite(tmp_path, "hellaswag").items == (Item("Baking: He", ("a", "b"), 1),)
    assert load_suite(tmp_path, "lambada").items == (Item("Tom saw the sea and", ("laughed",), 0),)


def test_files_are_found_by_name_and_training_rows_left_out(tmp_path: Path) -> None:
    row = ROWS["commonsenseqa"][0]
    write(tmp_path / "commonsenseqa.jsonl", [{"split": "train"} | row, {"split": "dev"} | row, {"split": "dev"} | row])
    assert len(load_suite(tmp_path, "commonsenseqa").items) == 2
    assert len(load_suite(tmp_path, "commonsenseqa", limit=1).items) == 1
    write(tmp_path / "piqa_train.jsonl", [ROWS["piqa"][0]])
    with pytest.raises(SuiteError, match="piqa_test"):
        load_suite(tmp_path, "piqa")
    write(tmp_path / "notes.jsonl", [{"a": 1}])
    (tmp_path / "blimp_100.jsonl.gz").touch()
    (tmp_path / "arc_easy_test.json").touch()
    assert suite_names(tmp_path) == ["arc_easy", "blimp_100", "commonsenseqa"]
    write(tmp_path / "piqa_valid.jsonl", [ROWS["piqa"][0]])
    assert load_suite(tmp_path, "piqa").name == "piqa"
    write(tmp_path / "piqa_valid.jsonl.gz", [ROWS["piqa"][0]])
    with pytest.raises(SuiteError, match="keep one"):
        load_suite(tmp_path, "piqa")


def test_unknown_sets_and_broken_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="triviaqa"):
        load_suite(tmp_path, "triviaqa")
    with pytest.raises(SuiteError, match="none at"):
        load_suite(tmp_path / "nowhere", "piqa")
    write(tmp_path / "winogrande.jsonl", [{"question": "No gap here.", "choices": ["a", "b"], "label": 0}])
    with pytest.raises(SuiteError, match=r"line 1.*gap"):
        load_suite(tmp_path, "winogrande")
    write(tmp_path / "openbookqa.jsonl", [{"question": "q", "choices": ["a"], "label": 0}, {"question": "q"}])
    with pytest.raises(SuiteError, match=r"line 2.*KeyError"):
        load_suite(tmp_path, "openbookqa")


def test_sets_that_lm_eval_cannot_take_are_refused(untrained: Any, words: Any) -> None:
    with pytest.raises(HarnessError, match="one form"):
        task("mixed", [Item("a", ("b",), 0), Item("a", ("b", "c"), 0)])
    with pytest.raises(HarnessError, match="one ending"):
        task("endings", [Item(("a", "b"), ("c", "d"), 0)])


def test_without_lm_eval_the_error_says_what_to_install(
    untrained: Any, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(HarnessError, match=r"pip install 'potstill\[eval\]'"):
        harness_scores(untrained, words, ITEMS)
