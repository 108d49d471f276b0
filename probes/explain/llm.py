"""A language model behind an OpenAI-compatible address, whose every reply is kept and can be replayed without it."""

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
"""Environment variable: where it is set, it is sent as the bearer token. It is written nowhere."""
_TRIES = 3
_LONGEST_REPLY = 1024
"""Tokens: enough for a model that thinks aloud before it answers."""
_LARGEST_BYTES = 8 * 1024**2
_OVERLOADED = (408, 429, 500, 502, 503, 504)
_HERE = ("localhost", "127.0.0.1", "::1")


class Chat:
    """Asks a language model, greedily and with a seed; what it has been asked before, it is not asked again."""

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
        """Nothing is contacted before `ask`.

        Args:
            model: its name, as its server knows it.
            url: the address before /chat/completions, e.g. http://127.0.0.1:8000/v1; None, nobody is contacted: replay.
            folder: keeps a file for each request, its reply included; None, they are kept while this object lives.
            timeout: seconds that a reply may take.
            pause: seconds before a second try; twice as long before a third.

        Raises ValueError for an address that is none, or that holds a name or password, and for a replay of nothing.
        """
        self.model, self.seed, self._timeout, self._pause = model, seed, timeout, pause
        self._folder, self._held = folder, {}
        self._url = None if url is None else _checked(url)
        if url is None and folder is None:
            raise ValueError(
                "a language model needs an address, such as http://127.0.0.1:8000/v1, or a folder of transcripts to"
                " replay"
            )

    def ask(self, system: str, user: str) -> str:
        """The reply; empty where the model said nothing.

        Raises ValueError where a replay lacks the transcript and for what is no reply of the protocol; OSError where
        the server does not answer.
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
            said(transcript["response"])  # what is no reply of the protocol is not kept
            self._put(key, transcript)
        return said(transcript["response"])

    def _get(self, key: str) -> dict[str, Any] | None:
        if self._folder is None:
            return self._held.get(key)
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

    def _put(self, key: str, transcript: dict[str, Any]) -> None:
        if self._folder is None:
            self._held[key] = transcript
            return
        write_sealed(self._folder / f"{key}.json", transcript, of=key)

    def _post(self, request: Mapping[str, Any]) -> Any:
        """The server's JSON. An overloaded or silent server is tried again."""
        words = ""
        for tried in range(_TRIES):
            if tried:
                time.sleep(self._pause * 2 ** (tried - 1))
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
        # No redirects: they would carry the texts, and the key, to an address that nobody gave. No proxy for this
        # machine's own.
        own = [urllib.request.ProxyHandler({})] if urllib.parse.urlsplit(self._url).hostname in _HERE else []
        opener = urllib.request.build_opener(_NoRedirects, *own)
        body = json.dumps(request).encode()
        question = urllib.request.Request(f"{self._url}/chat/completions", body, headers)
        with opener.open(question, timeout=self._timeout) as response:
            found = response.read(_LARGEST_BYTES + 1)
        if len(found) > _LARGEST_BYTES:
            raise ValueError(f"{self._url} answers with more than {_LARGEST_BYTES:,} bytes")
        return parse_json(found, f"the answer of {self._url}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def digest(request: Mapping[str, Any]) -> str:
    """SHA-256 of a request, by which its transcript is found. The address is no part of it: any server may replay
    another's."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def said(response: Any) -> str:
    """What a response of the protocol says. Raises ValueError where it is none."""
    try:
        content = response["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"this is no reply of the chat protocol: {str(response)[:200]}") from error
    return content if isinstance(content, str) else ""


def _without_key(text: str) -> str:
    """Some servers repeat a key that they refuse."""
    return text.replace(os.environ[KEY], "(the key)") if os.environ.get(KEY) else text


def _checked(url: str) -> str:
    """The address without a slash at its end."""
    mistake = ValueError(f"an address looks like http://127.0.0.1:8000/v1, not {url!r}")
    try:
        parts = urllib.parse.urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        raise mistake from None
    if not whole:
        raise mistake
    if parts.username or parts.password:
        raise ValueError(f"an address holds no name or password; a key goes into the environment variable {KEY}")
    return url.rstrip("/")
