"""From finished cells to findings: intervals, power laws, measures, and experiments with a known answer."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lab_worlds import ARMS, FAILS, HOLDS, PER_EPOCH, STEPS, cell, null_cells, null_world, world

from potstill.lab.arms_table import arms_table
from potstill.lab.cells import Cell, RiseSummary, cell_of_run
from potstill.lab.effects import Arms, Want, never_outcome, risen_outcome
from potstill.lab.findings import Finding, judge_findings
from potstill.lab.measures import golden_between, golden_rise, late_change, proxy_after_turn, proxy_beyond_allowance
from potstill.lab.stats import Estimate, NoFit, PowerLaw, clopper_pearson, paired, power_law
from potstill.records import EvaluationRecord, Measured, Split
from potstill.run_dir import RunDir

# -- intervals ------------------------------------------------------------------


def test_students_interval_by_hand() -> None:
    found = paired([1.0, 2.0, 3.0])  # sd 1, t(2) = 4.302653
    assert found.mean == 2 and found.n == 3
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2 - found.low == pytest.approx(found.high - 2)


def test_one_value_knows_no_interval() -> None:
    found = paired([0.7])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.as_list() == [0.7, None, None]
    for nothing in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="at least one finite value"):
            paired(nothing)


def test_clopper_pearson_by_hand() -> None:
    assert clopper_pearson(0, 5).high == pytest.approx(1 - 0.025 ** (1 / 5))
    assert clopper_pearson(5, 5).low == pytest.approx(0.025 ** (1 / 5))
    assert clopper_pearson(0, 5).low == 0 and clopper_pearson(5, 5).high == 1
    found = clopper_pearson(1, 10)  # tables: 0.0025 to 0.4450
    assert (found.low, found.high) == (pytest.approx(0.00253, abs=1e-5), pytest.approx(0.44502, abs=1e-5))
    with pytest.raises(ValueError, match="hits=3, n=2"):
        clopper_pearson(3, 2)


# -- the power law ----------------------------------------------------------------

EPOCHS = np.arange(0.0, 49.0, 3)


def law_values(exponent: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """20 t^-a at EPOCHS (epoch 0 gets a value that must be skipped)."""
    values = 20 * np.maximum(EPOCHS, 1) ** -exponent
    return np.asarray(values * np.exp(noise * np.random.default_rng(seed).standard_normal(len(EPOCHS))))


def fitted(found: PowerLaw | NoFit) -> PowerLaw:
    assert isinstance(found, PowerLaw), found
    return found


def test_an_exact_law_is_recovered() -> None:
    law = fitted(power_law(EPOCHS.tolist(), law_values(0.35).tolist()))
    assert law.exponent == pytest.approx(0.35) and law.late_exponent == pytest.approx(0.35)
    assert law.constant == pytest.approx(20)
    assert law.epochs[0] == pytest.approx(3) and law.fitted == pytest.approx(20 * law.epochs**-0.35)
    assert law.break_epoch is None and law.fitted_until == pytest.approx(18)  # six evaluations


def test_half_of_log_time_is_fitted_where_it_holds_enough() -> None:
    epochs = np.arange(0.5, 50.5, 0.5)
    law = fitted(power_law(epochs.tolist(), (3 * epochs**-0.5).tolist()))
    assert law.fitted_until == pytest.approx(math.sqrt(0.5 * 50), abs=0.5)


@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize("truth", [24.0, 30.0, 36.0])
def test_a_break_is_found_within_an_evaluation(truth: float, direction: int) -> None:
    errors = []
    for seed in range(40):
        values = law_values(0.35, 0.005, seed)
        after = np.greater(EPOCHS, truth)
        values[after] *= np.exp(direction * (0.15 + 0.02 * (EPOCHS[after] - truth)))
        found = fitted(power_law(EPOCHS.tolist(), values.tolist())).break_epoch
        errors.append(math.inf if found is None else abs(found - (truth + 3)))  # truth + 3: the first after it
    assert np.mean(np.array(errors) <= 3.01) >= 0.9, errors


def test_a_slow_departure_is_found_by_its_slope() -> None:
    values = law_values(0.35)
    late = EPOCHS >= 18
    values[late] = values[6] * (EPOCHS[late] / 18) ** -0.75  # too little to leave the band by then
    found = fitted(power_law(EPOCHS.tolist(), values.tolist()))
    assert found.break_epoch is not None and found.late_exponent == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.05])
def test_a_noisy_straight_line_hardly_ever_breaks(noise: float) -> None:
    breaks = [fitted(power_law(EPOCHS.tolist(), law_values(0.35, noise, s).tolist())).break_epoch for s in range(400)]
    assert np.mean([found is None for found in breaks]) >= 0.97


def test_no_law_without_enough_positive_values() -> None:
    found = power_law([0, 1, 2, 3], [None, 3.0, 2.0, 1.0])
    assert isinstance(found, NoFit) and "3 evaluations after epoch 0" in found.reason
    found = power_law(EPOCHS.tolist(), [1.0] * 16 + [0.0])
    assert isinstance(found, NoFit) and "logarithm" in found.reason
    gaps = [None if i % 5 == 4 else value for i, value in enumerate(law_values(0.35))]
    assert fitted(power_law(EPOCHS.tolist(), gaps)).exponent == pytest.approx(0.35)


# -- cells and measures -------------------------------------------------------------


def test_a_cell_survives_json() -> None:
    for one in world(HOLDS, (3,)):
        assert Cell.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one
    tree = world(HOLDS, (3,))[0].to_json()
    with pytest.raises(ValueError, match=r"missing \['golden'\], unknown \['gold'\]"):
        Cell.from_json({**{name: value for name, value in tree.items() if name != "golden"}, "gold": []})
    with pytest.raises(ValueError, match="proxy has 1 values, expected one for each of the 17"):
        Cell.from_json(tree | {"proxy": [1.0]})


def by_hand(golden: list[float], proxy: list[float] | None = None, rise: RiseSummary | None = None) -> Cell:
    num = len(golden)
    series = {"proxy": tuple(proxy or golden), "golden": tuple(golden), "training_loss": (None,) * num}
    return Cell(
        "offline", 3, "run", num - 1, 10, "healthy", 0.5, tuple(range(0, 10 * num, 10)),
        proxy_fkl=series["proxy"], rise=rise, **series,
    )  # fmt: skip


def test_golden_rise_says_how_it_was_measured() -> None:
    falling = by_hand([9, 6, 3, 3, 6])
    found = golden_rise(falling)
    assert found is not None and found.kind == "last_minus_lowest"
    assert found.value == pytest.approx(2) and found.turn in (20, 30)  # smoothed 7.5 6 4 4 4.5
    tested = replace(falling, rise=RiseSummary(0.5, 10, -0.25, (-1, 1)))
    found = golden_rise(tested)
    assert found is not None and (found.value, found.kind, found.turn) == (-0.25, "fitted", 10)
    assert golden_rise(by_hand([1.0])) is None


def test_proxy_over_the_stretch_of_golden() -> None:
    rise = RiseSummary(0.001, 20, 1.0, (0.5, 1.5))
    golden = [9.0, 6, 3, 3.25, 3.5, 3.75, 4]
    line = by_hand(golden, [9, 6, 4, 5, 5.5, 6, 6.5], rise)
    assert proxy_after_turn(line) == pytest.approx(1.5)  # the line through the four evaluations after step 20
    assert proxy_beyond_allowance(line) == pytest.approx(1.5 - 0.5)  # half of golden's rise is more than 2 % of 3.8
    short = by_hand([9, 6, 3, 3, 6], [9, 6, 5, 4, 4.5])
    assert proxy_after_turn(short) in (pytest.approx(-0.5), pytest.approx(0.5))  # the plain difference from the turn
    assert late_change(line, "proxy") == pytest.approx(1.5)  # steps 30 to 60


def test_epochs_ends_need_an_evaluation() -> None:
    line = by_hand([9.0, 6, 4, 3])
    assert golden_between(line, 1, 2) == -2 and golden_between(line, 2, 3) == -1
    assert golden_between(line, 3, 4) is None


def test_a_run_becomes_a_cell(tmp_path: Path) -> None:
    """Two completions of each prompt, lengths 4 and 8, golden with a turn, and a prompt of the train split."""
    run, num = RunDir(tmp_path / "steps" / "run"), 12
    levels = [20, 14, 11, 10, 10, 10.4, 10.8, 11.2, 11.6, 12, 12.4, 12.8]
    ids = np.array([f"p{i:02d}" for i in range(num) for _ in range(2)])
    tokens = np.tile([4, 8], num)
    splits: dict[str, Split] = {f"p{i:02d}": "selection" if i % 2 else "test" for i in range(num)}
    ids, tokens, splits = np.append(ids, "t"), np.append(tokens, 5), {**splits, "t": "train"}
    for index, level in enumerate(levels):
        wobble = np.tile([-1.0, 1.0], num) * 0.5
        golden = np.append(level + wobble, 1e6)
        series = {
            "golden": Measured(ids, golden, tokens),
            "proxy": Measured(ids, golden * 0 + 20 / (index + 1), tokens),
            "proxy_fkl": Measured(ids, golden * 0 + 30 / (index + 1), tokens),
            "teacher_golden": Measured(ids, golden * 0 + 9, tokens),
        }
        scalars = {"training_loss": 2.0 / index} if index else {}
        run.write_evaluation(EvaluationRecord(16 * index, series, splits, scalars))
    run.write_json("provenance.json", {"golden": "oracle"})
    found = cell_of_run(run.path, "offline", 3, 11, 16, relative_to=tmp_path, seconds=1.5)
    assert (found.run, found.arm, found.seed, found.epochs, found.seconds) == ("steps/run", "offline", 3, 11, 1.5)
    assert found.steps == tuple(range(0, 192, 16)) and found.golden == pytest.approx(levels)
    assert found.proxy[1] == pytest.approx(10) and found.proxy_fkl[2] == pytest.approx(10)
    assert found.training_loss[0] is None and found.training_loss[1] == pytest.approx(2.0 * 6)  # mean length 6
    assert found.teacher_golden == pytest.approx(9) and found.verdict == "hacking"
    assert found.rise is not None and found.rise.passed and found.rise.change_point == 64
    assert found.rise.change == pytest.approx(0.4 * 6, rel=0.2)
    assert found.rise.interval[0] < found.rise.change < found.rise.interval[1]
    assert Cell.from_json(json.loads(json.dumps(found.to_json()))) == found
    run.write_json("provenance.json", {"golden": "reference_nll"})
    with pytest.raises(ValueError, match="golden is reference_nll, expected oracle"):
        cell_of_run(run.path, "offline", 3, 11, 16)


# -- what an effect is ----------------------------------------------------------------


def test_three_outcomes_of_a_mean() -> None:
    want = Want("above", counts=0.2)
    assert want.outcome(Estimate(0.5, 0.1, 0.9, 5)) == "met"
    assert want.outcome(Estimate(0.0, -0.1, 0.1, 5)) == "against"  # narrow: what counts is ruled out
    assert want.outcome(Estimate(-0.5, -0.9, -0.1, 5)) == "against"
    assert want.outcome(Estimate(0.3, -0.3, 0.9, 5)) == "undecided"  # wide
    assert want.outcome(Estimate(0.5, 0.1, 0.9, 2)) == "undecided"  # two seeds
    below = Want("below", limit=0.1, counts=0.2)
    assert below.outcome(Estimate(-0.1, -0.25, 0.05, 5)) == "met"
    assert below.outcome(Estimate(0.1, -0.05, 0.15, 5)) == "against"
    assert below.outcome(Estimate(0.1, -0.15, 0.15, 5)) == "undecided"


def test_outcomes_of_counted_u_tests() -> None:
    assert [risen_outcome(hits, 5) for hits in range(6)] == ["undecided", "undecided", *["met"] * 4]
    assert [never_outcome(hits, 5) for hits in range(4)] == ["met", "undecided", "against", "against"]
    assert risen_outcome(10, 50) == "undecided"  # more than false alarms, and still not what the arm does
    assert risen_outcome(2, 3) == "met" and risen_outcome(1, 3) == "undecided"


# -- findings ---------------------------------------------------------------------


def statuses(found: list[Finding]) -> list[str]:
    return [one.status for one in found]


def test_a_world_in_which_all_seven_hold() -> None:
    found = judge_findings(world(HOLDS))
    assert [one.number for one in found] == [1, 2, 3, 4, 5, 6, 7]
    assert statuses(found) == ["reproduced"] * 7, [one.why for one in found]
    rise = found[0].effects[0]
    assert rise.estimate is not None and rise.estimate.mean == pytest.approx(0.5, abs=0.05)
    assert set(rise.per_seed) == {3, 4, 5, 6, 7}


def test_a_world_in_which_none_holds() -> None:
    found = judge_findings(world(FAILS))
    assert statuses(found) == ["not reproduced"] * 7, [one.why for one in found]
    assert "oracle_as_teacher" in found[0].why and "mixture_10" in found[2].why


def test_overfitting_is_not_hacking() -> None:
    cells = world(HOLDS | {"offline": (0.5, 16.4, 10.6, 0.6, 5.0)})
    first = judge_findings(cells)[0]
    outcomes = {effect.name: effect.outcome for effect in first.effects}
    assert first.status == "not reproduced" and outcomes["proxy_beyond_allowance"] == "against"
    assert outcomes["offline_golden_rise"] == "met"


@pytest.mark.parametrize(("size", "status"), [(0.6, "not decidable"), (0.05, "not reproduced")])
def test_a_rise_that_no_u_test_confirms(size: float, status: str) -> None:
    """The interval lies above 0, which luck can do. A large rise stays open; one below what counts is none."""
    cells = []
    for one in world(HOLDS | {"offline": (size, 16.4, 10.0, 0.0, 5.0)}, noise=0.005):
        if one.arm == "offline":
            assert one.rise is not None
            one = replace(one, rise=replace(one.rise, p=0.4))
        cells.append(one)
    first = judge_findings(cells)[0]
    assert first.status == status and first.effects[0].estimate is not None
    assert first.effects[0].estimate.low > 0


def test_the_seed_is_paired_out() -> None:
    """Seeds differ by 0.5, the arms of a seed by 0.05: unpaired, no difference of 0.3 would show."""
    cells = world(HOLDS | {"completions_4": (0.5, 16.1, 9.7, 0.0, 5.0)})
    assert judge_findings(cells)[4].status == "reproduced"
    shuffled = [replace(one, seed=10 - one.seed) if one.arm == "completions_4" else one for one in cells]
    assert judge_findings(shuffled)[4].status == "not decidable"


@pytest.mark.parametrize(
    ("arm", "number"),
    [("oracle_as_teacher", 1), ("online_student", 2), ("mixture_10", 3), ("few_epochs", 6), ("reverse_kl", 7)],
)
def test_a_missing_arm_is_named(arm: str, number: int) -> None:
    found = judge_findings([one for one in world(HOLDS) if one.arm != arm])
    assert found[number - 1].status == "not decidable"
    assert f"he arm {arm} was not run" in found[number - 1].why
    others = [one.status for one in found if one.number != number]
    assert others == ["reproduced"] * 6


def test_a_missing_arm_does_not_save_what_is_contradicted() -> None:
    cells = [one for one in world(FAILS) if one.arm != "online_student"]
    assert judge_findings(cells)[1].status == "not reproduced"


def test_the_next_dose_decides_where_the_first_was_not_run() -> None:
    fourth = judge_findings([one for one in world(HOLDS) if one.arm != "prompts_fifth"])[3]
    assert fourth.status == "reproduced" and fourth.effects[0].name == "prompts_half_golden_last"


def test_nothing_at_all_is_not_decidable() -> None:
    assert statuses(judge_findings([])) == ["not decidable"] * 7
    assert statuses(judge_findings(world({"offline": HOLDS["offline"]}))) == ["not decidable"] * 7


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
@pytest.mark.parametrize("given", [HOLDS, FAILS])
def test_one_or_two_seeds_decide_nothing(seeds: tuple[int, ...], given: dict) -> None:
    found = judge_findings(world(given, seeds))
    assert statuses(found) == ["not decidable"] * 7
    assert "too few" in found[2].why
    json.dumps([one.to_json() for one in found], allow_nan=False)


def test_too_few_evaluations_leave_the_u_test_open() -> None:
    short = replace(cell("few_epochs", 3, HOLDS["few_epochs"]), rise=None)
    assert short.rose() is None or short.rose() is False
    cut = replace(short, steps=short.steps[::2], **{
        name: getattr(short, name)[::2] for name in ("golden", "proxy", "proxy_fkl", "training_loss")
    })  # fmt: skip
    assert short.rose() is False and cut.rose() is None
    cells = [one for one in world(HOLDS) if one.arm != "few_epochs"] + [replace(cut, seed=s) for s in (3, 4, 5)]
    sixth = judge_findings(cells)[5]
    assert sixth.status == "not decidable" and "was not measured" in sixth.why


def test_two_cells_of_one_place_are_refused() -> None:
    cells = world(HOLDS, (3,))
    with pytest.raises(ValueError, match="two cells of seed 3"):
        Arms([*cells, cells[0]])


def test_findings_as_json() -> None:
    tree = json.loads(json.dumps([one.to_json() for one in judge_findings(world(HOLDS))], allow_nan=False))
    effect = tree[0]["effects"][0]
    assert set(effect) >= {"name", "words", "per_seed", "mean", "interval", "wanted", "met", "unit"}
    assert effect["met"] is True and effect["wanted"] == "above 0" and set(effect["per_seed"]) == set("34567")
    assert effect["interval"][0] < effect["mean"] < effect["interval"][1]
    assert [one["met"] for one in tree[0]["effects"]][-2:] == [None, None]  # reported only


@pytest.mark.parametrize("shape", ["flat", "power"])
def test_noise_is_not_called_a_finding(shape: str) -> None:
    """200 experiments of 5 seeds in which no arm differs, with the real U test on every curve."""
    pool = null_cells(250, shape)
    found: Counter[int] = Counter()
    for index in range(200):
        found.update(one.number for one in judge_findings(null_world(pool, index)) if one.status == "reproduced")
    if shape == "power":
        found.pop(6)  # it holds there: golden falls all the time
    assert max(found.values(), default=0) <= 0.05 * 200, found


# -- the table ---------------------------------------------------------------------


def test_the_table_of_arms() -> None:
    cells = world(HOLDS | {"zzz": HOLDS["offline"]})
    table = json.loads(json.dumps(arms_table(cells), allow_nan=False))
    names = [line["arm"] for line in table]
    assert set(names) == {*ARMS, "zzz"} and names[0] == "offline" and names[-1] == "zzz"
    line, offline = table[0], [one for one in cells if one.arm == "offline"]
    ends = paired([one.golden[-1] for one in offline if one.golden[-1] is not None])
    assert line["golden_last"] == [ends.mean, ends.low, ends.high]
    assert line["verdicts"] == {"hacking": 5} and line["seeds"] == 5
    assert line["rises_fitted"] == line["rises_passed"] == 5
    assert line["golden_rise"][0] == pytest.approx(0.5, abs=0.05)
    assert table[names.index("online_teacher")]["rises_fitted"] == 0
    one_seed = arms_table(cells[:1])[0]
    assert one_seed["golden_last"][1:] == [None, None]
    bare = replace(cells[0], teacher_golden=None, training_loss=(None,) * len(STEPS))
    assert arms_table([bare])[0]["minus_teacher"] is None and arms_table([bare])[0]["training_loss_last"] is None


def test_the_table_holds_the_laws() -> None:
    def with_loss(seed: int) -> Cell:
        values = [None] + [(20 + seed) * (step / PER_EPOCH) ** -0.35 for step in STEPS[1:]]
        broken = [value if value is None or i < 11 else value * 0.7 for i, value in enumerate(values)]
        return replace(cell("offline", seed, HOLDS["offline"]), training_loss=tuple(values), proxy=tuple(broken))

    line = arms_table([with_loss(1), with_loss(3)])[0]
    loss, proxy = line["laws"]["training_loss"], line["laws"]["proxy"]
    assert loss["C"] == pytest.approx(22) and loss["exponent"] == pytest.approx(-0.35)
    assert (loss["from"], loss["to"]) == (pytest.approx(3), pytest.approx(18)) and loss["break_epoch"] is None
    assert proxy["break_epoch"] == pytest.approx(33)
    assert line["laws_by_seed"]["proxy"]["broke"] == 2 and line["laws_by_seed"]["training_loss"]["broke"] == 0
    assert arms_table(world({"few_epochs": HOLDS["few_epochs"]}))[0]["laws"]["proxy"] is None
