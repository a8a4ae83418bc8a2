"""What an answer's JSON says: finish reasons, reasoning, token ids, log-probabilities, sparse targets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from faulty_server import FaultyServer
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from potstill.config.data import Sampling
from potstill.config.endpoint import Endpoint
from potstill.data.encode import encode_answer
from potstill.data.served_targets import kept_targets
from potstill.generation import wire
from potstill.generation.base import Request
from potstill.generation.endpoint import EndpointGenerator
from potstill.generation.served_tokens import TokenMap, tokenise
from potstill.records import Completion, History, Message

TEXT = "people like tea with care — ✓"
ASK = Request("p", 0, (), messages=(Message("user", "tea?"),), strategy="plain")


def endpoint(**settings: Any) -> Endpoint:
    return Endpoint(**{"kind": "endpoint", "base_urls": ("http://h/v1",), "model": "m", **settings})


def chat(
    content: str | None, finish: str | None = "stop", logprobs: Any = None, message: Any = None, **more: Any
) -> Any:
    choice = {"finish_reason": finish, "logprobs": logprobs, "message": {"content": content, **(message or {})}, **more}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}


def described(tokenizer: Any, ids: tuple[int, ...], with_bytes: bool = True, top: int = 0) -> dict[str, Any]:
    """Tokens as OpenAI describes them; the likeliest others are made of neighbouring ids."""
    spelled = TokenMap(tokenizer).bytes_of

    def entry(i: int, value: float) -> dict[str, Any]:
        shown = {"token": spelled[i].decode(errors="replace"), "logprob": value}
        return shown | {"bytes": list(spelled[i]) if with_bytes else None}

    listed = []
    for i in ids:
        others = [entry(i, math.log(0.5)), entry(i + 1 if i + 1 in spelled else i - 1, math.log(0.25))][:top]
        listed.append(entry(i, math.log(0.5)) | {"top_logprobs": others})
    return {"content": listed}


def test_a_body_says_what_is_asked() -> None:
    law = Sampling(sampling_temperature=0.7, max_new_tokens=20)
    config = endpoint(top_logprobs=5, return_token_ids=True, extra_body={"top_k": -1})
    assert wire.body(config, law, ASK, 42) == {
        "model": "m", "messages": [{"role": "user", "content": "tea?"}], "max_tokens": 20, "temperature": 0.7,
        "top_p": 1.0, "seed": 42, "logprobs": True, "top_logprobs": 5, "return_token_ids": True,
        "return_tokens_as_token_ids": True, "top_k": -1,
    }  # fmt: skip
    plain = Request("p", 0, (), text="tea", max_new_tokens=7)
    settings = {
        "api": "completions",
        "top_logprobs": 5,
        "send_seed": False,
        "max_tokens_field": "max_completion_tokens",
    }
    assert wire.body(endpoint(**settings), Sampling(sampling_temperature=0), plain, 42) == {
        "model": "m", "prompt": "tea", "max_completion_tokens": 7, "temperature": 0.0, "logprobs": 5,
    }  # fmt: skip


def test_seeds_are_keyed_by_what_names_a_completion() -> None:
    base = wire.request_seed(1, "train", ASK)
    assert base == wire.request_seed(1, "train", ASK) and 0 <= base < 2**31
    other = Request("p", 1, (), text="tea")
    seeds = {base, wire.request_seed(2, "train", ASK), wire.request_seed(1, "held", ASK),
             wire.request_seed(1, "train", other), wire.request_seed(1, "train", ASK, again=True)}  # fmt: skip
    assert len(seeds) == 5


@pytest.mark.parametrize(
    "payload",
    [[], {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": 3}}]}, {"error": {"code": 502}}],
)
def test_what_is_no_completion_is_told(payload: Any) -> None:
    with pytest.raises(wire.InvalidAnswerError, match="no completion in the answer"):
        wire.parse(endpoint(), payload)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_sent_apart_stands_before_the_answer(name: str) -> None:
    parse = wire.parse
    whole = parse(endpoint(), chat("Tea.", message={name: "Hm.\n"}))
    assert whole.text == "<think>\nHm.\n</think>\n\nTea." and whole.content == "Tea."
    cut = parse(endpoint(), chat(None, "length", message={name: "Hm, but"}))
    assert cut.text == "<think>\nHm, but"  # it never came to an end


def test_text_is_tokenised_where_the_server_says_nothing_of_tokens(tokenizer: Any) -> None:
    known = TokenMap(tokenizer)
    stopped = tokenise(wire.parse(endpoint(), chat(TEXT)), known)
    cut = tokenise(wire.parse(endpoint(), chat(TEXT, "length")), known)
    assert stopped.ids == encode_answer(tokenizer, TEXT) and cut.ids == stopped.ids[:-1]
    assert stopped.how == "retokenised" and stopped.logprobs is None


def test_a_byte_level_map_spells_every_token(tokenizer: Any) -> None:
    known = TokenMap(tokenizer)
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert b"".join(known.bytes_of[i] for i in ids) == TEXT.encode()
    assert all(found in (i, None) for i, found in ((i, known.id_of[spelled]) for i, spelled in known.bytes_of.items()))


@pytest.mark.parametrize("ended", [True, False])
def test_tokens_are_matched_by_their_bytes(ended: bool, tokenizer: Any) -> None:
    known = TokenMap(tokenizer)
    # Not as the tokenizer would cut it: letter by letter, and characters in parts.
    ids = tuple(known.id_of[bytes([byte])] for byte in TEXT.encode())
    assert ids != encode_answer(tokenizer, TEXT)[:-1]
    sent = ids + ((tokenizer.eos_token_id,) if ended else ())
    found = tokenise(wire.parse(endpoint(), chat(TEXT, logprobs=described(tokenizer, sent, top=2))), known)
    assert found.how == "matched" and found.ids == (*ids, tokenizer.eos_token_id)
    assert found.end_appended is not ended
    assert found.logprobs is not None and found.logprobs[:-1] == (round(math.log(0.5), 6),) * len(ids)
    assert found.logprobs[-1] == (round(math.log(0.5), 6) if ended else 0.0)
    assert found.top_ids is not None and found.top_ids[0] == (ids[0], ids[0] + 1)
    assert found.top_ids[-1] == (() if not ended else (2, 3))


def test_what_cannot_be_matched_for_certain_is_tokenised(tokenizer: Any) -> None:
    known = TokenMap(tokenizer)
    ids = tuple(known.id_of[bytes([byte])] for byte in TEXT.encode())
    for logprobs in (
        described(tokenizer, ids, with_bytes=False),  # parts of characters all look like U+FFFD
        described(tokenizer, ids[:-1]),  # another text
        {"content": [{"token": "xyzzy-qqq", "bytes": None, "logprob": -1.0}]},
    ):
        found = tokenise(wire.parse(endpoint(), chat(TEXT, logprobs=logprobs)), known)
        assert found.how == "retokenised" and found.ids == encode_answer(tokenizer, TEXT) and found.logprobs is None


def test_ids_that_the_server_returns_are_kept_unless_they_spell_something_else(tokenizer: Any) -> None:
    known = TokenMap(tokenizer)
    ids = (*(known.id_of[bytes([byte])] for byte in TEXT.encode()), tokenizer.eos_token_id)
    as_ids = {"content": [{"token": f"token_id:{i}", "bytes": None, "logprob": -0.25} for i in ids]}
    given = tokenise(wire.parse(endpoint(), chat(TEXT, token_ids=list(ids), logprobs=as_ids)), known)
    spelled = tokenise(wire.parse(endpoint(), chat(TEXT, logprobs=as_ids)), known)
    assert given == spelled and given.how == "served" and given.ids == ids and not given.end_appended
    assert given.logprobs == (-0.25,) * len(ids)
    foreign = tokenise(wire.parse(endpoint(), chat(TEXT, token_ids=[9, 8, 7])), known)
    assert foreign.how == "retokenised"


def test_an_answer_of_the_completions_api_is_matched_by_text(tokenizer: Any) -> None:
    logprobs = {
        "tokens": ["t", "e", "a"],
        "token_logprobs": [-0.1, -0.2, -0.3],
        "top_logprobs": [{"t": -0.1}, None, {}],
    }
    payload = {"choices": [{"text": "tea", "finish_reason": "length", "logprobs": logprobs}]}
    answer = wire.parse(endpoint(api="completions"), payload)
    found = tokenise(answer, TokenMap(tokenizer))
    assert tokenizer.convert_ids_to_tokens(list(found.ids)) == ["t", "e", "a"] and answer.usage is None
    assert found.logprobs == (-0.1, -0.2, -0.3) and found.top_logprobs == ((-0.1,), (), ())


def test_sentencepiece_tokens_are_matched_unless_a_leading_space_may_be_missing() -> None:
    names = ["<unk>", "</s>", "<0x41>", "A", "▁tea", "tea", "s", "<0xE2>", "<0x9C>", "<0x93>"]
    core = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True))
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    known = TokenMap(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>"))

    def find(*texts: str) -> tuple[int, ...] | None:
        return known.find_all([wire.ServedToken(text, -1.0) for text in texts], "".join(texts))

    assert find(" tea", "s") == (4, 6) and find("A", " tea") == (3, 4)  # a letter before its own byte
    assert find("tea", "s") is None  # "▁tea" with its space cut off, or "tea"
    parts = [wire.ServedToken("\ufffd", -1.0, bytes([b])) for b in "✓".encode()]
    assert known.find_all(parts, "✓") == (7, 8, 9)


def completion(**changes: Any) -> Completion:
    log = math.log
    facts: dict[str, Any] = {
        "token_ids": (5, 7, 2), "logprobs": (log(0.5), log(0.1), 0.0),
        "top_ids": ((5, 6), (8, 9), ()), "top_logprobs": ((log(0.5), log(0.3)), (log(0.6), log(0.2)), ()),
    }  # fmt: skip
    facts |= changes
    return Completion("p", 0, text="x", finish="stop", history=History("teacher", "g"), **facts)


def test_served_entries_become_kept_targets() -> None:
    """Position 0: the observed token is among the entries; 1: it is added; 2: an end that was appended."""
    kept = kept_targets([completion(), completion(top_ids=None, top_logprobs=None)], "g", width=10)
    assert kept.missing == "tail" and kept.fingerprint == "g" and kept.temperature == 1.0
    assert [row[valid].tolist() for row, valid in zip(kept.ids, kept.valid, strict=True)] == [
        [5, 6], [8, 9, 7], [2], [5], [7], [2],
    ]  # fmt: skip
    expected = torch.tensor([[0.5, 0.3, 0], [0.6, 0.2, 0.1], [1, 0, 0], [0.5, 0, 0], [0.1, 0, 0], [1, 0, 0]])
    torch.testing.assert_close(kept.log_probs.exp(), expected)
    torch.testing.assert_close(kept.tail_mass, torch.tensor([0.2, 0.1, 0.0, 0.5, 0.9, 0.0]))
    narrow = kept_targets([completion()], "g", width=9)  # token 9 is none of the student's
    torch.testing.assert_close(narrow.tail_mass, torch.tensor([0.2, 0.3, 0.0]))


@pytest.mark.parametrize(
    ("changes", "width", "message"),
    [
        ({"logprobs": None}, 10, "completion 0 of prompt 'p' has no log-probs"),
        ({}, 7, "token 7 is beyond the student's 7 columns"),
        ({"top_logprobs": ((-0.1, -0.1), (-1.0, -1.0), ())}, 10, "token 0: the served entries have probability 1.8097"),
    ],
)
def test_what_is_no_distribution_is_refused(changes: dict[str, Any], width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kept_targets([completion(**changes)], "g", width)


def test_from_the_wire_to_targets(tokenizer: Any, vocabulary: int) -> None:
    """As vLLM answers with return_token_ids: whole history, ids as sampled, targets that sum to one."""
    ids = (*TokenMap(tokenizer).tokenizer("people like tea", add_special_tokens=False).input_ids, 2)

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        others = [{"token": f"token_id:{i}", "logprob": math.log(p), "bytes": None} for i, p in ((40, 0.5), (41, 0.25))]
        listed = [{"token": f"token_id:{i}", "logprob": math.log(0.125), "top_logprobs": others} for i in ids]
        message = {"role": "assistant", "content": "people like tea"}
        return {"message": message, "finish_reason": "stop", "token_ids": list(ids), "logprobs": {"content": listed}}

    with FaultyServer(reply) as server:
        config = Endpoint(
            kind="endpoint",
            base_urls=(server.url,),
            model="teacher",
            return_token_ids=True,
            top_logprobs=2,
            terms="MIT",
        )
        generator = EndpointGenerator(config, tokenizer, Sampling(), 3, "train")
        (found,) = generator.generate([ASK])
    assert found.token_ids == ids and found.finish == "stop"
    assert found.history == History(
        "teacher", generator.fingerprint, None,
        {"sampling_temperature": 1.0, "top_p": 1.0, "max_new_tokens": 128, "seed": 3, "stream": "train",
         "model": "teacher", "tokens": "served", "system_fingerprint": "fp_1"},
        1, "MIT", strategy="plain",
    )  # fmt: skip
    kept = kept_targets([found], generator.fingerprint, vocabulary)
    torch.testing.assert_close(kept.tail_mass, torch.full((len(ids),), 0.125), atol=1e-5, rtol=0)
    assert kept.ids.tolist() == [[40, 41, i] for i in ids]
