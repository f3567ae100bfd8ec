"""Kill a study with SIGKILL at random moments, go on with it, and compare all of its cells.

Run: ``python benchmarks/kill_study.py --kills 10``

The study has two arms and two seeds of a small MS-DETR on generated shapes (dropout, three epochs
with an evaluation after each) and runs two cells at a time. Every second kill hits
``msdetr study run`` alone, whose cells must notice it; the others hit all of its processes at once.
After each, the same command goes on at a random moment, until the study is finished; then the
metrics, the detections and the weights are compared with those of a study that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

TINY = Path(__file__).parents[1] / "tests" / "tiny.yaml"
FIELDS = {
    **yaml.safe_load(TINY.read_text()),
    "model.dropout": 0.1,
    "data.shapes": {"num_train": 8, "num_val": 4},
    "train.schedule": "step",
    "train.lr": 5e-4,
    "train.epochs": 3,
}
# Parts of the names of values that tell how fast the machine was.
TIMING = ("images_per_second", "memory_mib", "cost")


def write_study(folder: Path, fields: Mapping[str, Any], seeds: Sequence[int] = (1, 2)) -> Path:
    """Write a study of one-to-one against mixed supervision.

    Args:
        folder: Where to write it.
        fields: Fields of shapes_tiny to change in both arms, by dotted key.
        seeds: Its seeds.
    """
    arms = {"one_to_one": "shapes_tiny_baseline", "mixed": "shapes_tiny"}
    design = {
        "baseline": "one_to_one",
        "arms": {name: {"recipe": recipe, "set": dict(fields)} for name, recipe in arms.items()},
        "vary": ["model.placement", "model.extra_ffn", "supervision"],
        "seeds": list(seeds),
    }
    file = folder / "study.yaml"
    file.write_text(json.dumps(design, indent=2))  # YAML as well, and without anchors
    return file


def start(file: Path, output: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start or go on with a study, in a process group of its own."""
    command = [sys.executable, "-m", "msdetr.cli", "study", "run", str(file)]
    options = ["--output", str(output), "--device", "cpu", "--workers", "2"]
    with log.open("ab") as said:
        return subprocess.Popen(
            [*command, *options], stdout=said, stderr=said, start_new_session=True
        )


def digest_cells(output: Path) -> dict[str, str]:
    """Digest what every cell learned: rows of metrics, detections, weights, by name."""
    content: dict[str, str] = {}
    for cell in sorted(output.glob("cells/*/*")):
        rows = map(json.loads, (cell / "metrics.jsonl").read_text().splitlines())
        kept = [{key: value for key, value in row.items() if key not in TIMING} for row in rows]
        files = {
            "metrics.jsonl": json.dumps(kept).encode(),
            "predictions.json": (cell / "evaluation" / "predictions.json").read_bytes(),
            "weights": (cell / "checkpoints" / "last" / "model.safetensors").read_bytes(),
        }
        name = f"{cell.parent.name}/{cell.name}"
        content |= {f"{name}/{key}": sha256(value).hexdigest() for key, value in files.items()}
    return content


def kill(process: subprocess.Popen[bytes], *, alone: bool) -> bool:
    """Kill a study that runs; False if it had ended before."""
    if process.poll() is not None:
        return False
    if alone:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def disturb(
    file: Path, output: Path, chance: random.Random, max_kills: int, seconds: float
) -> list[str]:
    """Run a study, killing it at random moments, until it is finished.

    Args:
        file: Its design.
        output: Its folder.
        chance: Source of the moments.
        max_kills: Kills after which it is left alone.
        seconds: Latest moment of a kill, after each start.

    Returns:
        What was killed when.

    Raises:
        RuntimeError: It could not be gone on with.
    """
    log = output.with_suffix(".log")
    kills: list[str] = []
    while True:
        process = start(file, output, log)
        if len(kills) < max_kills:
            moment, alone = chance.uniform(0.0, seconds), len(kills) % 2 == 1
            time.sleep(moment)
            if kill(process, alone=alone):
                kills.append(f"{'run' if alone else 'all'} after {moment:.1f} s")
                continue
        if process.wait() != 0:
            raise RuntimeError(log.read_text())
        return kills


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill as often as asked and print a line for each study; 1 if any ended differently."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=10, help="number of kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = parser.parse_args(arguments)
    chance = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        file = write_study(root, FIELDS)
        began = time.perf_counter()
        disturb(file, root / "undisturbed", chance, 0, 0.0)
        seconds = time.perf_counter() - began
        expected = digest_cells(root / "undisturbed")
        print(f"undisturbed: {seconds:.0f} s")
        done, differ, number = 0, 0, 0
        while done < chosen.kills:
            output = root / f"trial{number}"
            kills = disturb(file, output, chance, chosen.kills - done, 0.7 * seconds)
            found = digest_cells(output)
            odd = [key for key in expected if found.get(key) != expected[key]]
            verdict = f"DIFFERS: {', '.join(odd)}" if odd else "the same cells"
            print(f"{verdict}; killed {', '.join(kills) or 'never'}", flush=True)
            done, differ, number = done + len(kills), differ + bool(odd), number + 1
    print(f"{done} kills, {number - differ} of {number} studies ended in the same bits")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
