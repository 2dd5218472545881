"""Faults put into engine, prompts, forward, update and checkpoint: the doctor sees each and says which it is."""

import copy
from dataclasses import replace

import pytest
import torch
from models_small import make, sample

from vlm_rl import checkpoint, doctor_model, doctor_steps, models
from vlm_rl.config import AlgoConfig, ModelConfig, OptimConfig
from vlm_rl.doctor_machine import memory_peak, processor_ids
from vlm_rl.doctor_model import Asked, caches_dropped, measure_sync, packing, parity, token_identity, weights_arrive
from vlm_rl.doctor_steps import Patient, same_step, weights_move
from vlm_rl.engine.hf import HFEngine
from vlm_rl.optim import Optimiser
from vlm_rl.policy import Policy
from vlm_rl.types import Sampling
from vlm_rl.update import Limits, Updater

TOLERANCE, BUDGET = doctor_model.TOLERANCES["float32"], 4096
WARM = Sampling(8, 0.7)


def prompts(chat, *names):
    return [chat.prompt(sample(name, size=(90, 60))) for name in names]


def groups(policy, chat, sampling=WARM, names=("one", "two")):
    return Asked(prompts(chat, *names), [], sampling, BUDGET).groups(HFEngine(policy, chat), prompts(chat, *names))


def expanded_twice(prompt, pad):
    ids = [id_ for id_ in prompt.expanded_ids for _ in range(2 if id_ == pad else 1)]
    return replace(prompt, expanded_ids=tuple(ids), token_types=tuple(int(id_ == pad) for id_ in ids))


def cut_inside(prompt, pad):
    end = prompt.expanded_ids.index(pad) + 3
    return replace(prompt, expanded_ids=prompt.expanded_ids[:end], token_types=prompt.token_types[:end])


def one_too_many(prompt, pad):
    return replace(prompt, expanded_ids=(*prompt.expanded_ids, pad), token_types=(*prompt.token_types, 1))


def unmarked(prompt, pad):
    return replace(prompt, token_types=(0,) * len(prompt.token_types))


def test_tokens():
    chat = make()[1]
    good, pad = prompts(chat, "one")[0], chat.placeholder["image"]
    read = lambda prompt: processor_ids(chat, prompt)  # noqa: E731
    assert token_identity(chat, [good, *prompts(chat, "two")], read).status == "pass"
    for fault, said in (
        (expanded_twice, "expanded twice"),
        (cut_inside, "cut inside a image"),
        (one_too_many, "belong to no medium"),
        (unmarked, "token types"),
    ):
        found = token_identity(chat, [good, fault(good, pad)], read)
        assert found.status == "fail" and said in found.cause, found
    other = token_identity(chat, [good], lambda prompt: (7, *prompt.expanded_ids[1:]))
    assert other.status == "fail" and "different from token 0 on" in other.cause


def test_log_probs():
    policy, chat = make()
    wrote = groups(policy, chat)
    assert parity(policy, wrote, 0.7, BUDGET, TOLERANCE).status == "pass"
    hotter = parity(policy, wrote, 1.0, BUDGET, TOLERANCE)
    assert hotter.status == "fail" and "temperature 0.7, not of rollout.temperature=1" in hotter.cause
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(1.3)
        policy.model.model.language_model.layers[0].mlp.up_proj.weight.mul_(0.5)
    assert "not the one that is trained" in parity(policy, wrote, 0.7, BUDGET, TOLERANCE).cause


class Leaky(Policy):
    """A shared-prefix forward whose completions stand one position too far."""

    def pack(self, items):
        row = super().pack(items)
        return replace(row, positions_AL=row.positions_AL + (torch.arange(len(row.ids_L)) >= items[0].lengths[0]).long() * 3)


def test_packing():
    policy, chat = make()
    wrote = groups(policy, chat)
    assert packing(policy, wrote, 0.7, TOLERANCE).status == "pass"
    assert parity(policy, wrote, 0.7, BUDGET, TOLERANCE).status == "pass" and policy.mode == "shared_prefix"
    found = packing(Leaky(policy.model, chat.visual_ids), wrote, 0.7, TOLERANCE)
    assert found.status == "fail" and "model.attention=plain" in found.fix
    assert packing(make(mode="plain")[0], wrote, 0.7, TOLERANCE).status == "not applicable"


def patient(policy, learning_rate=1e-3):
    optimiser = Optimiser(policy, OptimConfig(learning_rate=learning_rate), 4)
    return Patient(policy, optimiser, Updater(policy, optimiser, AlgoConfig(), Limits(0.7, BUDGET, 8)))


def test_weights_that_move_and_do_not():
    policy, chat = make()
    policy.model.model.visual.requires_grad_(False)
    made = patient(policy)
    scored = doctor_model.with_spread(groups(policy, chat), ["accuracy"], 1)
    assert weights_move(made, scored).status == "pass"

    def careless(scored, step):
        with torch.no_grad():
            next(policy.model.model.visual.parameters()).add_(1e-3)
        return made.update(scored, step)

    loose = weights_move(replace(made, update=careless), scored)
    assert loose.status == "fail" and "frozen tensors moved, such as model.visual" in loose.cause
    still = weights_move(replace(made, update=lambda scored, step: {}), scored)
    assert still.status == "fail" and "nothing that is trained moved" in still.cause

    def text_only(scored, step):
        with torch.no_grad():
            for weight in policy.model.model.language_model.parameters():
                weight.add_(1e-3)
        return {}

    policy.model.requires_grad_(True)
    cut = weights_move(replace(patient(policy), update=text_only), scored)
    assert cut.status == "fail" and "model.visual moved although it is trained" in cut.cause


class OwnWeights(HFEngine):
    """An engine beside the trainer, with weights of its own."""

    def __init__(self, policy, chat):
        super().__init__(Policy(copy.deepcopy(policy.model), chat.visual_ids), chat)

    def sleep(self):
        """Nothing to give back."""

    def wake(self):
        """Nothing to take."""


class Unsynced(OwnWeights):
    def load_weights(self, weights):
        list(weights)


class Stale(OwnWeights):
    """Pictures that it has seen are answered from the former weights."""

    def __init__(self, policy, chat):
        super().__init__(policy, chat)
        self.former, self.known = HFEngine(Policy(copy.deepcopy(policy.model), chat.visual_ids), chat), set()

    def generate(self, requests, progress=None):
        out = []
        for request in requests:
            ids = {medium.id for medium in request.prompt.sample.media}
            engine = self.former if ids & self.known else super()
            out += engine.generate([request], progress)
            self.known |= ids
        return out


@pytest.mark.parametrize(
    ("engine", "arrive", "dropped", "said"),
    [
        (OwnWeights, "pass", "pass", ""),
        (Unsynced, "fail", "not applicable", "does not have the trainer's weights"),
        (Stale, "pass", "fail", "only on what it saw before"),
    ],
)
def test_a_sync(engine, arrive, dropped, said):
    policy, chat = make()
    asked = Asked(prompts(chat, "one", "two"), prompts(chat, "three", "four"), WARM, BUDGET)
    found = measure_sync(policy, engine(policy, chat), asked)
    first, second = weights_arrive(found, TOLERANCE), caches_dropped(found, TOLERANCE)
    assert (first.status, second.status) == (arrive, dropped), (first, second)
    assert said in first.cause + second.cause


@pytest.mark.parametrize("lost", ["nothing", "optimiser", "weights"])
def test_a_checkpoint(tmp_path, lost):
    policy, chat = make()
    made, wrote = patient(policy), groups(policy, chat)
    made.update(doctor_model.with_spread(wrote, ["accuracy"], 1), 0)
    state = {"optimizer": made.optimiser.state_dict()}
    path = checkpoint.save(tmp_path, 1, lambda directory: models.save_model(directory, policy.model, chat), state, 1)
    scored = doctor_model.with_spread(wrote[::-1], ["accuracy"], 1)
    want = doctor_steps.step(made, scored)
    model = models.load_model(ModelConfig(path=str(path)), chat) if lost != "weights" else make()[0].model
    again = patient(Policy(model, chat.visual_ids))
    if lost != "optimiser":
        again.optimiser.load_state_dict(checkpoint.load_state(path)["optimizer"])
    found = same_step(want, doctor_steps.step(again, scored), "float32")
    assert found.status == ("pass" if lost == "nothing" else "fail"), found
    assert {"nothing": "", "optimiser": "lacks state", "weights": "are not those that were saved"}[lost] in found.cause


def test_memory():
    policy, chat = make()
    batch = doctor_model.largest_batch(prompts(chat, "one", "two"), 2, 8, BUDGET)
    assert [len(item.completions) for item in batch] == [2, 2] and len(batch[0].completions[0]) == 8
    assert doctor_model.memory(policy, batch, 1.0, 1 << 50, memory_peak).status == "pass"
    found = doctor_model.memory(policy, batch, 1.0, 1000, lambda: 990)
    assert found.status == "fail" and "train.token_budget" in found.fix
    assert all(weight.grad is None for weight in policy.model.parameters())
