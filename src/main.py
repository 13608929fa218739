"""Simple DQN: trains an agent from pixels, tests it, and plays. Read this file from top to bottom.

`run` parses the options. `make_parts` makes what plays and learns, `put_together` adds what saves and watches. `train`
runs the phases: random moves that fill the replay memory, then epochs of training and testing. In src/simple_dqn,
agent.py takes the steps of a phase, deepqnetwork.py learns from minibatches.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # because there is nothing to save yet
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from nvis.visualization import Visualization, VisualizationOptions
from simple_dqn import options
from simple_dqn.agent import Agent, AgentOptions
from simple_dqn.cluster.games import ClusterOptions
from simple_dqn.command_line import DESCRIPTION, EPILOG, USAGE, CommonOptions, MainOptions, require_sense
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetworkOptions
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.errors import exit_status
from simple_dqn.games.game import GameSpec
from simple_dqn.games.make import leave_cores_to_games, make_games, number_of_games
from simple_dqn.interrupts import Interrupted, stop_on_interrupt
from simple_dqn.learning.library import library_of
from simple_dqn.replay.prioritized import memory_class
from simple_dqn.replay_memory import ReplayMemoryOptions
from simple_dqn.reports.progress import Progress, start_log
from simple_dqn.reports.scores import Scores
from simple_dqn.reports.tensorboard import TensorBoard
from simple_dqn.saving.resume import Parts, Position, actions_of, seeds_of, start_from, transitions_to_hold
from simple_dqn.saving.run_files import RunFiles
from simple_dqn.saving.settings import log_options, recorded_options, settle
from simple_dqn.saving.start import Start
from simple_dqn.statistics import Statistics
from simple_dqn.watching.make import RunWatchers, ViewerOptions
from simple_dqn.watching.recorder import RecorderOptions
from simple_dqn.watching.watcher import Watcher

logger = logging.getLogger(__name__)

GROUPS = (
    EnvironmentOptions, ViewerOptions, RecorderOptions, ReplayMemoryOptions, DeepQNetworkOptions, BackendOptions,
    AgentOptions, ClusterOptions, VisualizationOptions, MainOptions, CommonOptions,
)  # fmt: skip


class Setup(NamedTuple):
    """The parts of a run, where it is in its phases, its files, and what watches it."""

    options: MainOptions
    parts: Parts
    position: Position
    files: RunFiles
    progress: Progress
    watchers: RunWatchers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Return its exit status: 0, 2 for an error that the user can mend, 128 + n after signal n."""
    start_log()
    words = sys.argv[1:] if argv is None else argv
    try:
        with logging_redirect_tqdm():
            return exit_status(lambda: run(words), "use a smaller --replay_size, --batch_size or --num_envs")
    except Interrupted as interrupted:
        return 128 + int(interrupted.args[0])


def run(argv: Sequence[str]) -> None:
    """Run the command line `argv`. Raise SimpleDQNError if the user must change it, Interrupted after a signal."""
    given = options.parse(GROUPS, argv, usage=USAGE, description=DESCRIPTION, epilog=EPILOG)
    logging.getLogger().setLevel(options.build(CommonOptions, given).log_level)
    values, start = settle(GROUPS, given)
    o = options.build(MainOptions, values)
    require_sense(o, values, start)
    with ExitStack() as stack:
        setup = put_together(o, values, start, stack)
        log_options(GROUPS, given, values, start)
        stack.callback(setup.files.log_names)
        viewer = setup.watchers.viewer
        close_viewer = viewer.close if viewer else None
        with stop_on_interrupt(setup.parts.agent.stop, close_viewer), stack.pop_all():  # closes the parts first
            try:
                if o.play_games:
                    play(setup)
                else:
                    train(setup)
            except Interrupted:
                if not (viewer and viewer.quit):
                    raise
            setup.watchers.finish()  # because what they record is complete


def put_together(o: MainOptions, values: dict[str, Any], start: Start | None, stack: ExitStack) -> Setup:
    """Make the parts, the files and what watches the run; `stack` closes them."""
    scores = Scores()
    if o.play_games:  # called last, because the viewer may have filled the terminal
        stack.callback(scores.report, o.play_games, o.scores_path)
    values = values | {"random_seed": options.build(CommonOptions, values).seed()}
    recorded = recorded_options(GROUPS, values)  # before anything opens, because it checks all options
    env_options = options.build(EnvironmentOptions, values)

    page_options = options.build(VisualizationOptions, values)
    page = Visualization(page_options, env_options, start and start.path) if page_options.visualization_file else None
    viewer_options, recorder_options = options.build(ViewerOptions, values), options.build(RecorderOptions, values)
    watchers = RunWatchers(viewer_options, recorder_options, env_options.game, scores, page, o.play_games)
    stack.callback(watchers.close)

    parts = make_parts(o, values, start, [watchers] if watchers else [], stack)
    _, _, network, agent, statistics = parts
    position = start_from(start, o, parts, recorded)
    files = RunFiles(o, start, position, parts)
    stack.callback(files.close)

    progress = Progress(statistics, o, position)
    agent.callbacks = [statistics, progress, scores]
    if o.tensorboard and files.csv:
        agent.callbacks.append(TensorBoard(statistics, files.csv))
    agent.callbacks += watchers.attach(agent, network)
    if page:
        page.attach(agent, network.layers())
        agent.callbacks.append(page)
    return Setup(o, parts, position, files, progress, watchers)


def make_parts(
    o: MainOptions, values: dict[str, Any], start: Start | None, watchers: Sequence[Watcher], stack: ExitStack
) -> Parts:
    """Make games, memory, network, agent and statistics as for a new run; `stack` closes the games."""
    env_options = options.build(EnvironmentOptions, values)
    memory_options = options.build(ReplayMemoryOptions, values)
    net_options = options.build(DeepQNetworkOptions, values)
    backend = options.build(BackendOptions, values)
    agent_options = options.build(AgentOptions, values)

    seed = values["random_seed"]
    game_seed, memory_seed, agent_seed = seeds_of(seed, o.start_epoch, start)
    num_games = number_of_games(agent_options.num_envs, o.play_games, watchers)
    in_turn = agent_options.learns_in_bursts or not o.trains
    if in_turn and num_games > 1 and not watchers:
        leave_cores_to_games()
    network_class, on_gpu = library_of(backend)
    screen_shape = (env_options.screen_height, env_options.screen_width)
    state_shape = (memory_options.history_length, *screen_shape)

    actions = actions_of(start, env_options)
    spec = GameSpec(env_options, state_shape, agent_options.random_starts, game_seed.spawn(num_games), actions)
    games = make_games(spec, watchers, on_gpu, in_turn, options.build(ClusterOptions, values))
    stack.callback(games.close)
    memory = memory_class(memory_options)(
        memory_options, screen_shape, net_options.batch_size, np.random.default_rng(memory_seed),
        at_most=transitions_to_hold(o, num_games, start), lanes=num_games,
    )  # fmt: skip
    network = network_class(
        games.num_actions, state_shape, net_options, backend, seed, agent_options.target_steps > 0, games.cores_left
    )
    network.hold_screens(memory)
    agent = Agent(games, memory, network, agent_options, np.random.default_rng(agent_seed))
    return Parts(games, memory, network, agent, Statistics(agent))


def play(setup: Setup) -> None:
    """Play the games of --play_games, then games that the user asks for. Those are not recorded."""
    number = setup.options.play_games
    while number:
        run_phase(setup, "play", 0, number, setup.parts.agent.play)
        number = setup.watchers.more_games()


def train(setup: Setup) -> None:
    """Run the phases that are left. Save after each, and also when a signal or an error ends them."""
    o, position = setup.options, setup.position
    tests = o.test_games or o.test_steps
    with setup.files.save_if_interrupted():
        while position.left:
            phase, epoch = position.left[0]
            if phase == "random":
                run_phase(setup, phase, epoch, o.random_steps, setup.parts.agent.random)
            elif phase == "train":
                train_epoch(setup, epoch)
            elif tests:
                test_epoch(setup, epoch, tests)
            del position.left[0]
            if phase == "train" or (phase == "test" and tests):
                setup.files.save(epoch)
            if phase == "test" and (tests or o.train_steps):
                setup.progress.log_epoch(epoch)


def train_epoch(setup: Setup, epoch: int) -> None:
    """Train for an epoch."""
    agent, memory, position = setup.parts.agent, setup.parts.memory, setup.position
    done = agent.total_train_steps - position.epoch_began
    run_phase(setup, "train", epoch, setup.options.train_steps, agent.train, done)
    if setup.options.train_steps and not memory.ready:
        logger.warning("Nothing was learned: %s. Use more --random_steps or --train_steps.", memory.why_not_ready())
    position.end_training(agent.total_train_steps)


def test_epoch(setup: Setup, epoch: int, number: int) -> None:
    """Test for `number` games or steps what was learned."""
    agent, statistics = setup.parts.agent, setup.parts.statistics
    run_phase(setup, "test", epoch, number, agent.play if setup.options.test_games else agent.test)
    setup.position.add_test(statistics.mean_reward, statistics.num_games)


def run_phase(setup: Setup, name: str, epoch: int, number: int, play: Callable[[int], None], done: int = 0) -> None:
    """Run a phase of `number` steps or games, less those already `done`, and call the callbacks at its ends."""
    agent, statistics, position = setup.parts.agent, setup.parts.statistics, setup.position
    broken_off, position.broken_off = position.broken_off, None
    if broken_off and name == "random":
        done = broken_off["num_steps"]
    if number <= done and not broken_off:
        return
    if agent.interrupted:  # while a snapshot was being saved
        raise Interrupted
    logger.info("%s%s", name.capitalize(), f" {epoch}/{setup.options.epochs}" if epoch else "")
    steps = number if broken_off else number - done  # those in the row of the phase
    for callback in agent.callbacks:
        callback.on_phase_start(name, epoch, None if play == agent.play else steps)
    position.under_way = True
    if broken_off:
        statistics.restore(broken_off, same_phase=True)
    play(number - done)
    for callback in agent.callbacks:
        callback.on_phase_end()
    if agent.interrupted:
        raise Interrupted
    position.under_way = False


if __name__ == "__main__":
    sys.exit(main())
