"""Where rows come from: files of any usual format and databases, as typed chunks.

`open_sources` finds them; `RowSource.chunks` reads them once, hashes them on the way and sets bad rows aside.
"""

from mizzen.data.sources.opening import open_sources
from mizzen.data.sources.rows import CHUNK_ROWS, BadRow, Origin, RowSource
from mizzen.data.sources.types import check_contract, name_of

__all__ = [
    "CHUNK_ROWS",
    "BadRow",
    "Origin",
    "RowSource",
    "check_contract",
    "name_of",
    "open_sources",
]
