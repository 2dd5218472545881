"""Talking to judges: prompts from files, strict reading of replies, and a guard against answers without content. It asks nobody.

The policy writes part of what a judge reads and is paid for the reply, so its text is hostile: it can open or close no section of a prompt,
its length is capped, and a reply earns only in the one form that was asked for.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vlm_rl.config import project_path
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Reply

PROMPTS = ("thinking", "trained", "yes_no", "principle", "pairwise", "rubric", "step", "conclude", "stances")
PROMPTS += ("acknowledged", "relied", "supported", "stated")
MOST_CHARACTERS = 12_000  # of one field
LEAST_MASS = 0.5  # of yes and no among the first tokens, for P(yes) to mean anything

# Answers without content that judges were found to accept (arXiv 2507.08794).
MASTER_KEYS = (
    " ",
    ".",
    ",",
    ":",
    "Thought process:",
    "Let's solve this problem step by step.",
    "Solution",
    "解",
    "かいせつ",
    "Respuesta",
)
Field = str | int | Sequence[str] | None

_HERE = Path(__file__).with_name("prompts")
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_TAG = re.compile(r"<(?=\s*[/|!]|[A-Za-z_])")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
# What only announces an answer, the master keys and more of their kind.
_OPENER = re.compile(
    r"(?<!\S)(?:"
    r"let(?:'s| us| me) (?:solve|think|work|reason)(?: (?:about|through|on))?(?: (?:it|this|the)(?: (?:problem|question|task))?)?(?: out)?"
    r"|step by step|(?:thought|thinking|reasoning|solution) process|thoughts?|reasoning|explanation|analysis|boxed"
    r"|(?:so )?(?:here is |here's )?(?:the |my )?(?:final |correct )?(?:answer|solution|response)(?: is)?"
    r"|解|解答|解説|解法|答案|答え|かいせつ|(?:la )?respuesta(?: final)?|solución|réponse|antwort|lösung"
    r")(?!\S)"
)
_SCORE = re.compile(r"<(?P<tag>score|answer)>", re.IGNORECASE)
_CHOICE = re.compile(r"<choice>", re.IGNORECASE)
_CONCLUSION = re.compile(r"<conclusion>", re.IGNORECASE)
_STANCES = re.compile(r"<stances>", re.IGNORECASE)
STANCES = ("reasoning", "answer", "inserted", "following", "second", "flaw")
_NUMBER = re.compile(r"0|1|0?\.[0-9]{1,9}|1\.0{1,9}")


def render(name: str, **fields: Field) -> str:
    """The prompt of that name, or of a user's own file, with the fields put in; those that are None count as not given.

    "thinking" and "trained" (for a judge that learnt the rubric): question, trace. "yes_no": trace, answer. "principle": question,
    principle, response. "pairwise": question, first, second. "rubric": question, criteria, response. "step": question, before, step.
    "conclude": question, trace. "stances": question and the parts of two turns.

    All prompts take an `item`, the row's id, for judges that know the rows. Every field is made harmless as `harmless` says. Raises
    UserError for an unknown name, an unreadable file, and a field that the prompt needs and did not get.
    """
    given = {key: _harmless_field(value) for key, value in fields.items() if value is not None}
    try:
        return _JINJA.from_string(_source(name)).render(given).strip()
    except TemplateError as error:
        raise UserError(f"prompt '{name}': {error}; given: {', '.join(given) or 'nothing'}") from None


def _source(name: str) -> str:
    path = project_path(name) if name.endswith(".txt") else _HERE / f"{name}.txt"
    if path.parent == _HERE and path.stem not in PROMPTS:
        raise UserError(f"{unknown('prompt', name, PROMPTS)}; or write the path of a .txt file of your own")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"prompt '{name}': {path} cannot be read: {error}") from None


def _harmless_field(value: str | int | Sequence[str]) -> str | int | list[str]:
    return value if isinstance(value, int) else harmless(value) if isinstance(value, str) else [harmless(text) for text in value]


def harmless(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text as it may stand in a prompt: at most `most` characters, and no tag. "</trace>" becomes "‹/trace>", "x < y" stays.

    Chat templates' own marks ("<|im_end|>") and media placeholders ("<image>") are tags too. Control characters are left out.
    """
    cut = text if len(text) <= most else f"{text[:most]} [cut here: {len(text)} characters]"
    plain = "".join(char for char in cut if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    return _TAG.sub("‹", plain)


def section(prompt: str, name: str) -> str | None:
    """The text of a rendered prompt's section, without its delimiters, None where there is none.

    Delimiters are whole lines. Only the outermost count, so that a text which holds them too cannot end its own section.
    """
    start = re.search(rf"^<{name}>\n", prompt, re.MULTILINE)
    end = prompt.rfind(f"\n</{name}>\n")
    return prompt[start.end() : end] if start and end >= start.end() - 1 else None


def read_score(text: str) -> float | None:
    """The number in [0, 1] inside the last score tag of a reply, or None: nothing else is a score.

    A judge trained to write its score inside an answer tag is read there when it wrote no score tag; a reply that is nothing but a number
    is one too. Before the last `</think>`, or in a think block left open, nothing is read. ".7", "0.7", "0.85", "1" and "1.00" are scores;
    "8/10", "5", "-0.5", "0.5 or 0.6" and an unclosed tag are not.
    """
    said = _said(text)
    tags = list(_SCORE.finditer(said))
    own = [tag for tag in tags if tag["tag"].lower() == "score"] or tags
    number = _inside(said, own[-1]) if own else said.strip()
    return float(number) if number is not None and _NUMBER.fullmatch(number) else None


def read_choice(text: str) -> Literal["first", "second", "tie"] | None:
    """What the last choice tag of a reply to a pairwise prompt says, None for anything else."""
    said = _said(text)
    tags = list(_CHOICE.finditer(said))
    choice = (_inside(said, tags[-1]) or "").lower() if tags else ""
    return cast(Literal["first", "second", "tie"], choice) if choice in ("first", "second", "tie") else None


def read_conclusion(text: str) -> str | None:
    """What the last conclusion tag of a reply to a conclude prompt says ("B", "NONE", "MULTI", words), None for anything else."""
    said = _said(text)
    tags = list(_CONCLUSION.finditer(said))
    return (_inside(said, tags[-1]) or None) if tags else None


def read_stances(text: str) -> dict[str, str] | None:
    """The JSON object in the last stances tag of a reply to a stances prompt: texts under the keys STANCES. None for anything else."""
    said = _said(text)
    tags = list(_STANCES.finditer(said))
    try:
        tree = json.loads(_inside(said, tags[-1]) or "" if tags else "")
    except (ValueError, RecursionError):
        return None
    good = isinstance(tree, dict) and all(isinstance(tree.get(key), str) for key in STANCES)
    return {key: tree[key].strip() for key in STANCES} if good else None


def read_yes_no(text: str) -> bool | None:
    """Whether a reply is the one word yes or no, marks around it aside; None for anything else."""
    return _yes_or_no(_said(text))


def yes_probability(reply: Reply) -> float | None:
    """P(yes) / (P(yes) + P(no)) by the alternatives of the first token, where they hold at least LEAST_MASS of probability; else 1.0 or 0.0
    by the reply's text; None where it says neither, or there is no reply.
    """
    if reply.error is not None:
        return None
    mass = _yes_no_mass(reply.alternatives)
    if sum(mass.values()) >= LEAST_MASS:
        return mass[True] / sum(mass.values())
    said = read_yes_no(reply.text)
    return None if said is None else float(said)


def content_free(answer: str) -> bool:
    """Whether there is nothing in an answer that a judge could be asked about: no letter or digit, or only words that announce an answer.

    The MASTER_KEYS are, alone, repeated or joined. Such an answer earns nothing and no judge is asked. Where a reference answer is itself
    one of these words, compare before asking this.
    """
    visible = "".join(char for char in unicodedata.normalize("NFKC", answer) if unicodedata.category(char) != "Cf")
    words = " ".join(_WORD.findall(visible.casefold().replace("’", "'")))
    return not _OPENER.sub("", words).strip()


def _said(text: str) -> str:
    """What follows the thinking of a judge that thinks."""
    after = text.rpartition("</think>")[2]
    return "" if "<think>" in after else after


def _inside(text: str, tag: re.Match[str]) -> str | None:
    """What stands between an opening tag and its closing one, None when that is missing."""
    end = re.compile(f"</{tag.group()[1:]}", re.IGNORECASE).search(text, tag.end())
    return text[tag.end() : end.start()].strip() if end else None


def _yes_or_no(text: str) -> bool | None:
    return {"yes": True, "no": False}.get(text.strip().strip("*_`\"'.!").strip().lower())


def _yes_no_mass(alternatives: Mapping[str, float]) -> dict[bool, float]:
    mass = {True: 0.0, False: 0.0}
    for token, logprob in alternatives.items():
        said = _yes_or_no(token)
        if said is not None:
            mass[said] += math.exp(min(logprob, 0.0))
    return mass
