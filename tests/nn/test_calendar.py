"""The calendar against datetime, over all years that datetime knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tgrec.nn.calendar import CalendarEmbedding, calendar

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))


def seconds_of(moment: datetime) -> int:
    return (moment.replace(tzinfo=UTC, microsecond=0) - EPOCH) // timedelta(seconds=1)


def expected(moment: datetime) -> tuple[int, int, int]:
    return moment.timetuple().tm_yday - 1, moment.hour, moment.weekday()


@given(st.lists(MOMENTS, min_size=1, max_size=50))
def test_the_calendar_is_that_of_datetime(moments: list[datetime]) -> None:
    found = calendar(torch.tensor([seconds_of(m) for m in moments]))
    assert list(zip(*(x.tolist() for x in found), strict=True)) == [expected(m) for m in moments]


@pytest.mark.parametrize("year", [1900, 1999, 2000, 2001, 2004, 2100])
def test_every_day_of_leap_years_and_others(year: int) -> None:
    start = datetime(year, 1, 1, tzinfo=UTC)
    days = (datetime(year + 1, 1, 1, tzinfo=UTC) - start).days
    day, hour, _ = calendar(seconds_of(start) + 86_400 * torch.arange(days) + 86_399)
    assert day.tolist() == list(range(days))  # the seed's clock was eight days off in 2000
    assert (hour == 23).all()


def test_times_need_all_their_seconds() -> None:
    with pytest.raises(TypeError, match="'seconds' needs to be int64"):
        calendar(torch.tensor([1e9]))


def test_an_unknown_time_says_nothing() -> None:
    embed = CalendarEmbedding(4)
    out = embed(torch.tensor([[0, 86_400]]), torch.tensor([[True, False]]))
    assert out.shape == (1, 2, 4)
    assert out[0, 0].any()
    assert not out[0, 1].any()
