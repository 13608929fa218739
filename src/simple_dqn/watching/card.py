"""The card that is shown after a game: what the game brought, and how to go on."""

from __future__ import annotations

from collections.abc import Sequence

from simple_dqn.reports import scores
from simple_dqn.watching.display import Card

SECONDS = 5  # after which the next game starts, if there is one


def card(games: Sequence[scores.Game], last: bool) -> Card:
    """The card for the last of `games`.

    Args:
        games: the finished games, at least one.
        last: no other game follows by itself.
    """
    game, best = games[-1], max(game.score for game in games)
    score = scores.score_text(game.score)
    lines = [("steps", str(game.steps))]
    if 0 < game.human_steps < game.steps:
        agent_score = scores.score_text(game.score - game.human_score)
        headline = [("you", scores.score_text(game.human_score)), ("agent", agent_score)]
        lines = [("together", score), *lines, ("your moves", f"{game.human_share} ({game.human_steps})")]
    else:
        headline = [("your score" if game.human_steps else "agent's score", score)]
    new = " (this game)" if len(games) > 1 and game.score == best else ""
    lines.append(("best so far", f"{scores.score_text(best)}{new}"))
    if len(games) > 1:
        lines.append(("games", str(len(games))))
    again = "play again" if last else f"next game (in {SECONDS} s)"
    return Card(headline, [*lines, ("r", again), ("q", "quit")])
