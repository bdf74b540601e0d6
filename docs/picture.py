#!/usr/bin/env python3
"""Makes docs/demo.svg from a real run: starts `rollcall demo` in tmux, waits, and draws its screen.

docs/picture.py [path to the rollcall binary]     needs tmux; the default binary is target/release/rollcall
"""
import html, pathlib, re, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/release/rollcall")
WIDTH, HEIGHT, SECONDS = 100, 32, 20
SESSION = "rollcall-picture"
CELL, LINE, PAD = 8.4, 18, 14
BACK, FORE = "#10151c", "#d6dde6"
COLORS = ["#3b4654", "#ff7a70", "#7ee08a", "#f2cc60", "#79b8ff", "#d2a8ff", "#6fdede", "#d6dde6"]
BRIGHT = ["#8b98a8", "#ffa198", "#a5f0ae", "#ffdf8a", "#a5d0ff", "#e2c5ff", "#a0f0f0", "#ffffff"]


def tmux(*words):
    return subprocess.run(["tmux", "-L", SESSION, *words], check=True, capture_output=True, text=True).stdout


def screen():
    tmux("-f", "/dev/null", "new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), f"TERM=xterm-256color {BINARY} demo")
    try:
        time.sleep(SECONDS)
        return tmux("capture-pane", "-e", "-p").rstrip("\n").split("\n")
    finally:
        subprocess.run(["tmux", "-L", SESSION, "send-keys", "C-c"])
        time.sleep(4)
        subprocess.run(["tmux", "-L", SESSION, "kill-server"], capture_output=True)


def style(state, codes):
    """The style after an SGR sequence: colour and weight."""
    numbers = [int(code or 0) for code in codes.split(";")]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            state = {}
        elif code in (1, 2):
            state = {**state, "bold" if code == 1 else "dim": True}
        elif code == 22:
            state = {key: value for key, value in state.items() if key not in ("bold", "dim")}
        elif 30 <= code <= 37:
            state = {**state, "fill": COLORS[code - 30]}
        elif 90 <= code <= 97:
            state = {**state, "fill": BRIGHT[code - 90]}
        elif code == 39:
            state = {key: value for key, value in state.items() if key != "fill"}
        elif code in (38, 48):
            del numbers[: 2 if numbers[:1] == [5] else 4]
    return state


def spans(line):
    state, column = {}, 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b["):
            state = style(state, part[2:-1])
        else:
            # Each column of the screen by itself: fonts differ in how wide a space is.
            for words in re.finditer(r"\S+(?: \S+)*", part):
                yield column + words.start(), words[0], state
            column += len(part)


def draw(lines):
    width, height = WIDTH * CELL + 2 * PAD, len(lines) * LINE + 2 * PAD
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
           'aria-label="The demo of Rollcall in a terminal">')
    yield f'<rect width="100%" height="100%" rx="8" fill="{BACK}"/>'
    yield (f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14" '
           f'fill="{FORE}" xml:space="preserve">')
    for row, line in enumerate(lines):
        y = PAD + (row + 0.75) * LINE
        for column, text, state in spans(line):
            weight = ' font-weight="700"' if state.get("bold") else ""
            dim = ' opacity="0.6"' if state.get("dim") else ""
            fill = f' fill="{state["fill"]}"' if "fill" in state else ""
            x, length = PAD + column * CELL, len(text) * CELL
            yield (f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"'
                   f"{weight}{dim}{fill}>{html.escape(text)}</text>")
    yield "</g></svg>"


(ROOT / "docs/demo.svg").write_text("\n".join(draw(screen())) + "\n")
