"""Where a moment stands in the calendar: day of the year, hour, weekday (UTC)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CalendarEmbedding", "calendar"]

DAY, HOUR = 86_400, 3_600
# Numbers of days of the year, hours and weekdays.
SIZES = (366, 24, 7)
# Days in 400 years, after which the calendar repeats, and from 0000-03-01 to 1970-01-01.
_ERA, _EPOCH = 146_097, 719_468


def calendar(seconds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Day of the year, hour and weekday of Unix times, exact in leap years too.

    Years are counted from March, so that the leap day is the last one, and in eras of 400 years
    (the days-to-civil rule of the proleptic Gregorian calendar, as in C++20's ``<chrono>``).

    Args:
        seconds: int64 Unix seconds, any shape; UTC, below 0 too.

    Returns:
        int64 of the same shape: day of the year 0..365 (1 January is 0), hour 0..23, weekday 0..6
        (Monday is 0).

    Raises:
        TypeError: If ``seconds`` is not int64: a time in float32 has lost its minutes.
    """
    if seconds.dtype != torch.int64:
        raise TypeError(f"'seconds' needs to be int64 (got {seconds.dtype})")
    days = seconds.div(DAY, rounding_mode="floor")
    day = (days + _EPOCH).remainder(_ERA)  # within its era, from 0 = 1 March
    # Leap days before it: one in 4 years, none in 100, and one at the end of the era.
    leap = day // 1460 - day // 36_524 + day // 146_096
    year = (day - leap) // 365
    day = day - (365 * year + year // 4 - year // 100)  # from 1 March, 0..365
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year == 0))
    # January and February end the year that is counted from March.
    of_year = torch.where(day >= 306, day - 306, day + 59 + is_leap)
    hour = seconds.remainder(DAY) // HOUR
    return of_year, hour, (days + 3).remainder(7)  # 1970-01-01 was a Thursday


class CalendarEmbedding(nn.Module):
    """The sum of a learned vector per day of the year, hour and weekday.

    Args:
        channels: D.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tables = nn.ParameterList(
            nn.Parameter(torch.empty(size, channels).normal_(std=0.02)) for size in SIZES
        )

    def forward(self, seconds: Tensor, known: Tensor) -> Tensor:
        """``[..., D]``, zeros where the time is not known.

        Args:
            seconds: ``[...]`` int64 Unix seconds.
            known: ``[...]`` bool.
        """
        vectors = [
            nn.functional.embedding(code, table)
            for code, table in zip(calendar(seconds), self.tables, strict=True)
        ]
        return (vectors[0] + vectors[1] + vectors[2]) * known.unsqueeze(-1)
