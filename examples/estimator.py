"""
A scikit-learn estimator
========================

A ridge regression that Amos fits by minibatches, and that scikit-learn clones, scores and searches over.

Run: python examples/estimator.py
"""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV

import amos_ref


class AmosRegressor(RegressorMixin, BaseEstimator):
    def __init__(self, optimizer=None, batch=32, epochs=50):
        self.optimizer, self.batch, self.epochs = optimizer, batch, epochs

    def fit(self, X, y):
        def loss(params, rows):
            apart = X[rows] @ params["w"] + params["b"] - y[rows]
            return apart @ apart / 2 / len(rows), {"w": X[rows].T @ apart / len(rows), "b": np.mean(apart)}

        order = np.random.default_rng(0).permutation(len(X))
        batches = [order[k : k + self.batch] for k in range(0, len(X), self.batch)]
        start = {"w": np.zeros(X.shape[1]), "b": np.zeros(())}
        optimizer = "paper" if self.optimizer is None else self.optimizer
        self.result_ = amos_ref.minimize(loss, start, optimizer, batches=batches, epochs=self.epochs)
        return self

    def predict(self, X):
        return X @ self.result_.params["w"] + self.result_.params["b"]


data: Any = load_diabetes()
X, y = data.data, data.target
X, y = X / X.std(0), (y - y.mean()) / y.std()
grid = {"optimizer__learning_rate": [0.03, 0.3], "epochs": [5, 50]}
search = GridSearchCV(AmosRegressor(amos_ref.Amos(eta=0.3, beta=0.9)), grid, cv=3).fit(X, y)
print(f"best {search.best_params_}: R2 {search.best_score_:.3f} in cross-validation")
