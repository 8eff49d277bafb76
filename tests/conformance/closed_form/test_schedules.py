"""What a porter of the closed form may write, as plain functions, and what the judge says of it."""

import numpy as np

from amos_ref.conformance import check


def report_of(port):
    return check(port, "quick", algorithm="closed-form")


def lamb(theta, g, state, t, alpha_0, half_life, sigma="init", q=1.0):
    """Sigma is measured anew at each step, without the 0.5 of zeros and ones."""
    rms = np.sqrt(max(np.mean(g * g), 2.0**-125))
    own = np.sqrt(np.mean(theta**2)) if sigma == "init" else sigma
    shrink = 1 / (1 + t / half_life)
    return theta - (alpha_0 * own / rms * shrink * g + alpha_0**2 / 2 / q * shrink * theta), state


def exponential(theta, g, state, t, alpha_0, half_life, sigma, q=1.0):
    """Exponential decay, and rho without 1/2."""
    rms = np.sqrt(max(np.mean(g * g), 2.0**-125))
    shrink = np.exp(-t / half_life)
    return theta - (alpha_0 * sigma / rms * shrink * g + alpha_0**2 / q * shrink * theta), state


def adam_w(theta, g, state, t, lr, half_life, sigma=None, beta1=0.9, beta2=0.999, eps=1e-8):
    """AdamW, which has nothing of the closed form."""
    m = beta1 * state.get("m", 0 * theta) + (1 - beta1) * g
    v = beta2 * state.get("v", 0 * theta) + (1 - beta2) * g * g
    u = m / (1 - beta1 ** (t + 1)) / (np.sqrt(v / (1 - beta2 ** (t + 1))) + eps)
    return theta - lr * (u + 0.01 * theta), {"m": m, "v": v}


def test_a_sigma_of_the_present_entries_is_named():
    assert report_of(lamb).diagnosis.deviations == ["sigma-current-without-half"]


def test_two_mistakes_of_a_plain_function_are_named():
    assert report_of(exponential).diagnosis.deviations == ["schedule-exponential", "decay-without-half"]


def test_another_algorithm_is_told(short_diagnosis):
    text = report_of(adam_w).diagnosis.text
    assert text.startswith("this is not the closed form but AdamW")
    assert "weight decay 0.01" in text
