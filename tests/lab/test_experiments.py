"""What the experiments show, in their smallest form, through the command line."""

import json
from pathlib import Path

from lab_kit import Lab

QUICK = ("--quick", "--json", "--out", "found")


def only(*labels: str) -> list[str]:
    return [word for label in labels for word in ("--only", label)]


def test_shifted_compression_reaches_what_compressed_gradients_do_not(lab: Lab) -> None:
    rows = lab("ridge", *QUICK, "--rounds", "100", *only("dithering 8")).rows
    reached = {label for label, row in rows.items() if row["reached"]}
    assert reached == {f"{name}, dithering 8" for name in ("STAR", "DIANA", "Rand-DIANA", "VR-GDCI")}
    for name in ("DCGD", "GDCI"):
        assert rows[f"{name}, dithering 8"]["error"] > 10 * rows[f"{name}, dithering 8"]["target"]
    assert rows["STAR, dithering 8"]["rounds"] < rows["DIANA, dithering 8"]["rounds"]  # it need not learn its shifts
    assert rows["Rand-DIANA, dithering 8"]["uplink_bytes"] > rows["DIANA, dithering 8"]["uplink_bytes"]


def test_the_steps_that_are_used_are_those_of_theory(lab: Lab) -> None:
    rows = lab("ridge", *QUICK, "--rounds", "5", *only("DIANA, rand-k 25", "GD, theory")).rows
    for row in rows.values():
        assert row["step"] == row["theory_step"]
        assert row["step_from"] == "theory"
        assert row["promise"] == "linear"


def test_diana_takes_fewer_bytes_than_gradient_descent_on_logistic_regression(lab: Lab) -> None:
    rows = lab("logistic", *QUICK, *only("theory")).rows
    assert rows["DIANA, theory, natural"]["reached"]
    assert rows["VR-GDCI, theory, natural"]["reached"]
    assert 1.5 * rows["DIANA, theory, natural"]["uplink_bytes"] < rows["GD, theory"]["uplink_bytes"]


def test_a_libsvm_file_takes_the_place_of_drawn_rows(lab: Lab, tmp_path: Path) -> None:
    lines = [f"{'+1' if row % 3 else '-1'} {1 + row % 7}:1 {8 + row % 5}:{0.5 + row % 2}" for row in range(60)]
    (tmp_path / "rows.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = lab("logistic", *QUICK, "--data", "rows.txt", "--rounds", "30", *only("GD, theory")).rows
    assert rows["GD, theory"]["uplink_content_bytes"] == 30 * 4 * 12 or rows["GD, theory"]["reached"]


def test_masha_converges_where_extragradient_without_an_anchor_stalls(lab: Lab) -> None:
    rows = lab("bilinear", *QUICK, "--rounds", "100", *only("MASHA2", "EF-EG")).rows
    assert rows["MASHA2, top-k 25 %"]["reached"]
    assert rows["EF-EG, top-k 25 %"]["error"] > 2 * rows["EF-EG, top-k 25 %"]["target"]
    assert rows["EF-EG, top-k 25 %"]["rounds"] == 100


def test_top_1_diverges_without_feedback_and_converges_with_it(lab: Lab) -> None:
    rows = lab("error-feedback", *QUICK, *only("top-1")).rows
    assert rows["EF14, top-1"]["reached"]
    assert rows["EF21, top-1"]["reached"]
    assert rows["no feedback, top-1"]["error"] > 1e6
    assert rows["no feedback, top-1"]["promise"] == "nothing"


def test_one_direction_of_a_matrix_is_enough_under_feedback_and_too_few_without(lab: Lab) -> None:
    found = json.loads(lab("low-rank", *QUICK, *only("SVD rank 1")).out)
    rows = {(row["case"], row["label"]): row for row in found}
    assert rows["matrix", "EF21, SVD rank 1"]["reached"]
    assert rows["matrix", "no feedback, SVD rank 1"]["error"] > 1e-2
    with_feedback, without = (rows["digits", f"{who}, SVD rank 1"]["error"] for who in ("EF21", "no feedback"))
    assert with_feedback < without - 0.1


def test_scaffold_reaches_the_minimiser_beside_which_fedavg_ends(lab: Lab) -> None:
    rows = lab("local-training", *QUICK, *only("SCAFFOLD", "FedAvg")).rows
    assert rows["SCAFFOLD"]["reached"]
    assert rows["SCAFFOLD, top-k 10 %"]["reached"]
    assert rows["FedAvg"]["error"] > 100 * rows["FedAvg"]["target"]


def test_masha_plays_a_game_for_a_fraction_of_the_bytes(lab: Lab) -> None:
    rows = lab("adversarial-digits", *QUICK, "--rounds", "30").rows
    dense, rounded, sparse = (rows[label] for label in ("extragradient", "MASHA1, natural", "MASHA2, top-k 10 %"))
    for way in ("uplink_bytes", "downlink_bytes"):
        assert 5 * rounded[way] < dense[way]
        assert 12 * sparse[way] < dense[way]
    assert abs(rounded["error"] - dense["error"]) < 0.1


def test_the_constants_of_a_task_are_estimated_with_the_step_that_follows(lab: Lab) -> None:
    task = (
        "--clients",
        "3",
        "--set",
        "task.hidden=[]",
        "--set",
        "local.work=full",
        "--set",
        "participation.fraction=1",
    )
    found = json.loads(
        lab("constants", *task, "--method", "diana", "--uplink", "natural", "--downlink", "identity", "--json").out
    )
    assert 0 < found["L"] <= found["L_mean"] <= found["L_max"]
    assert found["promise"] == "linear"
    assert 1 / (1 + 6 / 8) < found["step"] * found["L_max"] < 1  # omega is 1/8, and no client weighs more than all
