"""`python -m fuzz`: search every target for a while, print what is found, and how to see it again.

Run it in the directory `tests`, or with that on PYTHONPATH. Exits with 1 if something was found.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import click
from fuzz.campaign import Finding, search
from fuzz.targets import TARGETS
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

TESTS = Path(__file__).parents[1]
FOLDER = TESTS.parent / "build" / "fuzz"
_SHOWN_CHARS = 1000
_SHOWN_LINES = 40


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=300.0, show_default=True, help="For each target.")
@click.option("--target", "names", type=click.Choice(list(TARGETS)), multiple=True, help="Only this; may be repeated.")
@click.option("--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Check this one input.")
@click.pass_context
def main(ctx: click.Context, seconds: float, names: tuple[str, ...], replay: Path | None) -> None:
    """Search for inputs that streamworker cannot take."""
    if replay is not None:
        _replay(names, replay)
        return
    console = Console()
    findings = [_search(console, name, seconds) for name in names or TARGETS]
    ctx.exit(1 if any(findings) else 0)


def _replay(names: tuple[str, ...], file: Path) -> None:
    if len(names) != 1:
        raise click.UsageError("--replay needs the one --target that the input is for")
    TARGETS[names[0]].check(ast.literal_eval(file.read_text(encoding="utf-8")))
    click.echo(f"{names[0]}: nothing wrong with {file}")


def _search(console: Console, name: str, seconds: float) -> bool:
    """Search one target and say what came of it; true if there is a finding."""
    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[inputs]:>9} inputs"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=seconds, inputs=0)
        outcome = search(
            name,
            seconds,
            FOLDER,
            lambda inputs: progress.update(task, completed=progress.tasks[task].elapsed or 0.0, inputs=inputs),
        )
    verdict = "a finding" if outcome.finding else "nothing found"
    console.print(f"{name:16} {seconds:5.0f} s {outcome.examples:9} inputs  {verdict}", highlight=False)
    if outcome.finding:
        _show(console, name, outcome.finding)
    return outcome.finding is not None


def _show(console: Console, name: str, finding: Finding) -> None:
    case = finding.case_file.read_text(encoding="utf-8")
    more = f"… ({len(case)} characters)" if len(case) > _SHOWN_CHARS else ""
    what = "\n".join(finding.what.splitlines()[-_SHOWN_LINES:])
    replay = f"PYTHONPATH={TESTS} {sys.executable} -m fuzz --target {name} --replay {finding.case_file}"
    for line in (f"\n{what}\n", f"  input:  {case[:_SHOWN_CHARS]}{more}", f"  replay: {replay}\n"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
