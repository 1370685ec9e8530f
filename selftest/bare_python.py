"""Runs a program as the Python of an environment would that has torch and timm, and nothing of what
else the suite needs."""

import runpy
import sys
from importlib.machinery import PathFinder

MISSING = {"pytest", "_pytest", "pytest_benchmark", "scipy", "matplotlib", "jinja2", "hypothesis"}


class Rest:
    """Finds what is installed but them."""

    find_distributions = PathFinder.find_distributions

    @staticmethod
    def find_spec(name, path=None, target=None):
        """The module's place; None for one that is missing."""
        if name.partition(".")[0] in MISSING:
            return None
        return PathFinder.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Rest
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
