"""The live console: quiet without a terminal, and safe from what a model writes."""

import io
import logging

import pytest
import rich.console

from vlm_rl.console import Console


def terminal(encoding: str = "utf-8") -> tuple[rich.console.Console, io.BytesIO]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    return rich.console.Console(file=stream, force_terminal=True, width=160, color_system=None, legacy_windows=False), raw


def shown(raw: io.BytesIO, encoding: str = "utf-8") -> str:
    return raw.getvalue().decode(encoding)


def test_a_terminal_shows_progress_reward_and_accuracy() -> None:
    output, raw = terminal()
    with Console(20, output=output) as console:
        console.step(1, {"reward/total": 0.5, "reward/accuracy/raw": 0.25, "loss/kl": 9.0})
        console.step(2, {"reward/total": 1.0, "reward/accuracy/raw": 0.75})
        console.message("evaluating [bold]now")
    text = shown(raw)
    assert "2/20" in text
    assert "reward 0.750" in text
    assert "accuracy 0.500" in text
    assert "evaluating [bold]now" in text


def test_recent_steps_outweigh_old_ones() -> None:
    output, raw = terminal()
    with Console(100, output=output) as console:
        for n in range(1, 51):
            console.step(n, {"reward/total": float(n > 20)})
    assert "reward 1.000" in shown(raw)


def test_a_resumed_run_starts_where_it_was() -> None:
    output, raw = terminal()
    with Console(20, start_step=7, output=output):
        pass
    assert "7/20" in shown(raw)


@pytest.mark.parametrize(
    "hostile",
    [
        "[bold]x[/bold] [/nothing] [link=http://x]y",
        "\x1b[2J\x1b]0;title\x07",
        "\x9b31m",
        "\u202eabc",
        "\ud800",
        "x" * 100_000,
        "",
        "[",
        ":smile:",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_sample_is_shown_as_plain_text(hostile: str, encoding: str) -> None:
    output, raw = terminal(encoding)
    with Console(5, output=output) as console:
        before = len(raw.getvalue())
        console.sample(hostile, {"question": "What colour? é", "completion": hostile, hostile: "z"})
        console.message(hostile)
        console.phase(hostile, 0, 2)
        panel = raw.getvalue()[before:].decode(encoding)
    assert "What colour?" in panel
    assert len(panel) < 30_000
    for forbidden in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e"):
        assert forbidden not in panel
    if hostile.startswith("[bold]"):
        assert "[bold]x[/bold] [/nothing]" in panel


@pytest.mark.parametrize(("done", "visible"), [(13, True), (40, False)])
def test_a_phase_has_a_bar_until_it_is_done(done: int, visible: bool) -> None:
    output, raw = terminal()
    with Console(5, output=output) as console:
        console.phase("evaluation", 0, 40)
        console.phase("evaluation", done, 40)
        console.message("over")
    assert (f"{done}/40" in shown(raw).split("over")[-1]) == visible


@pytest.mark.parametrize("width", [10, 40])
def test_a_narrow_terminal_of_few_characters_is_no_reason_to_stop(width: int) -> None:
    output, raw = terminal("ascii")
    output.width = width
    with Console(5, output=output) as console:
        console.step(1, {"reward/total": 0.5})
        console.sample("a title that is longer than the line", {"completion": "é" * 200})
        console.phase("a phase that is longer than the line", 1, 2)
    assert "?" in shown(raw, "ascii")


def test_without_a_terminal_one_line_every_ten_steps(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO), Console(25) as console:
        for n in range(1, 26):
            console.step(n, {"reward/total": 0.5})
            console.sample("a", {"b": "c"})
            console.phase("rollout", n, 25)
        console.message("done [b]")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split("  ")[0] for line in lines] == ["step 10/25", "step 20/25", "step 25/25", "done [b]"]
    assert "reward 0.500" in lines[0]
    assert capsys.readouterr().out == ""


def test_quiet_can_be_chosen_on_a_terminal() -> None:
    output, raw = terminal()
    with Console(5, quiet=True, output=output) as console:
        console.step(1, {})
        console.sample("a", {"b": "c"})
    assert raw.getvalue() == b""


def test_an_error_inside_passes_and_restores_the_terminal() -> None:
    output, raw = terminal()
    with pytest.raises(KeyboardInterrupt), Console(5, output=output):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in shown(raw)
