"""Wire formats as plain state machines over bytes, and the vocabulary they share.

The ground floor of the house: nothing in here knows a socket, an event loop, a clock or another package of ours.
"""
