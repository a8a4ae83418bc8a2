"""The U test: it must not cry wolf, it must see a wolf, and its parts do what they say.

The false-alarm tests take 200 simulated runs each, and accept 10 alarms (5 %). That
many bound the true rate by 9 % (95 % Clopper-Pearson), so they show a gross fault and
no more; benchmarks/false_alarms.py runs more, and prints the intervals.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from curve_simulator import jitter_series, shape_of, simulate

from potstill.diagnosis.curves import (
    MIN_AFTER,
    capped,
    prompt_halves,
    rise_test,
    slope_weights,
    smooth,
    trend_after,
    usable,
)
from potstill.diagnosis.noise import (
    CORRELATIONS,
    GROWTHS,
    falling_levels,
    jitter_posterior,
    keyed_generator,
    redraw_prompts,
    trend_design,
    whiten,
)

RUNS = 200


def rate_of_rises(shape: str, evaluations: int, rise: float = 0.0, runs: int = RUNS, **noise: float) -> float:
    truth = shape_of(shape, evaluations, rise)
    return float(np.mean([rise_test(simulate(truth, seed, **noise)).passed() for seed in range(runs)]))


@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize(("shape", "evaluations"), [("flat", 12), ("flat", 30), ("exponential", 30)])
def test_curves_that_do_not_rise_are_called_risen_in_at_most_one_of_twenty_runs(
    shape: str, evaluations: int, correlation: float
) -> None:
    assert rate_of_rises(shape, evaluations, correlation=correlation) <= 0.05


def test_prompts_that_drift_apart_on_a_flat_curve_are_no_rise_even_when_they_are_few() -> None:
    assert rate_of_rises("flat", 20, prompts=16, drift=3.0, jitter=0.01, interaction=0.1) <= 0.05


def test_spikes_of_jitter_are_no_rise() -> None:
    assert rate_of_rises("flat", 20, heavy=True) <= 0.05


def test_jitter_that_grows_fourfold_is_no_rise() -> None:
    assert rate_of_rises("flat", 20, jitter=0.1, jitter_end=0.4, correlation=0.3) <= 0.05


def test_one_evaluation_that_lies_too_high_at_the_end_is_no_rise() -> None:
    assert rate_of_rises("flat", 20, outlier=0.5, outlier_at=1.0) <= 0.05


def test_power_rises_with_the_rise() -> None:
    powers = [rate_of_rises("u", 16, rise=rise, runs=80, prompts=64) for rise in (0.3, 0.8, 1.3)]
    assert powers[0] <= 0.2
    assert powers[0] + 0.2 < powers[1] < powers[2] - 0.2


def test_a_clear_rise_is_seen() -> None:
    assert rate_of_rises("u", 20, rise=1.0) >= 0.95
    assert rate_of_rises("u", 20, rise=1.0, correlation=0.5) >= 0.9


def test_the_trials_rise_of_half_a_nat_is_seen_with_forty_evaluations() -> None:
    assert rate_of_rises("u", 40, rise=0.5) >= 0.85


def test_the_slope_is_unbiased_and_its_interval_covers_the_truth() -> None:
    truth = shape_of("u", 30, rise=1.0)
    trends = [trend_after(simulate(truth, seed, drift=0.5), 150) for seed in range(100)]
    true_change = (truth[-1] - truth[16]) / 32
    assert np.mean([trend.change for trend in trends]) == pytest.approx(true_change, rel=0.1)
    inside = [low <= true_change <= high for low, high in (trend.interval() for trend in trends)]
    assert np.mean(inside) >= 0.9


def test_more_prompts_give_a_narrower_interval() -> None:
    truth = shape_of("u", 20, rise=1.0)
    few, many = (rise_test(simulate(truth, 1, prompts=num, drift=5.0)).trend for num in (32, 512))
    assert few is not None and many is not None
    assert few.errors.std() > 2 * many.errors.std()


def test_without_noise_a_flat_curve_never_rises_and_a_u_always_does() -> None:
    still = {"jitter": 0.0, "drift": 0.0, "interaction": 0.0}
    assert not rise_test(simulate(shape_of("flat", 20, 0), 0, **still)).passed()
    risen = rise_test(simulate(shape_of("u", 21, 0.5), 0, **still))
    assert risen.passed()
    assert risen.trend is not None and risen.trend.change > 0


def test_a_lowest_point_near_the_end_is_not_tested() -> None:
    truth = np.concatenate([np.linspace(20, 10, 17), [10.5, 11, 11.5]])
    assert rise_test(simulate(truth, 0)).change_point is None


def test_the_test_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    curve = simulate(shape_of("u", 20, 0.5), 3)
    first = rise_test(curve)
    keyed_generator("something else").random(1000)
    second = rise_test(curve)
    assert (first.p, first.half_slopes) == (second.p, second.half_slopes)
    assert first.trend is not None and second.trend is not None
    np.testing.assert_array_equal(first.trend.errors, second.trend.errors)


def test_the_order_of_the_prompts_does_not_change_the_halves() -> None:
    curve = replace(simulate(shape_of("flat", 8, 0), 0, prompts=20), splits=np.full(20, "test"))
    turned = replace(curve, prompt_ids=curve.prompt_ids[::-1], sums=curve.sums[:, ::-1])
    halves, mirrored = prompt_halves(curve), prompt_halves(turned)
    np.testing.assert_array_equal(halves, mirrored[:, ::-1])
    assert halves.sum(1).tolist() == [10, 10]


def test_selection_and_test_splits_are_the_halves_where_both_are_given() -> None:
    curve = simulate(shape_of("flat", 8, 0), 0, prompts=20)
    np.testing.assert_array_equal(prompt_halves(curve)[0], curve.splits == "selection")


def test_evaluations_that_are_not_finite_are_left_out() -> None:
    curve = simulate(shape_of("flat", 8, 0), 0)
    curve.sums[3, 5] = np.nan
    assert usable(curve).steps.tolist() == [0, 10, 20, 40, 50, 60, 70]


def test_a_dense_log_is_averaged_and_keeps_its_last_step() -> None:
    curve = simulate(shape_of("exponential", 500, 0), 0, prompts=16)
    thin = usable(curve)
    assert 50 <= len(thin.steps) <= 60
    assert thin.steps[-1] == curve.steps[-1]
    last = thin.steps[-1] - thin.steps[-2]
    assert thin.sums[-1] == pytest.approx(curve.sums[-(last // 10) :].mean(0))


def test_falling_levels_pool_what_violates_the_order() -> None:
    fit, sizes = falling_levels(np.array([5.0, 3.0, 4.0, 1.0, 1.0, 2.0]))
    assert fit.tolist() == pytest.approx([5, 3.5, 3.5, 4 / 3, 4 / 3, 4 / 3])
    assert sizes == [1, 2, 3]


def test_whitening_equals_the_inverse_cholesky_factor() -> None:
    rows = np.random.default_rng(0).standard_normal((12, 3))
    correlation = 0.6
    lags = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    expected = np.linalg.solve(np.linalg.cholesky(correlation**lags), rows)
    np.testing.assert_allclose(whiten(rows, correlation), expected, atol=1e-12)


def test_slope_weights_equal_a_least_squares_fit() -> None:
    steps = np.array([0.0, 10, 20, 50, 60, 90, 100])
    values = np.random.default_rng(0).standard_normal(7)
    weights = slope_weights(steps)
    assert weights[1] @ values == pytest.approx(np.polyfit(steps[2:], values[2:], 1)[0])
    assert not weights[len(steps) - MIN_AFTER :].any()


def test_correlated_jitter_is_recognised_when_the_curve_is_long() -> None:
    def expected_correlation(true: float) -> float:
        series = [0.1 * jitter_series(np.random.default_rng(seed), 300, true) for seed in range(10)]
        chances = [jitter_posterior(values, trend_design(values, 0))[0].sum(1) for values in series]
        return float(np.mean(chances, axis=0) @ CORRELATIONS)

    assert expected_correlation(0.0) < 0.1
    assert expected_correlation(0.6) == pytest.approx(0.6, abs=0.1)


def test_growing_and_shrinking_jitter_is_recognised_when_the_curve_is_long() -> None:
    def expected_growth(end: float) -> float:
        size = (end / 0.1) ** np.linspace(0, 1, 200)
        series = [0.1 * size * jitter_series(np.random.default_rng(seed), 200, 0.3) for seed in range(10)]
        chances = [jitter_posterior(values, trend_design(values, 0))[0].sum(0) for values in series]
        return float(np.mean(chances, axis=0) @ GROWTHS)

    assert expected_growth(0.1) == pytest.approx(0, abs=0.3)
    assert expected_growth(0.4) == pytest.approx(np.log(4), abs=0.3)
    assert expected_growth(0.025) == pytest.approx(-np.log(4), abs=0.3)


def test_the_likelihood_of_the_jitter_equals_that_of_its_covariance() -> None:
    values = np.random.default_rng(0).standard_normal(12)
    design = trend_design(values, 4)
    logs = np.zeros((len(CORRELATIONS), len(GROWTHS)))
    free = design.shape[0] - design.shape[1]
    lags = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    for row, correlation in enumerate(CORRELATIONS):
        for column, growth in enumerate(GROWTHS):
            size = np.exp(growth * np.linspace(-0.5, 0.5, 12))
            inverse = np.linalg.inv(np.outer(size, size) * correlation**lags)
            inner = design.T @ inverse @ design
            fit = design @ np.linalg.solve(inner, design.T @ inverse @ values)
            squares = (values - fit) @ inverse @ (values - fit)
            logs[row, column] = (
                np.linalg.slogdet(inverse)[1] - np.linalg.slogdet(inner)[1] - free * np.log(squares)
            ) / 2
    expected = np.exp(logs - logs.max()) * np.outer(1 - CORRELATIONS, [1, 2, 3, 2, 1])
    np.testing.assert_allclose(jitter_posterior(values, design)[0], expected / expected.sum(), atol=1e-10)


def test_the_last_step_may_rise_no_more_than_another_after_the_change_point() -> None:
    curves = np.array([[9.0, 1, 2, 4, 3, 9], [9, 1, 2, 4, 3, 4], [5, 4, 8, 7, 6, 9]])
    held = capped(curves, np.array([0, 0, 2]))
    assert held.tolist() == [[9, 1, 2, 4, 3, 5], [9, 1, 2, 4, 3, 4], [5, 4, 8, 7, 6, 6]]


def test_redrawn_prompts_move_the_mean_by_its_standard_error() -> None:
    curve = simulate(shape_of("flat", 4, 0), 0, prompts=64)
    curve = replace(curve, tokens=np.full_like(curve.tokens, 32))
    drawn = redraw_prompts(curve, np.ones(64, dtype=bool), keyed_generator("redraw"))
    expected = (curve.sums[0] / 32).std(ddof=1) / 8
    assert drawn[:, 0].std() == pytest.approx(expected, rel=0.1)


def test_smoothing_averages_three_and_two_at_the_ends() -> None:
    assert smooth(np.array([1.0, 2.0, 6.0, 4.0])).tolist() == [1.5, 3.0, 4.0, 5.0]
