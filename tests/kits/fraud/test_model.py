import pytest
import torch

from kits.fraud.brief import BriefScorer, FraudDetector
from kits.fraud.encode import GAP_WIDTH, EventEncoder, PiecewiseLinear, encode_gap
from kits.fraud.model import LstmGat
from kits.fraud.model_config import BriefConfig, LstmGatConfig

B, K, N, F, C = 5, 16, 32, 7, 2
ROLE = torch.arange(N) // 16 + 1


def build(**settings) -> LstmGat:
    torch.manual_seed(0)
    model = LstmGat(LstmGatConfig(**settings), F, C, ROLE)
    features = torch.randn(500, F, generator=torch.Generator().manual_seed(1)) * 50
    model.fit_inputs(features, 0.01)
    return model.eval()


def inputs(batch: int = B) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    x_neighbours = torch.randn(batch, N, F, generator=generator) * 50
    x_neighbours[0, 0, 0] = torch.nan
    return {
        "x_history": torch.randn(batch, K, F, generator=generator) * 50,
        "c_history": integers(0, 300, batch, K, C),
        "history_gap": integers(0, 10**7, batch, K).float(),
        "history_mask": torch.arange(K) >= integers(0, K, batch, 1),
        "history_status": integers(-1, 2, batch, K),
        "x_neighbours": x_neighbours,
        "c_neighbours": integers(0, 300, batch, N, C),
        "neighbour_gap": integers(0, 10**7, batch, N).float(),
        "neighbour_mask": integers(0, 2, batch, N).bool(),
        "neighbour_status": integers(-1, 2, batch, N),
    }


@pytest.mark.parametrize(
    "settings", [{}, {"graph": "off"}, {"sequence": "off"}, {"graph": "off", "sequence": "off"}]
)
def test_each_variant_gives_one_finite_logit_and_learns_with_all_it_has(settings):
    model = build(**settings)
    batch = inputs()
    if settings.get("graph") == "off":
        batch = {name: value for name, value in batch.items() if "neighbour" not in name}
    logit = model(batch)
    assert logit.shape == (B,)
    assert bool(logit.isfinite().all())
    logit.sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The target score shifts all neighbours of an event alike; with nobody else it still counts.
    assert without == []


def test_padded_slots_leave_the_logits_bit_equal():
    model, batch = build(), inputs()
    changed = {name: value.clone() for name, value in batch.items()}
    for kind, mask in (
        ("history", ~batch["history_mask"]),
        ("neighbour", ~batch["neighbour_mask"]),
    ):
        features = "x_history" if kind == "history" else "x_neighbours"
        codes = "c_history" if kind == "history" else "c_neighbours"
        changed[features][mask] = 1e6
        changed[codes][mask] = 3
        changed[f"{kind}_gap"][mask] = 12.0
        changed[f"{kind}_status"][mask] = 1
    assert torch.equal(model(batch), model(changed))


def test_order_of_the_neighbours_of_a_role_does_not_matter():
    model, batch = build(), inputs()
    order = torch.cat([torch.randperm(16), 16 + torch.randperm(16)])
    permuted = {
        name: value[:, order] if "neighbour" in name else value for name, value in batch.items()
    }
    # Sums of 32 float32 terms in another order.
    torch.testing.assert_close(model(permuted), model(batch), atol=1e-6, rtol=1e-6)
    swapped = {
        name: value.roll(16, dims=1) if "neighbour" in name else value
        for name, value in batch.items()
    }
    assert not torch.allclose(model(swapped), model(batch), atol=1e-4)


def test_known_status_and_age_of_a_neighbour_matter():
    model, batch = build(), inputs()
    for name, value in (("neighbour_status", 1), ("neighbour_gap", 60.0)):
        other = batch | {name: torch.full_like(batch[name], value)}
        assert not torch.equal(model(other), model(batch))


def test_summary_of_no_neighbours_is_zero():
    model, batch = build(), inputs()
    hidden, nobody = torch.randn(B, 128), torch.zeros(B, N, dtype=torch.bool)
    summary = model.gat(
        hidden, torch.randn(B, N, 64), batch["neighbour_gap"], batch["neighbour_status"], nobody
    )
    assert torch.equal(summary, torch.zeros(B, 64))


def test_attention_equals_its_definition_node_by_node():
    model, batch = build(), inputs()
    gat, events, hidden = model.gat, torch.randn(B, N, 64), torch.randn(B, 128)
    gap, status, valid = (batch[f"neighbour_{k}"] for k in ("gap", "status", "mask"))
    got = gat(hidden, events, gap, status, valid)

    node = gat.event(events) + gat.age(encode_gap(gap))
    node = node + gat.status_vector(status + 1) + gat.role_vector(gat.role)
    values = gat.source(node).view(B, N, 4, 16)
    for b in range(B):
        for h in range(4):
            rows = valid[b].nonzero().flatten()
            scores = values[b, rows, h] @ gat.attention_source[h] + gat.target(hidden[b])[h]
            scores = scores + gat.role_score(gat.role[rows])[:, h]
            weight = torch.nn.functional.leaky_relu(scores, 0.2).exp()
            expected = (weight[:, None] * values[b, rows, h]).sum(0) / (1 + weight.sum())
            # The projections are composed in another order in float32.
            torch.testing.assert_close(got[b, 16 * h : 16 * h + 16], expected, atol=1e-5, rtol=1e-5)


def test_standardised_inputs_give_the_same_logits_as_raw_ones():
    model, batch = build(), inputs()
    standardised = dict(batch)
    for name in ("history", "neighbours"):
        standardised[f"z_{name}"] = model.encoder.standardise(standardised.pop(f"x_{name}"))
    assert torch.equal(model(standardised), model(batch))


def test_encoder_standardises_by_training_rows_and_tolerates_anything():
    encoder = EventEncoder(4, 0, 8, 2)
    x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)).exp() * 100
    x[:, 2], x[:, 3] = 5.0, torch.nan
    x[::3, 0] = torch.nan
    encoder.fit(x)
    z = encoder.standardise(x)
    torch.testing.assert_close(z[1::3, 0].mean(), torch.tensor(0.0), atol=0.1, rtol=0)
    torch.testing.assert_close(z[:, 1].std(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert not z[:, 2:].any()
    assert not z[::3, 0].any()
    wild = encoder.standardise(torch.tensor([[torch.inf, -torch.inf, torch.nan, 1e30]]))
    assert bool(wild.isfinite().all())
    assert float(wild.abs().max()) <= 10


def test_ramps_put_their_knots_at_the_quantiles():
    ramps = PiecewiseLinear(1, 5)
    ramps.fit(torch.arange(10001.0)[:, None])
    inner = ramps.knots[0, 1:-1]
    expected = 10000 * (1 - (1 - torch.tensor([0.25, 0.5, 0.75])) ** 3)
    torch.testing.assert_close(inner, expected, rtol=1e-3, atol=1)
    out = ramps(torch.tensor([[-1.0], [float(inner[0])], [20000.0]]))
    assert out.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_gap_code_is_finite_from_now_to_decades_ago():
    code = encode_gap(torch.tensor([0.0, 1.0, 3600.0, 1e9]))
    assert code.shape == (4, GAP_WIDTH)
    assert float(code.abs().max()) <= 4


# nn.LSTM keeps a list of its weights beside the parameters, which torch.export remarks upon.
@pytest.mark.filterwarnings("ignore:The tensor attributes self.lstm")
def test_model_exports_and_the_export_agrees():
    model, batch = build(), inputs(1)
    exported = torch.export.export(model, (batch,), strict=False).module()
    torch.testing.assert_close(exported(batch), model(batch), atol=1e-6, rtol=1e-6)


def test_detector_of_the_brief_runs_as_written():
    torch.manual_seed(0)
    detector, adjacency = FraudDetector(), torch.rand(6, 6) < 0.5
    assert detector(torch.randn(6, 64), adjacency).shape == (6,)
    assert detector(torch.randn(3, 6, 64), adjacency).shape == (3, 64)


def test_scorer_of_the_brief_never_looks_ahead():
    torch.manual_seed(0)
    scorer = BriefScorer(F, C, 10)
    scorer.fit_inputs(torch.randn(300, F), 0.02)
    x, codes = torch.randn(2, 9, F), torch.randint(0, 20, (2, 9, C))
    adjacency = (torch.rand(2, 9, 9) < 0.5).tril(-1)
    logit = scorer({"x": x, "c": codes, "adjacency": adjacency})
    assert logit.shape == (2, 9)
    later = x.clone()
    later[:, 5:] += 3
    changed = scorer({"x": later, "c": codes, "adjacency": adjacency})
    torch.testing.assert_close(changed[:, :5], logit[:, :5], atol=1e-6, rtol=1e-6)
    assert bool((changed[:, 5:] != logit[:, 5:]).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"graph": "maybe"}, "model.graph='maybe' is not one of on, off, shuffled"),
        ({"heads": 3}, "model.graph_width=64 does not divide"),
        ({"dropout": 1.0}, r"model.dropout=1.0 is not in \[0, 1\)"),
        ({"legitimate_per_fraud": 0.0}, "model.legitimate_per_fraud=0.0 is not positive"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LstmGatConfig(**settings)


def test_window_of_the_brief_must_have_two_halves():
    with pytest.raises(ValueError, match=r"model\.window=7 is not even"):
        BriefConfig(window=7)
