"""The card that is shown after a game: what the game brought, and how to go on."""

from __future__ import annotations

from collections.abc import Sequence

from simple_dqn.reports import scores

SECONDS = 5  # after which the next game starts, if there is one


def card(games: Sequence[scores.Game], last: bool) -> list[tuple[str, str]]:
    """Labels and values for the last of `games`.

    Args:
        games: the finished games, at least one.
        last: no other game follows by itself.
    """
    game, best = games[-1], max(game.score for game in games)
    lines = [("score", scores.score_text(game.score)), ("steps", str(game.steps))]
    if game.human_steps:
        agent_score = game.score - game.human_score
        lines.append(("your moves", f"{game.human_share} ({game.human_steps})"))
        if game.human_steps < game.steps:
            lines.append(("you : agent", f"{scores.score_text(game.human_score)} : {scores.score_text(agent_score)}"))
    new = " (this game)" if len(games) > 1 and game.score == best else ""
    lines.append(("best so far", f"{scores.score_text(best)}{new}"))
    if len(games) > 1:
        lines.append(("games", str(len(games))))
    return [*lines, ("r", "play again" if last else f"next game (starts after {SECONDS} s)"), ("q", "quit")]
