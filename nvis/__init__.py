"""The filter page: what activates a network's filters, and a film of a game, both by guided back-propagation.

`visualization` watches the game and writes the page, `page` and `film` make the HTML. The computation is in
simple_dqn/learning/guided.py.
"""
