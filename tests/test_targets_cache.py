"""The cache of teacher's targets: bytes by hand, what comes back, what is refused, what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_case import CPU, SETTINGS, VOCABULARY, header, live, models, read, rows, same, write

from potstill.data.cache_format import (
    Column,
    columns_of,
    from_steps,
    pack,
    tail_from_steps,
    tail_to_steps,
    to_steps,
    unpack,
)
from potstill.data.cache_index import KEY, CacheError, Header, RowIndex, row_key, row_keys
from potstill.data.collate import Layout, Row, collate
from potstill.data.targets_cache import CacheWriter, TargetsCache
from potstill.models.vocabulary import Alignment
from potstill.targets import FinalHidden, Kept, Sampled
from potstill.training.caching import complete, in_form, keyed_uniforms, write_targets

# -- bytes -------------------------------------------------------------------


def test_numbers_lie_in_the_bits_where_they_should() -> None:
    # 5 bits each, the lowest first: 00001 | 00010 | 11111 -> ...0111 1100 0100 0001
    data = pack(np.array([1, 2, 31]), 5)
    assert data[:2] == bytes([0b01000001, 0b01111100]) and len(data) == 16
    assert pack(np.array([513]), 16)[:2] == bytes([1, 2])
    with pytest.raises(ValueError, match="32 does not fit into 5 bits"):
        pack(np.array([32]), 5)


@pytest.mark.parametrize("bits", range(1, 33))
def test_packed_numbers_come_back_in_any_order(bits: int) -> None:
    generator = np.random.default_rng(bits)
    values = generator.integers(0, 2**bits, 70_000 if bits in (1, 17) else 999, dtype=np.int64)
    values[:2] = 0, 2**bits - 1
    data = np.frombuffer(pack(values, bits), np.uint8)
    column = Column("c", "entry", bits)
    assert len(data) == column.num_bytes(0, len(values))
    which = generator.permutation(len(values))
    assert np.array_equal(unpack(data, column, which).astype(np.int64), values[which])


def test_log_probs_and_tails_are_off_by_half_a_step_at_most() -> None:
    values = -np.abs(np.random.default_rng(0).normal(0, 6, 2000)).astype(np.float32)
    for bits in (8, 12, 16):
        step = 32 / (2**bits - 1)
        assert np.abs(from_steps(to_steps(values, bits), bits) - values).max() <= step / 2 + 1e-6
    assert from_steps(to_steps(np.array([-50.0, 0.0]), 12), 12).tolist() == [-32.0, 0.0]
    tails = tail_from_steps(tail_to_steps(np.array([0.0, 1.0, 0.25, 1e-30])))
    assert tails[0] == 0 and tails[1] == 1 and tails[2] == pytest.approx(0.25, rel=3e-4) and 0 < tails[3] < 1e-13


def test_columns_hold_what_the_formats_need() -> None:
    made = columns_of("kept", {"top_k": 50, "log_prob_bits": 12}, 49152)
    assert [(c.name, c.bits) for c in made] == [("count", 6), ("tail", 16), ("id", 16), ("log_prob", 12)]
    made = columns_of("sampled", {"draws": 50}, 65537)
    assert [(c.name, c.bits) for c in made] == [("count", 6), ("entropy", 32), ("id", 17), ("times", 6)]
    assert len(row_keys(rows(3))) == 3


def test_a_shard_is_as_large_as_arithmetic_says(tmp_path: Path) -> None:
    given = rows(5)
    write(tmp_path, header("sampled"), given)
    cache = TargetsCache(tmp_path)
    positions, entries = cache.num_positions, cache.shards[0].facts.entries
    # 61 tokens are 6 bits, 20 draws 5 bits; entropy 32 bits; 24 bytes a row, 16 of magic, padding to 8 and 8 more.
    columns = [(positions, 5), (positions, 32), (entries, 6), (entries, 5)]
    expected = 16 + 24 * 5 + sum(-(-count * bits // 64) * 8 + 8 for count, bits in columns)
    assert (tmp_path / "shard-00000.bin").stat().st_size == expected
    assert cache.num_bytes > expected  # header and index are counted


# -- keys --------------------------------------------------------------------


def test_a_row_is_known_by_all_that_the_teacher_read_and_all_that_counts() -> None:
    row = Row("a", 0, "teacher", (5, 6, 7), (False, False, True), (8, 9))
    same = replace(row, prompt_id="b", index=3, provenance="reference", num_trace=1)
    assert row_key(row) == row_key(same)
    others = [
        replace(row, answer=(8, 10)), replace(row, answer=(8,)), replace(row, answer=(8, 9, 0)),
        replace(row, prompt=(5, 6, 8)), replace(row, prompt_counted=(False, True, True)),
        replace(row, prompt=(5, 6), prompt_counted=(False, False), answer=(7, 8, 9)), replace(row, asked=(5, 6, 1)),
    ]  # fmt: skip
    assert len({row_key(r).tobytes() for r in [row, *others]}) == len(others) + 1
    shown = replace(row, asked=(5, 6, 1))
    assert row_key(shown) == row_key(replace(row, prompt=(5, 6, 1), prompt_counted=(False,) * 3))


def test_keys_that_share_their_first_half_are_told_apart() -> None:
    records = np.array([(7, 1), (3, 9), (7, 2), (7, 0)], KEY)
    index = RowIndex(records)
    wanted = np.array([(7, 2), (7, 0), (3, 9), (7, 1), (7, 3), (9, 9), (0, 0)], KEY)
    assert index.find(wanted).tolist() == [2, 3, 1, 0, -1, -1, -1]
    assert RowIndex(records[:0]).find(wanted).tolist() == [-1] * 7


# -- there and back ----------------------------------------------------------


def test_sampled_targets_come_back_exactly(tmp_path: Path) -> None:
    given = rows()
    write(tmp_path, header("sampled"), given)
    found, said = read(tmp_path, given), live(given)
    assert isinstance(found, Sampled)
    counts = [row.num_counted for row in given]
    expected = in_form(header("sampled"), said, torch.zeros(len(said.hidden)), given, counts)
    assert isinstance(expected, Sampled)
    assert torch.equal(found.ids, expected.ids) and torch.equal(found.counts, expected.counts)
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-5, atol=1e-6)
    log_p = torch.log_softmax(said.logits(), -1)
    torch.testing.assert_close(found.entropy, -(log_p.exp() * log_p).sum(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_kept_targets_come_back_within_half_a_step(tmp_path: Path, top_p: float) -> None:
    given = rows()
    write(tmp_path, header("kept", top_p=top_p), given)
    found = read(tmp_path, given)
    assert isinstance(found, Kept) and found.missing == "tail"
    log_p = torch.log_softmax(live(given).logits(), -1)
    observed = torch.cat([collate([r], Layout(0)).target_ids[collate([r], Layout(0)).counted] for r in given])
    assert float((found.log_probs - log_p.gather(-1, found.ids))[found.valid].abs().max()) <= 16 / 4095 + 1e-4
    for i in range(len(log_p)):
        here = found.ids[i][found.valid[i]].tolist()
        order = log_p[i].argsort(descending=True).tolist()
        p = log_p[i].exp()[order]
        wanted = [order[j] for j in range(6) if float(p[:j].sum()) < top_p]
        assert set(here) == {*wanted, int(observed[i])}
        assert float(found.tail_mass[i]) == pytest.approx(1 - float(log_p[i].exp()[here].sum()), abs=2e-4)
    assert not found.valid.all()


def test_everything_kept_leaves_no_tail(tmp_path: Path) -> None:
    given = rows(6)
    write(tmp_path, header("kept", top_k=1000, log_prob_bits=16), given)
    found = read(tmp_path, given)
    assert isinstance(found, Kept) and found.tail_mass.abs().max() == 0 and int(found.valid.sum(-1).min()) == VOCABULARY


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_hidden_states_come_back_in_their_type(tmp_path: Path, dtype: str) -> None:
    given = rows()
    write(tmp_path, header("final_hidden", dtype=dtype), given)
    found, said = read(tmp_path, given), live(given)
    assert isinstance(found, FinalHidden)
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert torch.equal(found.hidden, said.hidden.to(kind).float())
    assert torch.equal(found.head.weight, said.head.weight)
    assert replace(found.head, weight=said.head.weight) == said.head


def test_hidden_states_too_large_for_fp16_are_refused(tmp_path: Path) -> None:
    said = live(rows(2))
    with (
        CacheWriter(tmp_path, header("final_hidden", dtype="fp16"), said.head) as writer,
        pytest.raises(CacheError, match=r"do not fit into fp16 .*Set cache.dtype: bf16"),
    ):
        writer.add(rows(2), [r.num_counted for r in rows(2)], replace(said, hidden=said.hidden * 1e6))


@pytest.mark.parametrize("form", SETTINGS)
def test_rows_of_many_shards_are_found_in_any_order(tmp_path: Path, form: str) -> None:
    given = rows()
    write(tmp_path / "many", header(form), given, shard_mb=1e-4)
    write(tmp_path / "one", header(form), given)
    assert len(TargetsCache(tmp_path / "many").shards) == 3  # one for each group of 16 rows
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(given))[: 5 + 9 * seed]
        some = [given[i] for i in order]
        assert same(read(tmp_path / "many", some), read(tmp_path / "one", some))
        parts = [read(tmp_path / "one", [row]) for row in some]
        if form == "final_hidden":
            assert torch.equal(torch.cat([p.hidden for p in parts]), read(tmp_path / "many", some).hidden)  # type: ignore[union-attr]


def test_a_padded_vocabulary_is_stored_on_the_students_columns(tmp_path: Path) -> None:
    teacher, _, layout = models()
    wider = Alignment(VOCABULARY - 2, VOCABULARY + 5)
    given = rows(8)
    blank = Header("kept", "", "", "as_computed", "fp32", 0, None, None, 1.0, SETTINGS["kept"] | {"top_k": 1000})
    head = complete(blank, teacher, "teacher-1", "tiny", wider, layout)
    with CacheWriter(tmp_path, head) as writer:
        write_targets(writer, teacher, given, layout, wider, CPU, lambda rows, tokens: False)
    found = read(tmp_path, given)
    assert isinstance(found, Kept) and TargetsCache(tmp_path).header.width == VOCABULARY + 5
    assert int(found.ids.max()) < VOCABULARY + 5 and float(found.log_probs.exp().sum(-1).max()) < 1.01


# -- random numbers ----------------------------------------------------------


def test_draws_belong_to_row_and_seed_and_are_spread_evenly() -> None:
    row, other = rows(2)
    numbers = keyed_uniforms(1, row, 40, 25, "stratified")
    assert np.array_equal(numbers, keyed_uniforms(1, row, 40, 25, "stratified"))
    assert np.array_equal(numbers[:7], keyed_uniforms(1, row, 7, 25, "stratified"))
    assert not np.allclose(numbers, keyed_uniforms(2, row, 40, 25, "stratified"))
    assert not np.allclose(numbers, keyed_uniforms(1, other, 40, 25, "stratified"))
    assert (np.floor(numbers * 25) == np.arange(25)).all() and numbers.max() < 1


@pytest.mark.parametrize("spread", ["stratified", "independent"])
def test_drawn_shares_are_the_probabilities_on_average(spread: str) -> None:
    given = rows(6)
    said, counts = live(given), [r.num_counted for r in given]
    p = torch.softmax(said.logits(), -1).double()
    head, observed = header("sampled", spread=spread), torch.zeros(len(p), dtype=torch.long)
    redraws = 400
    total, squares = torch.zeros_like(p), torch.zeros_like(p)
    for seed in range(redraws):
        drawn = in_form(head, said, observed, given, counts, seed)
        assert isinstance(drawn, Sampled)
        share = torch.zeros_like(p).scatter_add_(1, drawn.ids, drawn.counts.double() / drawn.draws)
        total, squares = total + share, squares + share.square()
    error = (squares / redraws - (total / redraws).square()).clamp(min=0).sqrt() / redraws**0.5
    seen = error > 1e-9
    z = ((total / redraws - p) / error)[seen & (p > 0.01)]
    assert len(z) > 300 and float(z.abs().max()) < 5 and float(z.square().mean()) < 1.2


# -- crashes, others, damage -------------------------------------------------


@pytest.mark.parametrize("form", SETTINGS)
def test_a_stopped_writing_goes_on_to_the_same_numbers(tmp_path: Path, form: str) -> None:
    given = rows()
    assert write(tmp_path / "whole", header(form), given)
    assert not write(tmp_path / "cut", header(form), given, stop_after=2)
    with pytest.raises(CacheError, match=r"4 of 36 rows are not in the cache .* Run `potstill cache`"):
        TargetsCache(tmp_path / "cut").places(given)
    first = (tmp_path / "cut" / "shard-00000.bin").read_bytes()
    assert write(tmp_path / "cut", header(form), given)
    assert (tmp_path / "cut" / "shard-00000.bin").read_bytes() == first
    assert same(read(tmp_path / "cut", given), read(tmp_path / "whole", given))
    size = (tmp_path / "cut" / "index.jsonl").stat().st_size
    assert write(tmp_path / "cut", header(form), given)  # all there: nothing is written
    assert (tmp_path / "cut" / "index.jsonl").stat().st_size == size


def test_a_kill_leaves_a_cache_that_reads_and_goes_on(tmp_path: Path) -> None:
    given = rows()
    write(tmp_path / "whole", header("sampled"), given, shard_mb=1e-4)
    index = tmp_path / "whole" / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    # Killed between the rename and the index; in the middle of the index's line; in the middle of a shard.
    for name, kept in (("renamed", b"".join(lines[:-1])), ("torn", b"".join(lines[:-1]) + lines[-1][:9])):
        cut = tmp_path / name
        shutil.copytree(tmp_path / "whole", cut)
        (cut / "index.jsonl").write_bytes(kept)
        (cut / ".unfinished-shard-00007.bin").write_bytes(b"half")
        assert TargetsCache(cut).num_rows == 32
        write(cut, header("sampled"), given)
        assert same(read(cut, given), read(tmp_path / "whole", given))
        assert not list(cut.glob(".unfinished-*"))


def test_an_error_while_writing_lets_go_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="teacher fell over"), CacheWriter(tmp_path, header("kept")):
        raise RuntimeError("teacher fell over")
    assert write(tmp_path, header("kept"), rows(3))


def test_two_writers_refuse_each_other(tmp_path: Path) -> None:
    with (
        CacheWriter(tmp_path, header("kept")),
        pytest.raises(CacheError, match="another process is writing"),
        CacheWriter(tmp_path, header("kept")),
    ):
        raise AssertionError("two wrote at once")


def test_a_damaged_shard_is_refused_when_it_is_first_read(tmp_path: Path) -> None:
    given = rows()
    write(tmp_path, header("sampled"), given, shard_mb=1e-4)
    path = tmp_path / "shard-00001.bin"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # one bit, in a column
    path.write_bytes(data)
    cache = TargetsCache(tmp_path)
    places = cache.places(given)
    healthy = places[np.searchsorted(np.cumsum([16, 16, 4]), places, side="right") != 1]
    cache.targets(healthy)
    with pytest.raises(CacheError, match=r"shard-00001.bin is damaged"):
        cache.targets(places)
    data[20] ^= 1  # in a row's key
    path.write_bytes(data)
    with pytest.raises(CacheError, match=r"shard-00001.bin is damaged"):
        TargetsCache(tmp_path)
    os.truncate(path, 100)
    with pytest.raises(CacheError, match=r"should hold \d+ bytes, found 100"):
        TargetsCache(tmp_path)
    path.unlink()
    with pytest.raises(CacheError, match="and is missing"):
        TargetsCache(tmp_path)


def test_another_cache_is_not_appended_to(tmp_path: Path) -> None:
    write(tmp_path, header("sampled"), rows(3))
    with pytest.raises(CacheError, match=r"settings.draws: 20 in the cache, 21 wanted"):
        write(tmp_path, header("sampled", draws=21), rows(3))
    with pytest.raises(CacheError, match=r"fingerprint: 'teacher-1' in the cache, 'teacher-2' wanted"):
        write(tmp_path, replace(header("sampled"), fingerprint="teacher-2"), rows(3))


def test_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path, header("sampled"), rows(3))
    facts = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps(facts | {"version": 9}))
    with pytest.raises(CacheError, match="format version 9, this Potstill reads version 1"):
        TargetsCache(tmp_path)
    with pytest.raises(CacheError, match=r"no cache of teacher's targets at .*potstill cache"):
        TargetsCache(tmp_path / "nowhere")


def test_a_row_that_differs_by_one_token_is_not_found(tmp_path: Path) -> None:
    given = rows(6)
    write(tmp_path, header("sampled"), given)
    cache = TargetsCache(tmp_path)
    row = given[3]
    changed = replace(row, answer=(*row.answer[:-1], row.answer[-1] ^ 1))
    with pytest.raises(
        CacheError, match=r"1 of 6 rows are not in the cache .*completion 0 of prompt 'p3'.*exact token"
    ):
        cache.places([*given[:3], changed, *given[4:]])
