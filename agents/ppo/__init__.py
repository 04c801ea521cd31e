"""PPO: a clipped policy gradient that makes several epochs over each batch of fresh rollouts.

References: Schulman et al., "Proximal Policy Optimization Algorithms" (2017). Schulman et al.,
"High-Dimensional Continuous Control Using Generalized Advantage Estimation", ICLR 2016.

Deviations from the paper, most of them those of its authors' code and of Andrychowicz et al.,
"What Matters In On-Policy Reinforcement Learning?", ICLR 2021: observations are normalised by
running statistics, which travel with the parameters and change only between updates, so that
ratios begin at 1; advantages are normalised in each minibatch; gradients are clipped; the last
layer of the policy begins small. Policy and value share no layers unless `shared_torso`. Returns
may be normalised (`normalise_returns`), without the correction of the last layer of Pop-Art.
Values are those of the learner when it gets the batch, not those of the actor; log-probabilities
are the actor's. Windows run on over the ends of episodes; where time cut an episode off, the value
of its last observation stands for the rest. Continuous actions with bounds go through a tanh
(`squash`) or are cut off; their deviation does not depend on the observation. The network is an
MLP over the flat observation.

The curve to expect, with `recommended(...)` and 8 environments: CartPole-v1 at 475 to 500 between
15 000 and 40 000 steps, and there it stays; Catch at 1.0 within 7 000 steps; Pendulum-v1 above -300
after 30 000 steps, and between -130 and -200 (which is as good as its starts allow) from 100 000.
"""

if __name__ != "lpml.agents.ppo":
    raise ImportError("import lpml.agents.ppo, not agents.ppo")

from lpml.agents.ppo.builder import PPOBuilder as PPOBuilder
from lpml.agents.ppo.config import PPOConfig as PPOConfig
from lpml.agents.ppo.config import recommended as recommended
