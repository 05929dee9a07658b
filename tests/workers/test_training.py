"""A real training through the Trainer: its result, its end at any step, and going on from there."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from app.alignment.kit import Kit
from app.domain.dataset import Row
from app.domain.errors import JobCancelled, WorkerStopping
from app.domain.salora_errors import NonFiniteLoss, OutOfMemory
from app.intake.manifest import read_manifest
from tests.workers.salora_world import SaloraWorld, make_salora_world, quiet, task
from workers.checkpoints import read_tensor
from workers.training import CHECKPOINTS, Trained, train

SAME = 1e-6  # absolute, of A and B after ten steps: the order of float32 sums is the same


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp("world"))


def weights(trained: Trained, folder: Path) -> dict[str, torch.Tensor]:
    """`A` and `B` by name, through the gate."""
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(trained.folder / name, folder / name)
    found: dict[str, torch.Tensor] = {}
    with (folder / "adapter_model.safetensors").open("rb") as file:
        for module in read_manifest(folder).modules:
            for entry in (module.lora_a, module.lora_b):
                found[entry.name] = read_tensor(file.fileno(), entry)
    return found


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], atol=SAME), name


def test_a_training_learns_and_tells_each_step(world: SaloraWorld, tmp_path: Path) -> None:
    told, kept = [], []
    trained = train(
        world.training(world.recipe(epochs=2)),
        tmp_path,
        lambda *step: told.append(step),
        lambda folder, step: kept.append((folder.name, step)),
    )
    assert [(done, total, name) for done, total, name, _ in told] == [
        (i, 10, "step") for i in range(1, 11)
    ]
    assert kept == [(f"checkpoint-{i}", i) for i in (3, 6, 9, 10)]
    curve = trained.training.curve
    assert [step.step for step in curve] == list(range(1, 11))
    assert curve[-1].loss < curve[0].loss
    assert all(step.tokens_per_s > 0 for step in curve)
    assert trained.training.resumed_from is None
    ranks = Kit.load(world.kit_folder).config["ranks"]
    shapes = {module.name: (module.d_out, module.d_in) for module in world.kit.modules}
    assert trained.training.trained_parameters == sum(r * sum(shapes[n]) for n, r in ranks.items())


@pytest.mark.parametrize("plain", [False, True], ids=["SaLoRA", "plain LoRA"])
def test_stopped_at_a_step_it_goes_on_and_ends_as_without_the_stop(
    world: SaloraWorld, tmp_path: Path, plain: bool
) -> None:
    recipe = world.recipe(epochs=2, plain_lora=plain)
    whole = train(world.training(recipe), tmp_path / "whole", quiet, quiet)
    kept: list[int] = []

    def stop(done: int, *_: object) -> None:
        if done == 5:
            raise WorkerStopping

    with pytest.raises(WorkerStopping):
        train(world.training(recipe), tmp_path / "part", stop, lambda _, step: kept.append(step))
    assert kept == [3, 5]  # the one of its own, and the one for whoever goes on
    moved = tmp_path / "elsewhere"
    shutil.copytree(
        tmp_path / "part" / CHECKPOINTS / "checkpoint-5", moved / CHECKPOINTS / "checkpoint-5"
    )
    resumed = train(world.training(recipe), moved, quiet, quiet)
    assert resumed.training.resumed_from == 5
    assert [step.step for step in resumed.training.curve] == list(range(1, 11))
    assert_same(weights(whole, tmp_path / "one"), weights(resumed, tmp_path / "two"))


def test_cancelled_it_ends_at_once_and_keeps_nothing(world: SaloraWorld, tmp_path: Path) -> None:
    kept: list[int] = []

    def cancel(done: int, *_: object) -> None:
        if done == 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        train(world.training(world.recipe()), tmp_path, cancel, lambda _, step: kept.append(step))
    assert kept == []


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(
    world: SaloraWorld, tmp_path: Path
) -> None:
    found = [
        weights(
            train(world.training(world.recipe(seed=seed)), tmp_path / name, quiet, quiet),
            tmp_path / f"{name} weights",
        )
        for name, seed in (("one", 1), ("two", 1), ("three", 2))
    ]
    assert_same(found[0], found[1])
    assert any((found[0][name] - found[2][name]).abs().max() > 1e-4 for name in found[0])


class Breaks(nn.Module):
    """A real layer whose output becomes NaN from its n-th call on."""

    def __init__(self, inner: nn.Module, calls: int) -> None:
        super().__init__()
        self.inner, self.left = inner, calls

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        out: torch.Tensor = self.inner(x)
        return out * float("nan") if self.left < 0 else out


def test_a_loss_that_is_no_number_ends_it_and_names_the_last_good_checkpoint(
    world: SaloraWorld, tmp_path: Path
) -> None:
    given, kept = world.training(world.recipe(epochs=2)), []
    given.model.model.norm = Breaks(given.model.model.norm, calls=7)
    with pytest.raises(NonFiniteLoss, match=r"the loss of step 8 is nan; .* is that of step 6"):
        train(given, tmp_path, quiet, lambda _, step: kept.append(step))
    assert kept == [3, 6]


class BreaksBackward(nn.Module):
    """A real layer whose output is right and whose gradient is NaN."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x)
        return out + (0 * out).abs().sqrt()


def test_a_gradient_that_is_no_number_ends_it_before_a_checkpoint_has_it(
    world: SaloraWorld, tmp_path: Path
) -> None:
    given, kept = world.training(world.recipe(checkpoint_steps=1)), []
    given.model.model.norm = BreaksBackward(given.model.model.norm)
    with pytest.raises(NonFiniteLoss, match="step 1 is finite, but its gradient"):
        train(given, tmp_path, quiet, lambda _, step: kept.append(step))
    assert kept == []


class Small(nn.Module):
    """Memory for so many rows and no more."""

    def __init__(self, inner: nn.Module, rows: int) -> None:
        super().__init__()
        self.inner, self.rows = inner, rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and x.shape[0] > self.rows:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        out: torch.Tensor = self.inner(x)
        return out


def test_where_memory_is_too_small_the_batch_is_halved_and_said(
    world: SaloraWorld, tmp_path: Path
) -> None:
    recipe = world.recipe()
    whole = train(world.training(recipe), tmp_path / "whole", quiet, quiet)
    given = world.training(recipe)
    given.model.model.norm = Small(given.model.model.norm, rows=3)
    trained = train(given, tmp_path / "small", quiet, quiet)
    assert trained.warnings == [
        "Memory was too small: the batch was halved to 4, and 2 were accumulated for each step.",
        "Memory was too small: the batch was halved to 2, and 4 were accumulated for each step.",
    ]
    assert trained.training.steps == whole.training.steps
    one, two = weights(whole, tmp_path / "one"), weights(trained, tmp_path / "two")
    for name in one:  # the same rows in each step, summed in another order
        assert torch.allclose(one[name], two[name], atol=1e-4), name


def test_a_row_that_does_not_fit_alone_fails_with_its_sizes(
    world: SaloraWorld, tmp_path: Path
) -> None:
    given = world.training(world.recipe())
    given.model.model.norm = Small(given.model.model.norm, rows=0)
    with pytest.raises(OutOfMemory, match=r"a batch of one row does not fit .* rows of up to"):
        train(given, tmp_path, quiet, quiet)


def test_a_plain_lora_trains_without_the_safety_module(world: SaloraWorld, tmp_path: Path) -> None:
    trained = train(world.training(world.recipe(plain_lora=True)), tmp_path, quiet, quiet)
    assert not (trained.folder / "salora_config.json").exists()
    assert trained.training.curve[-1].loss < trained.training.curve[0].loss


def test_gradient_checkpointing_trains_to_the_same_adapter(
    world: SaloraWorld, tmp_path: Path
) -> None:
    found = [
        weights(
            train(
                world.training(world.recipe(gradient_checkpointing=chosen)),
                tmp_path / name,
                quiet,
                quiet,
            ),
            tmp_path / f"{name} weights",
        )
        for name, chosen in (("with", True), ("without", False))
    ]
    assert_same(*found)


def test_rows_of_different_length_are_padded_and_padding_is_not_learnt(
    world: SaloraWorld, tmp_path: Path
) -> None:
    data: list[Row] = [*task(4), *task(12)[9:]]
    trained = train(world.training(world.recipe(batch_size=7), data), tmp_path, quiet, quiet)
    assert trained.training.steps == 1


def test_a_checkpoint_that_a_kill_cut_off_is_passed_over(
    world: SaloraWorld, tmp_path: Path
) -> None:
    recipe = world.recipe()
    whole = train(world.training(recipe), tmp_path / "whole", quiet, quiet)
    saved = tmp_path / "whole" / CHECKPOINTS
    part = tmp_path / "part" / CHECKPOINTS
    shutil.copytree(saved / "checkpoint-3", part / "checkpoint-3")
    shutil.copytree(saved / "checkpoint-5", part / "checkpoint-4")
    (part / "checkpoint-4" / "trainer_state.json").unlink()  # the last that is written
    (part / "checkpoint-5").mkdir()
    resumed = train(world.training(recipe), tmp_path / "part", quiet, quiet)
    assert resumed.training.resumed_from == 3
    assert_same(weights(whole, tmp_path / "one"), weights(resumed, tmp_path / "two"))
