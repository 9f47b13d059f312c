"""The five invented charts, one module each, and how a patient is found among them."""

import re

from chartwire.networks.sandbox.charts.andreas import ANDREAS
from chartwire.networks.sandbox.charts.chris import CHRIS
from chartwire.networks.sandbox.charts.jane import JANE
from chartwire.networks.sandbox.charts.kyla import KYLA
from chartwire.networks.sandbox.charts.ollie import OLLIE
from chartwire.networks.sandbox.records import Chart

CHARTS = (JANE, CHRIS, OLLIE, KYLA, ANDREAS)
_BY_KEY = {chart.key: chart for chart in CHARTS}


def find_chart(first_name: str) -> Chart | None:
    """The chart whose first name is one of `first_name`, which may list several (contract.md §2.3, §6)."""
    names = (name.casefold() for name in re.split(r"[,\s]+", first_name))
    return next((_BY_KEY[name] for name in names if name in _BY_KEY), None)


def chart_of(key: str) -> Chart | None:
    """The chart with that key."""
    return _BY_KEY.get(key)
