"""Whole runs that train adapters or named parts: what moves, what is saved, resuming, whom rewards and the KL term ask."""

import json
from pathlib import Path

import pytest
import torch
from runs_small import train_config, write_model, write_rows
from safetensors.torch import load_file
from test_train_runs import Killed, metrics, stop_after

from vlm_rl import cli_doctor, cli_sft, cli_train, doctor_machine, models
from vlm_rl.cli_train import TrainRun
from vlm_rl.config import SftConfig, TrainConfig
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import UserError
from vlm_rl.loading import load

ROOT = Path(__file__).parent.parent
LORA = "model.lora={parts: [text, projector], rank: 4}"
START = ("rewards.aligned.use=self_aligned", "rewards.aligned.target=start", "algo.kl_weight=0.05")


def quick(tmp_path: Path, *overrides: str) -> TrainConfig:
    return train_config(tmp_path, "eval.every=null", "eval.questions=2", "eval.samples=0", *overrides)


def final(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step_4" / name)


@pytest.mark.parametrize("kind", [LORA, "model.lora={parts: [tower], rank: 4, dora: true}", "model.train=[text, projector]"])
def test_a_broken_run_resumed_equals_the_unbroken_one(tmp_path, monkeypatch, kind):
    whole = cli_train.train(quick(tmp_path, f"run_dir={tmp_path}/whole", kind, "algo.kl_weight=0.05"))
    config = quick(tmp_path, f"run_dir={tmp_path}/broken", kind, "algo.kl_weight=0.05")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Killed):
            cli_train.train(config)
    broken = cli_train.train(config)
    assert metrics(broken) == metrics(whole) and (broken / "rollouts.jsonl").read_text() == (whole / "rollouts.jsonl").read_text()
    name = "model.safetensors" if "train=" in kind else "adapter_model.safetensors"
    ends = final(whole, name), final(broken, name)
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(tensor, ends[1][key]) for key, tensor in ends[0].items())
    states = [torch.load(run / "checkpoints" / "step_4" / "trainer_state.pt", weights_only=True) for run in (whole, broken)]
    moments = [[t for state in s["optimizer"]["adam"]["state"].values() for t in state.values()] for s in states]
    assert moments[0] and all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


def test_a_broken_fine_tuning_with_dropout_resumes_to_the_bit(tmp_path, monkeypatch):
    write_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows", responses=True)
    (tmp_path / "sft.yaml").write_text(
        f"run_dir: {tmp_path}/whole\nmodel: {{path: {tmp_path}/model, lora: {{parts: [text], rank: 4, dropout: 0.3}}}}\n"
        f"data: {{name: jsonl, path: {rows}}}\ntrain: {{steps: 4, batch_size: 4}}\noptim: {{learning_rate: 0.01}}\n"
        "eval: {questions: 2}\nrollout: {max_new_tokens: 8}\ncheckpoint: {every: 2}\ntracker: {tensorboard: false}\n"
    )
    whole, sure = (
        cli_sft.sft(load(SftConfig, tmp_path / "sft.yaml", overrides))
        for overrides in ([], ["model.lora.dropout=0", f"run_dir={tmp_path}/sure"])
    )
    config, save = load(SftConfig, tmp_path / "sft.yaml", [f"run_dir={tmp_path}/broken"]), cli_sft.SftRun.save
    with monkeypatch.context() as patch:
        patch.setattr(cli_sft.SftRun, "save", lambda run, step: save(run, step) if step < 3 else killed())
        with pytest.raises(Killed):
            cli_sft.sft(config)
    torch.manual_seed(77)
    broken = cli_sft.sft(config)
    ends = [final(run, "adapter_model.safetensors") for run in (whole, broken, sure)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert not all(torch.equal(tensor, ends[2][name]) for name, tensor in ends[0].items()), "dropout does something"


def killed() -> None:
    raise Killed


def test_the_doctor_finds_nothing_wrong_with_adapters(tmp_path):
    config = train_config(tmp_path, LORA, *START)
    assert cli_doctor.doctor(config, {}, lambda table: None, tmp_path / "found.json") == 0
    checks = json.loads((tmp_path / "found.json").read_text())["checks"]
    passed = {name for name, finding in checks.items() if finding["status"] == "pass"}
    assert {"log-probs", "packing", "weights move", "resume", "memory"} <= passed
    moved = checks["weights move"]["numbers"]
    assert moved["frozen"] > 30 and moved["frozen_moved"] == 0 and moved["moved"] > 0


def test_the_doctor_wants_room_for_what_trains(tmp_path):
    looks = [doctor_machine.look(train_config(tmp_path, *kind)) for kind in ((), (LORA,), ("model.train=[text]",))]
    assert [look.memory_needed for look in looks] == [looks[0].memory_needed * share / 16 for share in (16, 4, 4)]
    assert [look.disk_needed for look in looks] == [looks[0].disk_needed * share / 12 for share in (12, 0, 4)]


def test_only_the_parts_that_train_move(tmp_path):
    run = cli_train.train(quick(tmp_path, "model.train=[tower]", "optim.part_learning_rates.tower=0.01", "train.steps=1"))
    start, end = load_file(tmp_path / "model" / "model.safetensors"), load_file(run / "checkpoints" / "step_1" / "model.safetensors")
    moved = {name for name, tensor in start.items() if not torch.equal(tensor, end[name])}
    tower = {name for name in start if name.startswith("visual.") and "merger" not in name}  # as files name it
    assert moved == tower
    state = torch.load(run / "checkpoints" / "step_1" / "trainer_state.pt", weights_only=True)
    assert len(state["optimizer"]["adam"]["state"]) == len(tower), "the optimiser holds what trains and nothing else"


def test_the_start_and_the_reference_are_the_policy_without_its_adapters_and_no_copy_is_loaded(tmp_path, monkeypatch):
    loaded, whole = [], models.load_model
    monkeypatch.setattr(models, "load_model", lambda *args, **kwargs: loaded.append(args) or whole(*args, **kwargs))
    mine = metrics(cli_train.train(quick(tmp_path, LORA, *START)))
    assert len(loaded) == 1
    with monkeypatch.context() as patch:
        patch.setattr(TrainRun, "reference", property(TrainRun.load_start))
        patch.setattr(TrainRun, "start_engine", property(lambda run: HFEngine(run.load_start(), run.chat)))
        theirs = metrics(cli_train.train(quick(tmp_path, LORA, *START, f"run_dir={tmp_path}/copies")))
    assert len(loaded) == 4, "one policy and two copies"
    assert mine == theirs
    assert mine[-1]["loss/kl"] > 0 and mine[0]["loss/kl"] == 0 and len({line["reward/aligned/raw"] for line in mine}) == 4


def test_a_copy_is_loaded_only_where_one_is_asked(tmp_path, monkeypatch):
    loaded, whole = [], models.load_model
    monkeypatch.setattr(models, "load_model", lambda *args, **kwargs: loaded.append(args) or whole(*args, **kwargs))
    for i, (overrides, copies) in enumerate([((), 1), (START[:2], 2), (START, 2)]):
        loaded.clear()
        cli_train.train(quick(tmp_path, "train.steps=1", f"run_dir={tmp_path}/{i}", *overrides))
        assert len(loaded) == copies, overrides


def test_a_frozen_weight_that_moves_stops_the_run(tmp_path, monkeypatch):
    whole = TrainRun.updater.func

    def disturbed(run):
        updater = whole(run)
        weight = run.policy.model.model.visual.patch_embed.proj.weight

        def update(scored, step):
            found = updater(scored, step)
            with torch.no_grad():
                weight.view(-1)[7] = torch.nextafter(weight.view(-1)[7], torch.tensor(9.0))
            return found

        update.state_dict = updater.state_dict
        return update

    monkeypatch.setattr(TrainRun, "updater", property(disturbed))
    for kind in (LORA, "model.train=[text]"):
        with pytest.raises(UserError, match=r"step 1: 1 of \d+ frozen tensors moved, such as model\.visual\.patch_embed\.proj\.weight"):
            cli_train.train(quick(tmp_path, kind, f"run_dir={tmp_path}/{kind[6:10]}"))


def test_a_part_that_no_gradient_reaches_stops_the_run(tmp_path, monkeypatch):
    from vlm_rl.policy import Policy

    whole = Policy._packed

    def blind(self, row, at_T):
        with monkeypatch.context() as patch:
            features = type(self.model.model).get_image_features
            patch.setattr(type(self.model.model), "get_image_features", lambda *a, **k: _detached(features(*a, **k)))
            return whole(self, row, at_T)

    monkeypatch.setattr(Policy, "_packed", blind)
    with pytest.raises(UserError, match=r"step 1: no weight of the tower moved although it trains: no gradient reaches it"):
        cli_train.train(quick(tmp_path, "model.lora={parts: [text, tower], rank: 4}"))


def _detached(out):
    out.pooler_output = tuple(t.detach() for t in out.pooler_output)
    return out


def test_a_run_goes_on_with_the_same_frozen_weights_only(tmp_path, monkeypatch):
    config = quick(tmp_path, LORA)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Killed):
            cli_train.train(config)
    write_model(tmp_path / "model", seed=4)
    with pytest.raises(UserError, match=r"the weights that do not train are not those that .*step_2 was trained with; put .*model back"):
        cli_train.train(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((LORA, "model.train=[text]"), "model.lora freezes the model itself"),
        ((LORA, "optim.part_learning_rates.tower=1e-6"), r"part_learning_rates\.tower: this part does not train; text, projector does"),
        ((LORA, "algo.kl_weight=0.1", "algo.reference.kind=ema"), "algo.reference.kind=ema: with model.lora the reference is"),
        (("model.lora={parts: [text], dropout: 0.1}",), "dropped inputs are not those that were sampled; write 0 or use vlm-rl sft"),
        (("model.lora={parts: []}",), "lora.parts"),
        (("model.lora={parts: [head]}",), "'text', 'tower' or 'projector'"),
        (("model.lora={ranks: 4}",), "did you mean 'rank'"),
        (("model.path=null", "model.scratch={}", "model.lora={}"), r"model\.lora needs model\.path"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train_config(tmp_path, *overrides)


def test_the_fragment_lies_over_the_quickstart():
    config = load(TrainConfig, ROOT / "configs/quickstart.yaml", [f"extends={ROOT / 'configs/fragments/lora.yaml'}"])
    assert config.model.lora is not None and config.model.lora.parts == ("text",) and config.model.path == "data/policies/easy_vqa"
    assert json.loads(config.model_dump_json())["model"]["lora"]["rank"] == 16
