"""IMPALA: many actors, one learner, and V-trace for what they are apart.

Reference: Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with Importance Weighted
Actor-Learner Architectures", ICML 2018.

Deviations from the paper: the loss is a mean over the steps of a batch, not a sum, so the learning
rate does not depend on its size. The network sees the observation only, not the last action and
reward. Rewards are scaled, not clipped. Gradients are shortened to length 1, not 40, epsilon of
RMSProp is 1e-8, not 0.1 or 0.01, and the learning rate falls only where `decay_updates` says so.
Rollouts run on over the ends of episodes; the value of the last observation stands for what a time
limit cut off.

How stale the actors are is measured: each step carries the count of updates of the parameters that
acted, and the learner logs how far they were behind, `policy_lag` (mean) and `max_policy_lag`. With
2 actors of 8 environments and the defaults these are about 2 and 6 to 10 updates.

The curve to expect, greedy, in 16 environments: Catch from -0.6 to 1 within 50 000 to 150 000
steps; CartPole-v1 (`reward_scale=0.1`) above 200 from 20 000 and 475 to 500 within 10 000 to
100 000 steps. With the learning rate left constant single evaluations on CartPole-v1 fall back to
200 or 300 now and then; with `decay_updates` they no longer do towards the end.
"""

from lpml.agents.impala.builder import ImpalaBuilder as ImpalaBuilder
from lpml.agents.impala.config import ImpalaConfig as ImpalaConfig
