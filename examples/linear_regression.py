"""
A linear regression
===================

Fit a linear regression with Amos, and compare with the exact least-squares solution.

Run: python examples/linear_regression.py
"""

import numpy as np

import amos_ref

rng = np.random.default_rng(0)
x = rng.standard_normal((200, 3))
y = x @ [0.5, -1.0, 0.25] + 0.75 + 0.01 * rng.standard_normal(200)

params = {"weights": np.zeros(3), "bias": np.zeros(())}
opt = amos_ref.Amos(learning_rate=0.1, eta=0.5, beta=0.9)
state = opt.init(params)
for t in range(1, 2001):
    residual = x @ params["weights"] + params["bias"] - y
    grads = {"weights": x.T @ residual / len(y), "bias": np.mean(residual)}
    state = opt.step(params, grads, state)
    if t in (1, 10, 100, 1000, 2000):
        b = float(state.b["weights"])
        print(f"step {t:4}  loss {np.mean(residual**2) / 2:.6f}  b {b:8.4f}  weights {params['weights'].round(4)}")

exact, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(200)]), y, rcond=None)
print(f"exact                                weights {exact[:3].round(4)}  bias {exact[3]:.4f}")
print(f"Amos                                 weights {params['weights'].round(4)}  bias {float(params['bias']):.4f}")
