"""Reinforcement learning and supervised learning in one program, joined by frames and parameters.

`snow` is the world, `encoder` what is learnt from its frames, `labels` the nodes that learn it,
`agent` PPO on top of it, `program` the graph.
"""
