"""Our checkpoints in EleutherAI's lm-evaluation-harness (the optional extra `harness`), as its model "lm2".

    python -m lm2.evaluation.harness --model lm2 --model_args checkpoint=babi-lm2 --tasks ...

takes all of the harness's arguments. Its own command, `lm_eval --model lm2 ...`, finds us in versions that read the
entry points of the group lm_eval.models; up to 0.4.13 none does.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from tqdm import tqdm

from lm2.runs.generation import generate
from lm2.runs.likelihood import log_likelihoods, perplexity
from lm2.text.tokens import END
from lm2.weights.checkpoint import load

# pyright: reportMissingImports=false
# It is an extra, which need not be installed.
try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise ImportError(
        f"lm2.evaluation.harness needs lm-eval, which the extra `harness` of this package installs: {error}"
    ) from error

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call the most tokens that may be written; the harness prefers the earlier names."""
_NEW_TOKENS = 256
"""Where a task does not say: the harness's own custom."""


@register_model("lm2")
class HarnessModel(LM):
    """A checkpoint as the harness sees it.

    Where the tokenizer puts no begin-of-text token in front of a text, its first token is given and not predicted: with
    an empty context, that of the continuation is not counted.
    """

    def __init__(
        self,
        checkpoint: str,
        segment_length: int | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        """`batch_size` and `max_batch_size` are given to every model by the harness; here texts are read one by one.

        Raises CheckpointError as `load` does.
        """
        super().__init__()
        # The harness says cuda:0 where nobody chose, also on a machine without one.
        self.checkpoint = load(
            checkpoint, "auto" if device == "cuda:0" and not torch.cuda.is_available() else device, dtype
        )
        self.segment_length = segment_length
        # The harness hands its --seed on through torch's own.
        self.generator = torch.Generator().manual_seed(torch.initial_seed())

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """(log-probability in nats, greedy) of each (context, continuation); neighbours of one context are read
        together."""
        answers = []
        with tqdm(total=len(requests), desc="loglikelihood", disable=None) as bar:
            for _, group in groupby((request.args for request in requests), key=lambda pair: pair[0]):
                pairs = list(group)
                likelihoods = log_likelihoods(self.checkpoint, pairs, segment_length=self.segment_length)
                answers += [(likelihood.log_probability, likelihood.greedy) for likelihood in likelihoods]
                bar.update(len(pairs))
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Log-probability of each text in nats, read from its start to its end however long it is."""
        totals = []
        for (text,) in _shown(requests, "loglikelihood_rolling"):
            read = perplexity(self.checkpoint, text, segment_length=self.segment_length)
            totals.append(-read.nats_per_token * read.tokens)
        return totals

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """What is written behind each context, up to the first of the strings that end it.

        Raises ValueError for settings of sampling other than the temperature.
        """
        return [self._continue(context, settings) for context, settings in _shown(requests, "generate_until")]

    def _continue(self, context: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        stops = [stop for stop in (END, *([until] if isinstance(until, str) else until)) if stop]
        sampled = settings.get("do_sample", float(settings.get("temperature", 0)) > 0)
        unknown = sorted(set(settings) - {"until", "do_sample", "temperature", *_LENGTHS})
        if sampled and unknown:
            raise ValueError(f"sampling knows a temperature alone, not {', '.join(unknown)}")
        written = generate(
            self.checkpoint,
            context,
            until=stops,
            segment_length=self.segment_length,
            generator=self.generator,
            max_tokens=int(next((settings[name] for name in _LENGTHS if name in settings), _NEW_TOKENS)),
            temperature=float(settings.get("temperature", 1)) if sampled else 0.0,
        )
        return written.text[: min((at for at in map(written.text.find, stops) if at >= 0), default=None)]


def _shown(requests: Sequence[Instance], name: str) -> Iterator[tuple]:
    """The arguments of each request, with a bar."""
    for request in tqdm(requests, desc=name, disable=None):
        yield request.args


def main() -> None:
    """The harness's own command; what is refused, such as NaN, becomes one line on standard error and exit code 2."""
    try:
        cli_evaluate()
    except ValueError as error:
        sys.stderr.write(f"lm2.evaluation.harness: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
