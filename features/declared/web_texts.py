"""What web servers log about a visitor, in few words: user agents and referers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

SEARCH_ENGINES = ("google", "bing", "duckduckgo", "yahoo", "yandex", "baidu", "ecosia", "qwant", "naver", "startpage")
SOCIAL_NETWORKS = (
    "facebook", "instagram", "twitter", "x", "t", "linkedin", "reddit", "pinterest", "tiktok", "youtube", "vk",
    "weibo", "mastodon", "bsky", "whatsapp", "telegram", "snapchat", "quora", "tumblr", "news.ycombinator",
)  # fmt: skip
MAIL_HOSTS = ("mail.", "outlook.", "webmail.")


def platform(text: str) -> str:
    """Return mobile, tablet, desktop, bot or other; empty for an empty user agent."""
    if not text.strip():
        return ""
    agent = text.lower()
    if any(word in agent for word in ("bot", "spider", "crawl", "slurp")):
        return "bot"
    if "ipad" in agent or "tablet" in agent or ("android" in agent and "mobile" not in agent):
        return "tablet"
    if any(word in agent for word in ("mobi", "iphone", "ipod", "android", "windows phone")):
        return "mobile"
    return "desktop" if any(word in agent for word in ("windows", "macintosh", "x11", "linux", "cros")) else "other"


def browser(text: str) -> str:
    """Return the family of the browser, such as Firefox; empty if it is unknown."""
    found = _parse(text).user_agent
    return found.family if found else ""


def operating_system(text: str) -> str:
    """Return the family of the operating system, such as Android; empty if it is unknown."""
    found = _parse(text).os
    return found.family if found else ""


def host(text: str) -> str:
    """Return the host of a web address without `www.`, in lower case; empty if there is none."""
    try:
        name = urlsplit(text.strip() if "//" in text else f"//{text.strip()}").hostname
    except ValueError:
        return ""
    return (name or "").removeprefix("www.")


def medium(text: str) -> str:
    """Return where a visitor came from: search, social, mail, or link; empty if there is no referer."""
    name = host(text)
    if not name:
        return ""
    labels = name.split(".")
    if any(name.startswith(start) for start in MAIL_HOSTS):
        return "mail"
    main = labels[-2] if len(labels) > 1 else labels[0]
    if len(labels) > 2 and len(labels[-1]) == 2 and main in ("co", "com", "org", "net"):
        main = labels[-3]
    if main in SEARCH_ENGINES:
        return "search"
    return "social" if main in SOCIAL_NETWORKS or name in SOCIAL_NETWORKS else "link"


@lru_cache(maxsize=10_000)
def _parse(text: str) -> Any:
    from ua_parser import parse  # reads its rules at the first use

    return parse(text)


def bot(text: str) -> str:
    """Return bot or person; empty for an empty user agent."""
    if not text.strip():
        return ""
    device = _parse(text).device
    return "bot" if platform(text) == "bot" or (device is not None and device.family == "Spider") else "person"


USER_AGENT_PARTS: Mapping[str, Callable[[str], str]] = {
    "platform": platform, "browser": browser, "os": operating_system, "bot": bot,
}  # fmt: skip
REFERER_PARTS: Mapping[str, Callable[[str], str]] = {"medium": medium, "host": host}
