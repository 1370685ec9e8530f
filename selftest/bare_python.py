"""Runs a program as the Python of an environment would that has torch and timm, and nothing of what
else the suite needs."""

import runpy
import sys

MISSING = {"pytest", "_pytest", "pytest_benchmark", "scipy", "matplotlib", "jinja2", "hypothesis"}


class Missing:
    """Finds none of them."""

    def find_spec(self, name, path=None, target=None):
        """Refuse a module as if it were not installed."""
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
