"""The UFLDL recipe in JAX: python -m benchmarks.networks.mnist.with_jax FOLDER

All images are converted once; a step gathers its batch. Steps are not scanned: inside a loop of XLA's, convolutions on
CPUs run on one thread.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..in_jax import ufldl
from .files import read

EPOCHS, BATCH = 3, 256


@partial(jax.jit, donate_argnums=(0, 1))
def advance(p, velocity, x, labels, rate, momentum):
    def cost(p):
        scores = jax.nn.log_softmax(ufldl(p, x, None))
        return -jnp.take_along_axis(scores, labels[:, None], -1).mean()

    gradients = jax.grad(cost)(p)
    velocity = {name: momentum * velocity[name] - rate * gradients[name] for name in p}
    return {name: p[name] + velocity[name] for name in p}, velocity


@jax.jit
def count_right(p, x, labels):
    return (ufldl(p, x, None).argmax(1) == labels).sum()


def main(folder):
    (x, labels), (x_test, labels_test) = (arrays(*read(folder, part)) for part in ("train", "t10k"))
    conv, dense = jax.random.split(jax.random.key(0))
    limit = (6 / 2011) ** 0.5
    p = {
        "conv1.w": 0.1 * jax.random.normal(conv, (9, 9, 1, 20)), "conv1.b": jnp.zeros(20),
        "dense.w": jax.random.uniform(dense, (2000, 10), minval=-limit, maxval=limit), "dense.b": jnp.zeros(10),
    }  # fmt: skip
    velocity = {name: jnp.zeros_like(w) for name, w in p.items()}
    random = np.random.default_rng(0)
    for epoch in range(EPOCHS):
        order = random.permutation(len(x))
        for step in range(len(x) // BATCH):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            momentum = 0.5 if epoch == 0 and step < 19 else 0.95
            p, velocity = advance(p, velocity, x[chosen], labels[chosen], 0.1 / 2**epoch, momentum)
        starts = range(0, len(x_test), 1000)
        right = sum(count_right(p, x_test[k : k + 1000], labels_test[k : k + 1000]) for k in starts)
        print(f"epoch {epoch + 1}: accuracy {int(right) / len(x_test):.4f}")


def arrays(pixels, labels):
    """NumPy's, whose gather is faster than XLA's; what is gathered is not copied again."""
    return np.divide(pixels[..., None], 255, dtype=np.float32), labels.astype(np.int32)


if __name__ == "__main__":
    main(sys.argv[1])
