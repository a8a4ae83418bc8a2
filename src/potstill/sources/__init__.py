"""Sources: which rows feed which step. `Source` is what all of them can do."""

from potstill.sources.base import Source
from potstill.sources.offline import OfflineSource

__all__ = ["OfflineSource", "Source"]
