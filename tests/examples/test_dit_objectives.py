"""Laws of what a DiT is trained on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from common.factors import CATEGORIES
from common.randomness import sample_generators
from dit.flags import parse_arguments
from dit.model import NO_CATEGORY, DiT, build_dit
from dit.objectives import (
    DDPM,
    OBJECTIVES,
    Conditions,
    FlowMatching,
    clean_latents,
    conditions_of,
    dit_loss,
    frequency_loss,
)
from torch import Tensor, nn

import curriculum_sampler as cs

KEYS = ["a", "b", "c"]
BOTH = pytest.mark.parametrize("name", ["flow", "ddpm"])


@pytest.fixture(scope="module")
def model() -> DiT:
    built = build_dit("tiny", use_pose=True, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return built


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(3, 3, 3, 32, 24, generator=generator) * 2 - 1
    mask = torch.zeros(3, 1, 32, 24)
    mask[:, :, 8:20, 8:16] = 1
    return {
        "image": pictures[0],
        "cloth": pictures[1],
        "pose": pictures[2],
        "agnostic_mask": mask,
        "category": torch.tensor([0, 2, 1]),
        "sample_id": KEYS,
    }


class Spy(nn.Module):
    """Stands in for the network and keeps what it was told."""

    def __init__(self, answer: float = 0.0) -> None:
        super().__init__()
        self.answer = answer
        self.told: list[dict[str, Tensor]] = []
        self.use_pose = True

    def forward(
        self, noisy: Tensor, person: Tensor, garment: Tensor, time: Tensor, category: Tensor
    ) -> Tensor:
        told = {"noisy": noisy, "person": person, "garment": garment, "time": time, "category": category}
        self.told.append(told)
        return torch.full_like(noisy, self.answer)


def generators(step: int = 0, keys: list[str] = KEYS) -> list[torch.Generator]:
    return sample_generators(17, "test", step, keys)


def part(batch: dict[str, Any], place: int) -> dict[str, Any]:
    return {name: value[place : place + 1] for name, value in batch.items()}


def told_with(model: DiT, batch: dict[str, Any], **flags: Any) -> dict[str, Tensor]:
    spy = Spy()
    dit_loss(model, FlowMatching(), batch, generators(), network=spy, **flags)
    return spy.told[0]


def test_the_person_is_told_without_what_is_under_the_mask(model: DiT, batch: dict[str, Any]) -> None:
    other = batch | {"image": torch.where(batch["agnostic_mask"] > 0.5, -batch["image"], batch["image"])}
    one, two = conditions_of(model, batch), conditions_of(model, other)
    assert torch.equal(one.person, two.person)
    assert not torch.equal(*(clean_latents(model, given, generators()) for given in (batch, other)))
    assert one.person.shape == (3, 9, 8, 6)
    assert one.garment.shape == (3, 4, 8, 6)
    assert set(one.person[:, 4].unique().tolist()) == {0.0, 1.0}


@BOTH
def test_no_noise_is_the_picture_and_all_noise_hides_it(name: str) -> None:
    objective = OBJECTIVES[name]()
    clean, noise = torch.randn(2, 1, 4, 4, 4)
    assert torch.allclose(objective.add_noise(clean, noise, torch.tensor([0.0])), clean, atol=0.05)
    most = objective.add_noise(clean, noise, torch.tensor([1000.0 if name == "flow" else 999.0]))
    assert torch.allclose(most, noise, atol=0.05)


def test_flow_goes_straight_from_noise_to_picture() -> None:
    """Walking from anywhere along the target for the rest of the time arrives at the picture."""
    objective = FlowMatching()
    clean, noise = torch.randn(2, 5, 4, 2, 2)
    times = torch.tensor([0.0, 250.0, 500.0, 900.0, 1000.0])
    noisy, direction = objective.add_noise(clean, noise, times), objective.target(clean, noise)
    assert torch.allclose(noisy - objective.noise_share(times) * direction, clean, atol=1e-5)


def test_ddpm_follows_dit_s_linear_schedule() -> None:
    objective = DDPM()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    for time in (0, 1, 500, 999):
        share = (1 - (1 - betas[: time + 1]).prod()).sqrt().item()
        assert objective.noise_share(torch.tensor([float(time)])).item() == pytest.approx(share, abs=1e-5)


def test_flow_draws_the_middle_of_the_way_most_and_ddpm_every_level_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    flow = torch.cat([FlowMatching().draw_time(generator) for _ in range(2000)])
    assert 0 < flow.min() < flow.max() < 1000
    inner = ((flow > 269) & (flow < 731)).float().mean().item()  # sigmoid of one deviation to either side
    assert inner == pytest.approx(0.683, abs=0.03)
    ddpm = torch.cat([DDPM().draw_time(generator) for _ in range(2000)])
    assert set(ddpm.tolist()) <= set(range(1000))
    assert ddpm.mean().item() == pytest.approx(499.5, abs=20)


@BOTH
def test_a_perfect_prediction_has_no_loss(name: str, model: DiT, batch: dict[str, Any]) -> None:
    objective = OBJECTIVES[name]()

    class Oracle(nn.Module):
        def forward(
            self, noisy: Tensor, person: Tensor, garment: Tensor, time: Tensor, category: Tensor
        ) -> Tensor:
            if name == "flow":
                return (noisy - clean) / objective.noise_share(time)
            kept = (1 - objective.noise_share(time) ** 2).sqrt()
            return (noisy - kept * clean) / objective.noise_share(time)

    clean = clean_latents(model, batch, generators())
    loss = dit_loss(model, objective, batch, generators(), network=Oracle(), freq_loss_weight=1.0)
    assert torch.allclose(loss, torch.zeros(3), atol=1e-4)
    assert (dit_loss(model, objective, batch, generators(), network=Spy()) > 0.1).all()


@BOTH
def test_the_sampler_follows_a_perfect_prediction_to_the_picture(name: str) -> None:
    objective = OBJECTIVES[name]()
    clean, current = torch.randn(2, 1, 4, 4, 4)
    scheduler = objective.sampler(8, torch.device("cpu"))
    assert len(scheduler.timesteps) == 8
    assert scheduler.timesteps[0].item() >= 999
    for time in scheduler.timesteps:
        share = objective.noise_share(time.float().view(1))
        kept = 1 - share if name == "flow" else (1 - share**2).sqrt()
        noise = (current - kept * clean) / share
        current = scheduler.step(objective.target(clean, noise), time, current).prev_sample
    assert torch.allclose(current, clean, atol=0.02)


def test_the_loss_is_that_of_the_person_s_latents_alone(model: DiT, batch: dict[str, Any]) -> None:
    """A network that answers 0 has the same loss whatever the garment: no garment latent is in the target."""
    other = batch | {"cloth": -batch["cloth"], "pose": -batch["pose"]}
    one, two = (dit_loss(model, FlowMatching(), b, generators(), network=Spy()) for b in (batch, other))
    assert torch.equal(one, two)


@BOTH
def test_the_loss_of_a_sample_does_not_depend_on_its_batch(
    name: str, model: DiT, batch: dict[str, Any]
) -> None:
    flags = {"garment_dropout": 0.5, "category_dropout": 0.5, "freq_loss_weight": 0.1}
    together = dit_loss(model, OBJECTIVES[name](), batch, generators(), **flags)
    for place, key in enumerate(KEYS):
        alone = dit_loss(model, OBJECTIVES[name](), part(batch, place), generators(keys=[key]), **flags)
        assert torch.allclose(together[place : place + 1], alone, rtol=1e-4)


def test_noise_and_time_are_others_at_every_step(model: DiT, batch: dict[str, Any]) -> None:
    told = []
    for step in (0, 1):
        spy = Spy()
        dit_loss(model, FlowMatching(), batch, generators(step), network=spy)
        told.append(spy.told[0])
    assert (told[0]["time"] != told[1]["time"]).all()
    assert len(told[0]["time"].unique()) == 3


def test_hiding_the_garment_hides_nothing_else(model: DiT, batch: dict[str, Any]) -> None:
    shown, hidden = (told_with(model, batch, garment_dropout=p) for p in (0.0, 1.0))
    assert not hidden["garment"].any()
    assert shown["garment"].any()
    for name in ("noisy", "person", "time", "category"):
        assert torch.equal(shown[name], hidden[name]), name


def test_hiding_the_category_hides_nothing_else(model: DiT, batch: dict[str, Any]) -> None:
    shown, hidden = (told_with(model, batch, category_dropout=p) for p in (0.0, 1.0))
    assert hidden["category"].tolist() == [NO_CATEGORY] * 3
    assert shown["category"].tolist() == [0, 2, 1]
    assert NO_CATEGORY not in range(len(CATEGORIES))
    for name in ("noisy", "person", "time", "garment"):
        assert torch.equal(shown[name], hidden[name]), name


def test_garment_and_category_are_hidden_independently() -> None:
    """Over many samples each of the four cases comes as often as two independent coins say."""
    plain, spy = build_dit("tiny"), Spy()
    latents, keys = dressed(300, torch.Generator().manual_seed(0)), [str(number) for number in range(300)]
    dit_loss(
        plain,
        FlowMatching(),
        latents,
        generators(keys=keys),
        network=spy,
        garment_dropout=0.3,
        category_dropout=0.5,
    )
    garment, category = ~spy.told[0]["garment"].flatten(1).any(1), spy.told[0]["category"] == NO_CATEGORY
    cases = Counter(zip(garment.tolist(), category.tolist(), strict=True))
    expected = {(False, False): 0.35, (False, True): 0.35, (True, False): 0.15, (True, True): 0.15}
    for case, share in expected.items():
        assert cases[case] / 300 == pytest.approx(share, abs=0.08), case


def test_what_is_hidden_depends_on_the_sample_s_generator_alone(model: DiT, batch: dict[str, Any]) -> None:
    """Neither the place in the batch nor the share of samples on this rank plays a part."""
    order = [2, 0, 1]
    turned = {
        name: [value[place] for place in order] if isinstance(value, list) else value[order]
        for name, value in batch.items()
    }
    for step in range(3):
        spies = Spy(), Spy()
        flags = {"garment_dropout": 0.5, "category_dropout": 0.5}
        dit_loss(model, FlowMatching(), batch, generators(step), network=spies[0], **flags)
        keys = [KEYS[place] for place in order]
        dit_loss(model, FlowMatching(), turned, generators(step, keys), network=spies[1], **flags)
        one, two = (spy.told[0] for spy in spies)
        assert torch.equal(one["category"][order], two["category"])
        assert torch.allclose(one["garment"][order], two["garment"], atol=1e-5)
        assert torch.equal(one["time"][order], two["time"])


def test_a_dropout_flag_does_not_shift_the_noise(model: DiT, batch: dict[str, Any]) -> None:
    noisy = [told_with(model, batch, garment_dropout=p, category_dropout=p)["noisy"] for p in (0.0, 0.5)]
    assert torch.equal(*noisy)


def test_hiding_leaves_the_conditions_that_it_was_asked_of() -> None:
    told = Conditions(torch.ones(2, 5, 2, 2), torch.ones(2, 4, 2, 2), torch.tensor([0, 1]))
    hidden = told.hiding(torch.tensor([True, False]), torch.tensor([False, True]))
    assert hidden.garment.sum(dim=(1, 2, 3)).tolist() == [0, 16]
    assert hidden.category.tolist() == [0, NO_CATEGORY]
    assert told.garment.all()
    assert told.category.tolist() == [0, 1]
    assert told.hiding(torch.tensor([True, True])).category.tolist() == [0, 1]


def test_the_frequency_loss_weighs_an_error_by_how_peaked_it_is() -> None:
    """One wave of the same energy as white noise costs more: it stands out of the spectrum."""
    rows = torch.arange(16) / 16
    wave = (2 * torch.pi * 3 * rows).cos().expand(1, 1, 16, 16)
    noise = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    noise *= wave.norm() / noise.norm()
    assert frequency_loss(wave) > 1.5 * frequency_loss(noise)
    assert frequency_loss(torch.zeros(2, 4, 6, 5)).tolist() == [0, 0]
    assert torch.allclose(frequency_loss(2 * wave), 4 * frequency_loss(wave))


def test_the_frequency_loss_comes_on_top(model: DiT, batch: dict[str, Any]) -> None:
    plain, more, most = (
        dit_loss(model, FlowMatching(), batch, generators(), freq_loss_weight=w) for w in (0.0, 1.0, 2.0)
    )
    assert (more > plain).all()
    assert torch.allclose(most - more, more - plain, rtol=1e-3)


def test_snr_weighting_is_for_ddpm(model: DiT, batch: dict[str, Any]) -> None:
    times = torch.tensor([5.0, 300.0, 800.0])
    plain, weighted = (
        dit_loss(model, DDPM(), batch, generators(), times=times, snr_gamma=gamma) for gamma in (None, 5.0)
    )
    assert (weighted < plain).tolist() == [True, False, False]
    with pytest.raises(cs.ArgumentError, match=r"--snr_gamma 5.0 weighs .* --objective ddpm"):
        dit_loss(model, FlowMatching(), batch, generators(), snr_gamma=5.0)


def test_pose_is_needed_where_the_network_takes_it(model: DiT, batch: dict[str, Any]) -> None:
    without = {name: value for name, value in batch.items() if name != "pose"}
    with pytest.raises(cs.ArgumentError, match="no 'pose' pictures, only cloth, image, masked"):
        dit_loss(model, FlowMatching(), without, generators())


def dressed(count: int, colours: torch.Generator) -> dict[str, Any]:
    """Latents of persons who are nothing but the colour of their garment."""
    mean = torch.randn(count, 1, 4, 1, 1, generator=colours).expand(-1, -1, -1, 8, 6)
    latents = torch.cat([mean, torch.zeros_like(mean)], dim=1)
    return {
        "image_latents": latents,
        "masked_latents": torch.zeros_like(latents),
        "cloth_latents": latents,
        "agnostic_mask": torch.ones(count, 1, 8, 6),
        "category": torch.zeros(count, dtype=torch.long),
        "sample_id": [str(number) for number in range(count)],
    }


@BOTH
def test_the_loss_falls_in_a_few_steps_and_the_garment_comes_to_matter(name: str) -> None:
    built, objective = build_dit("tiny", seed=1), OBJECTIVES[name]()
    colours = torch.Generator().manual_seed(0)
    test = dressed(16, colours)

    @torch.no_grad()
    def held_out(time: float, **flags: float) -> float:
        noise = sample_generators(0, "held-out", 0, test["sample_id"])
        return dit_loss(built, objective, test, noise, times=torch.full((16,), time), **flags).mean().item()

    before = held_out(500.0)
    optimizer = torch.optim.AdamW(built.network.parameters(), lr=5e-3, weight_decay=0.0)
    for step in range(40):
        batch = dressed(8, colours)
        noise = sample_generators(0, "training", step, batch["sample_id"])
        optimizer.zero_grad()
        dit_loss(built, objective, batch, noise, garment_dropout=0.1).mean().backward()
        optimizer.step()
    assert held_out(500.0) < 0.5 * before
    if name == "flow":  # in pure noise only the garment tells the colour; about the noise it tells nothing
        assert held_out(1000.0) < 0.75 * held_out(1000.0, garment_dropout=1.0)


def test_flags_that_contradict_each_other_are_refused() -> None:
    for words, message in {
        "--snr_gamma 5": "--objective ddpm",
        "--num_epochs 4 --max_train_steps 9": "Keep the one you mean",
        "--num_epochs 0": "1 or more",
        "--samples_per_epoch 0": "1 or more",
        "--category_dropout_prob 1.5": "from 0 to 1",
        "--freq_loss_weight=-1": "0 or more",
    }.items():
        with pytest.raises(cs.ArgumentError, match=message):
            parse_arguments(["--data_root", "shards", *words.split()])


def test_presets_choose_the_size_and_a_flag_wins() -> None:
    full, tiny = (parse_arguments(["--data_root", "x", "--model_preset", name]) for name in ("full", "tiny"))
    assert (full.model_size, full.height, full.width, full.adam_weight_decay) == ("l_2", 512, 384, 0.0)
    assert (tiny.model_size, tiny.objective) == ("tiny", "flow")
    assert parse_arguments(["--data_root", "x", "--model-size", "xl_2"]).model_size == "xl_2"
