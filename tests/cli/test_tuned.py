"""amos-ref run digits: the best of every grid is the one with the lowest median loss, over several seeds."""

import statistics

import pytest
from helpers.command import cells, output_lines, run_json

import amos_ref
from amos_ref import plots, problems
from amos_ref.cli import main, tuned
from amos_ref.rules import PAPER_FLAX

ARGV = ["run", "digits:hidden=3,batch_size=300,seed=4", "--steps", "12", "--seeds", "3"]


def best_of(runs):
    """By algorithm, the number of the run that is called best; there must be one."""
    found = {run["algorithm"]: k for k, run in enumerate(runs) if run["best"]}
    assert list(found) == ["paper", "closed-form", "adamw"]
    assert sum(run["best"] for run in runs) == 3
    return found


def test_what_is_trained_and_called_best(capsys):
    runs = run_json(capsys, *ARGV)["runs"]
    assert [run["algorithm"] for run in runs] == [name for name in ("paper", "closed-form", "adamw") for _ in range(4)]
    for name, k in best_of(runs).items():
        medians = {n: statistics.median(run["losses"]) for n, run in enumerate(runs) if run["algorithm"] == name}
        assert min(medians, key=medians.__getitem__) == k
        assert len(set(medians.values())) == 4
    xi = 0.5 / 5**0.5  # 1347 digits in batches of 300
    wanted = {
        1: ("paper", dict(learning_rate=xi, beta=1 - xi, eta=PAPER_FLAX, slot_shape=PAPER_FLAX)),
        6: ("closed-form", dict(alpha_0=2 / 12**0.5, half_life=1.2, slot_shape=PAPER_FLAX)),
        9: ("adamw", dict(learning_rate=0.01)),
    }
    for k, (name, options) in wanted.items():
        for n, seed in enumerate((4, 5, 6)):
            problem = problems.digits(3, seed, 300)
            result = amos_ref.minimize(problem, optimizer=name, steps=12, **options)
            assert runs[k]["losses"][n] == problem.fun(result.params)[0]
            assert runs[k]["right_on_held_out"][n] == problem.score(result.params)


def test_a_choice_by_the_best_seed_is_caught(capsys, monkeypatch):
    monkeypatch.setattr(tuned.Choice, "loss", property(lambda choice: -min(choice.losses)))
    with pytest.raises(AssertionError):
        test_what_is_trained_and_called_best(capsys)


def test_the_tables(capsys, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "losses", lambda histories, best, ax: drawn.append((list(histories), best)))
    assert main([*ARGV, "--plot", str(tmp_path / "x.svg")]) == 0
    out, err = output_lines(capsys)
    runs = run_json(capsys, *ARGV)["runs"]
    for line, k in zip(out[1:4], best_of(runs).values(), strict=True):
        run = runs[k]
        low, middle, high = sorted(run["losses"])
        assert cells(line)[:5] == [run["algorithm"], f"{middle:.4g}", f"{low:.3g}", "-", f"{high:.3g}"]
    assert len(out) == 4 + 1 + 13 + 2
    assert out[-2].startswith("Medians over 3 seeds of 12 steps each.")
    assert err[-1].startswith("adamw: step 144 of 144, learning_rate=0.1, loss ")
    assert drawn == [(["paper", "closed-form", "adamw"], 0.0)]


def test_ctrl_c_shows_what_was_trained(capsys, monkeypatch):
    right, taken = tuned.minimize, []

    def minimize(*args, **options):
        taken.append(right(*args, **options))
        return taken[-1]._replace(status="interrupted") if len(taken) == 8 else taken[-1]

    monkeypatch.setattr(tuned, "minimize", minimize)
    assert main(ARGV) == 130
    out, _ = output_lines(capsys)
    assert [cells(line)[0] for line in out if line.startswith("paper")] == ["paper"] * 3


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["digits", "--seeds", "0"], "--seeds is 0; it must be 1 or more"),
        (["digits", "--seeds", "2", "--algorithm", "paper"], "--seeds is for the problem digits without --algorithm"),
        (["quadratic", "--seeds", "2"], "--seeds is for the problem digits without --algorithm and --learning-rate"),
        (["digits:batch_size=0"], "minibatches need batch_size >= 1, not 0"),
        (["digits:seed=x"], "seed is 'x'"),
        (["digits:size=3"], "'digits' has no option 'size'"),
    ],
)
def test_wrong_words(argv, words, capsys):
    assert main(["run", *argv]) == 2
    out, err = output_lines(capsys)
    assert out == []
    assert len(err) == 1
    assert words in err[0]


def test_no_steps_are_the_start(capsys):
    runs = run_json(capsys, *ARGV[:2], "--steps", "0", "--seeds", "1")["runs"]
    assert [run["steps"] for run in runs] == [0] * 12
