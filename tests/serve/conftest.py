from tests.cli.conftest import built_demo, demo_registry, start

__all__ = ["built_demo", "demo_registry", "start"]
