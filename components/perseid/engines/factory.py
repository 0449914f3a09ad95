"""From a spec to a running engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from perseid.api.engine import DType, EngineSpec, OpenAISpec
from perseid.engines.errors import EndpointAuthError
from perseid.engines.protocol import Engine, EngineError, Generation, Request
from perseid.engines.wrappers import with_call_log

_SENDABLE = re.compile(r"[\x21-\x7e]+")
_SHORTEST_SECRET = 12
"""Shorter keys are words that local servers ask for (`EMPTY`, `token`): answers may say them."""
_TELLING = 8
"""Characters from which on the beginning of a key is taken out of errors."""


async def open_engine(
    model_path: Path, model_id: str, spec: EngineSpec, dtype: DType = "auto", *, trust_remote_code: bool = False
) -> Engine:
    """Start what the spec asks for on the model in `model_path`. Raises EngineStartError or another EngineError."""
    # PyTorch and vLLM take seconds to import: only whoever runs a model pays.
    from perseid.engines.probe import probe

    if spec.type == "vllm":
        from perseid.engines.vllm_engine import VllmEngine

        hardware = probe(dtype, spec.vllm.block_size)
        engine: Engine = await VllmEngine.open(
            model_path, model_id, spec.vllm, hardware, trust_remote_code=trust_remote_code
        )
    else:
        from perseid.engines.transformers_engine import TransformersEngine

        engine = await TransformersEngine.open(
            model_path,
            model_id,
            probe(dtype).dtype,
            batch_size=spec.transformers.batch_size,
            max_model_len=spec.transformers.max_model_len,
            trust_remote_code=trust_remote_code,
        )
    return with_call_log(engine)


def open_endpoint(spec: OpenAISpec) -> Engine:
    """A client of an OpenAI-compatible endpoint; nothing is sent yet.

    The key is what the variable `api_key_env` holds, or what stands in the file that the variable of that name with
    `_FILE` behind it names. It stands in no error and no answer, whatever the endpoint says. Raises EndpointAuthError
    where there is none, or none that can be sent.
    """
    from perseid.engines.openai_engine import OpenAIEngine

    if spec.api_key_env is None:
        return with_call_log(OpenAIEngine(spec))
    key = api_key(spec.base_url, spec.api_key_env)
    with _in_environment(spec.api_key_env, key):
        client = OpenAIEngine(spec)
    return with_call_log(KeyGuard(client, key))


class KeyGuard:
    """Takes an API key out of whatever an endpoint says: errors that repeat headers, and answers that do."""

    def __init__(self, engine: Engine, key: str) -> None:
        self._engine = engine
        # As it stands, and as it does inside quotes.
        spellings = {key, json.dumps(key)[1:-1], repr(key)[1:-1]}
        self._spellings = sorted(spellings, key=len, reverse=True)
        self._is_word = len(key) < _SHORTEST_SECRET

    @property
    def model_id(self) -> str:
        """The inner engine's."""
        return self._engine.model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request."""
        try:
            generation = await self._engine.generate(request)
        except EngineError as error:
            error.args = tuple(self._hide_parts(part) if isinstance(part, str) else part for part in error.args)
            raise
        if self._is_word:
            return generation
        return replace(
            generation, completions=tuple(replace(one, text=self._hide(one.text)) for one in generation.completions)
        )

    async def close(self) -> None:
        """Close the inner engine."""
        await self._engine.close()

    def _hide(self, text: str) -> str:
        for spelling in self._spellings:
            text = text.replace(spelling, "***")
        return text

    def _hide_parts(self, text: str) -> str:
        """Also beginnings of the key: errors show the first characters of what was said, which may end within it."""
        text = self._hide(text)
        for spelling in self._spellings:
            for length in range(len(spelling) - 1, _TELLING - 1, -1):
                text = text.replace(spelling[:length], "***")
        return text


def api_key(base_url: str, variable: str) -> str:
    """The key of the endpoint, from the variable or the file that `<variable>_FILE` names. Raises EndpointAuthError."""
    where, file = f"the variable {variable}", os.environ.get(f"{variable}_FILE")
    key = os.environ.get(variable, "").strip()  # a Secret that was made from a file ends with a line break
    if not key and file:
        where = f"the file {file}, which the variable {variable}_FILE names"
        try:
            key = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise EndpointAuthError(
                f"the API key of the endpoint {base_url} cannot be read from {where}: {type(error).__name__}"
            ) from None
    if not key:
        empty = f"{where} is empty" if file else "neither is set"
        raise EndpointAuthError(
            f"the endpoint {base_url} needs its API key in the environment variable {variable}, or in a file that "
            f"{variable}_FILE names, but {empty}"
        )
    if not _SENDABLE.fullmatch(key):
        raise EndpointAuthError(
            f"the API key of the endpoint {base_url} in {where} has white space or other characters in it that cannot "
            "be sent; it must be the bare key"
        )
    return key


@contextlib.contextmanager
def _in_environment(variable: str, value: str) -> Iterator[None]:
    """For a constructor that reads the key there."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
