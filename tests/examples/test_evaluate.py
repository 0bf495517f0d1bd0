"""Laws of measuring a model on a test set."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import pytest
import torch
from common import picture_distances, trained
from common.bucketed_shards import write_bucketed_shards
from common.picture_distances import Extractor, fid, kid
from common.picture_likeness import likenesses
from common.trained_flags import evaluate_arguments
from common.unpaired import dressed_in, unpaired
from common.vton_data import get_vton_dataset
from common.whole_split import draws_by_bucket
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchmetrics.image.kid import poly_mmd

import curriculum_sampler as cs

from .trainer_runs import Runs, assert_same

COUNTS = {"test": {"easy": 6, "medium": 1, "hard": 5}}
FEATURES = 3  # so few that 12 samples are enough


class Coarse(nn.Module):
    """Features for tests: three fixed mixtures of a coarse version of the picture."""

    def __init__(self, features: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("mixtures", torch.randn(features, 3 * 4 * 4, generator=generator) / 7)

    def forward(self, pictures: Tensor) -> Tensor:
        coarse = torch.nn.functional.adaptive_avg_pool2d(pictures / 255, [4, 4])
        return torch.nn.functional.linear(coarse.flatten(1), self.mixtures)


class WithSwitch(nn.Module):
    """Gives features only when asked for, as NVIDIA's Inception does."""

    def forward(self, pictures: Tensor, return_features: bool = False) -> Tensor:
        flat = pictures.flatten(1)
        return flat[:, :4] if return_features else flat[:, :1]


def save(network: nn.Module, path: Path) -> Path:
    torch.jit.trace(network, torch.rand(2, 3, 32, 32)).save(str(path))
    return path


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(Coarse(FEATURES), tmp_path_factory.mktemp("extractor") / "coarse.pt")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("test-set")
    write_bucketed_shards(str(folder), COUNTS, seed=3, samples_per_shard=4, height=32, width=24)
    return folder


@pytest.fixture(scope="module")
def run(runs_of: Callable[[str], Runs], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert runs_of("catvton")(folder) == 0
    return folder


@pytest.fixture(scope="module")
def told(
    run: Path, shards: Path, extractor: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a full evaluation tells."""
    return measured(run, shards, tmp_path_factory.mktemp("told") / "told.json", extractor)


def measured(run: Path, shards: Path, output: Path, extractor: Path | None, *more: str) -> dict[str, Any]:
    words = [str(run), f"--data_root={shards}", f"--output={output}", "--device=cpu", *more]
    if extractor is not None:
        words += [f"--fid_extractor={extractor}", "--fid_size=32", "--unpaired", "--repaint", "--force"]
    evaluate.main(words)
    content: dict[str, Any] = json.loads(output.read_text())
    return content


def gaussian(count: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 8, generator=generator) * spread + shift


# ------------------------------------------------------------------------------------------------- distances


def test_a_set_has_no_distance_to_itself() -> None:
    features = gaussian(200, 0)
    assert abs(fid(features, features)) < 1e-4
    assert kid(features, features) < 0, (
        "unbiased: equal samples are nearer than two draws of one distribution"
    )
    halves = gaussian(1000, 1), gaussian(1000, 2)
    assert abs(kid(*halves)) < 0.05
    assert fid(*halves) < 0.3


@pytest.mark.parametrize("distance", [fid, kid])
def test_more_noise_is_farther_away(distance: Callable[[Tensor, Tensor], float]) -> None:
    features, noise = gaussian(500, 0), gaussian(500, 1)
    found = [distance(features, features + level * noise) for level in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert found == sorted(found)
    shifted = [distance(features, gaussian(500, 2, shift=shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert shifted == sorted(shifted)


def test_fid_of_two_gaussians_is_what_the_formula_says() -> None:
    """Means 3 apart in each of 8 numbers, deviations 1 and 2: 8 * 9 + 8 * (1 + 4 - 2 * 2)."""
    found = fid(gaussian(40_000, 0), gaussian(40_000, 1, shift=3.0, spread=2.0))
    assert found == pytest.approx(8 * 9 + 8, rel=0.02)


@given(st.integers(2, 40), st.integers(0, 99), st.floats(0, 3))
def test_kid_is_the_unbiased_estimate_that_torchmetrics_computes(size: int, seed: int, shift: float) -> None:
    x, y = gaussian(size, seed).double(), gaussian(size, seed + 1000, shift).double()
    assert kid(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-6, abs=1e-9)


def test_docstrings_tell_the_truth() -> None:
    for module in (picture_distances, trained):
        failed, tried = doctest.testmod(module)
        assert (failed, tried > 0) == (0, True)


def test_kid_of_many_samples_does_not_depend_on_how_they_are_cut() -> None:
    """1,500 rows are more than are multiplied at once."""
    x, y = gaussian(1500, 0), gaussian(1300, 1, shift=1.0)
    direct = [((a.double() @ b.double().T) / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = [(gram.sum() - gram.trace()) / (len(gram) * (len(gram) - 1)) for gram in direct[:2]]
    assert kid(x, y) == pytest.approx(float(within[0] + within[1] - 2 * direct[2].mean()), rel=1e-9)


def test_an_extractor_sees_levels_of_a_picture_file_at_its_own_size(extractor: Path) -> None:
    pictures = torch.rand(3, 3, 40, 30) * 2 - 1
    extract = Extractor(extractor, torch.device("cpu"), size=32)
    assert extract.num_features == FEATURES
    features = extract(pictures)
    assert features.shape == (3, FEATURES)
    as_saved = ((pictures + 1) * 127.5).round() / 127.5 - 1
    assert torch.equal(features, extract(as_saved))
    assert not torch.equal(features, extract(as_saved + 2 / 255))
    white = extract(torch.ones(1, 3, 40, 30))
    assert torch.allclose(white[0], Coarse(FEATURES).mixtures.sum(1), atol=1e-4)


def test_an_extractor_that_must_be_asked_for_features_is_asked(tmp_path: Path) -> None:
    torch.jit.script(WithSwitch()).save(str(tmp_path / "switch.pt"))
    assert Extractor(tmp_path / "switch.pt", torch.device("cpu"), size=32).num_features == 4


def test_what_is_no_extractor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"nothing")
    with pytest.raises(cs.ArgumentError, match=r"no TorchScript network.*torch\.jit\.script"):
        Extractor(tmp_path / "x.pt", torch.device("cpu"))
    save(nn.Conv2d(3, 2, 1), tmp_path / "conv.pt")
    with pytest.raises(cs.ArgumentError, match=r"shape \(2, 2, 32, 32\); wanted is one row"):
        Extractor(tmp_path / "conv.pt", torch.device("cpu"), size=32)


# -------------------------------------------------------------------------------------------------- likeness


def test_a_perfect_picture_has_perfect_numbers_and_each_sample_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 32, 24, generator=generator) * 2 - 1
    mask = torch.zeros(2, 1, 32, 24)
    mask[..., :12] = 1
    result = truth.clone()
    result[1, ..., :12] = -result[1, ..., :12]
    found = likenesses(result, truth, mask, lpips=lambda one, other: (one - other).abs().flatten(1).mean(1))
    assert found["ssim"][0].item() == pytest.approx(1, abs=1e-5)
    assert found["psnr"][0] == 100
    assert found["masked_l1"][0] == found["lpips"][0] == 0
    assert found["ssim"][1] < 0.9
    assert found["psnr"][1] < 20
    expected = 2 * truth[1, ..., :12].abs().mean()
    assert found["masked_l1"][1].item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(value.shape == (2,) for value in found.values())


def test_lpips_without_torchvision_names_what_to_install(run: Path, shards: Path) -> None:
    try:
        import torchvision  # noqa: F401
    except ImportError:
        with pytest.raises(cs.MissingExtraError, match=r"pip install 'torchmetrics\[image\]'"):
            evaluate.main([str(run), f"--data_root={shards}", "--lpips"])
    else:
        pytest.skip("torchvision is installed")


# -------------------------------------------------------------------------------------------------- unpaired


def test_other_garments_change_places_within_bucket_and_category(shards: Path) -> None:
    dataset = get_vton_dataset(data_root=shards, split="test", height=32, width=24)
    people = draws_by_bucket(dataset, None)
    pairing = unpaired(dataset, people, seed=1)
    assert pairing == unpaired(dataset, people, seed=1)
    assert pairing != unpaired(dataset, people, seed=2)
    assert pairing["medium"] == ([], []), "one sample has nobody to change with"
    for bucket in ("easy", "hard"):
        persons, garments = pairing[bucket]
        assert sorted(persons) == sorted(garments)
        assert set(persons) <= set(people[bucket])
        assert all(person != garment for person, garment in zip(persons, garments, strict=True))
        kinds = (
            [dataset[draw]["category"] for draw in persons],
            [dataset[draw]["category"] for draw in garments],
        )
        assert kinds[0] == kinds[1]
    assert len(pairing["easy"][0]) == 6, "all of one category"


def test_a_person_gets_all_of_the_other_garment_and_nothing_else(shards: Path) -> None:
    dataset = get_vton_dataset(data_root=shards, split="test", height=32, width=24)
    people = [cs.Draw("hard", index) for index in range(5)]
    garments = people[1:] + people[:1]
    batches = list(dressed_in(dataset, people, garments, batch_size=2, num_workers=0))
    assert [len(batch["image"]) for batch in batches] == [2, 2, 1]
    for place, (person, garment) in enumerate(zip(people, garments, strict=True)):
        own, other = (default_collate([dataset[draw]]) for draw in (person, garment))
        expected = own | {name: other[name] for name in ("cloth", "cloth_mask", "category")}
        row = {name: values[place % 2 : place % 2 + 1] for name, values in batches[place // 2].items()}
        assert_same(row, expected)


# ------------------------------------------------------------------------------------------------ evaluation


def test_every_bucket_and_all_together_are_told(told: dict[str, Any]) -> None:
    assert (told["trainer"], told["step"], told["weights"], told["split"]) == ("catvton", 8, "ema", "test")
    assert told["sampling"]["num_validation_inference_steps"] == 2
    for way in ("as_painted", "repainted"):
        paired, others = told["paired"][way], told["unpaired"][way]
        assert list(paired["by_bucket"]) == ["easy", "medium", "hard"], "as the curriculum names them"
        assert {bucket: numbers["samples"] for bucket, numbers in paired["by_bucket"].items()} == COUNTS[
            "test"
        ]
        assert paired["over_all"]["samples"] == 12
        for name in ("ssim", "psnr", "masked_l1"):
            weighed = [numbers["samples"] * numbers[name] for numbers in paired["by_bucket"].values()]
            assert paired["over_all"][name] == pytest.approx(sum(weighed) / 12, abs=1e-5)
            assert name not in others["over_all"], "there is no truth to compare with"
        for numbers in (paired["over_all"], others["over_all"], paired["by_bucket"]["hard"]):
            assert numbers["fid"] >= 0
            assert isinstance(numbers["kid"], float)
        assert paired["by_bucket"]["medium"]["fid"] is None, "one sample has no spread"
        assert paired["by_bucket"]["medium"]["kid"] is None
        assert "medium" not in others["by_bucket"]


def test_original_pixels_bring_every_measure_nearer_to_the_truth(told: dict[str, Any]) -> None:
    painted, kept = (told["paired"][way]["over_all"] for way in ("as_painted", "repainted"))
    assert kept["ssim"] > painted["ssim"]
    assert kept["psnr"] > painted["psnr"]
    assert kept["masked_l1"] == painted["masked_l1"]
    assert kept["fid"] < painted["fid"]


def test_an_evaluation_repeats_itself_whatever_the_batches(
    told: dict[str, Any], run: Path, shards: Path, extractor: Path, tmp_path: Path
) -> None:
    again = measured(run, shards, tmp_path / "new" / "again.json", extractor, "--batch_size=5")
    for pairing in ("paired", "unpaired"):
        for name, value in told[pairing]["as_painted"]["over_all"].items():
            assert again[pairing]["as_painted"]["over_all"][name] == pytest.approx(value, rel=1e-2, abs=1e-3)


def test_without_an_extractor_only_likeness_is_told(
    run: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = measured(run, shards, tmp_path / "x.json", None, "--limit=2")
    assert set(told["paired"]) == {"as_painted"}
    assert "unpaired" not in told
    over_all = told["paired"]["as_painted"]["over_all"]
    assert set(over_all) == {"samples", "ssim", "psnr", "masked_l1"}
    assert over_all["samples"] == 5
    table = capsys.readouterr().out.splitlines()
    assert table[-6].split() == ["samples", "SSIM", "PSNR", "masked", "L1"]
    assert table[-1].split()[:4] == ["over", "all", "5", f"{over_all['ssim']:.4f}"]


def test_fid_of_few_samples_is_refused_before_anything_is_painted_unless_forced(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seven = save(Coarse(7), tmp_path / "seven.pt")
    words = [str(run), f"--data_root={shards}", f"--fid_extractor={seven}", "--fid_size=32"]
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "measure", lambda *args, **values: pytest.fail("painted"))
        with pytest.raises(cs.ArgumentError, match=r"FID of 12 samples with 7 features.*wants 14.*--force"):
            evaluate.main(words)
    evaluate.main([*words, "--force"])
    six = save(Coarse(6), tmp_path / "six.pt")
    evaluate.main([*words, f"--fid_extractor={six}", f"--output={tmp_path / 'six.json'}"])
    by_bucket = json.loads((tmp_path / "six.json").read_text())["paired"]["as_painted"]["by_bucket"]
    assert by_bucket["easy"]["fid"] is None, "enough over all, too few in a bucket"
    assert isinstance(by_bucket["easy"]["kid"], float)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--unpaired"], "--unpaired is about FID and KID.*--fid_extractor"),
        (["--force"], "--force is about FID and KID"),
        (["--fid_extractor=absent.pt"], "--fid_extractor absent.pt: there is no such file"),
        (["--limit=0"], "--limit 0"),
        (["--batch-size=0"], "--batch_size 0"),
    ],
)
def test_contradicting_flags_are_refused(more: list[str], message: str) -> None:
    with pytest.raises(cs.ArgumentError, match=message):
        evaluate_arguments(["run", "--data_root=x", *more])


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="is a folder"):
        evaluate_arguments(["run", "--data_root=x", f"--output={tmp_path}"])


def test_a_model_and_data_must_be_named() -> None:
    with pytest.raises(cs.ArgumentError, match="Got neither a checkpoint"):
        evaluate_arguments(["--data_root=x"])
    with pytest.raises(cs.ArgumentError, match="No data"):
        evaluate_arguments(["run"])


def test_a_damaged_sample_is_an_error_and_none_stands_in_for_it(run: Path, tmp_path: Path) -> None:
    write_bucketed_shards(str(tmp_path), {"test": {"easy": 3}}, seed=3, height=32, width=24)
    shard = next(tmp_path.rglob("*.tar"))
    content = bytearray(shard.read_bytes())
    at = content.index(b"IDAT") + 40
    content[at : at + 30] = bytes(30)
    shard.write_bytes(content)
    with pytest.raises(cs.CurriculumError, match="easy"):
        evaluate.main([str(run), f"--data_root={tmp_path}"])
