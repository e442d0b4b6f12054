"""Progress of long calls: what the library says, and the tqdm bar that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]


@dataclass(frozen=True)
class Progress:
    """Where a long call stands.

    Attributes:
        stage: "calibrate", "fuse", "eval", ...
        stage_index: of the stage, from 1.
        stage_count: how many stages there are.
        done: units that are done in this stage.
        total: units in all; 0 where that is not known beforehand.
        unit: what is counted: "weights", "examples", "tokens".
    """

    stage: str
    stage_index: int
    stage_count: int
    done: int
    total: int
    unit: str


class Bar:
    """One tqdm bar for each stage and unit. always: also where stderr is no terminal."""

    def __init__(self, always: bool) -> None:
        self._disable = False if always else None  # None: tqdm looks whether stderr is a terminal
        self._bar: Optional[Any] = None
        self._of: tuple[int, str, str] = (0, "", "")

    def report(self, news: Progress) -> None:
        of = (news.stage_index, news.stage, news.unit)
        if self._bar is None or of != self._of:
            self.close()
            self._of = of
            self._bar = tqdm(desc=f"{news.stage_index}/{news.stage_count} {news.stage}",
                             unit=" " + news.unit, unit_scale=True, disable=self._disable)
        if self._bar.total != (news.total or None):
            self._bar.total = news.total or None
        if news.done >= self._bar.n:
            self._bar.update(news.done - self._bar.n)
        else:  # a part of the stage that counts again
            self._bar.reset(news.total or None)
            self._bar.update(news.done)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
