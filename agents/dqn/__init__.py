"""DQN: values of discrete actions, learned from replay; double, dueling, n-step and prioritised.

References: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015
(replay, target network). van Hasselt, Guez, Silver, "Deep Reinforcement Learning with Double
Q-learning", AAAI 2016. Wang et al., "Dueling Network Architectures for Deep Reinforcement
Learning", ICML 2016. Schaul et al., "Prioritized Experience Replay", ICLR 2016. Horgan et al.,
"Distributed Prioritized Experience Replay", ICLR 2018 (actors that explore differently).

Deviations: Adam instead of RMSProp; the exponent of the importance weights is constant, not
annealed to 1; gradients of the two streams of the dueling head are not rescaled; a new item gets
the highest priority of its table, not its own error as in Horgan et al.; exploration ends with the
updates of the learner, which stand for steps in the proportion of `samples_per_insert`, so that
every actor, also one that was restarted, explores alike.

The curve to expect, with the defaults on CartPole-v1 in 8 environments: about 20 until 4 000
steps, above 200 from about 10 000, and 475 to 500 between 10 000 and 40 000 steps; greedy episodes
fall back to 200 or so now and then, which the target network mends within 1 000 updates.
"""

from lpml.agents.dqn.builder import DQNBuilder as DQNBuilder
from lpml.agents.dqn.config import DQNConfig as DQNConfig
