"""The token that a Ray cluster asks for: whether there is one, writing one, and letting Ray see which one counts."""

import os
import secrets
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def named_token() -> bool:
    """Say whether the environment names a token."""
    return bool(os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH))


def has_token() -> bool:
    """Say whether there is a token: named in the environment, or where Ray keeps the user's."""
    return bool(os.environ.get(TOKEN) or token_file())


def token_file() -> str:
    """Return the file with the token that counts: the one that the environment names, or Ray's own of this user.

    Empty where the token itself stands in the environment, or there is none.
    """
    if os.environ.get(TOKEN):
        return ""
    users = Path.home() / ".ray" / "auth_token"
    return os.environ.get(TOKEN_PATH) or (str(users) if users.is_file() else "")


def write_token(path: Path) -> None:
    """Write a new random token that only its owner can read; one that is there is kept, and closed to others."""
    if path.is_file() and path.stat().st_size:
        path.chmod(0o600)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))


def use_token(path: Path) -> None:
    """Let this process, and what it starts, show the token in a file."""
    os.environ.pop(TOKEN, None)
    os.environ.update({MODE: "token", TOKEN_PATH: str(path)})
    read_settings_again()


def read_settings_again() -> None:
    """Let Ray read its variables: it does so when it is imported, and keeps the first token that it sees."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
