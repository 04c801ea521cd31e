"""IMPALA: many actors, one learner, and V-trace for what they are apart.

Reference: Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with Importance Weighted
Actor-Learner Architectures", ICML 2018.

Deviations from the paper: the loss is a mean over the steps of a batch, not a sum, so the learning
rate does not depend on its size. The network sees the observation only, not the last action and
reward. Rewards are not clipped. Epsilon of RMSProp is 1e-5, not 0.1 or 0.01. Rollouts run on over
time limits, and the value of the last observation stands for what was cut off.
"""

from lpml.agents.impala.builder import ImpalaBuilder as ImpalaBuilder
from lpml.agents.impala.config import ImpalaConfig as ImpalaConfig
