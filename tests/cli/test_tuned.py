"""amos-ref run digits: the best of every grid is the one with the lowest median loss, over several seeds."""

import collections
import json
import statistics

import numpy as np
import pytest
from helpers.command import cells, output_lines, run_json

import amos_ref
from amos_ref import plots, problems, recipe
from amos_ref.cli import main, tuned
from amos_ref.rules import eta_of, slot_shape_of

ARGV = ["run", "digits:hidden=3,batch_size=300,seed=4", "--steps", "12", "--seeds", "3"]


def best_of(runs):
    """By algorithm, the number of the run that is called best; there must be one."""
    found = {run["algorithm"]: k for k, run in enumerate(runs) if run["best"]}
    assert list(found) == ["paper", "closed-form", "adamw"]
    assert sum(run["best"] for run in runs) == 3
    return found


def test_what_is_trained_and_called_best(capsys):
    runs = run_json(capsys, *ARGV)["runs"]
    assert collections.Counter(run["algorithm"] for run in runs) == {"paper": 5, "closed-form": 4, "adamw": 20}
    for name, k in best_of(runs).items():
        medians = {n: statistics.median(run["losses"]) for n, run in enumerate(runs) if run["algorithm"] == name}
        assert min(medians, key=medians.__getitem__) == k
        assert len(set(medians.values())) == len(medians)
    eta = {"hidden/kernel": (2 / 64) ** 0.5, "out/kernel": np.sqrt(1 / 3), ".*": 0.5}
    slots = {"hidden/kernel": (1, 3), ".*": ()}
    mean = 5 / 1347  # of 1347 digits in 5 batches
    wanted = {
        1: ("paper", dict(learning_rate=0.5 / 5**0.5, beta=0.98, eta=eta, slot_shape=slots, clip_value=mean**0.5)),
        7: ("closed-form", dict(alpha_0=3 / 12**0.5, half_life=0.1 * 12, direction="adam", sigma="init")),
        19: ("adamw", dict(learning_rate=0.01, weight_decay=0.1)),
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
    assert len(out) == 4 + 1 + 30 + 2
    assert [k for k, line in enumerate(out[6:-2]) if line.endswith(" best")] == list(best_of(runs).values())
    assert max(map(len, out)) <= 80
    assert out[-2].startswith("Medians over 3 seeds of 12 steps each.")
    assert err[-1].startswith("digits: step 1044 of 1044, adamw, learning_rate=0.1, weight_decay=0.3, loss ")
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
    assert out[-1] == "Interrupted: 2 of 29 choices were tried."
    taken.clear()
    assert main([*ARGV, "--json"]) == 130
    assert json.loads("\n".join(output_lines(capsys)[0]))["interrupted"] is True


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["digits", "--seeds", "0"], "--seeds is 0; it must be 1 or more"),
        (["digits", "--seeds", "2", "--algorithm", "paper"], "--seeds is for the problem digits without --algorithm"),
        (["quadratic", "--seeds", "2"], "--seeds is for the problem digits without --algorithm and --learning-rate"),
        (["digits:batch_size=0"], "minibatches need batch_size >= 1, not 0"),
        (["digits:seed=x"], "seed is 'x'"),
        (["digits:size=3"], "'digits' has no option 'size'; it has hidden, seed, batch_size"),
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
    assert [run["steps"] for run in runs] == [0] * 29


def test_without_words_it_is_the_experiment_of_why_amos(capsys, monkeypatch):
    """The width, the size of a batch and nine epochs are those of the recipe; nothing is trained here."""
    asked = []
    monkeypatch.setattr(tuned, "_train", lambda problems, grid, steps: asked.append((problems, steps)) or ([], False))
    assert main(["run", "digits"]) == 0
    [(found, steps)] = asked
    capsys.readouterr()
    assert [problem.start["hidden"]["kernel"].shape for problem in found] == [(64, 256)] * 5
    assert steps == 9 * len(found[0].batches()) == 9 * 43  # 1347 digits in batches of at most 32


def test_the_recipe_is_that_of_choose():
    """What docs/choosing.md says of the authors' MNIST model, amos_ref.choose gives by itself."""
    params = {
        "Dense_0": {"bias": np.zeros(256), "kernel": np.zeros((784, 256))},
        "Dense_1": {"bias": np.zeros(10), "kernel": np.zeros((256, 10))},
    }
    choice, options = amos_ref.choose(params, family="mnist"), recipe.paper(250, 32)
    for name, entry in choice.items():
        assert eta_of(options["eta"], name, entry.shape) == pytest.approx(entry.eta, rel=1e-15)
        assert slot_shape_of(options["slot_shape"], name, entry.shape) == entry.slot_shape
    assert (options["learning_rate"], options["beta"], options["clip_value"]) == (250**-0.5, 0.98, 32**0.5)
    plain = amos_ref.choose(params)  # another recipe has other slots
    assert plain["Dense_1/kernel"].slot_shape != slot_shape_of(options["slot_shape"], "Dense_1/kernel", (256, 10))


def test_a_plan_of_one_step_has_a_closed_form():
    assert recipe.closed_form(1, 3.0)["alpha_0"] == 0.9
