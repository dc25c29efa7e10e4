"""Policy gradient on a small corridor: walk right to the goal, rewards are noisy."""

import argparse

import torch
from torch import nn
from torch.distributions import Categorical

p = argparse.ArgumentParser()
p.add_argument("--updates", type=int, default=200)
p.add_argument("--lr", type=float, default=5e-3)
p.add_argument("--entropy", type=float, default=0.05)
p.add_argument("--value", action="store_true", help="actor and critic")
p.add_argument("--seed", type=int, default=0)
args = p.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

CELLS, HORIZON, WALKERS = 9, 16, 32
policy = nn.Sequential(nn.Linear(CELLS, 32), nn.Tanh(), nn.Linear(32, 2))
params = list(policy.parameters())
if args.value:
    critic = nn.Sequential(nn.Linear(CELLS, 32), nn.Tanh(), nn.Linear(32, 1))
    params += critic.parameters()
optimizer = torch.optim.Adam(params, lr=args.lr)
eye = torch.eye(CELLS)

for update in range(args.updates):
    cell = torch.full((WALKERS,), CELLS // 2)
    log_probs, rewards, entropies, values = [], [], [], []
    for _ in range(HORIZON):
        dist = Categorical(logits=policy(eye[cell]))
        if args.value:
            values.append(critic(eye[cell]).squeeze(1))
        action = dist.sample()
        cell = (cell + 2 * action - 1).clamp(0, CELLS - 1)
        log_probs.append(dist.log_prob(action))
        entropies.append(dist.entropy())
        rewards.append((cell == CELLS - 1).float() + 0.3 * torch.randn(WALKERS))
    to_go = torch.stack(rewards).flip(0).cumsum(0).flip(0)
    if args.value:
        values = torch.stack(values)
        advantage = to_go - values.detach()
    else:
        advantage = to_go - to_go.mean(1, keepdim=True)
    advantage = advantage / (advantage.std() + 1e-6)
    loss = -(torch.stack(log_probs) * advantage).mean()
    loss = loss - args.entropy * torch.stack(entropies).mean()
    if args.value:
        loss = loss + 0.05 * (to_go - values).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if update % 20 == 0:
        print(f"update {update} return {torch.stack(rewards).sum(0).mean():.2f} loss {loss:.3f}")
