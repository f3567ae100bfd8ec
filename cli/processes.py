"""``--processes``: a command that several processes carry out, started by itself."""

from __future__ import annotations

import typer

from msdetr.launched import is_launched


def run_in_processes(context: typer.Context, processes: str | None, device: str) -> bool:
    """Run the command of a context again by several processes, if they are asked for.

    Args:
        context: Of the command; its object is what followed ``msdetr``.
        processes: A number, "auto" or None.
        device: Where the processes will work.

    Returns:
        Whether that was done. If not, this process is to carry the command out itself: one is
        asked for, or this is one of those that were started.
    """
    if processes is None or is_launched():
        return False
    from msdetr.api.launch import count_processes, launch_command

    number = count_processes(processes, device=device)
    if number == 1:
        return False
    code = launch_command(context.obj, processes=number)
    if code:
        raise typer.Exit(code)
    return True
