"""Laws of weights in the layout that CatVTON's authors publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from catvton import export_attention
from catvton import train as catvton_train
from catvton.attention_weights import load_attention, published_keys, save_attention
from catvton.model import TINY_UNET, build_catvton
from common.bucketed_shards import write_bucketed_shards
from common.tiny_vae import new_tiny_vae
from common.trained import Changes, load_published, load_trained
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import curriculum_sampler as cs

CURRICULUM = '[[stages]]\nname = "easy"\nmixture = { easy = 1 }\nsteps = 2\nlr = 1e-3\n'


class AuthorsProcessor(nn.Module):
    """A processor that is a module, as the authors' are."""


def authors_list(unet: UNet2DConditionModel) -> nn.ModuleList:
    """Every module whose name contains ``attn1``, after their processors are set: what their loader fills."""
    for module in unet.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(AuthorsProcessor())
    return nn.ModuleList([module for name, module in unet.named_modules() if "attn1" in name])


def new_unet(seed: int = 0, **changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(**(TINY_UNET | changes))


def attention_of(unet: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in unet.state_dict().items() if ".attn1." in name}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    unet = new_unet(1)
    save_attention(tmp_path / "attention" / "model.safetensors", unet, attention_of(unet))
    return tmp_path


def test_what_is_written_is_what_the_authors_loader_reads(published: Path) -> None:
    theirs = new_unet(2)
    accelerate.load_checkpoint_in_model(authors_list(theirs), published / "attention")
    assert_equal(attention_of(theirs), attention_of(new_unet(1)))
    rest = {name: tensor for name, tensor in new_unet(2).state_dict().items() if ".attn1." not in name}
    assert all(torch.equal(theirs.state_dict()[name], tensor) for name, tensor in rest.items())


def test_keys_are_those_that_the_authors_list_saves(published: Path, tmp_path: Path) -> None:
    accelerate.Accelerator(cpu=True).save_model(authors_list(new_unet(1)), tmp_path / "theirs")
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    assert_equal(theirs, load_file(published / "attention" / "model.safetensors"))
    assert {"0.to_q.weight", "8.to_q.weight", "0.to_out.0.bias"} <= theirs.keys()


@pytest.mark.parametrize("place", ["", "attention", "attention/model.safetensors"])
def test_a_file_or_its_folders_can_be_named(published: Path, place: str) -> None:
    unet = new_unet(2)
    load_attention(unet, published / place)
    assert_equal(attention_of(unet), attention_of(new_unet(1)))


@pytest.mark.parametrize("count_processors", [True, False])
def test_any_of_a_tensors_keys_will_do(tmp_path: Path, count_processors: bool) -> None:
    """All keys, or only the last of each tensor; with and without numbers for processors."""
    source = new_unet(1)
    keys = published_keys(source, count_processors=count_processors)
    weights = attention_of(source)
    last = {name: key for key, name in keys.items()}
    assert len(keys) > len(last)
    save_file({key: weights[name].clone() for key, name in keys.items()}, tmp_path / "all.safetensors")
    save_file({key: weights[name] for name, key in last.items()}, tmp_path / "last.safetensors")
    for file in ("all", "last"):
        unet = new_unet(2)
        load_attention(unet, tmp_path / f"{file}.safetensors")
        assert_equal(attention_of(unet), weights)


def test_half_precision_is_read_into_full(tmp_path: Path, published: Path) -> None:
    file = published / "attention" / "model.safetensors"
    save_file({key: tensor.half() for key, tensor in load_file(file).items()}, tmp_path / "half.safetensors")
    unet = new_unet(2)
    load_attention(unet, tmp_path / "half.safetensors")
    for name, tensor in attention_of(unet).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, attention_of(new_unet(1))[name].half().float())


@pytest.mark.parametrize(
    ("changes", "misfit"),
    [
        ({"block_out_channels": (32, 32)}, r"\(down_blocks\.1\..*\(64, 64\) there and \(32, 32\) here"),
        ({"layers_per_block": 2}, r"8\.to_q\.weight .*is \(64, 64\) there and \(32, 32\) here"),
        ({"attention_head_dim": (4, 8), "mid_block_type": None}, r"is \(64, 64\) there and absent here"),
    ],
)
def test_attention_of_another_network_is_refused_and_nothing_changes(
    published: Path, changes: dict[str, Any], misfit: str
) -> None:
    unet = new_unet(2, **changes)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    with pytest.raises(cs.ArgumentError, match=misfit) as refusal:
        load_attention(unet, published)
    assert "Choose the base" in str(refusal.value)
    assert_equal(dict(unet.state_dict()), before)


def test_a_file_that_lacks_a_tensor_is_refused_and_nothing_changes(published: Path, tmp_path: Path) -> None:
    held = load_file(published / "attention" / "model.safetensors")
    last = max(held, key=lambda key: int(key.split(".")[0]))
    del held[last]
    save_file(held, tmp_path / "less.safetensors")
    unet = new_unet(2)
    with pytest.raises(cs.ArgumentError, match=rf"{last} \(.*is absent there and \(64"):
        load_attention(unet, tmp_path / "less.safetensors")
    assert_equal(attention_of(unet), attention_of(new_unet(2)))


def test_a_missing_or_damaged_file_is_told_from_a_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="neither a file nor a folder"):
        load_attention(new_unet(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no such thing")
    with pytest.raises(cs.ArgumentError, match="damaged"):
        load_attention(new_unet(), tmp_path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pipeline in the Stable Diffusion layout."""
    folder = tmp_path_factory.mktemp("base")
    new_unet(3).save_pretrained(folder / "unet")
    torch.manual_seed(3)
    new_tiny_vae((16, 32)).save_pretrained(folder / "vae")
    DDPMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def flags(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    write_bucketed_shards(str(folder / "shards"), {"train": {"easy": 4}}, seed=3, height=32, width=24)
    (folder / "curriculum.toml").write_text(CURRICULUM)
    return (
        f"--pretrained_model_name_or_path {base} --height 32 --width 24 --train_batch_size 2"
        " --gradient_accumulation_steps 1 --dataloader_num_workers 0 --mixed_precision no --report_to jsonl"
        f" --ema_decay 0.5 --data_root {folder / 'shards'} --curriculum_config {folder / 'curriculum.toml'}"
    ).split()


@pytest.fixture(scope="module")
def run(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run; read it, do not write into it."""
    folder = tmp_path_factory.mktemp("run")
    assert catvton_train.main([*flags, "--output_dir", str(folder)]) == 0
    return folder


def export(run: Path, output: Path, *more: str) -> dict[str, Tensor]:
    export_attention.main([str(run), "--output", str(output), *more])
    return load_file(output)


def test_a_trained_model_and_its_exported_attention_on_the_base_dress_alike(
    run: Path, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "attention.safetensors"
    export(run, file)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 1, 3, 32, 24, generator=generator) * 2 - 1
    batch = {"image": pictures[0], "cloth": pictures[1], "agnostic_mask": torch.ones(1, 1, 32, 24)}

    def dressed(trained: Any) -> Tensor:
        painted: Tensor = trained.dress(batch, [torch.Generator().manual_seed(1)])
        return painted

    changes = Changes(steps=2, height=32, width=24, mixed_precision="no", base=str(base))
    ours, published = load_trained(run, changes=changes), load_published(file, changes=changes)
    assert (ours.trainer, ours.step, published.step) == ("catvton", 2, None)
    assert torch.equal(dressed(ours), dressed(published))
    assert not torch.equal(dressed(ours), dressed(load_trained(run, weights="trained", changes=changes)))


def test_averages_are_exported_unless_the_trained_weights_are_asked_for(run: Path, tmp_path: Path) -> None:
    saved = torch.load(run / "latest_checkpoint.pt", weights_only=True)
    ema = export(run, tmp_path / "ema.safetensors", "--layout", "plain")
    trained = export(run, tmp_path / "trained.safetensors", "--layout", "plain", "--weights", "trained")
    assert_equal(trained, saved["model"])
    assert_equal(ema, dict(zip(saved["model"], saved["ema"]["shadow_params"], strict=True)))
    assert not torch.equal(ema[next(iter(ema))], trained[next(iter(ema))])
    unet = build_catvton("full", base=saved["base_model"]["name"]).unet
    load_attention(unet, tmp_path / "ema.safetensors")
    assert_equal(attention_of(unet), ema)


def test_training_begins_with_published_attention_and_goes_on_without_it(
    run: Path, flags: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "attention.safetensors"
    exported = export(run, file)
    more = [*flags, "--output_dir", str(tmp_path / "run"), "--attention_weights", str(file)]
    still = tmp_path / "still.toml"
    still.write_text(CURRICULUM.replace("1e-3", "0.0"))
    first = [*more, "--max_steps_this_run", "1", "--curriculum_config", str(still)]
    assert catvton_train.main(first) == 0
    assert_equal(export(tmp_path / "run", tmp_path / "again.safetensors", "--weights", "trained"), exported)
    file.unlink()
    assert catvton_train.main([*more, "--resume_from_checkpoint", "latest"]) == 0


def test_a_run_that_trained_everything_does_not_fit_the_layout(
    run: Path, flags: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert catvton_train.main([*flags, "--train_all", "--output_dir", str(folder)]) == 0
    with pytest.raises(cs.ArgumentError, match=r"is no self-attention.*--layout plain"):
        export(folder, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()
    everything = export(folder, tmp_path / "x.safetensors", "--layout", "plain")
    assert "conv_in.weight" in everything
