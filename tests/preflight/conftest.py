"""The zygote of the adapter tests: a training of twenty steps takes a third of a second."""

from tests.adapters.conftest import train, zygote

__all__ = ["train", "zygote"]
