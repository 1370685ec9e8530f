"""Makes an Ascend host out of files: a tree of devices and versions, and an npu-smi that answers.

The answers are recorded outputs (selftest/data/npu_smi) under the arguments that ask for them.
"""

from __future__ import annotations

import os
from pathlib import Path

from fixtures.core.npu_smi import Tool, ToolAnswer, tool_failure

DATA = Path(__file__).resolve().parent / "data"


def sample(name: str) -> str:
    """A recorded output of npu-smi."""
    return (DATA / "npu_smi" / f"{name}.txt").read_text()


def answers(npu_id: int = 0, chip_id: int = 0, **changed: str) -> dict[str, str]:
    """What a healthy card answers, by arguments; `changed` replaces texts by the kind of query."""
    texts = {
        "info": sample("info-24.1.rc3"),
        "m": sample("m-910b3"),
        "health": sample("t-health-ok"),
        "ecc": sample("t-ecc"),
        "board": sample("t-board"),
        "chip": sample("t-board-chip"),
        "v": "npu-smi version: 24.1.rc3\n",
    } | changed
    card, chip = f"-i {npu_id}", f"-i {npu_id} -c {chip_id}"
    asked = {
        "-v": texts.pop("v"),
        "info": texts.pop("info"),
        "info -m": texts.pop("m"),
        f"info -t board {card}": texts.pop("board"),
        f"info -t board {chip}": texts.pop("chip"),
    }
    return asked | {f"info -t {kind} {chip}": text for kind, text in texts.items()}


def tool(texts: dict[str, str]) -> Tool:
    """npu-smi as a table of answers, without a process."""

    def ask(command, timeout=0.0):
        text = texts.get(" ".join(command[1:]), sample("bad-id"))
        return ToolAnswer(True, text, 0, tool_failure(text))

    return Tool(ask)


def install(folder: Path, texts: dict[str, str]) -> Path:
    """An executable npu-smi in `folder` that prints these texts and always exits 0."""
    folder.mkdir(parents=True, exist_ok=True)
    script = ["#!/bin/sh", 'case "$*" in']
    for number, (arguments, text) in enumerate(texts.items()):
        (folder / f"answer{number}").write_text(text)
        script.append(f'"{arguments}") /bin/cat "{folder}/answer{number}";;')
    (folder / "unknown").write_text(sample("bad-id"))
    script += [f'*) /bin/cat "{folder}/unknown";;', "esac"]
    path = folder / "npu-smi"
    path.write_text("\n".join(script) + "\n")
    path.chmod(0o755)
    return path


def tree(
    root: Path,
    nodes: tuple[str, ...] = ("davinci0",),
    pci: tuple[tuple[str, str, str], ...] = (("0x19e5", "0xd802", "0x120000"),),
    toolkit: str | None = None,
) -> Path:
    """/dev, /sys and /usr/local/Ascend under `root`; `pci` is (vendor, device, class)."""
    (root / "dev").mkdir(parents=True)
    for node in nodes:
        (root / "dev" / node).touch()
    for slot, values in enumerate(pci):
        function = root / f"sys/bus/pci/devices/0000:c{slot + 1}:00.0"
        function.mkdir(parents=True)
        for name, value in zip(("vendor", "device", "class"), values, strict=True):
            (function / name).write_text(value + "\n")
    ascend = root / "usr/local/Ascend"
    for package, name in (("driver", "driver-23.0.7"), ("firmware", "firmware-7.1.0.11.220")):
        (ascend / package).mkdir(parents=True)
        text = (DATA / "versions" / f"{name}.info").read_text()
        (ascend / package / "version.info").write_text(text)
    if toolkit is not None:
        place = ascend / "cann" / "aarch64-linux"
        place.mkdir(parents=True)
        (place / "ascend_toolkit_install.info").write_text(
            f"package_name=Ascend-cann-toolkit\nversion={toolkit}\narch=aarch64\n"
        )
        (ascend / "cann" / "set_env.sh").touch()
    return root


def without(*prefixes: str) -> dict[str, str]:
    """This process's variables, less those that begin so."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
