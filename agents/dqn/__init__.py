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

The curve to expect, with the defaults on CartPole-v1 in 8 or 16 environments, greedy: about 10
until 2 000 steps, 200 to 350 from 3 000 on, 475 after 8 000 to 25 000, in five of five seeds.
After that it stays near 500; now and then an evaluation falls to 200 and the next is back. Catch is
played without a fault after 2 000 to 4 000 steps. Without the refinements (one step, uniform, one
network, one stream; targets every 200 updates, 50 000 items) CartPole stays below 300 and falls to
100.
"""

from lpml.agents.dqn.builder import DQNBuilder as DQNBuilder
from lpml.agents.dqn.config import DQNConfig as DQNConfig
