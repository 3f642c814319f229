"""Numbers as texts, the same in tables, plots and pages."""

import math


def percent(value: float | None, digits: int = 1) -> str:
  """0.9731 as '97.3'; '' for None and NaN."""
  return '' if value is None or math.isnan(value) else f'{100 * value:.{digits}f}'


def significant(value: float | None) -> str:
  """Three digits: 7.6912 as '7.69', 12345.6 as '12,346'; '' for None."""
  if value is None:
    return ''
  return f'{value:,.0f}' if value >= 999.5 else f'{value:.3g}'


def counted(number: int, noun: str) -> str:
  """'1 round', '1,000 rounds'."""
  return f'{number:,} {noun}' + ('' if number == 1 else 's')
