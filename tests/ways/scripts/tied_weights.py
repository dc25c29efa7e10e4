"""A small language model whose input and output embeddings are one matrix."""

import json

import torch
from torch import nn

torch.manual_seed(0)
tokens = torch.randint(0, 20, (8, 9))


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.encoder(self.embedding(tokens), src_mask=mask, is_causal=True))


model = LanguageModel()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
history = {"loss": [], "grad_norm": [], "tied_grad_norm": []}
for step in range(8):
    logits = model(tokens[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    history["loss"].append(loss.item())
    history["tied_grad_norm"].append(model.embedding.weight.grad.norm().item())
    history["grad_norm"].append(
        nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    )
    optimizer.step()

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
