import torch

from deepseek.graphs import GraphAttentionLayer
from kernels import gat

SNIPPET = """
import torch, torch.nn as nn
from deepseek.graphs import GraphAttentionLayer
class FraudDetector(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(input_size=64, hidden_size=128)
        self.gat = GraphAttentionLayer(128, 64)
    def forward(self, x, adj_matrix):
        lstm_out, _ = self.lstm(x)
        gat_out = self.gat(lstm_out, adj_matrix)
        return torch.sigmoid(gat_out.mean(dim=1))
"""


def test_facade_holds_no_logic_of_its_own():
    assert GraphAttentionLayer is gat.GraphAttentionLayer


def test_snippet_runs_verbatim():
    names: dict = {}
    exec(SNIPPET, names)
    torch.manual_seed(0)
    model = names["FraudDetector"]()
    adj = torch.rand(9, 9) < 0.3
    for x, shape in [(torch.randn(9, 64), (9,)), (torch.randn(4, 9, 64), (4, 64))]:
        probabilities = model(x, adj)
        assert probabilities.shape == shape
        assert bool(((probabilities > 0) & (probabilities < 1)).all())
        probabilities.sum().backward()
    assert model.gat.projection.weight.grad.abs().sum() > 0
