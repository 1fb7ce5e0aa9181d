from tests.cli.conftest import start

__all__ = ["start"]
