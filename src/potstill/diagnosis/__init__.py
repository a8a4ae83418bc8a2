"""From curves to a verdict: hacking, overfitting, still improving, healthy, or inconclusive."""

from potstill.diagnosis.choice import choose_step, step_to_keep
from potstill.diagnosis.readers import read_curves
from potstill.diagnosis.remedies import remedies
from potstill.diagnosis.verdict import diagnose, judge

__all__ = ["choose_step", "diagnose", "judge", "read_curves", "remedies", "step_to_keep"]
