"""Write the reference pages to docs/reference: `python -m docs.generator`."""

from __future__ import annotations

from pathlib import Path

from docs.generator import commands, event_parts, metrics, python_api, routes, settings

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
NOTE = "<!-- Made by `python -m docs.generator` from the code; edit the code, not this page. -->\n\n"


def pages() -> dict[str, str]:
    """Return file name -> content of every generated page."""
    made = {
        "cli.md": commands.page(),
        "config.md": settings.config_page(),
        "features.md": settings.features_page(),
        "events.md": event_parts.events_page(),
        "tables.md": event_parts.tables_page(),
        "http.md": routes.page(),
        "metrics.md": metrics.page(),
        "python.md": python_api.page(),
    }
    return {
        name: NOTE + "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n"
        for name, text in made.items()
    }


def main() -> None:
    """Write the pages that changed and print their names."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = REFERENCE / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
