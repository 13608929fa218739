"""What a network looks for: a page of its filters and of a game it played, found by guided back-propagation.

`guided` has the arithmetic, `page` and `film` the HTML, `visualization` what watches a game and brings them together.
"""
