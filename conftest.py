"""The front door: names the plug-in modules, nothing else."""

# pluggy asks the last one first: options are checked before a run's folder is opened, and the
# folder is there before devices and networks are, and these before they are compared.
pytest_plugins = [
    "fixtures.processes",
    "fixtures.comparing",
    "fixtures.bounding",
    "fixtures.timing",
    "fixtures.power",
    "fixtures.judging",
    "fixtures.models",
    "fixtures.afterwards",
    "fixtures.devices",
    "fixtures.recording",
    "fixtures.options",
]
