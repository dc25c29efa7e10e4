"""An actor and two critics, each with its optimizer, and slow copies that only follow."""

import copy
import json

import torch
from torch import nn

torch.manual_seed(0)


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2), nn.Tanh())

    def forward(self, state):
        return self.net(state)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(7, 16), nn.Linear(16, 1)

    def forward(self, state, action):
        return self.last(torch.relu(self.first(torch.cat([state, action], 1))))


actor, critic = Actor(), Critic()
target = copy.deepcopy(critic)
actor_optimizer = torch.optim.Adam(actor.parameters(), lr=1e-3)
critic_optimizer = torch.optim.AdamW(critic.parameters(), lr=1e-2)

history = {"critic": [], "actor": [], "critic_grad_norm": [], "actor_grad_norm": []}
for step in range(12):
    state, action = torch.randn(32, 5), torch.rand(32, 2)
    reward, following = torch.randn(32, 1), torch.randn(32, 5)
    with torch.no_grad():
        goal = reward + 0.9 * target(following, actor(following))
    critic_loss = nn.functional.mse_loss(critic(state, action), goal)
    critic_optimizer.zero_grad()
    critic_loss.backward()
    norm = nn.utils.clip_grad_norm_(critic.parameters(), 0.5)
    critic_optimizer.step()
    history["critic"].append(critic_loss.item())
    history["critic_grad_norm"].append(norm.item())

    if step % 2 == 0:  # the actor learns half as often
        actor_loss = -critic(state, actor(state)).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in actor.parameters()])
        actor_optimizer.step()
        history["actor"].append(actor_loss.item())
        history["actor_grad_norm"].append(norm.item())

    with torch.no_grad():
        for slow, fast in zip(target.parameters(), critic.parameters()):
            slow.lerp_(fast, 0.05)

torch.save([m.state_dict() for m in (actor, critic, target)], "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
