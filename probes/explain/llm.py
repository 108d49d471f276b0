"""A language model at an OpenAI-compatible address. Every reply is kept and can be replayed without the model."""

import hashlib
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm2.files import parse_json, read_json
from lm2.sealed import unseal, write_sealed

_LOG = logging.getLogger(__name__)
KEY = "LM2_LLM_KEY"
"""Environment variable that is sent as the bearer token if it is set, and never written to a file."""
_TRIES = 3
_LONGEST_REPLY = 1024
"""Tokens; enough for a model that thinks aloud before it answers."""
_LARGEST_BYTES = 8 * 1024**2
_OVERLOADED = (408, 429, 500, 502, 503, 504)
_HERE = ("localhost", "127.0.0.1", "::1")


class Chat:
    """Asks a language model, greedily and with a seed, and asks nothing twice."""

    def __init__(
        self,
        model: str,
        *,
        url: str | None,
        folder: Path | None = None,
        seed: int = 0,
        timeout: float = 120.0,
        pause: float = 1.0,
    ) -> None:
        """No server is contacted before `ask`.

        Args:
            model: its name on the server.
            url: the address before /chat/completions, such as http://127.0.0.1:8000/v1; None only replays `folder`.
            folder: has a file for each request with its reply; None keeps them in memory.
            timeout: seconds that a reply may take.
            pause: seconds before a second try, doubled before a third.

        Raises ValueError for a malformed address or one with a name or password, and with neither address nor folder.
        """
        self.model, self.seed, self._timeout, self._pause = model, seed, timeout, pause
        self._folder, self._memory = folder, {}
        self._url = None if url is None else _checked(url)
        if url is None and folder is None:
            raise ValueError(
                "a language model needs an address, such as http://127.0.0.1:8000/v1, or a folder of transcripts to"
                " replay"
            )

    def ask(self, system: str, user: str) -> str:
        """The reply, which may be empty.

        Raises ValueError if a replay lacks the transcript or the server's reply breaks the protocol; OSError if the
        server does not answer.
        """
        request = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": 0,
            "seed": self.seed,
            "max_tokens": _LONGEST_REPLY,
        }
        key = digest(request)
        transcript = self._get(key)
        if transcript is None:
            if self._url is None:
                raise ValueError(
                    f"{self._folder} holds no transcript {key[:12]} of {self.model!r}, and a replay asks nobody"
                )
            transcript = {"request": request, "response": self._post(request)}
            content(transcript["response"])  # a reply that breaks the protocol is not kept
            if self._folder is None:
                self._memory[key] = transcript
            else:
                write_sealed(self._folder / f"{key}.json", transcript, of=key)
        return content(transcript["response"])

    def _get(self, key: str) -> dict[str, Any] | None:
        if self._folder is None:
            return self._memory.get(key)
        path = self._folder / f"{key}.json"
        try:
            values = read_json(path) if path.exists() else None
            if values is None:
                return None
            if not isinstance(values, dict) or set(values) != {"request", "response"}:
                return unseal(values, key, ("request", "response"), str(path))
            if digest(values["request"]) != key:  # an earlier version kept no seal
                raise ValueError(f"{path} holds another request")
        except ValueError as error:
            _LOG.warning("%s: it does not count", error)
            return None
        return values

    def _post(self, request: Mapping[str, Any]) -> Any:
        """The server's JSON. An overloaded or silent server is tried again."""
        words = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(self._pause * 2 ** (attempt - 1))
            try:
                return self._once(request)
            except urllib.error.HTTPError as error:
                reply = _without_key(error.read(300).decode("utf-8", "replace"))
                words = f"{self._url} answers {error.code} {error.reason}: {reply}"
                if error.code not in _OVERLOADED:
                    raise ValueError(words) from error
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error or type(error).__name__
                words = f"{self._url} does not answer: {reason}"
        raise OSError(f"{words} ({_TRIES} tries)")

    def _once(self, request: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        # A redirect would carry texts and key to an address that nobody gave. This machine is reached without a proxy.
        no_proxy = [urllib.request.ProxyHandler({})] if urllib.parse.urlsplit(self._url).hostname in _HERE else []
        opener = urllib.request.build_opener(_NoRedirects, *no_proxy)
        post = urllib.request.Request(f"{self._url}/chat/completions", json.dumps(request).encode(), headers)
        with opener.open(post, timeout=self._timeout) as response:
            body = response.read(_LARGEST_BYTES + 1)
        if len(body) > _LARGEST_BYTES:
            raise ValueError(f"{self._url} answers with more than {_LARGEST_BYTES:,} bytes")
        return parse_json(body, f"the answer of {self._url}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def digest(request: Mapping[str, Any]) -> str:
    """SHA-256 of a request, which names its transcript. The address is no part of it, so it may change."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def content(response: Any) -> str:
    """The text of a response. Raises ValueError if it is not one of the chat protocol."""
    try:
        text = response["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"this is no reply of the chat protocol: {str(response)[:200]}") from error
    return text if isinstance(text, str) else ""


def _without_key(text: str) -> str:
    """Some servers repeat a key that they refuse."""
    return text.replace(os.environ[KEY], "(the key)") if os.environ.get(KEY) else text


def _checked(url: str) -> str:
    """The address without a slash at its end."""
    mistake = ValueError(f"an address looks like http://127.0.0.1:8000/v1, not {url!r}")
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise mistake
    except ValueError:  # also for brackets that do not close and a port that is no number
        raise mistake from None
    if parts.username or parts.password:
        raise ValueError(f"an address holds no name or password; a key goes into the environment variable {KEY}")
    return url.rstrip("/")
