"""`freemask doctor`: a table, a JSON file, and an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from freemask.cli.commands import main
from freemask.profiling import doctor
from freemask.profiling.doctor import BROKEN, NOTE, OK, Finding


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, doctor.Check]:
    """Two checks that find nothing broken."""
    found: dict[str, doctor.Check] = {
        "python": lambda: [Finding(OK, "3.11", {"cpus": 2})],
        "devices": lambda: [Finding(NOTE, "no GPU")],
    }
    monkeypatch.setattr(doctor, "CHECKS", found)
    return found


def test_a_sound_machine_is_0_and_a_broken_one_1(tmp_path: Path, checks, capsys) -> None:
    file = tmp_path / "new" / "report.json"
    assert main(["doctor", f"--json={file}"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "ok      python     3.11",
        "note    devices    no GPU",
        f"nothing is broken; {file} holds the report, for an issue",
    ]
    assert printed.err == ""
    report = json.loads(file.read_text())
    assert report["broken"] == 0
    assert report["findings"][0] == {"check": "python", "status": "ok", "text": "3.11", "cpus": 2}

    checks["codecs"] = lambda: [Finding(BROKEN, "no encoder")]
    assert main(["doctor", f"--json={file}"]) == 1
    assert "1 broken; " in capsys.readouterr().out
    assert json.loads(file.read_text())["broken"] == 1


def test_the_report_lies_in_out_by_default(tmp_path: Path, checks, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    assert (tmp_path / "out" / "doctor.json").is_file()


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, checks, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["doctor", f"--json={tmp_path / 'file' / 'a.json'}"]) == 2
    assert "cannot be written" in capsys.readouterr().err
