"""The filter page: what the filters of the convolutional layers look for, found by guided back-propagation.

`guided` has the arithmetic, `page` the HTML, `visualization` what watches a game and brings the two together.
"""
