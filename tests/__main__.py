"""Run pytest in a process that ends as the ``ichtune`` command does: ``python -m tests``, with pytest's arguments."""

import sys

import pytest

from ichtune.cli.ending import end_with

if __name__ == "__main__":
    end_with(lambda: pytest.main(sys.argv[1:]))
