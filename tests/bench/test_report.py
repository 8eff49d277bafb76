"""The head of a report: the machine and its GPU."""

from amos_ref.bench import gpu, report


def test_what_is_known_of_a_gpu(driver, monkeypatch, tmp_path):
    path = tmp_path / "version"
    monkeypatch.setattr(gpu, "_VERSION", str(path))
    assert gpu.describe()["driver"] is None
    path.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x@y)  Sun\n")
    assert report.describe_machine("cuda")["gpu"]["driver"] == "580.65.06"
    assert "gpu" not in report.describe_machine("cpu")
