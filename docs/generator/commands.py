"""The reference page of the command line, from click's own description of the commands."""

from __future__ import annotations

from collections.abc import Iterator

import click

from docs.generator.markdown import code, prose, table, text, value
from feedrank.api.cli import main

INTRO = """# Command line

All commands take `--home` and `--config` before their name: `feedrank --home var/shop train`.
`feedrank COMMAND --help` prints the same text as this page.
"""


def commands(
    command: click.Command = main, path: tuple[str, ...] = ("feedrank",)
) -> Iterator[tuple[str, click.Command]]:
    """Yield (full name, command) for a command and all commands below it."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None, f"click lists {name} and has no such command"
            yield from commands(below, (*path, name))


def page() -> str:
    """Return the page: each command with its help, arguments and options."""
    return "\n".join([INTRO, *(_section(name, command) for name, command in commands())])


def _section(name: str, command: click.Command) -> str:
    # click caches a command's help option at its first use, so the context needs the names that the group gives it
    context = click.Context(command, info_name=name, **main.context_settings)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    if command.name and name.split()[-1] not in (command.name, "feedrank"):
        return f"## {name}\n\nAn alias of {code(f'feedrank {command.name}')}.\n"
    parts = [f"## {name}\n", prose(command.help or ""), f"\n```text\n{usage}\n```\n"]
    if isinstance(command, click.Group):
        below = command.list_commands(click.Context(command))
        parts.append(f"Commands: {', '.join(code(name) for name in below)}.\n")
    rows = [_option(option) for option in command.params if isinstance(option, click.Option) and not option.hidden]
    parts.append(table(("option", "type", "default", "meaning"), rows))
    return "\n".join(part for part in parts if part) + "\n"


def _option(option: click.Option) -> tuple[str, str, str, str]:
    names = ", ".join(code(name) for name in (*option.opts, *option.secondary_opts))
    meaning = text(option.help or "")
    if option.multiple:
        meaning += "" if "epeatable" in meaning else " Repeatable."
    if option.envvar:
        meaning += f" Environment variable: {code(option.envvar)}."
    if option.required:
        meaning += " Required."
    return names, _type(option), _default(option), meaning


def _type(option: click.Option) -> str:
    if option.is_flag:
        return "flag"
    kind = option.type
    if isinstance(kind, click.Choice):
        return ", ".join(code(choice) for choice in kind.choices)
    bounds = kind._describe_range() if isinstance(kind, click.IntRange | click.FloatRange) else ""
    name = {"integer range": "integer", "float range": "number", "float": "number"}.get(kind.name, kind.name)
    return f"{name}, {code(bounds)}" if bounds else name


def _default(option: click.Option) -> str:
    """Return the default if the help shows it; other defaults are explained by the help text."""
    if option.is_flag or not option.show_default or option.default is None or callable(option.default):
        return ""
    return code(option.default) if not isinstance(option.default, float) else value(option.default)
