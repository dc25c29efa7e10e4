"""Logs every step to W&B, offline; prints wall and CPU seconds of a step, start-up left out."""

import sys
import time

import torch
import wandb
from torch import nn

WIDTH, LAYERS, BATCH, WARM_UP = 256, 6, 64, 50

torch.manual_seed(0)
torch.set_num_threads(1)
layers = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
net = nn.Sequential(*layers, nn.Linear(WIDTH, 1))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
data = torch.randn(BATCH, WIDTH)
steps = int(sys.argv[1])

run = wandb.init(project="benchmark", mode="offline", settings=wandb.Settings(silent=True))
for step in range(WARM_UP + steps):
    if step == WARM_UP:
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
    optimizer.zero_grad()
    loss = (net(data) - data.mean(1, keepdim=True)).square().mean()
    loss.backward()
    optimizer.step()
    run.log({"loss": loss.item()})
print((time.perf_counter() - began_s) / steps, (time.process_time() - cpu_began_s) / steps)
run.finish()
