"""``python -m ichtune`` is ``ichtune``."""

from ichtune.cli.main import run

if __name__ == "__main__":
    run()
