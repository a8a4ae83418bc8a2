"""From curves to a verdict: hacking, overfitting, still improving, healthy, or inconclusive."""

from potstill.diagnosis.choice import choose_step, step_to_keep
from potstill.diagnosis.readers import read_curves
from potstill.diagnosis.remedies import remedies
from potstill.diagnosis.verdict import MAX_LOOKS, diagnose, judge

__all__ = ["MAX_LOOKS", "choose_step", "diagnose", "judge", "read_curves", "remedies", "step_to_keep"]
