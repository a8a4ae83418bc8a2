"""HTML pages that say what a run came to, or several runs side by side.

`reading.py` reads a run directory, `numbers.py` puts intervals on what is drawn,
`drawing.py` holds what figures share, `figures.py` draws them, `panels.py` puts
words around them, `sections.py` makes tables and samples, `page.py` writes
`report.html`. `alarms.py` reads what was done about an alarm, `since_alarm.py`
measures what followed, `alarm_words.py` says it, `marks.py` shows where.
`overlays.py`, `across.py` and `comparison.py` do the same for several runs;
`template.py` fills the HTML. Nothing here needs torch or a network, neither to
write a page nor to read it.
"""

from potstill.report.comparison import write_comparison
from potstill.report.page import write_report

__all__ = ["write_comparison", "write_report"]
