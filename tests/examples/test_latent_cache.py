"""Laws of latents that were encoded once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import cache_latents
from common.bucketed_shards import write_bucketed_shards
from common.cache_latents import main, write_latents
from common.latent_cache import cached_latents
from common.latents import posteriors, vae_digest
from common.randomness import sample_generators
from common.tiny_vae import new_tiny_vae
from common.vton_data import get_vton_dataset
from diffusers import AutoencoderKL
from dit.model import build_dit
from dit.objectives import FlowMatching, dit_loss
from torch.utils.data import default_collate

import curriculum_sampler as cs
from curriculum_sampler.index import ShardIndex

COUNTS = {"train": {"easy": 5, "hard": 4}, "val": {"easy": 2}}
SIZE = {"height": 32, "width": 24}
NAMES = ("image", "masked", "cloth", "pose")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_bucketed_shards(str(folder), COUNTS, seed=3, samples_per_shard=3, **SIZE)
    return folder


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    made = new_tiny_vae((16, 32)).requires_grad_(False).eval()
    made.quant_conv.weight.add_(0.1 * torch.randn_like(made.quant_conv.weight))  # deviations that differ
    return made


@pytest.fixture(scope="module")
def cache(shards: Path, vae: AutoencoderKL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache; read it, do not write into it."""
    folder = tmp_path_factory.mktemp("latents")
    write(shards, folder, vae, with_flipped=True)
    return folder


def live(shards: Path, flip_probability: float = 0.0, **more: Any) -> cs.CurriculumDataset:
    return get_vton_dataset(data_root=shards, flip_probability=flip_probability, **(SIZE | more))


def write(shards: Path, place: Path | str, vae: AutoencoderKL, **more: Any) -> cs.Manifest:
    more = {"vae_name": "tiny", "samples_per_shard": 2, "batch_size": 2} | more
    return write_latents(live(shards), place, vae, **more)


def draws(dataset: cs.CurriculumDataset, bucket_pass: int = 0) -> cs.Draws:
    """Every sample of a data set, in the given pass."""
    all_draws = [
        cs.Draw(bucket, index)
        for bucket, size in dataset.manifest.bucket_sizes.items()
        for index in range(size)
    ]
    return cs.Draws.of(all_draws, passes=[bucket_pass] * len(all_draws), seed=5)


def both(
    shards: Path, cache: Path, vae: AutoencoderKL, flip_probability: float = 0.0, bucket_pass: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All samples as one batch: pictures, and latents in their place."""
    pictures = live(shards, flip_probability)
    latents = cached_latents(pictures, cache, vae)
    one, two = (default_collate(d.__getitems__(draws(d, bucket_pass))) for d in (pictures, latents))
    return one, two


def test_latents_from_the_cache_equal_those_encoded_live(
    shards: Path, cache: Path, vae: AutoencoderKL
) -> None:
    pictures, latents = both(shards, cache, vae)
    assert latents["image_latents"].dtype == torch.float16
    for live_value, cached_value in zip(
        posteriors(vae, pictures, NAMES), posteriors(vae, latents, NAMES), strict=True
    ):
        assert live_value.shape == cached_value.shape == (4, 9, 4, 16, 12)
        assert cached_value.dtype == torch.float32
        # Half precision keeps eleven bits.
        assert torch.allclose(live_value, cached_value, rtol=2**-10, atol=1e-6)


def test_all_else_about_a_sample_is_the_same(shards: Path, cache: Path, vae: AutoencoderKL) -> None:
    pictures, latents = both(shards, cache, vae)
    for name in ("bucket", "sample_id"):
        assert pictures[name] == latents[name]
    for name in ("category", "difficulty"):
        assert torch.equal(pictures[name], latents[name])
    small = torch.nn.functional.interpolate(pictures["agnostic_mask"], size=(16, 12), mode="nearest")
    assert torch.equal(latents["agnostic_mask"], small)


def test_a_loss_on_cached_latents_is_the_loss_on_pictures(
    shards: Path, cache: Path, vae: AutoencoderKL
) -> None:
    """Sampling from the posterior, dropping and noise included."""
    model = build_dit("tiny", use_pose=True)
    model.vae = vae
    with torch.no_grad():
        model.network.last.weight.normal_(std=0.1)
    losses = [
        dit_loss(
            model,
            FlowMatching(),
            batch,
            sample_generators(3, "training", 0, batch["sample_id"]),
            garment_dropout=0.5,
        )
        for batch in both(shards, cache, vae)
    ]
    assert torch.allclose(*losses, rtol=1e-3)


def test_the_very_samples_are_mirrored_that_would_be_live(
    shards: Path, cache: Path, vae: AutoencoderKL
) -> None:
    unturned = posteriors(vae, both(shards, cache, vae)[0], NAMES)[0]
    turned_at_all = 0
    for bucket_pass in range(2):
        pictures, latents = both(shards, cache, vae, 0.5, bucket_pass)
        live_mean, cached_mean = (posteriors(vae, batch, NAMES)[0] for batch in (pictures, latents))
        assert torch.allclose(live_mean, cached_mean, rtol=2**-10, atol=1e-6)
        turned_at_all += (~torch.isclose(live_mean, unturned).flatten(2).all(2)[0]).sum().item()
    assert 0 < turned_at_all < 18


def test_buckets_order_and_curriculum_are_those_of_the_pictures(
    shards: Path, cache: Path, vae: AutoencoderKL
) -> None:
    pictures = live(shards)
    latents = cached_latents(pictures, cache, vae)
    assert latents.manifest.bucket_sizes == pictures.manifest.bucket_sizes
    assert latents.manifest.difficulties == pictures.manifest.difficulties
    assert latents.schedule == pictures.schedule
    one, two = ([s["sample_id"] for s in dataset.sequential()] for dataset in (pictures, latents))
    assert one == two


def test_loader_workers_read_a_cache(shards: Path, cache: Path, vae: AutoencoderKL) -> None:
    schedule = cs.StageSchedule([cs.Stage("all", {"easy": 1, "hard": 1}, steps=3)])
    dataset = cached_latents(live(shards, curriculum=schedule), cache, vae)
    loaders = [cs.CurriculumLoader(dataset, batch_size=4, seed=1, num_workers=workers) for workers in (0, 1)]
    for alone, by_worker in zip(*loaders, strict=True):
        assert alone["sample_id"] == by_worker["sample_id"]
        assert torch.equal(alone["image_latents"], by_worker["image_latents"])


def test_a_finished_cache_is_left_as_it_is(shards: Path, cache: Path, vae: AutoencoderKL) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    write(shards, cache, vae, with_flipped=True)
    assert before == {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_a_further_split_joins(shards: Path, vae: AutoencoderKL, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_latents(live(shards, split=split), tmp_path, vae, vae_name="tiny")
        write_latents(live(shards, split="train"), tmp_path, vae, vae_name="tiny")
    assert len(cached_latents(live(shards, split="val"), tmp_path, vae)) == 2
    assert len(cached_latents(live(shards), tmp_path, vae)) == 9


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("samples_done", [0, 3, 5, 8])
def test_interrupted_anywhere_it_goes_on_and_ends_the_same(
    samples_done: int,
    shards: Path,
    cache: Path,
    vae: AutoencoderKL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode, count = cache_latents._encoded, itertools.count()

    def cut_off(*arguments: Any) -> Iterator[dict[str, Any]]:
        for sample in encode(*arguments):
            if next(count) == samples_done:
                raise PowerCutError
            yield sample

    with monkeypatch.context() as patch:
        patch.setattr(cache_latents, "_encoded", cut_off)
        with pytest.raises(PowerCutError):
            write(shards, tmp_path, vae, with_flipped=True)
    with pytest.raises(cs.ArgumentError, match=r"unfinished.*cache_latents\.py"):
        cached_latents(live(shards), tmp_path, vae)

    indexes = [ShardIndex.from_bytes(path.read_bytes()) for path in tmp_path.rglob("*.idx")]
    held = sum(len(index) for index in indexes)
    assert samples_done - 2 <= held <= samples_done, "at most a shard is lost"
    encoded_again: list[str] = []

    def counted(*arguments: Any) -> Iterator[dict[str, Any]]:
        for sample in encode(*arguments):
            encoded_again.append(sample["__key__"])
            yield sample

    monkeypatch.setattr(cache_latents, "_encoded", counted)
    write(shards, tmp_path, vae, with_flipped=True)
    assert len(encoded_again) == 9 - held
    for path in cache.rglob("*.tar*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(cache)).read_bytes()


def test_a_damaged_leftover_is_no_part_of_a_cache(
    shards: Path, vae: AutoencoderKL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shards, tmp_path, vae)
    (tmp_path / "manifest.json").unlink()
    tar = tmp_path / "train" / "easy" / "easy-000001.tar"
    content = bytearray(tar.read_bytes())
    content[1000] ^= 1
    tar.write_bytes(content)
    with pytest.raises(cs.ShardError, match=r"easy-000001\.tar.*damaged"):
        write(shards, tmp_path, vae)


def other_vae(vae: AutoencoderKL) -> AutoencoderKL:
    other = AutoencoderKL.from_config(vae.config)
    other.load_state_dict(vae.state_dict())
    with torch.no_grad():
        other.encoder.conv_in.bias[3] += 0.1
    return other


@pytest.mark.parametrize("other", ["vae", "height", "data", "scaling_factor"])
@pytest.mark.parametrize("asking", ["to read", "to write"])
def test_a_cache_of_something_else_is_refused(
    other: str, asking: str, shards: Path, cache: Path, vae: AutoencoderKL, tmp_path: Path
) -> None:
    dataset, asked = live(shards), vae
    if other == "vae":
        asked = other_vae(vae)
    elif other == "height":
        dataset = live(shards, height=64, width=48)
    elif other == "data":
        write_bucketed_shards(str(tmp_path), {"train": COUNTS["train"]}, seed=4, **SIZE)
        dataset = live(tmp_path)
    else:
        asked = AutoencoderKL.from_config(vae.config, scaling_factor=0.5)
        asked.load_state_dict(vae.state_dict())
    ask = {
        "to read": lambda: cached_latents(dataset, cache, asked),
        "to write": lambda: write_latents(
            dataset, cache, asked, vae_name="x", with_flipped=True, samples_per_shard=2
        ),
    }[asking]
    with pytest.raises(cs.StateMismatchError, match=f"encoded with tiny: .*{other} is .* there, .* here"):
        ask()


def test_another_way_to_prepare_pictures_is_another_cache(
    shards: Path, cache: Path, vae: AutoencoderKL, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.vton_data import TryOnArrays

    mask = TryOnArrays._mask
    monkeypatch.setattr(TryOnArrays, "_mask", lambda self, pixels, flip: 1 - mask(self, pixels, flip))
    with pytest.raises(cs.StateMismatchError, match="transform is"):
        cached_latents(live(shards), cache, vae)


def test_an_interrupted_cache_of_another_vae_is_not_gone_on_with(
    shards: Path, vae: AutoencoderKL, tmp_path: Path
) -> None:
    write(shards, tmp_path, vae)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(cs.StateMismatchError, match="vae is"):
        write(shards, tmp_path, other_vae(vae))


def test_no_cache_says_how_to_make_one(shards: Path, vae: AutoencoderKL, tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match=r"no latents of split 'train' here.*cache_latents\.py"):
        cached_latents(live(shards), tmp_path, vae)


def test_mirroring_needs_mirrored_copies(shards: Path, vae: AutoencoderKL, tmp_path: Path) -> None:
    write(shards, tmp_path, vae)
    cached_latents(live(shards), tmp_path, vae)
    with pytest.raises(cs.ArgumentError, match="--with_flipped"):
        cached_latents(live(shards, flip_probability=0.5), tmp_path, vae)


def test_pictures_must_have_a_size(shards: Path, vae: AutoencoderKL, tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="one size"):
        write_latents(get_vton_dataset(data_root=shards), tmp_path, vae, vae_name="tiny")


def test_latents_that_are_not_finite_are_refused_by_name(
    shards: Path, vae: AutoencoderKL, tmp_path: Path
) -> None:
    loud = other_vae(vae)
    with torch.no_grad():
        loud.quant_conv.weight.mul_(1e6)
    with pytest.raises(cs.ArgumentError, match=r"Sample 'train-easy-000000' has latents that are not finite"):
        write(shards, tmp_path, loud)
    with pytest.raises(cs.ArgumentError, match="unfinished"):
        cached_latents(live(shards), tmp_path, loud)


def test_an_unreadable_sample_is_an_error_and_no_other_stands_in(
    shards: Path, vae: AutoencoderKL, tmp_path: Path
) -> None:
    pixels = np.zeros((32, 24, 3), np.uint8)
    parts = {f"{name}.png": pixels for name in ("image", "cloth", "cloth_mask", "agnostic_mask")}
    samples = [{"__key__": str(n), "json": {"category": "dresses"}, **parts} for n in range(3)]
    samples[1] = samples[1] | {"cloth.png": b"no picture"}
    cs.write_shards(str(tmp_path / "pictures"), {"easy": samples})
    with pytest.raises(cs.ShardError, match=r"sample '1'"):
        write(tmp_path / "pictures", tmp_path / "latents", vae)


def test_data_without_pose_has_latents_without_pose_and_nan_stays_unsaid(
    vae: AutoencoderKL, tmp_path: Path
) -> None:
    pixels = np.zeros((32, 24, 3), np.uint8)
    parts = {f"{name}.png": pixels for name in ("image", "cloth", "cloth_mask", "agnostic_mask")}
    cs.write_shards(str(tmp_path / "pictures"), {"easy": [{"__key__": "a", **parts}]})
    write(tmp_path / "pictures", tmp_path / "latents", vae)
    pictures, latents = both(tmp_path / "pictures", tmp_path / "latents", vae)
    assert latents["difficulty"].isnan().all()
    assert pictures["difficulty"].isnan().all()
    for batch in (pictures, latents):
        with pytest.raises(cs.ArgumentError, match="no 'pose' pictures, only cloth, image, masked"):
            posteriors(vae, batch, NAMES)


def test_the_command_encodes_once_on_any_storage(
    shards: Path, vae: AutoencoderKL, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vae.save_pretrained(tmp_path / "vae")
    words = f"--data_root {shards} --height 32 --width 24 --pretrained_vae_name_or_path {tmp_path / 'vae'}"
    for _ in range(2):
        main([*words.split(), "--output", "memory://latents-by-command"])
        said = capsys.readouterr().out
        assert said.endswith("has the latents of split 'train': easy 5, hard 4.\n")
    assert "encoded" not in said
    main(
        [*words.split(), "--output", str(tmp_path / "latents"), "--mixed_precision", "bf16", "--with_flipped"]
    )
    told = json.loads((tmp_path / "latents" / "latents-train.json").read_text())
    assert told["vae"] == vae_digest(vae)
    assert told["copies"] == ["plain", "flipped"]
    assert len(cached_latents(live(shards), "memory://latents-by-command", vae)) == 9
