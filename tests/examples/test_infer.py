"""Laws of dressing people with a trained model, of any trainer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import infer
import numpy as np
import pytest
import torch
from catvton.generate import generate
from catvton.model import build_catvton
from common.randomness import sample_generators
from common.synthetic import render_sample
from common.tiny_vae import new_tiny_vae
from common.trained import Changes, load_trained
from common.validation import averaged_weights
from common.vton_data import get_vton_dataset
from common.whole_split import read_batches
from diffusers.training_utils import EMAModel
from dit.generate import generate as generate_dit
from dit.model import build_dit
from dit.objectives import FlowMatching
from PIL import Image
from torch import Tensor
from vtongan.model import build_vtongan

import curriculum_sampler as cs

from .trainer_runs import EXAMPLES, TRAINERS, Runs, latest

SIZE = (60, 80)  # of a person's picture, not of the models


@pytest.fixture(scope="module")
def trained_run(
    runs_of: Callable[[str], Runs], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of a run of a trainer; read it, do not write into it."""
    made: dict[str, Path] = {}

    def folder_of(trainer: str) -> Path:
        if trainer not in made:
            made[trainer] = tmp_path_factory.mktemp(f"trained-{trainer}")
            more = ["--use_pose"] if trainer == "dit" else []
            assert runs_of(trainer)(made[trainer], "--ema_decay", 0.5, *more) == 0
        return made[trainer]

    return folder_of


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    sample = render_sample("easy", 7, seed=3, height=SIZE[1], width=SIZE[0])
    made = {
        "person": sample.image,
        "cloth": sample.cloth,
        "mask": sample.agnostic_mask,
        "cloth_mask": sample.cloth_mask,
        "pose": sample.pose,
    }
    for name, picture in made.items():
        picture.save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in made}


def words(pictures: dict[str, Path], **changes: Any) -> list[str]:
    given = {**pictures, **changes}
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB"))


def flat_batch(needs: tuple[str, ...] = ()) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(3, 2, 3, 32, 24, generator=generator) * 2 - 1
    mask = torch.zeros(2, 1, 32, 24)
    mask[:, :, 8:24, 6:18] = 1
    batch = {"image": drawn[0], "cloth": drawn[1], "agnostic_mask": mask, "agnostic": drawn[0] * (1 - mask)}
    batch |= {"pose": drawn[2], "cloth_mask": torch.ones(2, 1, 32, 24)}
    return {**batch, "category": torch.tensor([0, 2])}


def generators() -> list[torch.Generator]:
    return sample_generators(1, "test", 0, ["a", "b"])


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_person_comes_back_at_its_own_size_and_the_same_every_time(
    trainer: str, trained_run: Callable[[str], Path], pictures: dict[str, Path], tmp_path: Path
) -> None:
    given = [str(trained_run(trainer)), *words(pictures), "--device=cpu"]
    for name in ("one", "two"):
        infer.main([*given, f"--output={tmp_path / 'new' / name}.png"])
    one, two = (pixels(tmp_path / "new" / f"{name}.png") for name in ("one", "two"))
    assert one.shape == (80, 60, 3)
    assert (one == two).all()
    if trainer != "vtongan":  # which draws no noise
        infer.main([*given, f"--output={tmp_path / 'other.png'}", "--seed=7"])
        assert (one != pixels(tmp_path / "other.png")).any()


@pytest.mark.parametrize("trainer", TRAINERS)
def test_repainting_keeps_the_original_outside_the_mask_and_nothing_of_it_inside(
    trainer: str, trained_run: Callable[[str], Path], pictures: dict[str, Path], tmp_path: Path
) -> None:
    given = [str(trained_run(trainer)), *words(pictures)]
    infer.main([*given, f"--output={tmp_path / 'plain.png'}"])
    infer.main([*given, f"--output={tmp_path / 'kept.png'}", "--repaint"])
    plain, kept, person = (
        pixels(tmp_path / "plain.png"),
        pixels(tmp_path / "kept.png"),
        pixels(pictures["person"]),
    )
    inside = np.asarray(Image.open(pictures["mask"]).convert("L")) >= 128
    assert (kept[~inside] == person[~inside]).all()
    assert (kept[inside] == plain[inside]).all()
    assert (plain[~inside] != person[~inside]).any()


@pytest.mark.parametrize("trainer", TRAINERS)
def test_averages_are_used_unless_the_trained_weights_are_asked_for(
    trainer: str, trained_run: Callable[[str], Path]
) -> None:
    folder = trained_run(trainer)
    ema, trained = (load_trained(folder, weights=weights) for weights in ("ema", "trained"))
    assert (ema.trainer, ema.step, ema.height, ema.width) == (trainer, 8, 32, 24)
    one, two = (model.dress(flat_batch(), generators()) for model in (ema, trained))
    assert one.shape == (2, 3, 32, 24)
    assert one.dtype == torch.float32
    assert one.abs().max() <= 1
    assert not torch.equal(one, two)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_is_painted_is_what_the_trainer_paints_in_its_validation(
    trainer: str, trained_run: Callable[[str], Path]
) -> None:
    folder = trained_run(trainer)
    saved = latest(folder)
    seed = saved["args"]["seed"]
    batch = flat_batch()
    network: torch.nn.Module
    if trainer == "catvton":
        catvton = build_catvton("tiny", train_all=True, seed=seed)
        network, state = catvton.unet, dict(catvton.trainable())
    elif trainer == "dit":
        dit = build_dit("tiny", use_pose=True, seed=seed)
        network, state = dit.network, dict(dit.trainable())
    else:
        gan = build_vtongan("tiny", perceptual="none", seed=seed)
        network, state = gan.dresser, gan.state()

    def painted() -> Tensor:
        if trainer == "catvton":
            return generate(catvton, batch, generators(), steps=2, guidance=1.5, eta=0.0)
        if trainer == "dit":
            return generate_dit(dit, FlowMatching(), batch, generators(), steps=2, guidance=1.5)
        result: Tensor = network(batch).result.detach()
        return result

    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(saved["model"][name])
    network.eval()
    averaged = list(network.parameters())
    ema = EMAModel(averaged)
    ema.load_state_dict(saved["ema"])
    assert torch.equal(load_trained(folder, weights="trained").dress(batch, generators()), painted())
    with averaged_weights(ema, averaged):
        expected = painted()
    assert torch.equal(load_trained(folder).dress(batch, generators()), expected)
    if trainer != "vtongan":
        more_steps = load_trained(folder, changes=Changes(steps=5)).dress(batch, generators())
        assert not torch.equal(more_steps, expected)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_picture_does_not_depend_on_who_else_is_in_the_batch(
    trainer: str, trained_run: Callable[[str], Path]
) -> None:
    trained = load_trained(trained_run(trainer))
    together = trained.dress(flat_batch(), generators())
    alone = {name: value[1:] for name, value in flat_batch().items()}
    assert torch.allclose(trained.dress(alone, generators()[1:]), together[1:], atol=1e-4)


@pytest.mark.parametrize(("trainer", "looked_at"), [("dit", ["pose"]), ("vtongan", ["cloth_mask", "pose"])])
def test_a_picture_that_the_model_looks_at_cannot_be_left_out(
    trainer: str,
    looked_at: list[str],
    trained_run: Callable[[str], Path],
    pictures: dict[str, Path],
    tmp_path: Path,
) -> None:
    for name in looked_at:
        given = words(pictures, **{name: None})
        with pytest.raises(cs.ArgumentError, match=rf"{trainer} model looks at .*Pass --{name}"):
            infer.main([str(trained_run(trainer)), *given, f"--output={tmp_path / 'x.png'}"])
        batch = {key: value for key, value in flat_batch().items() if key != name}
        with pytest.raises(cs.ArgumentError, match=f"there is no {name}"):
            load_trained(trained_run(trainer)).dress(batch, generators())


def test_the_category_is_told_to_a_dit_or_left_open(
    trained_run: Callable[[str], Path], pictures: dict[str, Path], tmp_path: Path
) -> None:
    seen = []
    for category in (None, "upper_body", "dresses"):
        path = tmp_path / f"{category}.png"
        infer.main([str(trained_run("dit")), *words(pictures, category=category), f"--output={path}"])
        seen.append(pixels(path).tobytes())
    assert len(set(seen)) == 3


def test_a_data_set_goes_into_a_folder_or_onto_a_sheet(
    trained_run: Callable[[str], Path], runs_of: Callable[[str], Runs], tmp_path: Path
) -> None:
    shards = runs_of("vtongan").shards
    given = [
        str(trained_run("vtongan")),
        f"--data_root={shards}",
        "--split=val",
        "--limit=2",
        "--batch-size=4",
    ]
    infer.main([*given, f"--output={tmp_path / 'folder'}"])
    found = sorted(
        str(path.relative_to(tmp_path / "folder")) for path in (tmp_path / "folder").rglob("*.png")
    )
    assert len(found) == 6
    assert found[0] == "easy/val-easy-000000.png"
    infer.main([*given, f"--output={tmp_path / 'sheet.png'}"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 6 * 160
    given[0] = str(trained_run("catvton"))  # a GAN leaves what is outside the mask by itself
    infer.main([*given, f"--output={tmp_path / 'kept'}", "--repaint"])
    dataset = get_vton_dataset(data_root=shards, split="val", height=32, width=24)
    batch = next(read_batches(dataset, [cs.Draw("easy", 0)], batch_size=1, num_workers=0))
    outside = (batch["agnostic_mask"][0] < 0.5).expand(3, -1, -1)
    kept = torch.from_numpy(pixels(tmp_path / "kept" / "easy" / "val-easy-000000.png").copy()).permute(
        2, 0, 1
    )
    assert torch.allclose(kept[outside].float(), (batch["image"][0][outside] + 1) * 127.5, atol=0.51)


def test_a_picture_of_a_data_set_is_the_same_alone_and_among_others(
    trained_run: Callable[[str], Path], runs_of: Callable[[str], Runs], tmp_path: Path
) -> None:
    given = [str(trained_run("catvton")), f"--s3_prefixes={runs_of('catvton').shards}", "--split=val"]
    for size in (1, 7):
        infer.main([*given, f"--batch_size={size}", f"--output={tmp_path / str(size)}"])
    name = "hard/val-hard-000001.png"
    one, other = (pixels(tmp_path / size / name).astype(int) for size in ("1", "7"))
    assert abs(one - other).max() <= 1


def test_an_autoencoder_that_has_moved_is_asked_for_and_another_is_refused(
    runs_of: Callable[[str], Runs], tmp_path: Path
) -> None:
    torch.manual_seed(4)
    new_tiny_vae((16, 32)).save_pretrained(tmp_path / "vae")
    for trainer in ("catvton", "dit"):
        run = tmp_path / trainer
        more = ("--pretrained_vae_name_or_path", tmp_path / "vae", "--max_steps_this_run", 1)
        assert runs_of(trainer)(run, *more) == 0
    shutil.move(tmp_path / "vae", tmp_path / "moved")
    other = new_tiny_vae((16, 32))
    with torch.no_grad():
        other.quant_conv.weight[0] += 1
    other.save_pretrained(tmp_path / "other")
    for trainer in ("catvton", "dit"):
        run = tmp_path / trainer
        with pytest.raises(
            cs.ArgumentError, match=r"--pretrained_vae_name_or_path .*/vae.*If they have moved"
        ):
            load_trained(run)
        load_trained(run, changes=Changes(vae=str(tmp_path / "moved"))).dress(flat_batch(), generators())
        with pytest.raises(cs.StateMismatchError, match=r"was trained on the base.*Pass --pretrained"):
            load_trained(run, changes=Changes(vae=str(tmp_path / "other")))


def test_a_run_without_averages_says_so(runs_of: Callable[[str], Runs], tmp_path: Path) -> None:
    assert runs_of("vtongan")(tmp_path, "--no_ema", "--max_steps_this_run", 1) == 0
    with pytest.raises(cs.ArgumentError, match=r"--no_ema\. Pass --weights trained"):
        load_trained(tmp_path)
    load_trained(tmp_path, weights="trained").dress(flat_batch(), generators())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"person": "absent.png"}, "--person absent.png"),
        ({"cloth": None}, "--cloth is missing"),
        ({"data_root": "shards"}, "--person is of one picture and --data_root"),
        ({"height": 0}, "--height 0"),
        ({"attention_weights": "x"}, "Got both a checkpoint"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(
    more: dict[str, Any], message: str, pictures: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(cs.ArgumentError, match=message):
        infer.main(["no-such-run", *words(pictures, **more), f"--output={tmp_path / 'x.png'}"])


def test_masks_that_do_not_fit_or_are_empty_are_refused(pictures: dict[str, Path], tmp_path: Path) -> None:
    Image.new("L", (30, 40), 255).save(tmp_path / "small.png")
    Image.new("L", SIZE, 0).save(tmp_path / "black.png")
    output = f"--output={tmp_path / 'x.png'}"
    with pytest.raises(cs.ArgumentError, match=r"small\.png has 30 x 40 pixels and --person 60 x 80"):
        infer.main(["no-such-run", *words(pictures, mask=tmp_path / "small.png"), output])
    with pytest.raises(cs.ArgumentError, match="black all over: white marks the part to paint"):
        infer.main(["no-such-run", *words(pictures, mask=tmp_path / "black.png"), output])


def test_a_device_that_is_not_there_and_an_output_of_no_kind_are_refused(
    trained_run: Callable[[str], Path], pictures: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(cs.ArgumentError, match="does not say of which kind"):
        infer.main(["no-such-run", *words(pictures), f"--output={tmp_path / 'x'}"])
    given = [str(trained_run("vtongan")), *words(pictures), f"--output={tmp_path / 'x.png'}"]
    with pytest.raises(cs.ArgumentError, match=r"--device nowhere: it cannot be used here"):
        infer.main([*given, "--device=nowhere"])


def test_steps_mean_nothing_to_a_gan_and_odd_sizes_are_refused(trained_run: Callable[[str], Path]) -> None:
    with pytest.raises(cs.ArgumentError, match="--steps 5 means nothing to a VTON-GAN"):
        load_trained(trained_run("vtongan"), changes=Changes(steps=5))
    for trainer in TRAINERS:
        with pytest.raises(cs.ArgumentError, match="--height 33 --width 24"):
            load_trained(trained_run(trainer), changes=Changes(height=33))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="there is no such checkpoint"):
        load_trained(tmp_path)
    (tmp_path / "damaged.pt").write_bytes(b"PK and no more")
    with pytest.raises(cs.StorageError, match="no checkpoint of ours"):
        load_trained(tmp_path / "damaged.pt")
    torch.save({"format_version": 9, "trainer": "catvton"}, tmp_path / "newer.pt")
    with pytest.raises(cs.StateMismatchError, match="format 9"):
        load_trained(tmp_path / "newer.pt")


def test_the_command_line_answers_help_without_torch_and_tells_errors_in_one_line(tmp_path: Path) -> None:
    for script in ("infer.py", "evaluate.py"):
        code = f"import sys; sys.modules['torch'] = None; sys.argv = ['{script}', '--help']; import runpy; runpy.run_path('{EXAMPLES / script}', run_name='__main__')"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert said.returncode == 0, said.stderr
        assert "--weights" in said.stdout
    command = [sys.executable, str(EXAMPLES / "infer.py"), "--output", "x.png"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert said.returncode == 1
    assert said.stderr.startswith("error: Which model? Got neither")
    assert "Traceback" not in said.stderr
