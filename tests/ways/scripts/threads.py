"""Trials that train in threads: one after the other, at the same time, or first in none."""

import json
import sys
import threading

import torch
from torch import nn

way = sys.argv[1]
history = {"losses": {}}
models = {}
turn = threading.Barrier(2)


def trial(number):
    generator = torch.Generator().manual_seed(number)
    model, optimizer = models[number]
    losses = []
    for _ in range(24):
        if way == "at_once":
            turn.wait()  # none runs ahead: each step of one lies between two of the other
        x = torch.randn(16, 4, generator=generator)
        loss = (model(x).squeeze() - x[:, 0] * (number + 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    history["losses"][number] = losses


for number in range(2):
    torch.manual_seed(number)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    models[number] = model, torch.optim.SGD(model.parameters(), lr=0.1)

if way == "moved":
    trial(0)
threads = [threading.Thread(target=trial, args=(number,)) for number in range(way == "moved", 2)]
for thread in threads:
    thread.start()
    if way == "in_turn":
        thread.join()
for thread in threads:
    thread.join()

history["losses"] = [history["losses"][number] for number in range(2)]
torch.save([model.state_dict() for model, _ in models.values()], "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
