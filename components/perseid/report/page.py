"""A generation as one HTML page that needs nothing beside it: KFP's UI shows it in a frame of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from perseid.api.result import Gain, GenerationResult, Score, SetResult

_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:1.5em;color:#222}table{border-collapse:collapse;margin:.5em 0 1.5em}"
    "th,td{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:right}"
    "th:first-child,td:first-child{text-align:left}"
    "h1{font-size:1.3em}h2{font-size:1.05em}code{background:#f4f4f4;padding:0 .3em}"
)


def generation_page(run: str, result: GenerationResult) -> str:
    """The page of one generation of the run of that name. Whatever comes from the run is escaped."""
    title = f"{run}, generation {result.generation}, attempt {result.attempt}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _outcome(result),
        _table(
            "Scores: pass@1, with intervals",
            ("set", "problems", "start model", "this generation", "gain"),
            (_set_row(one, decides=one is result.dev) for one in _sets(result)),
        ),
        _table(
            "What each stage changed, on dev",
            ("stage", "pass@1", "gain"),
            ((one.stage, _score(one.score), _gain(one.gain)) for one in result.lineage),
        ),
        _table(
            "Judged against the start model",
            ("set", "criterion", "won", "tied", "lost", "win rate"),
            (
                (one.set, one.criterion, *map(_percent, (one.won, one.tied, one.lost)), _percent(one.win_rate))
                for one in result.wins
            ),
        ),
        _table(
            "What became of the answers that could have been training data",
            ("", "count"),
            [
                ("kept", str(result.yields.kept)),
                *((f"dropped: {reason}", str(count)) for reason, count in sorted(result.yields.dropped.items())),
                ("total", str(result.yields.total)),
            ],
        ),
        _table(
            "What it took",
            ("stage", "calls", "prompt tokens", "of them cached", "answer tokens", "seconds"),
            (
                (stage, *map(str, (one.calls, one.prompt_tokens, one.cached_tokens, one.completion_tokens)),
                 f"{one.seconds:.0f}")
                for stage, one in result.usage.items()
            ),
        ),
    ]  # fmt: skip
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _outcome(result: GenerationResult) -> str:
    if result.candidate is None:
        return f"<p>No model: {escape(result.reason or '')}.</p>"
    model_id = escape(result.candidate.model_id or "")
    return f"<p>Model: <code>{escape(result.candidate.uri)}</code><br>Weights: <code>{model_id}</code></p>"


def _sets(result: GenerationResult) -> list[SetResult]:
    return [*([] if result.dev is None else [result.dev]), *result.test]


def _set_row(one: SetResult, *, decides: bool) -> tuple[str, ...]:
    return (
        f"{one.name} (decides)" if decides else one.name,
        str(one.parent.problems),
        _score(one.parent),
        "" if one.candidate is None else _score(one.candidate),
        "" if one.gain is None else _gain(one.gain),
    )


def _score(score: Score) -> str:
    return f"{_percent(score.pass_at_1)} ({_percent(score.low)} to {_percent(score.high)})"


def _gain(gain: Gain) -> str:
    return f"{gain.value * 100:+.1f} ({gain.low * 100:+.1f} to {gain.high * 100:+.1f})"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A heading and a table; nothing where there are no rows."""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    if not body:
        return ""
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<h2>{escape(title)}</h2><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
