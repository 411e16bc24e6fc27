"""The training of `sprites-wan`: few text tokens stand for 512, and the VAE starts per frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from tiny_wan import TRANSFORMER, WIDTH

from freemask.editors.wan_vae import WanVae
from freemask.modules.sprites import FlowTraining, padding_bias
from tools.sprites import networks, train
from tools.sprites.wan import (
    ShortTextAttention,
    build_wan_tokenizer,
    make_text_encoder,
    make_transformer,
    make_vae,
)
from tools.sprites.wan_data import (
    LENGTHS,
    TOKENS,
    ClipBatches,
    caption_tokens,
    encoded,
    encoder_hash,
)

CAPTIONS = ["a bear moving left on the grass", "a red panda moving up on the sand"]


def test_few_padding_tokens_stand_for_all() -> None:
    torch.manual_seed(0)
    model = WanTransformer3DModel(**TRANSFORMER).eval()
    latents, mask = torch.randn(2, 4, 3, 8, 8), torch.zeros(2, 9)
    mask[0, :5], mask[1, :8] = 1, 1
    text = torch.randn(2, 9, WIDTH) * mask[..., None]
    full = torch.cat([text, torch.zeros(2, 512 - 9, WIDTH)], dim=1)
    timestep = torch.tensor([300.5, 700.0])
    with torch.no_grad():
        expected = model(latents, timestep, full).sample
        attention = ShortTextAttention()
        model.set_attn_processor(attention)
        attention.set_bias(padding_bias(mask))
        found = model(latents, timestep, text).sample
        attention.set_bias(torch.zeros(2, 1, 1, 9))
        without = model(latents, timestep, text).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (without - expected).abs().max() > 1e-3


def test_the_vae_starts_with_each_latent_frame_on_its_own() -> None:
    vae = make_vae(-6.0)
    clip = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    other = clip.clone()
    other[:, :, [1, 2, 3, 5, 6, 7]] = 0  # frames 0, 4 and 8 are the last of their latent frames
    with torch.no_grad():
        found, same = (vae.encode(x).latent_dist.mean for x in (clip, other))
        decoded = vae.decode(found).sample
    torch.testing.assert_close(found, same)
    torch.testing.assert_close(decoded[:, :, 1:5], decoded[:, :, 4:5].expand(-1, -1, 4, -1, -1))


def test_the_loss_is_that_of_the_velocity() -> None:
    tokenizer = build_wan_tokenizer(CAPTIONS)
    seen, bias = [], []
    clean, noise = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 4, 3, 8, 8)

    class Exact(torch.nn.Module):
        error = 0.0

        def forward(self, noisy, timestep, states, return_dict):
            seen.append((timestep, states))
            return (noise - clean + self.error,)

    batch = {"latents": clean, **caption_tokens(tokenizer, CAPTIONS)}
    network = Exact()
    module = FlowTraining(
        network, make_text_encoder(tokenizer), bias.append, held_out=batch,
        learning_rate=1e-3, total_steps=1,
    )  # fmt: skip
    levels = torch.tensor([0.25, 0.75])
    assert module.loss(batch, levels, noise) == pytest.approx(0)
    assert seen[0][0].tolist() == [250, 750]
    used = batch["mask"].sum(1)
    for row, count in enumerate(used.tolist()):
        assert (seen[0][1][row, count:] == 0).all()
        assert bias[0][row, 0, 0, count] == pytest.approx(torch.tensor(512.0 - count).log())
    network.error = 2.0
    assert module.loss(batch, levels, noise) == pytest.approx(4, rel=1e-5)


def test_batches_of_neighbouring_processes_have_one_length() -> None:
    tokenizer = build_wan_tokenizer(CAPTIONS)
    pools = [
        {"latents": torch.randn(2, 8, frames, 16, 16).half(), "captions": CAPTIONS}
        for frames in (3, 4)
    ]
    batches = ClipBatches(pools, tokenizer, count=40, processes=2)
    lengths = [batches[n]["latents"].shape[2] for n in range(len(batches))]
    assert lengths[::2] == lengths[1::2]
    assert set(lengths) == {1, 2, 3, 4}
    one = batches[0]
    assert one["tokens"].shape == one["mask"].shape == (len(one["latents"]), TOKENS)


def test_single_frames_recede_to_their_share_in_the_first_part_of_a_training() -> None:
    tokenizer = build_wan_tokenizer(CAPTIONS)
    pools = [{"latents": torch.randn(2, 8, 4, 16, 16).half(), "captions": CAPTIONS}]

    def singles(early: bool) -> list[float]:
        batches = ClipBatches(pools, tokenizer, count=2000, processes=2, early=early)
        seen = [batches[n]["latents"].shape[2] == 1 for n in range(0, 2000, 2)]
        return [sum(part) / len(part) for part in (seen[:100], seen[500:])]

    first, later = singles(early=True)
    assert first > 0.7
    assert abs(later - LENGTHS[1]) < 0.1
    assert abs(singles(early=False)[0] - LENGTHS[1]) < 0.15


def test_some_clips_have_no_object_and_the_decoder_does_not_decide_their_latents() -> None:
    vae = make_vae(-6.0).eval()
    latents, captions = encoded(WanVae(vae), [0, 1], "train", 9, (16, 16))
    assert latents.shape[:1] == (2,)
    assert captions[0].startswith("the ")
    assert " moving " in captions[1]
    weights = vae.state_dict()
    before = encoder_hash(weights)
    changed = {k: w + 1 if k.startswith("decoder.") else w for k, w in weights.items()}
    assert encoder_hash(changed) == before
    assert encoder_hash({k: torch.lerp(w, w, 0.1) for k, w in weights.items()}) == before
    changed = {k: w + 1 if k.startswith("quant_conv.") else w for k, w in weights.items()}
    assert encoder_hash(changed) != before


def test_a_warm_start_continues_with_the_exported_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = build_wan_tokenizer(CAPTIONS)
    text_encoder, transformer = make_text_encoder(tokenizer), make_transformer()
    torch.nn.init.normal_(transformer.proj_out.weight)
    text_encoder.half().save_pretrained(tmp_path / "sprites-wan" / "text_encoder")
    transformer.half().save_pretrained(tmp_path / "sprites-wan" / "transformer")
    latents = torch.zeros(2, 12, 3, 16, 16)
    pool = {"latents": latents, "captions": CAPTIONS}
    trained = []
    for module in (train, networks):
        monkeypatch.setattr(module, "ASSETS", tmp_path)
    monkeypatch.setattr(train, "latent_pools", lambda *_: [pool])
    monkeypatch.setattr(train, "exported_vae", lambda: None)
    monkeypatch.setattr(train, "encoded", lambda *_: (latents, CAPTIONS))
    monkeypatch.setattr(train, "fit", lambda work, stage, module, *_: trained.append(module))
    train.train_wan(tmp_path, 1, warm_start=True)
    (module,) = trained
    for part, kept in ((module.transformer, transformer), (module.text_encoder, text_encoder)):
        for name, weight in kept.state_dict().items():
            assert torch.equal(part.state_dict()[name], weight.float()), name
