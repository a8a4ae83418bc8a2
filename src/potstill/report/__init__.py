"""One HTML page that says what a run came to.

`figures.py` draws, `numbers.py` puts intervals on what is drawn, `sections.py`
makes the parts of the page, `page.py` gathers the pieces of a run directory and
writes `report.html`. Nothing here
needs torch or a network, neither to write the page nor to read it.
"""

from potstill.report.page import write_report

__all__ = ["write_report"]
