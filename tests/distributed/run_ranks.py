"""Runs command lines of msdetr, each on several processes, from one import of the package.

A script: its argument is a JSON list of jobs, ``{"processes": 2, "arguments": [...]}``, which run
one after the other. The processes get what torchrun would give them. Prints a JSON list: for each
job the exit code of every process.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from typing import Any

import torch
from accelerate import Accelerator  # noqa: F401 - imported once, before the processes divide

import msdetr.api.train  # noqa: F401


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def start(rank: int, count: int, port: int, arguments: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    if count > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in {**ranks, **place}.items()})
    code = 1
    try:
        code = importlib.import_module("msdetr.cli.main").main(arguments)
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def run(job: dict[str, Any]) -> list[int]:
    count, port = job["processes"], free_port()
    pids = [start(rank, count, port, job["arguments"]) for rank in range(count)]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    torch.set_num_threads(1)
    codes = [run(job) for job in json.loads(sys.argv[1])]
    sys.stdout.write("\n" + json.dumps(codes))
