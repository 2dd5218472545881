"""Rows of the video benchmarks in their published schemas, each turned into a Sample by one function (row, place) -> Sample.

Videos stay files below the place's folder. How many frames are looked at is the model's business; subtitles are put in by `data.subtitles`.
"""

import re
from dataclasses import replace
from typing import Any

from data.benchmark_fields import (
    Place,
    Row,
    file,
    image,
    key_text,
    letter_gold,
    lettered,
    mapping,
    maybe,
    need,
    option_columns,
    options_of,
    seconds,
    text,
    text_gold,
    texts,
)
from data.benchmarks_image import OPEN, folder_of, subject_of
from vlm_rl.types import LETTERS, Sample

VSI_NUMERIC = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
_VSI_DIRECTION = ("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard")
VSI_CHOICE = (*_VSI_DIRECTION, "object_rel_distance", "route_planning", "obj_appearance_order")
TEMPCOMPASS_TASKS = ("multi-choice", "yes_no", "caption_matching", "captioning")
_DISCIPLINE_FOLDER = {
    "Art & Design": "Art",
    "Humanities & Social Science": "Humanities",
    "Health & Medicine": "Medicine",
    "Tech & Engineering": "Engineering",
}
_CAPTION = re.compile(r"^ {0,8}(?:caption|option|sentence) ([A-Z1-9]) ?[:.] ?(\S.*)$", re.IGNORECASE | re.MULTILINE)
MVBENCH_FPS = 3.0  # of its folders of frames
_EXTENSIONS = (".mp4", ".MP4", ".mkv", ".webm", ".avi")


def mmvu(row: Row, place: Place) -> Sample:
    """MMVU (arXiv 2501.12380): multiple choice with choices {A..E}, or an open question with a short text as key."""
    kind, path = text(row, "question_type"), text(row, "video_path", "video")
    subject = maybe(mapping(row, "metadata"), "subject") or folder_of(path)
    meta: dict[str, Any] = {"question_type": kind, "subject": subject, "cluster": path}
    media, sample_id, question = (file(place, "video", path),), text(row, "id"), text(row, "question")
    if kind == "open-ended":
        return Sample(sample_id, question, key_text(row, "answer"), "text", (), media, meta=meta | OPEN)
    if kind != "multiple-choice":
        raise ValueError(f'the field "question_type" is multiple-choice or open-ended, not {kind[:40]!r}')
    need(row, "choices")
    options = option_columns(mapping(row, "choices"))
    gold = letter_gold(key_text(row, "answer"), len(options))
    return Sample(sample_id, question, gold, "choice", options, media, meta=meta)


def vsibench(row: Row, place: Place) -> Sample:
    """nyu-visionx/VSI-Bench (arXiv 2412.14171): lettered options for six types of question, a number graded by MRA for four."""
    kind, scene = text(row, "question_type"), f"{text(row, 'dataset')}/{text(row, 'scene_name')}"
    meta: dict[str, Any] = {"question_type": kind, "dataset": text(row, "dataset"), "cluster": scene}
    media, sample_id, question = (file(place, "video", f"{scene}.mp4"),), text(row, "id"), text(row, "question")
    key = key_text(row, "ground_truth")
    if kind in VSI_NUMERIC:
        return Sample(sample_id, question, key, "number", (), media, meta=meta | {"grading": "mra"})
    if kind not in VSI_CHOICE:
        raise ValueError(f'the field "question_type" is one of {", ".join((*VSI_NUMERIC, *VSI_CHOICE))}, not {kind[:40]!r}')
    options = options_of(need(row, "options"))
    return Sample(sample_id, question, letter_gold(key, len(options), "ground_truth"), "choice", options, media, meta=meta)


def videommmu(row: Row, place: Place) -> Sample:
    """Video-MMMU (arXiv 2501.13826): the track is the configuration (Perception, Comprehension, Adaptation).

    The video lies in the folder of its discipline. An Adaptation question shows its picture where the record brings one; otherwise it is
    the video's last frame, and the mark in the text reads "the last frame of the video".
    """
    sample_id = text(row, "id")
    subject = subject_of(sample_id)
    meta: dict[str, Any] = {"track": place.config, "question_type": maybe(row, "question_type"), "cluster": sample_id, **subject}
    folder = _DISCIPLINE_FOLDER.get(subject["discipline"], subject["discipline"])
    video = file(place, "video", *(f"{part}{sample_id}.mp4" for part in ((f"{folder}/", "") if folder else ("",))))
    picture = image(row, place, "image")
    question = re.sub(r"<image\s?[1-9]?>", "[the picture]" if picture else "[the last frame of the video]", text(row, "question"))
    row_id, media = "/".join(part for part in (place.config, sample_id) if part), (video, *picture)
    options = options_of(need(row, "options"))
    if options and meta["question_type"] != "open":
        gold = letter_gold(key_text(row, "answer"), len(options))
        return Sample(row_id, question, gold, "choice", options, media, meta=meta)
    return Sample(row_id, question, key_text(row, "answer"), "text", (), media, meta=meta | OPEN)


def videomme(row: Row, place: Place) -> Sample:
    """Video-MME (arXiv 2405.21075): four lettered options; several questions share a video."""
    name = text(row, "videoID")
    meta = {key: text(row, key) for key in ("duration", "domain", "sub_category", "task_type")} | {"cluster": name}
    video = file(place, "video", *(f"{folder}{name}{end}" for folder in ("data/", "") for end in _EXTENSIONS))
    options = options_of(need(row, "options"))
    gold = letter_gold(key_text(row, "answer"), len(options))
    return Sample(text(row, "question_id"), text(row, "question"), gold, "choice", options, (video,), meta=meta)


def mvbench(row: Row, place: Place) -> Sample:
    """OpenGVLab/MVBench (arXiv 2311.17005): the sub-task is the configuration, the key is the text of a candidate.

    `start` and `end` (seconds) of bounded sub-tasks bound the video where `place.bounded` says that it is a whole one; the hub's branch
    "video" has clips that are cut already. Episodic reasoning comes as folders of frames, or as videos made of them. Deviation: frames are
    drawn as from any video; the published code takes the middles of equal parts.
    """
    name, options = text(row, "video"), options_of(need(row, "candidates"), "candidates")
    task = place.config or maybe(row, "task_type", "task")
    bounds = {key: value for key in ("start", "end") if (value := seconds(row, key)) is not None}
    meta: dict[str, Any] = {"task": task, "cluster": name, **bounds}
    gold = text_gold(key_text(row, "answer"), options)
    sample_id = "/".join(part for part in (task, str(place.number)) if part)
    video = replace(file(place, "video", name), **(bounds if place.bounded else {}))
    video = replace(video, fps=MVBENCH_FPS) if video.path and video.path.is_dir() else video
    return Sample(sample_id, text(row, "question"), gold, "choice", options, (video,), meta=meta)


def tempcompass(row: Row, place: Place) -> Sample:
    """TempCompass (arXiv 2403.00476): the configuration is the task: multi-choice, yes_no, caption_matching or captioning.

    A caption is graded by a language model that answers a question from it (`eval.captions`), and by nothing else.
    """
    task, video = place.config or "multi-choice", text(row, "video_id")
    if task not in TEMPCOMPASS_TASKS:
        raise ValueError(f"the TempCompass task is {', '.join(TEMPCOMPASS_TASKS)}, not {task[:40]!r}")
    source, key = text(row, "question"), key_text(row, "answer")
    meta: dict[str, Any] = {"task": task, "dim": text(row, "dim"), "cluster": video}
    media = (file(place, "video", f"{video}.mp4", f"videos/{video}.mp4"),)
    sample_id = f"{task}/{place.number}"
    if task == "captioning":
        return _captioning(sample_id, source, row, meta, media)
    if task == "yes_no":
        return Sample(sample_id, source, key.casefold(), "yesno", (), media, meta=meta)
    if task == "caption_matching":
        return _caption_matching(sample_id, source, key, meta, media)
    choice = lettered(source, key[:1], fewest=4)
    letter, _, words = key.partition(".")
    gold = letter_gold(letter, choice.count)
    if gold and words.strip() in choice.options and text_gold(words.strip(), choice.options) != gold:
        raise ValueError(f'the field "answer" is {key[:80]!r}, but option {gold} reads {choice.options[LETTERS.index(gold)]!r}')
    return Sample(sample_id, choice.question, gold, "choice", choice.options, media, meta=meta | choice.meta)


def _captioning(sample_id: str, source: str, row: Row, meta: dict[str, Any], media: tuple) -> Sample:
    """The gold answer is that of the question which a judge is asked about the caption."""
    asked, (letter, _, words) = lettered(text(row, "mc_question"), fewest=4), text(row, "mc_answer").partition(".")
    gold = letter_gold(letter, asked.count, "mc_answer")
    if not asked.options or not gold or (words.strip() in asked.options and text_gold(words.strip(), asked.options) != gold):
        raise ValueError('the field "mc_question" lists options A., B., a line each, and "mc_answer" names one of them')
    about = {"question": asked.question, "options": asked.options, "answer": gold}
    more = {"grading": "judge", "judged": about, "answer_form": "a description in one or two sentences"}
    return Sample(sample_id, source, asked.options[LETTERS.index(gold)], "text", (), media, meta=meta | more)


def _caption_matching(sample_id: str, source: str, key: str, meta: dict[str, Any], media: tuple) -> Sample:
    captions = list(_CAPTION.finditer(source))
    options = tuple(caption[2].strip() for caption in captions)
    if len(options) < 2:
        raise ValueError('the field "question" lists captions such as "Caption A: ..", a line each')
    stem = source[: captions[0].start()].strip()
    match = _CAPTION.fullmatch(key)
    labels = [caption[1].upper() for caption in captions]
    named = LETTERS[labels.index(match[1].upper())] if match and match[1].upper() in labels else None
    gold = named or text_gold(key, options)
    return Sample(sample_id, stem, gold, "choice", options, media, meta=meta)


def longvideobench(row: Row, place: Place) -> Sample:
    """LongVideoBench (arXiv 2407.15754): option0 to option4 ("N/A" where there is none), the right one by its number.

    Of a video its first `duration` seconds are looked at, as the published loader does.
    """
    path = text(row, "video_path")
    need(row, "option0", "candidates")
    columns = [maybe(row, f"option{i}") for i in range(5)] if "option0" in row else list(texts(row["candidates"], "candidates"))
    kept = [i for i, option in enumerate(columns) if option not in ("", "N/A")]
    options = options_of([columns[i] for i in kept], "option0")
    right = row.get("correct_choice")
    if right is not None and (isinstance(right, bool) or not isinstance(right, int) or (right != -1 and right not in kept)):
        raise ValueError(f'the field "correct_choice" is {right!r}, which is no option (options: {kept})')
    gold = "" if right in (None, -1) else LETTERS[kept.index(right)]
    meta: dict[str, Any] = {key: maybe(row, key) for key in ("duration_group", "question_category", "subtitle_path")} | {"cluster": path}
    meta |= {key: seconds(row, key) for key in ("duration", "starting_timestamp_for_subtitles")}
    video = replace(file(place, "video", f"videos/{path}", path), end=meta["duration"] or None)
    return Sample(text(row, "id"), text(row, "question"), gold, "choice", options, (video,), meta=meta)
