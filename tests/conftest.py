"""Toy models, tokenizers and texts that every test may read and none may change."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from toys import EVERY

from lm2.model.config import BankStart, LM2Config, MemoryKind
from lm2.model.lm2 import LM2
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint

PLACES = ("bathroom", "hallway", "garden", "office", "kitchen", "bedroom")
PEOPLE = ("Mary", "John", "Daniel", "Sandra")
VERBS = ("moved to", "went to", "went back to", "journeyed to", "travelled to")

TEXT = (
    "Mary moved to the bathroom. John went to the hallway. Daniel went back to the garden. Zoë 🙂 took the apple. "
    "Sandra journeyed to the office. Mary travelled to the kitchen. Where is Daniel? garden. John went to the bedroom."
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first: of two processes, one takes over what the other has left, and that should be short."""
    items.sort(key=lambda item: item.path.stem not in ("test_browser", "test_notebooks"))


@pytest.fixture(scope="session")
def text() -> str:
    """At least four segments for every toy model."""
    return TEXT


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    sentences = [f"{person} {verb} the {place}." for person in PEOPLE for verb in VERBS for place in PLACES]
    return Tokenizer.train(
        [" ".join(sentences), *(f"Where is {person}? {place}" for person in PEOPLE for place in PLACES)], 360
    )


def randomised(config: LM2Config, seed: int) -> LM2:
    """A model in which no gain is 1 and no bias is 0, so that no law holds by accident."""
    generator = torch.Generator().manual_seed(seed)
    # A test that asks for a fixture may already be in inference mode.
    with torch.inference_mode(False), torch.no_grad():
        model = LM2(config)
        model.initialise(generator)
        for weight in model.parameters():
            if weight.ndim <= 1:
                weight.add_(0.4 * torch.randn(weight.shape, generator=generator))
            elif weight is not model.embed.weight:
                weight.mul_(1.5)
    return model


@pytest.fixture(scope="session")
def build(tokenizer: Tokenizer) -> Callable[..., Checkpoint]:
    """A checkpoint of one's own, for tests that change it: build(config, seed=0, name="toy")."""

    def make(config: LM2Config, seed: int = 0, name: str = "toy") -> Checkpoint:
        return Checkpoint(name=name, model=randomised(config, seed), tokenizer=tokenizer, digest=f"{name}-{seed}")

    return make


@pytest.fixture(scope="session")
def plain_config(tokenizer: Tokenizer) -> LM2Config:
    return LM2Config(
        memory=MemoryKind.NONE,
        d_vocab=tokenizer.size,
        d_model=16,
        n_layers=3,
        n_heads=4,
        n_key_value_heads=2,
        d_mlp=24,
        segment_length=7,
    )


@pytest.fixture(scope="session")
def gated_config(tokenizer: Tokenizer) -> LM2Config:
    """Every size another number; memory in two blocks of three; tokens see their own segment alone."""
    return LM2Config(
        memory=MemoryKind.GATED, d_vocab=tokenizer.size, d_model=16, n_layers=3, n_heads=4, n_key_value_heads=2,
        d_mlp=24,
        segment_length=7, attention_window=7, slots=5, slot_dim=12, memory_heads=2, memory_layers=(0, 2),
    )  # fmt: skip


@pytest.fixture(scope="session")
def release_config(tokenizer: Tokenizer) -> LM2Config:
    return LM2Config(
        memory=MemoryKind.RELEASE, d_vocab=tokenizer.size, d_model=16, n_layers=2, n_heads=4, n_key_value_heads=2,
        d_mlp=24,
        segment_length=16, attention_window=16, tied_embeddings=True, slots=16, slot_dim=16, memory_heads=4,
        memory_layers=(0, 1),
    )  # fmt: skip


@pytest.fixture(scope="session")
def tokens_config(tokenizer: Tokenizer) -> LM2Config:
    return LM2Config(
        memory=MemoryKind.TOKENS, d_vocab=tokenizer.size, d_model=16, n_layers=3, n_heads=4, n_key_value_heads=2,
        d_mlp=24,
        segment_length=7, attention_window=7, slots=5, slot_dim=16, memory_heads=4, memory_layers=(0, 1, 2),
        bank_start=BankStart.LEARNED,
    )  # fmt: skip


@pytest.fixture(scope="session")
def armt_config(tokenizer: Tokenizer) -> LM2Config:
    """Keys of four entries, so 24 features; memory in two blocks of three."""
    return LM2Config(
        memory=MemoryKind.ARMT, d_vocab=tokenizer.size, d_model=16, n_layers=3, n_heads=4, n_key_value_heads=2,
        d_mlp=24, segment_length=7, attention_window=7, slots=24, slot_dim=2 * 17, memory_heads=1, memory_layers=(0, 2),
        memory_sizes={"memory_tokens": 3},
    )  # fmt: skip


@pytest.fixture(scope="session")
def plain(build: Callable[..., Checkpoint], plain_config: LM2Config) -> Checkpoint:
    return build(plain_config, 1, "toy-plain")


@pytest.fixture(scope="session")
def gated(build: Callable[..., Checkpoint], gated_config: LM2Config) -> Checkpoint:
    return build(gated_config, 2, "toy-gated")


@pytest.fixture(scope="session")
def release(build: Callable[..., Checkpoint], release_config: LM2Config) -> Checkpoint:
    return build(release_config, 3, "toy-release")


@pytest.fixture(scope="session")
def rmt(build: Callable[..., Checkpoint], tokens_config: LM2Config) -> Checkpoint:
    return build(tokens_config, 4, "toy-rmt")


@pytest.fixture(scope="session")
def armt(build: Callable[..., Checkpoint], armt_config: LM2Config) -> Checkpoint:
    return build(armt_config, 5, "toy-armt")


@pytest.fixture(scope="session", params=EVERY)
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    """Each kind of model in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def precise(checkpoint: Checkpoint) -> Checkpoint:
    """Each kind of model in turn, in float64: for laws about computing the same in other shapes.

    These hold to rounding, which differs from machine to machine and which random memory tokens multiply by ten in each
    segment.
    """
    return replace(checkpoint, model=deepcopy(checkpoint.model).double())


@pytest.fixture(scope="session")
def ids(tokenizer: Tokenizer) -> Callable[..., torch.Tensor]:
    """Random token ids: ids(batch, tokens, seed=0)."""

    def draw(batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
        return torch.randint(tokenizer.size, (batch, tokens), generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that holds `babi/` and `books/`; its neighbour `oracle/` holds recorded outputs of the released
    code."""
    folder = os.environ.get("LM2_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LM2_DATA_DIR is not set to a folder with babi/ and books/")
    return Path(folder)


@pytest.fixture(scope="session")
def oracle(data_dir: Path) -> Path:
    path = data_dir.parent / "oracle" / "release_lm2_d32.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path


class Speaking:
    """A server of our own that speaks the chat protocol and answers by a rule: what it is told, to what it says."""

    def __init__(self, rule: Callable[[str, str], str]) -> None:
        self.requests: list[dict] = []
        """What it was sent, with the headers."""
        self.failures: list[int] = []
        """Status codes that it answers with first, in turn."""
        speaking = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                speaking.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
                status = speaking.failures.pop(0) if speaking.failures else 200
                said = rule(*(message["content"] for message in body["messages"]))
                reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Tests are silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def speaking() -> Iterator[Callable[[Callable[[str, str], str]], Speaking]]:
    """Starts a server on this machine: speaking(rule).url is its address."""
    servers: list[Speaking] = []

    def start(rule: Callable[[str, str], str]) -> Speaking:
        servers.append(Speaking(rule))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
