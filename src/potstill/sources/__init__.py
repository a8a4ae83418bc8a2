"""Sources: which rows feed which step. `Source` is what all of them can do."""

from potstill.sources.base import Planned, Source
from potstill.sources.catalog import Catalog
from potstill.sources.mixture import MixtureSource, ReplayRule

__all__ = ["Catalog", "MixtureSource", "Planned", "ReplayRule", "Source"]
