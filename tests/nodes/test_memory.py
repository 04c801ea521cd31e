"""What would take more memory than there is, is refused before it runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.errors import UsageError
from lpml.nodes.memory import check_program


def test_what_a_program_holds_in_between_counts() -> None:
    @jax.jit
    def outer(x: jax.Array) -> jax.Array:
        return jnp.sort((x[:, None] * x[None, :]).ravel())[:4]

    x = np.ones(1 << 10, np.float32)
    check_program(outer, (x,), "rows", 1 << 10, memory=1 << 24)
    with pytest.raises(UsageError, match=r"rows=1024 take 0\.0 GiB at least, .* leave half free"):
        check_program(outer, (x,), "rows", 1 << 10, memory=1 << 22)
    check_program(jax.jit(lambda x: x + 1), (x,), "rows", 1 << 10, memory=1 << 14)
