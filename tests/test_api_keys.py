"""API keys: scopes, what is stored, and what other processes see of a change."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import timeit
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import PROJECT
from hypothesis import given
from hypothesis import strategies as st

from feedrank.api.cli.keys import keys as command
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.api.keys import SCOPES, ApiKey, ApiKeys, KeysError

NOW = 1_700_000_000_000
DAY = 86_400_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a keys file that does not exist yet, nor does its folder."""
    return tmp_path / "home" / "keys.json"


# --- tokens


def test_a_token_is_its_key_here_and_in_another_process(path: Path) -> None:
    keys = ApiKeys(path)
    key, token = keys.create("web", ["write", "read", "read"], NOW)
    assert (key.name, key.scopes, key.created, key.expires) == ("web", ("read", "write"), NOW, None)
    assert len(token) == len("frk_") + 8 + 1 + 43
    assert token.startswith(f"frk_{key.id}_")
    assert keys.authenticate(token, NOW) == ApiKeys(path).authenticate(token, NOW) == key
    assert keys.all() == ApiKeys(path).all() == (key,)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=100),
            st.sets(st.sampled_from(SCOPES), min_size=1),
            st.none() | st.integers(1, 10**12),
        ),
        max_size=5,
    )
)
def test_created_keys_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[str, set[str], int | None]]
) -> None:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = ApiKeys(path)
    created_keys = [
        keys.create(name, scopes, NOW, None if lives is None else NOW + lives) for name, scopes, lives in wanted
    ]
    assert ApiKeys(path).all() == tuple(key for key, _ in created_keys)
    assert [set(key.scopes) for key, _ in created_keys] == [scopes for _, scopes, _ in wanted]
    for key, token in created_keys:
        assert keys.authenticate(token, NOW) == key


def test_neither_a_token_nor_its_secret_is_in_any_file_or_text(path: Path) -> None:
    key, token = ApiKeys(path).create("web", ["read"], NOW)
    secret = token.removeprefix(f"frk_{key.id}_")
    for file in path.parent.iterdir():
        assert secret not in file.read_text()
    assert secret not in repr(key)
    assert key.digest not in repr(key)


def test_a_token_is_over_at_its_end(path: Path) -> None:
    keys = ApiKeys(path)
    key, token = keys.create("web", ["read"], NOW, NOW + DAY)
    assert keys.authenticate(token, NOW + DAY - 1) == key
    assert keys.authenticate(token, NOW + DAY) is None
    assert keys.all() == (key,)


def test_a_revoked_token_stops_at_the_next_check_everywhere(path: Path) -> None:
    keys, elsewhere = ApiKeys(path), ApiKeys(path)
    kept, gone = keys.create("kept", ["read"], NOW), keys.create("gone", ["read"], NOW)
    assert elsewhere.authenticate(gone[1], NOW) == gone[0]
    assert keys.revoke(gone[0].id)
    for one in (keys, elsewhere):
        assert one.authenticate(gone[1], NOW) is None
        assert one.authenticate(kept[1], NOW) == kept[0]
    assert not keys.revoke(gone[0].id)
    assert keys.all() == (kept[0],)


def test_revoking_an_unknown_key_creates_no_folder(path: Path) -> None:
    assert not ApiKeys(path).revoke("abcdefgh")
    assert not path.parent.exists()


def test_no_token_is_valid_once_the_file_is_gone(path: Path) -> None:
    keys = ApiKeys(path)
    _, token = keys.create("web", ["read"], NOW)
    assert keys.authenticate(token, NOW)
    path.unlink()
    assert keys.authenticate(token, NOW) is None


@pytest.fixture(scope="module")
def two_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[ApiKeys, str, str]:
    """A keys file with two keys, and their tokens."""
    keys = ApiKeys(tmp_path_factory.mktemp("known") / "keys.json")
    return keys, keys.create("one", ["admin"], NOW)[1], keys.create("two", ["read"], NOW)[1]


@given(st.text(st.characters(exclude_categories=())))
def test_any_other_text_is_no_valid_token(two_keys: tuple[ApiKeys, str, str], text: str) -> None:
    keys, token, _ = two_keys
    for wrong in (text, f"frk_{text}", token[:13] + text, f"{token}{text or '='}", f"{text or ' '}{token}"):
        assert keys.authenticate(wrong, NOW) is None


@given(st.integers(0, 55), st.characters(exclude_categories=()))
def test_a_token_with_one_character_changed_is_none(
    two_keys: tuple[ApiKeys, str, str], position: int, other: str
) -> None:
    keys, token, _ = two_keys
    changed = token[:position] + other + token[position + 1 :]
    assert (keys.authenticate(changed, NOW) is not None) == (changed == token)


def test_the_secret_of_one_key_does_not_open_another(two_keys: tuple[ApiKeys, str, str]) -> None:
    keys, one, two = two_keys
    assert keys.authenticate(one[:13] + two[13:], NOW) is None
    assert keys.authenticate(f"{one}\n", NOW) is None


# --- scopes and the other fields


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (["read"], {"read"}),
        (["write"], {"write"}),
        (["write", "read"], {"read", "write"}),
        (["write", "import"], {"write", "import"}),
        (["admin"], {"read", "write", "admin", "import"}),
    ],
)
def test_scopes(path: Path, scopes: list[str], allowed: set[str]) -> None:
    key, _ = ApiKeys(path).create("web", scopes, NOW)
    assert {scope for scope in SCOPES if key.allows(scope)} == allowed


@pytest.mark.parametrize(
    ("name", "scopes", "created", "expires", "message"),
    [
        ("web", ["read", "root"], NOW, None, "'root'.*read, write, admin"),
        ("web", "read", NOW, None, "'r'"),
        ("web", [], NOW, None, "without scopes"),
        ("", ["read"], NOW, None, "name is ''.*1 to 100"),
        (" ", ["read"], NOW, None, "name is ' '"),
        ("a" * 101, ["read"], NOW, None, "name"),
        ("a\x1b[2J", ["read"], NOW, None, "printable"),
        ("\ud800", ["read"], NOW, None, "printable"),
        ("web", ["read"], -1, None, "created is -1"),
        ("web", ["read"], NOW, NOW, "expires is .* after"),
        ("web", ["read"], NOW, 10**18, "expires is"),
    ],
)
def test_an_invalid_key_is_refused(
    path: Path, name: str, scopes: list[str], created: int, expires: int | None, message: str
) -> None:
    keys = ApiKeys(path)
    with pytest.raises(ValueError, match=message):
        keys.create(name, scopes, created, expires)
    assert keys.all() == ()
    assert not path.exists()


# --- the file


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    keys = ApiKeys(path)
    key, _ = keys.create("web", ["read"], NOW)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert keys.revoke(key.id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def entry(**changed: object) -> dict[str, object]:
    """A key as stored in the file."""
    key = {"id": "abcd1234", "name": "web", "scopes": ["read"], "created": NOW, "expires": None, "digest": "0" * 64}
    return key | changed


DAMAGED = {
    "empty": "",
    "cut short": '{"keys": [{"id": "abcd1234"',
    "not text": "\udcff\udcfe",
    "too deep": '{"keys": ' + "[" * 100_000,
    "a list": "[]",
    "no keys": "{}",
    "unknown at the top": json.dumps({"keys": [], "more": 1}),
    "unknown in a key": json.dumps({"keys": [entry(secret="x")]}),
    "an id": json.dumps({"keys": [entry(id="ABC")]}),
    "an id twice": json.dumps({"keys": [entry(), entry(name="other")]}),
    "a scope": json.dumps({"keys": [entry(scopes=["root"])]}),
    "no scope": json.dumps({"keys": [entry(scopes=[])]}),
    "a time as text": json.dumps({"keys": [entry(created="2024-01-01")]}),
    "a boolean as a time": json.dumps({"keys": [entry(expires=True)]}),
    "a late time": json.dumps({"keys": [entry(expires=10**30)]}),
    "a digest": json.dumps({"keys": [entry(digest="é" * 64)]}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_keys_file_is_reported_and_never_overwritten(path: Path, text: str) -> None:
    keys = ApiKeys(path)
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    for attempt in (
        lambda: ApiKeys(path),
        keys.all,
        lambda: keys.create("web", ["read"], NOW),
        lambda: keys.revoke("abcd1234"),
    ):
        with pytest.raises(KeysError) as caught:
            attempt()
        output = str(caught.value)
        assert output.startswith(f"{path}: ")
        assert "expected" in output
        assert "feedrank keys create" in output
        assert len(output) < 500 + len(str(path))
    assert path.read_text(encoding="utf-8", errors="surrogateescape") == text


def test_a_good_file_written_by_hand_is_read(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"keys": [entry()]}))
    assert ApiKeys(path).all() == (ApiKey("abcd1234", "web", ("read",), NOW, None, "0" * 64),)


def test_a_file_damaged_meanwhile_leaves_the_keys_and_warns_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = ApiKeys(path)
    key, token = keys.create("web", ["read"], NOW)
    good = path.read_bytes()
    assert keys.authenticate(token, NOW) == key
    for number in range(3):
        path.write_bytes(good[: 20 + number])
        assert [keys.authenticate(token, NOW), keys.authenticate(token, NOW)] == [key, key]
    assert [(one.levelno, str(path) in one.getMessage()) for one in caplog.records] == [(logging.WARNING, True)]
    path.write_text('{"keys": []}')
    assert keys.authenticate(token, NOW) is None
    path.write_bytes(good)
    assert keys.authenticate(token, NOW) == key
    path.write_text("{")
    assert keys.authenticate(token, NOW) == key
    assert len(caplog.records) == 2


def test_a_file_that_can_not_be_opened_for_a_while(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = ApiKeys(path)
    key, token = keys.create("web", ["read"], NOW)
    other, later = keys.create("app", ["read"], NOW)
    assert keys.authenticate(token, NOW) == key
    assert keys.revoke(other.id)
    aside = path.rename(path.with_name("aside.json"))
    path.mkdir()  # no user can read it as a file, not even root
    assert [keys.authenticate(token, NOW), keys.authenticate(later, NOW)] == [key, other]
    assert len(caplog.records) == 1
    with pytest.raises(KeysError, match=r"can't read .*keys\.json"):
        keys.all()
    path.rmdir()
    aside.rename(path)
    assert [keys.authenticate(token, NOW), keys.authenticate(later, NOW)] == [key, None]


def test_a_process_without_a_free_file_handle_tries_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ApiKeys(path)
    key, token = keys.create("web", ["read"], NOW)
    assert keys.authenticate(token, NOW) == key
    assert ApiKeys(path).revoke(key.id)

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        assert keys.authenticate(token, NOW) == key
    assert keys.authenticate(token, NOW) is None


def test_a_file_that_did_not_change_is_not_read_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = ApiKeys(path)
    key, token = keys.create("web", ["read"], NOW)
    assert keys.authenticate(token, NOW) == key
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)  # the same inode
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert keys.authenticate(token, NOW) == key
    assert not caplog.records
    assert min(timeit.repeat(lambda: keys.authenticate(token, NOW), number=20, repeat=200)) / 20 < 20e-6


def test_changes_within_one_tick_of_the_clock_are_seen(path: Path) -> None:
    """The time of the file advances even if the clock of the disk stands still or is set back."""
    keys = ApiKeys(path)
    key, _ = keys.create("web", ["read"], NOW)
    os.utime(path, ns=(0, 2**62))
    stamps = [path.stat().st_mtime_ns]
    for _ in range(3):
        other, _ = keys.create("app", ["read"], NOW)
        stamps.append(path.stat().st_mtime_ns)
        assert keys.revoke(other.id)
        stamps.append(path.stat().st_mtime_ns)
    assert stamps == sorted(set(stamps))
    assert keys.all() == (key,)


# --- at once

CREATE = """
import sys
from pathlib import Path
from feedrank.api.keys import ApiKeys
keys = ApiKeys(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    print(keys.create(f"{sys.argv[2]}-{number}", ["read"], 1)[1])
"""


def test_processes_that_create_at_once_lose_no_key(path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, str(path), name], cwd=PROJECT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    tokens = [token for process in started for token in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in started] == [0, 0]
    keys = ApiKeys(path)
    assert {key.name for key in keys.all()} == {f"{name}-{number}" for name in ("one", "two") for number in range(20)}
    assert len(tokens) == len({key.id for key in keys.all()}) == 40
    assert all(keys.authenticate(token, NOW) for token in tokens)


def test_threads_check_while_others_create_and_revoke(path: Path) -> None:
    keys = ApiKeys(path)
    key, token = keys.create("web", ["read"], NOW)
    failures: list[object] = []
    stop = threading.Event()

    def check() -> None:
        while not stop.is_set():
            try:
                found = keys.authenticate(token, NOW)
            except Exception as problem:
                found = problem  # type: ignore[assignment]
            if found != key:
                failures.append(found)

    def change() -> None:
        for _ in range(5):
            other, another = keys.create("app", ["read"], NOW)
            if keys.authenticate(another, NOW) != other or not keys.revoke(other.id) or keys.authenticate(another, NOW):
                failures.append(other)

    checking = [threading.Thread(target=check) for _ in range(3)]
    changing = [threading.Thread(target=change) for _ in range(3)]
    for thread in checking + changing:
        thread.start()
    for thread in changing:
        thread.join()
    stop.set()
    for thread in checking:
        thread.join()
    assert not failures
    assert keys.all() == (key,)


# --- the command


def run(home: Path, *arguments: str) -> Result:
    """Run `feedrank keys` on a home that exists."""
    home.mkdir(exist_ok=True)
    return CliRunner().invoke(command, arguments, obj=(HomePaths(home), Config()), catch_exceptions=False)


def test_create_prints_the_token_once(path: Path) -> None:
    created = run(path.parent, "create", "web", "--scope", "read", "--scope", "write", "--days", "30")
    assert created.exit_code == 0
    token = created.stdout.removesuffix("\n")
    (key,) = ApiKeys(path).all()
    assert ApiKeys(path).authenticate(token, key.created) == key
    assert (key.name, key.scopes) == ("web", ("read", "write"))
    assert key.expires == key.created + 30 * DAY
    assert "not shown again" in created.stderr
    assert token not in created.stderr


def test_a_key_is_read_only_and_never_expires_by_default(path: Path) -> None:
    assert run(path.parent, "create", "web").exit_code == 0
    (key,) = ApiKeys(path).all()
    assert (key.scopes, key.expires) == (("read",), None)


def test_list_shows_keys_and_no_secrets(path: Path) -> None:
    assert "no keys" in run(path.parent, "list").stdout
    token = run(path.parent, "create", "[b]web[/b]", "--scope", "admin").stdout.strip()
    ApiKeys(path).create("old", ["read", "write"], NOW, NOW + DAY)
    output = run(path.parent, "list").stdout
    for key in ApiKeys(path).all():
        assert key.id in output
        assert key.name in output
        assert key.digest[:12] not in output
    assert token[13:] not in output
    for shown in ("admin", "read, write", "never", "2023-11-15 22:13", "expired"):
        assert shown in output


def test_revoke_removes_a_key_and_refuses_an_unknown_one(path: Path) -> None:
    token = run(path.parent, "create", "web").stdout.strip()
    (key,) = ApiKeys(path).all()
    serving = ApiKeys(path)
    assert serving.authenticate(token, key.created) == key
    assert key.id in run(path.parent, "revoke", key.id).stdout
    assert serving.authenticate(token, key.created) is None
    again = run(path.parent, "revoke", key.id)
    assert again.exit_code == 1
    assert f"there is no key '{key.id}'" in again.stderr
    assert "feedrank keys list" in again.stderr


@pytest.mark.parametrize("arguments", [("create", "web"), ("list",), ("revoke", "abcd1234")])
def test_the_command_reports_a_damaged_file_in_one_line(path: Path, arguments: tuple[str, ...]) -> None:
    path.parent.mkdir()
    path.write_text("{")
    result = run(path.parent, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {path}: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("--days", "0"), ("--days", "nan"), ("--days", "36501"), ("--scope", "root"), ("--scope", "")]
)
def test_create_refuses_options_that_make_no_sense(path: Path, arguments: tuple[str, ...]) -> None:
    assert run(path.parent, "create", "web", *arguments).exit_code == 2
    assert not path.exists()


@pytest.mark.parametrize("name", [None, *command.commands])
def test_help(name: str | None) -> None:
    assert "Usage:" in CliRunner().invoke(command, [*([name] if name else []), "--help"]).output
    if name:
        assert command.commands[name].help
