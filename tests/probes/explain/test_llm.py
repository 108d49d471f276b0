"""Laws of asking a language model: each thing once, by the address given alone, and again without it."""

import json
from pathlib import Path

import pytest

from probes.explain.llm import KEY, Chat


@pytest.fixture(autouse=True)
def without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def _echo(system: str, user: str) -> str:
    return f"{system}: {user}"


def test_what_was_asked_before_is_not_asked_again(speaking, tmp_path: Path) -> None:
    server = speaking(_echo)
    chat = Chat("echo", url=server.url + "/", folder=tmp_path)
    assert [chat.ask("a", "b"), chat.ask("a", "b"), chat.ask("a", "c")] == ["a: b", "a: b", "a: c"]
    assert Chat("echo", url=server.url, folder=tmp_path).ask("a", "b") == "a: b"
    assert len(server.requests) == 2
    assert server.requests[0]["path"] == "/v1/chat/completions"
    body = server.requests[0]["body"]
    assert (body["model"], body["temperature"], body["seed"]) == ("echo", 0, 0)


def test_a_replay_contacts_nobody_and_says_what_it_lacks(speaking, tmp_path: Path) -> None:
    server = speaking(_echo)
    Chat("echo", url=server.url, folder=tmp_path).ask("a", "b")
    replay = Chat("echo", url=None, folder=tmp_path)
    assert replay.ask("a", "b") == "a: b"
    for other in (replay, Chat("echo", url=None, folder=tmp_path, seed=1), Chat("other", url=None, folder=tmp_path)):
        with pytest.raises(ValueError, match="holds no transcript"):
            other.ask("a", "c" if other is replay else "b")
    (file,) = tmp_path.iterdir()
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no transcript"):
        replay.ask("a", "b")
    assert len(server.requests) == 1
    with pytest.raises(ValueError, match="address"):
        Chat("echo", url=None)


def test_a_transcript_is_the_whole_exchange_without_the_key(
    speaking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "secret")
    server = speaking(_echo)
    Chat("echo", url=server.url, folder=tmp_path).ask("a", "b")
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert (
        kept["request"] == server.requests[0]["body"] and kept["response"]["choices"][0]["message"]["content"] == "a: b"
    )
    assert server.requests[0]["headers"]["Authorization"] == "Bearer secret"
    assert "secret" not in file.read_text(encoding="utf-8")


def test_without_a_key_none_is_sent(speaking) -> None:
    server = speaking(_echo)
    Chat("echo", url=server.url).ask("a", "b")
    assert "Authorization" not in server.requests[0]["headers"]


def test_an_overloaded_server_is_asked_again_but_not_for_ever(speaking) -> None:
    server = speaking(_echo)
    server.failures = [503, 429]
    assert Chat("echo", url=server.url, pause=0.001).ask("a", "b") == "a: b"
    server.failures = [500] * 9
    with pytest.raises(OSError, match=r"answers 500 .*\(3 tries\)"):
        Chat("echo", url=server.url, pause=0.001).ask("a", "b")
    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [302, 307, 401, 404])
def test_a_refusal_is_told_at_once_and_no_redirect_is_followed(speaking, status: int) -> None:
    server = speaking(_echo)
    server.failures = [status]
    with pytest.raises(ValueError, match=f"answers {status}"):
        Chat("echo", url=server.url).ask("a", "b")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_told(speaking) -> None:
    server = speaking(_echo)
    server.close()
    with pytest.raises(OSError, match=r"does not answer: .*\(3 tries\)"):
        Chat("echo", url=server.url, pause=0.001).ask("a", "b")


def test_what_is_no_reply_of_the_protocol_is_refused_and_not_kept(
    speaking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat("echo", url=speaking(_echo).url, folder=tmp_path)
    for response in ({"choices": []}, {"error": "no"}, [], "text"):
        monkeypatch.setattr(chat, "_post", lambda request, response=response: response)
        with pytest.raises(ValueError, match="no reply of the chat protocol"):
            chat.ask("a", "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "localhost:8000", "ftp://host/v1", "http://", "http://me:word@host/v1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="an address"):
        Chat("echo", url=url)
